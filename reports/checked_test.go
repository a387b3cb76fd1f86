package reports

import (
	"strings"
	"testing"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// TestCheckedWasLookedFor: the page says of nothing that it is in order which was not
// looked for.
func TestCheckedWasLookedFor(t *testing.T) {
	for name, tc := range map[string]struct {
		change   func(*result.Result)
		text     string
		expected bool
	}{
		"a closed loop has no lag":      {func(*result.Result) {}, "sent on time", false},
		"an open loop has":              {withLag, "sent on time", true},
		"the file system is known":      {func(*result.Result) {}, "not in memory", true},
		"the file system is not known":  {func(r *result.Result) { r.Env.FileSystem = "" }, "not in memory", false},
		"the stores were read back":     {func(*result.Result) {}, "no acknowledged entry was lost", true},
		"the stores were not read back": {notVerified, "no acknowledged entry was lost", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := sample(t, defaultSample())
			tc.change(r)
			sc := newSite([]*result.Result{r}).headline()
			if got := sc.checked(sc.judge()); strings.Contains(got, tc.text) != tc.expected {
				t.Errorf("%q in it: %v, want %v:\n%s", tc.text, !tc.expected, tc.expected, got)
			}
		})
	}
}

func withLag(r *result.Result) {
	for i := range r.Runs {
		r.Runs[i].Load = result.Load{Kind: "open", Rate: 1000}
		r.Runs[i].Lag = result.Latency{Count: r.Runs[i].Ops, P99: time.Microsecond}
	}
}

func notVerified(r *result.Result) {
	for i := range r.Runs {
		r.Runs[i].Verified = nil
	}
}

// TestCycleP99NeedsSaves: a cycle with too few Saves has no p99 on the page.
func TestCycleP99NeedsSaves(t *testing.T) {
	cycle := result.Cycle{Save: result.Latency{Count: 999, P50: time.Microsecond, P99: time.Millisecond}}
	if got := cycleP99(cycle); got != 0 {
		t.Errorf("p99 of 999 Saves: %v, want none", got)
	}
	cycle.Save.Count = 1000
	if got := cycleP99(cycle); got != float64(time.Millisecond) {
		t.Errorf("p99 of 1000 Saves: %v", got)
	}
}
