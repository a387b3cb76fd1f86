package raw

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// way is how a write goes to the disk and is made durable there: the parameters io and
// sync.
type way struct{ io, sync string }

// flags are those of open that a way needs beside the usual ones.
func (w way) flags() int {
	flags := 0
	if w.io == "direct" {
		flags |= oDirect
	}
	if w.sync == "dsync" {
		flags |= unix.O_DSYNC
	}
	return flags
}

// chosen is what became of the settings of w that are "auto".
func (w way) chosen(became way) map[string]string {
	var chosen map[string]string
	for _, p := range []struct{ name, given, became string }{{"io", w.io, became.io}, {"sync", w.sync, became.sync}} {
		if p.given != "auto" {
			continue
		}
		if chosen == nil {
			chosen = map[string]string{}
		}
		chosen[p.name] = p.became
	}
	return chosen
}

// What is "auto" asks the device, not the directory: the nodes of a process whose data is
// on one device get one answer, which is kept until the process ends. Nodes in processes
// of their own measure each for itself; the rule of clearlyFaster makes them agree unless
// the device's preference is close to its limits. Who must be sure names the way.

// The measurement writes one page after the other in each way, in turns, at least probeMin
// times and then until probeTime is over or it has been probeMax times: 0.1 s on a disk
// that takes 100 µs for one. Fewer would see one phase of a disk whose speed swings, and
// would stay in the processor's cache, which flatters the page cache: over a quarter of
// these pages it took 1.1 to 1.2 times as long as a direct write, over all 1.2 to 1.4 times.
const (
	probeMin  = 16
	probeMax  = 256
	probeTime = 300 * time.Millisecond
)

// probeName is the file to measure a way with. One for all would be in the page cache for
// some and have to be thrown out for the others.
func (w way) probeName() string { return w.io + ".probe" }

// probeNames are all of them. What a process leaves that is killed while it measures, the
// next Open removes.
var probeNames = []string{way{io: "buffered"}.probeName(), way{io: "direct"}.probeName()}

// Where two ways are close, the choice would be noise, and one run of a benchmark would
// differ from the next.
const (
	clearSigma  = 3   // standard deviations above half of the pairs: by chance once in 700 times
	clearMargin = 0.9 // of the median
)

// devices remembers what was measured, by device.
var devices struct {
	sync.Mutex
	found map[uint64]preference
}

// preference is what was measured on a device.
type preference struct {
	noDirect error  // why it takes no direct writes; nil if it does
	io       string // the better one
	sync     map[string]string
}

// choose puts what the disk of a directory prefers in place of "auto". An error says
// that the disk takes no direct writes, or what could not be done.
func choose(dir string, w way) (way, error) {
	if w.io == "buffered" && w.sync != "auto" {
		return w, nil
	}
	p, err := preferred(dir)
	switch {
	case err != nil:
		return w, fmt.Errorf("try the ways to write: %w", err)
	case w.io == "direct" && p.noDirect != nil:
		return w, fmt.Errorf("io=direct, but writes past the page cache do not work here (use io=buffered): %w", p.noDirect)
	}
	if w.io == "auto" {
		w.io = p.io
	}
	if w.sync == "auto" {
		w.sync = p.sync[w.io]
	}
	return w, nil
}

// preferred is the preference of the device that a directory is on.
func preferred(dir string) (preference, error) {
	device, err := deviceOf(dir)
	if err != nil {
		return preference{}, err
	}
	// Held while measuring: a second node waits for the answer of the first, and
	// does not disturb it.
	devices.Lock()
	defer devices.Unlock()
	if p, ok := devices.found[device]; ok {
		return p, nil
	}
	p, err := measure(dir)
	if err != nil {
		return preference{}, err
	}
	if devices.found == nil {
		devices.found = map[uint64]preference{}
	}
	devices.found[device] = p
	return p, nil
}

func deviceOf(dir string) (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Stat(dir, &stat); err != nil {
		return 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return uint64(stat.Dev), nil
}

// measure finds out which way to make a small overwrite durable the disk prefers.
func measure(dir string) (p preference, err error) {
	ways := []way{{"buffered", "fdatasync"}, {"buffered", "dsync"}, {"direct", "fdatasync"}, {"direct", "dsync"}}
	var files []file
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.close())
		}
		for _, name := range probeNames {
			if e := os.Remove(filepath.Join(dir, name)); !errors.Is(e, os.ErrNotExist) {
				err = errors.Join(err, e)
			}
		}
	}()
	for _, w := range ways {
		f, err := tryWay(dir, w)
		if err != nil && w.io == "direct" {
			p.noDirect = err
			break
		}
		if err != nil {
			return p, err
		}
		files = append(files, f)
	}
	page := alignedBytes(pageBytes)
	took := make([][]time.Duration, len(ways))
	for n, begin := 0, time.Now(); n < probeMin || n < probeMax && time.Since(begin) < probeTime; n++ {
		for i, f := range files {
			off := int64(2*n+i%2) * pageBytes // the two ways of an io share a file
			start := time.Now()
			if err := f.writeSync(page, off); err != nil {
				return p, fmt.Errorf("io=%s, sync=%s: %w", ways[i].io, ways[i].sync, err)
			}
			took[i] = append(took[i], time.Since(start))
		}
	}
	p.decide(took)
	return p, nil
}

// decide takes the times of the four ways, in pairs: buffered with fdatasync and dsync,
// and direct with both, unless the disk does not take it. Where it does, dsync saves a
// system call, and a device that can make a single write durable its flush.
func (p *preference) decide(took [][]time.Duration) {
	p.io, p.sync = "buffered", map[string]string{"buffered": "fdatasync", "direct": "dsync"}
	if clearlyFaster(took[1], took[0]) {
		p.sync["buffered"] = "dsync"
	}
	if p.noDirect != nil {
		return
	}
	if clearlyFaster(took[2], took[0]) {
		p.io = "direct"
	}
	if clearlyFaster(took[2], took[3]) {
		p.sync["direct"] = "fdatasync"
	}
}

// tryWay opens the file to measure with, and writes all of it once.
func tryWay(dir string, w way) (file, error) {
	if w.io == "direct" && oDirect == 0 {
		return nil, errors.New("this system has no O_DIRECT")
	}
	f, err := (&osDisk{dir: dir, way: w}).open(w.probeName())
	if err != nil {
		return nil, err
	}
	for off := int64(0); off < 2*probeMax*pageBytes; off += fillChunk {
		if err := f.writeSync(zeros, off); err != nil {
			return nil, errors.Join(err, f.close())
		}
	}
	return f, nil
}

// clearlyFaster reports whether a is, by the times of pairs: it wins more of them than
// equals would by chance (the sign test; of n pairs equals win n/2 ± √n/2), and by a margin
// that is worth a choice.
func clearlyFaster(a, b []time.Duration) bool {
	wins := 0
	for i := range a {
		if a[i] < b[i] {
			wins++
		}
	}
	n := float64(len(a))
	median := func(took []time.Duration) float64 { return float64(slices.Sorted(slices.Values(took))[len(took)/2]) }
	return float64(wins) >= n/2+clearSigma*math.Sqrt(n)/2 && median(a) < clearMargin*median(b)
}
