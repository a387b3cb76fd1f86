package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/pkg/v3/contention"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// recorder writes down who was called, in order.
type recorder struct {
	mu      sync.Mutex
	calls   []string
	signals func() int // that wait on notifyc
}

func (r *recorder) add(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := strings.TrimSpace(fmt.Sprintf(format, args...))
	if r.signals != nil && r.signals() > 0 {
		line += " (notifyc signalled)"
	}
	r.calls = append(r.calls, line)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.calls, "\n") + "\n"
}

// fakeRaft hands out the Readys of a test.
type fakeRaft struct {
	raft.Node
	r      *recorder
	readyc chan raft.Ready
}

func (f *fakeRaft) Ready() <-chan raft.Ready { return f.readyc }
func (f *fakeRaft) Tick()                    {}
func (f *fakeRaft) Stop()                    {}
func (f *fakeRaft) Advance()                 { f.r.add("Advance") }
func (f *fakeRaft) Step(_ context.Context, m *raftpb.Message) error {
	f.r.add("Step %v", m.GetType())
	return nil
}
func (f *fakeRaft) ApplyConfChange(raftpb.ConfChangeI) *raftpb.ConfState {
	f.r.add("ApplyConfChange")
	return &raftpb.ConfState{Voters: []uint64{1}}
}
func (f *fakeRaft) ReportSnapshot(id uint64, s raft.SnapshotStatus) {
	f.r.add("ReportSnapshot %d %v", id, s == raft.SnapshotFinish)
}

// fakeStorage fails where the test says.
type fakeStorage struct {
	r    *recorder
	fail string
}

func (s *fakeStorage) call(name, format string, args ...any) error {
	s.r.add(name+" "+format, args...)
	if s.fail == name {
		return errors.New("disk on fire")
	}
	return nil
}
func (s *fakeStorage) Save(st *raftpb.HardState, ents []*raftpb.Entry) error {
	return s.call("Save", "commit=%d entries=%d", st.GetCommit(), len(ents))
}
func (s *fakeStorage) SaveSnap(snap *raftpb.Snapshot) error {
	return s.call("SaveSnap", "%d", snap.GetMetadata().GetIndex())
}
func (s *fakeStorage) Sync() error { return s.call("Sync", "") }
func (s *fakeStorage) Release(snap *raftpb.Snapshot) error {
	return s.call("Release", "%d", snap.GetMetadata().GetIndex())
}
func (s *fakeStorage) Close() error { return nil }

type fakeLog struct{ r *recorder }

func (l fakeLog) Append(ents []*raftpb.Entry) error {
	l.r.add("log.Append %d", len(ents))
	return nil
}
func (l fakeLog) ApplySnapshot(snap *raftpb.Snapshot) error {
	l.r.add("log.ApplySnapshot %d", snap.GetMetadata().GetIndex())
	return nil
}
func (l fakeLog) CreateSnapshot(i uint64, cs *raftpb.ConfState, data []byte) (*raftpb.Snapshot, error) {
	l.r.add("log.CreateSnapshot %d", i)
	return &raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{Index: &i, Term: proto.Uint64(1), ConfState: cs}}, nil
}
func (l fakeLog) Term(uint64) (uint64, error) { return 1, nil }
func (l fakeLog) Compact(i uint64) error {
	l.r.add("log.Compact %d", i)
	return nil
}

type fakeTransport struct{ r *recorder }

func (t fakeTransport) Send(msgs []*raftpb.Message) {
	names := make([]string, len(msgs))
	for i, m := range msgs {
		names[i] = m.GetType().String()
	}
	t.r.add("Send %s", strings.Join(names, " "))
}
func (t fakeTransport) Close() error { return nil }

type fakeState struct{ r *recorder }

func (s fakeState) Apply(ents []*raftpb.Entry) { s.r.add("apply %d", len(ents)) }
func (s fakeState) Snapshot() func() ([]byte, error) {
	s.r.add("capture")
	return func() ([]byte, error) { return []byte("state"), nil }
}
func (s fakeState) Restore(data []byte) error { s.r.add("restore %s", data); return nil }

// harness is a node whose every part records.
type harness struct {
	*recorder
	n       *Node
	raft    *fakeRaft
	storage *fakeStorage
}

func newHarness(leader bool) *harness {
	r := &recorder{}
	h := &harness{recorder: r, raft: &fakeRaft{r: r, readyc: make(chan raft.Ready)}, storage: &fakeStorage{r: r}}
	cfg := Config{ID: 1, Peers: []uint64{1, 2, 3}, Storage: h.storage, StateMachine: fakeState{r}, Network: struct{ Network }{}, SnapshotEntries: 1000}
	if err := cfg.fill(); err != nil {
		panic(err)
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	n := &Node{
		cfg: cfg, raft: h.raft, log: fakeLog{r}, transport: fakeTransport{r},
		heartbeat: contention.NewTimeoutDetector(time.Hour),
		applyc:    make(chan apply, applyQueue), msgSnapc: make(chan *raftpb.Message, 1),
		readStatec: make(chan raft.ReadState, 1), failed: make(chan struct{}),
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.stopc = n.ctx.Done()
	n.snapshots.requests = make(chan snapshotRequest)
	n.applied.init()
	n.isLeader.Store(leader)
	h.n = n
	return h
}

// watchSignals has every call note how many signals wait on the notifyc of what was
// handed over, if anything was.
func (h *harness) watchSignals() {
	var ap *apply
	h.recorder.signals = func() int {
		if ap == nil {
			select {
			case got := <-h.n.applyc:
				ap = &got
			default:
				return 0
			}
		}
		return len(ap.notifyc)
	}
}

// handle takes one Ready through the loop while the apply side stands still, so
// that the record holds the loop's own order. Every call notes how many signals
// wait on notifyc; where the loop would wait for the apply side, a stand-in takes
// the signals.
func (h *harness) handle(rd raft.Ready, standIn bool) {
	h.n.cfg.Trace = &Trace{Committed: func(ents []*raftpb.Entry) { h.add("hand over %d entries", len(ents)) }}
	h.watchSignals()
	if standIn {
		h.recorder.signals = nil
		go func() {
			got := <-h.n.applyc
			for {
				select {
				case <-got.notifyc:
				case <-h.n.stopc:
					return
				}
			}
		}()
	}
	if err := h.n.handleReady(rd); err != nil {
		h.n.fail(err)
	}
}

func msg(t raftpb.MessageType, to uint64) *raftpb.Message {
	return &raftpb.Message{Type: t.Enum(), To: &to, From: proto.Uint64(1)}
}

func entries(n int, t raftpb.EntryType) []*raftpb.Entry {
	out := make([]*raftpb.Entry, n)
	for i := range out {
		out[i] = &raftpb.Entry{Index: proto.Uint64(uint64(i + 1)), Term: proto.Uint64(1), Type: t.Enum(), Data: []byte("x")}
	}
	return out
}

func snapshotAt(i uint64) *raftpb.Snapshot {
	return &raftpb.Snapshot{Data: []byte("theirs"), Metadata: &raftpb.SnapshotMetadata{Index: &i, Term: proto.Uint64(1), ConfState: &raftpb.ConfState{Voters: []uint64{1}}}}
}

func hardState(commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: proto.Uint64(1), Commit: &commit}
}

// TestOrder pins the ten steps. The goldens read as prose; each line is a call.
func TestOrder(t *testing.T) {
	app, resp, snap := msg(raftpb.MsgApp, 2), msg(raftpb.MsgAppResp, 2), msg(raftpb.MsgSnap, 3)
	for _, tc := range []struct {
		name    string
		leader  bool
		standIn bool
		rd      raft.Ready
	}{
		{"leader", true, false, raft.Ready{HardState: hardState(1), Entries: entries(2, raftpb.EntryNormal),
			CommittedEntries: entries(1, raftpb.EntryNormal), Messages: []*raftpb.Message{app, snap, app}}},
		{"follower", false, false, raft.Ready{HardState: hardState(1), Entries: entries(2, raftpb.EntryNormal),
			CommittedEntries: entries(1, raftpb.EntryNormal), Messages: []*raftpb.Message{resp, resp}}},
		{"follower-snapshot", false, true, raft.Ready{HardState: hardState(7), Snapshot: snapshotAt(7), Messages: []*raftpb.Message{resp}}},
		{"follower-confchange", false, true, raft.Ready{CommittedEntries: entries(1, raftpb.EntryConfChange), Messages: []*raftpb.Message{resp}}},
		{"leader-confchange", true, false, raft.Ready{CommittedEntries: entries(1, raftpb.EntryConfChange), Messages: []*raftpb.Message{app}}},
		{"commit-only", true, false, raft.Ready{HardState: hardState(3)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHarness(tc.leader)
			defer h.n.cancel()
			h.handle(tc.rd, tc.standIn)
			golden(t, tc.name, h.String())
		})
	}
}

// golden compares with testdata/order/<name>; -update writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "order", name+".txt")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("calls in another order than %s:\n%s\nwant:\n%s", path, got, want)
	}
}

// TestFollowerWaitsForConfChange: the follower sends only after the apply side
// has applied the change.
func TestFollowerWaitsForConfChange(t *testing.T) {
	h := newHarness(false)
	data, err := proto.Marshal(&raftpb.ConfChange{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: proto.Uint64(4)})
	if err != nil {
		t.Fatal(err)
	}
	ents := entries(1, raftpb.EntryConfChange)
	ents[0].Data = data
	go h.n.applyLoop()
	defer h.n.cancel()
	if err := h.n.handleReady(raft.Ready{CommittedEntries: ents, Messages: []*raftpb.Message{msg(raftpb.MsgVoteResp, 2)}}); err != nil {
		t.Fatal(err)
	}
	got := h.String()
	if applied, sent := strings.Index(got, "ApplyConfChange"), strings.Index(got, "Send MsgVoteResp"); applied < 0 || sent < applied {
		t.Errorf("sent before the change of membership was applied:\n%s", got)
	}
}

// TestSnapshotSignal: notifyc is signalled after Sync and
// before the in-memory log takes the snapshot.
func TestSnapshotSignal(t *testing.T) {
	h := newHarness(false)
	notifyc := make(chan struct{}, 1)
	h.recorder.signals = func() int { return len(notifyc) }
	if err := h.n.persist(hardState(7), nil, snapshotAt(7), notifyc); err != nil {
		t.Fatal(err)
	}
	golden(t, "snapshot-signal", h.String())
}

// TestAsyncSnapshot: the append thread has handed a snapshot over, and signals that it is
// durable, before it drops the log below it.
func TestAsyncSnapshot(t *testing.T) {
	h := newHarness(false)
	h.watchSignals()
	g := appendGroup{hardState: hardState(7), snapshot: snapshotAt(7),
		responses: []*raftpb.Message{msg(raftpb.MsgAppResp, 2), msg(raftpb.MsgStorageAppendResp, 1)}}
	if err := h.n.saveGroup(&g); err != nil {
		t.Fatal(err)
	}
	golden(t, "async-snapshot", h.String())
	if n := h.recorder.signals(); n != 2 {
		t.Errorf("the apply side gets %d signals, want one for the snapshot and one for all", n)
	}
}

// TestFailStop: a storage that fails stops the node with the error, and nothing
// is acknowledged after it.
func TestFailStop(t *testing.T) {
	for _, call := range []string{"SaveSnap", "Save", "Sync", "Release"} {
		t.Run(call, func(t *testing.T) {
			h := newHarness(false)
			h.storage.fail = call
			h.handle(raft.Ready{HardState: hardState(7), Snapshot: snapshotAt(7), Entries: entries(1, raftpb.EntryNormal),
				Messages: []*raftpb.Message{msg(raftpb.MsgAppResp, 2)}}, true)
			if err := h.n.Err(); err == nil || !strings.Contains(err.Error(), "disk on fire") || !strings.Contains(err.Error(), "node 1") {
				t.Errorf("error is %v", err)
			}
			for _, after := range []string{"Send", "Advance"} {
				if got := h.String(); strings.Contains(got, after) {
					t.Errorf("%s after %s failed:\n%s", after, call, got)
				}
			}
		})
	}
}

func TestProcessMessages(t *testing.T) {
	h := newHarness(true)
	removed := map[uint64]struct{}{9: {}}
	h.n.removed.Store(&removed)
	first, last := msg(raftpb.MsgAppResp, 2), msg(raftpb.MsgAppResp, 2)
	first.Index, last.Index = proto.Uint64(1), proto.Uint64(2)
	snap := msg(raftpb.MsgSnap, 3)
	got := h.n.processMessages([]*raftpb.Message{first, msg(raftpb.MsgApp, 3), snap, msg(raftpb.MsgApp, 9), last, msg(raftpb.MsgHeartbeat, 2)})
	var names []string
	for _, m := range got {
		names = append(names, fmt.Sprintf("%v%d", m.GetType(), m.GetIndex()))
	}
	if want := "MsgApp0 MsgAppResp2 MsgHeartbeat0"; strings.Join(names, " ") != want {
		t.Errorf("sent %v, want %s", names, want)
	}
	if m := <-h.n.msgSnapc; m != snap {
		t.Errorf("redirected %v", m)
	}
	// The channel holds one; a second snapshot that waits is reported as failed.
	h.n.processMessages([]*raftpb.Message{snap, snap})
	if got := h.String(); got != "ReportSnapshot 3 false\n" {
		t.Errorf("a snapshot that does not fit: %q", got)
	}
}

func TestLateHeartbeat(t *testing.T) {
	h := newHarness(true)
	h.n.heartbeat = contention.NewTimeoutDetector(-time.Second) // every interval is too long
	for range 3 {
		h.n.processMessages([]*raftpb.Message{msg(raftpb.MsgHeartbeat, 2)})
	}
	if got := h.n.Status().LateHeartbeats; got != 2 {
		t.Errorf("%d late heartbeats of 3, want 2: the first has no predecessor", got)
	}
}

// TestAppendGroup: what waits shares one Save, an overwritten tail is replaced,
// and a snapshot begins a group of its own.
func TestAppendGroup(t *testing.T) {
	at := func(term uint64, indexes ...uint64) *raftpb.Message {
		m := msg(raftpb.MsgStorageAppend, raft.LocalAppendThread)
		for _, i := range indexes {
			m.Entries = append(m.Entries, &raftpb.Entry{Index: proto.Uint64(i), Term: &term})
		}
		m.Term, m.Commit = &term, proto.Uint64(0)
		m.Responses = []*raftpb.Message{msg(raftpb.MsgAppResp, indexes[0])}
		return m
	}
	withSnap := at(3, 9)
	withSnap.Snapshot = snapshotAt(8)
	var g appendGroup
	rest := g.gather([]*raftpb.Message{at(1, 1, 2, 3), at(1, 4), at(2, 3), withSnap})
	if len(rest) != 1 || rest[0] != withSnap {
		t.Fatalf("%d messages left, want the one with the snapshot", len(rest))
	}
	var got []string
	for _, e := range g.entries {
		got = append(got, fmt.Sprintf("%d/%d", e.GetIndex(), e.GetTerm()))
	}
	if want := "1/1 2/1 3/2"; strings.Join(got, " ") != want {
		t.Errorf("entries %v, want %s", got, want)
	}
	if g.hardState.GetTerm() != 2 || len(g.responses) != 3 {
		t.Errorf("hard state %v, %d responses", g.hardState, len(g.responses))
	}
}
