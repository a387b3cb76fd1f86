package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
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
	if err := spec.CheckParams(); err != nil {
		return nil, err
	}
	if err := spec.checkTraces(); err != nil {
		return nil, err
	}
	ws, err := OpenWorkspace(spec.Dir, spec.mostNodes(), spec.Keep)
	if err != nil {
		return nil, err
	}
	res := spec.newResult()
	if err := spec.describe(ctx, ws, res); err != nil {
		return nil, errors.Join(err, ws.Close())
	}
	if err := spec.resume(res); err != nil {
		return nil, errors.Join(err, ws.Close())
	}
	spec.tell(Progress{Phase: "plan", Blocks: spec.Repeats})
	ticks := env.Now()
	err = spec.runBlocks(ctx, ws, res)
	if spec.Hosts == nil {
		after := env.Pressure(ticks)
		res.Env.After = &after
	}
	res.Interrupted = ctx.Err() != nil
	spec.conclude(res)
	return res, errors.Join(err, ws.Close())
}

// describe notes the machines: the first host's environment is that of the result.
func (s *Spec) describe(ctx context.Context, ws *Workspace, res *result.Result) (err error) {
	if s.Hosts == nil {
		res.Env = env.Collect(ws.Path())
		return nil
	}
	if res.Hosts, err = s.Hosts.Describe(ctx); err != nil {
		return fmt.Errorf("ask the hosts what they are: %w", err)
	}
	res.Env = res.Hosts[0].Env
	return nil
}

// CheckParams asks every backend with settings whether it accepts them, by
// opening it on a directory that is not there: settings are checked first.
func (s *Spec) CheckParams() error {
	var errs []error
	seen := map[string]bool{}
	for _, c := range s.configs() {
		for _, b := range c.Backends {
			if len(b.Preset()) == 0 || seen[b.Label()] {
				continue
			}
			seen[b.Label()] = true
			if err := tryParams(b); err != nil {
				errs = append(errs, err)
			}
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

// plan lists what one block holds: as many laps as the spec asks for, each with
// everything once in seeded random order. Each place is a run, or a series of runs
// that depend on each other ([seriesOf]).
func (s *Spec) plan(block int) []One {
	rng := rand.New(rand.NewPCG(uint64(s.Seed), uint64(block)))
	var ones []One
	for lap := 1; lap <= s.Laps; lap++ {
		var places []One
		for _, c := range s.configs() {
			for _, b := range c.Backends {
				places = append(places, c.places(b, block, lap)...)
			}
		}
		rng.Shuffle(len(places), func(i, j int) { places[i], places[j] = places[j], places[i] })
		ones = append(ones, places...)
	}
	return ones
}

// places is what a lap of a block holds for one backend.
func (s *Spec) places(b backends.Backend, block, lap int) []One {
	sizes := []int64{0}
	if s.sized() {
		sizes = s.StateSizes
	}
	if s.Workload.Kind == WorkloadRestart && b.Durability == backends.None {
		return nil // there is nothing to open again
	}
	var ones []One
	for _, size := range sizes {
		one := One{Spec: *s, Backend: b, Block: block, Lap: lap, StateSize: size}
		ones = append(ones, one)
		if s.Workload.Kind == WorkloadRestart && s.WriteLog != nil {
			one.Killed = true
			ones = append(ones, one)
		}
	}
	return ones
}

// sized reports whether the workload runs once for each of StateSizes.
func (s *Spec) sized() bool {
	return s.Workload.Kind == WorkloadSnapshot || s.Workload.Kind == WorkloadRestart
}

// perBlock is how many runs a block holds, as far as it can be known.
func (s *Spec) perBlock() int {
	n := 0
	for _, one := range s.plan(1) {
		n += seriesOf(one).planned()
	}
	return n
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
	ceiling := map[string]float64{}
	for _, r := range res.Runs {
		if r.Durability == string(backends.None) {
			ceiling[sameLoad(r)] = max(ceiling[sameLoad(r)], r.Throughput)
		}
	}
	for i := range res.Runs {
		r := &res.Runs[i]
		if top := ceiling[sameLoad(*r)]; r.SlowDisk == "" && r.Durability != string(backends.None) && r.Load.Kind == string(LoadClosed) && top > 0 && r.Throughput > harnessShare*top {
			r.Flags = append(r.Flags, "harness_limited")
		}
	}
	for _, c := range s.configs() {
		for _, b := range c.Backends {
			if b.Durability == backends.None {
				continue
			}
			if table, err := stats.Compare(res.Runs, b.Label(), stats.Options{Seed: s.Seed}); err == nil {
				res.Comparisons = table
			}
			return // the first backend that keeps something is the baseline
		}
	}
}

// sameLoad is equal for runs of one block that differ in nothing but the backend
// and what follows from it.
func sameLoad(r result.Run) string {
	r.GOMAXPROCS = 0 // mem gets no spare ones
	return fmt.Sprintf("%d %s", r.Block, stats.Config(&r))
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
	if s.Hosts != nil {
		return s.calibrateHosts(ctx, opts, res)
	}
	cals, err := disk.Calibrate(ctx, ws.Path(), opts)
	if err != nil {
		return fmt.Errorf("measure the device floor: %w", err)
	}
	res.Calibration = append(res.Calibration, cals...)
	return nil
}

// calibrateHosts measures the device floor where the nodes are.
func (s *Spec) calibrateHosts(ctx context.Context, opts disk.Options, res *result.Result) error {
	byHost, err := s.Hosts.Calibrate(ctx, opts)
	if err != nil {
		return fmt.Errorf("measure the device floor: %w", err)
	}
	for i, rows := range byHost {
		res.Hosts[i].Calibration = append(res.Hosts[i].Calibration, rows...)
	}
	res.Calibration = append(res.Calibration, byHost[0]...)
	return nil
}

// calibrationOf is that of the disk whose Saves a run measured.
func calibrationOf(res *result.Result, r *result.Run) []result.Calibration {
	if at := r.Leader - 1; at >= 0 && at < len(res.Hosts) {
		return res.Hosts[at].Calibration
	}
	return res.Calibration
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
		for _, c := range calibrationOf(res, r) {
			if c.Block == r.Block || c.Block == r.Block+1 {
				around = append(around, c)
			}
		}
		// Beside a disk that was made slow, the floor says nothing.
		if floor, ok := disk.Floor(around, int(r.SaveBytes)); ok && floor > 0 && r.SlowDisk == "" {
			r.SaveFloor = float64(r.Save.P50) / float64(floor)
		}
		if !disk.Persists(around) {
			r.Flags = append(r.Flags, "fake_disk")
		}
	}
	drifted := func(rows []result.Calibration) bool {
		share, ok := disk.Drift(rows)
		return ok && disk.Drifted(share)
	}
	if drifted(res.Calibration) || slices.ContainsFunc(res.Hosts, func(h result.Host) bool { return drifted(h.Calibration) }) {
		flagAll(res, "floor_drift")
	}
}

// stealLimit is the share of the machine's CPU time that the host may give to
// others before figures are in doubt.
const stealLimit = 0.02

// applyEnv flags what the machine, or one of them, does to every run.
func applyEnv(res *result.Result) {
	on := func(fileSystems ...string) bool {
		return slices.Contains(fileSystems, res.Env.FileSystem) ||
			slices.ContainsFunc(res.Hosts, func(h result.Host) bool { return slices.Contains(fileSystems, h.Env.FileSystem) })
	}
	if on("tmpfs", "ramfs", "devtmpfs") {
		flagAll(res, "tmpfs")
	}
	if on("overlay") {
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
