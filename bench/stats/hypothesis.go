package stats

import (
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

// resample draws len(into) values of from, with replacement.
func resample(rng *rand.Rand, from, into []float64) []float64 {
	for i := range into {
		into[i] = from[rng.IntN(len(from))]
	}
	return into
}
