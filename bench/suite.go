package bench

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// suite is a [Run] under way.
type suite struct {
	spec    *Spec
	ws      *Workspace
	res     *result.Result
	done    map[string]int // runs of an earlier process, by ID: where they are in res.Runs
	planned int            // runs, as far as they can be known
	order   int            // of the last run
	clock   suiteClock
}

// runBlocks makes every run that is not made yet.
func (s *Spec) runBlocks(ctx context.Context, ws *Workspace, res *result.Result) error {
	su := &suite{spec: s, ws: ws, res: res, done: map[string]int{}, planned: s.Repeats * s.perBlock()}
	for i, r := range res.Runs {
		su.done[r.ID] = i
	}
	res.Planned = su.planned
	su.clock = suiteClock{start: time.Now(), total: su.planned - len(su.done)}
	for block := 1; block <= s.Repeats; block++ {
		if err := su.block(ctx, block); err != nil {
			return err
		}
	}
	if su.calibrated(s.Repeats+1) && len(su.done) == len(res.Runs) {
		return nil // nothing was left to do
	}
	return s.calibrate(ctx, ws, res, s.Repeats+1)
}

// block makes the runs of one block.
func (su *suite) block(ctx context.Context, block int) error {
	plan := su.spec.plan(block)
	if !su.calibrated(block) || !su.finished(plan) {
		if err := su.spec.calibrate(ctx, su.ws, su.res, block); err != nil {
			return err
		}
	}
	for _, one := range plan {
		if err := su.series(ctx, seriesOf(one)); err != nil {
			return err
		}
	}
	return nil
}

// calibrated reports whether an earlier process measured the device floor before
// a block.
func (su *suite) calibrated(block int) bool {
	return slices.ContainsFunc(su.res.Calibration, func(c result.Calibration) bool { return c.Block == block })
}

// finished reports whether an earlier process made every run of a plan. Of a
// search it cannot be known without going through it.
func (su *suite) finished(plan []One) bool {
	for _, one := range plan {
		ser := seriesOf(one)
		var made []result.Run
		for {
			next, ok := ser.next(made)
			if !ok {
				break
			}
			i, ok := su.done[next.ID()]
			if !ok {
				return false
			}
			made = append(made, su.res.Runs[i])
		}
	}
	return true
}

// series makes the runs of one series, each after the one that it depends on.
func (su *suite) series(ctx context.Context, ser series) error {
	var made []result.Run
	for {
		one, ok := ser.next(made)
		if !ok {
			break
		}
		su.order++
		one.Order = su.order
		if i, ok := su.done[one.ID()]; ok {
			made = append(made, su.res.Runs[i])
			continue
		}
		run, err := su.run(ctx, one)
		if err != nil {
			return err
		}
		made = append(made, run)
	}
	if extra := len(made) - ser.planned(); extra != 0 {
		su.planned += extra
		su.clock.total += extra
		su.res.Planned = su.planned
	}
	ser.conclude(made, su.res)
	return nil
}

// run makes one run and notes it in the result.
func (su *suite) run(ctx context.Context, one One) (result.Run, error) {
	run, err := su.runIn(ctx, one)
	if ctx.Err() != nil {
		return run, context.Cause(ctx) // the run that was cut short is none
	}
	su.res.Runs = append(su.res.Runs, run)
	if err != nil {
		return run, err
	}
	su.clock.finished++
	su.spec.tell(Progress{Phase: "done", Block: one.Block, Blocks: su.spec.Repeats, Order: one.Order, Runs: su.planned,
		Backend: one.Backend.Label(), Left: su.clock.left(), Run: &su.res.Runs[len(su.res.Runs)-1]})
	return run, su.checkpoint()
}

// checkpoint hands over what is there so far, as the result of an interrupted
// suite: it is one if this process is killed.
func (su *suite) checkpoint() error {
	if su.spec.Checkpoint == nil {
		return nil
	}
	part := *su.res
	part.Interrupted, part.Ended = true, time.Now().UTC()
	if err := su.spec.Checkpoint(&part); err != nil {
		return fmt.Errorf("keep what is finished: %w", err)
	}
	return nil
}

// runIn makes one run in a directory of its own, which it frees. A run of which nothing was
// heard before it failed, since its process died, is noted by what was asked for.
func (su *suite) runIn(ctx context.Context, one One) (run result.Run, err error) {
	defer func() {
		if err != nil && run.ID == "" {
			run = one.Header()
			run.Error = err.Error()
		}
	}()
	dir, err := su.ws.Make("run-" + fileName(one.ID()))
	if err != nil {
		return result.Run{}, err
	}
	one.RunDir = dir
	s := su.spec
	if one.Workload.Kind == WorkloadRestart && s.WriteLog != nil {
		err = s.WriteLog(ctx, one)
		one.Written = true
	}
	if err == nil {
		run, err = s.RunOne(ctx, one, func(p Progress) {
			p.Block, p.Blocks, p.Order, p.Runs = one.Block, s.Repeats, one.Order, su.planned
			p.Left = su.clock.left()
			s.tell(p)
		})
	}
	return run, errors.Join(err, su.ws.Discard(dir))
}

// fileName replaces what a file system or a shell may not like in a name.
func fileName(id string) string {
	return strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r == 0 || r == ' ' {
			return '_'
		}
		return r
	}, id)
}

func (s *Spec) tell(p Progress) {
	if s.Progress != nil {
		s.Progress(p)
	}
}

// suiteClock estimates what is left from the runs that are finished.
type suiteClock struct {
	start           time.Time
	finished, total int
}

func (c *suiteClock) left() time.Duration {
	if c.finished == 0 {
		return 0
	}
	each := time.Since(c.start) / time.Duration(c.finished)
	return each * time.Duration(max(c.total-c.finished, 0))
}

// What a run takes besides its load, and what the device floor takes before each
// block and after the last, as seen on small machines. It is for estimates only.
const (
	overheadEach    = 1500 * time.Millisecond
	overheadMiB     = 25 * time.Millisecond // of state that is installed, or log that is written and opened
	calibrationEach = 4 * time.Second
)

// Estimate is how many runs a filled suite makes (those of a search are a guess)
// and about how long they take.
func (s *Spec) Estimate() (runs int, took time.Duration) {
	for _, one := range s.plan(1) {
		n := seriesOf(one).planned()
		runs += n
		took += time.Duration(n) * one.estimate()
	}
	took *= time.Duration(s.Repeats)
	if !s.NoCalibrate {
		took += time.Duration(s.Repeats+1) * calibrationEach
	}
	return runs * s.Repeats, took
}

func (o One) estimate() time.Duration {
	size := time.Duration(o.StateSize>>20) * overheadMiB
	switch o.Workload.Kind {
	case WorkloadRestart:
		return overheadEach + 2*size
	case WorkloadSnapshot:
		return overheadEach + installRepeats*time.Duration(o.Nodes)*size
	case WorkloadAge:
		return overheadEach + time.Duration(o.Cycles)*(o.ageSteady()+overheadEach/3)
	}
	return overheadEach + o.Warmup + o.Duration
}

// configs are the configurations of the suite: this one, and those of the matrix.
func (s *Spec) configs() []*Spec {
	out := []*Spec{s}
	if len(s.Matrix) > 0 {
		out = nil
	}
	for i := range s.Matrix {
		out = append(out, &s.Matrix[i])
	}
	return out
}

// digest identifies what is measured: two suites with one digest make the same
// runs, but for the number of blocks.
func (s *Spec) digest() (string, error) {
	h := sha256.New()
	enc := json.NewEncoder(h)
	for _, c := range s.configs() {
		what := *c
		what.Dir, what.Keep, what.Repeats, what.CPUProfile, what.ExecTrace = "", false, 0, "", ""
		labels := make([]string, len(c.Backends))
		for i, b := range c.Backends {
			labels[i] = b.Label()
		}
		if err := errors.Join(enc.Encode(labels), enc.Encode(what)); err != nil {
			return "", fmt.Errorf("describe the suite: %w", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:12]), nil
}
