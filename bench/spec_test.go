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

// TestStateIsBounded: large values do not make a state that no memory holds.
func TestStateIsBounded(t *testing.T) {
	for size, want := range map[int]int{16: 4096, 1 << 10: 4096, 16 << 10: 4096, 64 << 10: 1024, 1 << 20: 64, 16 << 20: 4} {
		one := One{Spec: Spec{ValueSize: size}}
		if got := one.stateKeys(); got != want {
			t.Errorf("%d keys of values of %d bytes, want %d", got, size, want)
		}
	}
	if got := (One{Spec: Spec{ValueSize: 16, ValueSizeMax: 2<<20 - 16}}).stateKeys(); got != 64 {
		t.Errorf("%d keys of a range around 1 MiB, want 64", got)
	}
}
