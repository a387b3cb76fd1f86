package raw

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// sync=auto asks the device, not the directory: the nodes of a process whose data
// is on one device get one answer, which is kept until the process ends. Nodes in
// processes of their own measure each for itself; the rule of decide makes them
// agree unless the device has a clear preference that shows in one measurement
// and not in the other. Who must be sure names the mode.

// probeWrites and probeBytes bound what the measurement may cost: two times 16
// writes of a page, 5 ms on a disk that takes 150 µs for one.
const (
	probeWrites = 16
	probeBytes  = 4096
	probeName   = "sync.probe"
)

// Where the two are close, the choice would be noise, and one run of a benchmark
// would differ from the next: dsync must be faster in at least dsyncWins of 16
// pairs (by chance once in 500 times) and by a quarter in the median.
const (
	dsyncWins   = 14
	dsyncMargin = 0.75
)

// devices remembers what was decided, by device.
var devices struct {
	sync.Mutex
	mode map[uint64]string
}

// preferredSync is the mode that sync=auto means in a directory.
func preferredSync(dir string) (mode string, err error) {
	fi, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	stat, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return fasterSync(dir)
	}
	// Held while measuring: a second node waits for the answer of the first, and
	// does not disturb it.
	devices.Lock()
	defer devices.Unlock()
	device := uint64(stat.Dev)
	if mode, ok := devices.mode[device]; ok {
		return mode, nil
	}
	if mode, err = fasterSync(dir); err != nil {
		return "", err
	}
	if devices.mode == nil {
		devices.mode = map[uint64]string{}
	}
	devices.mode[device] = mode
	return mode, nil
}

// fasterSync measures which way to make a small overwrite durable the disk
// prefers.
func fasterSync(dir string) (mode string, err error) {
	name := filepath.Join(dir, probeName)
	defer func() { err = errors.Join(err, os.Remove(name)) }()
	modes := [2]string{"fdatasync", "dsync"}
	var files [2]file
	for i, mode := range modes {
		d := &osDisk{dir: dir, mode: mode}
		f, err := d.open(probeName)
		if err != nil {
			return "", err
		}
		defer f.close()
		files[i] = f
	}
	page := make([]byte, probeBytes)
	if err := files[0].writeSync(page, 0); err != nil {
		return "", err
	}
	var took [2][probeWrites]time.Duration
	for n := range probeWrites {
		for i := range modes {
			start := time.Now()
			if err := files[i].writeSync(page, 0); err != nil {
				return "", fmt.Errorf("measure %s: %w", modes[i], err)
			}
			took[i][n] = time.Since(start)
		}
	}
	return decide(took[0][:], took[1][:]), nil
}

// decide takes the times of fdatasync and of O_DSYNC, in pairs.
func decide(fdatasync, dsync []time.Duration) string {
	wins := 0
	for i := range dsync {
		if dsync[i] < fdatasync[i] {
			wins++
		}
	}
	median := func(took []time.Duration) float64 { return float64(slices.Sorted(slices.Values(took))[len(took)/2]) }
	if wins >= dsyncWins && median(dsync) < dsyncMargin*median(fdatasync) {
		return "dsync"
	}
	return "fdatasync"
}
