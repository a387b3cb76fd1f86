package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/powercut"
	"github.com/raftbench/raftbench/backends/powercut/disk"
	"github.com/raftbench/raftbench/bench/result"
)

type powercutFlags struct {
	backends  string
	cuts      int
	first     int
	seed      int64
	mode      string
	dir, keep string
	keepGoing bool
	json      bool

	asMeasured bool // with the parameters that were measured, not small ones
}

const durableBackends = "etcd-wal,bbolt,badger,pebble,raw,hashicorp-wal"

func (a *app) powercutCommand() *cobra.Command {
	var f powercutFlags
	cmd := &cobra.Command{
		Use:   "powercut",
		Short: "Pull the plug, many times, and look for what was acknowledged",
		Long: `Run each backend on a disk of our own (FUSE) that loses, at a seeded moment, what was
not synced: in part, torn, and out of order. Then the backend opens what is left,
and every acknowledged entry, the hard state and the snapshot are looked for; the
store lives on to the next cut.

In mode strict a name is durable only once its directory was synced; mode ordered
behaves as ext4 with data=ordered does. Needs root and /dev/fuse.

Exit codes: 0 nothing was lost · 1 error, or nothing was acknowledged, which proves nothing ·
2 usage · 3 an engine lost something · 130 interrupted (what was cut until then is printed).`,
		Example: `  raftbench powercut --backends etcd-wal,raw --cuts 200 --seed 1
  raftbench powercut --backends bbolt --cuts 1000 --mode strict --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.powercut(cmd.Context(), &f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.backends, "backends", durableBackends, "names from 'raftbench list', each optionally with parameters")
	fl.IntVar(&f.cuts, "cuts", 100, "power cuts for each backend and mode")
	fl.IntVar(&f.first, "first", 1, "number of the first cut: a later one repeats the end of a longer series on a fresh store")
	fl.Int64Var(&f.seed, "seed", 1, "of workload, moments, and what each cut takes")
	fl.StringVar(&f.mode, "mode", "both", "strict, ordered, or both")
	fl.StringVar(&f.dir, "dir", "", "where the mount point goes (default: the directory for temporary files)")
	fl.StringVar(&f.keep, "keep-disks", "", "directory that receives the disks which a backend failed on")
	fl.BoolVar(&f.keepGoing, "keep-going", false, "make all cuts although one failed, each failure on a fresh store")
	fl.BoolVar(&f.json, "json", false, "print JSON: {\"engines\": [{\"backend\", \"mode\", \"cuts\", \"acked\", \"lost\", \"wrong\", \"open_failed\", …}]}")
	return cmd
}

// parseModes reads the value of --mode.
func parseModes(s string) ([]disk.Mode, error) {
	switch s {
	case "both":
		return []disk.Mode{disk.Strict, disk.Ordered}, nil
	case string(disk.Strict), string(disk.Ordered):
		return []disk.Mode{disk.Mode(s)}, nil
	}
	return nil, usageErrorf("--mode %q: want strict, ordered, or both", s)
}

// durable looks up backends that promise to keep something.
func durable(list string) ([]backends.Backend, error) {
	var bs []backends.Backend
	var errs []error
	for _, label := range backends.SplitNames(list) {
		b, err := lookup(label)
		if err == nil && b.Durability != backends.Synced {
			err = usageErrorf("%s keeps nothing, by design: it has nothing to lose", b.Name)
		}
		errs = append(errs, err)
		bs = append(bs, b)
	}
	if len(bs) == 0 {
		errs = append(errs, usageErrorf("no backend given"))
	}
	return bs, errors.Join(errs...)
}

func (a *app) powercut(ctx context.Context, f *powercutFlags) error {
	bs, err := durable(f.backends)
	modes, modeErr := parseModes(f.mode)
	if err := errors.Join(err, modeErr); err != nil {
		return err
	}
	if f.cuts < 1 || f.cuts > 1_000_000 || f.first < 1 {
		return usageErrorf("--cuts %d --first %d: want 1 to 1000000 cuts, the first from 1", f.cuts, f.first)
	}
	unused, err := keepDir(f.keep)
	if err != nil {
		return err
	}
	defer unused()
	if err := powercut.Available(); err != nil {
		return fmt.Errorf("power cuts: %w", err)
	}
	rows, err := a.cutEach(ctx, bs, modes, f)
	if len(rows) > 0 {
		if printErr := a.printCuts(rows, f.json); printErr != nil {
			return errors.Join(err, printErr)
		}
	}
	return judgeCuts(rows, err)
}

// cutEach cuts the power of each backend in each mode. The rows hold what was done until an
// error, too.
func (a *app) cutEach(ctx context.Context, bs []backends.Backend, modes []disk.Mode, f *powercutFlags) ([]result.PowerCut, error) {
	var rows []result.PowerCut
	for _, b := range bs {
		for _, mode := range modes {
			row, err := a.cut(ctx, b, mode, f)
			if row.Cuts > 0 {
				rows = append(rows, row)
			}
			if err != nil {
				return rows, err
			}
		}
	}
	return rows, nil
}

// judgeCuts is the error that power cuts end with; err is why they ended early, if they did.
func judgeCuts(rows []result.PowerCut, err error) error {
	if slices.ContainsFunc(rows, cutLost) {
		return &exitError{exitLost, errors.Join(errors.New("an engine lost, changed, or could not open what it had acknowledged"), err)}
	}
	if err != nil {
		return err
	}
	for _, r := range rows {
		if r.Acked == 0 {
			return fmt.Errorf("power cuts of %s, mode %s: nothing was acknowledged before any of them: this proves nothing; make more than %d",
				backends.FormatName(r.Backend, r.Params), r.Mode, r.Cuts)
		}
	}
	return nil
}

// keepDir makes sure that disks can be kept in a directory, before any work is done for
// them. unused removes it where it was made and nothing came.
func keepDir(dir string) (unused func(), err error) {
	if dir == "" {
		return func() {}, nil
	}
	_, missing := os.Stat(dir)
	err = os.MkdirAll(dir, 0o755)
	if err == nil {
		var f *os.File
		if f, err = os.CreateTemp(dir, ".raftbench-"); err == nil {
			err = errors.Join(f.Close(), os.Remove(f.Name()))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--keep-disks %s: %w", dir, err)
	}
	return func() {
		if missing != nil {
			_ = os.Remove(dir) // fails where a disk was kept, as it should
		}
	}, nil
}

// tortured are the parameters of a backend that is tortured: those that were
// given, else small ones, so that files are begun and removed within one life.
func tortured(b backends.Backend) map[string]string {
	if given := b.Preset(); len(given) > 0 {
		return given
	}
	return powercut.SmallParams(b)
}

// params are those that were measured, where the cuts follow a measurement.
func (f *powercutFlags) params(b backends.Backend) map[string]string {
	if f.asMeasured {
		return b.Preset()
	}
	return tortured(b)
}

func cutLost(r result.PowerCut) bool { return r.Lost > 0 || r.Wrong > 0 || r.OpenFailed > 0 }

// cut makes one series of cuts.
func (a *app) cut(ctx context.Context, b backends.Backend, mode disk.Mode, f *powercutFlags) (result.PowerCut, error) {
	p := newProgress(a.stderr, f.json)
	row, err := powercut.Run(ctx, powercut.Config{
		Backend: b, Params: f.params(b), Mode: mode, Cuts: f.cuts, First: f.first, Seed: f.seed, Dir: f.dir, Keep: f.keep, KeepGoing: f.keepGoing,
		Trace:    a.stderr,
		Progress: func(done int) { p.line(fmt.Sprintf("%s %s  cut %d of %d", b.Label(), mode, done, f.cuts)) },
	})
	p.clear()
	if err != nil {
		if ctx.Err() != nil {
			return row, &exitError{exitInterrupted, fmt.Errorf("interrupted after %d of %d power cuts of %s, mode %s: %w", row.Cuts, f.cuts, b.Label(), mode, err)}
		}
		return row, fmt.Errorf("power cuts of %s, mode %s: %w", b.Label(), mode, err)
	}
	return row, nil
}

func (a *app) printCuts(rows []result.PowerCut, asJSON bool) error {
	if asJSON {
		return printJSON(a.stdout, map[string][]result.PowerCut{"engines": rows})
	}
	tw := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "backend\tmode\tcuts\tacknowledged\tlost\twrong\tnot opened\t")
	for _, r := range rows {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t\n", backends.FormatName(r.Backend, r.Params), r.Mode, r.Cuts, r.Acked, r.Lost, r.Wrong, r.OpenFailed)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		if r.Detail != "" {
			fmt.Fprintf(a.stdout, "\n%s, %s, cut %d: %s\n  again: %s\n", r.Backend, r.Mode, r.FirstBad, r.Detail, r.Replay)
		}
	}
	return nil
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

type faultFlags struct {
	backends string
	runs     int
	seed     int64
	only     []string
	dir      string
	json     bool
}

func (a *app) faultsCommand() *cobra.Command {
	var f faultFlags
	cmd := &cobra.Command{
		Use:   "faults",
		Short: "Break the disk under each backend, and tell what it made of it",
		Long: `Inject what disks do (EIO on write, fsync and read, a full disk, short writes, stalls,
flipped bits) under each backend, at several moments, and tell what came of it:
stopped with an error (right), went on (wrong), lost something (wrong), crashed,
absorbed. Needs root and /dev/fuse.

Exit codes: 0 · 1 error · 2 usage · 3 an engine went on or lost something.`,
		Example: "  raftbench faults --backends etcd-wal,raw",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.faults(cmd.Context(), &f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.backends, "backends", durableBackends, "names from 'raftbench list'")
	fl.IntVar(&f.runs, "runs", 5, "runs of each fault, at different moments")
	fl.Int64Var(&f.seed, "seed", 1, "of workload and moments")
	fl.StringArrayVar(&f.only, "fault", nil, "inject only this one, by its name in the table; repeatable")
	fl.StringVar(&f.dir, "dir", "", "where the mount point goes (default: the directory for temporary files)")
	fl.BoolVar(&f.json, "json", false, "print JSON: {\"faults\": […]}")
	return cmd
}

func (a *app) faults(ctx context.Context, f *faultFlags) error {
	bs, err := durable(f.backends)
	if err != nil {
		return err
	}
	if f.runs < 1 {
		return usageErrorf("--runs %d: want 1 or more", f.runs)
	}
	if err := powercut.Available(); err != nil {
		return fmt.Errorf("disk faults: %w", err)
	}
	for _, name := range f.only {
		if !slices.Contains(powercut.FaultNames(), name) {
			return usageErrorf("--fault %q: want one of %s", name, strings.Join(powercut.FaultNames(), ", "))
		}
	}
	rows, err := a.faultEach(ctx, bs, f)
	if len(rows) > 0 {
		if printErr := a.printFaults(rows, f.json); printErr != nil {
			return errors.Join(err, printErr)
		}
	}
	for _, r := range rows {
		if !r.OK {
			return &exitError{exitLost, errors.Join(fmt.Errorf("%s, %s: %s: %s", r.Backend, r.Fault, r.Outcome, r.Detail), err)}
		}
	}
	return err
}

// faultEach breaks the disk under each backend. The rows hold what was done until an error,
// too.
func (a *app) faultEach(ctx context.Context, bs []backends.Backend, f *faultFlags) ([]result.Fault, error) {
	var rows []result.Fault
	p := newProgress(a.stderr, f.json)
	for _, b := range bs {
		got, err := powercut.Faults(ctx, powercut.FaultConfig{
			Backend: b, Params: tortured(b), Seed: f.seed, Runs: f.runs, Only: f.only, Dir: f.dir,
			Progress: func(fault string) { p.line(b.Label() + "  " + fault) },
		})
		p.clear()
		rows = append(rows, got...)
		switch {
		case err != nil && ctx.Err() != nil:
			return rows, &exitError{exitInterrupted, fmt.Errorf("interrupted after %d of the faults of %s: %w", len(got), b.Label(), context.Cause(ctx))}
		case err != nil:
			return rows, fmt.Errorf("disk faults of %s: %w", b.Label(), err)
		}
	}
	return rows, nil
}

func (a *app) printFaults(rows []result.Fault, asJSON bool) error {
	if asJSON {
		return printJSON(a.stdout, map[string][]result.Fault{"faults": rows})
	}
	tw := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "backend\tfault\toutcome\tright\t")
	for _, r := range rows {
		right := "yes"
		if !r.OK {
			right = "NO"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t\n", backends.FormatName(r.Backend, r.Params), r.Fault, r.Outcome, right)
	}
	return tw.Flush()
}
