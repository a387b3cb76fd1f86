package node

import (
	"context"
	"slices"
	"sync"
)

// queue hands batches from many producers to one consumer: the consumer takes
// all that waits at once, so that work gathers while it is busy. It is bounded;
// put waits for room, and is refused once the consumer has ended.
type queue[T any] struct {
	limit int

	mu      sync.Mutex
	items   []T
	spare   []T // the slice taken last, to be filled again after the next take
	waiters int // producers that wait for room
	ended   bool

	ready chan struct{} // holds a token while items wait
	room  chan struct{} // holds a token after a take that found waiters
	done  chan struct{} // closed by end
}

func newQueue[T any](limit int) *queue[T] {
	return &queue[T]{limit: limit, ready: make(chan struct{}, 1), room: make(chan struct{}, 1), done: make(chan struct{})}
}

// put appends items and wakes the consumer, see add.
func (q *queue[T]) put(ctx context.Context, items ...T) error {
	if err := q.add(ctx, items); err != nil {
		return err
	}
	signal(q.ready)
	return nil
}

// add appends items, waiting while the queue is full. A batch larger than the
// limit is taken when the queue is empty. It does not wake the consumer: that is
// for who takes them itself, with takeNow. After end it returns [ErrStopped].
func (q *queue[T]) add(ctx context.Context, items []T) error {
	for {
		q.mu.Lock()
		if q.ended {
			q.mu.Unlock()
			return ErrStopped
		}
		if len(q.items) == 0 || len(q.items)+len(items) <= q.limit {
			q.items = append(q.items, items...)
			more := q.waiters > 0 && len(q.items) < q.limit
			q.mu.Unlock()
			if more {
				signal(q.room)
			}
			return nil
		}
		q.waiters++
		q.mu.Unlock()
		var err error
		select {
		case <-q.room:
		case <-q.done: // seen above
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		q.mu.Lock()
		q.waiters--
		q.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// take waits for items and returns all of them. The slice is the caller's until
// its next take; nil means that ctx ended.
func (q *queue[T]) take(ctx context.Context) []T {
	for q.wait(ctx) {
		if taken := q.takeNow(); len(taken) > 0 {
			return taken
		}
	}
	return nil
}

// wait waits until put, or putBack, says that there are items; false means that ctx
// ended.
func (q *queue[T]) wait(ctx context.Context) bool {
	select {
	case <-q.ready:
		return true
	case <-ctx.Done():
		return false
	}
}

// takeNow is take without waiting: it may return none.
func (q *queue[T]) takeNow() []T {
	q.mu.Lock()
	taken := q.items
	clear(q.spare) // drop what it still refers to
	q.items, q.spare = q.spare[:0], taken
	waiting := q.waiters > 0
	q.mu.Unlock()
	if waiting {
		signal(q.room)
	}
	return taken
}

// putBack returns items that were taken last, before those that came since, and
// wakes the consumer.
func (q *queue[T]) putBack(items []T) {
	q.mu.Lock()
	q.items = append(slices.Clone(items), q.items...)
	q.mu.Unlock()
	signal(q.ready)
}

// end is the consumer's last call: it returns what waits. Whatever was added is
// either taken, here at the latest, or its producer is told.
func (q *queue[T]) end() []T {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	close(q.done)
	return q.takeNow()
}

// empty reports whether nothing waits.
func (q *queue[T]) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) == 0
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
