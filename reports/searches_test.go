package reports

import (
	"testing"

	"github.com/raftbench/raftbench/bench/result"
)

// TestInterruptedSearch: of a matrix, the search that came to its end says nothing of the
// one that did not.
func TestInterruptedSearch(t *testing.T) {
	r := plain(1, map[string]float64{"bbolt": 9000}, "bbolt")
	base := r.Runs[0]
	r.Runs = nil
	add := func(batch, step int, missed string) {
		run := base
		run.Batch, run.Load = batch, result.Load{Kind: "open", Rate: 1000, Step: step, Point: "search step", SLO: "p99<10ms", Missed: missed}
		r.Runs = append(r.Runs, run)
	}
	for step := range 2 {
		add(1, step+1, "p99 was 31ms")
	}
	add(512, 1, "")
	r.Searches = []result.Search{{Backend: "bbolt", Block: 1, SLO: "p99<10ms", Steps: 2}}
	want := map[int]string{1: "no rate holds it", 512: "not finished"}
	scenarios := newSite([]*result.Result{r}).scenarios
	for _, sc := range scenarios {
		if got := sc.rows[0].searches()[0].outcome(); got != want[sc.batch] {
			t.Errorf("batch %d: %q, want %q", sc.batch, got, want[sc.batch])
		}
	}
	if len(scenarios) != 2 {
		t.Errorf("%d scenarios", len(scenarios))
	}
}
