package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Reclaim removes what a killed process left in its data directory: the
// directories of runs, and the data directory itself where raftbench made it up. A
// directory that is not raftbench's, that is gone, or that another process uses is
// left alone. It is not for data that was to be kept.
func Reclaim(dir string) error {
	if dir == "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, marker)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	lock, free, err := tryLock(filepath.Join(dir, marker))
	if err != nil || !free {
		return err
	}
	defer lock.Close()
	names, err := foreign(dir)
	if err != nil {
		return err
	}
	var errs []error
	others := 0
	for _, name := range names {
		if !strings.HasPrefix(name, runPrefix) && !strings.HasPrefix(name, floorPrefix) {
			others++
			continue
		}
		errs = append(errs, removeInUse(filepath.Join(dir, name)))
	}
	if others == 0 && strings.HasPrefix(filepath.Base(dir), madeUpPrefix) {
		errs = append(errs, os.Remove(filepath.Join(dir, marker)), os.Remove(dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove what an interrupted run left: %w", err)
	}
	return nil
}

// Beginnings of the names of what a workspace holds, and of a data directory that
// nobody named.
const (
	runPrefix    = "run-"
	floorPrefix  = ".raftbench-disk-" // of package disk
	madeUpPrefix = "raftbench-data-"
)

// reclaimPatience is how long a process may go on after its parent was killed.
const reclaimPatience = 30 * time.Second

// removeInUse removes a directory that a process may still write to, which is
// about to end.
func removeInUse(path string) error {
	for deadline := time.Now().Add(reclaimPatience); ; time.Sleep(50 * time.Millisecond) {
		err := os.RemoveAll(path)
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// tryLock takes the lock of a data directory; free is false where another process
// has it.
func tryLock(path string) (lock *os.File, free bool, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0o644)
	if err != nil {
		return nil, false, fmt.Errorf("lock a data directory: %w", err)
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil, false, f.Close()
	}
	return f, true, nil
}
