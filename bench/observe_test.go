package bench

import (
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/mem"
)

// during is a storage in whose Save something happens.
type during struct {
	backends.Storage
	happens func()
}

func (s during) Save(*raftpb.HardState, []*raftpb.Entry) error {
	s.happens()
	return nil
}

// TestSavesOverTheEnds: a Save that was under way in the measured time counts, though it
// was begun before or ended after.
func TestSavesOverTheEnds(t *testing.T) {
	for name, c := range map[string]struct {
		before, after bool // measuring
		want          int64
	}{
		"within": {true, true, 1}, "over the end": {true, false, 1}, "over the begin": {false, true, 1}, "outside": {false, false, 0},
	} {
		o := &observer{base: time.Now(), tally: &tally{}}
		m := &member{id: 1}
		o.proposer.Store(m)
		o.measuring.Store(c.before)
		s := observeStorage(o, m, during{happens: func() { o.measuring.Store(c.after) }})
		index, term := uint64(1), uint64(1)
		if err := s.Save(nil, []*raftpb.Entry{{Index: &index, Term: &term, Data: []byte("a")}}); err != nil {
			t.Fatal(err)
		}
		if got := s.hist.TotalCount(); got != c.want {
			t.Errorf("%s: %d Saves recorded, want %d", name, got, c.want)
		}
	}
}

// TestReadsAreOperations: reads are in the windows that tell whether a run was steady, and
// among the operations that a run of so many waits for.
func TestReadsAreOperations(t *testing.T) {
	spec := quick(t, mem.Backend)
	spec.ReadRatio, spec.NoCalibrate = 1, true
	run := mustRun(t, spec).Runs[0]
	if run.Ops == 0 || len(run.Windows) == 0 || run.Snapshot == nil { // beside whose install is something written
		t.Fatalf("%d operations, windows %v, snapshot %+v", run.Ops, run.Windows, run.Snapshot)
	}
	if slices.Max(run.Windows) == 0 {
		t.Errorf("%d reads, and none in the windows", run.Ops)
	}
	spec = quick(t, mem.Backend)
	spec.ReadRatio, spec.Ops, spec.NoCalibrate, spec.NoSnapshots = 1, 1000, true, true
	if run := mustRun(t, spec).Runs[0]; run.Ops == 0 {
		t.Error("no reads in a run of 1000 operations")
	}
}
