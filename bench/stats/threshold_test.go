package stats

import (
	"strings"
	"testing"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

func TestThreshold(t *testing.T) {
	for expr, want := range map[string]struct {
		backend, metric, op string
		limit               float64
	}{
		"etcd-wal:save.p99<5ms":                            {"etcd-wal", "save.p99", "<", 5e6},
		" etcd-wal : save.p99 <= 1.5 ms ":                  {}, // Go's durations have no blank
		"throughput>50k/s":                                 {"", "throughput", ">", 50000},
		"throughput_ops >= 1200":                           {"", "throughput", ">=", 1200},
		"response.p999_ns<250us":                           {"", "response.p999", "<", 250e3},
		"bbolt[nofreelistsync=true,freelist=map]:rss<1GiB": {"bbolt[freelist=map,nofreelistsync=true]", "rss", "<", 1 << 30},
		"pebble:fsyncs_per_op<=1.25":                       {"pebble", "fsyncs_per_op", "<=", 1.25},
		"snapshot.install<2m":                              {"", "snapshot.install", "<", 120e9},
		"verified.lost<=0":                                 {"", "verified.lost", "<=", 0},
	} {
		d, err := Threshold(expr)
		if want.metric == "" {
			if err == nil {
				t.Errorf("%q is accepted: %+v", expr, d)
			}
			continue
		}
		if err != nil || d.Backend != want.backend || d.Metric.Name != want.metric || d.Op != want.op || d.Limit != want.limit {
			t.Errorf("%q: %+v, %v", expr, d, err)
		}
	}
	for expr, complaint := range map[string]string{
		"":                     "want [backend:]metric<limit",
		"save.p99=5ms":         "want [backend:]metric<limit",
		"save.p99<":            "limit is missing",
		"save.p99<5":           "want a time",
		"save.p99<-5ms":        "want a time",
		"rss<lots":             "want a size",
		"throughput>fast":      "want a number",
		"throughput>0x10":      "want a number",
		"throughput>1e308k":    "want a number",
		"save.p98<5ms":         "save.p99",
		"bbolt[x]:save.p99<1s": "key=value",
		":save.p99<1s":         "empty backend name",
	} {
		if _, err := Threshold(expr); err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("%q: %v, want %q", expr, err, complaint)
		}
	}
}

func TestEvaluate(t *testing.T) {
	var runs []result.Run
	for b, p99 := range []time.Duration{4, 6, 5} {
		r := run("a", b+1, 1000)
		r.Save = result.Latency{Count: 1000, P99: p99 * time.Millisecond}
		runs = append(runs, r, run("bbolt", b+1, 10))
		r = run("bbolt", b+1, 20)
		r.Params = map[string]string{"freelist": "map"}
		runs = append(runs, r)
	}
	large := run("a", 1, 100)
	large.ValueBytes = 1 << 20
	failed := run("d", 1, 0)
	failed.Error = "out of space"
	runs = append(runs, large, failed)

	check := func(expr string, want ...result.Threshold) {
		t.Helper()
		d, err := Threshold(expr)
		if err != nil {
			t.Fatal(err)
		}
		got := Evaluate([]Demand{d}, runs)
		if len(got) != len(want) {
			t.Fatalf("%s: %+v", expr, got)
		}
		for i, g := range got {
			w := want[i]
			if g.Expr != expr || g.Backend != w.Backend || g.OK != w.OK || !strings.Contains(g.Reason, w.Reason) || (w.Reason == "") != (g.Reason == "") {
				t.Errorf("%s: %+v, want %+v", expr, g, w)
			}
		}
	}
	check("a:save.p99<=5ms", result.Threshold{Backend: "a", OK: true})
	check("a:save.p99<5ms", result.Threshold{Backend: "a", Reason: "save.p99 is 5 ms (median of 3 runs)"})
	check("a:throughput>500", result.Threshold{Backend: "a", Reason: "100/s at workload=propose"})
	check("bbolt:throughput>15", result.Threshold{Backend: "bbolt", Reason: "10/s"},
		result.Threshold{Backend: "bbolt[freelist=map]", OK: true})
	check("bbolt[freelist=map]:throughput>15", result.Threshold{Backend: "bbolt[freelist=map]", OK: true})
	check("bbolt:save.p99<1h", result.Threshold{Backend: "bbolt", Reason: "not measured"},
		result.Threshold{Backend: "bbolt[freelist=map]", Reason: "not measured"})
	check("d:throughput>0", result.Threshold{Backend: "d", Reason: "1 of 1 runs ended without figures"})
	check("zzz:throughput>0", result.Threshold{Backend: "zzz", Reason: "no run"})
	check("throughput>0", result.Threshold{Backend: "a", OK: true}, result.Threshold{Backend: "bbolt", OK: true},
		result.Threshold{Backend: "bbolt[freelist=map]", OK: true}, result.Threshold{Backend: "d", Reason: "without figures"})
}

func TestFormat(t *testing.T) {
	for want, in := range map[string]struct {
		v float64
		u Unit
	}{
		"1.23 ms": {1_234_000, Nanoseconds}, "812 ns": {812, Nanoseconds}, "45.7 µs": {45_678, Nanoseconds},
		"2 s": {2e9, Nanoseconds}, "4.0 MiB": {4 << 20, Bytes}, "12.3k/s": {12_345, OpsPerSecond},
		"1234/s": {1234, OpsPerSecond}, "0.98": {0.98, Count}, "0.0123": {0.0123, Count}, "3": {3, Count},
	} {
		if got := Format(in.v, in.u); got != want {
			t.Errorf("Format(%v, %q) = %q, want %q", in.v, in.u, got, want)
		}
	}
}

// FuzzThreshold: whatever parses, parses again from its own parts to the same.
func FuzzThreshold(f *testing.F) {
	for _, s := range []string{"etcd-wal:save.p99<5ms", "bbolt[a=b,c=<]:throughput>=50k/s", "rss<1GiB", "a:b:save.p99<1s", "write_amp<=1.5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, expr string) {
		d, err := Threshold(expr)
		if err != nil {
			return
		}
		if d.Limit < 0 || d.Limit != d.Limit {
			t.Fatalf("%q has limit %v", expr, d.Limit)
		}
		if d.Metric.Get == nil || !strings.Contains("< <= > >=", d.Op) {
			t.Fatalf("%q: %+v", expr, d)
		}
		at := strings.LastIndexAny(d.Expr, "<>")
		again := d.Metric.Name + d.Expr[at:]
		if d.Backend != "" {
			again = d.Backend + ":" + again
		}
		e, err := Threshold(again)
		if err != nil || e.Backend != d.Backend || e.Metric.Name != d.Metric.Name || e.Op != d.Op || e.Limit != d.Limit {
			t.Fatalf("%q becomes %q: %+v, %v", expr, again, e, err)
		}
	})
}

// TestEvaluateThin: a percentile of few operations is a matter of luck, and no proof.
func TestEvaluateThin(t *testing.T) {
	few := run("a", 1, 50)
	few.Response = result.Latency{Count: 50, P50: time.Millisecond, P999: 2 * time.Millisecond, Max: 9 * time.Millisecond}
	evaluate := func(expr string, runs ...result.Run) result.Threshold {
		t.Helper()
		d, err := Threshold(expr)
		if err != nil {
			t.Fatal(err)
		}
		return Evaluate([]Demand{d}, runs)[0]
	}
	if got := evaluate("response.p999<5ms", few); got.OK || !strings.Contains(got.Reason, "response.p999 is 9 ms, the longest of too few operations") {
		t.Errorf("p999 of 50 operations: %+v", got)
	}
	if got := evaluate("response.p999<10ms", few); !got.OK {
		t.Errorf("the longest holds: %+v", got)
	}
	if got := evaluate("response.p50<5ms", few); !got.OK {
		t.Errorf("p50 of 50 operations: %+v", got)
	}
}

// TestEvaluateMishaps: what must not happen must not happen in any run.
func TestEvaluateMishaps(t *testing.T) {
	d, err := Threshold("errors<=0")
	if err != nil {
		t.Fatal(err)
	}
	runs := []result.Run{run("a", 1, 1000), run("a", 2, 1000), run("a", 3, 1000)}
	if got := Evaluate([]Demand{d}, runs)[0]; !got.OK {
		t.Errorf("without an error: %+v", got)
	}
	runs[1].Errors = 7
	if got := Evaluate([]Demand{d}, runs)[0]; got.OK || got.Reason != "errors is 7 (in one of 3 runs)" {
		t.Errorf("errors in one run of three: %+v", got)
	}
	restart := run("a", 1, 0)
	restart.Workload, restart.Restart = "restart", &result.Restart{Open: time.Second}
	if got := Evaluate([]Demand{d}, []result.Run{restart})[0]; got.OK || got.Reason != "errors was not measured" {
		t.Errorf("a restart has no load that could fail: %+v", got)
	}
}
