package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/bench/result"
)

// kept passes a result through JSON, as a file does.
func kept(t *testing.T, res *result.Result) *result.Result {
	t.Helper()
	data, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	var out result.Result
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return &out
}

// TestResume stops a suite after every number of runs in turn; what goes on from
// the last checkpoint holds every run once, and what an uninterrupted one holds.
func TestResume(t *testing.T) {
	for name, l := range map[string]Load{"curve": {Kind: LoadCurve}, "search": {Kind: LoadSearch, Metric: "p99", SLO: 10 * time.Millisecond}, "closed": Closed(8), "laps": Closed(9)} {
		t.Run(name, func(t *testing.T) {
			fresh := func() Spec {
				spec := suiteOf(t, l, "a", "b")
				spec.Repeats, spec.RunOne = 2, simulated(map[string]float64{"a": 5000, "b": 300}, 0)
				spec.Seed = 7
				if name == "laps" {
					spec.Laps = 3
				}
				return spec
			}
			whole := mustRun(t, fresh())
			for stop := 1; stop < len(whole.Runs); stop += 1 + len(whole.Runs)/9 {
				var last *result.Result
				ctx, cancel := context.WithCancelCause(context.Background())
				spec := fresh()
				spec.Checkpoint = func(res *result.Result) error {
					last = kept(t, res)
					if len(res.Runs) == stop {
						cancel(errors.New("power cut"))
					}
					return nil
				}
				if _, err := Run(ctx, spec); err == nil || len(last.Runs) != stop || !last.Interrupted {
					t.Fatalf("stopped after %d runs with %v", len(last.Runs), err)
				}
				again := fresh()
				again.Resume = last
				resumed := mustRun(t, again)
				if got, want := describe(resumed), describe(whole); got != want {
					t.Errorf("resumed after %d runs:\n%s\nwant\n%s", stop, got, want)
				}
				if resumed.ID != last.ID || resumed.Interrupted || resumed.Planned != len(resumed.Runs) {
					t.Errorf("resumed: id %s of %s, interrupted %v, %d planned", resumed.ID, last.ID, resumed.Interrupted, resumed.Planned)
				}
			}
		})
	}
}

// describe lists what must not depend on an interruption.
func describe(res *result.Result) string {
	var lines []string
	for _, r := range res.Runs {
		lines = append(lines, fmt.Sprintf("%s %d %+v %.1f", r.ID, r.Order, r.Load, r.Throughput))
	}
	slices.Sort(lines)
	for _, s := range res.Searches {
		lines = append(lines, fmt.Sprintf("%+v", s))
	}
	return strings.Join(lines, "\n")
}

// TestResumeRefuses what would be compared with what it cannot be compared with.
func TestResumeRefuses(t *testing.T) {
	fresh := func() Spec {
		spec := suiteOf(t, Closed(8), "a")
		spec.RunOne = simulated(map[string]float64{"a": 5000}, 0)
		return spec
	}
	old := mustRun(t, fresh())
	more := fresh()
	more.Repeats, more.Resume = 3, kept(t, old)
	if res := mustRun(t, more); len(res.Runs) != 3 {
		t.Errorf("%d runs after two more blocks were asked for", len(res.Runs))
	}
	for want, change := range map[string]func(*Spec){
		"another suite":   func(s *Spec) { s.Load = Closed(9) },
		"another suite ":  func(s *Spec) { s.Backends[0].Name = "b" },
		"kernel: 1, now ": func(s *Spec) { s.Resume.Env.Kernel = "1" },
		"commit: 2, now ": func(s *Spec) { s.Resume.Env.Commit = "2" },
		"build: b, now ":  func(s *Spec) { s.Resume.Env.Build = "b" },
		"GOGC: 7, now ":   func(s *Spec) { s.Resume.Env.GOGC = "7" },
		"hosts: 2, now 0": func(s *Spec) { s.Resume.Hosts = make([]result.Host, 2) },
	} {
		spec := fresh()
		spec.Resume = kept(t, old)
		change(&spec)
		res, err := Run(context.Background(), spec)
		var bad *UsageError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), strings.TrimSpace(want)) || res != nil {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// TestResumeDropsFailures and what only a whole suite can tell.
func TestResumeDropsFailures(t *testing.T) {
	spec := suiteOf(t, Closed(8), "a", "b")
	spec.RunOne = simulated(map[string]float64{"a": 5000, "b": 5000}, 0)
	old := kept(t, mustRun(t, spec))
	for i := range old.Runs {
		old.Runs[i].Flags = []string{"errors", "floor_drift", "harness_limited"}
		if old.Runs[i].Backend == "b" {
			old.Runs[i].Error = "no space left"
		}
	}
	again := spec
	again.Dir, again.Resume = filepath.Join(t.TempDir(), "data"), old
	res := mustRun(t, again)
	for _, r := range res.Runs {
		r.Flags = slices.DeleteFunc(r.Flags, func(f string) bool { return f == "steal" }) // of this machine, now
		if want := map[string]string{"a": "[errors]", "b": "[]"}[r.Backend]; fmt.Sprint(r.Flags) != want || r.Error != "" {
			t.Errorf("%s: flags %v, error %q", r.ID, r.Flags, r.Error)
		}
	}
	if len(res.Runs) != 2 {
		t.Errorf("%d runs", len(res.Runs))
	}
}

// TestNothingHeard: a run of which nothing was heard, because its process died, says which
// one it was and why it has no figures, and is made again.
func TestNothingHeard(t *testing.T) {
	spec := suiteOf(t, Closed(8), "a")
	works := simulated(map[string]float64{"a": 5000}, 0)
	spec.RunOne = func(context.Context, One, func(Progress)) (result.Run, error) {
		return result.Run{}, errors.New("worker died")
	}
	res, err := Run(context.Background(), spec)
	if err == nil || len(res.Runs) != 1 {
		t.Fatalf("%v, %d runs", err, len(res.Runs))
	}
	if r := res.Runs[0]; r.ID == "" || r.Backend != "a" || r.Block != 1 || r.Error != "worker died" {
		t.Errorf("%+v", r)
	}
	old := kept(t, res)
	old.Runs = append(old.Runs, result.Run{}) // as older versions noted it
	again := spec
	again.Dir, again.Resume, again.RunOne = filepath.Join(t.TempDir(), "data"), old, works
	if res := mustRun(t, again); len(res.Runs) != 1 || res.Runs[0].Error != "" || res.Runs[0].ID == "" {
		t.Errorf("resumed: %+v", res.Runs)
	}
}

func TestCheckpointFails(t *testing.T) {
	spec := suiteOf(t, Closed(8), "a")
	spec.Repeats, spec.RunOne = 3, simulated(map[string]float64{"a": 5000}, 0)
	spec.Checkpoint = func(*result.Result) error { return errors.New("no space left") }
	if res, err := Run(context.Background(), spec); err == nil || !strings.Contains(err.Error(), "no space left") || len(res.Runs) != 1 {
		t.Errorf("error %v, %d runs", err, len(res.Runs))
	}
}

// TestMatrix: a block holds every configuration of every backend, and each is
// compared with its own kind only.
func TestMatrix(t *testing.T) {
	frame := suiteOf(t, Closed(1))
	frame.Backends = nil
	b := func(name string, d backends.Durability) backends.Backend {
		b := mem.Backend
		b.Name, b.Durability = name, d
		return b
	}
	synced, none := b("a", backends.Synced), b("none", backends.None)
	for _, clients := range []int{1, 64} {
		for _, nodes := range []int{1, 5} {
			frame.Matrix = append(frame.Matrix, Spec{Backends: []backends.Backend{synced, none}, Load: Closed(clients), Nodes: nodes,
				Variant: fmt.Sprintf("closed:%d,nodes=%d", clients, nodes)})
		}
	}
	frame.Repeats, frame.Seed = 2, 3
	frame.RunOne = func(_ context.Context, one One, _ func(Progress)) (result.Run, error) {
		run := one.Header()
		run.Throughput = map[string]float64{"a": 900, "none": 1000}[run.Backend]
		if one.Nodes == 5 && run.Backend == "none" {
			run.Throughput = 9000
		}
		run.GOMAXPROCS = map[string]int{"a": 5, "none": 2}[run.Backend]
		return run, nil
	}
	res := mustRun(t, frame)
	ids := map[string]bool{}
	for _, r := range res.Runs {
		ids[r.ID] = true
		limited := slices.Contains(r.Flags, "harness_limited")
		if want := r.Backend == "a" && r.Nodes == 1; limited != want {
			t.Errorf("%s: harness limited is %v: a ceiling of another configuration was taken", r.ID, limited)
		}
	}
	if len(ids) != 16 || len(res.Runs) != 16 || !ids["002-a-closed:64,nodes=5"] {
		t.Errorf("%d runs, ids %v", len(res.Runs), ids)
	}
	if err := frame.Fill(); err != nil {
		t.Fatal(err)
	}
	if runs, took := frame.Estimate(); runs != 16 || took < 16*6*time.Second || took > 5*time.Minute {
		t.Errorf("estimate: %d runs, %v", runs, took)
	}
	frame.Matrix = append(frame.Matrix, frame.Matrix[0])
	if err := frame.Fill(); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a configuration twice: %v", err)
	}
	frame.Matrix[4] = Spec{Backends: frame.Matrix[0].Backends, Nodes: 99, Variant: "nodes=99"}
	if err := frame.Fill(); err == nil || !strings.Contains(err.Error(), "nodes=99") || !strings.Contains(err.Error(), "1 to 9") {
		t.Errorf("a bad configuration: %v", err)
	}
}

// TestWorkloadsDemand tells before anything starts what does not go together.
func TestWorkloadsDemand(t *testing.T) {
	read := func(dir string) (*load.Trace, error) {
		if dir == "good" {
			return &load.Trace{Sizes: []int{1, 2}, Batches: []int{2}}, nil
		}
		return nil, errors.New("no such directory")
	}
	trace := Workload{Kind: WorkloadTrace, Dir: "good"}
	for want, change := range map[string]func(*Spec){
		"needs the workload trace": func(s *Spec) { s.Load = Load{Kind: LoadTrace} },
		"no reads":                 func(s *Spec) { s.Workload, s.Load, s.ReadRatio = trace, Load{Kind: LoadTrace}, 0.5 },
		"keeps nothing":            func(s *Spec) { s.Workload = Workload{Kind: WorkloadRestart} },
		"load curve needs":         func(s *Spec) { s.Workload, s.Load = Workload{Kind: WorkloadAge}, Load{Kind: LoadCurve} },
		"load search:p99<1s needs": func(s *Spec) {
			s.Workload, s.Load = Workload{Kind: WorkloadSnapshot}, Load{Kind: LoadSearch, Metric: "p99", SLO: time.Second}
		},
		"trace:bad: no such directory":  func(s *Spec) { s.Workload, s.Load = Workload{Kind: WorkloadTrace, Dir: "bad"}, Load{Kind: LoadTrace} },
		"trace:good: this build cannot": func(s *Spec) { s.Workload, s.Load, s.ReadTrace = trace, Load{Kind: LoadTrace}, nil },
		"cycles -1":                     func(s *Spec) { s.Workload, s.Cycles = Workload{Kind: WorkloadAge}, -1 },
		"snapshot cuts a follower off":  func(s *Spec) { s.Workload, s.Nodes = Workload{Kind: WorkloadSnapshot}, 1 },
	} {
		spec := quick(t, mem.Backend)
		spec.ReadTrace = read
		change(&spec)
		_, err := Run(context.Background(), spec)
		var bad *UsageError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
