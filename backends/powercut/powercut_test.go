//go:build linux

package powercut_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/raftbench/raftbench/backends/powercut"
	"github.com/raftbench/raftbench/backends/powercut/controls"
	"github.com/raftbench/raftbench/backends/powercut/disk"
)

func TestMain(m *testing.M) {
	powercut.MaybeChild(controls.Lookup)
	os.Exit(m.Run())
}

func require(t *testing.T) {
	t.Helper()
	if err := powercut.Available(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI must be able to cut the power: %v", err)
		}
		t.Skip(err)
	}
}

var modes = []disk.Mode{disk.Strict, disk.Ordered}

func TestSoundEngineLosesNothing(t *testing.T) {
	require(t)
	for _, mode := range modes {
		t.Run(string(mode), func(t *testing.T) {
			var trace strings.Builder
			row, err := powercut.Run(context.Background(), powercut.Config{
				Backend: controls.Backend(controls.None), Mode: mode, Cuts: 60, Seed: 1, Trace: &trace,
			})
			if err != nil {
				t.Fatal(err)
			}
			if row.Lost+row.Wrong != 0 || row.OpenFailed != 0 || row.Cuts != 60 || row.Acked == 0 {
				t.Errorf("%+v\n%s", row, trace.String())
			}
			t.Logf("%d entries in %v", row.Acked, row.Elapsed)
		})
	}
}

// TestEveryControlIsCaught: a torture that lets a broken engine pass proves
// nothing. With RAFTBENCH_POWERCUT_SEEDS=10 every one of ten seeds must do it in
// 200 cuts (about two minutes).
func TestEveryControlIsCaught(t *testing.T) {
	require(t)
	seeds := int64(1)
	if s := os.Getenv("RAFTBENCH_POWERCUT_SEEDS"); s != "" {
		var err error
		if seeds, err = strconv.ParseInt(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range controls.Flaws {
		for _, mode := range f.Modes {
			t.Run(fmt.Sprintf("%s/%s", f.Flaw, mode), func(t *testing.T) {
				for seed := int64(1); seed <= seeds; seed++ {
					cuts := 200
					if seed == 1 {
						cuts = f.Cuts
					}
					row, err := powercut.Run(context.Background(), powercut.Config{
						Backend: controls.Backend(f.Flaw), Mode: mode, Cuts: cuts, Seed: seed,
					})
					if err != nil {
						t.Fatal(err)
					}
					if row.FirstBad == 0 || row.Detail == "" || row.Replay == "" {
						t.Errorf("seed %d: not caught in %d cuts: %+v", seed, row.Cuts, row)
					}
					t.Logf("seed %d: %s\n%s", seed, row.Detail, row.Replay)
				}
			})
		}
	}
}

// TestFaults: a sound engine stops, and the ones that do not are found out.
func TestFaults(t *testing.T) {
	require(t)
	bad := map[controls.Flaw]string{ // a fault that must show it
		controls.None:              "",
		controls.RetriesSync:       "EIO on fsync, once",
		controls.ForgetsErrors:     "EIO on write, once",
		controls.IgnoresReadErrors: "EIO on read at open",
		controls.NoChecksum:        "bit flip at rest",
	}
	for flaw, shows := range bad {
		t.Run(string(flaw), func(t *testing.T) {
			cfg := powercut.FaultConfig{Backend: controls.Backend(flaw), Seed: 1, Runs: 3}
			if shows != "" {
				cfg.Only, cfg.Runs = []string{shows}, 5
			}
			rows, err := powercut.Faults(context.Background(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rows {
				t.Logf("%-34s %-10s %v %s", r.Fault, r.Outcome, r.Outcomes, r.Detail)
				if r.OK != (r.Fault != shows) {
					t.Errorf("%s: ok is %t", r.Fault, r.OK)
				}
			}
			if flaw == controls.None && len(rows) != len(powercut.FaultNames()) {
				t.Errorf("%d rows of %d", len(rows), len(powercut.FaultNames()))
			}
		})
	}
}
