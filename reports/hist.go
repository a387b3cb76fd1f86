package reports

import (
	"math"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/raftbench/raftbench/bench/result"
)

// longestHistogram bounds what a result may ask this package to decode, in bytes
// of base64: a histogram of 1 ns to an hour with 3 digits takes under 40 KiB.
const longestHistogram = 1 << 18

// distribution is the merged latency distribution of some runs.
type distribution struct {
	quantiles []float64 // as 1/(1−q), rising
	values    []float64 // ns
	count     int64
	runs      int
	merged    bool // of the runs' histograms
}

// distributionOf merges one distribution of every run, never averaging
// percentiles. Where histograms were not kept, the percentiles of the run with
// the median p50 stand in.
func distributionOf(runs []*result.Run, of func(*result.Run) result.Latency) distribution {
	var merged *hdrhistogram.PackedHistogram
	var d distribution
	var plain []result.Latency
	for _, r := range runs {
		l := of(r)
		if l.Count <= 0 {
			continue
		}
		d.runs++
		plain = append(plain, l)
		if l.Encoded == "" || len(l.Encoded) > longestHistogram {
			continue
		}
		h, err := hdrhistogram.DecodePacked([]byte(l.Encoded))
		if err != nil || h.TotalCount() <= 0 {
			continue
		}
		if merged == nil {
			merged = h
			continue
		}
		merged.Merge(h)
	}
	if merged == nil {
		return d.fromPercentiles(plain)
	}
	d.count = merged.TotalCount()
	d.merged = true
	// The median, then eight steps to a power of ten, so that p90, p99 and the
	// others of their kind are among them.
	for k, q := 3, 2.0; q <= float64(d.count)/10; k++ {
		d.quantiles = append(d.quantiles, q)
		q = math.Pow(10, float64(k)/8)
	}
	percents := make([]float64, len(d.quantiles))
	for i, q := range d.quantiles {
		percents[i] = 100 - 100/q
	}
	for _, v := range merged.ValueAtPercentilesSlice(percents) {
		d.values = append(d.values, float64(v))
	}
	return d
}

// fromPercentiles fills in what a run without a histogram has.
func (d distribution) fromPercentiles(ls []result.Latency) distribution {
	if len(ls) == 0 {
		return d
	}
	best := middle(ls, func(l result.Latency) float64 { return float64(l.P50) })
	d.count = best.Count
	for _, p := range []struct {
		q float64
		v float64
	}{{2, float64(best.P50)}, {10, float64(best.P90)}, {100, float64(best.P99)}, {1000, float64(best.P999)}} {
		if p.v > 0 && float64(d.count)/p.q >= 10 {
			d.quantiles, d.values = append(d.quantiles, p.q), append(d.values, p.v)
		}
	}
	return d
}

// marks are the places of the median and of p90, p99 and so on.
func (d distribution) marks() []bool {
	out := make([]bool, len(d.quantiles))
	for i, q := range d.quantiles {
		digits := math.Log10(q)
		out[i] = i == 0 || math.Abs(digits-math.Round(digits)) < 1e-9
	}
	return out
}

// at is the value at 1/(1−q); ok is false beyond what the samples support.
func (d distribution) at(q float64) (float64, bool) {
	for i, x := range d.quantiles {
		if x >= q*0.999 {
			return d.values[i], true
		}
	}
	return 0, false
}
