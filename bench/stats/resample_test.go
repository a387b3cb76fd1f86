package stats

import (
	"math/rand/v2"
	"testing"
)

// TestMedianResampler draws the same resamples by counting and by sorting.
func TestMedianResampler(t *testing.T) {
	for n := 1; n <= 21; n++ {
		values := make([]float64, n)
		source := rand.New(rand.NewPCG(1, uint64(n)))
		for i := range values {
			values[i] = float64(source.IntN(2*n)) / 3 // some are equal
		}
		r := newMedianResampler(values)
		a, b := rand.New(rand.NewPCG(2, 3)), rand.New(rand.NewPCG(2, 3))
		scratch := make([]float64, n)
		for range 200 {
			got, want := r.median(a), medianInPlace(resample(b, values, scratch))
			if got != want {
				t.Fatalf("n=%d: median %g by counting, %g by sorting", n, got, want)
			}
		}
	}
}
