package kvlog

import (
	"errors"
	"testing"
	"time"
)

// TestCloseThatFails: an engine that was well when it was closed, and fails within and
// never returns, does not hold up Close; one that is well may take its time.
func TestCloseThatFails(t *testing.T) {
	h, never := NewHealth(), make(chan struct{})
	defer close(never)
	err := h.Close(time.Millisecond, func() error {
		h.Fail(errInjected)
		<-never
		return nil
	})
	if !errors.Is(err, ErrNotClosed) {
		t.Errorf("it fails and hangs: got %v, want ErrNotClosed", err)
	}
	err = h.Close(time.Millisecond, func() error { <-never; return nil })
	if !errors.Is(err, ErrNotClosed) {
		t.Errorf("it has failed and hangs: got %v, want ErrNotClosed", err)
	}
	if err := h.Close(time.Hour, func() error { return errInjected }); !errors.Is(err, errInjected) {
		t.Errorf("it has failed and returns: got %v, want its error", err)
	}
	if err := NewHealth().Close(time.Millisecond, func() error { time.Sleep(50 * time.Millisecond); return nil }); err != nil {
		t.Errorf("it is well and slow: got %v", err)
	}
}
