package bench

import (
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/bench/result"
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

// TestHostInMemory: a run of which any host keeps its data in memory says so.
func TestHostInMemory(t *testing.T) {
	on := func(fileSystem string) result.Env { return result.Env{FileSystem: fileSystem} }
	for _, c := range []struct {
		res  result.Result
		want []string
	}{
		{result.Result{Env: on("ext4")}, nil},
		{result.Result{Env: on("tmpfs")}, []string{"tmpfs"}},
		{result.Result{Env: on("ext4"), Hosts: []result.Host{{Env: on("ext4")}, {Env: on("xfs")}}}, nil},
		{result.Result{Env: on("ext4"), Hosts: []result.Host{{Env: on("ext4")}, {Env: on("tmpfs")}}}, []string{"tmpfs"}},
		{result.Result{Env: on("overlay"), Hosts: []result.Host{{Env: on("overlay")}, {Env: on("ramfs")}}}, []string{"tmpfs", "overlay"}},
	} {
		c.res.Runs = make([]result.Run, 1)
		applyEnv(&c.res)
		if got := c.res.Runs[0].Flags; !slices.Equal(got, c.want) {
			t.Errorf("%+v: flags %q, want %q", c.res.Hosts, got, c.want)
		}
	}
}

// TestFigureFlags: what the figures of a run show.
func TestFigureFlags(t *testing.T) {
	lag := func(p99 time.Duration) result.Run {
		return result.Run{Ops: 1, Lag: result.Latency{Count: 1, P99: p99}, Response: result.Latency{P99: 100}}
	}
	for _, c := range []struct {
		run   result.Run
		meant bool
		want  []string
	}{
		{result.Run{Ops: 1}, false, nil},
		{result.Run{}, true, []string{"nothing_committed"}},
		{result.Run{Ops: 1, Errors: 1}, false, []string{"errors"}},
		{result.Run{Ops: 1, Errors: 1}, true, nil},
		{lag(10), false, nil},
		{lag(11), true, []string{"generator_limited"}},
	} {
		if got := figureFlags(&c.run, c.meant); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.run, got, c.want)
		}
	}
}
