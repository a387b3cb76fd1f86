package kvlog

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// fakeEngine is an ordered map that remembers every batch, so that a test can ask
// what a crash after any of them leaves.
type fakeEngine struct {
	cfg Config

	mu      sync.Mutex
	kv      map[string][]byte
	batches []fakeBatch
	syncs   int // calls of Sync
	closed  int
	calls   int // of Commit and Sync
	failAt  int // the call that fails, from 1; 0 is never
	useless int // deletions of what is not there
}

type fakeBatch struct {
	ops   []Op
	sync  bool
	files map[string]string // in cfg.SnapDir, just before
}

var errInjected = errors.New("injected: input/output error")

func newFake(cfg Config) *fakeEngine {
	return &fakeEngine{cfg: cfg, kv: map[string][]byte{}}
}

func cloneOp(op Op) Op {
	return Op{Key: bytes.Clone(op.Key), Value: bytes.Clone(op.Value), End: bytes.Clone(op.End)}
}

func (e *fakeEngine) Commit(ops []Op, sync bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.call(); err != nil {
		return err
	}
	if err := e.checkLimits(ops); err != nil {
		return err
	}
	b := fakeBatch{sync: sync, files: e.files()}
	for _, op := range ops {
		b.ops = append(b.ops, cloneOp(op))
	}
	e.batches = append(e.batches, b)
	return e.apply(b)
}

func (e *fakeEngine) call() error {
	e.calls++
	if e.failAt > 0 && e.calls >= e.failAt {
		return fmt.Errorf("call %d: %w", e.calls, errInjected)
	}
	return nil
}

func (e *fakeEngine) checkLimits(ops []Op) error {
	if len(ops) == 0 {
		return errors.New("an empty batch")
	}
	puts, deletes, size := 0, 0, 0
	for _, op := range ops {
		if op.Value != nil {
			puts++
			size += len(op.Key) + len(op.Value)
		} else {
			deletes++
		}
		if op.End != nil && !e.cfg.RangeDelete {
			return errors.New("a range deletion, which this engine has not")
		}
	}
	// The state and the snapshot record come on top of the limit.
	const extra = 2
	if limit := e.cfg.MaxBatchOps; limit > 0 && puts > limit+extra {
		return fmt.Errorf("%d puts in one batch, want at most %d", puts, limit)
	}
	if limit := e.cfg.DeleteStep; limit > 0 && deletes > limit {
		return fmt.Errorf("%d deletions in one batch, want at most %d", deletes, limit)
	}
	if limit := e.cfg.MaxBatchBytes; limit > 0 && puts > 1+extra && size > limit+100 {
		return fmt.Errorf("%d bytes in one batch, want at most %d", size, limit)
	}
	return nil
}

func (e *fakeEngine) apply(b fakeBatch) error {
	for _, op := range b.ops {
		switch {
		case op.Value != nil:
			e.kv[string(op.Key)] = op.Value
		case op.End != nil:
			for k := range e.kv {
				if k >= string(op.Key) && k < string(op.End) {
					delete(e.kv, k)
				}
			}
		default:
			if _, ok := e.kv[string(op.Key)]; !ok {
				e.useless++
			}
			delete(e.kv, string(op.Key))
		}
	}
	return nil
}

func (e *fakeEngine) Iterate(lo, hi []byte, f func(key, value []byte) error) error {
	var key, value []byte // reused, as an engine does
	for _, k := range slices.Sorted(maps.Keys(e.kv)) {
		if k < string(lo) || k >= string(hi) {
			continue
		}
		key, value = append(key[:0], k...), append(value[:0], e.kv[k]...)
		if err := f(key, value); err != nil {
			return err
		}
		clear(key)
		clear(value)
	}
	return nil
}

func (e *fakeEngine) Sync() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.call(); err != nil {
		return err
	}
	e.syncs++
	return nil
}

func (e *fakeEngine) Close() error {
	e.closed++
	return nil
}

// after is the engine as a crash leaves it that only the first n batches
// survived.
func (e *fakeEngine) after(n int) *fakeEngine {
	c := newFake(e.cfg)
	for _, b := range e.batches[:n] {
		if err := c.apply(b); err != nil {
			panic(err)
		}
		c.batches = append(c.batches, b)
	}
	return c
}

// files are those beside the engine, by name.
func (e *fakeEngine) files() map[string]string {
	files := map[string]string{}
	found, _ := os.ReadDir(e.cfg.SnapDir) // which may not be there
	for _, f := range found {
		if b, err := os.ReadFile(filepath.Join(e.cfg.SnapDir, f.Name())); err == nil {
			files[f.Name()] = string(b)
		}
	}
	return files
}

// filesAfter is what may be in cfg.SnapDir after a crash that only the first n
// batches survived: a file is made, and removed, in order, but a batch that was not
// synced may be lost that came before; and what was removed may come back.
func (e *fakeEngine) filesAfter(n int) []map[string]string {
	var sets []map[string]string
	add := func(set map[string]string) {
		if !slices.ContainsFunc(sets, func(old map[string]string) bool { return maps.Equal(old, set) }) {
			sets = append(sets, set)
		}
	}
	for i := n; ; i++ {
		set := e.files()
		if i < len(e.batches) {
			set = e.batches[i].files
		}
		add(set)
		if n > 0 {
			back := maps.Clone(e.batches[n-1].files)
			maps.Copy(back, set)
			add(back)
		}
		if i >= len(e.batches) || e.batches[i].sync {
			return sets
		}
	}
}

// durable is how many batches survive any crash.
func (e *fakeEngine) durable() int {
	for n := len(e.batches); n > 0; n-- {
		if e.batches[n-1].sync {
			return n
		}
	}
	return 0
}
