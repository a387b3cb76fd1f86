package bench

import (
	"errors"
	"math"

	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/bench/result"
)

// checkTraces reads every trace of the suite once, so that a wrong directory is
// told before anything starts.
func (s *Spec) checkTraces() error {
	var errs []error
	for _, c := range s.configs() {
		if c.Workload.Kind == WorkloadTrace {
			_, err := c.trace()
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// trace reads the trace of the workload.
func (s *Spec) trace() (*load.Trace, error) {
	if s.ReadTrace == nil {
		return nil, usage("workload %s: this build cannot read traces", s.Workload)
	}
	t, err := s.ReadTrace(s.Workload.Dir)
	if err == nil {
		err = t.Check()
	}
	if err != nil {
		return nil, usage("workload %s: %v", s.Workload, err)
	}
	return t, nil
}

// payloads makes the values of a run.
func (o One) payloads() (*load.Payloads, *load.Trace, error) {
	if o.Workload.Kind != WorkloadTrace {
		p, err := load.NewPayloads(o.Seed, o.ValueSize, max(o.ValueSize, o.ValueSizeMax), o.stateKeys(), o.Compressible)
		return p, nil, err
	}
	t, err := o.trace()
	if err != nil {
		return nil, nil, err
	}
	p, err := load.NewTracePayloads(o.Seed, t, o.Load.Kind == LoadTrace, o.stateKeys(), o.Compressible)
	return p, t, err
}

// fillTrace compares the entries that were acknowledged with those of the trace.
func (c *cluster) fillTrace(run *result.Run, t *load.Trace) {
	var sizes []int
	c.o.journal.each(func(_, _, id uint64) { sizes = append(sizes, c.payloads.Size(id)) })
	run.Trace = &result.Trace{
		Dir: c.one.Workload.Dir, Entries: int64(len(t.Sizes)), Batches: int64(len(t.Batches)), Deciles: load.Deciles(t.Sizes),
	}
	if len(sizes) == 0 {
		return
	}
	run.Trace.Replayed = load.Deciles(sizes)
	run.Trace.WorstGap = worstGap(run.Trace.Deciles, run.Trace.Replayed)
}

// worstGap is the largest relative difference between the nine deciles of two
// sets. The smallest and the largest size are one entry each, which a run need not
// have met.
func worstGap(want, got []int64) float64 {
	worst := 0.0
	for i := 1; i < len(want)-1; i++ {
		worst = max(worst, math.Abs(float64(got[i])/math.Max(float64(want[i]), 1)-1))
	}
	return worst
}

// checkWorkload checks what the workload and the load demand of each other.
func (s *Spec) checkWorkload(check func(ok bool, format string, args ...any)) {
	check(s.Workload.Kind == WorkloadTrace || s.Load.Kind != LoadTrace, "load trace needs the workload trace:DIR, not %s", s.Workload)
	check(s.Load.Kind != LoadTrace || s.ReadRatio == 0, "load trace replays what was written; it has no reads")
	varies := s.Load.Kind == LoadCurve || s.Load.Kind == LoadSearch
	check(!varies || s.Workload.Kind == WorkloadPropose || s.Workload.Kind == WorkloadTrace,
		"load %s needs the workload propose or trace, not %s", s.Load, s.Workload)
	if s.Workload.Kind == WorkloadRestart {
		kept := false
		for _, b := range s.Backends {
			kept = kept || b.Durability != "none"
		}
		check(kept, "workload restart opens what was kept, and %s keeps nothing", s.Backends[0].Label())
	}
	if s.Workload.Kind == WorkloadAge {
		check(s.Load.Kind == LoadClosed || s.Load.Kind == LoadOpen || s.Load.Kind == LoadPoisson,
			"workload age needs a closed, open or poisson load, not %s", s.Load)
		check(s.Cycles >= 1 && s.Cycles <= maxRepeats, "cycles %d: want 1 to %d", s.Cycles, maxRepeats)
		check(s.BurstBytes >= 0 && s.BurstBytes <= maxStateBytes, "burst of %d B: want 0 to 8 GiB", s.BurstBytes)
	}
}
