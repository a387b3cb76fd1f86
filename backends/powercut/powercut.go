// Package powercut proves durability by pulling the plug.
//
// [Run] lets an engine save on a disk that dies (package fusefs), again and again.
// The engine runs in a process of its own and reports every acknowledgement
// through a pipe after the call has returned. At a seeded moment, counted in file
// system operations and so also inside a write, between a write and its sync, or
// inside a rename, the disk dies: the process is killed before it sees an answer,
// and what had not been synced survives in part, torn and out of order (package
// disk says how). The engine opens what is left in a new process, and what it
// returns is compared with what was acknowledged:
//
//   - every entry, with its term, type and payload; from the first entry of a Save
//     that was in flight on, a prefix of the old or of the new ones;
//   - the hard state, not older than the last one that had to be durable;
//   - the newest snapshot, Data included, or the one whose SaveSnap was in flight;
//   - nothing that was never saved;
//   - and raft.NewRawNode accepts it.
//
// Then the same store lives on to the next cut: what Open returned counts as
// acknowledged, because raft relies on it. Some cuts fall into Open itself.
//
// [Faults] injects errors instead, and tells what the engine made of them.
//
// Engines with threads of their own do not repeat the same operations from the
// same seed; the seed repeats the workload, the moment as a count, and what the
// cut takes. Where that does not bring a failure back, Config.Keep holds the disk
// as the engine found it.
package powercut

import (
	"io"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/powercut/disk"
)

// Config is one series of cuts. Backend, Cuts and Mode are required.
type Config struct {
	Backend backends.Backend
	Params  map[string]string
	Mode    disk.Mode
	Cuts    int
	// First is the number of the first cut, 1 unless set: a later one repeats the
	// end of a longer series on a fresh store.
	First int
	Seed  int64
	// Dir is where the mount point goes; the default directory for temporary files
	// if empty. The disk itself is in memory.
	Dir string
	// Keep, if not empty, is a directory that receives the disks which an engine
	// failed on, as the engine found them.
	Keep string
	// Child starts the process that runs the engine.
	Child Child
	// Progress, if not nil, is told after each cut how many are done.
	Progress func(done int)
	// Trace, if not nil, receives what led to the first failure.
	Trace io.Writer
	// KeepGoing runs all cuts although one failed; each failure starts a fresh
	// store. Without it the first failure ends the series.
	KeepGoing bool
}

// Child says how this program starts itself as the process that runs an engine.
// The zero Child is for programs whose main or TestMain calls [MaybeChild].
type Child struct {
	// Args are the arguments, e.g. the flag that makes a test binary run one test.
	Args []string
	// Key is what that process hands to [ChildOf].
	Key string
}
