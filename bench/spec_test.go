package bench

import "testing"

// FuzzParseLoad: a load that can be read is the same when it is written and read
// again.
func FuzzParseLoad(f *testing.F) {
	for _, s := range []string{"closed:64", "open:1e3", "poisson:0.1", "curve", "search:p99<10ms", "trace", "closed:0", "open:NaN", "search:p99<1h2m", "search:p50<0s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseLoad(text)
		if err != nil {
			return
		}
		if again, err := ParseLoad(l.String()); err != nil || again != l {
			t.Errorf("%q is %+v, written as %q, and then %+v, %v", text, l, l, again, err)
		}
	})
}
