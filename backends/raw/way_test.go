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
		took                 []time.Duration
		io, buffered, direct string
	}{
		{[]time.Duration{100 * us, 98 * us, 95 * us, 93 * us}, "buffered", "fdatasync", "dsync"},
		{[]time.Duration{100 * us, 50 * us, 80 * us, 79 * us}, "direct", "dsync", "dsync"},
		{[]time.Duration{100 * us, 200 * us, 80 * us, 160 * us}, "direct", "fdatasync", "fdatasync"},
		{[]time.Duration{100 * us, 50 * us}, "buffered", "dsync", ""},
	} {
		var took [][]time.Duration
		for _, d := range c.took {
			took = append(took, times(16, d))
		}
		if m := decide(took); m != (measured{io: c.io, buffered: c.buffered, direct: c.direct}) {
			t.Errorf("%v: %+v", c.took, m)
		}
	}
}

// All directories of a device get one answer, which is not asked for twice.
func TestOneAnswerPerDevice(t *testing.T) {
	dir := t.TempDir()
	auto := way{"auto", "auto"}
	first, _, err := choose(dir, auto)
	must(t, err)
	// Where no probe could be made the answer is still known.
	other := filepath.Join(dir, "other")
	must(t, os.Mkdir(other, 0o700))
	blockProbes(t, other)
	second, _, err := choose(other, auto)
	if err != nil || second != first {
		t.Errorf("another directory of the device: %v, %v; want %v", second, err, first)
	}
	if _, err := measure(other); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("a measurement that cannot be made: %v", err)
	}
	// That one way cannot be tried is no property of the disk.
	must(t, os.RemoveAll(filepath.Join(other, way{io: "buffered"}.probeName())))
	if m, err := measure(other); oDirect != 0 && !errors.Is(err, syscall.EISDIR) {
		t.Errorf("direct writes could not be tried: %+v, %v", m, err)
	}
}

// blockProbes puts directories where a measurement would write, so that it fails.
func blockProbes(t *testing.T, dir string) {
	t.Helper()
	for _, name := range probeNames {
		must(t, os.MkdirAll(filepath.Join(dir, name, "full"), 0o700))
	}
}

// believe makes a device's preference m, as if it had been measured, until the test ends; the
// zero value is that nothing is known of it.
func believe(t *testing.T, dir string, m measured) measured {
	t.Helper()
	device, err := deviceOf(dir)
	must(t, err)
	m.device = device
	devices.Lock()
	defer devices.Unlock()
	before, known := devices.found[device]
	if devices.found == nil {
		devices.found = map[uint64]measured{}
	}
	if devices.found[device] = m; m.io == "" {
		delete(devices.found, device)
	}
	t.Cleanup(func() {
		devices.Lock()
		defer devices.Unlock()
		if devices.found[device] = before; !known {
			delete(devices.found, device)
		}
	})
	return m
}

// What a process left that was killed while it measured is gone after the next Open, for
// good, and nothing else is.
func TestProbesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	for _, w := range ways(t, dir) {
		f, err := tryWay(dir, w, 2*probeMax*pageBytes)
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
		if got, _, err := choose(dir, w); err != nil || got != w {
			t.Errorf("%v became %v, %v", w, got, err)
		}
		got, _, err := choose(dir, way{w.io, "auto"})
		if err != nil || got.io != w.io || got.sync != "fdatasync" && got.sync != "dsync" {
			t.Errorf("%v with sync=auto became %v, %v", w, got, err)
		}
	}
}

// A log that is opened again, by a process that knows nothing of its disk, is written as before
// without a measurement; what is named comes first.
func TestLogKeepsWhatWasMeasured(t *testing.T) {
	const segment = "8KiB"
	dir := t.TempDir()
	// None that these disks would choose by themselves.
	said := believe(t, dir, measured{io: "buffered", buffered: "dsync", direct: "fdatasync"})
	write := func(io, sync string, index uint64) map[string]string {
		t.Helper()
		s := openDir(t, dir, map[string]string{"segment": segment, "io": io, "sync": sync}, nil)
		must(t, s.Save(hs(1, 1, 0), entries(index, 1, 6, 4000))) // more than a segment
		must(t, s.Close())
		return s.Chosen()
	}
	write("auto", "auto", 1)
	blocked := filepath.Join(t.TempDir(), "log")
	reopen := func(t *testing.T, w way) (way, measured, error) {
		t.Helper()
		must(t, os.RemoveAll(blocked))
		must(t, os.CopyFS(blocked, os.DirFS(dir)))
		blockProbes(t, blocked)
		believe(t, dir, measured{})
		return choose(blocked, w)
	}
	want := map[way]way{
		{"auto", "auto"}:      {"buffered", "dsync"},
		{"auto", "fdatasync"}: {"buffered", "fdatasync"},
		{"buffered", "auto"}:  {"buffered", "dsync"},
		{"buffered", "fsync"}: {"buffered", "fsync"},
	}
	if tryDirect(t.TempDir()) == nil {
		want[way{"direct", "auto"}] = way{"direct", "fdatasync"}
		want[way{"direct", "dsync"}] = way{"direct", "dsync"}
	}
	for w, want := range want {
		if got, m, err := reopen(t, w); err != nil || got != want || m != said {
			t.Errorf("%v became %v by %+v, %v; want %v by %+v", w, got, m, err, want, said)
		}
	}

	// Lives in which all is named do not forget it, whatever they write.
	believe(t, dir, measured{})
	for i := range uint64(3) {
		if chosen := write("buffered", "fdatasync", 7+6*i); chosen != nil {
			t.Errorf("chose %v where all was named", chosen)
		}
	}
	headers := 0
	names, err := filepath.Glob(filepath.Join(dir, "*"+segmentSuffix))
	must(t, err)
	for _, name := range names {
		b, err := os.ReadFile(name)
		must(t, err)
		if h, ok := decodeHeader(b); ok { // the last one may not be prepared yet
			headers++
			if h.measured != said {
				t.Errorf("%s says %+v, want %+v", name, h.measured, said)
			}
		}
	}
	if headers < 8 {
		t.Errorf("%d headers in %v", headers, names)
	}

	// On another device it says nothing, nor does a log of an earlier version.
	for _, m := range []measured{{device: said.device + 1, io: said.io, buffered: said.buffered, direct: said.direct}, {}} {
		for _, name := range names {
			n, _ := parseName(filepath.Base(name), segmentSuffix)
			f, err := os.OpenFile(name, os.O_RDWR, 0)
			must(t, err)
			_, err = f.WriteAt(appendHeader(nil, header{number: n, measured: m}), 0)
			must(t, errors.Join(err, f.Close()))
		}
		if got, _, err := reopen(t, way{"auto", "auto"}); !errors.Is(err, syscall.EISDIR) {
			t.Errorf("headers that say %+v: %v, %v; want a measurement, which fails here", m, got, err)
		}
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
