package kvlog

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/raftbench/raftbench/backends"
)

// configs are the kinds of engines that there are.
var configs = map[string]Config{
	"plain": {},
	"lsm":   {Unsynced: true, RangeDelete: true, ChunkBytes: 10},
	"small": {MaxBatchBytes: 200, MaxBatchOps: 4, DeleteStep: 3, ChunkBytes: 7, ChunksPerBatch: 2},
	"tiny":  {MaxBatchOps: 1, DeleteStep: 1, ChunkBytes: 16},

	"files":     {DeleteStep: 3, ChunkBytes: 7, ChunksPerBatch: 2, SnapFiles: true},
	"lsm files": {Unsynced: true, RangeDelete: true, ChunkBytes: 10, SnapFiles: true},
}

func eachConfig(t *testing.T, f func(t *testing.T, cfg Config)) {
	for name, cfg := range configs {
		t.Run(name, func(t *testing.T) {
			cfg.SnapDir = SnapDir(memDir(t))
			f(t, cfg)
		})
	}
}

// memDir is a directory in memory, where there is such a thing: a sync is for free.
func memDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "kvlog-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// model is what a storage must hold.
type model struct {
	hs   *raftpb.HardState
	snap *raftpb.Snapshot
	ents []*raftpb.Entry // above the snapshot
}

func (m model) last() uint64 {
	return m.snap.GetMetadata().GetIndex() + uint64(len(m.ents))
}

func (m model) term(index uint64) uint64 {
	base := m.snap.GetMetadata().GetIndex()
	if index == base {
		return m.snap.GetMetadata().GetTerm()
	}
	return m.ents[index-base-1].GetTerm()
}

func (m model) save(hs *raftpb.HardState, ents []*raftpb.Entry) model {
	if hs != nil {
		m.hs = hs
	}
	if len(ents) > 0 {
		keep := ents[0].GetIndex() - m.snap.GetMetadata().GetIndex() - 1
		m.ents = append(append([]*raftpb.Entry(nil), m.ents[:keep]...), ents...)
	}
	return m
}

func (m model) saveSnap(snap *raftpb.Snapshot) model {
	index := snap.GetMetadata().GetIndex()
	if index <= m.last() && m.term(index) == snap.GetMetadata().GetTerm() {
		m.ents = m.ents[index-m.snap.GetMetadata().GetIndex():]
	} else {
		m.ents = nil
	}
	m.snap = snap
	return m
}

// state is what Open must return.
func (m model) state() backends.State {
	st, err := backends.Recover("model", m.hs, m.snap, m.ents)
	if err != nil {
		panic(fmt.Sprintf("the test made what no node would: %v", err))
	}
	return st
}

func testHardState(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

func testEntry(index, term uint64, size int) *raftpb.Entry {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(index*31 + term*7 + uint64(i))
	}
	return &raftpb.Entry{Index: &index, Term: &term, Type: raftpb.EntryType_EntryNormal.Enum(), Data: data}
}

func testEntries(first, term uint64, n, size int) []*raftpb.Entry {
	ents := make([]*raftpb.Entry, n)
	for i := range ents {
		ents[i] = testEntry(first+uint64(i), term, size)
	}
	return ents
}

func testSnap(index, term uint64, size int) *raftpb.Snapshot {
	return &raftpb.Snapshot{
		Data: testEntry(index, term, size).Data,
		Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: &term,
			ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}}},
	}
}

// sameState compares with commit allowed to be lower, since a commit index alone
// need not be durable.
func sameState(got, want backends.State, commitMayLag bool) error {
	g, w := got.HardState, want.HardState
	if g.GetTerm() != w.GetTerm() || g.GetVote() != w.GetVote() || g.GetCommit() > w.GetCommit() ||
		!commitMayLag && g.GetCommit() != w.GetCommit() {
		return fmt.Errorf("hard state {%v}, want {%v}", g, w)
	}
	if !proto.Equal(got.Snapshot, want.Snapshot) {
		return fmt.Errorf("snapshot {%v}, want {%v}", got.Snapshot, want.Snapshot)
	}
	if len(got.Entries) != len(want.Entries) {
		return fmt.Errorf("%d entries, want %d", len(got.Entries), len(want.Entries))
	}
	for i := range got.Entries {
		if !proto.Equal(got.Entries[i], want.Entries[i]) {
			return fmt.Errorf("entry {%v}, want {%v}", got.Entries[i], want.Entries[i])
		}
	}
	return nil
}

func writeFiles(dir string, files map[string]string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, "1.snap.tmp"), []byte("half"), 0o600)
}

// between checks a state that a crash left while old was becoming new: entries
// that stay are there, and every other one is from the old or the new log, the
// new ones from the first on without a gap, and none that is replaced is committed.
func between(got backends.State, old, new model, firstNew uint64) error {
	if err := startable(got); err != nil {
		return err
	}
	if !proto.Equal(got.Snapshot, old.state().Snapshot) {
		return sameState(got, new.state(), true)
	}
	at := map[uint64]*raftpb.Entry{}
	for _, e := range got.Entries {
		at[e.GetIndex()] = e
	}
	for _, e := range old.ents {
		if e.GetIndex() < firstNew && !proto.Equal(at[e.GetIndex()], e) {
			return fmt.Errorf("entry %d is {%v}, want {%v}", e.GetIndex(), at[e.GetIndex()], e)
		}
	}
	for i, e := range got.Entries {
		isOld := i < len(old.ents) && proto.Equal(e, old.ents[i])
		isNew := i < len(new.ents) && proto.Equal(e, new.ents[i])
		if !isOld && !isNew {
			return fmt.Errorf("entry {%v} is neither old nor new", e)
		}
		if e.GetIndex() >= firstNew && e.GetIndex() <= got.HardState.GetCommit() && !isNew {
			return fmt.Errorf("entry {%v} is committed ({%v}), and was replaced", e, got.HardState)
		}
		if e.GetTerm() > got.HardState.GetTerm() {
			return fmt.Errorf("entry {%v} is newer than the term of {%v}", e, got.HardState)
		}
	}
	return nil
}

// startable asks raft.
func startable(st backends.State) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("raft panics: %v", r)
		}
	}()
	ms := raft.NewMemoryStorage()
	if st.Snapshot != nil {
		if err := ms.ApplySnapshot(proto.Clone(st.Snapshot).(*raftpb.Snapshot)); err != nil {
			return err
		}
	}
	if err := ms.SetHardState(st.HardState); err != nil {
		return err
	}
	if err := ms.Append(st.Entries); err != nil {
		return err
	}
	_, err = raft.NewRawNode(&raft.Config{
		ID: 1, ElectionTick: 10, HeartbeatTick: 1, Storage: ms, MaxSizePerMsg: math.MaxUint64,
		MaxInflightMsgs: 1, Applied: st.Snapshot.GetMetadata().GetIndex(), Logger: discardLogger,
	})
	return err
}

// TestCrashAfterAnyBatch does what a node does, and looks after every call at
// what a crash would have left that only a prefix of the engine's batches
// survived, at least those that were synced.
func TestCrashAfterAnyBatch(t *testing.T) {
	eachConfig(t, func(t *testing.T, cfg Config) {
		dir := filepath.Dir(cfg.SnapDir)
		rapid.Check(t, func(t *rapid.T) {
			var err error
			if cfg.SnapDir, err = os.MkdirTemp(dir, "snap"); err != nil {
				t.Fatal(err)
			}
			r := &crashRun{t: t, e: newFake(cfg), m: model{hs: testHardState(0, 0, 0)}, mixed: cfg.SnapFiles}
			r.open()
			for range rapid.IntRange(1, 25).Draw(t, "steps") {
				r.step()
			}
			if r.e.useless > 0 {
				t.Fatalf("%d deletions of keys that were not there", r.e.useless)
			}
		})
	})
}

type crashRun struct {
	t *rapid.T
	e *fakeEngine
	s *Storage
	m model
	// mixed: some lives keep new snapshots in files, and some in the engine.
	mixed bool
}

func (r *crashRun) open() {
	if r.mixed {
		r.e.cfg.SnapFiles = rapid.Bool().Draw(r.t, "files")
	}
	s, st, err := Open("dir", r.e, r.e.cfg)
	if err != nil {
		r.t.Fatalf("Open: %v", err)
	}
	if err := sameState(st, r.m.state(), true); err != nil {
		r.t.Fatalf("after Open: %v", err)
	}
	r.s, r.m.hs = s, st.HardState
}

func (r *crashRun) between(lo, hi uint64, what string) uint64 {
	return rapid.Uint64Range(lo, hi).Draw(r.t, what)
}

func (r *crashRun) step() {
	m, hs := r.m, r.m.hs
	base := m.snap.GetMetadata().GetIndex()
	commit := max(hs.GetCommit(), base)
	switch what := rapid.SampledFrom([]string{"append", "overwrite", "commit", "vote", "snapshot", "install", "release", "sync", "reopen"}).Draw(r.t, "call"); what {
	case "append", "overwrite":
		first, term := m.last()+1, max(hs.GetTerm(), m.term(m.last()), 1)
		if what == "overwrite" && m.last() > commit {
			first, term = r.between(commit+1, m.last(), "first"), term+1
		}
		ents := testEntries(first, term, int(r.between(1, 12, "entries")), int(r.between(0, 30, "size")))
		st := testHardState(term, r.between(0, 3, "vote"), r.between(commit, ents[len(ents)-1].GetIndex(), "commit"))
		r.do(what, m.save(st, ents), first, func() error { return r.s.Save(st, ents) })
	case "commit":
		st := testHardState(hs.GetTerm(), hs.GetVote(), r.between(commit, m.last(), "commit"))
		r.do(what, m.save(st, nil), math.MaxUint64, func() error { return r.s.Save(st, nil) })
	case "vote":
		st := testHardState(hs.GetTerm()+1, r.between(0, 3, "vote"), hs.GetCommit())
		r.do(what, m.save(st, nil), math.MaxUint64, func() error { return r.s.Save(st, nil) })
	case "snapshot":
		if commit == 0 {
			return
		}
		at := r.between(max(base, 1), commit, "at")
		snap := testSnap(at, m.term(at), int(r.between(0, 40, "size")))
		r.do(what, m.saveSnap(snap), math.MaxUint64, func() error { return r.saveSnap(snap) })
	case "install":
		at := r.between(commit+1, m.last()+5, "at")
		snap := testSnap(at, max(hs.GetTerm(), m.term(m.last()))+1, int(r.between(0, 40, "size")))
		r.do(what, m.saveSnap(snap), math.MaxUint64, func() error { return r.saveSnap(snap) })
		r.m.hs = r.m.state().HardState
	case "release":
		at := r.between(0, base, "at")
		snap := testSnap(at, 1, 0)
		r.do(what, m, math.MaxUint64, func() error { return r.s.Release(snap) })
	case "sync":
		r.do(what, m, math.MaxUint64, r.s.Sync)
	case "reopen":
		if err := r.s.Close(); err != nil {
			r.t.Fatalf("Close: %v", err)
		}
		r.open()
	}
}

// saveSnap saves a snapshot, as a stream or not.
func (r *crashRun) saveSnap(snap *raftpb.Snapshot) error {
	if !rapid.Bool().Draw(r.t, "stream") {
		return r.s.SaveSnap(snap)
	}
	staged, err := r.s.StageSnap(snap.GetMetadata(), int64(len(snap.Data)), bytes.NewReader(snap.Data))
	if err != nil {
		return err
	}
	return staged.Save()
}

// do makes one call and checks every crash within it and after it.
func (r *crashRun) do(what string, next model, firstNew uint64, call func() error) {
	old, before := r.m, len(r.e.batches)
	durable := r.e.durable()
	if err := call(); err != nil {
		r.t.Fatalf("%s: %v", what, err)
	}
	r.m = next
	for n := durable; n < len(r.e.batches); n++ {
		if n >= r.e.durable() {
			break // below: what survives after the call
		}
		if err := r.crash(n, func(st backends.State) error { return between(st, old, next, firstNew) }); err != nil {
			r.t.Fatalf("a crash during %s, after batch %d of %d to %d: %v", what, n, before, len(r.e.batches), err)
		}
	}
	for n := r.e.durable(); n <= len(r.e.batches); n++ {
		if err := r.crash(n, func(st backends.State) error { return sameState(st, next.state(), true) }); err != nil {
			r.t.Fatalf("a crash after %s, after batch %d of %d: %v", what, n, len(r.e.batches), err)
		}
	}
}

// crash opens what a crash left, goes on from there, and opens again: what the
// crash left must not come back.
func (r *crashRun) crash(n int, check func(backends.State) error) error {
	for _, files := range r.e.filesAfter(n) {
		if err := r.crashWith(n, files, check); err != nil {
			return fmt.Errorf("with the files %q: %w", slices.Sorted(maps.Keys(files)), err)
		}
	}
	return nil
}

// crashWith is crash where these files are beside the engine, and one that was not
// finished.
func (r *crashRun) crashWith(n int, files map[string]string, check func(backends.State) error) error {
	e := r.e.after(n)
	if r.mixed {
		dir, err := os.MkdirTemp(filepath.Dir(r.e.cfg.SnapDir), "crash")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		e.cfg.SnapDir = SnapDir(dir)
		e.cfg.SnapFiles = n%2 == 0
		if err := writeFiles(e.cfg.SnapDir, files); err != nil {
			return err
		}
	}
	s, st, err := Open("dir", e, e.cfg)
	if err != nil {
		return fmt.Errorf("Open: %w", err)
	}
	if err := startable(st); err != nil {
		return err
	}
	if err := check(st); err != nil {
		return err
	}
	m := model{hs: st.HardState, snap: st.Snapshot, ents: st.Entries}
	m = m.save(testHardState(st.HardState.GetTerm()+1, 1, st.HardState.GetCommit()),
		testEntries(st.LastIndex()+1, st.HardState.GetTerm()+1, 1, 5))
	if err := s.Save(m.hs, m.ents[len(m.ents)-1:]); err != nil {
		return fmt.Errorf("Save after the crash: %w", err)
	}
	if _, st, err = Open("dir", e, e.cfg); err != nil {
		return fmt.Errorf("second Open: %w", err)
	}
	if err := sameState(st, m.state(), false); err != nil {
		return fmt.Errorf("after the crash, a Save and a second Open: %w", err)
	}
	if left := e.files(); len(left) > 1 {
		return fmt.Errorf("files are left: %q", slices.Sorted(maps.Keys(left)))
	}
	return nil
}
