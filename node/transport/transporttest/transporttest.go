// Package transporttest checks that a node.Network keeps the contract of package
// node, whoever wrote it:
//
//	func TestTransport(t *testing.T) {
//		transporttest.Run(t, func(t testing.TB) node.Network { return mytransport.New() })
//	}
//
// Each case names the rule that it checks, starts with a network of its own, and
// ends by closing everything and looking for goroutines that were left. No case
// asserts how fast something is; what must happen eventually is waited for some
// minutes.
package transporttest

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"

	"github.com/raftbench/raftbench/node"
)

// GiBEnv names the environment variable that, when not empty, adds a snapshot of
// 1 GiB to the sizes. It needs about 4 GiB of memory and disk.
const GiBEnv = "RAFTBENCH_TRANSPORT_GIB"

// patience is how long something may take that must happen at all.
const patience = 3 * time.Minute

// Open returns a new network without nodes. What it needs besides is freed by
// t.Cleanup; the network itself is closed by the suite.
type Open func(t testing.TB) node.Network

// Settler is implemented by networks whose links begin on a makeshift path, over
// which no order is promised, and then change to their own. The suite calls it
// before it judges a link.
type Settler interface {
	// Settled reports whether messages between the two nodes now take the
	// path that they will keep.
	Settled(from, to uint64) bool
}

// Case is one rule of the contract and its check.
type Case struct {
	Name string
	Rule string
	run  func(c *cluster)
}

// Cases lists the suite, in the order in which Run runs it.
func Cases() []Case {
	return []Case{
		{"Delivers", "a message of any type arrives as it was sent", deliversEveryType},
		{"Order", "messages to one peer arrive in the order in which they were sent", keepsOrder},
		{"ConcurrentSend", "Send may be called by several goroutines, each keeps its order", concurrentSend},
		{"Sizes", "a message carries nothing, or 64 MiB (a snapshot 1 GiB), unharmed", carriesAnySize},
		{"Isolation", "the receiver's message is its own", isolates},
		{"StuckPeer", "Send never blocks, queues are bounded, one stuck peer does not hold up another", stuckPeer},
		{"ProposalLane", "a proposal that raft holds back does not hold up votes", proposalLane},
		{"Unreachable", "what could not be delivered is reported", reportsUnreachable},
		{"SnapshotReports", "each MsgSnap is reported exactly once, Finish when it was taken", reportsSnapshots},
		{"SnapshotStreams", "a snapshot may be sent as a stream, which is closed and reported exactly once", streamsSnapshots},
		{"ReportsNotFromSend", "Send does not call into the node", reportsOutsideSend},
		{"Reconnect", "a node that left may join again, and both ways work as before", reconnects},
		{"Close", "after Close nothing is delivered, reported or sent; closing twice is harmless", closes},
		{"CloseWhileStuck", "Close returns while a node is busy and its peers too are closing", closesWhileStuck},
		{"CloseDuringTraffic", "all nodes may close while all of them send", closesDuringTraffic},
	}
}

// Run runs every case against networks that open makes.
func Run(t *testing.T, open func(t testing.TB) node.Network) {
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) { c.Check(t, open) })
	}
}

// Check runs one case.
func (k Case) Check(t testing.TB, open Open) {
	t.Helper()
	k.check(t, open, patience)
}

func (k Case) check(t testing.TB, open Open, patience time.Duration) {
	t.Helper()
	before := goleak.IgnoreCurrent()
	c := &cluster{t: t, rule: k.Rule, net: open(t), patience: patience, over: make(chan struct{})}
	defer func() {
		c.close()
		// Find itself waits for half a second, which a busy machine may exceed.
		err := goleak.Find(before)
		for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); {
			err = goleak.Find(before)
		}
		if err != nil {
			t.Errorf("goroutines are left after Close: %v", err)
		}
	}()
	k.run(c)
}

// cluster is a network under test and the nodes that joined it.
type cluster struct {
	t        testing.TB
	rule     string
	net      node.Network
	members  []*member
	patience time.Duration
	over     chan struct{} // closed when the case ends, however it ends
}

func (c *cluster) fatalf(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf("rule %q: %s", c.rule, fmt.Sprintf(format, args...))
}

// join connects a node and returns what stands in for it.
func (c *cluster) join(id uint64) *member {
	c.t.Helper()
	m := &member{c: c, id: id, unreachable: make(map[uint64]int), snapshots: make(map[uint64]*snapshotReports)}
	tr, err := c.net.Join(id, m)
	if err != nil {
		c.fatalf("node %d cannot join: %v", id, err)
	}
	m.tr = tr
	c.members = append(c.members, m)
	return m
}

// joinAll connects nodes 1 to n, each with each.
func (c *cluster) joinAll(n int) []*member {
	c.t.Helper()
	ms := make([]*member, n)
	for i := range ms {
		ms[i] = c.join(uint64(i + 1))
	}
	for _, from := range ms {
		for _, to := range ms {
			if from != to {
				c.connect(from, to)
			}
		}
	}
	return ms
}

// connect sends until something arrives, which a transport that has to dial first
// needs.
func (c *cluster) connect(from, to *member) {
	c.t.Helper()
	if s, ok := c.net.(Settler); ok {
		c.eventually(fmt.Sprintf("the link from %d to %d settles", from.id, to.id), func() bool {
			return s.Settled(from.id, to.id)
		})
	}
	before := to.probed(from.id)
	last := time.Time{}
	c.eventually(fmt.Sprintf("a message gets from %d to %d", from.id, to.id), func() bool {
		if time.Since(last) > 10*time.Millisecond {
			last = time.Now()
			from.send(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), To: &to.id, Term: new(uint64(1)), Context: probe})
		}
		return to.probed(from.id) > before
	})
}

// eventually polls until ok or fails the case.
func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(c.patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			c.fatalf("not within %v: %s", c.patience, what)
		}
	}
}

// returns fails the case if f does not return.
func (c *cluster) returns(what string, f func()) {
	c.t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(c.patience):
		c.fatalf("does not return within %v: %s", c.patience, what)
	}
}

// close ends the case: all transports, the network, and the checks that hold
// for every case.
func (c *cluster) close() {
	close(c.over)
	for _, m := range c.members {
		m.release()
	}
	for _, m := range c.members {
		done := make(chan error, 1)
		go func() { done <- m.close() }()
		select {
		case err := <-done:
			if err != nil {
				c.t.Errorf("close the transport of node %d: %v", m.id, err)
			}
		case <-time.After(c.patience):
			c.t.Errorf("the transport of node %d does not close within %v", m.id, c.patience)
		}
	}
	if err := c.net.Close(); err != nil {
		c.t.Errorf("close the network: %v", err)
	}
	for _, m := range c.members {
		for _, call := range m.lateCalls() {
			c.t.Errorf("node %d was called after its transport's Close had returned: %s", m.id, call)
		}
	}
}

// probe marks the messages of connect, which the cases do not see.
var probe = []byte("probe")

// snapshotReports counts what a node was told about its MsgSnap to one peer.
type snapshotReports struct{ finished, failed int }

// member stands in for a node: it records what its transport tells it.
type member struct {
	c  *cluster
	id uint64
	tr node.Transport

	mu          sync.Mutex
	got         []*raftpb.Message
	probes      map[uint64]int
	unreachable map[uint64]int
	snapshots   map[uint64]*snapshotReports
	handle      func(ctx context.Context, m *raftpb.Message) error // before a message counts as taken
	onReport    func()
	stuck       chan struct{}
	closed      bool
	late        []string
}

var _ node.Receiver = (*member)(nil)

// Process implements node.Receiver.
func (m *member) Process(ctx context.Context, msg *raftpb.Message) error {
	m.mu.Lock()
	handle, stuck := m.handle, m.stuck
	if m.closed {
		m.late = append(m.late, "Process "+msg.GetType().String())
	}
	m.mu.Unlock()
	if stuck != nil {
		select {
		case <-stuck:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if handle != nil {
		if err := handle(ctx, msg); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if string(msg.GetContext()) == string(probe) {
		if m.probes == nil {
			m.probes = make(map[uint64]int)
		}
		m.probes[msg.GetFrom()]++
		return nil
	}
	m.got = append(m.got, msg)
	return nil
}

// ReportUnreachable implements node.Receiver.
func (m *member) ReportUnreachable(id uint64) {
	m.reported("ReportUnreachable", func() { m.unreachable[id]++ })
}

// ReportSnapshot implements node.Receiver.
func (m *member) ReportSnapshot(id uint64, status raft.SnapshotStatus) {
	m.reported("ReportSnapshot", func() {
		r := m.snapshots[id]
		if r == nil {
			r = new(snapshotReports)
			m.snapshots[id] = r
		}
		if status == raft.SnapshotFinish {
			r.finished++
		} else {
			r.failed++
		}
	})
}

func (m *member) reported(call string, note func()) {
	m.mu.Lock()
	hook := m.onReport
	m.mu.Unlock()
	if hook != nil {
		hook()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		m.late = append(m.late, call)
	}
	note()
}

// send sends messages in this node's name.
func (m *member) send(msgs ...*raftpb.Message) {
	for _, msg := range msgs {
		msg.From = new(m.id)
	}
	m.tr.Send(msgs)
}

// stick makes Process block until release.
func (m *member) stick() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stuck = make(chan struct{})
}

func (m *member) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stuck != nil {
		close(m.stuck)
		m.stuck = nil
	}
}

func (m *member) setHandle(h func(ctx context.Context, m *raftpb.Message) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.handle = h
}

// close closes the transport, once; calls that come later are noted.
func (m *member) close() error {
	m.mu.Lock()
	closed := m.closed
	m.mu.Unlock()
	if closed {
		return nil
	}
	err := m.tr.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return err
}

func (m *member) lateCalls() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.late
}

func (m *member) probed(from uint64) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.probes[from]
}

// received returns what arrived, of the given type.
func (m *member) received(typ raftpb.MessageType) []*raftpb.Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*raftpb.Message
	for _, msg := range m.got {
		if msg.GetType() == typ {
			out = append(out, msg)
		}
	}
	return out
}

func (m *member) receivedCount() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.got)
}

// forget drops what was received, so that large messages can be freed.
func (m *member) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got = nil
}

func (m *member) unreachableCount(id uint64) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unreachable[id]
}

func (m *member) snapshotCount(id uint64) snapshotReports {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.snapshots[id]; r != nil {
		return *r
	}
	return snapshotReports{}
}

func gibAsked() bool { return os.Getenv(GiBEnv) != "" }
