//go:build !linux

package load

import "time"

// clock: Linux only.
type clock struct{ rings chan struct{} }

func newClock() *clock { return nil }

func (*clock) set(d, beat time.Duration) {}
func (*clock) close()                    {}
