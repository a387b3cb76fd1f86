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
