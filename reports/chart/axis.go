package chart

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/aclements/go-moremath/scale"

	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// Kind is the quantity along an axis; it decides how ticks are labelled.
type Kind string

// The kinds.
const (
	Number   Kind = "n"
	Rate     Kind = "ops" // operations a second
	Duration Kind = "ns"  // nanoseconds
	Seconds  Kind = "s"   // time of a run, in nanoseconds
	Ratio    Kind = "x"
	Percent  Kind = "%" // a deviation: 0.05 is "+5 %"
	Bytes    Kind = "B"
	Quantile Kind = "q" // 1/(1−q): 1000 is "99.9 %"
)

// Axis is one axis of a panel. Where Min and Max are both 0 they are taken from
// the data; a linear axis then begins at 0 unless it is of kind Percent.
type Axis struct {
	Title    string
	Kind     Kind
	Log      bool
	Min, Max float64
}

// label renders a tick.
func (k Kind) label(v float64) string {
	switch k {
	case Duration:
		return tickDuration(v)
	case Seconds:
		return trimmed(v/1e9) + " s"
	case Rate:
		return tickCount(v)
	case Ratio:
		return trimmed(v) + "×"
	case Percent:
		if v == 0 {
			return "0"
		}
		sign := "+"
		if v < 0 {
			sign = "−"
		}
		return sign + trimmed(math.Abs(v)*100) + " %"
	case Bytes:
		return quantity.FormatBytes(v)
	case Quantile:
		return quantileLabel(v)
	}
	return trimmed(v)
}

// value renders a figure with three significant digits, where label renders a
// tick.
func (k Kind) value(v float64) string {
	switch k {
	case Duration:
		return quantity.FormatDuration(v)
	case Rate:
		return quantity.FormatCount(v)
	}
	return quantity.Significant(v)
}

// quantileLabel renders 1/(1−q) as the percentile q.
func quantileLabel(v float64) string {
	if v <= 1 {
		return "0"
	}
	digits := max(int(math.Round(math.Log10(v)))-2, 0)
	return strconv.FormatFloat(100-100/v, 'f', digits, 64) + " %"
}

func tickDuration(v float64) string {
	if v == 0 {
		return "0"
	}
	name, size := quantity.DurationUnit(v)
	return trimmed(v/size) + " " + name
}

func tickCount(v float64) string {
	switch {
	case v >= 1e9:
		return trimmed(v/1e9) + " G"
	case v >= 1e6:
		return trimmed(v/1e6) + " M"
	case v >= 1e4:
		return trimmed(v/1e3) + " k"
	}
	return quantity.Group(trimmed(v))
}

// trimmed is v with at most four decimals and without trailing zeros.
func trimmed(v float64) string {
	s := strings.TrimRight(strings.TrimRight(strconv.FormatFloat(v, 'f', 4, 64), "0"), ".")
	if s == "0" && v != 0 {
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
	return s
}

// scaled is an axis with its domain and its place on the canvas.
type scaled struct {
	Axis
	q        scale.Quantitative
	from, to float64 // pixels of Min and Max
	ticks    []float64
}

// place gives the axis a domain that covers values and puts it between two
// pixel positions with at most n ticks.
func (a Axis) place(values []float64, from, to float64, n int) scaled {
	lo, hi := a.Min, a.Max
	if lo == 0 && hi == 0 {
		lo, hi = a.domain(values)
	}
	s := scaled{Axis: a, from: from, to: to}
	if a.Log {
		if lo <= 0 || hi <= 0 {
			lo, hi = 1, 10
		}
		if lo == hi {
			lo, hi = lo/2, hi*2
		}
		l, err := scale.NewLog(lo, hi, 10)
		if err != nil { // both are positive
			panic("chart: " + err.Error())
		}
		l.Clamp = true
		s.q, s.ticks = &l, logTicks(a.Kind, l, n)
	} else {
		if lo == hi {
			hi = lo + 1
		}
		s.q = &scale.Linear{Min: lo, Max: hi, Clamp: true}
		if s.ticks = linearTicks(lo, hi, n); a.Kind == Percent {
			s.ticks = percentTicks(hi)
		}
	}
	s.Min, s.Max = lo, hi
	return s
}

// absurd is what no measured figure reaches: three hundred years in nanoseconds.
// Larger values, and on a log axis values smaller than its inverse, are not
// drawn.
const absurd = 1e19

// domain is the range of the usable values, with some room on a log axis.
func (a Axis) domain(values []float64) (lo, hi float64) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if math.IsNaN(v) || math.Abs(v) > absurd || a.Log && v < 1/absurd {
			continue
		}
		lo, hi = min(lo, v), max(hi, v)
	}
	switch {
	case lo > hi && a.Log:
		return 1, 10
	case lo > hi:
		return 0, 1
	case a.Log:
		// Room of a twentieth on both sides, so that nothing lies on the frame.
		room := math.Max(math.Pow(hi/lo, 0.05), 1.1)
		return lo / room, hi * room
	case a.Kind == Seconds:
		return math.Min(lo, 0), hi
	case a.Kind == Percent:
		edge := math.Max(math.Max(math.Abs(lo), math.Abs(hi)), 0.01)
		return -edge, edge
	}
	// A little air above the highest, so that it does not lie on the frame.
	return math.Min(lo, 0), math.Max(hi, 0) * 1.04
}

// linearTicks are up to n nice positions in [lo, hi], at steps of 1, 2 or 5
// times a power of ten. (scale.Linear knows steps of 1 and 5 only, which leaves
// half of a small plot empty.)
func linearTicks(lo, hi float64, n int) []float64 {
	step := niceStep(lo, hi, n)
	first := math.Ceil(lo/step - 1e-9)
	var out []float64
	for i := range max(n, 1) { // bounded: far from 0 a step may be too small to add
		v := (first+float64(i))*step + 0 // −0 becomes 0
		if !(v <= hi+step*1e-9) || math.IsInf(v, 0) {
			break
		}
		out = append(out, v)
	}
	return out
}

// percentTicks are 0 and one nice deviation to either side.
func percentTicks(edge float64) []float64 {
	t := math.Pow(10, math.Floor(math.Log10(edge)))
	for _, f := range []float64{5, 2} {
		if f*t <= edge {
			t *= f
			break
		}
	}
	return []float64{-t, 0, t}
}

// niceStep is the smallest nice step with at most n ticks between lo and hi.
func niceStep(lo, hi float64, n int) float64 {
	power := math.Pow(10, math.Floor(math.Log10((hi-lo)/float64(max(n, 1)+1))))
	for _, f := range []float64{1, 2, 5, 10, 20} {
		step := f * power
		if math.Floor(hi/step+1e-9)-math.Ceil(lo/step-1e-9)+1 <= float64(n) {
			return step
		}
	}
	return 50 * power
}

// logTicks are up to n nice positions: powers of ten, or where these are too
// few also 2 and 5 times them, or more digits, or linear ones. Of the sets with
// few digits the first is taken that leaves no large part of the axis bare.
func logTicks(k Kind, l scale.Log, n int) []float64 {
	switch k {
	case Bytes:
		return binaryTicks(l, n)
	case Quantile:
		return quantileTicks(l)
	}
	major, _ := l.Ticks(scale.TickOptions{Max: n})
	if len(major) >= 4 || len(major)*3 > 2*n {
		return major
	}
	var sparse []float64
	for _, digits := range [][]float64{{1, 2, 5}, {1, 2, 3, 5, 7}, {1, 1.5, 2, 3, 5, 7}} {
		var out []float64
		for e := math.Floor(math.Log10(l.Min)); e <= math.Log10(l.Max); e++ {
			for _, d := range digits {
				if v := d * math.Pow(10, e); v >= l.Min*(1-1e-9) && v <= l.Max*(1+1e-9) {
					out = append(out, v)
				}
			}
		}
		switch {
		case len(out) < 3 || len(out) > n:
		case widestGap(l, out) <= bareShare:
			return out
		case sparse == nil:
			sparse = out
		}
	}
	if sparse != nil {
		return sparse
	}
	if len(major) < 2 {
		return slices.DeleteFunc(linearTicks(l.Min, l.Max, min(n, 6)), func(v float64) bool { return v <= 0 })
	}
	return major
}

// bareShare is the part of a log axis that may lie between two ticks, or between one
// and an end, before the axis is given more of them.
const bareShare = 0.36

// widestGap is the largest part of the axis without a tick.
func widestGap(l scale.Log, ticks []float64) float64 {
	at, gap := 0.0, 0.0
	for _, t := range append(slices.Clone(ticks), l.Max) {
		gap, at = max(gap, l.Map(t)-at), l.Map(t)
	}
	return gap
}

// binaryTicks are up to n powers of two, at equal steps, or multiples of one where
// the axis holds fewer than two.
func binaryTicks(l scale.Log, n int) []float64 {
	first, last := math.Ceil(math.Log2(l.Min)-1e-9), math.Floor(math.Log2(l.Max)+1e-9)
	step := max(math.Ceil((last-first+1)/float64(max(n, 1))), 1)
	var out []float64
	for e := math.Ceil(first/step) * step; e <= last; e += step {
		out = append(out, math.Pow(2, e))
	}
	if len(out) > 1 {
		return out
	}
	// Within a factor of two or so: multiples of one power of two.
	unit := math.Pow(2, math.Ceil(math.Log2((l.Max-l.Min)/float64(max(n-1, 1)))))
	out = out[:0]
	for v := math.Ceil(l.Min/unit) * unit; v <= l.Max && len(out) < n; v += unit {
		out = append(out, v)
	}
	return out
}

// quantileTicks are the median and the percentiles 90, 99, 99.9 and so on.
func quantileTicks(l scale.Log) []float64 {
	var out []float64
	if l.Min <= 2 && 2 <= l.Max {
		out = append(out, 2)
	}
	for q := 10.0; q <= l.Max*(1+1e-9); q *= 10 {
		if q >= l.Min {
			out = append(out, q)
		}
	}
	return out
}

// at is the pixel of v; ok is false for what the axis cannot show.
func (s scaled) at(v float64) (px float64, ok bool) {
	if math.IsNaN(v) || math.Abs(v) > absurd || s.Log && v < 1/absurd {
		return 0, false
	}
	return s.from + s.q.Map(v)*(s.to-s.from), true
}

// labels are the ticks as text.
func (s scaled) labels() []string {
	out := make([]string, len(s.ticks))
	for i, t := range s.ticks {
		out[i] = s.Kind.label(t)
	}
	return out
}

// data describes the axis for scripts: scale, domain, pixels, kind.
func (s scaled) data() string {
	kind := "lin"
	if s.Log {
		kind = "log"
	}
	g := func(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
	return kind + " " + g(s.Min) + " " + g(s.Max) + " " + num(s.from) + " " + num(s.to) + " " + string(s.Kind)
}
