package all

import (
	"os"
	"slices"
	"testing"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/backendtest"
	"github.com/raftbench/raftbench/backends/internal/kvlog"
	"github.com/raftbench/raftbench/backends/powercut"
)

// everySnapshot asks for the whole suite, under the settings that people use, where
// only the cases with snapshots are run, with small files that open in less time.
const everySnapshot = "RAFTBENCH_SNAPSHOT"

// eachInEngine is a test for every backend that can keep snapshots in its engine as well
// as in files, which is its default, set to.
func eachInEngine(t *testing.T, test func(*testing.T, backends.Backend)) {
	for _, b := range Backends {
		if slices.Contains(b.Params, kvlog.SnapshotParam) {
			if os.Getenv(everySnapshot) == "" {
				b = b.With(powercut.SmallParams(b))
			}
			b = b.With(map[string]string{kvlog.SnapshotParam.Name: "engine"})
			t.Run(b.Name, func(t *testing.T) { test(t, b) })
		}
	}
}

// TestSnapshotInEngineConformance: an engine that keeps its snapshots keeps the rules.
func TestSnapshotInEngineConformance(t *testing.T) {
	eachInEngine(t, func(t *testing.T, b backends.Backend) {
		if os.Getenv(everySnapshot) != "" {
			backendtest.Run(t, b)
			return
		}
		backendtest.RunSnapshots(t, b)
	})
}

// TestSnapshotInEngineSharedConformance is the same for a group of a shared store, with
// its neighbours.
func TestSnapshotInEngineSharedConformance(t *testing.T) {
	eachInEngine(t, func(t *testing.T, b backends.Backend) {
		if b.Name != "bbolt" && os.Getenv(everySnapshot) == "" {
			t.Skipf("set %s=1 to try groups with snapshots in a shared store of %s, too", everySnapshot, b.Name)
		}
		backendtest.RunSnapshots(t, backendtest.Group(b))
	})
}
