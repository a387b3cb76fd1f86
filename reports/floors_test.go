package reports

import (
	"slices"
	"strings"
	"testing"

	"github.com/raftbench/raftbench/bench/result"
)

// savesOf gives every synced run of a sample a Save of some bytes, on a disk that
// takes 100 µs for as much.
func savesOf(t *testing.T, bytes func(backend string) float64) *result.Result {
	r := sample(t, defaultSample())
	for i := range r.Runs {
		if run := &r.Runs[i]; run.Durability != "none" {
			run.SaveBytes, run.SaveFloor = bytes(run.Backend), float64(run.Save.P50)/100_000
		}
	}
	return r
}

// TestSaveFloor: who divides a Save by its multiple gets the raw write that is named
// beside it, which is one of the size of the Save and not the smallest.
func TestSaveFloor(t *testing.T) {
	same := savesOf(t, func(string) float64 { return 65536 })
	mixed := savesOf(t, func(backend string) float64 {
		return map[string]float64{"etcd-wal": 65536}[backend] + 1024
	})
	for name, c := range map[string]struct {
		r         *result.Result
		text, ref string
	}{
		"one size": {same, "A Save holds 64 KiB here; a synced raw write of as much takes 100 µs on this disk.", "raw write of 64 KiB, p50 100 µs"},
		"several":  {mixed, "A Save holds 1 KiB to 65 KiB here; a synced raw write of as much takes 100 µs on this disk.", "raw write of 2.25 KiB, p50 132 µs"},
	} {
		t.Run(name, func(t *testing.T) {
			sc := newSite([]*result.Result{c.r}).headline()
			if got := sc.floorText(); !strings.HasPrefix(got, c.text) {
				t.Errorf("%q, want %q", got, c.text)
			}
			if _, got := sc.reference(); got != c.ref {
				t.Errorf("the line of the percentiles is %q, want %q", got, c.ref)
			}
		})
	}
}

// TestUnderTheFloor: a store that is faster than its disk is explained, not praised.
func TestUnderTheFloor(t *testing.T) {
	r := sample(t, defaultSample())
	note := func() string { return newSite([]*result.Result{r}).headline().floorNote() }
	if strings.Contains(note(), "faster than its disk") {
		t.Error(note())
	}
	for i := range r.Runs {
		if r.Runs[i].Backend == "etcd-wal" {
			r.Runs[i].SaveFloor = 0.7
		}
	}
	if !strings.Contains(note(), "No store is faster than its disk: under 1× (etcd-wal)") {
		t.Error(note())
	}
}

// TestFloorOfRaw: the note says what raw is at, and how it came under the disk's figure
// where it wrote past the page cache, in all runs.
func TestFloorOfRaw(t *testing.T) {
	r := sample(t, defaultSample())
	note := func(set func(i int, run *result.Run)) string {
		n := 0
		for i := range r.Runs {
			if run := &r.Runs[i]; run.Backend == "raw" {
				set(n, run)
				n++
			}
		}
		return newSite([]*result.Result{r}).headline().floorNote()
	}
	const past = "(raw), which writes past the page cache, is at "
	if got := note(func(int, *result.Run) {}); !strings.Contains(got, "(raw) is at ") {
		t.Error(got)
	}
	if got := note(func(i int, run *result.Run) {
		run.Chosen = map[string]string{"io": []string{"direct", "buffered"}[i%2]}
	}); !strings.Contains(got, "(raw) is at ") {
		t.Error(got)
	}
	if got := note(func(_ int, run *result.Run) { run.Chosen["io"] = "direct" }); !strings.Contains(got, past) {
		t.Error(got)
	}
	if got := note(func(_ int, run *result.Run) { run.Chosen, run.Params = nil, map[string]string{"io": "direct"} }); !strings.Contains(got, past) {
		t.Error(got)
	}
}

// TestWhere: the number of runs is said of the backends that it belongs to.
func TestWhere(t *testing.T) {
	r := sample(t, defaultSample())
	for i := range r.Runs {
		switch run := &r.Runs[i]; {
		case run.Backend == "pebble", run.Backend == "etcd-wal", run.Backend == "mem" && run.Block == 2:
			run.Flags = []string{"not_steady"}
		}
	}
	reasons := newSite([]*result.Result{r}).headline().reasons()
	i := slices.IndexFunc(reasons, func(r Reason) bool { return r.Name == "not_steady" })
	if i < 0 || !strings.HasPrefix(reasons[i].Where, "etcd-wal and pebble in every run; mem in 1 of ") {
		t.Errorf("%+v", reasons)
	}
}
