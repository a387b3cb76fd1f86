package torture

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	clientCount = 6
	// opTimeout ends a client's wait: it then does not know whether its write was
	// made. Longer than an election, so that not every operation of a fault ends so.
	opTimeout = 250 * time.Millisecond
)

// op is an operation of a client, as the client saw it.
type op struct {
	client    int
	key       uint64
	write     bool
	id        uint64 // written, or read
	call, ret time.Duration
	ok        bool    // false: the outcome is unknown
	at        applied // of a write that is ok
}

// workload is the clients of a round and what they saw.
type workload struct {
	c          *cluster
	localReads bool // broken: without ReadIndex
	base       time.Time
	lastID     atomic.Uint64

	mu  sync.Mutex
	ops []op
}

// client works until ctx ends, with writes and reads in equal number, at the
// leader most of the time and else anywhere.
func (w *workload) client(ctx context.Context, number int, seed int64) {
	rng := rand.New(rand.NewPCG(uint64(seed), 1000+uint64(number)))
	for ctx.Err() == nil {
		anywhere, write, key := rng.IntN(10) < 4, rng.IntN(2) == 0, rng.Uint64N(keyCount)
		pause := time.Duration(rng.Int64N(int64(4 * time.Millisecond)))
		if l := w.target(rng, anywhere); l != nil {
			if write {
				w.write(ctx, number, l, key, opTimeout)
			} else {
				w.read(ctx, number, l, key, opTimeout)
			}
		}
		time.Sleep(pause) // the client's think time
	}
}

func (w *workload) target(rng *rand.Rand, anywhere bool) *life {
	lead, all := w.c.leader(), w.c.running()
	switch {
	case lead != nil && !anywhere:
		return lead
	case len(all) > 0:
		return all[rng.IntN(len(all))]
	}
	return nil
}

func (w *workload) note(o op) op {
	o.ret = time.Since(w.base)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ops = append(w.ops, o)
	return o
}

// write proposes to one node and waits until that has applied it.
func (w *workload) write(ctx context.Context, client int, l *life, key uint64, timeout time.Duration) op {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	o := op{client: client, key: key, write: true, id: w.lastID.Add(1)}
	done := l.regs.await(o.id)
	defer l.regs.forget(o.id)
	o.call = time.Since(w.base)
	if l.n.Propose(ctx, payload(o.id, key)) == nil {
		select {
		case o.at = <-done:
			o.ok = true
		case <-ctx.Done():
		}
	}
	return w.note(o)
}

// read reads a register of one node once that says that it may.
func (w *workload) read(ctx context.Context, client int, l *life, key uint64, timeout time.Duration) op {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	o := op{client: client, key: key, call: time.Since(w.base)}
	done := make(chan error, 1)
	if w.localReads {
		done <- nil
	} else if err := l.n.ReadIndex(ctx, func(err error) { done <- err }); err != nil {
		return w.note(o)
	}
	select {
	case err := <-done:
		o.ok = err == nil
		o.id = l.regs.get(key)
	case <-ctx.Done():
	}
	return w.note(o)
}

// register is the model: what is read is what was written last.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		keys := make([][]porcupine.Operation, keyCount)
		for _, o := range history {
			key := o.Input.(op).key
			keys[key] = append(keys[key], o)
		}
		return keys
	},
	Init: func() any { return uint64(0) },
	Step: func(state, in, _ any) (bool, any) {
		if o := in.(op); o.write {
			return true, o.id
		} else {
			return o.id == state.(uint64), state
		}
	},
	DescribeOperation: func(in, _ any) string {
		if o := in.(op); o.write {
			return fmt.Sprintf("write %d to %d", o.id, o.key)
		} else {
			return fmt.Sprintf("read %d from %d", o.id, o.key)
		}
	},
}

// history is what porcupine judges. Left out are reads without an answer, and
// writes of unknown outcome that nobody read: they can always have come last. Other
// writes of unknown outcome have no end.
func history(ops []op) []porcupine.Operation {
	read := map[uint64]bool{}
	for _, o := range ops {
		if !o.write && o.ok {
			read[o.id] = true
		}
	}
	var out []porcupine.Operation
	for _, o := range ops {
		ret := int64(o.ret)
		if !o.ok {
			if !o.write || !read[o.id] {
				continue
			}
			ret = math.MaxInt64
		}
		out = append(out, porcupine.Operation{ClientId: o.client, Input: o, Call: int64(o.call), Return: ret})
	}
	return out
}

// checkLimit bounds the search for an order; histories of a round take
// milliseconds.
const checkLimit = 3 * time.Minute

// linearizable judges a history. Of one that is not, picture names a page that
// shows it, where one could be written.
func linearizable(ops []op, picture string) error {
	result, info := porcupine.CheckOperationsVerbose(register, history(ops), checkLimit)
	switch result {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("no verdict on %d operations within %v", len(ops), checkLimit)
	}
	if picture == "" {
		return errNotLinearizable
	}
	if err := porcupine.VisualizePath(register, info, picture); err != nil {
		return fmt.Errorf("%w (no picture: %v)", errNotLinearizable, err)
	}
	return fmt.Errorf("%w, see %s", errNotLinearizable, picture)
}

// nothingLost looks for every acknowledged write in what all nodes applied in the
// end: where it was acknowledged, and nowhere else.
func nothingLost(ops []op, log []applied) error {
	at := map[uint64]applied{}
	for _, a := range log {
		if other, twice := at[a.id]; twice {
			return fmt.Errorf("%w: write %d is applied as entry %d and as entry %d", errLost, a.id, other.index, a.index)
		}
		at[a.id] = a
	}
	for _, o := range ops {
		if !o.write || !o.ok {
			continue
		}
		switch a, there := at[o.id]; {
		case !there:
			return fmt.Errorf("%w: write %d was acknowledged as entry %d of term %d, and is gone", errLost, o.id, o.at.index, o.at.term)
		case a != o.at:
			return fmt.Errorf("%w: write %d was acknowledged as %+v, and is %+v", errLost, o.id, o.at, a)
		}
	}
	return nil
}
