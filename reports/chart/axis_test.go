package chart

import (
	"math"
	"slices"
	"testing"
)

// TestTicks: an axis has ticks enough to be read wherever the data lie, and never
// more than it has room for.
func TestTicks(t *testing.T) {
	for _, c := range []struct {
		axis   Axis
		lo, hi float64
		n      int
		want   []float64
	}{
		{Axis{Kind: Duration}, 0, 4.12e6, 3, []float64{0, 2e6, 4e6}}, // once a lonely 0
		{Axis{Kind: Seconds}, 0, 7e9, 5, []float64{0, 2e9, 4e9, 6e9}},
		{Axis{Kind: Rate}, 0, 60000, 3, []float64{0, 50000}},
		{Axis{Kind: Ratio, Log: true}, 0.44, 1.74, 9, []float64{0.5, 0.7, 1, 1.5}}, // once nothing above 1
		{Axis{Kind: Ratio, Log: true}, 0.9, 9.5, 9, []float64{1, 2, 3, 5, 7}},
		{Axis{Kind: Ratio, Log: true}, 0.1, 11, 9, []float64{0.1, 0.2, 0.5, 1, 2, 5, 10}},
		{Axis{Kind: Duration, Log: true}, 1e3, 1e10, 9, []float64{1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10}},
	} {
		a := c.axis
		a.Min, a.Max = c.lo, c.hi
		got := a.place(nil, 0, 500, c.n).ticks
		if !slices.EqualFunc(got, c.want, func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Abs(b) }) {
			t.Errorf("%+v with %d: %v, want %v", a, c.n, got, c.want)
		}
	}
	for _, log := range []bool{false, true} {
		lo := 0.0 // where linear axes begin
		if log {
			lo = 0.9
		}
		for hi := 1.3; hi < 1e12; hi *= 1.37 {
			for n := 2; n <= 12; n++ {
				if got := (Axis{Kind: Duration, Log: log, Min: lo, Max: hi}).place(nil, 0, 500, n).ticks; len(got) > n || !log && n > 2 && len(got) < 2 {
					t.Errorf("%g to %g, log %v, %d: %v", lo, hi, log, n, got)
				}
			}
		}
	}
}
