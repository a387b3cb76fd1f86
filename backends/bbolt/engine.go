package bbolt

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"

	bolt "go.etcd.io/bbolt"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/kvlog"
)

var bucketName = []byte("raft")

// engine is the bucket as kvlog needs it.
type engine struct {
	db        *bolt.DB
	file      *os.File // that db uses
	path      string
	fill      float64
	snapFiles bool
	panicked  atomic.Bool
	release   func() error // the lock on the directory; nil until it is ours
}

// guard turns a panic of bbolt, or a fault on the mapped file, into an error.
func (e *engine) guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			e.panicked.Store(true)
			err = &backends.DamageError{File: e.path, Err: fmt.Errorf("bbolt panics: %v", r)}
		}
	}()
	return f()
}

// Commit always syncs: see the package comment.
func (e *engine) Commit(ops []kvlog.Op, _ bool) error {
	return e.guard(func() error {
		return e.db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketName)
			if b == nil {
				return &backends.DamageError{File: e.path, Err: errNoBucket}
			}
			b.FillPercent = e.fill
			for _, op := range ops {
				var err error
				if op.Value != nil {
					err = b.Put(op.Key, op.Value)
				} else {
					err = b.Delete(op.Key)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
}

var errNoBucket = fmt.Errorf("there is no bucket %q", bucketName)

func (e *engine) Iterate(lo, hi []byte, f func(key, value []byte) error) error {
	return e.guard(func() error {
		return e.db.View(func(tx *bolt.Tx) error {
			b := tx.Bucket(bucketName)
			if b == nil {
				return &backends.DamageError{File: e.path, Err: errNoBucket}
			}
			c := b.Cursor()
			for k, v := c.Seek(lo); k != nil && bytes.Compare(k, hi) < 0; k, v = c.Next() {
				if v == nil {
					return &backends.DamageError{File: e.path, Err: fmt.Errorf("key %q: it is a bucket", k)}
				}
				if err := f(k, v); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// Sync has nothing to do: every Commit syncs.
func (e *engine) Sync() error { return nil }

// Close after a panic gives back the file and leaves the mapping to the end of the
// process: bbolt's own Close may hang on a mutex that the panic left locked. The
// mapping keeps the open file alive, and bbolt's lock with it, so that the lock
// must go by hand.
func (e *engine) Close() error {
	var err error
	if e.panicked.Load() {
		err = errors.Join(syscall.Flock(int(e.file.Fd()), syscall.LOCK_UN), e.file.Close())
	} else {
		err = e.db.Close()
	}
	if e.release != nil {
		err = errors.Join(err, e.release())
	}
	return err
}
