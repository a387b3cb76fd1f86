package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"
)

// marker is the file by which raftbench knows a directory as its own, and the
// lock against a second run.
const marker = "raftbench.lock"

// minFreePerNode is what one node needs before anything is worth trying: etcd's
// WAL preallocates a segment of 64 MiB, and a second one beside it.
const minFreePerNode = 128 << 20

// Workspace is the directory where the data of a suite goes. It removes what was
// created through it, and nothing else.
type Workspace struct {
	dir     string
	created bool // the directory itself is ours
	keep    bool
	lock    *os.File
	made    []string
}

// OpenWorkspace takes dir, or a new folder below the current directory where dir
// is empty. An input that could never do (a file, somebody else's files, data of
// an earlier run) is a *[UsageError]; a directory that is read-only, full or in
// use is another error. Nothing is left behind after an error.
func OpenWorkspace(dir string, nodes int, keep bool) (*Workspace, error) {
	ws := &Workspace{dir: dir, keep: keep}
	if err := ws.acquire(); err != nil {
		return nil, err
	}
	if err := ws.takeLock(); err != nil {
		if ws.created {
			_ = os.Remove(ws.dir)
		}
		return nil, err
	}
	if err := ws.checkSpace(nodes); err != nil {
		ws.keep = false
		return nil, errors.Join(err, ws.Close())
	}
	return ws, nil
}

func (ws *Workspace) acquire() error {
	if ws.dir == "" {
		dir, err := os.MkdirTemp(".", "raftbench-data-")
		if err != nil {
			return fmt.Errorf("make a data directory below the current one (name another with --dir): %w", err)
		}
		ws.dir, ws.created = dir, true
	} else if info, err := os.Stat(ws.dir); errors.Is(err, os.ErrNotExist) {
		if err := os.Mkdir(ws.dir, 0o755); err != nil {
			return fmt.Errorf("make the data directory: %w", err)
		}
		ws.created = true
	} else if err != nil {
		return fmt.Errorf("data directory: %w", err)
	} else if !info.IsDir() {
		return usage("--dir %s is a file, not a directory", ws.dir)
	}
	abs, err := filepath.Abs(ws.dir)
	if err != nil {
		return fmt.Errorf("data directory %s: %w", ws.dir, err)
	}
	ws.dir = abs
	return nil
}

// takeLock checks that the directory is empty or was emptied by an earlier run,
// and locks it.
func (ws *Workspace) takeLock() error {
	names, err := foreign(ws.dir)
	if err != nil {
		return err
	}
	path := filepath.Join(ws.dir, marker)
	_, statErr := os.Stat(path)
	if len(names) > 0 && statErr != nil {
		return usage("--dir %s is not empty (%s …) and not raftbench's; nothing was touched: name an empty or a new directory", ws.dir, names[0])
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("lock the data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return fmt.Errorf("data directory %s is in use by another raftbench run; wait for it or name another with --dir", ws.dir)
	}
	if names, err = foreign(ws.dir); err != nil || len(names) > 0 {
		_ = f.Close()
		if err != nil {
			return err
		}
		return usage("--dir %s holds data of an earlier run (%s …); remove it or name another directory", ws.dir, names[0])
	}
	ws.lock = f
	return nil
}

// foreign lists what is in dir besides the marker and lost+found.
func foreign(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.Name() != marker && e.Name() != "lost+found" {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (ws *Workspace) checkSpace(nodes int) error {
	var st unix.Statfs_t
	if err := unix.Statfs(ws.dir, &st); err != nil {
		return fmt.Errorf("free space of %s: %w", ws.dir, err)
	}
	free, need := st.Bavail*uint64(st.Bsize), uint64(nodes)*minFreePerNode
	if free < need {
		return fmt.Errorf("data directory %s has %s free, and %d nodes need %s at least: %w",
			ws.dir, humanize.IBytes(free), nodes, humanize.IBytes(need), syscall.ENOSPC)
	}
	return nil
}

// Path is the directory.
func (ws *Workspace) Path() string { return ws.dir }

// Make creates a directory for one run.
func (ws *Workspace) Make(name string) (string, error) {
	dir := filepath.Join(ws.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the run's directory: %w", err)
	}
	ws.made = append(ws.made, dir)
	return dir, nil
}

// Discard removes a directory that Make returned, unless the data is kept.
func (ws *Workspace) Discard(dir string) error {
	if ws.keep {
		return nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the run's data: %w", err)
	}
	return nil
}

// Close removes what was created, unless it is kept, and unlocks the directory.
func (ws *Workspace) Close() error {
	var errs []error
	for _, dir := range ws.made {
		errs = append(errs, ws.Discard(dir))
	}
	if !ws.keep {
		errs = append(errs, os.Remove(filepath.Join(ws.dir, marker)))
		if ws.created {
			errs = append(errs, os.Remove(ws.dir))
		}
	}
	errs = append(errs, ws.lock.Close())
	return errors.Join(errs...)
}

// ScratchDir makes a new folder below parent (the current directory where it is
// empty), which may hold anything, and removes the folder at Close.
func ScratchDir(parent string) (*Workspace, error) {
	if parent == "" {
		parent = "."
	}
	if info, err := os.Stat(parent); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	} else if !info.IsDir() {
		return nil, usage("--dir %s is a file, not a directory", parent)
	}
	dir, err := os.MkdirTemp(parent, "raftbench-data-")
	if err != nil {
		return nil, fmt.Errorf("make a data directory below %s: %w", parent, err)
	}
	ws := &Workspace{dir: dir, created: true}
	if err := ws.takeLock(); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return ws, nil
}
