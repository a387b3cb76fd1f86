// Package dirlock keeps two storages from opening one directory.
//
// The lock is flock(2) on a file named LOCK: it ends with the process, however
// that ends, so a crash leaves nothing to clean up, and it holds between two
// opens of one process as well as between two processes.
package dirlock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/raftbench/raftbench/backends"
)

// FileName is the name of the lock file. It stays behind when the lock is
// released: removing it would let two openers lock two different files.
const FileName = "LOCK"

// Lock locks dir, which must exist, without waiting. Where another Lock has it,
// the error wraps [backends.ErrLocked]. The lock is held until release is called;
// a second call of release does nothing.
func Lock(dir string) (release func() error, err error) {
	path := filepath.Join(dir, FileName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock file: %w", err)
	}
	if err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", dir, backends.ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	released := false
	return func() error {
		if released {
			return nil
		}
		released = true
		// Unlock before closing: a child process that was forked at this moment
		// and has not yet called exec holds a copy of the descriptor, and closing
		// ours alone would leave the directory locked until it does.
		if err := flock(f, syscall.LOCK_UN); err != nil {
			f.Close()
			return fmt.Errorf("unlock %s: %w", path, err)
		}
		return f.Close()
	}, nil
}

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
