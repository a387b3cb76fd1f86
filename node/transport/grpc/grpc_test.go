package grpc

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/internal/certtest"
	"github.com/raftbench/raftbench/node/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTransport(t *testing.T) {
	transporttest.Run(t, func(testing.TB) node.Network { return New(Options{}) })
}

// The same over mutual TLS with a token and fixed addresses, as between hosts; the
// cases that open a connection suffice.
func TestTransportOverTLS(t *testing.T) {
	ca := certtest.New(t)
	for _, c := range transporttest.Cases() {
		switch c.Name {
		case "Delivers", "Unreachable", "SnapshotReports", "Reconnect", "CloseDuringTraffic":
			t.Run(c.Name, func(t *testing.T) {
				c.Check(t, func(testing.TB) node.Network { return newHosts(t, ca) })
			})
		}
	}
}

func BenchmarkTransport(b *testing.B) {
	b.Run("tls=false", func(b *testing.B) {
		transporttest.Bench(b, func(testing.TB) node.Network { return New(Options{}) })
	})
	b.Run("tls=true", func(b *testing.B) {
		ca := certtest.New(b)
		transporttest.Bench(b, func(testing.TB) node.Network {
			return New(Options{TLS: ca.Config(b), Token: "secret"})
		})
	})
}

// hosts is one Network per node, as if each ran on its own host.
type hosts struct {
	nets map[uint64]*Network
}

func newHosts(t testing.TB, ca *certtest.Authority) *hosts {
	t.Helper()
	peers := make(map[uint64]string)
	for id := uint64(1); id <= 4; id++ {
		peers[id] = transporttest.FreeAddr(t)
	}
	h := &hosts{nets: make(map[uint64]*Network)}
	for id := range peers {
		h.nets[id] = New(Options{Peers: peers, TLS: ca.Config(t), Token: "secret", Cluster: "run 7"})
	}
	return h
}

func (h *hosts) Join(id uint64, r node.Receiver) (node.Transport, error) {
	return h.nets[id].Join(id, r)
}

func (h *hosts) Close() error {
	var errs []error
	for _, n := range h.nets {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}

// counter counts what a node gets.
type counter struct{ taken atomic.Int64 }

func (c *counter) Process(context.Context, *raftpb.Message) error { c.taken.Add(1); return nil }
func (*counter) ReportUnreachable(uint64)                         {}
func (*counter) ReportSnapshot(uint64, raft.SnapshotStatus)       {}

// serve joins node 1 to a network and returns its address.
func serve(t *testing.T, opts Options) (addr string, c *counter) {
	t.Helper()
	n, c := New(opts), new(counter)
	tr, err := n.Join(1, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(tr.Close(), n.Close()); err != nil {
			t.Error(err)
		}
	})
	return n.Addr(1), c
}

// call opens a stream as a client of its own and sends frames; it returns how the
// call ended.
func call(t *testing.T, addr, method string, creds credentials.TransportCredentials, md []string, frames ...[]byte) error {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), md...), time.Minute)
	defer cancel()
	st, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, method)
	if err != nil {
		return err
	}
	for _, b := range frames {
		if err := st.SendMsg(&frame{out: mem.SliceBuffer(b)}); err != nil {
			break // the reason comes from RecvMsg
		}
	}
	if err := st.CloseSend(); err != nil {
		t.Fatal(err)
	}
	return st.RecvMsg(new(frame))
}

func heartbeat(t *testing.T) []byte {
	t.Helper()
	m := &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(1)), From: new(uint64(2))}
	b, err := appendMessageOf(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func appendMessageOf(m *raftpb.Message) ([]byte, error) {
	encodedSize(m)
	return appendMessage(nil, m)
}

// Nothing gets in without credentials, or meant for someone else.
func TestAdmission(t *testing.T) {
	ca := certtest.New(t)
	good := []string{keyCluster, "run", keyTo, "1", keyToken, "Bearer secret"}
	mutual := credentials.NewTLS(ca.Config(t))
	for _, c := range []struct {
		name  string
		creds credentials.TransportCredentials
		md    []string
		want  codes.Code
	}{
		{"no token", mutual, good[:4], codes.Unauthenticated},
		{"wrong token", mutual, append(good[:4:4], keyToken, "Bearer other"), codes.Unauthenticated},
		{"two tokens", mutual, append(good[:6:6], keyToken, "Bearer other"), codes.Unauthenticated},
		{"another cluster", mutual, append(good[2:6:6], keyCluster, "other"), codes.FailedPrecondition},
		{"no cluster", mutual, good[2:], codes.FailedPrecondition},
		{"another node", mutual, append([]string{keyTo, "2"}, append(good[:2:2], good[4:]...)...), codes.FailedPrecondition},
		{"plain text", insecure.NewCredentials(), good, codes.Unavailable},
		{"no certificate", credentials.NewTLS(&tls.Config{RootCAs: ca.Pool(), ServerName: "127.0.0.1"}), good, codes.Unavailable},
		{"another authority", credentials.NewTLS(strangers(t, ca)), good, codes.Unavailable},
		{"server not trusted", credentials.NewTLS(certtest.New(t).Config(t)), good, codes.Unavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, taken := serve(t, Options{Cluster: "run", Token: "secret", TLS: ca.Config(t)})
			for _, method := range []string{methodMessages, methodSnapshot} {
				if err := call(t, addr, method, c.creds, c.md, heartbeat(t)); status.Code(err) != c.want {
					t.Errorf("%s: %v, want %v", method, err, c.want)
				}
			}
			if n := taken.taken.Load(); n != 0 {
				t.Errorf("the node was given %d messages", n)
			}
			if err := call(t, addr, methodMessages, mutual, good, heartbeat(t)); err != nil {
				t.Errorf("a good call after a bad one: %v", err)
			}
			if n := taken.taken.Load(); n != 1 {
				t.Errorf("a good call gave the node %d messages", n)
			}
		})
	}
}

// strangers is a configuration of another authority that trusts this one.
func strangers(t *testing.T, ca *certtest.Authority) *tls.Config {
	c := certtest.New(t).Config(t)
	c.RootCAs = ca.Pool()
	return c
}

// Oversized and malformed streams end with an error that says so; the node gets
// nothing of them.
func TestMalformed(t *testing.T) {
	const limit = 1 << 16
	snapshotOf := func(announced int) []byte {
		m := &raftpb.Message{Type: raftpb.MsgSnap.Enum(), To: new(uint64(1)), Snapshot: &raftpb.Snapshot{}}
		raw, err := appendMessageOf(m)
		if err != nil {
			t.Fatal(err)
		}
		_, n := binary.Uvarint(raw)
		return append(binary.AppendUvarint(nil, uint64(announced)), raw[n:]...)
	}
	beat := heartbeat(t)
	_, n := binary.Uvarint(beat)
	for _, c := range []struct {
		name, method string
		frames       [][]byte
		want         codes.Code
	}{
		{"too long", methodMessages, [][]byte{binary.AppendUvarint(nil, limit+1)}, codes.InvalidArgument},
		{"endless length", methodMessages, [][]byte{{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}}, codes.InvalidArgument},
		{"no message", methodMessages, [][]byte{{3, 0xff, 0xff, 0xff}}, codes.InvalidArgument},
		{"frame too long", methodMessages, [][]byte{make([]byte, 2*maxFrame+1)}, codes.ResourceExhausted},
		{"snapshot too long", methodSnapshot, [][]byte{snapshotOf(limit + 1)}, codes.InvalidArgument},
		{"snapshot longer than announced", methodSnapshot, [][]byte{snapshotOf(10), make([]byte, 11)}, codes.InvalidArgument},
		{"snapshot shorter than announced", methodSnapshot, [][]byte{snapshotOf(10), make([]byte, 9)}, codes.DataLoss},
		{"snapshot of nothing", methodSnapshot, [][]byte{{}}, codes.InvalidArgument},
		{"snapshot of another type", methodSnapshot, [][]byte{append([]byte{0}, beat[n:]...)}, codes.InvalidArgument},
		{"no such method", "/raftbench.Transport/Other", nil, codes.Unimplemented},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr, taken := serve(t, Options{MaxMessageBytes: limit, MaxSnapshotBytes: limit})
			md := []string{keyCluster, "", keyTo, "1"}
			if err := call(t, addr, c.method, insecure.NewCredentials(), md, c.frames...); status.Code(err) != c.want {
				t.Errorf("the call ended with %v, want %v", err, c.want)
			}
			if n := taken.taken.Load(); n != 0 {
				t.Errorf("the node was given %d messages", n)
			}
		})
	}
}

// The sender too keeps to the limit, and says what it dropped.
func TestSendTooLarge(t *testing.T) {
	n := New(Options{MaxMessageBytes: 1 << 10, MaxSnapshotBytes: 1 << 10})
	defer n.Close()
	r := &reports{counter: new(counter), failed: make(chan struct{}, 1), unreachable: make(chan struct{}, 1)}
	tr, err := n.Join(1, r)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	other, err := n.Join(2, new(counter))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	large := make([]byte, 1<<10+1)
	tr.Send([]*raftpb.Message{{Type: raftpb.MsgSnap.Enum(), To: new(uint64(2)), Snapshot: &raftpb.Snapshot{Data: large}}})
	<-r.failed
	tr.Send([]*raftpb.Message{{Type: raftpb.MsgApp.Enum(), To: new(uint64(2)), Entries: []*raftpb.Entry{{Data: large}}}})
	<-r.unreachable
	if s := tr.(node.StatsReporter).Stats(); s.Dropped != 2 {
		t.Errorf("%+v, want 2 dropped", s)
	}
}

type reports struct {
	*counter
	failed, unreachable chan struct{}
}

func (r *reports) ReportUnreachable(uint64) {
	select {
	case r.unreachable <- struct{}{}:
	default:
	}
}

func (r *reports) ReportSnapshot(uint64, raft.SnapshotStatus) { r.failed <- struct{}{} }

func TestJoinRefuses(t *testing.T) {
	n := New(Options{Listen: transporttest.FreeAddr(t)})
	a, err := n.Join(1, new(counter))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []uint64{0, 1, 2} { // 2 because the address is taken
		if _, err := n.Join(id, new(counter)); err == nil {
			t.Errorf("node %d was let in", id)
		}
	}
	if err := n.Close(); err == nil {
		t.Error("closing a network with an open transport is no error")
	}
	if err := errors.Join(a.Close(), n.Close()); err != nil {
		t.Error(err)
	}
	if _, err := n.Join(1, new(counter)); err == nil {
		t.Error("a closed network let a node in")
	}
}
