// Package etcdtest proves package trace on the log of a real etcd server, which it
// runs in its test. It is a package of its own because that server is most of
// etcd: the tests of package trace need none of it.
package etcdtest
