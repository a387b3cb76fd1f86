// Package backendtest proves that a storage engine keeps the contract of package
// backends, whoever wrote the engine:
//
//	func TestConformance(t *testing.T) { backendtest.Run(t, myengine.Backend) }
//
// Every case is a subtest that prints the rule it checks; every failure says
// which rule was broken and what was expected. Cases go through Backend.Open
// with directories of their own, so that they can close and reopen. An engine
// with settings is proved under a setting by a Backend whose Open fills in
// Options.Params.
//
// The expected state is kept by raft.MemoryStorage, which is the storage that
// raft itself was tested with. Wherever a case reopens, the state must also be
// one that a raft node starts from.
//
// A backend of durability None is asked only for what makes sense within one
// process: locking, closing, parameters, ownership of memory, and that it keeps
// nothing at all, because a control that sometimes keeps something measures
// sometimes one thing and sometimes another.
//
// What Run cannot see is whether a sync reached the platter. PowerCut does, on a
// disk that dies.
package backendtest

import (
	"fmt"
	"os/exec"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/powercut"
)

// tb is what a case needs of testing.T. The suite's own tests pass something
// else, because they must see a case fail.
type tb interface {
	rapid.TB
	TempDir() string
	Cleanup(func())
}

// rules are those of package backends, in the words that a failure prints.
var rules = [...]string{
	1: "when Save returns and raft.MustSync held, entries and hard state are durable; a commit-only hard state need not be forced to disk",
	2: "entries at or after ents[0].Index are replaced, also on disk, also when the overwritten tail was longer",
	3: "SaveSnap is durable, Data included, and a snapshot is never lost because a later one was being written",
	4: "Release drops nothing above the snapshot and gives disk space back",
	5: "Open returns a state that raft.RestartNode accepts",
	6: "damage, a second Open, a call after Close and an unknown parameter are errors, never a silently different log",
}

// A testCase is one way to break a rule.
type testCase struct {
	rule int
	name string
	// snapshots: it shows something else where snapshots are kept in another way.
	snapshots bool
	// anyDurability: also asked of a backend that keeps nothing.
	anyDurability bool
	run           func(*env)
}

func cases() []testCase {
	return []testCase{
		{rule: 1, name: "SaveReopen", run: testSaveReopen},
		{rule: 1, name: "ValueSizes", run: testValueSizes},
		{rule: 1, name: "BigBatch", run: testBigBatch},
		{rule: 1, name: "HardStateOnly", run: testHardStateOnly},
		{rule: 1, name: "CommitOnly", run: testCommitOnly},
		{rule: 1, name: "CommitOnlyIsNotForced", run: testCommitOnlyIsNotForced},
		{rule: 1, name: "EmptySave", run: testEmptySave},
		{rule: 1, name: "Kill", snapshots: true, run: testKill},
		{rule: 2, name: "Overwrite", run: testOverwrite},
		{rule: 2, name: "OverwriteAndCommit", run: testOverwriteAndCommit},
		{rule: 2, name: "OverwriteReopenAppend", run: testOverwriteReopenAppend},
		{rule: 2, name: "OverwriteAfterSnapshot", run: testOverwriteAfterSnapshot},
		{rule: 2, name: "KillInOverwrite", run: testKillInOverwrite},
		{rule: 3, name: "SnapshotData", run: testSnapshotData},
		{rule: 3, name: "NewerSnapshot", run: testNewerSnapshot},
		{rule: 3, name: "SnapshotInsideLog", run: testSnapshotInsideLog},
		{rule: 3, name: "SnapshotAheadOfLog", run: testSnapshotAheadOfLog},
		{rule: 3, name: "SnapshotOverConflict", run: testSnapshotOverConflict},
		{rule: 3, name: "SnapshotWithoutSave", run: testSnapshotWithoutSave},
		{rule: 3, name: "SnapshotDuringSave", run: testSnapshotDuringSave},
		{rule: 3, name: "Stream", run: testStream},
		{rule: 3, name: "StreamIsStaged", run: testStreamIsStaged},
		{rule: 3, name: "BrokenStream", run: testBrokenStream},
		{rule: 3, name: "OpenSnap", run: testOpenSnap},
		{rule: 4, name: "ReleaseKeepsRest", snapshots: true, run: testReleaseKeepsRest},
		{rule: 4, name: "ReleaseGivesSpaceBack", run: testReleaseGivesSpaceBack},
		{rule: 5, name: "StateIsTheCallers", run: testStateIsTheCallers},
		{rule: 5, name: "CallersMemory", anyDurability: true, run: testCallersMemory},
		{rule: 5, name: "RandomCalls", run: testRandomCalls},
		{rule: 6, name: "FlippedBit", run: testFlippedBit},
		{rule: 6, name: "CutFile", run: testCutFile},
		{rule: 6, name: "SecondOpen", anyDurability: true, run: testSecondOpen},
		{rule: 6, name: "AfterClose", anyDurability: true, run: testAfterClose},
		{rule: 6, name: "UnknownParameter", anyDurability: true, run: testUnknownParameter},
	}
}

// Run checks every rule of package backends against b, each case as a subtest
// of t. It takes some seconds and some hundreds of MiB of disk under t.TempDir.
//
// Run starts the test binary again to kill it with signal 9: it must be called
// in the same way in every run of the test named t.Name(), and what comes before
// it in that test runs in the child, too.
func Run(t *testing.T, b backends.Backend) {
	runCases(t, b, func(testCase) bool { return true })
}

// RunSnapshots is Run for a setting of a proved backend that changes only how
// snapshots are kept: the cases of rule 3, and of the other rules those in which
// snapshots come and go. It takes less than half the time. Damage is not among them.
func RunSnapshots(t *testing.T, b backends.Backend) {
	runCases(t, b, func(c testCase) bool { return c.rule == 3 || c.snapshots })
}

func runCases(t *testing.T, b backends.Backend, wanted func(testCase) bool) {
	if b.Name == "" || b.Open == nil || b.Durability != backends.Synced && b.Durability != backends.None {
		t.Fatalf("not a backend: want a Name, an Open and a Durability of %q or %q, got %+v", backends.Synced, backends.None, b)
	}
	if runChild(t, b) || powercut.IsChild() {
		return // the child's part is done, or comes later in this test
	}
	name := t.Name()
	for _, c := range cases() {
		if b.Durability == backends.None && !c.anyDurability || !wanted(c) {
			continue
		}
		t.Run(fmt.Sprintf("Rule%d/%s", c.rule, c.name), func(t *testing.T) {
			c.run(newEnv(t, name, b, c))
		})
	}
	if b.Durability == backends.None {
		c := testCase{rule: 1, name: "KeepsNothing", run: testKeepsNothing}
		t.Run(c.name, func(t *testing.T) { c.run(newEnv(t, name, b, c)) })
	}
}

// env is what a case works with: its tb, with the rule in front of every
// failure, and the backend.
type env struct {
	tb
	b      backends.Backend
	rule   int
	limits limits
	// streams: snapshots are saved as streams.
	streams bool
	// test is the name of the test that calls Run, command what runs it in a
	// child.
	test    string
	command func(test string) *exec.Cmd
}

// limits bound what the costly cases do; the suite's own tests lower them.
type limits struct {
	spaceMin, spaceMax int64 // bytes written before Release must show, and at most
	lives              int   // kills
	flips              int   // bits flipped at random places
	checks             int   // sequences of random calls
	// patience is how long a child may say nothing before it counts as hanging,
	// settle how long freeing space may take in the background.
	patience, settle time.Duration
}

var defaultLimits = limits{
	spaceMin: 64 << 20, spaceMax: 768 << 20, lives: 10, flips: 16, checks: 15,
	patience: 2 * time.Minute, settle: 15 * time.Second,
}

func newEnv(t tb, test string, b backends.Backend, c testCase) *env {
	t.Helper()
	what := "the promise of durability " + string(backends.None) + ": nothing is kept"
	if b.Durability != backends.None || c.anyDurability {
		what = fmt.Sprintf("rule %d: %s", c.rule, rules[c.rule])
	}
	t.Logf("%s: %s", b.Name, what)
	return &env{tb: t, b: b, rule: c.rule, limits: defaultLimits, test: test, command: childCommand}
}

func (e *env) Errorf(format string, args ...any) {
	e.Helper()
	e.tb.Errorf("%s broke rule %d (%s): %s", e.b.Name, e.rule, rules[e.rule], fmt.Sprintf(format, args...))
}

func (e *env) Fatalf(format string, args ...any) {
	e.Helper()
	e.tb.Fatalf("%s broke rule %d (%s): %s", e.b.Name, e.rule, rules[e.rule], fmt.Sprintf(format, args...))
}
