package bench

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/raftbench/raftbench/backends/mem"
	"github.com/raftbench/raftbench/backends/raw"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
)

// TestFaults: what the timeline says happens, the run goes on under a new leader,
// and nothing that was acknowledged is lost. The clock is the test's own, which no
// machine slows.
func TestFaults(t *testing.T) {
	for name, timeline := range map[string]string{
		"cut":  "at 800ms: cut leader-*; at 3s: heal",
		"kill": "at 800ms: kill leader,1,2,3; at 2s: start", // all: who leads then has not seen who led before
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { playFaults(t, timeline) })
		})
	}
}

func playFaults(t *testing.T, timeline string) {
	spec := quick(t, raw.Backend)
	spec.Load, spec.Duration, spec.NoCalibrate, spec.timersOnly, spec.Faults = Open(300), 4*time.Second, true, true, timeline
	run := mustRun(t, spec).Runs[0]
	f := run.Faults
	if f == nil || f.Timeline != timeline || len(f.Events) != 2 || f.Before <= 0 || f.Stall <= 0 {
		t.Fatalf("faults %+v", f)
	}
	if e := f.Events[0]; e.Node == 0 || "at 800ms: "+e.Text != strings.Split(timeline, ";")[0] || f.Events[1].T-e.T < time.Second {
		t.Errorf("events %+v", f.Events)
	}
	first := slices.IndexFunc(run.Events, func(e result.Event) bool { return e.Kind == "fault" })
	if first < 0 || !slices.ContainsFunc(run.Events[first:], func(e result.Event) bool { return e.Kind == "leader" }) || run.LeaderChanges == 0 {
		t.Errorf("events %+v, %d changes of leader", run.Events, run.LeaderChanges)
	}
	if run.Verified == nil || !run.Verified.OK || run.Errors == 0 || run.Ops == 0 {
		t.Errorf("verified %+v, %d operations, %d errors", run.Verified, run.Ops, run.Errors)
	}
	for _, flag := range []string{"not_steady", "leader_changed", "errors"} {
		if slices.Contains(run.Flags, flag) {
			t.Errorf("flags %q accuse what was done on purpose", run.Flags)
		}
	}
	calm := run
	calm.Faults = nil
	if stats.Config(&run) == stats.Config(&calm) {
		t.Error("a run with faults would be compared with one without")
	}
}

// TestRecovery reads durations off a history whose answer is known.
func TestRecovery(t *testing.T) {
	p := &faultPlay{}
	applied := 0.0
	for at := time.Duration(0); at <= 10*time.Second; at += faultStep {
		p.samples = append(p.samples, sample{at, int64(applied)})
		switch { // 1000 a second, none from 2 to 3 s, half of it up to 4 s
		case at < 2*time.Second || at >= 4*time.Second:
			applied += 1000 * faultStep.Seconds()
		case at >= 3*time.Second:
			applied += 500 * faultStep.Seconds()
		}
	}
	if rate := p.rate(0, 2*time.Second); rate != 1000 {
		t.Errorf("%v operations a second before", rate)
	}
	near := func(what string, got, want time.Duration) {
		if got < want-2*faultStep || got > want+2*faultStep {
			t.Errorf("%s %v, want %v", what, got, want)
		}
	}
	near("stall", p.stall(2*time.Second, 10*time.Second), time.Second)
	// Half a second of which a fifth is at half the rate makes 90 %.
	back := p.recovery(2*time.Second, 10*time.Second, 1000)
	if back == nil {
		t.Fatal("not recovered")
	}
	near("recovery", *back, 1900*time.Millisecond)
	if back := p.recovery(2*time.Second, 4*time.Second, 1000); back != nil {
		t.Errorf("recovered after %v, while the next event came before", *back)
	}
	if back := p.recovery(5*time.Second, 10*time.Second, 1000); back == nil || *back != 0 {
		t.Errorf("without a dip, recovered after %v", back)
	}
}

func TestFaultsAreChecked(t *testing.T) {
	for timeline, want := range map[string]string{
		"at 1s: explode":                "unknown fault",
		" ; ":                           "no event",
		"at 5s: heal":                   "after the end",
		"at 1s: cut 1-4":                "no node 4",
		"at 1s: kill 9":                 "no node 9",
		"at 1s: start":                  "no node was killed",
		"at 1s: start 1; at 2s: kill 1": "no node was killed",
	} {
		spec := Spec{Backends: quick(t, mem.Backend).Backends, Duration: 5 * time.Second, Faults: timeline}
		var bad *UsageError
		if err := spec.Fill(); !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", timeline, err, want)
		}
	}
	for want, change := range map[string]func(*Spec){
		"2 nodes":      func(s *Spec) { s.Nodes = 1 },
		"workload":     func(s *Spec) { s.Workload.Kind = WorkloadAge },
		"closed, open": func(s *Spec) { s.Load = Load{Kind: LoadCurve} },
		"a duration":   func(s *Spec) { s.Ops = 10 },
	} {
		spec := Spec{Backends: quick(t, mem.Backend).Backends, Faults: "at 1s: heal"}
		change(&spec)
		if err := spec.Fill(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error with %q", err, want)
		}
	}
}

// TestNetworkFigures: what the transport cost is known, and with one node absent.
func TestNetworkFigures(t *testing.T) {
	for nodes, want := range map[int]bool{1: false, 3: true} {
		spec := quick(t, mem.Backend)
		spec.Nodes, spec.NoSnapshots, spec.NoCalibrate, spec.Ops = nodes, true, true, 500
		run := mustRun(t, spec).Runs[0]
		n := run.Network
		if (n != nil) != want {
			t.Fatalf("%d nodes: network %+v", nodes, n)
		}
		// A payload goes to two followers. What was under way when the window opened
		// was sent before it.
		if !want {
			continue
		}
		if n.BytesPerOp == nil || n.MessagesPerOp == nil || n.Dropped == nil || n.RTT.Count == 0 {
			t.Fatalf("network %+v, %d operations", n, run.Ops)
		}
		if *n.BytesPerOp < 1.5*1024 || *n.MessagesPerOp <= 0 {
			t.Errorf("network: %.0f bytes and %.2f messages per operation, of which %d were made", *n.BytesPerOp, *n.MessagesPerOp, run.Ops)
		}
	}
}
