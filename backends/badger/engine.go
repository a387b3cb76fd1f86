package badger

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/kvlog"
)

const (
	// closeLimit is how long Close waits for a badger that has failed.
	closeLimit = 5 * time.Second
	// garbageRatio is the part of a value log file that must be garbage for it to
	// be rewritten; badger recommends it.
	garbageRatio = 0.5
)

// engine is a badger.DB as kvlog needs it.
type engine struct {
	db        *badger.DB
	dir       string
	health    *kvlog.Health
	space     space
	names     names
	snapFiles bool
	release   func() error // the lock on the directory; nil until it is ours

	collecting atomic.Bool
	collectors sync.WaitGroup
}

func openEngine(dir string, o badger.Options) (*engine, error) {
	e := &engine{dir: dir, health: kvlog.NewHealth(), space: newSpace(dir, o), names: names{dir: dir}}
	if err := e.space.check(0); err != nil {
		return nil, err
	}
	if err := prepare(dir, o); err != nil {
		return nil, openError(dir, err)
	}
	o.Dir, o.ValueDir = dir, dir
	o.Logger = logger{e.health}
	opened := false
	err := e.health.Run(func() (err error) {
		e.db, err = badger.Open(o)
		opened = err == nil
		return err
	})
	if err == nil {
		err = e.names.sync()
	}
	if err == nil {
		return e, nil
	}
	if opened {
		err = errors.Join(err, e.health.Close(closeLimit, e.db.Close))
	}
	return nil, openError(dir, err)
}

// openError says which errors are the system's. badger loses the kind of most
// errors on the way and keeps only their text. What is none of the system's is
// damage.
func openError(dir string, err error) error {
	if errors.As(err, new(*backends.DamageError)) {
		return err
	}
	if err = withErrno(err); errors.As(err, new(syscall.Errno)) {
		return fmt.Errorf("open badger in %s: %w", dir, err)
	}
	return &backends.DamageError{File: dir, Err: err}
}

// errnos are what a disk or a system that fails says.
var errnos = []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EACCES, syscall.EPERM,
	syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOTDIR, syscall.EFBIG}

// withErrno gives an error its kind back.
func withErrno(err error) error {
	if err == nil || errors.As(err, new(syscall.Errno)) {
		return err
	}
	for _, errno := range errnos {
		if strings.Contains(err.Error(), errno.Error()) {
			return &errnoError{err, errno}
		}
	}
	return err
}

// errnoError has the text of one error and the kind of another.
type errnoError struct {
	error
	errno syscall.Errno
}

func (e *errnoError) Unwrap() error { return e.errno }

// Commit always syncs: see the package comment.
func (e *engine) Commit(ops []kvlog.Op, _ bool) error {
	size := 0
	for _, op := range ops {
		size += len(op.Key) + len(op.Value)
	}
	if err := e.space.check(int64(size)); err != nil {
		return err
	}
	txn := e.db.NewTransaction(true)
	for _, op := range ops {
		var err error
		if op.Value != nil {
			err = txn.Set(op.Key, op.Value)
		} else {
			err = txn.Delete(op.Key)
		}
		if err != nil {
			txn.Discard()
			return err
		}
	}
	if err := e.health.Run(txn.Commit); err != nil {
		return withErrno(err)
	}
	return e.names.sync()
}

// Iterate reads keys and values in one go: a prefetch would start a goroutine for
// every entry.
func (e *engine) Iterate(lo, hi []byte, f func(key, value []byte) error) error {
	err := guard(e.dir, func() error {
		txn := e.db.NewTransaction(false)
		defer txn.Discard()
		o := badger.DefaultIteratorOptions
		o.PrefetchValues = false
		o.Prefix = lo[:1]
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Seek(lo); it.Valid(); it.Next() {
			item := it.Item()
			key := item.Key()
			if bytes.Compare(key, hi) >= 0 {
				break
			}
			if err := item.Value(func(value []byte) error { return f(key, value) }); err != nil {
				return err
			}
		}
		return nil
	})
	if failed := e.health.Err(); failed != nil {
		err = failed // badger logs what it cannot read, and goes on without it
	}
	return withErrno(err)
}

// Sync has nothing to do: every Commit syncs.
func (e *engine) Sync() error { return nil }

// Close keeps the lock of a badger that does not close: it might still write. A flush
// that fails within badger's own Close is tried again for ever, too.
func (e *engine) Close() error {
	err := e.health.Close(closeLimit, e.db.Close)
	if errors.Is(err, kvlog.ErrNotClosed) {
		return err
	}
	e.collectors.Wait()
	if e.release != nil {
		err = errors.Join(err, e.release())
	}
	return err
}

// collectGarbage rewrites files of the value log that are mostly garbage, in the
// background and one after the other. There are none where no value reached the
// value log. Closing badger ends it.
func (e *engine) collectGarbage() {
	if !e.collecting.CompareAndSwap(false, true) {
		return
	}
	e.collectors.Go(func() {
		defer e.collecting.Store(false)
		for e.health.Err() == nil {
			if err := e.db.RunValueLogGC(garbageRatio); err != nil {
				return // badger.ErrNoRewrite, or it is being closed
			}
		}
	})
}

// logger takes what badger only logs about failures as failures.
type logger struct{ health *kvlog.Health }

// Errorf is called for failed syncs and flushes, and for data that cannot be
// read.
func (l logger) Errorf(format string, args ...any) {
	l.health.Fail(withErrno(errors.New(strings.TrimSpace(fmt.Sprintf(format, args...)))))
}

// Warningf is called for failed compactions, and for remarks about the cache.
func (l logger) Warningf(format string, args ...any) {
	for _, failure := range []string{"Compact FAILED", "doCompact", "running compact def", "compacting level 0"} {
		if strings.Contains(format, failure) {
			l.Errorf(format, args...)
		}
	}
}

func (logger) Infof(string, ...any)  {}
func (logger) Debugf(string, ...any) {}
