package bench

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/backends/raw"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
)

func demand(t *testing.T, expr string) stats.Demand {
	t.Helper()
	d, err := stats.Threshold(expr)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestCheckDemands(t *testing.T) {
	large := raw.Backend.With(map[string]string{"segment": "64MiB"})
	for _, c := range []struct {
		expr   string
		change func(*Spec)
		want   string
	}{
		{"save.p99<5ms", nil, ""},
		{"raw:save.p99<5ms", nil, ""},
		{"raw[segment=64MiB]:save.p99<5ms", nil, ""},
		{"raw[segment=1MiB]:save.p99<5ms", nil, "runs mem, raw, raw[segment=64MiB]"},
		{"raw:save.p99<5ms", func(s *Spec) { s.Backends = []backends.Backend{large} }, ""},
		{"bbolt:save.p99<5ms", nil, "bbolt is not in this suite"},
		{"mem:throughput>1k/s", func(s *Spec) { s.Workload.Kind = WorkloadRestart }, "mem is not in this suite"},
		{"throughput>1k/s", func(s *Spec) { s.Workload.Kind = WorkloadRestart }, "no load"},
		{"restart.open<1s", nil, "mem can have restart.open: it keeps nothing"},
		{"raw:restart.open<1s", nil, ""},
		{"reads.p99<1s", nil, "--read-ratio"},
		{"reads.p99<1s", func(s *Spec) { s.ReadRatio = 0.1 }, ""},
		{"lag.p99<1s", nil, "open:R"},
		{"lag.p99<1s", func(s *Spec) { s.Load = Load{Kind: LoadCurve} }, ""},
		{"snapshot.install<1s", func(s *Spec) { s.Load = Load{Kind: LoadCurve} }, "no snapshot"},
		{"snapshot.install<1s", func(s *Spec) { s.Nodes = 1 }, "3 nodes"},
		{"snapshot.install<1s", func(s *Spec) { s.Workload.Kind = WorkloadAge }, "age installs"},
		{"faults.stall<1s", nil, "--faults"},
		{"raw:restart.ready<1s", nil, "opens the stores only"},
		{"write_amp<3", nil, "mem can have write_amp: it keeps nothing"},
		{"cpu_per_op<1ms", func(s *Spec) { s.Workload.Kind = WorkloadSnapshot }, "no load"},
		{"network.rtt.p50<1s", func(s *Spec) { s.Nodes = 1 }, "one node"},
	} {
		spec := Spec{Backends: []backends.Backend{raw.Backend, large, mem.Backend}}
		if c.change != nil {
			c.change(&spec)
		}
		if err := spec.Fill(); err != nil {
			t.Fatal(err)
		}
		err := spec.CheckDemands([]stats.Demand{demand(t, "errors<1"), demand(t, c.expr)})
		var bad *UsageError
		if c.want == "" && err != nil || c.want != "" && (!errors.As(err, &bad) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.expr, err, c.want)
		}
	}
}

// TestCheckDemandsOfMatrix: what one configuration has, the suite has.
func TestCheckDemandsOfMatrix(t *testing.T) {
	for seed := range int64(8) { // each order of the two comes
		spec := Spec{Seed: 1 + seed, Matrix: []Spec{
			{Backends: []backends.Backend{mem.Backend}, Variant: "closed"},
			{Backends: []backends.Backend{mem.Backend}, Variant: "open", Load: Open(100)},
		}}
		if err := spec.Fill(); err != nil {
			t.Fatal(err)
		}
		if err := spec.CheckDemands([]stats.Demand{demand(t, "mem:lag.p99<1s")}); err != nil {
			t.Errorf("seed %d: %v", spec.Seed, err)
		}
	}
}

// TestLacksIsTrue: no run has a figure of which it was said that it cannot.
func TestLacksIsTrue(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"closed":   func(*Spec) {},
		"open":     func(s *Spec) { s.Load = Open(500) },
		"one node": func(s *Spec) { s.Nodes = 1 },
		"faults":   func(s *Spec) { s.Faults = "at 100ms: cut leader-*; at 200ms: heal" },
		"snapshot": func(s *Spec) { s.Workload.Kind, s.StateSizes = WorkloadSnapshot, []int64{1 << 20} },
		"restart":  func(s *Spec) { s.Workload.Kind, s.StateSizes = WorkloadRestart, []int64{1 << 20} },
		"age":      func(s *Spec) { s.Workload.Kind, s.Cycles, s.BurstBytes = WorkloadAge, 2, 1<<20 },
		"reads":    func(s *Spec) { s.ReadRatio = 0.5 },
	} {
		t.Run(name, func(t *testing.T) {
			spec := quick(t, raw.Backend, mem.Backend)
			spec.Dir, spec.Duration, spec.Probe = filepath.Join(t.TempDir(), "data"), 500*time.Millisecond, true
			change(&spec)
			filled := spec
			if err := filled.Fill(); err != nil {
				t.Fatal(err)
			}
			runs := map[string]*result.Run{}
			res := mustRun(t, spec)
			for i := range res.Runs {
				runs[res.Runs[i].Backend] = &res.Runs[i]
			}
			for _, one := range filled.plan(1) {
				for _, m := range stats.Metrics() {
					if v, ok := m.Get(runs[one.Backend.Name]); ok && one.lacks(m.Name) != "" {
						t.Errorf("%s has %s %v, which it cannot: %s", one.Backend.Name, m.Name, v, one.lacks(m.Name))
					}
				}
			}
		})
	}
}
