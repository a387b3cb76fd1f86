package reports

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s differs (run with -update after reading it):\n--- want\n%s\n--- got\n%s", path, want, got)
	}
}

// plain is a result with figures that are the same on every machine: a run has
// the throughput that its backend has, give or take what its block gives.
func plain(blocks int, ops map[string]float64, order ...string) *result.Result {
	r := &result.Result{Schema: result.Schema, ID: "test", Seed: 1, Command: []string{"raftbench", "run"}, Env: sampleEnv()}
	for b := range blocks {
		wave := 1 + 0.01*math.Sin(float64(3*b)) // of the machine: divides out
		r.Calibration = append(r.Calibration, result.Calibration{At: "between", Block: b + 1, Kind: floorKind, Bytes: 2300,
			Latency: result.Latency{Count: 1000, P50: micros(131), P99: micros(300)}})
		for i, name := range order {
			own := 1 + 0.004*math.Cos(float64(5*b+2*i)) // of the run: stays
			v := ops[name] * wave * own
			run := result.Run{ID: fmt.Sprintf("%d-%s", b, name), Block: b + 1, Order: b*len(order) + i + 1, Backend: name, Durability: "synced",
				Transport: "mem", Loop: "ready", Nodes: 3, Workload: "propose", Load: result.Load{Kind: "closed", Clients: 64}, ValueBytes: 1024,
				Ops: int64(5 * v), Elapsed: 5e9, Throughput: v, Verified: &result.Verified{OK: true, Acked: int64(5 * v)},
				Response:  result.Latency{Count: int64(5 * v), P50: micros(64e6 / v), P90: micros(80e6 / v), P99: micros(150e6 / v), P999: micros(400e6 / v), Max: micros(900e6 / v)},
				Save:      result.Latency{Count: int64(v), P50: micros(3e6 / v), P99: micros(9e6 / v)},
				SaveFloor: 30000 / v,
			}
			if name == "mem" {
				run.Durability, run.SaveFloor, run.Save = "none", 0, result.Latency{}
			}
			r.Runs = append(r.Runs, run)
		}
	}
	return r
}

// TestVerdict holds the sentence and what stands under it for every kind of
// outcome.
func TestVerdict(t *testing.T) {
	t.Parallel()
	four := map[string]float64{"etcd-wal": 26000, "pebble": 19500, "badger": 14000, "bbolt": 9300, "raw": 29000, "mem": 121000}
	all := []string{"etcd-wal", "bbolt", "badger", "pebble", "raw", "mem"}
	each := func(r *result.Result, backend string, change func(*result.Run)) *result.Result {
		for i := range r.Runs {
			if r.Runs[i].Backend == backend || backend == "" {
				change(&r.Runs[i])
			}
		}
		return r
	}
	flagged := func(name string) func(*result.Run) {
		return func(r *result.Run) { r.Flags = append(r.Flags, name) }
	}
	open := func(r *result.Run) {
		r.Load = result.Load{Kind: "open", Rate: 5000}
		r.Throughput = 5000
	}
	confirmed := func(r *result.Run) {
		r.Load = result.Load{Kind: "open", Rate: r.Throughput, Point: confirmedPoint, SLO: "p99<10ms", Step: 9}
	}
	for _, c := range []struct {
		name string
		r    *result.Result
	}{
		{"search", each(each(plain(10, four, all...), "", confirmed), "bbolt", func(r *result.Run) { r.Load.Point, r.Load.Missed = "search step 9", "p99 was 31ms" })},
		{"search that found nothing", each(plain(10, four, "etcd-wal", "bbolt"), "", func(r *result.Run) {
			confirmed(r)
			r.Load.Point, r.Load.Missed, r.Flags = "search step 9", "p99 was 31ms", []string{"generator_limited"}
		})},
		{"medians and blocks disagree", func() *result.Result {
			r := plain(3, map[string]float64{"etcd-wal": 26000, "bbolt": 26000}, "etcd-wal", "bbolt")
			for i, v := range []float64{100, 101, 110, 111, 120, 90} {
				r.Runs[i].Throughput = 100 * v
			}
			return r
		}()},
		{"clear winner", plain(20, four, all...)},
		{"winner of ten", plain(10, four, all...)},
		{"winner of six", plain(6, four, all...)},
		{"tie, equivalent", plain(20, map[string]float64{"etcd-wal": 26000, "hashicorp-wal": 26100, "bbolt": 9300}, "etcd-wal", "hashicorp-wal", "bbolt")},
		{"tie, inconclusive", each(plain(10, map[string]float64{"etcd-wal": 26000, "pebble": 25500, "bbolt": 9300}, "etcd-wal", "pebble", "bbolt"), "pebble",
			func(r *result.Run) { r.Throughput *= 1 + 0.12*math.Sin(float64(r.Block)*2) })},
		{"invalid run", each(plain(10, four, all...), "", flagged("generator_limited"))},
		{"invalid device", each(plain(10, four, all...), "", flagged("fake_disk"))},
		{"flag on a minority", each(plain(10, four, all...), "bbolt", func(r *result.Run) {
			if r.Block == 3 {
				r.Flags = append(r.Flags, "generator_limited", "not_steady")
			}
		})},
		{"unknown flag", each(plain(10, four, all...), "bbolt", flagged("phase_of_the_moon"))},
		{"lost entries", each(plain(10, four, all...), "badger", func(r *result.Run) {
			if r.Block == 2 {
				r.Verified.OK, r.Verified.Lost = false, 3
			}
		})},
		{"winner lost entries", each(plain(10, four, all...), "etcd-wal", func(r *result.Run) { r.Verified.OK, r.Verified.Lost, r.Verified.Wrong = false, 2, 1 })},
		{"one backend only", plain(10, four, "bbolt")},
		{"one backend and the controls", plain(10, four, "bbolt", "raw", "mem")},
		{"controls only", plain(10, four, "raw", "mem")},
		{"durability classes mixed", each(plain(10, four, all...), "pebble", func(r *result.Run) { r.Durability = "none" })},
		{"nothing durable", plain(10, four, "mem")},
		{"three repeats only", plain(3, four, all...)},
		{"one repeat only", plain(1, four, all...)},
		{"interrupted", func() *result.Result { r := plain(7, four, all...); r.Interrupted, r.Planned = true, 60; return r }()},
		{"every run failed", each(plain(3, four, "etcd-wal", "bbolt"), "", func(r *result.Run) { r.Error = "open: disk full" })},
		{"one backend failed", each(plain(10, four, all...), "badger", func(r *result.Run) { r.Error = "open: disk full" })},
		{"not verified", each(plain(10, four, all...), "", func(r *result.Run) { r.Verified = nil })},
		{"no runs", &result.Result{Schema: result.Schema}},
		{"open loop", each(plain(10, four, all...), "", open)},
		{"snapshots of two sizes", func() *result.Result {
			r := &result.Result{Schema: result.Schema, Seed: 1, Env: sampleEnv()}
			for b := range 6 {
				for i, name := range []string{"etcd-wal", "bbolt"} {
					for _, size := range []int64{16 << 20, 64 << 20} {
						own := 1 + 0.01*math.Cos(float64(5*b+2*i))
						r.Runs = append(r.Runs, result.Run{Block: b + 1, Backend: name, Durability: "synced", Transport: "mem", Nodes: 3, Workload: "snapshot",
							Load: result.Load{Kind: "closed", Clients: 8}, StateBytes: size, Verified: &result.Verified{OK: true},
							Snapshot: &result.Snapshot{Bytes: size, Install: micros(float64(size) / 100 * float64(i+1) * own)}})
					}
				}
			}
			return r
		}()},
		{"power cut", func() *result.Result {
			r := plain(10, four, all...)
			r.PowerCuts = []result.PowerCut{{Backend: "etcd-wal", Mode: "strict", Cuts: 200, Acked: 9000}, {Backend: "bbolt", Mode: "strict", Cuts: 200, Acked: 9000, Lost: 4, FirstBad: 17}}
			return r
		}()},
		{"no calibration", func() *result.Result {
			r := plain(10, four, all...)
			r.Calibration = nil
			return each(r, "", func(r *result.Run) { r.SaveFloor = 0 })
		}()},
	} {
		t.Run(c.name, func(t *testing.T) {
			golden(t, filepath.Join("verdict", strings.NewReplacer(" ", "_", ",", "").Replace(c.name)+".txt"), judgementText(Verdict(c.r)))
		})
	}
}

func judgementText(j Judgement) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", j.Sentence)
	for _, d := range j.Detail {
		fmt.Fprintf(&b, "%s\n", d)
	}
	fmt.Fprintf(&b, "winner: %q, %s\nload: %s\ndistance: %s\ndurable: %s\n", j.Winner, j.Validity, j.Scenario, j.Distance, j.Durable)
	for _, r := range j.Reasons {
		fmt.Fprintf(&b, "- %s, %s, %q\n", r.Severity, r.Title, r.Where)
	}
	return b.String()
}

// TestEveryBaselineIsCorrectedAlike: against each baseline a report reads the table that
// `raftbench run` would have recorded with it, corrected over as many comparisons, so that
// one report does not say "faster" of a pair and "inconclusive" of the same.
func TestEveryBaselineIsCorrectedAlike(t *testing.T) {
	r := plain(12, map[string]float64{"bbolt": 9000, "pebble": 9300, "badger": 9100}, "bbolt", "pebble", "badger")
	for i := range r.Runs {
		if r.Runs[i].Block > 6 { // a second configuration, which counts too
			r.Runs[i].Batch, r.Runs[i].Block = 1, r.Runs[i].Block-6
		}
	}
	tables := map[string][]result.Comparison{}
	for _, name := range []string{"bbolt", "pebble", "badger"} {
		table, err := stats.Compare(r.Runs, name, stats.Options{Seed: r.Seed})
		if err != nil {
			t.Fatal(err)
		}
		tables[name] = table
	}
	r.Comparisons = tables["bbolt"]
	for _, sc := range newSite([]*result.Result{r}).scenarios {
		sc.compareAll()
		for _, base := range sc.rows {
			for _, other := range sc.rows {
				if other == base {
					continue
				}
				for _, m := range sc.contrasted(base) {
					c, ok := sc.contrast(m, base, other)
					if !ok || !slices.Contains(tables[base.name()], c) {
						t.Errorf("%s of %s against %s: %+v is not what would have been recorded", m.Name, other.label, base.label, c)
					}
				}
			}
		}
	}
}
