package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/disk"
	"github.com/raftbench/raftbench/bench/env"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
)

// Run makes every run of a suite and returns what was measured. It returns the
// result also with an error, as far as it got: after an interruption (ctx) every
// run that was finished is in it.
//
// Errors of input are of type *[UsageError]. A run that lost an acknowledged
// entry is no error here: look at its Verified, or [Lost].
func Run(ctx context.Context, spec Spec) (*result.Result, error) {
	if err := spec.Fill(); err != nil {
		return nil, err
	}
	if err := spec.checkParams(); err != nil {
		return nil, err
	}
	ws, err := OpenWorkspace(spec.Dir, spec.Nodes, spec.Keep)
	if err != nil {
		return nil, err
	}
	res := spec.newResult()
	res.Env = env.Collect(ws.Path())
	ticks := env.Now()
	err = spec.runBlocks(ctx, ws, res)
	after := env.Pressure(ticks)
	res.Env.After = &after
	res.Interrupted = ctx.Err() != nil
	spec.conclude(res)
	return res, errors.Join(err, ws.Close())
}

// checkParams asks every backend with settings whether it accepts them, by
// opening it on a directory that is not there: settings are checked first.
func (s *Spec) checkParams() error {
	var errs []error
	for _, b := range s.Backends {
		if len(b.Preset()) == 0 {
			continue
		}
		if err := tryParams(b); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func tryParams(b backends.Backend) error {
	scratch, err := os.MkdirTemp("", "raftbench-params-")
	if err != nil {
		return fmt.Errorf("check the settings of %s: %w", b.Label(), err)
	}
	storage, _, err := b.Open(backends.Options{Dir: filepath.Join(scratch, "none")})
	if err == nil {
		err = storage.Close()
	}
	var bad *backends.ParamError
	if errors.As(err, &bad) {
		err = &UsageError{Reason: err.Error()}
	} else {
		err = nil // it went past its settings, which is all that was asked
	}
	return errors.Join(err, os.RemoveAll(scratch))
}

// plan lists the runs of one block in seeded random order.
func (s *Spec) plan(block int) []One {
	rng := rand.New(rand.NewPCG(uint64(s.Seed), uint64(block)))
	sizes := s.StateSizes
	if s.Workload.Kind == WorkloadPropose || len(sizes) == 0 {
		sizes = []int64{0}
	}
	var ones []One
	for _, b := range s.Backends {
		for _, size := range sizes {
			ones = append(ones, One{Spec: *s, Backend: b, Block: block, StateSize: size})
		}
	}
	rng.Shuffle(len(ones), func(i, j int) { ones[i], ones[j] = ones[j], ones[i] })
	return ones
}

// perBlock is how many runs a block holds.
func (s *Spec) perBlock() int { return len(s.plan(1)) }

func (s *Spec) runBlocks(ctx context.Context, ws *Workspace, res *result.Result) error {
	done := map[string]bool{}
	for _, r := range s.Done {
		done[r.ID] = true
		res.Runs = append(res.Runs, r)
	}
	res.Planned = s.Repeats * s.perBlock()
	clock := &suiteClock{start: time.Now(), total: res.Planned - len(s.Done)}
	order := 0
	for block := 1; block <= s.Repeats; block++ {
		if err := s.calibrate(ctx, ws, res, block); err != nil {
			return err
		}
		for _, one := range s.plan(block) {
			order++
			one.Order = order
			if done[one.ID()] {
				continue
			}
			run, err := s.runIn(ctx, ws, one, clock)
			if ctx.Err() != nil {
				return context.Cause(ctx) // the run that was cut short is none
			}
			res.Runs = append(res.Runs, run)
			if err != nil {
				return err
			}
			clock.finished++
			s.tell(Progress{Phase: "done", Block: block, Blocks: s.Repeats, Order: order, Runs: res.Planned,
				Backend: one.Backend.Label(), Left: clock.left(), Run: &res.Runs[len(res.Runs)-1]})
		}
	}
	return s.calibrate(ctx, ws, res, s.Repeats+1)
}

// runIn makes one run in a directory of its own, which it frees.
func (s *Spec) runIn(ctx context.Context, ws *Workspace, one One, clock *suiteClock) (result.Run, error) {
	dir, err := ws.Make("run-" + one.ID())
	if err != nil {
		return result.Run{}, err
	}
	one.RunDir = dir
	run, err := s.RunOne(ctx, one, func(p Progress) {
		p.Block, p.Blocks, p.Order, p.Runs = one.Block, s.Repeats, one.Order, s.Repeats*s.perBlock()
		p.Left = clock.left()
		s.tell(p)
	})
	return run, errors.Join(err, ws.Discard(dir))
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
	return each * time.Duration(c.total-c.finished)
}

// newResult is the head of a result.
func (s *Spec) newResult() *result.Result {
	now := time.Now().UTC()
	return &result.Result{
		Schema: result.Schema, Started: now, Seed: s.Seed,
		ID: fmt.Sprintf("%s-%06x", now.Format("20060102T150405Z"), rand.Uint32()&0xffffff),
	}
}

// harnessShare is the share of the mem backend's throughput above which a result
// says more of the harness than of the backend.
const harnessShare = 0.80

// conclude adds what can be said only with all runs at hand.
func (s *Spec) conclude(res *result.Result) {
	res.Ended = time.Now().UTC()
	applyFloor(res)
	applyEnv(res)
	ceiling := map[int]float64{}
	for _, r := range res.Runs {
		if r.Durability == string(backends.None) {
			ceiling[r.Block] = max(ceiling[r.Block], r.Throughput)
		}
	}
	for i := range res.Runs {
		r := &res.Runs[i]
		if top := ceiling[r.Block]; r.Durability != string(backends.None) && r.Load.Kind == string(LoadClosed) && top > 0 && r.Throughput > harnessShare*top {
			r.Flags = append(r.Flags, "harness_limited")
		}
	}
	for _, b := range s.Backends {
		if b.Durability == backends.None {
			continue
		}
		if table, err := stats.Compare(res.Runs, b.Label(), stats.Options{Seed: s.Seed}); err == nil {
			res.Comparisons = table
		}
		return // the first backend that keeps something is the baseline
	}
}

// Lost reports whether any run lost an acknowledged entry or got it back wrong.
func Lost(res *result.Result) bool {
	for _, r := range res.Runs {
		if r.Verified != nil && !r.Verified.OK {
			return true
		}
	}
	return false
}

// calibrate measures the device floor before, between and after the blocks, in
// the directory where the data goes. block is the one that follows.
func (s *Spec) calibrate(ctx context.Context, ws *Workspace, res *result.Result, block int) error {
	if s.NoCalibrate {
		return nil
	}
	at := "between"
	switch block {
	case 1:
		at = "before"
	case s.Repeats + 1:
		at = "after"
	}
	s.tell(Progress{Phase: "calibrate", Block: min(block, s.Repeats), Blocks: s.Repeats})
	opts := disk.Quick(at, block, s.Seed)
	if s.CalibrateFor > 0 {
		opts.Budget = s.CalibrateFor
	}
	cals, err := disk.Calibrate(ctx, ws.Path(), opts)
	if err != nil {
		return fmt.Errorf("measure the device floor: %w", err)
	}
	res.Calibration = append(res.Calibration, cals...)
	return nil
}

// applyFloor sets each Save against the floor at its size, by the calibrations
// before and after its block.
func applyFloor(res *result.Result) {
	for i := range res.Runs {
		r := &res.Runs[i]
		if r.Save.Count == 0 || r.Durability == string(backends.None) {
			continue
		}
		var around []result.Calibration
		for _, c := range res.Calibration {
			if c.Block == r.Block || c.Block == r.Block+1 {
				around = append(around, c)
			}
		}
		if floor, ok := disk.Floor(around, int(r.SaveBytes)); ok && floor > 0 {
			r.SaveFloor = float64(r.Save.P50) / float64(floor)
		}
		if !disk.Persists(around) {
			r.Flags = append(r.Flags, "fake_disk")
		}
	}
	if share, ok := disk.Drift(res.Calibration); ok && disk.Drifted(share) {
		flagAll(res, "floor_drift")
	}
}

// stealLimit is the share of the machine's CPU time that the host may give to
// others before figures are in doubt.
const stealLimit = 0.02

// applyEnv flags what the machine does to every run.
func applyEnv(res *result.Result) {
	switch res.Env.FileSystem {
	case "tmpfs", "ramfs", "devtmpfs":
		flagAll(res, "tmpfs")
	case "overlay":
		flagAll(res, "overlay")
	}
	if a := res.Env.After; a != nil && a.StealShare != nil && *a.StealShare > stealLimit {
		flagAll(res, "steal")
	}
}

func flagAll(res *result.Result, flag string) {
	for i := range res.Runs {
		res.Runs[i].Flags = append(res.Runs[i].Flags, flag)
	}
}
