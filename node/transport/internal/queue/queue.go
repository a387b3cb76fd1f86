// Package queue is the bounded queue between Transport.Send and the goroutine that
// writes to one peer.
package queue

import "sync"

// Queue holds at most a number of items and of bytes. Put never waits.
type Queue[T any] struct {
	maxItems int
	maxBytes int64

	mu     sync.Mutex
	filled sync.Cond
	items  []T
	bytes  int64
	closed bool
}

// New returns an empty queue. An item of more than maxBytes passes if it is alone.
func New[T any](maxItems int, maxBytes int64) *Queue[T] {
	q := &Queue[T]{maxItems: maxItems, maxBytes: maxBytes}
	q.filled.L = &q.mu
	return q
}

// Put appends an item of the given size and reports whether there was room. There
// is none in a closed queue.
func (q *Queue[T]) Put(item T, bytes int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.items) >= q.maxItems || (len(q.items) > 0 && q.bytes+bytes > q.maxBytes) {
		return false
	}
	q.items = append(q.items, item)
	q.bytes += bytes
	if len(q.items) == 1 {
		q.filled.Signal()
	}
	return true
}

// Take waits for items and takes them all; the caller's emptied slice becomes the
// queue's. It returns false once the queue is closed, whose items are lost.
func (q *Queue[T]) Take(emptied []T) ([]T, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed {
		q.filled.Wait()
	}
	if q.closed {
		return nil, false
	}
	items := q.items
	clear(emptied[:cap(emptied)]) // let go of what the caller has done with
	q.items, q.bytes = emptied[:0], 0
	return items, true
}

// Close ends Take and Put.
func (q *Queue[T]) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed, q.items = true, nil
	q.filled.Broadcast()
}
