package kvlog

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// Health is the first failure of an engine that works in goroutines of its own:
// what fails there has nobody to return an error to.
type Health struct {
	once sync.Once
	dead chan struct{}
	err  error
}

// NewHealth is that of an engine that has not failed.
func NewHealth() *Health { return &Health{dead: make(chan struct{})} }

// Fail takes note of a failure. Only the first one counts.
func (h *Health) Fail(err error) {
	h.once.Do(func() {
		h.err = err
		close(h.dead)
	})
}

// Err is the first failure, nil if there was none.
func (h *Health) Err() error {
	select {
	case <-h.dead:
		return h.err
	default:
		return nil
	}
}

// Run calls f, which may hang where the engine has failed, and returns its error,
// or the failure of the engine as soon as there is one. f may then still be
// running, for ever, so what it uses must not be used again.
func (h *Health) Run(f func() error) error {
	if err := h.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer func() {
			if r := recover(); r != nil {
				done <- fmt.Errorf("panic: %v", r)
			}
		}()
		done <- f()
	}()
	select {
	case err := <-done:
		if failed := h.Err(); failed != nil {
			return failed
		}
		return err
	case <-h.dead:
		return h.err
	}
}

// ErrNotClosed is the error of a Close that hangs.
var ErrNotClosed = errors.New("it does not close after a failure; its files stay locked until the process ends")

// Close calls the Close of an engine, which may hang once the engine has failed, and
// may be what fails. It gives up with [ErrNotClosed] when limit has passed since the
// failure, or since the call where that is later.
func (h *Health) Close(limit time.Duration, closeEngine func() error) error {
	closing, done := NewHealth(), make(chan struct{})
	go func() {
		select {
		case <-h.dead:
		case <-done:
			return
		}
		timer := time.NewTimer(limit)
		defer timer.Stop()
		select {
		case <-timer.C:
			closing.Fail(ErrNotClosed)
		case <-done:
		}
	}()
	err := closing.Run(closeEngine)
	close(done)
	return err
}
