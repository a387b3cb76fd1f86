package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/bench/disk"
	"github.com/raftbench/raftbench/bench/result"
)

func (a *app) diskCommand() *cobra.Command {
	var dir string
	var asJSON bool
	var budget time.Duration
	cmd := &cobra.Command{
		Use:   "disk",
		Short: "Measure the device floor: is this disk fast enough for a raft log?",
		Long: `Measure, in about ten seconds, what a synced write costs on this disk: overwriting
blocks that were written before, growing a file, with fdatasync, fsync and O_DSYNC,
through the page cache and past it (O_DIRECT), at 2300 B (etcd's own size), 4 KiB,
64 KiB and 1 MiB. Every backend's Save is reported as a multiple of the first of these.`,
		Example: "  raftbench disk --dir /var/lib/etcd\n  raftbench disk --json | jq .calibration",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.disk(cmd.Context(), dir, budget, asJSON)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory on the disk (default: a new folder under the current directory)")
	cmd.Flags().DurationVar(&budget, "duration", 10*time.Second, "time to measure")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON: {\"calibration\": [{\"kind\", \"bytes\", \"count\", \"p50_ns\", …}]}")
	return cmd
}

// disk measures in a directory of its own below dir, so that a directory in use
// (an etcd's) can be named.
func (a *app) disk(ctx context.Context, dir string, budget time.Duration, asJSON bool) (err error) {
	if budget < 100*time.Millisecond {
		return usageErrorf("--duration %v: want 100ms or more", budget)
	}
	scratch, err := bench.ScratchDir(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, scratch.Close()) }()
	if !asJSON {
		fmt.Fprintf(a.stderr, "measuring %s for %v …\n", scratch.Path(), budget)
	}
	cals, err := disk.Calibrate(ctx, scratch.Path(), disk.Options{Budget: budget, At: "now", Seed: 1})
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(a.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(map[string][]result.Calibration{"calibration": cals})
	}
	if err := disk.WriteTable(a.stdout, cals); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "\n%s\n", disk.Verdict(cals))
	return err
}
