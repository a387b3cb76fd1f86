package reports

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
)

// agedSample is three runs of two backends whose Save p99 changed by so much, in
// the runs of the first block first.
func agedSample(t *testing.T, verdicts map[string][3]result.Comparison) *result.Result {
	t.Helper()
	spec := defaultSample()
	spec.engines, spec.blocks = engines[:2], 3
	r := sample(t, spec)
	for i := range r.Runs {
		run := &r.Runs[i]
		run.Workload = "age"
		for n := range 12 {
			run.Cycles = append(run.Cycles, result.Cycle{Cycle: n + 1, Save: run.Save, Disk: 1 << 20, Ops: 1000})
		}
		c := verdicts[run.Backend][run.Block-1]
		c.Metric, c.N, c.BaselineMedian, c.BackendMedian = agedMetric, 5, 1e6, 1e6*c.Ratio
		// One cycle held too few Saves for a p99; disk use is known of all.
		run.Aging = []result.Comparison{c, {Metric: "bytes.disk", N: 6, Ratio: 1, Lo: 1, Hi: 1, Verdict: stats.Equivalent}}
	}
	return r
}

func TestAged(t *testing.T) {
	t.Parallel()
	grows := result.Comparison{Ratio: 1.5, Lo: 1.3, Hi: 1.8, PHolm: 0.004, Verdict: stats.Slower}
	stays := result.Comparison{Ratio: 1, Lo: 0.98, Hi: 1.02, PHolm: 0.9, Verdict: stats.Equivalent}
	unsure := result.Comparison{Ratio: 1.2, Lo: 0.7, Hi: 1.9, PHolm: 0.4, Verdict: stats.Inconclusive}
	for _, tc := range []struct {
		name     string
		verdicts map[string][3]result.Comparison
		finding  string
		rows     []string
	}{
		{"one grows", map[string][3]result.Comparison{"etcd-wal": {stays, stays, unsure}, "bbolt": {grows, unsure, grows}},
			"With age the Save p99 grows for bbolt (1.50× in 2 of 3 runs)", []string{"etcd-wal 1.00× 0.980 to 1.02 stays 2/3 1.00×", "bbolt 1.50× 1.30 to 1.80 grows 2/3"}},
		{"none grows", map[string][3]result.Comparison{"etcd-wal": {stays, stays, stays}, "bbolt": {unsure, unsure, grows}},
			"No backend’s Save p99 is certain to grow with age", []string{"etcd-wal 1.00× 0.980 to 1.02 stays 3/3", "bbolt 1.20× 0.700 to 1.90 undecided 2/3"}},
		{"nothing is certain", map[string][3]result.Comparison{"etcd-wal": {unsure, unsure, unsure}, "bbolt": {unsure, unsure, unsure}},
			"undecided for every backend", []string{"etcd-wal 1.20× 0.700 to 1.90 undecided 3/3"}},
	} {
		r := agedSample(t, tc.verdicts)
		var text, page bytes.Buffer
		if err := Table(&text, r, TableOptions{Width: 100}); err != nil {
			t.Fatal(err)
		}
		if err := HTML(&page, r); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(page.String(), tc.finding) {
			t.Errorf("%s: the report does not say %q", tc.name, tc.finding)
		}
		flat := strings.Join(strings.Fields(text.String()), " ")
		for _, row := range append(tc.rows, "the median of the last 6 cycles against that of the first 6") {
			if !strings.Contains(flat, row) {
				t.Errorf("%s: the table has no %q:\n%s", tc.name, row, text.String())
			}
		}
	}
	once := agedSample(t, map[string][3]result.Comparison{"etcd-wal": {stays}, "bbolt": {grows}})
	once.Runs = slices.DeleteFunc(once.Runs, func(r result.Run) bool { return r.Block > 1 })
	var page bytes.Buffer
	if err := HTML(&page, once); err != nil || !strings.Contains(page.String(), "grows for bbolt (1.50× in 1 of 1 run)") {
		t.Errorf("%v, or a finding of one run that does not say so", err)
	}
	var text bytes.Buffer
	if err := Table(&text, sample(t, defaultSample()), TableOptions{}); err != nil || strings.Contains(text.String(), "With age") {
		t.Errorf("%v, or a table about age where nothing aged:\n%s", err, text.String())
	}
}
