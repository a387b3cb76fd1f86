package stats

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// run makes one with only a throughput.
func run(backend string, block int, throughput float64) result.Run {
	return result.Run{
		Backend: backend, Block: block, Throughput: throughput, Durability: "synced",
		Workload: "propose", Load: result.Load{Kind: "closed", Clients: 64}, Nodes: 3,
	}
}

var throughputOnly = Options{Metrics: []string{"throughput"}}

func mustCompare(t *testing.T, runs []result.Run, baseline string, opts Options) []result.Comparison {
	t.Helper()
	table, err := Compare(runs, baseline, opts)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestHolm(t *testing.T) {
	// Worked by hand: sorted .005 .01 .03 .04, times 4 3 2 1, kept rising.
	got := holm([]float64{0.01, 0.04, 0.03, 0.005})
	want := []float64{0.03, 0.06, 0.06, 0.02}
	for i := range want {
		if math.Abs(got[i]-want[i]) > 1e-12 {
			t.Fatalf("holm = %v, want %v", got, want)
		}
	}
	if got := holm([]float64{0.9, 0.8}); got[0] != 1 || got[1] != 1 {
		t.Fatalf("holm does not stop at 1: %v", got)
	}
}

func TestSummarize(t *testing.T) {
	s := Summarize([]float64{5, 1, 4, 2, 3, 6})
	if s != (Summary{N: 6, Median: 3.5, Lo: 1, Hi: 6, Interval: true}) {
		t.Errorf("6 values: %+v", s)
	}
	if s := Summarize([]float64{5, 1, 4, 2, 3}); s.Interval || s.Median != 3 {
		t.Errorf("5 values cannot have a 95 %% interval: %+v", s)
	}
	if s := Summarize(nil); s.N != 0 || s.Interval {
		t.Errorf("no values: %+v", s)
	}
	values := []float64{3, 1, 2}
	if m := Median(values); m != 2 || values[0] != 3 {
		t.Errorf("Median = %v, and the argument is now %v", m, values)
	}
}

func TestPairedT(t *testing.T) {
	// t = mean/(sd/√n) = 2/(1/√3) = 3.4641 with 2 degrees of freedom: p = 0.0742.
	if p := pairedT([]float64{1, 2, 3}); math.Abs(p-0.0742) > 1e-4 {
		t.Errorf("p = %v, want 0.0742", p)
	}
	if p := pairedT([]float64{0.1, 0.1, 0.1, 0.1, 0.1, 0.1}); p != 2.0/64 {
		t.Errorf("without variance p = %v, want the sign test's 1/32", p)
	}
	if p := pairedT([]float64{0, 0, 0}); p != 1 {
		t.Errorf("no difference: p = %v", p)
	}
}

// TestDriftDividesOut: 10 % less in every block, while the disk slows to half.
func TestDriftDividesOut(t *testing.T) {
	var runs []result.Run
	for block := 1; block <= 10; block++ {
		level := 1000 * math.Pow(0.5, float64(block)/10)
		wobble := 1 + 0.004*float64(block%3)
		runs = append(runs, run("a", block, level), run("b", block, 0.9*level*wobble))
	}
	c := mustCompare(t, runs, "a", throughputOnly)[0]
	if c.Verdict != Slower || c.N != 10 || c.Lo > c.Ratio || c.Hi < c.Ratio || math.Abs(c.Ratio-0.9) > 0.01 {
		t.Errorf("10 %% less: %+v", c)
	}
	if c.P < 0.05 {
		t.Errorf("Mann-Whitney sees through the drift (p = %v); this test shows nothing", c.P)
	}
	if c := mustCompare(t, runs, "b", throughputOnly)[0]; c.Verdict != Faster {
		t.Errorf("the other way round: %+v", c)
	}
	for tolerance, want := range map[float64]bool{0.05: true, 0.2: false} {
		if got := Regression(c, tolerance); got != want {
			t.Errorf("Regression(%v) = %v for %+v", tolerance, got, c)
		}
	}
}

// TestLapsCountAsTheirBlock: noise from lap to lap divides out in the median of a
// block, and does not count as so many blocks.
func TestLapsCountAsTheirBlock(t *testing.T) {
	var runs []result.Run
	for block := 1; block <= 10; block++ {
		for lap := 1; lap <= 5; lap++ {
			noise := []float64{1, 0.5, 2, 0.99, 1.01}[(lap+block)%5]
			a, b := run("a", block, 1000*noise), run("b", block, 900*noise)
			a.Lap, b.Lap = lap, lap
			runs = append(runs, a, b)
		}
	}
	c := mustCompare(t, runs, "a", throughputOnly)[0]
	if c.Verdict != Slower || c.N != 10 || math.Abs(c.Ratio-0.9) > 1e-9 {
		t.Errorf("by blocks: %+v", c)
	}
	suites, err := CompareSuites(Side{Label: "x", Runs: runs}, Side{Label: "y", Runs: runs}, throughputOnly)
	if err != nil || suites[0].N != 10 || suites[0].BaselineMedian != 1000 {
		t.Errorf("between suites: %+v, %v", suites, err)
	}
	for i := range runs {
		runs[i].Lap = 0
	}
	if suites, err = CompareSuites(Side{Label: "x", Runs: runs}, Side{Label: "y", Runs: runs}, throughputOnly); err != nil || suites[0].N != 50 {
		t.Errorf("without laps each run counts: %+v, %v", suites, err)
	}
}

func TestVerdicts(t *testing.T) {
	// series of ratios around a factor, within ± spread.
	runsWith := func(factor, spread float64, blocks int) []result.Run {
		var runs []result.Run
		for b := 1; b <= blocks; b++ {
			f := factor * (1 + spread*(2*float64((b*7)%blocks)/float64(blocks-1)-1))
			runs = append(runs, run("a", b, 1000), run("b", b, 1000*f))
		}
		return runs
	}
	for _, c := range []struct {
		name           string
		factor, spread float64
		blocks         int
		want           string
	}{
		{"same", 1, 0.01, 10, Equivalent},
		{"a difference within the noise is none", 1.015, 0.005, 10, Equivalent},
		{"wide", 1, 0.3, 10, Inconclusive},
		{"twice as fast", 2, 0.05, 10, Faster},
		{"twice as fast, 6 blocks", 2, 0.05, 6, Faster},
		{"twice as fast, 5 blocks decide nothing", 2, 0.05, 5, Inconclusive},
		{"half", 0.5, 0.05, 20, Slower},
	} {
		got := mustCompare(t, runsWith(c.factor, c.spread, c.blocks), "a", throughputOnly)
		if len(got) != 1 || got[0].Verdict != c.want {
			t.Errorf("%s: %+v, want %s", c.name, got, c.want)
		}
		if interval := got[0].Hi != 0; interval != (c.blocks >= MinBlocks) {
			t.Errorf("%s: interval [%v, %v] with %d blocks", c.name, got[0].Lo, got[0].Hi, c.blocks)
		}
	}
}

// TestLowerIsBetter for times.
func TestLowerIsBetter(t *testing.T) {
	var runs []result.Run
	for b := 1; b <= 8; b++ {
		a, c := run("a", b, 0), run("b", b, 0)
		a.Save = result.Latency{Count: 5000, P50: 200 * time.Microsecond, P99: time.Millisecond}
		c.Save = result.Latency{Count: 5000, P50: time.Duration(300_000 + 1000*b), P99: time.Millisecond}
		runs = append(runs, a, c)
	}
	table := mustCompare(t, runs, "a", Options{Metrics: []string{"save.p50", "save.p99", "save.p999"}})
	if len(table) != 2 {
		t.Fatalf("p99.9 of 5000 operations must not be compared: %+v", table)
	}
	if table[0].Metric != "save.p50_ns" || table[0].Verdict != Slower || !Regression(table[0], 0.2) {
		t.Errorf("%+v", table[0])
	}
	if table[1].Verdict != Equivalent {
		t.Errorf("%+v", table[1])
	}
}

// TestOnlyLikeIsCompared: configurations, durability, failures and blocks.
func TestOnlyLikeIsCompared(t *testing.T) {
	var runs []result.Run
	for b := 1; b <= 6; b++ {
		runs = append(runs, run("a", b, 100), run("b", b, 200))
		other := run("b", b, 500)
		other.ValueBytes = 4096 // no run of a at this size
		mem := run("mem", b, 9000)
		mem.Durability = "none"
		broken := run("c", b, 1000)
		broken.Verified = &result.Verified{Acked: 5, Lost: 1}
		failed := run("d", b, 1000)
		failed.Error = "out of space"
		runs = append(runs, other, mem, broken, failed)
	}
	runs = append(runs, run("b", 7, 1e9)) // its block has no a
	table := mustCompare(t, runs, "a", throughputOnly)
	if len(table) != 1 || table[0].Backend != "b" || table[0].N != 6 || table[0].Ratio != 2 {
		t.Fatalf("%+v", table)
	}
	if _, err := Compare(runs, "nobody", Options{}); err == nil {
		t.Error("a baseline that never ran is not an error")
	}
	if _, err := Compare(runs, "a", Options{Metrics: []string{"save_bytes"}}); err == nil {
		t.Error("a metric without direction is compared")
	}
	if _, err := Compare(runs, "a", Options{Noise: 1}); err == nil {
		t.Error("noise of 100 % is accepted")
	}
}

// TestParamsAndConfigs: parameters make another backend, and a table of several
// configurations says which is which.
func TestParamsAndConfigs(t *testing.T) {
	var runs []result.Run
	for b := 1; b <= 6; b++ {
		for _, value := range []int{100, 1000} {
			x, y := run("bbolt", b, 100), run("bbolt", b, 110)
			y.Params = map[string]string{"freelist": "array"}
			x.ValueBytes, y.ValueBytes = value, value
			runs = append(runs, x, y)
		}
	}
	table := mustCompare(t, runs, "bbolt", throughputOnly)
	if len(table) != 2 || table[0].Backend != "bbolt[freelist=array]" {
		t.Fatalf("%+v", table)
	}
	if !strings.Contains(table[0].Config, "value=100 ") || !strings.Contains(table[1].Config, "value=1000 ") {
		t.Errorf("configurations %q and %q", table[0].Config, table[1].Config)
	}
}

// TestSeeded: same seed, same figures, whatever else is compared.
func TestSeeded(t *testing.T) {
	var runs []result.Run
	for b := 1; b <= 9; b++ {
		x, y := run("a", b, 100+float64(b*b%11)), run("b", b, 100+float64(b*b%7))
		x.RSS, y.RSS = new(int64(1000+b)), new(int64(1100-b))
		runs = append(runs, x, y)
	}
	alone := mustCompare(t, runs, "a", throughputOnly)[0]
	again := mustCompare(t, runs, "a", throughputOnly)[0]
	both := mustCompare(t, runs, "a", Options{Metrics: []string{"rss", "throughput"}})[1]
	if !reflect.DeepEqual(alone, again) {
		t.Errorf("%+v, then %+v", alone, again)
	}
	if alone.Lo != both.Lo || alone.Hi != both.Hi || alone.P != both.P {
		t.Errorf("%+v alone, %+v with another metric", alone, both)
	}
	if both.PHolm < both.P {
		t.Errorf("Holm made p smaller: %+v", both)
	}
}

func TestCompareSuites(t *testing.T) {
	var before, after []result.Run
	for i := 1; i <= 10; i++ {
		w := 1 + 0.01*float64(i%4)
		before = append(before, run("a", i, 1000*w), run("b", i, 500*w))
		after = append(after, run("a", i, 800*w), run("b", i, 500*w))
	}
	table, err := CompareSuites(Side{"main", before}, Side{"change", after}, throughputOnly)
	if err != nil {
		t.Fatal(err)
	}
	if len(table) != 2 || table[0].Backend != "a@change" || table[0].Verdict != Slower || table[1].Verdict != Equivalent {
		t.Fatalf("%+v", table)
	}
	if !Regression(table[0], 0.1) || table[0].PPaired != 0 {
		t.Errorf("%+v", table[0])
	}
	for i := range after {
		after[i].Nodes = 5
	}
	if _, err := CompareSuites(Side{"main", before}, Side{"change", after}, throughputOnly); err == nil {
		t.Error("suites with nothing in common compare without an error")
	}
}

// TestShow: what is left out of a table counts for the verdicts of the rest.
func TestShow(t *testing.T) {
	var runs []result.Run
	for b := range 12 {
		for i, name := range []string{"a", "b", "c"} {
			v := 1000 * (1 + 0.02*float64(i)) * (1 + 0.03*math.Sin(float64(7*b+5*i)))
			r := run(name, b+1, v)
			r.Save = result.Latency{Count: 5000, P50: time.Duration(1e9 / v), P99: time.Duration(3e9 / v)}
			runs = append(runs, r)
		}
	}
	whole, err := Compare(runs, "a", Options{})
	if err != nil {
		t.Fatal(err)
	}
	part, err := Compare(runs, "a", Options{Show: []string{"save.p50"}})
	if err != nil {
		t.Fatal(err)
	}
	whole = slices.DeleteFunc(whole, func(c result.Comparison) bool { return c.Metric != "save.p50_ns" })
	if len(part) != 2 || !slices.Equal(part, whole) {
		t.Errorf("one metric of a table:\n%+v\nin the whole:\n%+v", part, whole)
	}
	alone, err := Compare(runs, "a", Options{Metrics: []string{"save.p50"}})
	if err != nil {
		t.Fatal(err)
	}
	if slices.Equal(part, alone) {
		t.Error("a metric that is read alone is corrected as if it were not: this test shows nothing")
	}
}
