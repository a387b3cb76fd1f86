package stats

import (
	"math"
	"slices"

	"golang.org/x/perf/benchmath"
)

// Summary is the median of some runs.
type Summary struct {
	N      int
	Median float64
	// Lo and Hi bound the median with at least 95 % confidence; they are valid
	// only where Interval is true, which needs 6 runs.
	Lo, Hi   float64
	Interval bool
}

// Confidence is the level of every interval of this package.
const Confidence = 0.95

// Summarize gives the median of values and its order-statistic interval. values
// is not changed. It returns the zero Summary for no values.
func Summarize(values []float64) Summary {
	if len(values) == 0 {
		return Summary{}
	}
	sample := benchmath.NewSample(slices.Clone(values), &benchmath.DefaultThresholds)
	s := benchmath.AssumeNothing.Summary(sample, Confidence)
	out := Summary{N: len(values), Median: s.Center}
	if !math.IsInf(s.Lo, 0) && !math.IsInf(s.Hi, 0) {
		out.Lo, out.Hi, out.Interval = s.Lo, s.Hi, true
	}
	return out
}

// Median of values, which is not changed; NaN for none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Clone(values)
	return medianInPlace(sorted)
}

func medianInPlace(xs []float64) float64 {
	slices.Sort(xs)
	n := len(xs)
	if n%2 == 1 {
		return xs[n/2]
	}
	return (xs[n/2-1] + xs[n/2]) / 2
}
