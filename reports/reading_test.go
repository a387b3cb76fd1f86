package reports

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// The tests of this file hold what first readers of a report stumbled over; see "What
// was unclear" in docs/report.md.

// scenarioOf is the scenario that a report of one result opens with, and what builds
// its figures.
func scenarioOf(r *result.Result) (*builder, *scenario) {
	s := newSite([]*result.Result{r})
	b := &builder{site: s, palette: newPalette(), contrasts: map[string]map[string]map[string][]string{}}
	b.learn(s)
	for _, sc := range s.scenarios {
		sc.compareAll()
	}
	return b, s.headline()
}

func rowOf(t *testing.T, sc *scenario, label string) *row {
	t.Helper()
	i := slices.IndexFunc(sc.rows, func(rw *row) bool { return rw.label == label })
	if i < 0 {
		t.Fatalf("no row of %s", label)
	}
	return sc.rows[i]
}

// section is the HTML of one section of a page.
func section(t *testing.T, id string, r *result.Result) string {
	t.Helper()
	var b bytes.Buffer
	if err := HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(b.String(), `<section id="`+id+`"`)
	if !ok {
		t.Fatalf("no section %s", id)
	}
	text, _, _ = strings.Cut(text, "</section>")
	return text
}

// TestPercentileIsExact: the p99 in the words above the percentiles is that of the
// merged histogram, not of the next point of a line.
func TestPercentileIsExact(t *testing.T) {
	_, sc := scenarioOf(sample(t, defaultSample()))
	rw := rowOf(t, sc, "bbolt")
	response := func(r *result.Run) result.Latency { return r.Response }
	d := distributionOf(rw.runs, response)
	var all *hdrhistogram.Histogram
	for _, r := range rw.runs {
		h, err := hdrhistogram.Decode([]byte(r.Response.Encoded))
		if err != nil {
			t.Fatal(err)
		}
		if all == nil {
			all = h
		} else {
			all.Merge(h)
		}
	}
	for _, q := range []struct{ at, percent float64 }{{2, 50}, {10, 90}, {100, 99}, {1000, 99.9}} {
		if got, ok := d.at(q.at); !ok || got != float64(all.ValueAtPercentile(q.percent)) {
			t.Errorf("p%g: %v %v, want %v", q.percent, got, ok, all.ValueAtPercentile(q.percent))
		}
	}
	marked := 0
	for i, m := range d.marks() {
		if m {
			marked++
		} else if slices.Contains([]float64{2, 10, 100, 1000}, d.quantiles[i]) {
			t.Errorf("no marker at %g", d.quantiles[i])
		}
	}
	if marked < 4 || marked > len(d.quantiles)/4 {
		t.Errorf("%d markers on %d points", marked, len(d.quantiles))
	}
}

// TestMergedIsSaidWhereItIsSo: without histograms the percentiles are one run's.
func TestMergedIsSaidWhereItIsSo(t *testing.T) {
	t.Parallel()
	r := sample(t, defaultSample())
	const merged, one = "histograms of", "histograms were not kept"
	if s := section(t, "percentiles", r); !strings.Contains(s, merged) || strings.Contains(s, one) {
		t.Error("merged histograms are not said to be")
	}
	for i := range r.Runs {
		withoutHistograms(&r.Runs[i])
	}
	if s := section(t, "percentiles", r); strings.Contains(s, merged) || !strings.Contains(s, one) {
		t.Error("histograms that were not kept are said to be merged")
	}
}

// TestBarsHaveOneScale: what keeps nothing has no bar beside those of what does.
func TestBarsHaveOneScale(t *testing.T) {
	t.Parallel()
	r := sample(t, defaultSample())
	bars := func() map[string]int {
		b, sc := scenarioOf(r)
		out := map[string]int{}
		for _, row := range b.scoreboard(sc).Board.Rows {
			out[row.Label] = row.Cells[0].Bar
		}
		return out
	}
	if got := bars(); got["mem"] != 0 || got["raw"] != 100 || got["bbolt"] < 1 {
		t.Errorf("%v", got)
	}
	for i := range r.Runs {
		r.Runs[i].Durability = "none"
	}
	if got := bars(); got["mem"] != 100 || got["bbolt"] < 1 {
		t.Errorf("all of one class: %v", got)
	}
}

// TestTheLastSecondCounts: a stall at the end of a run is one.
func TestTheLastSecondCounts(t *testing.T) {
	run := &result.Run{}
	for i, ops := range []int64{9, 100, 100, 100, 100, 20} {
		run.Series = append(run.Series, result.Point{T: time.Duration(i) * time.Second, Ops: ops, Warmup: i == 0})
	}
	if cells, sway := timeCells("x", run); sway != 0.8 || cells[1] != "5" || cells[2] != "20.0" {
		t.Errorf("%v, %q", sway, cells)
	}
}

// TestALongRunHidesNoStall: where several seconds make one point, one of them in which
// nothing was done is in the range, its p99 in the line, and its operations in the heat map.
func TestALongRunHidesNoStall(t *testing.T) {
	t.Parallel()
	const seconds, stalls = 2000, 1234
	run := &result.Run{Throughput: 100}
	for i := range seconds {
		pt := result.Point{T: time.Duration(i) * time.Second, Ops: 100, P99: time.Millisecond, Buckets: []int64{60, 40}}
		if i == stalls {
			pt.Ops, pt.P99, pt.Buckets = 0, time.Second, []int64{0, 0, 7}
		}
		run.Series = append(run.Series, pt)
	}
	rw := &row{scenario: &scenario{}, runs: []*result.Run{run}}
	r := (&builder{palette: newPalette()}).timeRow(rw, run)
	throughput, p99, heat := r.Panels[0].Series[0], r.Panels[1].Series[0], r.Panels[2].Heat
	at := stalls / perPoint(run.Series)
	if n := len(throughput.X); n > longestSeries || n != len(p99.X) || n != len(heat.X) || perPoint(run.Series) < 2 {
		t.Fatalf("%d points of %d seconds", n, seconds)
	}
	if throughput.Lo[at] != 0 || throughput.Y[at] >= 100 || throughput.Y[at] < 80 || p99.Y[at] != float64(time.Second) || heat.Cells[at][2] != 7 {
		t.Errorf("the second without operations: lowest %v, mean %v, p99 %v, heat %v", throughput.Lo[at], throughput.Y[at], p99.Y[at], heat.Cells[at])
	}
	if throughput.Lo[at+1] != 100 || throughput.Y[at+1] != 100 || p99.Y[at+1] != float64(time.Millisecond) {
		t.Errorf("the next point: %v, %v, %v", throughput.Lo[at+1], throughput.Y[at+1], p99.Y[at+1])
	}
	total := 0.0
	for _, cells := range heat.Cells {
		for _, n := range cells {
			total += n
		}
	}
	if total != 100*(seconds-1)+7 || heat.X[len(heat.X)-1] != float64(seconds*time.Second) {
		t.Errorf("the heat map holds %v operations, up to %v", total, heat.X[len(heat.X)-1])
	}
}

// TestTimeAxesAreOne: all panels over time show the same seconds.
func TestTimeAxesAreOne(t *testing.T) {
	t.Parallel()
	r := sample(t, defaultSample())
	short := &r.Runs[0]
	short.Series = short.Series[:len(short.Series)-2]
	domains := map[string]int{}
	for _, m := range regexp.MustCompile(`data-x="lin (\S+ \S+) \S+ \S+ s"`).FindAllStringSubmatch(section(t, "time", r), -1) {
		domains[m[1]]++
	}
	if len(domains) != 1 || len(r.Runs) == 0 {
		t.Errorf("from and to: %v", domains)
	}
}

// TestDiskMovesWithTheRuns: where the disk becomes faster its row goes the way that
// faster runs go.
func TestDiskMovesWithTheRuns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		load result.Load
		up   bool
		name string
	}{
		{result.Load{Kind: "closed", Clients: 64}, true, "raw disk, speed"},
		{result.Load{Kind: "open", Rate: 1000}, false, "raw disk, latency"}, // response time decides
	} {
		spec := defaultSample()
		spec.load = c.load
		r := sample(t, spec)
		fast := &r.Calibration[slices.IndexFunc(r.Calibration, func(c result.Calibration) bool { return c.Block == 2 && c.Kind == floorKind })]
		fast.P50 /= 2
		b, sc := scenarioOf(r)
		row, note, ok := b.floorRow(sc)
		if !ok || row.Name != c.name || !strings.Contains(note, "2.25 KiB") {
			t.Fatalf("%q %q %v", row.Name, note, ok)
		}
		s := row.Panels[0].Series[0]
		if off := s.Y[1]; (off > 0.3) != c.up || (off < -0.3) == c.up {
			t.Errorf("%s: a disk that is twice as fast is drawn at %g of %v", c.name, off, s.Y)
		}
	}
}

// TestHollowSaysSomething: a flag that all runs carry does not make them all hollow.
func TestHollowSaysSomething(t *testing.T) {
	r := sample(t, defaultSample())
	for i := range r.Runs {
		r.Runs[i].Flags = []string{"floor_drift"}
		if r.Runs[i].Block == 3 {
			r.Runs[i].Flags = append(r.Runs[i].Flags, "not_steady")
		}
	}
	b, sc := scenarioOf(r)
	s, _ := b.deviations(sc, rowOf(t, sc, "bbolt"), sc.primary(), &tableView{})
	for i, hollow := range s.Hollow {
		if hollow != (i == 2) {
			t.Errorf("run %d: %v", i+1, hollow)
		}
	}
}

// TestOneMedian: the words above the snapshots and restarts give the figures of the
// scoreboard, also where runs hold several installs.
func TestOneMedian(t *testing.T) {
	for _, name := range []string{"snapshot.json.gz", "restart.json.gz", "engines.json.gz"} {
		b, sc := scenarioOf(realResults(t, name)[0])
		for _, f := range []struct {
			build func(*scenario) (figureView, bool)
			m     *metric
		}{{b.installs, metricInstall}, {b.opens, metricOpen}, {b.readies, metricReady}} {
			fig, ok := f.build(sc)
			if !ok {
				continue
			}
			engines, _ := sc.engines()
			slices.SortStableFunc(engines, func(a, b *row) int { return ahead(f.m, a.of(f.m), b.of(f.m)) })
			for _, rw := range []*row{engines[0], engines[len(engines)-1]} {
				s := rw.of(f.m)
				if want := "in " + quantity.FormatDuration(s.Median); !strings.Contains(fig.Finding, rw.label) || !strings.Contains(fig.Finding, want) {
					t.Errorf("%s: %q does not say %s %s", name, fig.Finding, rw.label, want)
				}
			}
		}
	}
}

// TestMachineWarnings: what was found on the machine stands with the verdict, once.
func TestMachineWarnings(t *testing.T) {
	r := plain(20, map[string]float64{"etcd-wal": 26000, "bbolt": 9300}, "etcd-wal", "bbolt")
	if v := Verdict(r).Validity; v != Valid {
		t.Fatalf("%v before", v)
	}
	r.Env.FileSystem = "overlay"
	r.Env.Warnings = []string{"the data is on an overlay file system: what is measured …", "the machine was busy before the run: load 2.0 on 2 cores", "only 1 GiB are free for the data"}
	j := Verdict(r)
	i := slices.IndexFunc(j.Reasons, func(r Reason) bool { return r.Name == "machine" })
	if j.Validity != Doubtful || i < 0 || j.Reasons[i].Where != "the machine was busy before the run: load 2.0 on 2 cores; only 1 GiB are free for the data" {
		t.Errorf("%v %+v", j.Validity, j.Reasons)
	}
}

// TestTheDiskDoesNotFlattenTheRuns: a disk that moved much more than the runs has a
// scale of its own.
func TestTheDiskDoesNotFlattenTheRuns(t *testing.T) {
	t.Parallel()
	for _, factor := range []time.Duration{1, 5} {
		r := sample(t, defaultSample())
		for i := range r.Calibration {
			if r.Calibration[i].Block == 2 {
				r.Calibration[i].P50 *= factor
			}
		}
		if got := strings.Contains(section(t, "repeats", r), "a scale of its own"); got != (factor > 1) {
			t.Errorf("× %d: said %v", factor, got)
		}
	}
}

// TestDurationIsSaid: how long a run was measured stands with its options, and the
// modules do not stand between machine and options.
func TestDurationIsSaid(t *testing.T) {
	t.Parallel()
	r := sample(t, defaultSample())
	about := section(t, "about", r)
	if !strings.Contains(about, " runs of ") || !strings.Contains(about, "go.etcd.io/bbolt") {
		t.Error("no duration, or no modules")
	}
	if strings.Contains(about, "<dt>go.etcd.io/bbolt") {
		t.Error("modules stand among the machine's figures")
	}
}

// TestChosenIsSaid: what a backend chose itself stands with the options that it was given.
func TestChosenIsSaid(t *testing.T) {
	t.Parallel()
	r := sample(t, defaultSample())
	if strings.Contains(section(t, "about", r), "chosen by the backend") {
		t.Error("something is said to be chosen where nothing was")
	}
	runs := 0
	for i := range r.Runs {
		if run := &r.Runs[i]; run.Backend == "bbolt" {
			run.Chosen = map[string]string{"io": "direct", "sync": "dsync"}
			if runs == 0 {
				run.Chosen["sync"] = "fdatasync"
			}
			runs++
		}
	}
	want := fmt.Sprintf("chosen by the backend: io=direct sync=dsync (%d of %d runs) sync=fdatasync (1 of %d runs)", runs-1, runs, runs)
	if !strings.Contains(section(t, "about", r), want) {
		t.Errorf("not said: %s", want)
	}
}
