package raw

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// model is what a storage must hold: the oracle of the power cuts.
type model struct {
	hs     hardState
	synced uint64 // commit index that must survive
	snap   *raftpb.Snapshot
	ents   []*raftpb.Entry // after the last reset; released ones included
}

func (m *model) last() uint64 {
	if n := len(m.ents); n > 0 {
		return m.ents[n-1].GetIndex()
	}
	return m.snap.GetMetadata().GetIndex()
}

func (m *model) term(index uint64) uint64 {
	for _, e := range m.ents {
		if e.GetIndex() == index {
			return e.GetTerm()
		}
	}
	return m.snap.GetMetadata().GetTerm()
}

// an op is one call, and what it does to the model when it succeeds.
type op struct {
	name string
	call func(s backends.Storage) error
	then model
}

// next makes up an operation that raft could ask for.
func (m *model) next(rnd *rand.Rand) op {
	o := op{then: *m}
	n := &o.then
	n.ents = slices.Clone(m.ents)
	switch k := rnd.IntN(20); {
	case k < 10: // append, now and then over an uncommitted tail and in a new term
		first := m.last() + 1
		if rnd.IntN(4) == 0 && m.hs.commit < m.last() {
			first = m.hs.commit + 1 + rnd.Uint64N(m.last()-m.hs.commit)
			n.hs.term, n.hs.vote = n.hs.term+1, rnd.Uint64N(4)
		}
		n.hs.term = max(n.hs.term, 1)
		var ents []*raftpb.Entry
		for i := range 1 + rnd.Uint64N(4) {
			size := []int{0, 10, 500, 3000, 6000}[rnd.IntN(5)]
			e := &raftpb.Entry{Index: proto.Uint64(first + i), Term: proto.Uint64(n.hs.term), Data: make([]byte, size)}
			for j := range e.Data {
				e.Data[j] = byte(rnd.Uint32())
			}
			ents = append(ents, e)
		}
		for len(n.ents) > 0 && n.ents[len(n.ents)-1].GetIndex() >= first {
			n.ents = n.ents[:len(n.ents)-1]
		}
		n.ents = append(n.ents, ents...)
		n.synced = n.hs.commit
		hs := n.hs.proto()
		if n.hs == m.hs {
			hs = &raftpb.HardState{}
		}
		o.name = fmt.Sprintf("Save(%v, %d entries from %d)", n.hs, len(ents), first)
		o.call = func(s backends.Storage) error { return s.Save(hs, ents) }
	case k < 13: // the commit index alone
		n.hs.commit += rnd.Uint64N(m.last() - m.hs.commit + 1)
		o.name = fmt.Sprintf("Save(%v)", n.hs)
		o.call = func(s backends.Storage) error { return s.Save(n.hs.proto(), nil) }
	case k < 14: // a vote
		n.hs.term, n.hs.vote = n.hs.term+1, 1+rnd.Uint64N(3)
		n.synced = n.hs.commit
		o.name = fmt.Sprintf("Save(%v)", n.hs)
		o.call = func(s backends.Storage) error { return s.Save(n.hs.proto(), nil) }
	case k < 15:
		n.synced = n.hs.commit
		o.name = "Sync"
		o.call = func(s backends.Storage) error { return s.Sync() }
	case k < 17: // a snapshot of what is committed
		if m.hs.commit <= m.snap.GetMetadata().GetIndex() {
			return m.next(rnd)
		}
		n.snap = testSnapshot(m.hs.commit, m.term(m.hs.commit), rnd)
		o.name = fmt.Sprintf("SaveSnap(%d)", m.hs.commit)
		o.call = func(s backends.Storage) error { return s.SaveSnap(n.snap) }
	case k < 18: // a snapshot from the leader
		index := m.hs.commit + 1 + rnd.Uint64N(m.last()-m.hs.commit+5)
		n.snap = testSnapshot(index, m.hs.term+1, rnd)
		n.ents = nil
		o.name = fmt.Sprintf("SaveSnap(%d of term %d)", index, m.hs.term+1)
		o.call = func(s backends.Storage) error { return s.SaveSnap(n.snap) }
		n.hs = hardState{term: m.hs.term + 1, commit: index}
		n.synced = index
	default:
		if m.snap == nil {
			return m.next(rnd)
		}
		snap := m.snap
		o.name = fmt.Sprintf("Release(%d)", snap.GetMetadata().GetIndex())
		o.call = func(s backends.Storage) error { return s.Release(snap) }
	}
	return o
}

func testSnapshot(index, term uint64, rnd *rand.Rand) *raftpb.Snapshot {
	return &raftpb.Snapshot{Data: []byte(strconv.Itoa(rnd.Int())),
		Metadata: &raftpb.SnapshotMetadata{Index: proto.Uint64(index), Term: proto.Uint64(term)}}
}

// matches says what differs between what Open returned and the model.
func (m *model) matches(got backends.State) error {
	lo, hi := m.hs, m.hs
	lo.commit = m.synced
	want, err := backends.Recover("model", hi.proto(), m.snap, slices.Clone(m.ents))
	if err != nil {
		return err
	}
	low, err := backends.Recover("model", lo.proto(), m.snap, slices.Clone(m.ents))
	if err != nil {
		return err
	}
	g, w := got.HardState, want.HardState
	if g.GetTerm() != w.GetTerm() || g.GetVote() != w.GetVote() ||
		g.GetCommit() > w.GetCommit() || g.GetCommit() < low.HardState.GetCommit() {
		return fmt.Errorf("hard state %v, want %v with commit from %d", g, w, low.HardState.GetCommit())
	}
	if !proto.Equal(got.Snapshot, want.Snapshot) {
		return fmt.Errorf("snapshot %v, want %v", got.Snapshot.GetMetadata(), want.Snapshot.GetMetadata())
	}
	if len(got.Entries) != len(want.Entries) {
		return fmt.Errorf("entries up to %d (%d of them), want up to %d (%d)", got.LastIndex(), len(got.Entries), want.LastIndex(), len(want.Entries))
	}
	for i, e := range got.Entries {
		if !proto.Equal(e, want.Entries[i]) {
			return fmt.Errorf("entry %d differs", e.GetIndex())
		}
	}
	return nil
}

// adopt makes the model what was found, which matched it.
func (m *model) adopt(st backends.State) {
	m.hs = hardState{st.HardState.GetTerm(), st.HardState.GetVote(), st.HardState.GetCommit()}
	m.synced = m.hs.commit
}

// life is one process: it opens the disk, calls until a step of the disk does
// not return, or until it has done enough, and is gone. The disk must then hold
// what was acknowledged, or that and the call that was not. It returns what was
// done.
func life(t *testing.T, d *cutDisk, cfg config, m *model, rnd *rand.Rand, dieAt, calls int) (trace []string) {
	t.Helper()
	d.dieAt = dieAt
	s, st, err := openDisk(d, cfg)
	if errors.Is(err, errDead) {
		return []string{"died in Open"}
	}
	if err == nil {
		err = m.matches(st)
	}
	if err != nil {
		t.Errorf("Open: %v", err)
		return nil
	}
	m.adopt(st)
	for range calls {
		o := m.next(rnd)
		trace = append(trace, o.name)
		err := o.call(s)
		if errors.Is(err, errDead) {
			s.Close()
			return append(trace, "died", settleModel(t, d, cfg, m, &o.then, rnd))
		}
		if err != nil {
			t.Errorf("%s: %v", o.name, err)
			break
		}
		*m = o.then
	}
	if rnd.IntN(3) > 0 {
		d.kill() // a killed process does not close
	}
	s.Close()
	return append(trace, "ended")
}

// settleModel opens the disk after a death within a call, and makes the model
// what it finds, which must be the state before the call or after it.
func settleModel(t *testing.T, d *cutDisk, cfg config, before, after *model, rnd *rand.Rand) string {
	t.Helper()
	what := "the process died"
	if rnd.IntN(4) > 0 {
		what = "the power was cut"
		d.cut()
	}
	d.revive()
	s, st, err := openDisk(d, cfg)
	if err != nil {
		t.Errorf("Open after %s: %v", what, err)
		return what
	}
	errBefore, errAfter := before.matches(st), after.matches(st)
	switch {
	case errAfter == nil:
		*before = *after
	case errBefore != nil:
		t.Errorf("Open after %s: neither before the call: %v\nnor after it: %v", what, errBefore, errAfter)
	}
	before.adopt(st)
	d.kill()
	s.Close()
	return what
}

// TestPowerCut cuts the power at every step of a random workload, and lets the
// same disk live on through many generations. RAFTBENCH_RAW_CUTS is the number
// of cuts of each configuration.
func TestPowerCut(t *testing.T) {
	cuts := 200
	if v := os.Getenv("RAFTBENCH_RAW_CUTS"); v != "" {
		var err error
		if cuts, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	for _, sector := range []int{512, 4096} {
		for _, prealloc := range []string{"zero", "fallocate", "none"} {
			for _, recycle := range []bool{true, false} {
				for _, io := range []string{"buffered", "direct"} {
					cfg := config{segment: 8 << 10, recycle: recycle, prealloc: prealloc, way: way{io: io}}
					t.Run(fmt.Sprintf("sector=%d/prealloc=%s/recycle=%v/io=%s", sector, prealloc, recycle, io), func(t *testing.T) {
						t.Parallel()
						powerCuts(t, cfg, sector, cuts)
					})
				}
			}
		}
	}
}

func powerCuts(t *testing.T, cfg config, sector, cuts int) {
	const generations = 25
	for seed := range uint64(cuts / generations) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		d, m := newCutDisk(seed, sector), &model{}
		var traces [][]string // of this disk
		ok := t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			for !t.Failed() && len(traces) < generations {
				c := cfg
				if rnd.IntN(2) == 0 { // the parameter changes from life to life
					c.segment = 4 << 10 << rnd.IntN(4)
				}
				trace := life(t, d, c, m, rnd, 1+rnd.IntN(150), 40)
				traces = append(traces, trace)
				if rnd.IntN(4) > 0 {
					d.cut()
				}
				d.revive()
			}
		})
		if !ok {
			for i, trace := range traces {
				t.Logf("life %d: %v", i, trace)
			}
			return
		}
	}
}
