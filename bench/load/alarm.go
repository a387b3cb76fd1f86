package load

import "time"

// clockMin is the shortest time that an alarm sets a clock for: to be woken by it takes
// more CPU than by a timer, and the more often a goroutine is woken, the less late its
// timers are.
const clockMin = 100 * time.Microsecond

// alarm wakes a goroutine after a time, as a time.Timer does, but not late where the
// machine idles: there the runtime waits for its timers in epoll_wait, which counts in
// milliseconds, so that they are up to one late. Where the system has a clock that is a
// file, it is set besides, and ends that wait in time; the first of the two counts.
type alarm struct {
	timer *time.Timer
	clock *clock // nil where the system has none
}

// newAlarm returns an alarm that is not set.
func newAlarm(precise bool) *alarm {
	a := &alarm{timer: time.NewTimer(0)}
	a.timer.Stop()
	if precise {
		a.clock = newClock()
	}
	return a
}

// set sets the alarm to d from now, in place of what was set before. The clock may
// still ring for that.
func (a *alarm) set(d time.Duration) {
	a.timer.Reset(d)
	if a.clock != nil && d >= clockMin {
		a.clock.set(d)
	}
}

// stop unsets the alarm.
func (a *alarm) stop() {
	a.timer.Stop()
	if a.clock != nil {
		a.clock.set(0)
	}
}

// rings receives from the clock; nil without one.
func (a *alarm) rings() <-chan struct{} {
	if a.clock == nil {
		return nil
	}
	return a.clock.rings
}

// close gives the clock back; the alarm is not set any more.
func (a *alarm) close() {
	a.timer.Stop()
	if a.clock != nil {
		a.clock.close()
	}
}
