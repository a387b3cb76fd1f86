package raw

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/raftbench/raftbench/backends"
)

func times(n int, d time.Duration) []time.Duration {
	return slices.Repeat([]time.Duration{d}, n)
}

// Only a clear and steady preference is one.
func TestClearlyFaster(t *testing.T) {
	const us = time.Microsecond
	// won is how many of n pairs end at 75 µs, the others at 200.
	won := func(wins, n int) []time.Duration { return append(times(wins, 75*us), times(n-wins, 200*us)...) }
	for _, c := range []struct {
		name string
		took []time.Duration // beside 100 µs
		want bool
	}{
		{"equal", times(16, 100*us), false},
		{"a little faster", times(16, 90*us), false},
		{"slower", times(16, 150*us), false},
		{"faster by a quarter", times(16, 75*us), true},
		{"faster by half, half of the time", append(times(8, 50*us), times(8, 200*us)...), false},
		{"13 of 16", won(13, 16), false},
		{"14 of 16", won(14, 16), true},
		{"43 of 64", won(43, 64), false},
		{"44 of 64", won(44, 64), true},
		{"151 of 256", won(151, 256), false},
		{"152 of 256", won(152, 256), true},
		{"a little faster, always", times(256, 91*us), false},
		{"never", won(0, 256), false},
	} {
		if got := clearlyFaster(c.took, times(len(c.took), 100*us)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// What a disk prefers, by what it takes for buffered and direct writes with fdatasync and
// O_DSYNC.
func TestDecide(t *testing.T) {
	const us = time.Microsecond
	for _, c := range []struct {
		took         [4]time.Duration
		noDirect     error
		io           string
		bufferedSync string
		directSync   string
	}{
		{took: [4]time.Duration{100 * us, 98 * us, 95 * us, 93 * us}, io: "buffered", bufferedSync: "fdatasync", directSync: "dsync"},
		{took: [4]time.Duration{100 * us, 50 * us, 80 * us, 79 * us}, io: "direct", bufferedSync: "dsync", directSync: "dsync"},
		{took: [4]time.Duration{100 * us, 200 * us, 80 * us, 160 * us}, io: "direct", bufferedSync: "fdatasync", directSync: "fdatasync"},
		{took: [4]time.Duration{100 * us, 50 * us}, noDirect: syscall.EINVAL, io: "buffered", bufferedSync: "dsync", directSync: "dsync"},
	} {
		p := preference{noDirect: c.noDirect}
		var took [][]time.Duration
		for _, d := range c.took {
			took = append(took, times(16, d))
		}
		p.decide(took)
		if p.io != c.io || p.sync["buffered"] != c.bufferedSync || p.sync["direct"] != c.directSync {
			t.Errorf("%v, %v: %+v", c.took, c.noDirect, p)
		}
	}
}

// All directories of a device get one answer, which is not asked for twice.
func TestOneAnswerPerDevice(t *testing.T) {
	dir := t.TempDir()
	auto := way{"auto", "auto"}
	first, err := choose(dir, auto)
	must(t, err)
	// Where no probe could be made the answer is still known.
	other := filepath.Join(dir, "other")
	must(t, os.Mkdir(other, 0o700))
	for _, name := range probeNames { // in the way of a probe
		must(t, os.Mkdir(filepath.Join(other, name), 0o700))
	}
	second, err := choose(other, auto)
	if err != nil || second != first {
		t.Errorf("another directory of the device: %v, %v; want %v", second, err, first)
	}
	if _, err := measure(other); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("a measurement that cannot be made: %v", err)
	}
}

// What a process left that was killed while it measured is gone after the next Open, for
// good, and nothing else is.
func TestProbesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	for _, w := range ways(t, dir) {
		f, err := tryWay(dir, w)
		must(t, err)
		must(t, f.close())
	}
	other := filepath.Join(dir, "other.probe")
	must(t, os.WriteFile(other, []byte("not ours"), 0o600))
	s, _, err := open(backends.Options{Dir: dir, Params: map[string]string{"io": "buffered", "sync": "fdatasync"}})
	must(t, err)
	must(t, s.Close())
	left, err := filepath.Glob(filepath.Join(dir, "*.probe"))
	if err != nil || !slices.Equal(left, []string{other}) {
		t.Errorf("%v are left, %v; want the one that is not ours", left, err)
	}

	d := newCutDisk(1, 512)
	for _, name := range append(probeNames[:2:2], "other.probe") {
		_, err := d.open(name)
		must(t, err)
	}
	must(t, d.syncNames())
	r, _, err := recoverDir(d)
	must(t, err)
	must(t, (&storage{disk: d}).settle(r)) // without a preparer, which syncs names as well
	if len(d.durable) != 1 || d.durable["other.probe"] == nil {
		t.Errorf("a power cut may leave %d files; want the one that is not ours", len(d.durable))
	}
}

// What was named is not put aside by what was measured, and what the disk does not take
// is said before anything is written.
func TestChoose(t *testing.T) {
	dir := t.TempDir()
	for _, w := range ways(t, dir) {
		if got, err := choose(dir, w); err != nil || got != w {
			t.Errorf("%v became %v, %v", w, got, err)
		}
		got, err := choose(dir, way{w.io, "auto"})
		if err != nil || got.io != w.io || got.sync != "fdatasync" && got.sync != "dsync" {
			t.Errorf("%v with sync=auto became %v, %v", w, got, err)
		}
	}
	device, err := deviceOf(dir)
	must(t, err)
	devices.Lock()
	measured := devices.found[device]
	devices.found[device] = preference{noDirect: syscall.EINVAL, io: "buffered", sync: map[string]string{"buffered": "fdatasync"}}
	devices.Unlock()
	defer func() {
		devices.Lock()
		defer devices.Unlock()
		devices.found[device] = measured
	}()
	if got, err := choose(dir, way{"auto", "auto"}); err != nil || got != (way{"buffered", "fdatasync"}) {
		t.Errorf("on a disk without direct writes auto became %v, %v", got, err)
	}
	if _, err := choose(dir, way{"direct", "fdatasync"}); !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "io=buffered") {
		t.Errorf("io=direct on a disk without direct writes: %v", err)
	}
}

// What is appended after reserve stays where it is, at the start of a page, and what is
// kept is the last page alone.
func TestPages(t *testing.T) {
	for _, huge := range []bool{false, true} {
		t.Run(fmt.Sprint("huge=", huge), func(t *testing.T) { testPages(t, huge) })
	}
}

func testPages(t *testing.T, huge bool) {
	p := pages{huge: huge}
	defer p.free()
	want := ""
	for i := range 300 {
		n := 1 + i*i%9000
		if i%50 == 49 {
			n = i * i * 200 // up to four times what is kept
		}
		tail := len(p.b)
		p.reserve(int64(tail + n))
		place := unsafe.SliceData(p.b)
		p.b = append(p.b, strings.Repeat(string(rune('a'+i%26)), n)...)
		want += strings.Repeat(string(rune('a'+i%26)), n)
		end := len(p.b)
		b := p.whole()
		must(t, wholePages(b, 0))
		if unsafe.SliceData(b) != place {
			t.Fatalf("the buffer moved while %d bytes were appended", n)
		}
		if got := string(b[:end]); got != want || strings.Trim(string(b[end:]), "\x00") != "" {
			t.Fatalf("a write of %d bytes holds other bytes than the %d that were appended", len(b), end)
		}
		p.keep(p.b[:end])
		want = want[len(want)/pageBytes*pageBytes:]
		if string(p.b) != want {
			t.Fatalf("%d bytes are kept, want %d", len(p.b), len(want))
		}
		if cap(p.b) > keepBuffer {
			t.Fatalf("a buffer of %d bytes is kept", cap(p.b))
		}
		if mapped := p.mapped != nil; mapped && (!huge || cap(p.b)%hugePage != 0) {
			t.Fatalf("a buffer of %d bytes is mapped, huge is %v", cap(p.b), huge)
		}
	}
}
