//go:build linux

package powercut_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/all"
	"github.com/raftbench/raftbench/backends/bbolt"
	"github.com/raftbench/raftbench/backends/internal/kvlog"
	"github.com/raftbench/raftbench/backends/powercut"
	"github.com/raftbench/raftbench/backends/powercut/controls"
	"github.com/raftbench/raftbench/backends/powercut/disk"
	"github.com/raftbench/raftbench/backends/raw"
	"github.com/raftbench/raftbench/bench/result"
)

// lookup finds the engines and the controls.
func lookup(name string) (backends.Backend, error) {
	if b, err := controls.Lookup(name); err == nil {
		return b, nil
	}
	return all.Lookup(name)
}

// knownLosses are what engines do that is theirs; docs/durability.md tells the
// cause. A loss of another kind, or in another mode, is a failure.
var knownLosses = map[string]string{
	// The name of a new table is not synced before the manifest names it.
	"badger/strict": "the manifest names it",
}

// fullCuts is how many cuts are made of each engine and mode.
const fullCuts = 30

// fewCuts is how many a setting gets whose engine has the full number already.
const fewCuts = 8

// TestEngines makes 30 cuts per engine and mode, or as many as
// RAFTBENCH_POWERCUT_CUTS says. Under the race detector, which makes the start of a
// process dear, it makes 3; `make test` runs it once without.
func TestEngines(t *testing.T) {
	cuts := cutsOf(t, fullCuts, 3)
	for _, b := range all.Backends {
		if b.Durability != backends.Synced {
			continue
		}
		for _, mode := range modes {
			t.Run(fmt.Sprintf("%s/%s", b.Name, mode), func(t *testing.T) { cutEngine(t, b, powercut.SmallParams(b), mode, cuts) })
		}
	}
}

// TestSnapshotsInEngine makes fewer cuts of the engines that can keep snapshots
// themselves, set to: their log is the same. RAFTBENCH_POWERCUT_CUTS counts here, too.
func TestSnapshotsInEngine(t *testing.T) {
	cuts := cutsOf(t, fewCuts, 2)
	for _, b := range all.Backends {
		params := inEngine(b)
		if params == nil {
			continue
		}
		for _, mode := range modes {
			t.Run(fmt.Sprintf("%s/%s", b.Name, mode), func(t *testing.T) { cutEngine(t, b, params, mode, cuts) })
		}
	}
}

// TestWaysToWrite makes as many cuts of raw with and without the page cache: what it
// chooses by itself depends on the disk.
func TestWaysToWrite(t *testing.T) {
	cuts := cutsOf(t, fewCuts, 2)
	for _, io := range []string{"buffered", "direct"} {
		params := maps.Clone(powercut.SmallParams(raw.Backend))
		params["io"] = io
		for _, mode := range modes {
			t.Run(fmt.Sprintf("%s/%s", io, mode), func(t *testing.T) { cutEngine(t, raw.Backend, params, mode, cuts) })
		}
	}
}

// cutsOf is how many cuts to make: what RAFTBENCH_POWERCUT_CUTS says, else so many, or
// those under the race detector.
func cutsOf(t *testing.T, cuts, underRace int) int {
	require(t)
	if s := os.Getenv("RAFTBENCH_POWERCUT_CUTS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if raceEnabled {
		return underRace
	}
	return cuts
}

// TestFirstFile cuts first lives: only in those is the directory of the files new. bbolt
// syncs no directory by chance.
func TestFirstFile(t *testing.T) {
	require(t)
	for seed := int64(1); seed <= 12; seed++ {
		row, err := powercut.Run(context.Background(), powercut.Config{
			Backend: bbolt.Backend, Params: powercut.SmallParams(bbolt.Backend), Mode: disk.Strict, Cuts: 1, Seed: seed,
		})
		if err != nil {
			t.Fatal(err)
		}
		if row.FirstBad > 0 {
			t.Errorf("seed %d: %s", seed, row.Detail)
		}
	}
}

// inEngine are small parameters with snapshots in the engine; nil where b has no such
// setting.
func inEngine(b backends.Backend) map[string]string {
	if !slices.Contains(b.Params, kvlog.SnapshotParam) {
		return nil
	}
	params := maps.Clone(powercut.SmallParams(b))
	params[kvlog.SnapshotParam.Name] = "engine"
	return params
}

func cutEngine(t *testing.T, b backends.Backend, params map[string]string, mode disk.Mode, cuts int) {
	known := knownLosses[b.Name+"/"+string(mode)]
	var trace strings.Builder
	run := func() (result.PowerCut, error) {
		trace.Reset()
		return powercut.Run(context.Background(), powercut.Config{
			Backend: b, Params: params, Mode: mode, Cuts: cuts, Seed: 1, Trace: &trace, KeepGoing: known != "",
		})
	}
	row, err := run()
	if err == nil && row.Acked == 0 && cuts < fullCuts {
		cuts = fullCuts // a few may all fall before anything is acknowledged
		row, err = run()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d cuts, %d entries, %v", row.Cuts, row.Acked, row.Elapsed)
	if row.FirstBad == 0 || known != "" && strings.Contains(row.Detail, known) && row.Lost+row.Wrong == 0 {
		if row.Cuts != cuts || row.Acked == 0 {
			t.Errorf("%d cuts of %d, %d entries", row.Cuts, cuts, row.Acked)
		}
		if row.FirstBad > 0 {
			t.Logf("known: %s", row.Detail)
		}
		return
	}
	t.Errorf("%s\n%s\n%s", row.Detail, row.Replay, trace.String())
}

// TestEnginesStop: after a call that failed for the disk, no engine acknowledges
// anything; a snapshot that is only staged is such a call too.
func TestEnginesStop(t *testing.T) {
	require(t)
	if raceEnabled {
		t.Skip("make test runs it once without the race detector")
	}
	for _, b := range all.Backends {
		if b.Durability != backends.Synced {
			continue
		}
		faults := []string{"EIO on write, once", "EIO on fsync, once", "EIO on creating a file, once", "disk full (ENOSPC)"}
		t.Run(b.Name, func(t *testing.T) { stopEngine(t, b, powercut.SmallParams(b), faults) })
		if params := inEngine(b); params != nil {
			if b.Name == "badger" { // which takes 5 s to give up on each full disk
				faults = faults[:3]
			}
			t.Run(b.Name+" keeping snapshots", func(t *testing.T) { stopEngine(t, b, params, faults) })
		}
	}
}

func stopEngine(t *testing.T, b backends.Backend, params map[string]string, faults []string) {
	rows, err := powercut.Faults(context.Background(), powercut.FaultConfig{
		Backend: b, Params: params, Seed: 1, Only: faults,
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		t.Logf("%-34s %-10s %v", r.Fault, r.Outcome, r.Outcomes)
		bad := r.Outcomes[string(powercut.WentOn)]
		if b.Name != "badger" { // whose store may not open again, see docs/durability.md
			bad += r.Outcomes[string(powercut.Lost)]
		}
		if bad > 0 {
			t.Errorf("%s: %v: %s", r.Fault, r.Outcomes, r.Detail)
		}
	}
}

// TestCancel: a cancelled run leaves no process and no mount point behind.
func TestCancel(t *testing.T) {
	require(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	row, err := powercut.Run(ctx, powercut.Config{
		Backend: controls.Backend(controls.None), Mode: disk.Strict, Cuts: 1000, Seed: 1, Dir: dir,
		Progress: func(done int) {
			if done == 3 {
				cancel()
			}
		},
	})
	if err == nil || ctx.Err() == nil {
		t.Errorf("after the cancel: %v", err)
	}
	if row.Cuts < 3 {
		t.Errorf("%d cuts are reported of 3", row.Cuts)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if children := children(t); len(children) > 0 {
		t.Errorf("processes are left: %d", children)
	}
}

// children are the processes that this one has started: they belong to its threads.
func children(t *testing.T) (pids []int) {
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		list, _ := os.ReadFile(task) // a thread that has ended has none
		for _, pid := range strings.Fields(string(list)) {
			n, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, n)
		}
	}
	return pids
}

// TestCtrlC: what a terminal sends to this process and its group does not reach an engine,
// whose end would count as its own.
func TestCtrlC(t *testing.T) {
	require(t)
	seen := 0
	_, err := powercut.Run(context.Background(), powercut.Config{
		Backend: controls.Backend(controls.None), Mode: disk.Strict, Cuts: 3, Seed: 1,
		Progress: func(int) {
			for _, pid := range children(t) { // the one that waits for its order
				if group, err := syscall.Getpgid(pid); err != nil || group != pid {
					t.Errorf("process %d is in the group %d, %v", pid, group, err)
				}
				seen++
			}
		},
	})
	if err != nil || seen == 0 {
		t.Errorf("%d processes were looked at, %v", seen, err)
	}
}
