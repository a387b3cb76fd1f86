package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/reports"
)

// outDir is the directory of the results. It is locked: two suites would write over each
// other. What an earlier suite left there is never written over, but set aside.
type outDir struct {
	path    string
	made    []string       // directories that were made for it, the innermost first
	lock    *os.File       // the directory; a lock on a file in it would be one more thing to leave behind
	earlier *result.Result // a result that is there and is not the one that is written
	log     io.Writer      // hears what was set aside
}

// resultFiles are what a suite leaves. The result is the last, so that it is there as long
// as anything of it is.
var resultFiles = []string{reports.BenchFile, reports.RunsFile, reports.ReportFile, reports.ResultFile}

// defaultOut is where results go that no --out names.
const defaultOut = "raftbench-out"

// openOut makes and locks the directory, so that a suite does not run for an hour only to
// find that it cannot be written. Nothing is left behind after an error.
func openOut(path string, log io.Writer) (*outDir, error) {
	if path == "" {
		path = filepath.Join(defaultOut, time.Now().UTC().Format("20060102T150405Z"))
	}
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return nil, usageErrorf("--out %s is a file, not a directory", path)
	}
	o := &outDir{path: path, log: log}
	err := o.make()
	if err == nil {
		err = o.acquire()
	}
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

func (o *outDir) make() error {
	for dir := filepath.Clean(o.path); ; dir = filepath.Dir(dir) {
		if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		o.made = append(o.made, dir)
	}
	if err := os.MkdirAll(o.path, 0o755); err != nil {
		return fmt.Errorf("make the directory of the results: %w", err)
	}
	probe, err := os.CreateTemp(o.path, ".writable-")
	if err != nil {
		return fmt.Errorf("write to the directory of the results: %w", err)
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}

// acquire locks the directory until this process ends, however it does.
func (o *outDir) acquire() error {
	dir, err := os.Open(o.path)
	if err != nil {
		return fmt.Errorf("lock the directory of the results: %w", err)
	}
	o.lock = dir
	switch err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return fmt.Errorf("--out %s is in use by another raftbench run%s; wait for it or name another directory", o.path, holder(dir))
	case err != nil:
		return fmt.Errorf("lock the directory of the results %s: %w", o.path, err)
	}
	return nil
}

// holder names the process that has the lock of a file, if the kernel tells.
func holder(f *os.File) string {
	var st unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err != nil || unix.Fstat(int(f.Fd()), &st) != nil {
		return ""
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
	for line := range strings.Lines(string(locks)) {
		// 1: FLOCK  ADVISORY  WRITE 4711 fd:00:1837 0 EOF
		if w := strings.Fields(line); len(w) > 5 && w[1] == "FLOCK" && w[5] == file && w[4] > "0" { // 0, or negative, from another PID namespace
			return " (process " + w[4] + ")"
		}
	}
	return ""
}

// take looks at what is there. It returns the result that the suite goes on with: that
// of resume, or an interrupted one; nil where it starts anew.
func (o *outDir) take(resume string) (old *result.Result, err error) {
	there, err := o.found()
	if err != nil {
		return nil, err
	}
	if resume != "" {
		if old, err = reports.Read(resume); err != nil {
			return nil, err
		}
	} else if there != nil && there.Interrupted {
		old = there
	}
	if there != nil && (old == nil || old.ID != there.ID) {
		o.earlier = there
	}
	return old, nil
}

// found reads the result that is there, nil if there is none. Files that have the names of
// a result's and are none are somebody else's.
func (o *outDir) found() (*result.Result, error) {
	for _, name := range resultFiles {
		if _, err := os.Lstat(filepath.Join(o.path, name)); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("directory of the results: %w", err)
		}
		there, err := reports.Read(o.path)
		if err != nil {
			return nil, usageErrorf("--out %s holds %s, and no result that could be set aside: %v; nothing was touched: name another directory", o.path, name, err)
		}
		return there, nil
	}
	return nil, nil
}

// setAside moves an earlier result into a directory of its own below this one, from where
// report, compare and --resume read it. It does so once, when there is something to put
// in its place.
func (o *outDir) setAside() error {
	if o.earlier == nil {
		return nil
	}
	aside, err := o.makeAside()
	if err != nil {
		return err
	}
	for _, name := range resultFiles {
		if err := os.Rename(filepath.Join(o.path, name), filepath.Join(aside, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set the earlier result aside: %w", err)
		}
	}
	fmt.Fprintf(o.log, "the earlier result in %s is now in %s\n", o.path, aside)
	o.earlier = nil
	return nil
}

// makeAside makes the directory that receives the earlier result, named for its start.
func (o *outDir) makeAside() (string, error) {
	base := filepath.Join(o.path, "earlier-"+o.earlier.Started.UTC().Format("20060102T150405Z"))
	dir := base
	for n := 2; ; n++ {
		err := os.Mkdir(dir, 0o755)
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("set the earlier result aside: %w", err)
		}
		dir = fmt.Sprintf("%s-%d", base, n)
	}
}

// checkpoint writes what is finished so far.
func (o *outDir) checkpoint(part *result.Result) error {
	if err := o.setAside(); err != nil {
		return err
	}
	return reports.WriteFile(filepath.Join(o.path, reports.ResultFile), func(w io.Writer) error { return reports.JSON(w, part) })
}

// write writes the result and its reports.
func (o *outDir) write(res *result.Result) error {
	if err := o.setAside(); err != nil {
		return err
	}
	return reports.Write(o.path, res)
}

// Close unlocks the directory, and removes it, and those around it, where it was made and
// nothing was written to it.
func (o *outDir) Close() error {
	for _, dir := range o.made {
		if err := os.Remove(dir); err != nil {
			break // there is a result, or another's
		}
	}
	if o.lock == nil {
		return nil
	}
	return o.lock.Close()
}
