package bench

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// The search for the highest rate that holds an objective: double from a start
// until a rate fails, bisect between the highest that held and the lowest that
// failed, and confirm.
const (
	searchStart    = 1000 // operations a second
	searchLowest   = 0.5
	searchHighest  = searchStart << 13 // beyond what one generator sends
	searchWithin   = 1.05              // the bisection ends when failed ÷ held is not above this
	searchConfirms = 3                 // runs in a row
	// searchTries is how often a rate may fail before it is given up: where others
	// use the disk, a single stall would else decide the answer. A confirmation has
	// no second try.
	searchTries = 2
	// searchSteps bounds a search on a machine so noisy that nothing is confirmed.
	searchSteps = 60
	// searchGuess is how many runs a search usually takes, for estimates.
	searchGuess = 16
	// searchAchieved is the share of the offered rate that must be achieved.
	searchAchieved = 0.99
)

// search is the runs of one search.
type search struct{ one One }

func (s search) planned() int { return searchGuess }

func (s search) next(made []result.Run) (One, bool) {
	h := s.follow(made)
	if h.over {
		return One{}, false
	}
	one := s.one
	one.NoSnapshots = true
	one.Load = Load{Kind: LoadOpen, Rate: h.rate, Metric: s.one.Load.Metric, SLO: s.one.Load.SLO,
		Step: len(made) + 1, Point: fmt.Sprintf("search step %d", len(made)+1)}
	return one, true
}

// follow takes a new search through the runs that were made.
func (s search) follow(made []result.Run) *hunt {
	h := newHunt()
	for i := range made {
		h.step(missed(&made[i], s.one.Load) == "")
	}
	return h
}

// conclude says of every step why it failed, marks those that confirmed the rate,
// and notes the rate.
func (s search) conclude(made []result.Run, res *result.Result) {
	h := s.follow(made)
	for i := range res.Runs {
		r := &res.Runs[i]
		at := slices.IndexFunc(made, func(m result.Run) bool { return m.ID == r.ID })
		if at < 0 {
			continue
		}
		r.Load.Missed = missed(r, s.one.Load)
		if h.found > 0 && at >= len(made)-searchConfirms {
			r.Load.Point = "confirmed"
		}
	}
	res.Searches = append(res.Searches, result.Search{
		Backend: s.one.Backend.Name, Params: s.one.Backend.Preset(), Block: s.one.Block, Config: s.one.Variant,
		SLO: s.one.Load.objective(), Rate: h.found, Steps: len(made),
	})
}

// hunt is where a search stands.
type hunt struct {
	rate       float64 // to try next
	held       float64 // the highest rate that held; 0: none yet
	failed     float64 // the lowest rate that was given up; 0: none yet
	failures   int     // at rate
	confirming bool
	confirmed  int // runs in a row
	steps      int
	over       bool
	found      float64 // the answer; 0: there is none
}

func newHunt() *hunt { return &hunt{rate: searchStart} }

// step takes the outcome of the run at h.rate.
func (h *hunt) step(held bool) {
	h.steps++
	switch {
	case h.confirming:
		h.confirm(held)
	case held:
		h.held, h.failures = h.rate, 0
		h.choose()
	default:
		if h.failures++; h.failures == searchTries {
			h.failed, h.failures = h.rate, 0
			h.choose()
		}
	}
	if h.steps >= searchSteps {
		h.over = true
	}
}

func (h *hunt) confirm(held bool) {
	if !held {
		h.rate, h.confirmed = roundRate(h.rate/searchWithin), 0
		h.over = h.rate < searchLowest
		return
	}
	if h.confirmed++; h.confirmed == searchConfirms {
		h.found, h.over = h.rate, true
	}
}

// choose picks the next rate after one that held or was given up.
func (h *hunt) choose() {
	switch {
	case h.failed == 0 && h.held < searchHighest:
		h.rate = 2 * h.held
	case h.held == 0:
		h.rate = h.failed / 2
		h.over = h.rate < searchLowest
	case h.failed == 0 || h.failed/h.held <= searchWithin:
		h.rate, h.confirming = h.held, true
	default:
		h.rate = roundRate(math.Sqrt(h.held * h.failed))
	}
}

// missed is why a run did not hold the objective of a search; "" where it did.
func missed(r *result.Run, l Load) string {
	at := percentile(r.Response, l.Metric)
	switch {
	case r.Error != "":
		return "the run failed"
	case r.Errors > 0:
		return fmt.Sprintf("%d operations failed", r.Errors)
	// One operation may be under way at either end without anything being late, which
	// is more than the rest of few.
	case float64(r.Ops+1) < searchAchieved*r.Load.Rate*r.Elapsed.Seconds():
		return fmt.Sprintf("%.1f %% of the offered rate was achieved", 100*r.Throughput/r.Load.Rate)
	case at >= l.SLO:
		return fmt.Sprintf("%s was %v", l.Metric, at.Round(time.Microsecond))
	case growing(r.Backlog):
		return fmt.Sprintf("the backlog grew from %d to %d operations", r.Backlog[0], r.Backlog[len(r.Backlog)-1])
	}
	return ""
}

func percentile(l result.Latency, metric string) time.Duration {
	return map[string]time.Duration{"p50": l.P50, "p90": l.P90, "p99": l.P99, "p999": l.P999}[metric]
}

// growing reports whether more operations were in flight in every window of a run
// than in the one before, and at the end more than twice as many as in the first.
// Where nothing grows, five numbers are in this order once in 120 times, and
// seldom so far apart.
func growing(backlog []int64) bool {
	if len(backlog) < gateWindows {
		return false
	}
	for i := 1; i < len(backlog); i++ {
		if backlog[i] <= backlog[i-1] {
			return false
		}
	}
	return backlog[len(backlog)-1] > 2*backlog[0]
}

// objective is the demand of a search, such as "p99<10ms"; "" of other loads.
func (l Load) objective() string {
	if l.Metric == "" {
		return ""
	}
	return fmt.Sprintf("%s<%s", l.Metric, l.SLO)
}
