package load

import "time"

// clockMin is the shortest time that an alarm sets a clock for: to be woken by it takes
// more CPU than by a timer, and the more often a goroutine is woken, the less late its
// timers are.
const clockMin = 100 * time.Microsecond

// clockBeat is how often the clock rings while the times are shorter than that.
const clockBeat = 500 * time.Microsecond

// alarm wakes a goroutine after a time, as a time.Timer does, but not late where the
// machine idles: there the runtime waits for its timers in epoll_wait, which counts in
// milliseconds, so that they are up to one late. Where the system has a clock that is a
// file, it is set besides, and ends that wait in time; the first of the two counts.
//
// Nor does a timer fire while the garbage collector marks on a P that has nothing else
// to do: such a worker gives way to what is in a run queue or comes from a file, and does
// not look at timers (runtime.pollWork). So for the short times that it is not set for,
// the clock rings at least every clockBeat.
type alarm struct {
	timer   *time.Timer
	clock   *clock // nil where the system has none
	beating bool   // the clock rings every clockBeat
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
	switch {
	case a.clock == nil:
	case d >= clockMin:
		a.clock.set(d, 0)
		a.beating = false
	case !a.beating:
		a.clock.set(clockBeat, clockBeat)
		a.beating = true
	}
}

// stop unsets the alarm.
func (a *alarm) stop() {
	a.timer.Stop()
	if a.clock != nil {
		a.clock.set(0, 0)
		a.beating = false
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
