package pebble

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/raftbench/raftbench/backends/internal/kvlog"
)

// seamFS is the file system under pebble. It reports how long each sync took, and
// lets nothing be changed after the first change that failed: see the package
// comment. Reads go by.
type seamFS struct {
	vfs.FS
	health *kvlog.Health
	onSync func(time.Duration)

	mu   sync.Mutex
	lock io.Closer // pebble's own lock
}

// change makes a change, unless one has failed before. It does not return where
// one has, or where this one fails.
func (s *seamFS) change(what, name string, f func() error) {
	err := s.health.Err()
	if err == nil {
		if err = f(); err == nil {
			return
		}
		err = fmt.Errorf("%s %s: %w", what, name, err)
	}
	park(s.health, err)
}

// sync is change for what must be timed.
func (s *seamFS) sync(name string, f func() error) {
	s.change("sync", name, func() error {
		if s.onSync == nil {
			return f()
		}
		start := time.Now()
		err := f()
		s.onSync(time.Since(start))
		return err
	})
}

func (s *seamFS) open(what, name string, f func() (vfs.File, error)) (vfs.File, error) {
	var file vfs.File
	s.change(what, name, func() (err error) {
		file, err = f()
		return err
	})
	return &seamFile{File: file, fs: s, name: name}, nil
}

func (s *seamFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return s.open("create", name, func() (vfs.File, error) { return s.FS.Create(name, category) })
}

func (s *seamFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return s.open("open", name, func() (vfs.File, error) { return s.FS.OpenReadWrite(name, category, opts...) })
}

func (s *seamFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return s.open("reuse", newname, func() (vfs.File, error) { return s.FS.ReuseForWrite(oldname, newname, category) })
}

// OpenDir changes nothing, but what it returns is for syncing.
func (s *seamFS) OpenDir(name string) (vfs.File, error) {
	f, err := s.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &seamFile{File: f, fs: s, name: name}, nil
}

func (s *seamFS) Rename(oldname, newname string) error {
	s.change("rename", oldname, func() error { return s.FS.Rename(oldname, newname) })
	return nil
}

func (s *seamFS) Link(oldname, newname string) error {
	s.change("link", oldname, func() error { return s.FS.Link(oldname, newname) })
	return nil
}

// Remove may fail: what was to go is superfluous.
func (s *seamFS) Remove(name string) error {
	var err error
	s.change("remove", name, func() error {
		err = s.FS.Remove(name)
		return nil
	})
	return err
}

func (s *seamFS) RemoveAll(name string) error {
	var err error
	s.change("remove", name, func() error {
		err = s.FS.RemoveAll(name)
		return nil
	})
	return err
}

func (s *seamFS) Lock(name string) (io.Closer, error) {
	l, err := s.FS.Lock(name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lock = l
	return closerFunc(s.unlock), nil
}

// unlock gives back pebble's lock, once.
func (s *seamFS) unlock() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return nil
	}
	l := s.lock
	s.lock = nil
	return l.Close()
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }

func (s *seamFS) Unwrap() vfs.FS { return s.FS }

// seamFile is a file that is written, or a directory that is synced.
type seamFile struct {
	vfs.File
	fs   *seamFS
	name string
}

func (f *seamFile) Write(b []byte) (n int, err error) {
	f.fs.change("write", f.name, func() error {
		n, err = f.File.Write(b)
		return err
	})
	return n, nil
}

func (f *seamFile) WriteAt(b []byte, off int64) (n int, err error) {
	f.fs.change("write", f.name, func() error {
		n, err = f.File.WriteAt(b, off)
		return err
	})
	return n, nil
}

func (f *seamFile) Sync() error {
	f.fs.sync(f.name, f.File.Sync)
	return nil
}

func (f *seamFile) SyncData() error {
	f.fs.sync(f.name, f.File.SyncData)
	return nil
}

// SyncTo is a sync where the file system knows only whole ones, and else only
// starts the write-back.
func (f *seamFile) SyncTo(length int64) (full bool, err error) {
	start := time.Now()
	f.fs.change("sync", f.name, func() error {
		full, err = f.File.SyncTo(length)
		return err
	})
	if full && f.fs.onSync != nil {
		f.fs.onSync(time.Since(start))
	}
	return full, nil
}
