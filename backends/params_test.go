package backends_test

import (
	"maps"
	"testing"

	"github.com/raftbench/raftbench/backends"
)

// FuzzParseName: a name that can be read is the same when it is written and read
// again.
func FuzzParseName(f *testing.F) {
	for _, s := range []string{"bbolt", "bbolt[freelist=array]", " raw[segment=64KiB, recycle=on]", "a[b=c=d]", "a[]", "[a=b]", "a[b=c", "a[b=c][d=e]", "a[b=,c]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name, params, err := backends.ParseName(text)
		if err != nil {
			return
		}
		written := backends.FormatName(name, params)
		again, paramsAgain, err := backends.ParseName(written)
		if err != nil || again != name || !maps.Equal(paramsAgain, params) {
			t.Errorf("%q is %q with %q, written as %q, and then %q with %q, %v", text, name, params, written, again, paramsAgain, err)
		}
	})
}
