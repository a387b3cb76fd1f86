package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/reports"
)

type compareFlags struct {
	json      bool
	html      string
	in        string
	by        string
	metrics   []string
	tolerance float64
	noise     float64
	seed      int64
}

func (a *app) compareCommand() *cobra.Command {
	var f compareFlags
	cmd := &cobra.Command{
		Use:   "compare A B",
		Short: "Compare two results, two backends of one result, or two settings",
		Long: `Compare B against A, metric by metric: the ratio with its 95 % interval and a
verdict. A and B are two results (directories of runs), each backend against itself;
or, with --in DIR, two backends of one result, paired within its blocks; or, with
--by SETTING as well, two values of a setting, each backend against itself.

Exit codes: 0 ok · 2 usage · 5 regression: a metric is worse, and its whole interval
lies beyond the tolerance.`,
		Example: `  raftbench compare before/ after/
  raftbench compare --in raftbench-out/20260102T150405Z etcd-wal pebble
  raftbench compare --in nightly --by loop ready async
  raftbench compare before/ after/ --metric save.p99 --tolerance 0.1`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageErrorf("compare: want two results, or --in DIR and two backends, not %d arguments", len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return a.compare(args[0], args[1], &f) },
	}
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON: {\"comparisons\": […]}")
	cmd.Flags().StringVar(&f.html, "html", "", "also write an HTML page to this file")
	cmd.Flags().StringVar(&f.in, "in", "", "result that holds both backends")
	cmd.Flags().StringVar(&f.by, "by", "", "with --in: compare two values of a setting: "+strings.Join(stats.Settings(), ", "))
	cmd.Flags().StringArrayVar(&f.metrics, "metric", nil, "metric to compare, e.g. save.p99; repeatable (default: the usual ones)")
	cmd.Flags().Float64Var(&f.tolerance, "tolerance", 0.05, "change for the worse that is tolerated")
	cmd.Flags().Float64Var(&f.noise, "noise", stats.DefaultNoise, "difference that is not worth a verdict")
	cmd.Flags().Int64Var(&f.seed, "seed", 1, "of the bootstrap")
	return cmd
}

func (a *app) compare(one, two string, f *compareFlags) error {
	if !(f.tolerance >= 0) || math.IsInf(f.tolerance, 1) || !(f.noise > 0 && f.noise < 1) { // NaN is none of it
		return usageErrorf("--tolerance %v, --noise %v: want 0 or more, and a share between 0 and 1", f.tolerance, f.noise)
	}
	if f.by != "" && f.in == "" {
		return usageErrorf("--by %s: it compares within one result; name it with --in DIR", f.by)
	}
	if f.in != "" && one == two {
		return usageErrorf("compare --in %s: %s is compared with itself; name two", f.in, one)
	}
	for _, m := range f.metrics {
		if _, err := stats.Lookup(m); err != nil {
			return usageErrorf("--metric %v", err)
		}
	}
	from := []string{one, two}
	if f.in != "" {
		from = []string{f.in}
	}
	if err := checkPage("--html", f.html, from); err != nil {
		return err
	}
	rs, table, err := f.table(one, two)
	if err != nil {
		return err
	}
	if err := a.printComparisons(rs, table, f); err != nil {
		return err
	}
	for _, c := range table {
		if stats.Regression(c, f.tolerance) {
			return &exitError{exitRegression, fmt.Errorf("regression: %s of %s is %.3g times that of %s (95 %% interval %.3g to %.3g)",
				c.Metric, c.Backend, c.Ratio, c.Baseline, c.Lo, c.Hi)}
		}
	}
	return nil
}

// table compares as the flags say, and returns the results that it is about.
func (f *compareFlags) table(one, two string) ([]*result.Result, []result.Comparison, error) {
	opts := stats.Options{Metrics: f.metrics, Noise: f.noise, Seed: f.seed}
	if f.in != "" {
		r, err := reports.Read(f.in)
		if err != nil {
			return nil, nil, err
		}
		if f.by != "" {
			table, err := stats.CompareBy(r.Runs, f.by, one, two, opts)
			if err != nil {
				return nil, nil, usageErrorf("compare --in %s --by %s: %v", f.in, f.by, err)
			}
			return []*result.Result{r}, table, nil
		}
		for _, name := range []string{one, two} {
			if !slices.ContainsFunc(r.Runs, func(run result.Run) bool { return stats.Name(&run) == name }) {
				return nil, nil, usageErrorf("%s has no run of %q", f.in, name)
			}
		}
		runs := slices.DeleteFunc(slices.Clone(r.Runs), func(run result.Run) bool {
			name := stats.Name(&run)
			return name != one && name != two
		})
		table, err := stats.Compare(runs, one, opts)
		return []*result.Result{r}, table, err
	}
	a, err := reports.Read(one)
	b, err2 := reports.Read(two)
	if err := errors.Join(err, err2); err != nil {
		return nil, nil, err
	}
	table, err := stats.CompareSuites(stats.Side{Label: label(one), Runs: a.Runs}, stats.Side{Label: label(two), Runs: b.Runs}, opts)
	return []*result.Result{a, b}, table, err
}

// label is the last part of a path that says something.
func label(path string) string {
	base := filepath.Base(filepath.Clean(path))
	if base == reports.ResultFile {
		base = filepath.Base(filepath.Dir(filepath.Clean(path)))
	}
	return strings.TrimSuffix(base, ".json")
}

func (a *app) printComparisons(rs []*result.Result, table []result.Comparison, f *compareFlags) error {
	if f.html != "" {
		if err := writePage(f.html, func(w io.Writer) error { return reports.CompareHTML(w, rs, table) }); err != nil {
			return err
		}
	}
	if f.json {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(map[string][]result.Comparison{"comparisons": table})
	}
	return reports.CompareTable(a.stdout, table, a.tableOptions())
}
