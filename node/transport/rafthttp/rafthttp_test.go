package rafthttp

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	etcdtransport "go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/internal/certtest"
	"github.com/raftbench/raftbench/node/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTransport(t *testing.T) {
	transporttest.Run(t, func(t testing.TB) node.Network { return New(Options{Dir: t.TempDir()}) })
}

// The same over mutual TLS with fixed addresses, as between hosts; the cases that
// open a connection suffice.
func TestTransportOverTLS(t *testing.T) {
	ca := certtest.New(t)
	for _, c := range transporttest.Cases() {
		switch c.Name {
		case "Delivers", "Unreachable", "Reconnect":
			t.Run(c.Name, func(t *testing.T) {
				c.Check(t, func(t testing.TB) node.Network { return newHosts(t, ca) })
			})
		}
	}
}

func BenchmarkTransport(b *testing.B) {
	transporttest.Bench(b, func(t testing.TB) node.Network { return New(Options{Dir: t.TempDir()}) })
}

// hosts is one Network per node, as if each ran on its own host.
type hosts map[uint64]*Network

func newHosts(t testing.TB, ca *certtest.Authority) hosts {
	t.Helper()
	peers := make(map[uint64]string)
	for id := uint64(1); id <= 3; id++ {
		peers[id] = transporttest.FreeAddr(t)
	}
	h := make(hosts)
	for id := range peers {
		h[id] = New(Options{Peers: peers, TLS: tlsFiles(t, ca), Cluster: "run 7", Dir: t.TempDir()})
	}
	return h
}

func tlsFiles(t testing.TB, ca *certtest.Authority) etcdtransport.TLSInfo {
	t.Helper()
	cert, key, authority := ca.Files(t)
	return etcdtransport.TLSInfo{CertFile: cert, KeyFile: key, TrustedCAFile: authority, ClientCertAuth: true}
}

func (h hosts) Join(id uint64, r node.Receiver) (node.Transport, error) { return h[id].Join(id, r) }

func (h hosts) Settled(from, to uint64) bool { return h[from].Settled(from, to) }

func (h hosts) Close() error {
	var errs []error
	for _, n := range h {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}

// sink counts what a node gets.
type sink struct {
	mu                         sync.Mutex
	taken, unreachable, failed int
}

func (s *sink) Process(context.Context, *raftpb.Message) error { s.count(&s.taken); return nil }
func (s *sink) ReportUnreachable(uint64)                       { s.count(&s.unreachable) }
func (s *sink) ReportSnapshot(_ uint64, status raft.SnapshotStatus) {
	if status == raft.SnapshotFailure {
		s.count(&s.failed)
	}
}

func (s *sink) count(n *int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n++
}

func (s *sink) counts() (taken, unreachable, failed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken, s.unreachable, s.failed
}

func join(t *testing.T, n *Network, id uint64) (node.Transport, *sink) {
	t.Helper()
	s := new(sink)
	tr, err := n.Join(id, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(tr.Close(), n.Close()); err != nil {
			t.Error(err)
		}
	})
	return tr, s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func snapshotTo(to, index uint64) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgSnap.Enum(), To: &to, From: new(uint64(1)), Term: new(uint64(1)),
		Snapshot: &raftpb.Snapshot{Data: []byte("state"), Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: new(uint64(1))}}}
}

// A node that is not of the run, or has no certificate that counts, gets nothing
// to a node by any of etcd's three ways.
func TestAdmission(t *testing.T) {
	ca := certtest.New(t)
	for _, c := range []struct {
		name     string
		stranger func(peers map[uint64]string) Options
		admitted bool
	}{
		{"one of us", func(p map[uint64]string) Options {
			return Options{Peers: p, Cluster: "run", TLS: tlsFiles(t, ca)}
		}, true},
		{"another cluster", func(p map[uint64]string) Options {
			return Options{Peers: p, Cluster: "other", TLS: tlsFiles(t, ca)}
		}, false},
		{"plain HTTP", func(p map[uint64]string) Options { return Options{Peers: p, Cluster: "run"} }, false},
		{"another authority", func(p map[uint64]string) Options {
			files := tlsFiles(t, certtest.New(t))
			files.TrustedCAFile = tlsFiles(t, ca).TrustedCAFile
			return Options{Peers: p, Cluster: "run", TLS: files}
		}, false},
		{"server not trusted", func(p map[uint64]string) Options {
			return Options{Peers: p, Cluster: "run", TLS: tlsFiles(t, certtest.New(t))}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			peers := map[uint64]string{1: transporttest.FreeAddr(t), 2: transporttest.FreeAddr(t)}
			_, good := join(t, New(Options{Peers: peers, Cluster: "run", TLS: tlsFiles(t, ca), Dir: t.TempDir()}), 2)
			opts := c.stranger(peers)
			opts.Dir = t.TempDir()
			bad, reports := join(t, New(opts), 1)
			// The first messages go by POST, later ones by the streams, if any.
			eventually(t, "messages arrive, or are reported", func() bool {
				bad.Send([]*raftpb.Message{{Type: raftpb.MsgVote.Enum(), To: new(uint64(2)), From: new(uint64(1)), Term: new(uint64(1))}})
				taken, _, _ := good.counts()
				_, unreachable, _ := reports.counts()
				return taken > 0 || unreachable > 3
			})
			bad.Send([]*raftpb.Message{snapshotTo(2, 1)})
			if !c.admitted {
				eventually(t, "the snapshot fails", func() bool { _, _, failed := reports.counts(); return failed == 1 })
			}
			if taken, _, _ := good.counts(); (taken > 0) != c.admitted {
				t.Errorf("the node was given %d messages", taken)
			}
		})
	}
}

// Only the data of the last snapshot is kept, and nothing once the node has left.
func TestSnapshotFiles(t *testing.T) {
	dir := t.TempDir()
	n := New(Options{Dir: dir})
	from, err := n.Join(1, new(sink))
	if err != nil {
		t.Fatal(err)
	}
	got := new(sink)
	to, err := n.Join(2, got)
	if err != nil {
		t.Fatal(err)
	}
	files := func() []string {
		all, err := filepath.Glob(filepath.Join(dir, "rafthttp-2-*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	for i := uint64(1); i <= 20; i++ {
		from.Send([]*raftpb.Message{snapshotTo(2, i)})
		eventually(t, "the snapshot arrives", func() bool { taken, _, _ := got.counts(); return taken == int(i) })
		if all := files(); len(all) != 1 {
			t.Fatalf("after %d snapshots there are %q", i, all)
		}
	}
	if err := errors.Join(to.Close(), from.Close(), n.Close()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestJoinRefuses(t *testing.T) {
	dir := t.TempDir()
	n := New(Options{Listen: transporttest.FreeAddr(t), Dir: dir})
	a, err := n.Join(1, new(sink))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []uint64{0, 1, 2} { // 2 because the address is taken
		if _, err := n.Join(id, new(sink)); err == nil {
			t.Errorf("node %d was let in", id)
		}
	}
	if err := n.Close(); err == nil {
		t.Error("closing a network with an open transport is no error")
	}
	if err := errors.Join(a.Close(), n.Close()); err != nil {
		t.Error(err)
	}
	if _, err := n.Join(1, new(sink)); err == nil {
		t.Error("a closed network let a node in")
	}
	for name, opts := range map[string]Options{
		"no such folder":      {Dir: filepath.Join(dir, "none")},
		"no such certificate": {Dir: dir, TLS: etcdtransport.TLSInfo{CertFile: "none", KeyFile: "none"}},
	} {
		if _, err := New(opts).Join(1, new(sink)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
