// Package manifesttest checks the Kubernetes manifests without a cluster: it builds
// the kustomization, decodes what comes out strictly into the types of k8s.io/api,
// and follows every name from where it is used to where it is defined. It is a
// module of its own, so that raftbench does not depend on Kubernetes.
package manifesttest
