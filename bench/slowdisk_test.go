package bench

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftbench/raftbench/backends/raw"
	"github.com/raftbench/raftbench/bench/stats"
)

func TestParseSlowDisk(t *testing.T) {
	for text, want := range map[string]SlowDisk{
		"":                          {},
		"none":                      {},
		"leader:+5ms":               {Role: RoleLeader, Delay: 5 * time.Millisecond},
		"follower:stall=2s/10s":     {Role: RoleFollower, Stall: 2 * time.Second, Every: 10 * time.Second},
		"leader:stall=150ms/1m0.5s": {Role: RoleLeader, Stall: 150 * time.Millisecond, Every: 60500 * time.Millisecond},
	} {
		got, err := ParseSlowDisk(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"leader", "leader:", "leader:5ms", "leader:+", "leader:+-5ms", "leader:+0s", "leader:+2m", "+5ms", "boss:+5ms",
		"leader:stall", "leader:stall=2s", "leader:stall=2s/2s", "leader:stall=0s/2s", "leader:stall=1s/2h", "follower:2s/10s", "Leader:+5ms",
	} {
		if got, err := ParseSlowDisk(text); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// FuzzParseSlowDisk: what can be read is the same when it is written and read again.
func FuzzParseSlowDisk(f *testing.F) {
	for _, s := range []string{"none", "leader:+5ms", "follower:stall=2s/10s", "leader:+1m", "leader:stall=/", "follower:+1h2m3.4s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseSlowDisk(text)
		if err != nil {
			return
		}
		if again, err := ParseSlowDisk(d.String()); err != nil || again != d {
			t.Errorf("%q is %+v, written as %q, and then %+v, %v", text, d, d, again, err)
		}
	})
}

func TestSlowDiskChecked(t *testing.T) {
	for name, change := range map[string]func(*Spec){
		"no follower":     func(s *Spec) { s.Nodes, s.SlowDisk = 1, SlowDisk{Role: RoleFollower, Delay: time.Millisecond} },
		"no stall in 1s":  func(s *Spec) { s.SlowDisk = SlowDisk{Role: RoleLeader, Stall: time.Second, Every: time.Minute} },
		"neither":         func(s *Spec) { s.SlowDisk = SlowDisk{Role: RoleLeader} },
		"placement":       func(s *Spec) { s.Placement, s.SlowDisk = PlacementProcess, SlowDisk{Role: RoleLeader, Delay: 1} },
		"workload":        func(s *Spec) { s.Workload.Kind, s.SlowDisk = WorkloadAge, SlowDisk{Role: RoleLeader, Delay: 1} },
		"role":            func(s *Spec) { s.SlowDisk = SlowDisk{Role: "boss", Delay: 1} },
		"negative":        func(s *Spec) { s.SlowDisk = SlowDisk{Role: RoleLeader, Delay: -1} },
		"stall and delay": func(s *Spec) { s.SlowDisk = SlowDisk{Role: RoleLeader, Delay: 1, Stall: 1, Every: 2} },
	} {
		spec := quick(t, raw.Backend)
		change(&spec)
		if err := spec.Fill(); err == nil || !strings.Contains(err.Error(), "slow disk") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSlowDisk: the node whose role it is to have the slow disk has it, and the
// run says so.
func TestSlowDisk(t *testing.T) {
	const delay = 20 * time.Millisecond
	for name, d := range map[string]SlowDisk{
		"leader":   {Role: RoleLeader, Delay: delay},
		"follower": {Role: RoleFollower, Delay: delay},
	} {
		t.Run(name, func(t *testing.T) {
			spec := quick(t, raw.Backend)
			// Of two nodes both must have an entry before it is committed.
			spec.Nodes, spec.SlowDisk, spec.Ops = 2, d, 50
			r := mustRun(t, spec).Runs[0]
			if r.SlowDisk != d.String() || r.SaveFloor != 0 || r.Verified == nil || !r.Verified.OK {
				t.Errorf("slow disk %q, × floor %v, verified %+v", r.SlowDisk, r.SaveFloor, r.Verified)
			}
			if r.Response.Count == 0 || r.Response.P50 < delay {
				t.Errorf("response p50 %v of %d operations", r.Response.P50, r.Response.Count)
			}
			if d.Role == RoleLeader && r.Save.P50 < delay {
				t.Errorf("Save p50 %v on the leader", r.Save.P50)
			}
		})
	}
}

// TestStall: a stall is an event of the run, and every operation is answered once
// it is over. The clock is the test's own: what takes no time in it is done at once.
func TestStall(t *testing.T) { synctest.Test(t, stallRun) }

func stallRun(t *testing.T) {
	spec := quick(t, raw.Backend)
	spec.Load, spec.NoCalibrate, spec.timersOnly = Open(300), true, true // a closed loop would let no time pass
	spec.Nodes, spec.SlowDisk, spec.Duration = 1, SlowDisk{Role: RoleLeader, Stall: 300 * time.Millisecond, Every: 500 * time.Millisecond}, time.Second
	r := mustRun(t, spec).Runs[0]
	stalls := 0
	for _, e := range r.Events {
		if e.Kind == "stall" && e.Node == 1 && e.T > 0 {
			stalls++
		}
	}
	if stalls == 0 || r.Errors != 0 || r.Ops == 0 || !r.Verified.OK {
		t.Errorf("events %+v, %d operations, %d errors, verified %+v", r.Events, r.Ops, r.Errors, r.Verified)
	}
}

func TestStallLeft(t *testing.T) {
	o := &observer{}
	d := &slowDisk{SlowDisk: SlowDisk{Stall: 20 * time.Minute, Every: time.Hour}, o: o, node: 2}
	if left := d.stallLeft(); left != 0 {
		t.Errorf("before the measured time: %v", left)
	}
	near := func(a, b time.Duration) bool { return (a - b).Abs() < time.Minute }
	for _, tc := range []struct{ since, left time.Duration }{
		{0, 0}, {38 * time.Minute, 0}, {45 * time.Minute, 15 * time.Minute}, {50 * time.Minute, 10 * time.Minute},
		{62 * time.Minute, 0}, {112 * time.Minute, 8 * time.Minute},
	} {
		o.base, d.start = time.Now().Add(-tc.since-time.Second), time.Second
		if left := d.stallLeft(); !near(left, tc.left) {
			t.Errorf("after %v: %v is left, want %v", tc.since, left, tc.left)
		}
	}
	if got := o.eventsFrom(0); len(got) != 2 || got[0].Node != 2 || got[0].Kind != "stall" {
		t.Errorf("events %+v, want one for each of two stalls", got)
	}
}

// TestSlowDiskEnds: whoever waits for the slow disk is let go at the end, and no
// other node waits at all.
func TestSlowDiskEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		d := &slowDisk{SlowDisk: SlowDisk{Delay: time.Hour}, o: &observer{}}
		d.wait(1) // nobody's yet
		d.begin(1)
		d.wait(2)
		done := make(chan struct{})
		go func() {
			d.wait(1)
			close(done)
		}()
		synctest.Wait()
		d.end()
		d.end() // after an error it is called twice
		<-done
		if waited := time.Since(start); waited != 0 {
			t.Errorf("waited %v", waited)
		}
	})
}

// TestSlowDiskIsAConfiguration: runs with a slow disk are compared with each other,
// never with those without.
func TestSlowDiskIsAConfiguration(t *testing.T) {
	one := One{Spec: quick(t, raw.Backend), Backend: raw.Backend}
	without := one.Header()
	one.SlowDisk = SlowDisk{Role: RoleLeader, Delay: time.Millisecond}
	with := one.Header()
	if a, b := stats.Config(&without), stats.Config(&with); a == b || !strings.Contains(b, "slow-disk=leader:+1ms") {
		t.Errorf("%q and %q", a, b)
	}
}
