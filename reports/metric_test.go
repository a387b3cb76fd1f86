package reports

import (
	"testing"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// TestZeroIsAFigure: a duration of 0 that was measured is one of those that a median is of.
func TestZeroIsAFigure(t *testing.T) {
	r := sample(t, defaultSample())
	n := 0
	for i := range r.Runs {
		if run := &r.Runs[i]; run.Backend == "bbolt" {
			pause, recovery := int64(0), time.Duration(0)
			if n == 0 {
				pause, recovery = 5_000_000, 2*time.Second
			}
			run.GCPause, run.Faults = &pause, &result.Faults{Recovery: &recovery}
			n++
		}
	}
	for _, sc := range newSite([]*result.Result{r}).scenarios {
		for _, rw := range sc.rows {
			if rw.backend != "bbolt" {
				continue
			}
			for _, m := range []*metric{metricGC, metricRecovery} {
				if s := rw.of(m); s.N != n || s.Median != 0 {
					t.Errorf("%s: %+v of %d runs, all but one of 0", m.title, s, n)
				}
			}
			n = -1
		}
	}
	if n != -1 {
		t.Error("the runs are in no row")
	}
}
