package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/bench/result"
)

// RunOne makes one run in this process: it starts a cluster in one.RunDir, loads it,
// measures, and reads everything back. GOMAXPROCS is changed while it runs.
//
// The run is returned also with an error, as far as it got.
func RunOne(ctx context.Context, one One, progress func(Progress)) (result.Run, error) {
	if one.Placement.remote() {
		return one.Header(), usage("placement %s: this program cannot start other processes; set Spec.RunOne", one.Placement)
	}
	procs := one.GOMAXPROCS
	if procs == 0 {
		procs = defaultProcs(one)
	}
	before := runtime.GOMAXPROCS(procs)
	defer runtime.GOMAXPROCS(before)
	run := one.Header()
	run.GOMAXPROCS = procs
	report := func(p Progress) {
		if progress != nil {
			p.Backend = one.Backend.Label()
			progress(p)
		}
	}
	var err error
	switch one.Workload.Kind {
	case WorkloadPropose, WorkloadSnapshot, WorkloadAge, WorkloadTrace:
		if one.Groups > 1 {
			err = runGroups(ctx, one, &run, report)
			break
		}
		err = runCluster(ctx, one, &run, report)
	case WorkloadRestart:
		err = runRestart(ctx, one, &run, report)
	default:
		err = usage("workload %s is not known to this build", one.Workload)
	}
	if err != nil {
		run.Error = err.Error()
		return run, fmt.Errorf("run %s: %w", one.ID(), err)
	}
	return run, nil
}

// defaultProcs is one P for each core, and one for each node that may hold a P in
// a blocking fsync: with no spare one, goroutines that could run wait until the
// runtime's monitor takes the P back, more than half of the CPU idles, and the
// latency of fsync is inflated by scheduling. A backend that never blocks gets no
// spare ones, which would only cost it.
func defaultProcs(one One) int {
	if one.Backend.Durability == backends.None {
		return runtime.NumCPU()
	}
	spare := one.Nodes
	if one.Groups > 1 {
		// Where every group has a log of its own, each may hold one. The groups of one
		// store get as many, so that the two can be compared.
		spare = min(one.Nodes*one.Groups, maxSpareProcs)
	}
	return runtime.NumCPU() + spare
}

// maxSpareProcs bounds them: what is beyond costs a little and helps nobody.
const maxSpareProcs = 30

// Header is what is known of a run before it starts.
func (o One) Header() result.Run {
	run := result.Run{
		ID: o.ID(), Block: o.Block, Order: o.Order, Started: time.Now().UTC(),
		Backend: o.Backend.Name, Params: o.Backend.Preset(), Durability: string(o.Backend.Durability),
		Transport: o.Transport, Loop: string(o.Loop), Raft: string(o.Raft), Nodes: o.Nodes, Batch: o.Batch, SnapshotMode: string(o.Snapshots),
		Workload: string(o.Workload.Kind), ReadRatio: o.ReadRatio, ValueBytes: o.meanValue(), StateBytes: o.StateSize,
		SlowDisk: o.SlowDisk.String(), Settings: o.settings(),
		Load: result.Load{Kind: string(o.Load.Kind), Clients: o.Load.Clients, Rate: o.Load.Rate, Point: o.Load.Point, Share: o.Load.Share,
			SLO: o.Load.objective(), Step: o.Load.Step},
	}
	if o.Laps > 1 {
		run.Lap = o.Lap
	}
	if o.Placement.remote() {
		run.Placement = string(o.Placement)
	}
	if o.Groups > 1 {
		run.Groups = o.Groups
	}
	if o.ValueSizeMax > o.ValueSize {
		run.ValueSize = fmt.Sprintf("%d-%d", o.ValueSize, o.ValueSizeMax)
	}
	if o.Faults != "" {
		run.Faults = &result.Faults{Timeline: o.timeline()}
	}
	return run
}

// runCluster runs the phases: start, warm-up, steady gate, measure, drain,
// snapshot installs, verify.
func runCluster(ctx context.Context, one One, run *result.Run, report func(Progress)) (err error) {
	payloads, trace, err := one.payloads()
	if err != nil {
		return err
	}
	if trace != nil {
		run.ValueBytes, run.ValueSize = payloads.Mean(), fmt.Sprintf("%d-%d", slices.Min(trace.Sizes), slices.Max(trace.Sizes))
	}
	if one.Workload.Kind == WorkloadAge {
		one.SnapshotEntries = neverSnapshot
	}
	one.NoSnapshots = one.NoSnapshots || one.Faults != "" // a fault is enough for one run
	report(Progress{Phase: "start"})
	if err := one.fillRoundTrip(ctx, run); err != nil {
		return err
	}
	c, err := startCluster(ctx, one, payloads)
	if err != nil {
		return err
	}
	running := true
	defer func() {
		if running {
			err = errors.Join(err, c.stop())
		}
	}()
	switch one.Workload.Kind {
	case WorkloadPropose, WorkloadTrace:
		if err = c.measure(ctx, run, report); err == nil {
			err = MergeParts(run, []Part{c.part()})
		}
	case WorkloadAge:
		err = one.profiled(func() error { return c.age(ctx, run, report) })
	}
	if err != nil {
		return err
	}
	if err := c.installs(ctx, run, report); err != nil {
		return err
	}
	behind, err := c.drain(ctx, DrainDeadline)
	if err != nil {
		return err
	}
	if len(behind) > 0 {
		run.Flags = append(run.Flags, "follower_behind")
	}
	c.checkHashes(run, behind)
	MergeOutcomes(run, []Outcome{c.outcome()})
	running = false
	if err := c.stop(); err != nil {
		return err
	}
	report(Progress{Phase: "verify"})
	verified, restart, err := c.verifyCluster(behind)
	if snap := run.Snapshot; snap != nil && snap.HashOK != nil && !*snap.HashOK {
		verified.OK = false
		verified.Wrong++
		verified.Detail = strings.TrimPrefix(verified.Detail+"; the state that a snapshot restored differs from the leader's", "; ")
	}
	run.Verified, run.Restart = &verified, restart
	if trace != nil {
		c.fillTrace(run, trace)
	}
	return err
}

// DrainDeadline bounds how long followers may take to catch up after the load.
const DrainDeadline = 60 * time.Second

// measure runs the load: warm-up, steady gate, measured time, drain.
func (c *cluster) measure(ctx context.Context, run *result.Run, report func(Progress)) error {
	g, err := c.generator(c.one.Load, 0, c.one.ReadRatio)
	if err != nil {
		return err
	}
	c.slowDown()
	defer c.slow.end()
	g.Start(ctx, c.o.base)
	stopped := false
	defer func() {
		if !stopped {
			_ = g.Stop() // an error before is the one to tell
		}
	}()
	if err := c.warmUp(ctx, g, report); err != nil {
		return err
	}
	stopProfiles, err := c.one.startProfiles()
	if err != nil {
		return err
	}
	c.beginMeasuring()
	g.Measure()
	c.slow.measure()
	if c.faults != nil {
		c.faults.begin()
	}
	windows, err := c.run(ctx, g, report)
	if err != nil {
		return errors.Join(err, stopProfiles())
	}
	g.EndMeasure()
	c.endMeasuring()
	if err := stopProfiles(); err != nil {
		return err
	}
	if c.faults != nil {
		if err := c.faults.end(ctx); err != nil {
			return err
		}
	}
	report(Progress{Phase: "drain"})
	if err := c.wait(ctx, func() bool { return g.Pending() == 0 }); err != nil {
		return err
	}
	stopped = true
	if err := g.Stop(); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	g.Fill(run)
	run.Windows = windows
	if c.one.Load.Rate > 0 {
		run.Backlog = slices.Clone(c.backlog)
	}
	run.Flags = append(run.Flags, c.loadFlags(run)...)
	c.fillSaves(run)
	if c.faults != nil {
		c.faults.fill(run) // stalls of a slow disk too
	} else if c.slow.Role != "" {
		run.Events = c.o.eventsFrom(c.slow.begun)
	}
	return nil
}

// beginMeasuring begins the measured time for all that counts besides the load.
func (c *cluster) beginMeasuring() {
	c.before = c.usage()
	c.syncs.begin()
	c.o.measuring.Store(true)
	if c.measuring != nil {
		c.measuring(true)
	}
}

// endMeasuring ends it.
func (c *cluster) endMeasuring() {
	if c.measuring != nil {
		c.measuring(false)
	}
	c.o.measuring.Store(false)
	c.syncs.end()
	c.after = c.usage()
}

// run waits for the end of the measured time, or of the operations asked for,
// and returns the windows of a time.
func (c *cluster) run(ctx context.Context, g *load.Generator, report func(Progress)) ([]float64, error) {
	if c.one.Ops == 0 {
		return c.windows(ctx, g, c.one.Duration, "measure", report)
	}
	goal := c.o.done() + c.one.Ops
	return nil, c.wait(ctx, func() bool { return c.o.done() >= goal })
}

// generator is that of a load; workers that follow others have other numbers.
func (c *cluster) generator(l Load, firstWorker int, readRatio float64) (*load.Generator, error) {
	var observe func(time.Duration)
	if c.one.Watch != nil {
		observe = c.one.Watch.Responded
	}
	g, err := load.NewGenerator(load.Config{
		Clients: l.Clients, Rate: l.Rate, Poisson: l.Kind == LoadPoisson, ReadRatio: readRatio,
		Seed: c.one.Seed, Payloads: c.payloads, Timeout: c.one.Timeout, FirstWorker: firstWorker, Off: c.one.NoRecorders,
		Batches: l.Kind == LoadTrace, Observe: observe, TimersOnly: c.one.timersOnly,
	}, c.target())
	if err != nil {
		return nil, err
	}
	c.o.generator.Store(g)
	return g, nil
}

// The steady gate of the method: five windows whose throughput ranges over at
// most 20 % of their mean and drifts by at most 10 %.
const (
	gateWindows = 5
	gateRange   = 0.20
	gateDrift   = 0.10
	// gateTries bounds the warm-up: a load that is not steady by then is measured
	// all the same, and the run is flagged by its own windows.
	gateTries = 2
)

// warmUp loads the cluster until it is steady, for the warm-up time at least and
// twice that at most.
func (c *cluster) warmUp(ctx context.Context, g *load.Generator, report func(Progress)) error {
	for range gateTries {
		windows, err := c.windows(ctx, g, c.one.Warmup, "warm-up", report)
		if err != nil || steady(windows) {
			return err
		}
	}
	return nil
}

// windows lets the load run for a time and returns the throughput of five equal
// parts of it.
func (c *cluster) windows(ctx context.Context, g *load.Generator, total time.Duration, phase string, report func(Progress)) ([]float64, error) {
	if total == 0 {
		return nil, nil
	}
	windows := make([]float64, 0, gateWindows)
	c.backlog = c.backlog[:0]
	start := time.Now()
	last, lastAt, told := c.o.done(), start, start
	play, tick := c.faults, min(50*time.Millisecond, total/(4*gateWindows))
	if play != nil && play.start == 0 {
		play = nil // in the warm-up nothing happens
	}
	if play != nil {
		tick = min(tick, faultStep)
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for len(windows) < gateWindows {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if err := c.failed(); err != nil {
			return nil, err
		}
		if play != nil {
			if err := play.step(); err != nil {
				return nil, err
			}
		}
		now := time.Now()
		if now.Sub(start) >= total*time.Duration(len(windows)+1)/gateWindows {
			n := c.o.done()
			windows = append(windows, float64(n-last)/now.Sub(lastAt).Seconds())
			last, lastAt = n, now
			c.backlog = append(c.backlog, g.Pending())
		}
		if now.Sub(told) >= 200*time.Millisecond {
			told = now
			rate := 0.0
			if len(windows) > 0 {
				rate = windows[len(windows)-1]
			}
			report(Progress{Phase: phase, Ops: rate, P99: g.P99(), Elapsed: now.Sub(start)})
		}
	}
	return windows, nil
}

// steady applies the gate.
func steady(windows []float64) bool {
	if len(windows) < gateWindows {
		return false
	}
	lo, hi, sum := windows[0], windows[0], 0.0
	for _, w := range windows {
		lo, hi, sum = min(lo, w), max(hi, w), sum+w
	}
	mean := sum / float64(len(windows))
	if mean == 0 {
		return false
	}
	return (hi-lo)/mean <= gateRange && drift(windows, mean) <= gateDrift
}

// drift is the change over the windows by the least-squares line, relative to
// their mean.
func drift(windows []float64, mean float64) float64 {
	n := float64(len(windows))
	var sxy, sxx float64
	for i, w := range windows {
		x := float64(i) - (n-1)/2
		sxy += x * (w - mean)
		sxx += x * x
	}
	slope := sxy / sxx * (n - 1) / mean
	return max(slope, -slope)
}

// generatorLag is the share of the response p99 that the generator's own lag may
// reach before the run measures the generator.
const generatorLag = 0.10

// loadFlags are the reasons to doubt a run that its own figures show.
func (c *cluster) loadFlags(run *result.Run) []string {
	var flags []string
	disturbed := c.faults != nil // on purpose; the run says so itself
	if c.one.Ops == 0 && !steady(run.Windows) && !disturbed {
		flags = append(flags, "not_steady")
	}
	return append(flags, figureFlags(run, disturbed)...)
}

// figureFlags are those that the figures of a run show; errors are none where they are
// meant.
func figureFlags(run *result.Run, meant bool) []string {
	var flags []string
	if run.Ops == 0 {
		flags = append(flags, "nothing_committed")
	}
	if run.Errors > 0 && !meant {
		flags = append(flags, "errors")
	}
	if run.Lag.Count > 0 && float64(run.Lag.P99) > generatorLag*float64(run.Response.P99) {
		flags = append(flags, "generator_limited")
	}
	return flags
}

// fillSaves writes what the leaders' storage was seen to do.
func (c *cluster) fillSaves(run *result.Run) {
	hist, entries, bytes := load.NewHistogram(), int64(0), int64(0)
	var members []*member
	for _, g := range c.every() {
		members = append(append(members, g.members...), g.past...)
	}
	for _, m := range members { // of which each may have led for a time
		s := m.storage
		s.mu.Lock()
		hist.Merge(s.hist)
		entries, bytes = entries+s.entries, bytes+s.bytes
		s.mu.Unlock()
	}
	run.Save = load.Summary(hist, true)
	if n := hist.TotalCount(); n > 0 {
		perSave := float64(entries) / float64(n)
		run.EntriesPerSave, run.SaveBytes = &perSave, float64(bytes)/float64(n)
	}
}
