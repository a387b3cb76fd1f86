package backendtest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
)

// testKill lets a child process use one directory as a node does, kills it at a
// seeded moment, and compares what Open finds with what the child was told by
// Save and SaveSnap. The directory lives on to the next kill.
//
// Of what was in flight, anything between nothing and all may be there. A commit
// index that was not saved together with an entry, a vote or a Sync may be older
// than the last one saved: rule 1 leaves it in memory.
func testKill(e *env) {
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := e.TempDir()
	m := newCrashModel()
	acked := 0
	for life := range e.limits.lives {
		c := e.startChild(childSpec{Crash: &crashSpec{Dir: dir, Seed: seed, Life: uint64(life)}})
		last, pause := acked+1+rng.IntN(150), time.Duration(rng.IntN(1500))*time.Microsecond
		e.liveAndDie(c, m, func(done bool) (time.Duration, bool) {
			if done {
				acked++
			}
			return pause, done && acked == last
		})
		e.checkKilled(dir, m, life, seed)
	}
	e.Logf("%d lives, %d acknowledged calls", e.limits.lives, acked)
}

// checkKilled opens what a killed life left, and goes on from that.
func (e *env) checkKilled(dir string, m *crashModel, life, seed int) {
	e.Helper()
	storage, state, err := e.b.Open(backends.Options{Dir: dir})
	if err != nil {
		e.Fatalf("life %d was killed, and Open then returned %v; want everything that was acknowledged\n%s", life, err, m.pendingText())
	}
	problem := m.check(state)
	if problem == "" {
		if err := restartable(state); err != nil {
			problem = fmt.Sprintf("a raft node cannot start: %v", err)
		}
	}
	if err := storage.Close(); err != nil {
		e.Fatalf("Close after a kill: %v", err)
	}
	if problem != "" {
		e.Fatalf("life %d was killed (seed %d), and Open then returned something else than was acknowledged: %s\n%s",
			life, seed, problem, m.pendingText())
	}
	m.adopt(state)
}

// testKillInOverwrite kills a child while a Save replaces a long tail by a few entries and
// commits them: none of what it replaces may be found committed, however much of it is
// still there.
func testKillInOverwrite(e *env) {
	const seed = 1
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := e.TempDir()
	m := newCrashModel()
	m.size = smallSize
	for life := range e.limits.lives {
		c := e.startChild(childSpec{Crash: &crashSpec{Dir: dir, Seed: seed, Life: uint64(life), LongTails: true}})
		// In the second such Save, at a moment drawn from the time that the first one took.
		var begun time.Time
		var took time.Duration
		e.liveAndDie(c, m, func(done bool) (time.Duration, bool) {
			op := m.pending["loop"]
			switch replaces := op.n > 0 && m.terms[op.first] != 0; {
			case replaces && took == 0:
				begun = time.Now()
			case replaces:
				return time.Duration(rng.Int64N(int64(took))), true
			case done && !begun.IsZero() && took == 0:
				took = max(time.Since(begun), 1)
			}
			return 0, false
		})
		e.checkKilled(dir, m, life, seed)
	}
}

// liveAndDie follows a child's reports until when says, after each of them, that it is to
// be killed after a pause; then it kills it and takes note of the rest of its reports. done
// says that the report acknowledged a call.
func (e *env) liveAndDie(c *child, m *crashModel, when func(done bool) (pause time.Duration, kill bool)) {
	e.Helper()
	defer c.kill()
	var dying <-chan time.Time
	for {
		select {
		case line, ok := <-c.lines:
			if !ok {
				c.cmd.Wait()
				if dying == nil {
					e.Fatalf("the process that used the storage died by itself:\n%s", c.lastWords())
				}
				return
			}
			done, err := m.note(line)
			if err != nil {
				e.Fatalf("%v", err)
			}
			if pause, kill := when(done); kill && dying == nil {
				dying = time.After(pause)
			}
		case <-dying:
			c.cmd.Process.Kill()
			dying = make(chan time.Time)
		case <-time.After(e.limits.patience):
			e.Fatalf("the storage did not answer for %s\n%s", e.limits.patience, m.pendingText())
		}
	}
}

// crashOp is a call to the storage as a child reports it, before and after. A
// report is "begin" or "done", who calls, and what.
type crashOp struct {
	kind         string // "save", "snap" (of the apply side), "install", "sync", "release"
	first, n     uint64 // save: the entries; snap, install: first is the index
	term         uint64 // of the entries or the snapshot
	hsTerm, vote uint64 // save: the hard state; all 0 if empty
	commit       uint64
}

const crashOpFormat = "%s %d %d %d %d %d %d"

func (o crashOp) String() string {
	return fmt.Sprintf(crashOpFormat, o.kind, o.first, o.n, o.term, o.hsTerm, o.vote, o.commit)
}

func (o crashOp) hardState() *raftpb.HardState { return hs(o.hsTerm, o.vote, o.commit) }

// crashSize makes most values small and some large, from index and term alone.
func crashSize(index, term uint64) int {
	r := rand.New(rand.NewPCG(index, term))
	if r.IntN(40) == 0 {
		return r.IntN(200_000)
	}
	return r.IntN(3000)
}

// smallSize is that of the entries of a long tail.
func smallSize(uint64, uint64) int { return 20 }

func crashEntries(first, n, term uint64, size func(index, term uint64) int) []*raftpb.Entry {
	ents := make([]*raftpb.Entry, n)
	for i := range ents {
		index := first + uint64(i)
		ents[i] = entry(index, term, size(index, term))
	}
	return ents
}

func crashSnap(index, term uint64) *raftpb.Snapshot {
	return snap(index, term, 20*crashSize(index, term))
}

// crashSpec is one life.
type crashSpec struct {
	Dir        string
	Seed, Life uint64
	LongTails  bool // only appends long tails, and replaces them
}

// do uses the storage until the process is killed.
func (c *crashSpec) do(b backends.Backend, r *reporter) {
	storage, state, err := b.Open(backends.Options{Dir: c.Dir})
	if err != nil {
		r.say("failed Open: %v", err)
		return
	}
	l := &crashLife{
		s: storage, r: r, rng: rand.New(rand.NewPCG(c.Seed, c.Life+1)),
		hs: state.HardState, last: state.LastIndex(), snapshots: make(chan *raftpb.Snapshot, 1),
		terms: map[uint64]uint64{}, size: crashSize,
	}
	for _, e := range state.Entries {
		l.terms[e.GetIndex()] = e.GetTerm()
	}
	if md := state.Snapshot.GetMetadata(); md != nil {
		l.terms[md.GetIndex()] = md.GetTerm()
		l.snapshot = md.GetIndex()
	}
	go l.applySide()
	// A new term, as a restarted node would see.
	l.save(l.hs.GetTerm()+1, 1, 0, 0, l.hs.GetCommit())
	if c.LongTails {
		l.size = smallSize
		for {
			l.replaceTail()
		}
	}
	for {
		l.step()
	}
}

// crashLife is the raft loop and the apply side of a node, as a storage sees
// them.
type crashLife struct {
	s    backends.Storage
	r    *reporter
	rng  *rand.Rand
	hs   *raftpb.HardState
	last uint64
	// terms of the entries, from the newest snapshot that the loop knows.
	terms    map[uint64]uint64
	snapshot uint64
	size     func(index, term uint64) int // of an entry

	// apply is held while the apply side uses the storage: the loop waits for it
	// before it installs a snapshot.
	apply     sync.Mutex
	snapshots chan *raftpb.Snapshot
}

func (l *crashLife) call(who string, op crashOp, f func() error) {
	l.r.say("begin %s %s", who, op)
	if err := f(); err != nil {
		l.r.say("failed %s: %v", op, err)
		select {} // the parent ends this
	}
	l.r.say("done %s %s", who, op)
}

func (l *crashLife) step() {
	term, commit := l.hs.GetTerm(), l.hs.GetCommit()
	switch p := l.rng.IntN(100); {
	case p < 55:
		n := 1 + l.rng.Uint64N(6)
		l.save(term, l.last+1, n, term, l.between(commit, l.last))
	case p < 65 && l.last > commit:
		first, n := l.between(commit+1, l.last), 1+l.rng.Uint64N(8)
		l.save(term+1, first, n, term+1, l.between(commit, first+n-1))
	case p < 80:
		l.save(term, 0, 0, 0, l.between(commit, l.last))
	case p < 84:
		l.save(term+1, 0, 0, 0, commit)
	case p < 87:
		l.call("loop", crashOp{kind: "sync"}, l.s.Sync)
	case p < 97:
		// Not the very newest: the apply side is behind the loop.
		if at := l.between(l.snapshot, commit); at > l.snapshot {
			select {
			case l.snapshots <- crashSnap(at, l.terms[at]):
				l.snapshot = at
			default:
			}
		}
	case p < 99:
		l.install()
	}
}

// replaceTail appends a long tail and replaces all but some of it by a few entries, all of
// which are committed then.
func (l *crashLife) replaceTail() {
	term, commit := l.hs.GetTerm(), l.hs.GetCommit()
	l.save(term, l.last+1, longTail, term, commit)
	first, n := commit+1+l.rng.Uint64N(5), 1+l.rng.Uint64N(8)
	l.save(term+1, first, n, term+1, first+n-1)
}

func (l *crashLife) between(lo, hi uint64) uint64 { return lo + l.rng.Uint64N(hi-lo+1) }

func (l *crashLife) save(hsTerm, first, n, term, commit uint64) {
	op := crashOp{kind: "save", first: first, n: n, term: term, hsTerm: hsTerm, vote: hsTerm % 3, commit: commit}
	ents := crashEntries(first, n, term, l.size)
	l.call("loop", op, func() error { return l.s.Save(op.hardState(), ents) })
	l.hs = op.hardState()
	if n > 0 {
		l.last = first + n - 1
		for i := first; i <= l.last; i++ {
			l.terms[i] = term
		}
	}
}

// install is a snapshot from the leader: over a conflicting tail, or ahead of
// the log.
func (l *crashLife) install() {
	l.apply.Lock()
	defer l.apply.Unlock()
	for len(l.snapshots) > 0 { // what the apply side has not begun is out of date
		<-l.snapshots
	}
	term := l.hs.GetTerm() + 1
	at := l.between(l.hs.GetCommit()+1, l.last+20)
	sn := crashSnap(at, term)
	l.call("loop", crashOp{kind: "install", first: at, term: term}, func() error { return l.s.SaveSnap(sn) })
	l.last, l.snapshot, l.terms[at] = at, at, term
	l.save(term, 0, 0, 0, at)
	l.call("loop", crashOp{kind: "sync"}, l.s.Sync)
	l.call("loop", crashOp{kind: "release", first: at}, func() error { return l.s.Release(sn) })
}

func (l *crashLife) applySide() {
	for {
		l.apply.Lock()
		select {
		case sn := <-l.snapshots:
			op := crashOp{kind: "snap", first: sn.GetMetadata().GetIndex(), term: sn.GetMetadata().GetTerm()}
			l.call("apply", op, func() error { return l.s.SaveSnap(sn) })
			op.kind = "release"
			l.call("apply", op, func() error { return l.s.Release(sn) })
			l.apply.Unlock()
		default:
			l.apply.Unlock()
			time.Sleep(time.Millisecond)
		}
	}
}

// crashModel knows what was acknowledged and what was in flight.
type crashModel struct {
	hs                 *raftpb.HardState
	syncedCommit       uint64
	terms              map[uint64]uint64 // of every acknowledged entry
	snapIndex, snapTrm uint64            // the newest acknowledged snapshot
	pending            map[string]crashOp
	size               func(index, term uint64) int // of an entry
}

func newCrashModel() *crashModel {
	return &crashModel{hs: &raftpb.HardState{}, terms: map[uint64]uint64{}, pending: map[string]crashOp{}, size: crashSize}
}

func (m *crashModel) pendingText() string { return fmt.Sprintf("in flight: %v", m.pending) }

// note takes a report in; done says that it acknowledges a call.
func (m *crashModel) note(line string) (done bool, err error) {
	if what, failed := strings.CutPrefix(line, "failed "); failed {
		return false, fmt.Errorf("the storage returned an error: %s; want success", what)
	}
	var what, who string
	var op crashOp
	if _, err := fmt.Sscanf(line, "%s %s "+crashOpFormat, &what, &who,
		&op.kind, &op.first, &op.n, &op.term, &op.hsTerm, &op.vote, &op.commit); err != nil {
		return false, fmt.Errorf("cannot read the report %q: %v", line, err)
	}
	if what == "begin" {
		m.pending[who] = op
		return false, nil
	}
	delete(m.pending, who)
	m.acknowledge(op)
	return true, nil
}

func (m *crashModel) acknowledge(op crashOp) {
	switch op.kind {
	case "save":
		if raft.MustSync(op.hardState(), m.hs, int(op.n)) {
			m.syncedCommit = op.commit
		}
		m.hs = op.hardState()
		if op.n > 0 {
			m.cutFrom(op.first)
			for i := op.first; i < op.first+op.n; i++ {
				m.terms[i] = op.term
			}
		}
	case "sync":
		m.syncedCommit = m.hs.GetCommit()
	case "snap", "install":
		if op.kind == "install" {
			m.cutFrom(0)
		}
		m.snapIndex, m.snapTrm = op.first, op.term
	}
}

func (m *crashModel) cutFrom(index uint64) {
	for i := range m.terms {
		if i >= index {
			delete(m.terms, i)
		}
	}
}

// check says what in state contradicts what was acknowledged, "" if nothing.
func (m *crashModel) check(state backends.State) string {
	index, term := state.Snapshot.GetMetadata().GetIndex(), state.Snapshot.GetMetadata().GetTerm()
	installed := false
	if index != m.snapIndex || term != m.snapTrm {
		known := false
		for _, op := range m.pending {
			if (op.kind == "snap" || op.kind == "install") && op.first == index && op.term == term {
				known, installed = true, op.kind == "install"
			}
		}
		if !known {
			return fmt.Sprintf("the snapshot is at (index %d, term %d), want (%d, %d)", index, term, m.snapIndex, m.snapTrm)
		}
	}
	if state.Snapshot != nil {
		if d := snapshotDiffers(state.Snapshot, crashSnap(index, term)); d != "" {
			return d
		}
	}
	if d := m.checkEntries(state, index, installed); d != "" {
		return d
	}
	if n := len(state.Entries); n > 0 {
		term = state.Entries[n-1].GetTerm()
	}
	return m.checkHardState(state.HardState, index, term)
}

// checkEntries: everything acknowledged above the snapshot is there, and nothing
// that was never saved; and what a Save was replacing is not committed, as the commit
// index that comes with it counts the entries that replace it.
func (m *crashModel) checkEntries(state backends.State, snapIndex uint64, installed bool) string {
	// What Save was replacing is free to go, and so is a log that a snapshot
	// replaced.
	flight, saving := m.pending["loop"]
	saving = saving && flight.kind == "save" && flight.n > 0
	got := map[uint64]uint64{}
	for _, e := range state.Entries {
		i, term := e.GetIndex(), e.GetTerm()
		got[i] = term
		isOld := !installed && m.terms[i] == term
		isNew := saving && term == flight.term && i >= flight.first && i < flight.first+flight.n
		if !isOld && !isNew {
			return fmt.Sprintf("entry %d has term %d, want term %d (0: no such entry)", i, term, m.terms[i])
		}
		if !isNew && saving && i >= flight.first && i <= state.HardState.GetCommit() {
			return fmt.Sprintf("entry %d of term %d is committed (%s), and was being replaced", i, term, hardState(state.HardState))
		}
		if want := payload(i, term, m.size(i, term)); !bytes.Equal(e.Data, want) {
			return fmt.Sprintf("entry %d has other Data (%s)", i, bytesDiffer(e.Data, want))
		}
	}
	if installed {
		return ""
	}
	for i, term := range m.terms {
		free := i <= snapIndex || saving && i >= flight.first
		if got[i] != term && !free {
			return fmt.Sprintf("the acknowledged entry %d of term %d is lost: the log is %s", i, term, describe(state.Entries))
		}
	}
	return ""
}

// checkHardState: term and vote are those acknowledged, or in flight, raised as
// backends.Recover does; the commit index is not older than forced.
func (m *crashModel) checkHardState(got *raftpb.HardState, snapIndex, lastTerm uint64) string {
	candidates := []*raftpb.HardState{m.hs}
	if op, ok := m.pending["loop"]; ok && op.kind == "save" {
		candidates = append(candidates, op.hardState())
	}
	maxCommit, known := snapIndex, false
	for _, c := range candidates {
		maxCommit = max(maxCommit, c.GetCommit())
		term, vote := c.GetTerm(), c.GetVote()
		if term < lastTerm {
			term, vote = lastTerm, 0
		}
		known = known || got.GetTerm() == term && got.GetVote() == vote
	}
	if !known {
		return fmt.Sprintf("the hard state is %s, want term and vote of %s", hardState(got), hardState(m.hs))
	}
	if minCommit := max(m.syncedCommit, snapIndex); got.GetCommit() < minCommit || got.GetCommit() > maxCommit {
		return fmt.Sprintf("the hard state is %s, want a commit index from %d to %d", hardState(got), minCommit, maxCommit)
	}
	return ""
}

// adopt takes what was found as what the next life must keep.
func (m *crashModel) adopt(state backends.State) {
	size := m.size
	*m = *newCrashModel()
	m.size = size
	m.hs, m.syncedCommit = state.HardState, state.HardState.GetCommit()
	m.snapIndex, m.snapTrm = state.Snapshot.GetMetadata().GetIndex(), state.Snapshot.GetMetadata().GetTerm()
	for _, e := range state.Entries {
		m.terms[e.GetIndex()] = e.GetTerm()
	}
}
