package transporttest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a testing.TB whose failures are kept instead of failing the test.
type recorder struct {
	testing.TB
	mu       sync.Mutex
	failures []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// bent is a network with a fault: what passes between it and its nodes goes through
// these functions, where they are set.
type bent struct {
	node.Network
	process     func(next node.Receiver, ctx context.Context, m *raftpb.Message) error
	unreachable func(next node.Receiver, id uint64)
	snapshot    func(next node.Receiver, id uint64, s raft.SnapshotStatus)
	send        func(next *bentTransport, msgs []*raftpb.Message)
	close       func(next *bentTransport) error
	joined      func(t *bentTransport)
	closeNet    func() error
}

type bentReceiver struct {
	node.Receiver
	b *bent
}

type bentTransport struct {
	node.Transport
	id   uint64
	recv node.Receiver
	b    *bent
}

func (b *bent) Join(id uint64, r node.Receiver) (node.Transport, error) {
	tr, err := b.Network.Join(id, &bentReceiver{r, b})
	if err != nil {
		return nil, err
	}
	t := &bentTransport{tr, id, r, b}
	if b.joined != nil {
		b.joined(t)
	}
	return t, nil
}

func (b *bent) Close() error {
	if b.closeNet != nil {
		return b.closeNet()
	}
	return b.Network.Close()
}

func (r *bentReceiver) Process(ctx context.Context, m *raftpb.Message) error {
	if r.b.process != nil {
		return r.b.process(r.Receiver, ctx, m)
	}
	return r.Receiver.Process(ctx, m)
}

func (r *bentReceiver) ReportUnreachable(id uint64) {
	if r.b.unreachable != nil {
		r.b.unreachable(r.Receiver, id)
		return
	}
	r.Receiver.ReportUnreachable(id)
}

func (r *bentReceiver) ReportSnapshot(id uint64, s raft.SnapshotStatus) {
	if r.b.snapshot != nil {
		r.b.snapshot(r.Receiver, id, s)
		return
	}
	r.Receiver.ReportSnapshot(id, s)
}

func (t *bentTransport) Send(msgs []*raftpb.Message) {
	if t.b.send != nil {
		t.b.send(t, msgs)
		return
	}
	t.Transport.Send(msgs)
}

func (t *bentTransport) Close() error {
	if t.b.close != nil {
		return t.b.close(t)
	}
	return t.Transport.Close()
}

// bentStreams is a network that bends what it streams.
type bentStreams struct {
	node.Network
	bend func(io.ReadCloser) io.ReadCloser
}

func (b bentStreams) Join(id uint64, r node.Receiver) (node.Transport, error) {
	tr, err := b.Network.Join(id, r)
	return bentSender{tr, b.bend}, err
}

type bentSender struct {
	node.Transport
	bend func(io.ReadCloser) io.ReadCloser
}

func (t bentSender) SendSnapshot(m *raftpb.Message, data io.ReadCloser, size int64) {
	t.Transport.(node.SnapshotSender).SendSnapshot(m, t.bend(data), size)
}

// padded gives zeros in place of what its reader fails to give, half of the stream
// that the case lets fail, as a transport would that takes no notice.
type padded struct {
	io.ReadCloser
	left int
}

func (r *padded) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err == nil || errors.Is(err, io.EOF) || r.left == 0 {
		return n, err
	}
	n = min(len(p), r.left)
	clear(p[:n])
	if r.left -= n; r.left == 0 {
		r.ReadCloser = io.NopCloser(eof{})
	}
	return n, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// broken is a fault and how the suite must find it.
type broken struct {
	name string
	in   string // the case that finds it
	want string // part of what that says
	// waits tells that the case finds it by waiting in vain.
	waits bool
	make  func(t testing.TB) node.Network
}

func bend(b bent) func(testing.TB) node.Network {
	return func(testing.TB) node.Network {
		c := b
		c.Network = mem.New(mem.Options{})
		return &c
	}
}

var brokenTransports = []broken{
	{name: "forgets a field", in: "Delivers", want: "MsgVote arrived as", make: bend(bent{
		process: func(next node.Receiver, ctx context.Context, m *raftpb.Message) error {
			if m.GetType() == raftpb.MsgVote {
				m.Context = nil
			}
			return next.Process(ctx, m)
		}})},
	{name: "sends what raft took back", in: "Delivers", want: "message to node 0", make: bend(bent{
		send: func(next *bentTransport, msgs []*raftpb.Message) {
			for _, m := range msgs {
				if m.GetTo() == 0 {
					next.recv.ReportUnreachable(0)
				}
			}
			next.Transport.Send(msgs)
		}})},
	{name: "swaps two messages", in: "Order", want: "arrived in place", make: bend(bent{
		send: func(next *bentTransport, msgs []*raftpb.Message) {
			if len(msgs) > 0 && len(msgs[0].Entries) == 1 && msgs[0].Entries[0].GetIndex()%100 == 7 {
				again := append1(2, 106, nil) // from far ahead
				again.From = msgs[0].From
				next.Transport.Send([]*raftpb.Message{again})
			}
			next.Transport.Send(msgs)
		}})},
	{name: "loses one", in: "Order", want: "node 2 receives all", waits: true, make: bend(bent{
		send: func(next *bentTransport, msgs []*raftpb.Message) {
			if len(msgs) > 1 && msgs[0].Entries[0].GetIndex() == 999 {
				msgs = msgs[1:]
			}
			next.Transport.Send(msgs)
		}})},
	{name: "delivers twice", in: "ConcurrentSend", want: "arrived where", make: bend(bent{
		process: func(next node.Receiver, ctx context.Context, m *raftpb.Message) error {
			if m.GetCommit() == 50 {
				if err := next.Process(ctx, m); err != nil {
					return err
				}
			}
			if m.GetCommit() == 99 {
				return nil // so that the count is right
			}
			return next.Process(ctx, m)
		}})},
	{name: "cuts off what is long", in: "Sizes", want: "bytes with hash", make: bend(bent{
		process: func(next node.Receiver, ctx context.Context, m *raftpb.Message) error {
			if s := m.GetSnapshot(); len(s.GetData()) > 4<<20 {
				s.Data = s.Data[:4<<20]
			}
			return next.Process(ctx, m)
		}})},
	{name: "mixes up what is long", in: "Sizes", want: "bytes with hash", make: bend(bent{
		process: func(next node.Receiver, ctx context.Context, m *raftpb.Message) error {
			if len(m.Entries) == 1 && len(m.Entries[0].Data) > 1<<20 {
				d := append([]byte(nil), m.Entries[0].Data...)
				d[1<<20] ^= 1
				m.Entries[0] = &raftpb.Entry{Data: d}
			}
			return next.Process(ctx, m)
		}})},
	{name: "shares the slice of entries", in: "Isolation", want: "a change after Send shows", make: sharing(func(c, m *raftpb.Message) {
		c.Entries = m.Entries
	})},
	{name: "shares the snapshot's metadata", in: "Isolation", want: "a change after Send shows", make: sharing(func(c, m *raftpb.Message) {
		if m.Snapshot != nil {
			c.Snapshot.Metadata = m.Snapshot.Metadata
		}
	})},
	{name: "gives two receivers the same slice", in: "Isolation", want: "two receivers share", make: func(testing.TB) node.Network {
		// All receivers of the same entries get the same copy.
		var mu sync.Mutex
		copies := make(map[*raftpb.Entry][]*raftpb.Entry)
		return &bent{Network: mem.New(mem.Options{}), process: func(next node.Receiver, ctx context.Context, m *raftpb.Message) error {
			mu.Lock()
			if len(m.Entries) > 0 {
				if copies[m.Entries[0]] == nil {
					copies[m.Entries[0]] = m.Entries
				}
				m.Entries = copies[m.Entries[0]]
			}
			mu.Unlock()
			return next.Process(ctx, m)
		}}
	}},
	{name: "waits in Send", in: "StuckPeer", want: "does not return", waits: true, make: func(testing.TB) node.Network {
		free, end := make(chan struct{}, 1<<10), make(chan struct{})
		b := &bent{Network: mem.New(mem.Options{})}
		b.send = func(next *bentTransport, msgs []*raftpb.Message) {
			for range msgs {
				select {
				case free <- struct{}{}:
				case <-end:
				}
			}
			next.Transport.Send(msgs)
		}
		b.process = func(next node.Receiver, ctx context.Context, m *raftpb.Message) error {
			defer func() { <-free }()
			return next.Process(ctx, m)
		}
		b.closeNet = func() error { close(end); return b.Network.Close() }
		return b
	}},
	{name: "queues without bound", in: "StuckPeer", want: "a queue overflows", waits: true, make: func(testing.TB) node.Network {
		return mem.New(mem.Options{MaxMessages: 1 << 40, MaxBytes: 1 << 60})
	}},
	{name: "delivers to one node at a time", in: "StuckPeer", want: "a message gets from 1 to 3", waits: true, make: func(testing.TB) node.Network {
		var one sync.Mutex
		return &bent{Network: mem.New(mem.Options{}), process: func(next node.Receiver, ctx context.Context, m *raftpb.Message) error {
			one.Lock()
			defer one.Unlock()
			return next.Process(ctx, m)
		}}
	}},
	{name: "has one lane", in: "ProposalLane", want: "a vote passes", waits: true, make: func(testing.TB) node.Network {
		var lanes [3]sync.Mutex
		return &bent{Network: mem.New(mem.Options{}), process: func(next node.Receiver, ctx context.Context, m *raftpb.Message) error {
			lanes[m.GetTo()].Lock()
			defer lanes[m.GetTo()].Unlock()
			return next.Process(ctx, m)
		}}
	}},
	{name: "does not report what is lost", in: "Unreachable", want: "is reported", waits: true, make: bend(bent{
		unreachable: func(node.Receiver, uint64) {}})},
	{name: "does not report a snapshot's end", in: "SnapshotReports", want: "reported", waits: true, make: bend(bent{
		snapshot: func(next node.Receiver, id uint64, s raft.SnapshotStatus) {
			if s != raft.SnapshotFinish {
				next.ReportSnapshot(id, s)
			}
		}})},
	{name: "reports a snapshot twice", in: "SnapshotReports", want: "reported, want", make: bend(bent{
		snapshot: func(next node.Receiver, id uint64, s raft.SnapshotStatus) {
			next.ReportSnapshot(id, s)
			next.ReportSnapshot(id, s)
		}})},
	{name: "reports a refused snapshot as taken", in: "SnapshotReports", want: "reported, want", make: bend(bent{
		snapshot: func(next node.Receiver, id uint64, _ raft.SnapshotStatus) {
			next.ReportSnapshot(id, raft.SnapshotFinish)
		}})},
	{name: "reports a snapshot as taken that is on its way", in: "SnapshotReports", want: "Finish was reported when", make: bend(bent{
		process: func(next node.Receiver, ctx context.Context, m *raftpb.Message) error {
			if m.GetType() == raftpb.MsgSnap {
				return nil
			}
			return next.Process(ctx, m)
		}})},
	{name: "leaves a stream open", in: "SnapshotStreams", want: "the stream closed", waits: true, make: func(testing.TB) node.Network {
		return bentStreams{mem.New(mem.Options{}), func(data io.ReadCloser) io.ReadCloser { return io.NopCloser(data) }}
	}},
	{name: "takes a stream that fails", in: "SnapshotStreams", want: "reported, want", make: func(testing.TB) node.Network {
		return bentStreams{mem.New(mem.Options{}), func(data io.ReadCloser) io.ReadCloser { return &padded{data, 3 << 19} }}
	}},
	{name: "calls the node from Send", in: "ReportsNotFromSend", want: "does not return", waits: true, make: bend(bent{
		send: func(next *bentTransport, msgs []*raftpb.Message) { next.recv.ReportUnreachable(msgs[0].GetTo()) }})},
	{name: "keeps delivering to an earlier life", in: "Reconnect", want: "not within", waits: true, make: func(testing.TB) node.Network {
		var mu sync.Mutex
		first := make(map[uint64]node.Receiver)
		b := &bent{Network: mem.New(mem.Options{})}
		b.process = func(next node.Receiver, ctx context.Context, m *raftpb.Message) error {
			mu.Lock()
			if first[m.GetTo()] == nil {
				first[m.GetTo()] = next
			}
			next = first[m.GetTo()]
			mu.Unlock()
			return next.Process(ctx, m)
		}
		return b
	}},
	{name: "delivers after Close", in: "Close", want: "was called after", make: func(testing.TB) node.Network {
		var late sync.WaitGroup
		b := &bent{Network: mem.New(mem.Options{})}
		b.close = func(next *bentTransport) error {
			late.Go(func() {
				for range 20 {
					time.Sleep(time.Millisecond)
					_ = next.recv.Process(context.Background(), append1(next.id, 1, nil))
				}
			})
			return next.Transport.Close()
		}
		b.closeNet = func() error { late.Wait(); return b.Network.Close() }
		return b
	}},
	{name: "sends after Close", in: "Close", want: "what was sent after Close", make: func(testing.TB) node.Network {
		var open []node.Transport
		b := &bent{Network: mem.New(mem.Options{})}
		b.close = func(next *bentTransport) error { open = append(open, next.Transport); return nil }
		b.closeNet = func() error {
			for _, t := range open {
				_ = t.Close()
			}
			return b.Network.Close()
		}
		return b
	}},
	{name: "leaves a goroutine", in: "Close", want: "goroutines are left", waits: true, make: func(t testing.TB) node.Network {
		end := make(chan struct{})
		t.Cleanup(func() { close(end) })
		return bend(bent{joined: func(*bentTransport) { go func() { <-end }() }})(t)
	}},
	{name: "waits for the node in Close", in: "CloseWhileStuck", want: "does not return", waits: true, make: bend(bent{
		process: func(next node.Receiver, ctx context.Context, m *raftpb.Message) error {
			return next.Process(context.WithoutCancel(ctx), m)
		}})},
	{name: "locks Send against Close", in: "CloseDuringTraffic", want: "does not return", waits: true, make: func(testing.TB) node.Network {
		// The one order of locks in Send, the other in Close, made certain.
		var a sync.Mutex
		closing := make(chan struct{})
		var once, end sync.Once
		released := make(chan struct{})
		b := &bent{Network: mem.New(mem.Options{})}
		b.send = func(next *bentTransport, msgs []*raftpb.Message) {
			a.Lock()
			select {
			case <-closing:
				<-released
			default:
			}
			a.Unlock()
			next.Transport.Send(msgs)
		}
		b.close = func(next *bentTransport) error {
			once.Do(func() { close(closing); time.AfterFunc(2*shortPatience, func() { end.Do(func() { close(released) }) }) })
			<-released
			return next.Transport.Close()
		}
		return b
	}},
}

// sharing delivers a message of the receiver's own, but for what share puts back
// into it.
func sharing(share func(c, m *raftpb.Message)) func(testing.TB) node.Network {
	return func(testing.TB) node.Network {
		var mu sync.Mutex
		var sent []*raftpb.Message
		return &bent{Network: mem.New(mem.Options{}),
			send: func(next *bentTransport, msgs []*raftpb.Message) {
				mu.Lock()
				for _, m := range msgs {
					if m.GetTo() == 2 && string(m.Context) != string(probe) && m.GetFrom() == 1 {
						sent = append(sent, &raftpb.Message{Entries: m.Entries, Snapshot: keepSnapshot(m.Snapshot)})
					}
				}
				mu.Unlock()
				next.Transport.Send(msgs)
			},
			process: func(next node.Receiver, ctx context.Context, m *raftpb.Message) error {
				mu.Lock()
				if m.GetTo() == 2 && string(m.Context) != string(probe) && m.GetFrom() == 1 {
					share(m, sent[0])
					sent = sent[1:]
				}
				mu.Unlock()
				return next.Process(ctx, m)
			}}
	}
}

func keepSnapshot(s *raftpb.Snapshot) *raftpb.Snapshot {
	if s == nil {
		return nil
	}
	return &raftpb.Snapshot{Metadata: s.Metadata, Data: s.Data}
}

// shortPatience replaces the suite's where a fault shows by waiting in vain.
const shortPatience = 2 * time.Second

// Each fault must be found, by the case that is there for it and for the reason
// that it gives.
func TestSuiteFindsFaults(t *testing.T) {
	covered := make(map[string]bool)
	for _, b := range brokenTransports {
		covered[b.in] = true
		t.Run(b.in+"/"+strings.ReplaceAll(b.name, " ", "-"), func(t *testing.T) {
			limit := patience
			if b.waits {
				limit = shortPatience
			}
			// A machine that pauses for as long makes something else fail first.
			var failures []string
			for range 5 {
				failures = failuresOf(t, b.in, b.make, limit)
				if slices.ContainsFunc(failures, func(f string) bool { return strings.Contains(f, b.want) }) {
					return
				}
				if len(failures) == 0 || !b.waits {
					break
				}
			}
			t.Fatalf("a transport that %s was not found out: no failure says %q, only %q", b.name, b.want, failures)
		})
	}
	for _, c := range Cases() {
		if !covered[c.Name] {
			t.Errorf("no broken transport shows that case %s can fail", c.Name)
		}
	}
}

// failuresOf runs one case, which may end its goroutine.
func failuresOf(t *testing.T, name string, open Open, limit time.Duration) []string {
	t.Helper()
	for _, c := range Cases() {
		if c.Name != name {
			continue
		}
		r := &recorder{TB: t}
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.check(r, open, limit)
		}()
		<-done
		return r.failures
	}
	t.Fatalf("there is no case %s", name)
	return nil
}
