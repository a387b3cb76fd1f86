package load

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// TestAlarm: the clock rings by itself, and not early, each time that it is set, and not
// where it was stopped. Where the time is too short for it, it rings again and again, until
// it is set for a longer one.
func TestAlarm(t *testing.T) {
	a := newAlarm(true)
	defer a.close()
	if a.clock == nil {
		t.Skip("this system has no clock that is a file")
	}
	const d = 2 * time.Millisecond
	rings := func() {
		t.Helper()
		select {
		case <-a.rings():
		case <-time.After(time.Minute):
			t.Fatal("the clock does not ring")
		}
	}
	// silent sees no ring but two for what was set before: one that waits to be received,
	// and one on its way to that.
	silent := func(what string) {
		t.Helper()
		enough := time.After(20 * d)
		for rung := 0; ; rung++ {
			select {
			case <-a.rings():
				if rung == 2 {
					t.Fatal("the clock goes on to ring though " + what)
				}
			case <-enough:
				return
			}
		}
	}
	for range 3 {
		start := time.Now()
		a.set(d)
		a.timer.Stop() // not the one to ring
		rings()
		if took := time.Since(start); took < d {
			t.Errorf("the clock rings after %v instead of %v", took, d)
		}
	}
	silent("it was set once")
	beats := func() {
		t.Helper()
		a.set(clockMin - 1)
		for range 4 {
			rings()
		}
	}
	beats()
	beats()
	a.set(time.Hour)
	silent("it was set for later")
	beats()
	a.stop()
	silent("it was stopped")
	beats()
}

// TestAlarmWithoutClock: where the system gives no clock the timer does all.
func TestAlarmWithoutClock(t *testing.T) {
	a := newAlarm(false)
	defer a.close()
	a.set(clockMin)
	select {
	case <-a.timer.C:
	case <-a.rings():
		t.Error("a clock rings that is not there")
	case <-time.After(time.Minute):
		t.Error("the timer does not fire")
	}
	a.set(time.Hour)
	a.stop()
}

// counting answers nothing, and counts what it is given.
type counting struct {
	*immediate
	calls, ops, enqueued atomic.Int64
}

func (c *counting) Propose(ctx context.Context, ps [][]byte) error {
	c.calls.Add(1)
	c.ops.Add(int64(len(ps)))
	return nil
}

func (c *counting) Enqueue(ctx context.Context, ps [][]byte) error {
	c.enqueued.Add(int64(len(ps)))
	return c.Propose(ctx, ps)
}

// sendFor runs an open loop against a target that does not answer.
func sendFor(t *testing.T, cfg Config, d time.Duration) *counting {
	t.Helper()
	cfg.Payloads, cfg.TimersOnly = payloads(t, 64, 64), true
	target := &counting{}
	synctest.Test(t, func(t *testing.T) {
		g, err := NewGenerator(cfg, target)
		if err != nil {
			t.Fatal(err)
		}
		g.Start(t.Context(), time.Now())
		time.Sleep(d)
		synctest.Wait()
		if err := g.Stop(); err != nil {
			t.Fatal(err)
		}
	})
	return target
}

// TestFastLoopSendsTogether: a slow open loop sends every operation when it is due; a
// fast one all that fell due within the pause, and lets the target compute elsewhere.
func TestFastLoopSendsTogether(t *testing.T) {
	const d = 10 * time.Millisecond
	for _, tc := range []struct{ rate, perCall float64 }{
		{1000, 1}, {0.9 * fastRate, 1}, {fastRate, 1}, {5 * fastRate, 5 * fastRate * fastPause.Seconds()},
	} {
		target := sendFor(t, Config{Rate: tc.rate, Seed: 1}, d)
		calls, ops, enqueued := target.calls.Load(), target.ops.Load(), target.enqueued.Load()
		if fast := tc.rate >= fastRate; fast && enqueued != ops || !fast && enqueued != 0 {
			t.Errorf("at %v a second %d of %d operations are enqueued", tc.rate, enqueued, ops)
		}
		if want := tc.rate * d.Seconds(); float64(ops) < want-tc.perCall || float64(ops) > want+1 {
			t.Errorf("at %v a second %d operations are sent in %v, want %v", tc.rate, ops, d, want)
		}
		if got := float64(ops) / float64(calls); got < 0.9*tc.perCall || got > 1.1*tc.perCall {
			t.Errorf("at %v a second %v operations are sent together, want %v", tc.rate, got, tc.perCall)
		}
	}
}

// stalling holds up the first call, and answers what it is given at once, or never.
type stalling struct {
	*immediate
	g       *Generator
	answers bool
	stall   time.Duration
	started bool
	ops     int
	largest int // of one call
	waiting int // to be recorded, at most
}

func (s *stalling) Propose(_ context.Context, ps [][]byte) error {
	if !s.started {
		s.started = true
		time.Sleep(s.stall)
	}
	s.ops += len(ps)
	s.largest = max(s.largest, len(ps))
	w := s.g.workers[0] // which calls this
	s.waiting = max(s.waiting, len(w.finished)-w.recorded)
	if !s.answers {
		return nil
	}
	batch := make([]Done, len(ps))
	for i, p := range ps {
		batch[i] = Done{ID: ID(p), Applied: s.g.Now()}
	}
	s.g.Done(batch)
	return nil
}

// TestBehindInSteps: an open loop that was held up sends what has fallen due in steps,
// and takes the answers between them, so that the next ones need no memory of their own.
func TestBehindInSteps(t *testing.T) {
	for _, answers := range []bool{true, false} {
		testBehind(t, &stalling{stall: time.Second, answers: answers})
	}
}

func testBehind(t *testing.T, target *stalling) {
	synctest.Test(t, func(t *testing.T) {
		g, err := NewGenerator(Config{Rate: 20 * openStep, Seed: 1, Payloads: payloads(t, 64, 64), TimersOnly: true}, target)
		if err != nil {
			t.Fatal(err)
		}
		target.g = g
		g.Start(t.Context(), time.Now())
		time.Sleep(target.stall + time.Second)
		synctest.Wait()
		if err := g.Stop(); err != nil {
			t.Fatal(err)
		}
		if want := 40 * openStep; target.ops < want || target.ops > want+1 {
			t.Errorf("%d operations are sent in two seconds, want %d", target.ops, want)
		}
		if target.largest > openStep {
			t.Errorf("%d operations are sent together, want %d at most", target.largest, openStep)
		}
		if target.waiting > openStep {
			t.Errorf("%d operations wait to be recorded, want %d at most", target.waiting, openStep)
		}
		if n := len(g.workers[0].slots); target.answers && n > 2*openStep {
			t.Errorf("%d operations have memory of their own, want no more than two steps of %d", n, openStep)
		}
	})
}

// TestFullLoopSleeps: an open loop that may send no more before an answer comes waits for
// it, and does not look at the clock until then.
func TestFullLoopSleeps(t *testing.T) {
	target := sendFor(t, Config{Rate: 1000, Seed: 1, MaxInFlight: 3}, 100*time.Millisecond)
	calls, ops := target.calls.Load(), target.ops.Load()
	if calls != 3 || ops != 3 {
		t.Errorf("%d operations in %d calls, want the 3 that may be in flight", ops, calls)
	}
}

// lagOf is the lag of an open loop of 1,000 operations a second on an idle machine, by
// the machine's own time.
func lagOf(t testing.TB, timersOnly bool, operations int) result.Latency {
	t.Helper()
	target := &immediate{}
	g, err := NewGenerator(Config{Rate: 1000, Seed: 1, Payloads: payloads(t, 64, 64), TimersOnly: timersOnly}, target)
	if err != nil {
		t.Fatal(err)
	}
	target.start(g)
	g.Start(t.Context(), time.Now())
	g.Measure()
	end := g.Now() + time.Duration(operations)*time.Millisecond
	wait(t, func() bool { return g.Now() >= end })
	g.EndMeasure()
	wait(t, func() bool { return g.Pending() == 0 })
	if err := g.Stop(); err != nil {
		t.Fatal(err)
	}
	target.close()
	var run result.Run
	g.Fill(&run)
	return run.Lag
}

// TestOpenLoopWithClock: an open loop sends by the clock as it does by timers. How well
// it keeps its schedule is what BenchmarkLag tells.
func TestOpenLoopWithClock(t *testing.T) {
	if lag := lagOf(t, false, 100); lag.Count < 50 {
		t.Errorf("%d operations in at least 100 ms at 1,000 a second", lag.Count)
	}
}

// BenchmarkLag is how late an open loop is on an idle machine, with and without a clock
// of the system's.
func BenchmarkLag(b *testing.B) {
	for _, timersOnly := range []bool{false, true} {
		b.Run(map[bool]string{false: "clock", true: "timers"}[timersOnly], func(b *testing.B) {
			lag := lagOf(b, timersOnly, b.N)
			b.ReportMetric(float64(lag.P50.Nanoseconds()), "lag-p50-ns")
			b.ReportMetric(float64(lag.P99.Nanoseconds()), "lag-p99-ns")
		})
	}
}
