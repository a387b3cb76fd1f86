package node

import (
	"context"
	"sync"
)

// queue hands batches from many producers to one consumer: the consumer takes
// all that waits at once, so that work gathers while it is busy. It is bounded;
// put waits for room.
type queue[T any] struct {
	limit int

	mu      sync.Mutex
	items   []T
	spare   []T // the slice taken last, to be filled again after the next take
	waiters int // producers that wait for room

	ready chan struct{} // holds a token while items wait
	room  chan struct{} // holds a token after a take that found waiters
}

func newQueue[T any](limit int) *queue[T] {
	return &queue[T]{limit: limit, ready: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// put appends items, waiting while the queue is full. A batch larger than the
// limit is taken when the queue is empty.
func (q *queue[T]) put(ctx context.Context, items ...T) error {
	for {
		q.mu.Lock()
		if len(q.items) == 0 || len(q.items)+len(items) <= q.limit {
			q.items = append(q.items, items...)
			more := q.waiters > 0 && len(q.items) < q.limit
			q.mu.Unlock()
			signal(q.ready)
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
	for {
		select {
		case <-q.ready:
		case <-ctx.Done():
			return nil
		}
		q.mu.Lock()
		taken := q.items
		clear(q.spare) // drop what it still refers to
		q.items, q.spare = q.spare[:0], taken
		waiting := q.waiters > 0
		q.mu.Unlock()
		if waiting {
			signal(q.room)
		}
		if len(taken) > 0 {
			return taken
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
