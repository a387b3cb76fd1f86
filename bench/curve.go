package bench

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"

	"github.com/raftbench/raftbench/bench/result"
)

// series is what a block holds at one place: one run, or the runs of a curve or a
// search, each of which may depend on those before it.
type series interface {
	// next is the run to make after those that were made; false at the end. It
	// depends on nothing else, so that a series can be taken up again.
	next(made []result.Run) (One, bool)
	// planned is how many runs there will be, a guess where it cannot be known.
	planned() int
	// conclude notes in the result what only the whole series tells.
	conclude(made []result.Run, res *result.Result)
}

func seriesOf(one One) series {
	switch one.Load.Kind {
	case LoadCurve:
		return curve{one}
	case LoadSearch:
		return search{one}
	}
	return single{one}
}

// single is one run.
type single struct{ one One }

func (s single) next(made []result.Run) (One, bool) { return s.one, len(made) == 0 }

func (s single) planned() int { return 1 }

func (s single) conclude([]result.Run, *result.Result) {}

// curveShares are the loads of a curve, of the maximum found.
var curveShares = []float64{0.10, 0.25, 0.50, 0.70, 0.80, 0.90, 0.95, 1.00, 1.10}

// curveClients is the closed loop that finds the maximum: twice as many
// operations as one MsgProp can hold, so that a second batch gathers while the
// first is on its way.
const curveClients = 1024

// curve is the maximum of a backend in a closed loop, and then shares of it as
// open loops, in shuffled order, so that nothing that drifts is taken for the
// effect of the load.
type curve struct{ one One }

func (c curve) planned() int { return 1 + len(curveShares) }

func (c curve) conclude([]result.Run, *result.Result) {}

func (c curve) next(made []result.Run) (One, bool) {
	one := c.one
	one.NoSnapshots = true
	switch {
	case len(made) == 0:
		one.Load = Closed(curveClients)
		one.Load.Point = "max"
		return one, true
	case len(made) > len(curveShares) || made[0].Throughput <= 0:
		return One{}, false
	}
	share := curveShares[c.order()[len(made)-1]]
	one.Load = Open(roundRate(made[0].Throughput * share))
	one.Load.Point, one.Load.Share = fmt.Sprintf("%.0f%%", 100*share), share
	return one, true
}

// order is the shuffle of the shares in this block.
func (c curve) order() []int {
	h := fnv.New64a()
	_, _ = fmt.Fprintf(h, "%d %s %s", c.one.Block, c.one.Backend.Label(), c.one.Variant)
	return rand.New(rand.NewPCG(uint64(c.one.Seed), h.Sum64())).Perm(len(curveShares))
}

// roundRate keeps four digits of a rate: more would be noise, and less a share of
// the steps of a search.
func roundRate(rate float64) float64 {
	if rate <= 0 {
		return 0
	}
	unit := math.Pow(10, math.Floor(math.Log10(rate))-3)
	if unit < 1 { // 1/unit is a whole number, and the quotient by it the nearest to the decimal
		return math.Round(rate/unit) / math.Round(1/unit)
	}
	return math.Round(rate/unit) * math.Round(unit)
}
