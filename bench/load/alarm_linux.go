package load

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// clock is a timerfd, and the goroutine that reads it.
type clock struct {
	file  *os.File
	fd    int // of file, whose Fd may take it from the runtime's poller
	rings chan struct{}
	wg    sync.WaitGroup
}

// newClock returns nil where the system gives none: it has no descriptor left, say.
func newClock() *clock {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil
	}
	c := &clock{file: os.NewFile(uintptr(fd), "timerfd"), fd: fd, rings: make(chan struct{}, 1)}
	c.wg.Go(c.read)
	return c
}

// read passes on that the time has come, until the file is closed.
func (c *clock) read() {
	var expirations [8]byte
	for {
		if _, err := c.file.Read(expirations[:]); err != nil {
			return
		}
		select {
		case c.rings <- struct{}{}:
		default:
		}
	}
}

// set lets the clock ring after d, or, where that is 0, not at all, and then again and
// again after each beat, unless that is 0. It cannot fail: the descriptor is open, and
// the times are valid.
func (c *clock) set(d, beat time.Duration) {
	_ = unix.TimerfdSettime(c.fd, 0, &unix.ItimerSpec{
		Value: unix.NsecToTimespec(int64(d)), Interval: unix.NsecToTimespec(int64(beat)),
	}, nil)
}

func (c *clock) close() {
	_ = c.file.Close()
	c.wg.Wait()
}
