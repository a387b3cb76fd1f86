package raw

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/xxh3"
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
// on one device get one answer, which is kept until the process ends, and longer by the
// log: the headers of its segments hold it (format.go). A process that opens a log again takes
// what it finds there, so that its Open is the log's replay and nothing else, and so that a
// restart writes as what was measured before it did. A file beside the log would do as well,
// and would be one more to keep whole. What the headers say is a preference: were it wrong, the
// log would be slower, not less durable. So it is not asked for again as long as the log stays
// on its file system, and is where the log was moved to another one.
//
// Nodes in processes of their own measure each for itself when their logs are new; the rule of
// clearlyFaster makes them agree unless the device's preference is close to its limits. Who
// must be sure names the way.

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
	found map[uint64]measured
}

// measured is what is known of a device. The zero value is nothing.
type measured struct {
	device uint64 // which one, by deviceOf
	io     string // the better one
	// buffered and direct are the better sync of either io; direct is empty where the device
	// takes no direct writes.
	buffered, direct string
}

// answers reports whether nothing of w is left to measure.
func (m measured) answers(w way) bool {
	if w.io == "auto" || w.sync == "auto" {
		return m.io != "" && (w.io != "direct" || m.direct != "")
	}
	return true
}

// choose puts what the disk of a directory prefers in place of "auto", and returns what is
// known of it, which the headers of the log keep. An error says that the disk takes no direct
// writes, or what could not be done.
func choose(dir string, w way) (way, measured, error) {
	m, err := known(dir, w)
	if err != nil {
		return w, m, fmt.Errorf("try the ways to write: %w", err)
	}
	if w.io == "auto" {
		w.io = m.io
	}
	if w.io == "direct" && m.direct == "" {
		if err := tryDirect(dir); err != nil {
			return w, m, fmt.Errorf("io=direct, but writes past the page cache do not work here (use io=buffered): %w", err)
		}
	}
	if w.sync == "auto" {
		w.sync = m.buffered
		if w.io == "direct" {
			w.sync = cmp.Or(m.direct, directSync)
		}
	}
	return w, m, nil
}

// known is what this process has measured of the device that a directory is on, or an earlier
// one for the log in it. It measures where neither answers w.
func known(dir string, w way) (measured, error) {
	device, err := deviceOf(dir)
	if err != nil {
		return measured{}, err
	}
	// Held while measuring: a second node waits for the answer of the first, and
	// does not disturb it.
	devices.Lock()
	defer devices.Unlock()
	m, ok := devices.found[device]
	if !ok {
		if m, err = remembered(dir, device); err != nil {
			return measured{}, err
		}
	}
	if !m.answers(w) {
		if m, err = measure(dir); err != nil {
			return measured{}, err
		}
		m.device = device
	}
	if m != (measured{}) {
		if devices.found == nil {
			devices.found = map[uint64]measured{}
		}
		devices.found[device] = m
	}
	return m, nil
}

// deviceOf tells devices apart: by their number and, since another machine may give the same
// to another disk, by the identity of the file system on it.
func deviceOf(dir string) (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Stat(dir, &stat); err != nil {
		return 0, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	id, err := fileSystemID(dir)
	if err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return xxh3.HashString(fmt.Sprint(stat.Dev, " ", id)), nil
}

// remembered is what the newest header of the log in a directory that says something about
// the device says; nothing where none does, or where the device takes no direct writes and
// should.
func remembered(dir string, device uint64) (measured, error) {
	d := &osDisk{dir: dir}
	names, err := d.list()
	if err != nil {
		return measured{}, err
	}
	slices.Sort(names)
	for _, name := range slices.Backward(names) {
		n, ok := parseName(name, segmentSuffix)
		if !ok {
			continue
		}
		b, err := d.read(name, headerSize)
		if err != nil {
			return measured{}, err
		}
		h, ok := decodeHeader(b)
		if !ok || h.number != n || h.measured == (measured{}) || h.measured.device != device {
			continue
		}
		if h.measured.direct != "" {
			// Nothing is measured, but what is not possible is not chosen.
			f, err := (&osDisk{dir: dir, way: way{io: "direct"}}).open(name)
			if notTaken(err) {
				continue
			}
			if err == nil {
				err = f.close()
			}
			if err != nil {
				return measured{}, err
			}
		}
		return h.measured, nil
	}
	return measured{}, nil
}

// measure finds out which way to make a small overwrite durable the disk prefers.
func measure(dir string) (m measured, err error) {
	ways := []way{{"buffered", "fdatasync"}, {"buffered", "dsync"}, {"direct", "fdatasync"}, {"direct", "dsync"}}
	var files []file
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.close())
		}
		err = errors.Join(err, removeProbes(dir))
	}()
	for _, w := range ways {
		f, err := tryWay(dir, w, 2*probeMax*pageBytes)
		if w.io == "direct" && notTaken(err) {
			break
		}
		if err != nil {
			return m, err
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
				return m, fmt.Errorf("io=%s, sync=%s: %w", ways[i].io, ways[i].sync, err)
			}
			took[i] = append(took[i], time.Since(start))
		}
	}
	return decide(took[:len(files)]), nil
}

// removeProbes removes what is there of the files to measure with.
func removeProbes(dir string) (err error) {
	for _, name := range probeNames {
		if e := os.Remove(filepath.Join(dir, name)); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// directSync is how a direct write is made durable unless the other way is clearly faster:
// dsync saves a system call, and a device that can make a single write durable its flush.
const directSync = "dsync"

// decide takes the times of the four ways, in pairs: buffered with fdatasync and dsync,
// and direct with both, unless the disk does not take it.
func decide(took [][]time.Duration) measured {
	m := measured{io: "buffered", buffered: "fdatasync"}
	if clearlyFaster(took[1], took[0]) {
		m.buffered = "dsync"
	}
	if len(took) == 2 {
		return m
	}
	m.direct = directSync
	if clearlyFaster(took[2], took[0]) {
		m.io = "direct"
	}
	if clearlyFaster(took[2], took[3]) {
		m.direct = "fdatasync"
	}
	return m
}

// tryDirect says why the disk takes no direct write, of one page; nil if it does.
func tryDirect(dir string) error {
	f, err := tryWay(dir, way{"direct", directSync}, pageBytes)
	if err == nil {
		err = f.close()
	}
	return errors.Join(err, removeProbes(dir))
}

var errNoDirect = errors.New("this system has no O_DIRECT")

// notTaken reports whether err says that the system or the file system takes no direct
// writes. Any other error is none of its properties.
func notTaken(err error) bool {
	return errors.Is(err, errNoDirect) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)
}

// tryWay opens the file to measure with, and writes all of its size once.
func tryWay(dir string, w way, size int64) (file, error) {
	if w.io == "direct" && oDirect == 0 {
		return nil, errNoDirect
	}
	f, err := (&osDisk{dir: dir, way: w}).open(w.probeName())
	if err != nil {
		return nil, err
	}
	for off := int64(0); off < size; off += fillChunk {
		if err := f.writeSync(zeros[:min(fillChunk, size-off)], off); err != nil {
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
