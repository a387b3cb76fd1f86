package pebble

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/raftbench/raftbench/backends/internal/kvlog"
)

// engine is a pebble.DB as kvlog needs it.
type engine struct {
	db        atomic.Pointer[pebble.DB]
	fs        *seamFS
	health    *kvlog.Health
	snapFiles bool
	release   func() error // the lock on the directory
}

// batchOverhead bounds what pebble adds to an operation: its kind and two lengths.
const batchOverhead = 1 + 2*5

func (e *engine) Commit(ops []kvlog.Op, sync bool) error {
	size := 0
	for _, op := range ops {
		size += len(op.Key) + len(op.Value) + len(op.End) + batchOverhead
	}
	b := e.db.Load().NewBatchWithSize(size)
	for _, op := range ops {
		var err error
		switch {
		case op.Value != nil:
			err = b.Set(op.Key, op.Value, nil)
		case op.End != nil:
			err = b.DeleteRange(op.Key, op.End, nil)
		default:
			err = b.Delete(op.Key, nil)
		}
		if err != nil {
			return errors.Join(err, b.Close())
		}
	}
	opts := pebble.NoSync
	if sync {
		opts = pebble.Sync
	}
	if err := e.health.Run(func() error { return b.Commit(opts) }); err != nil {
		return err // and pebble may still have the batch
	}
	return b.Close()
}

func (e *engine) Iterate(lo, hi []byte, f func(key, value []byte) error) error {
	return e.health.Run(func() error {
		it, err := e.db.Load().NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi})
		if err != nil {
			return err
		}
		for ok := it.First(); ok; ok = it.Next() {
			v, err := it.ValueAndErr()
			if err == nil {
				err = f(it.Key(), v)
			}
			if err != nil {
				return errors.Join(err, it.Close())
			}
		}
		return it.Close()
	})
}

func (e *engine) Sync() error {
	return e.health.Run(func() error { return e.db.Load().LogData(nil, pebble.Sync) })
}

func (e *engine) Close() error {
	if e.health.Err() != nil {
		return e.giveUp()
	}
	if err := e.health.Run(e.db.Load().Close); err != nil {
		return errors.Join(err, e.giveUp())
	}
	return e.release()
}

// giveUp leaves a DB that has failed, or was never opened, as it is, and gives
// back the locks: nothing changes the directory any more.
func (e *engine) giveUp() error {
	e.health.Fail(errors.New("pebble was given up"))
	return errors.Join(e.fs.unlock(), e.release())
}

// logger is quiet, and does not end the process.
type logger struct{ health *kvlog.Health }

func (logger) Infof(string, ...any)  {}
func (logger) Errorf(string, ...any) {}

// Fatalf does not return: pebble's callers count on that.
func (l logger) Fatalf(format string, args ...any) {
	park(l.health, fmt.Errorf(format, args...))
}

// listener stops pebble at the first error of a flush or a compaction. It is
// called with pebble's mutex held, which stops the rest of it.
func listener(h *kvlog.Health) *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) { park(h, fmt.Errorf("in the background: %w", err)) },
		// The read that found it returns an error, too.
		DataCorruption: func(pebble.DataCorruptionInfo) {},
	}
}

// park takes note of an error and never returns.
func park(h *kvlog.Health, err error) {
	h.Fail(err)
	select {}
}
