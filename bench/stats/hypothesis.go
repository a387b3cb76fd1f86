package stats

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/aclements/go-moremath/stats"
)

// minP is reported where a test says less: the library computes 1 − F(x), which
// resolves nothing smaller, and a p-value of 0 is never true.
const minP = 1e-16

// mannWhitney is the two-sided p-value that a and b come from one distribution;
// exact up to 50 values (25 where some are equal).
func mannWhitney(a, b []float64) float64 {
	t, err := stats.MannWhitneyUTest(a, b, stats.LocationDiffers)
	if err != nil { // all values equal, or none
		return 1
	}
	return max(minP, min(1, t.P))
}

// pairedT is the two-sided p-value of a t-test that the mean of logRatios is 0.
// Ratios that are all the same have no variance to test with; then it is the
// sign test, the most that so many equal signs can say.
func pairedT(logRatios []float64) float64 {
	zeros := make([]float64, len(logRatios))
	t, err := stats.PairedTTest(logRatios, zeros, 0, stats.LocationDiffers)
	if err == nil {
		return max(minP, min(1, t.P))
	}
	if len(logRatios) == 0 || logRatios[0] == 0 {
		return 1
	}
	return max(minP, min(1, math.Ldexp(2, -len(logRatios))))
}

// holm corrects p-values for being read together (Holm 1979): sorted, the k-th
// smallest of m is multiplied by m−k+1, and none becomes smaller than the one
// before it. The result is in the order of ps.
func holm(ps []float64) []float64 {
	order := make([]int, len(ps))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case ps[a] < ps[b]:
			return -1
		case ps[a] > ps[b]:
			return 1
		}
		return 0
	})
	out := make([]float64, len(ps))
	highest := 0.0
	for k, i := range order {
		highest = max(highest, min(1, ps[i]*float64(len(ps)-k)))
		out[i] = highest
	}
	return out
}

// bootstrap gives the percentile interval of statistic over rounds resamples.
func bootstrap(rng *rand.Rand, rounds int, statistic func(rng *rand.Rand) float64) (lo, hi float64) {
	values := make([]float64, rounds)
	for i := range values {
		values[i] = statistic(rng)
	}
	slices.Sort(values)
	cut := int(float64(rounds) * (1 - Confidence) / 2)
	return values[cut], values[rounds-1-cut]
}

// medianResampler draws resamples of some values and gives their medians. It
// counts draws by rank instead of sorting them, which is what most of the time of
// a comparison would go to.
type medianResampler struct {
	sorted []float64
	rank   []int // of each value, in their given order
	drawn  []int // by rank
}

func newMedianResampler(values []float64) *medianResampler {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(values[a], values[b]) })
	r := &medianResampler{sorted: make([]float64, len(values)), rank: make([]int, len(values)), drawn: make([]int, len(values))}
	for k, i := range order {
		r.sorted[k], r.rank[i] = values[i], k
	}
	return r
}

// median is the median of one resample.
func (r *medianResampler) median(rng *rand.Rand) float64 {
	n := len(r.sorted)
	clear(r.drawn)
	for range n {
		r.drawn[r.rank[rng.IntN(n)]]++
	}
	// Positions (n−1)/2 and n/2 of the sorted resample.
	seen, lower := 0, -1
	for k, d := range r.drawn {
		seen += d
		if lower < 0 && seen > (n-1)/2 {
			lower = k
		}
		if seen > n/2 {
			return (r.sorted[lower] + r.sorted[k]) / 2
		}
	}
	panic("stats: a resample without a median")
}

// resample draws len(into) values of from, with replacement.
func resample(rng *rand.Rand, from, into []float64) []float64 {
	for i := range into {
		into[i] = from[rng.IntN(len(from))]
	}
	return into
}
