package bench

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/env"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
)

// The age workload runs cycles over one store: a burst that makes the log grow,
// the truncation of everything by a snapshot, and steady load, during which Save is
// timed. Space that a burst took and a truncation freed is what ages a store: free
// lists that grow (vault#11072, bolt#640, bbolt#401), value logs and levels that
// wait for their collection. The first cycles, which the last are compared with,
// have no burst: what a single one leaves behind would else be in both.
const (
	// ageCycles leaves six cycles at either end, the fewest that an interval can
	// be given for, and eight between them.
	ageCycles = 20
	ageEnd    = stats.MinBlocks
	// ageBurstBytes is what one burst adds to the log, within the bounds of
	// entries: half of a segment of etcd's WAL.
	ageBurstBytes   = 32 << 20
	ageBurstFewest  = 1000
	ageBurstMost    = 1_000_000
	ageBurstClients = 1024
	// ageShare is the measured part of a cycle, of --duration.
	ageShare = 5
)

// ageSteady is how long the steady load of one cycle is measured.
func (o One) ageSteady() time.Duration { return o.Duration / ageShare }

// age runs the cycles and fills the run with their sum.
func (c *cluster) age(ctx context.Context, run *result.Run, report func(Progress)) error {
	sum := ageSum{response: load.NewHistogram(), save: load.NewHistogram()}
	for n := 1; n <= c.one.Cycles; n++ {
		cycle, err := c.cycle(ctx, n, &sum, report)
		if err != nil {
			return fmt.Errorf("cycle %d: %w", n, err)
		}
		run.Cycles = append(run.Cycles, cycle)
	}
	sum.fill(run)
	c.fillSaves(run)
	run.Save = load.Summary(sum.save, true)
	if c.one.Load.Kind == LoadOpen || c.one.Load.Kind == LoadPoisson {
		run.Lag, run.Service = sum.lag, sum.service
	}
	mergeCosts(run, []Part{c.part()})
	run.Flags = append(run.Flags, figureFlags(run, false)...)
	run.Aging = aging(run)
	return nil
}

// ageSum adds up the cycles.
type ageSum struct {
	ops, errors    int64
	elapsed        time.Duration
	response, save *hdrhistogram.Histogram
	lag, service   result.Latency // of the worst cycle by lag
}

func (s *ageSum) add(steady *result.Run) error {
	s.ops += steady.Ops
	s.errors += steady.Errors
	s.elapsed += steady.Elapsed
	if steady.Lag.P99 >= s.lag.P99 {
		s.lag, s.service = steady.Lag, steady.Service
	}
	if steady.Response.Count == 0 {
		return nil
	}
	h, err := hdrhistogram.Decode([]byte(steady.Response.Encoded))
	if err != nil {
		return fmt.Errorf("add up response times: %w", err)
	}
	s.response.Merge(h)
	return nil
}

func (s *ageSum) fill(run *result.Run) {
	run.Ops, run.Errors, run.Elapsed = s.ops, s.errors, s.elapsed
	if s.elapsed > 0 {
		run.Throughput = float64(s.ops) / s.elapsed.Seconds()
	}
	run.Response = load.Summary(s.response, true)
	run.Service = load.Summary(s.response, false)
}

// cycle is one burst but in a young store, truncation, and steady load.
func (c *cluster) cycle(ctx context.Context, n int, sum *ageSum, report func(Progress)) (result.Cycle, error) {
	report(Progress{Phase: fmt.Sprintf("cycle %d", n)})
	burst, steady := (2*n)%ageWorkerSets*ageWorkers, (2*n+1)%ageWorkerSets*ageWorkers
	young := n <= ageEnd
	if !young {
		if err := c.burst(ctx, burst); err != nil {
			return result.Cycle{}, fmt.Errorf("burst: %w", err)
		}
	}
	if err := c.truncate(ctx); err != nil {
		return result.Cycle{}, fmt.Errorf("truncate: %w", err)
	}
	var r result.Run
	if err := c.steadyPhase(ctx, steady, &r, report); err != nil {
		return result.Cycle{}, fmt.Errorf("steady load: %w", err)
	}
	if err := sum.add(&r); err != nil {
		return result.Cycle{}, err
	}
	cycle := result.Cycle{Cycle: n, Young: young, Ops: r.Throughput}
	cycle.Save = c.takeSaves(sum.save)
	if c.one.Backend.Durability != backends.None {
		for _, m := range c.members {
			used, err := env.DiskUsage(m.dir)
			if err != nil {
				return cycle, fmt.Errorf("disk use of node %d: %w", m.id, err)
			}
			cycle.Disk += used
		}
	}
	return cycle, nil
}

// Generators that follow each other differ in the numbers of their workers.
const (
	ageWorkers    = 8
	ageWorkerSets = 24
)

// burst makes the log grow, unmeasured, by so many entries as fit its size.
func (c *cluster) burst(ctx context.Context, firstWorker int) error {
	entries := min(max(c.one.BurstBytes/int64(c.payloads.Mean()), ageBurstFewest), ageBurstMost)
	goal := c.o.applied.Load() + entries
	return c.phase(ctx, Closed(ageBurstClients), firstWorker, 0, nil, func(*load.Generator) error {
		return c.wait(ctx, func() bool { return c.o.applied.Load() >= goal })
	})
}

// steadyPhase applies the load of the run and measures it.
func (c *cluster) steadyPhase(ctx context.Context, firstWorker int, run *result.Run, report func(Progress)) error {
	return c.phase(ctx, c.one.Load, firstWorker, c.one.ReadRatio, run, func(g *load.Generator) error {
		begin := c.usage()
		c.o.measuring.Store(true)
		g.Measure()
		_, err := c.windows(ctx, g, c.one.ageSteady(), "steady", report)
		g.EndMeasure()
		c.o.measuring.Store(false)
		c.used(begin, c.usage())
		return err
	})
}

// phase runs a load of its own until during returns, lets it drain, and fills run
// where it is not nil.
func (c *cluster) phase(ctx context.Context, l Load, firstWorker int, readRatio float64, run *result.Run, during func(*load.Generator) error) error {
	g, err := c.generator(l, firstWorker, readRatio)
	if err != nil {
		return err
	}
	g.Start(ctx, c.o.base)
	err = during(g)
	g.EndMeasure()
	if err == nil {
		err = c.wait(ctx, func() bool { return g.Pending() == 0 })
	}
	if stopErr := g.Stop(); err == nil && stopErr != nil {
		err = fmt.Errorf("load: %w", stopErr)
	}
	if err == nil && run != nil {
		g.Fill(run)
	}
	return err
}

// takeSaves is what the leader's Saves took since it was last asked; they are
// added to sum.
func (c *cluster) takeSaves(sum *hdrhistogram.Histogram) result.Latency {
	s := c.o.proposer.Load().storage
	s.mu.Lock()
	defer s.mu.Unlock()
	out := load.Summary(s.hist, false)
	sum.Merge(s.hist)
	s.hist.Reset()
	return out
}

// truncate waits until every node has applied everything, and has each make a
// snapshot, which frees all of its log.
func (c *cluster) truncate(ctx context.Context) error {
	behind, err := c.drain(ctx, DrainDeadline)
	if err != nil {
		return err
	}
	if len(behind) > 0 {
		return fmt.Errorf("nodes %v had not applied the log within %v", behind, DrainDeadline)
	}
	for _, m := range c.members {
		if err := m.node.Snapshot(ctx, ageKeep); err != nil {
			return fmt.Errorf("snapshot of node %d: %w", m.id, err)
		}
	}
	return nil
}

// ageKeep entries stay in memory at a truncation, for a follower that has not
// heard of the last commit yet.
const ageKeep = 1000

// aging compares the last cycles of a run with the first: the ratio of the
// medians with an interval and a verdict, as between two suites of which each
// cycle is a run. A percentile that a cycle holds too few Saves for is left out.
func aging(run *result.Run) []result.Comparison {
	if len(run.Cycles) < 2*ageEnd {
		return nil
	}
	side := func(label string, cycles []result.Cycle) stats.Side {
		s := stats.Side{Label: label}
		for i, cy := range cycles {
			r := result.Run{Block: i + 1, Backend: run.Backend, Params: run.Params, Durability: run.Durability, Save: cy.Save, Throughput: cy.Ops}
			if cy.Disk > 0 {
				r.Bytes = &result.Bytes{Disk: &cy.Disk}
			}
			s.Runs = append(s.Runs, r)
		}
		return s
	}
	table, err := stats.CompareSuites(side("first", run.Cycles[:ageEnd]), side("last", run.Cycles[len(run.Cycles)-ageEnd:]),
		stats.Options{Seed: int64(run.Block), Metrics: []string{"save.p50", "save.p99", "bytes.disk"}})
	if err != nil {
		return nil // nothing was measured
	}
	return table
}

// neverSnapshot keeps nodes from snapshots of their own.
const neverSnapshot = math.MaxUint64
