package backendtest

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/mem"
)

// bugEnv makes a child process of this test a user of the broken journal.
const bugEnv = "RAFTBENCH_BACKENDTEST_BUG"

func TestMain(m *testing.M) {
	if b, ok := os.LookupEnv(bugEnv); ok {
		var spec childSpec
		if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &spec); err != nil {
			panic(err)
		}
		spec.do(broken(bug(b)))
	}
	flag.Parse()
	// A failing sequence is expected here, in every run, and need not be kept.
	flag.Lookup("rapid.seed").Value.Set("1")
	flag.Lookup("rapid.nofailfile").Value.Set("true")
	flag.Lookup("rapid.shrinktime").Value.Set("1s")
	os.Exit(m.Run())
}

func TestMem(t *testing.T) { Run(t, mem.Backend) }

func TestJournal(t *testing.T) { Run(t, broken(noBug)) }

// TestBroken proves that the suite can fail: each bug is caught by the cases
// that are there for it, in words that tell what is wrong.
func TestBroken(t *testing.T) {
	for _, c := range []struct {
		bug    bug
		caught []string // by each of these cases
		words  string   // in every failure
	}{
		{losesHardState, []string{"SaveReopen", "HardStateOnly"}, "hard state is {term"},
		{losesCommitOnly, []string{"CommitOnly"}, "hard state is"},
		{forcesCommitOnly, []string{"CommitOnlyIsNotForced"}, "commit-only saves made 100 syncs"},
		{emptySaveClears, []string{"EmptySave"}, ", vote 0, commit 0}, want"},
		{cutsBigValues, []string{"ValueSizes"}, "1048576 bytes, want 3145729"},
		{losesLastOfBatch, []string{"BigBatch"}, "jumps from index 258 to 260"},
		{losesType, []string{"SaveReopen"}, "is a EntryNormal, want a EntryConfChange"},
		{acknowledgesEarly, []string{"Kill"}, "than was acknowledged"},
		{keepsOldTail, []string{"Overwrite", "OverwriteReopenAppend", "OverwriteAfterSnapshot"}, ""},
		{keepsOldTailOnDisk, []string{"Overwrite", "OverwriteReopenAppend", "RandomCalls"}, ""},
		{cutsInPieces, []string{"OverwriteAndCommit"}, "jumps from index 11 to 1011"},
		{keepsOldCommit, []string{"OverwriteAndCommit", "RandomCalls"}, "hard state is"},
		{commitsFirst, []string{"KillInOverwrite"}, "and was being replaced"},
		{losesSnapshotData, []string{"SnapshotData", "NewerSnapshot"}, "0 bytes, want"},
		{losesConfState, []string{"SnapshotData"}, "has the members {}"},
		{keepsFirstSnapshot, []string{"NewerSnapshot", "SnapshotWithoutSave"}, ""},
		{keepsConflict, []string{"SnapshotOverConflict", "RandomCalls"}, ""},
		{dropsTail, []string{"SnapshotInsideLog"}, ""},
		{oldHardState, []string{"SnapshotWithoutSave"}, "hard state is {term"},
		{commitBeyondLog, []string{"SaveReopen"}, "hard state is"},
		{dropsOldSnapshotFirst, []string{"Kill"}, "was killed"},
		{releasesTooMuch, []string{"ReleaseKeepsRest"}, "jumps from index 30 to 32"},
		{neverReleases, []string{"ReleaseGivesSpaceBack"}, "want at most half"},
		{sharesState, []string{"StateIsTheCallers"}, "changed while the storage was used"},
		{retainsEntries, []string{"CallersMemory"}, ""},
		{mutatesEntries, []string{"CallersMemory"}, "changed the entries it was given"},
		{shorterOnDamage, []string{"FlippedBit"}, "an error, or the state that was saved"},
		{panicsOnDamage, []string{"FlippedBit", "CutFile"}, "took the process down"},
		{hangsOnDamage, []string{"FlippedBit"}, "Open hangs"},
		{noChecksum, []string{"FlippedBit"}, ""},
		{padsShortRecord, []string{"CutFile"}, "a state that never was"},
		{damageNamesNothing, []string{"FlippedBit"}, "names the file"},
		{noLock, []string{"SecondOpen"}, "second Open of a live directory succeeded"},
		{lockIsNotErrLocked, []string{"SecondOpen"}, "backends.ErrLocked"},
		{savesAfterClose, []string{"AfterClose"}, "Save after Close returned <nil>"},
		{closesTwice, []string{"AfterClose"}, "Close after Close returned <nil>"},
		{anyParameter, []string{"UnknownParameter"}, "took the parameter"},
		{plainParamError, []string{"UnknownParameter"}, "want a *backends.ParamError"},
		{touchesBeforeParams, []string{"UnknownParameter"}, "want it untouched"},
	} {
		t.Run(strings.ReplaceAll(string(c.bug), " ", "-"), func(t *testing.T) {
			for _, name := range c.caught {
				failures := runBroken(t, c.bug, name)
				if failures == "" {
					t.Errorf("%s did not catch a backend that %s", name, c.bug)
				}
				if !strings.Contains(failures, "broke rule") || !strings.Contains(failures, c.words) {
					t.Errorf("%s says:\n%s\nwant it to name the rule and to say %q", name, failures, c.words)
				}
			}
		})
	}
}

// TestBrokenControl: without a bug, what TestBroken does finds none.
func TestBrokenControl(t *testing.T) {
	for _, name := range []string{"SaveReopen", "CommitOnlyIsNotForced", "CallersMemory", "FlippedBit", "CutFile"} {
		if failures := runBroken(t, noBug, name); failures != "" {
			t.Errorf("%s: %s", name, failures)
		}
	}
}

func TestNotSyncedKeepsSomething(t *testing.T) {
	b := broken(noBug)
	b.Durability = backends.None
	r := &recorder{T: t}
	r.run(func() {
		testKeepsNothing(newEnv(r, t.Name(), b, testCase{rule: 1, name: "KeepsNothing", run: testKeepsNothing}))
	})
	if want := "want an empty one"; !strings.Contains(r.failures.String(), want) {
		t.Errorf("got %q, want it to say %q", r.failures.String(), want)
	}
}

// runBroken runs one case against the broken journal and returns what it said
// when it failed, "" if it passed.
func runBroken(t *testing.T, b bug, name string) string {
	t.Helper()
	for _, c := range cases() {
		if c.name != name {
			continue
		}
		r := &recorder{T: t}
		r.run(func() {
			e := newEnv(r, t.Name(), broken(b), c)
			e.limits.spaceMin, e.limits.spaceMax, e.limits.settle = 16<<20, 24<<20, 0
			e.limits.patience = 3 * time.Second
			e.limits.lives, e.limits.checks = 40, 60
			e.command = func(string) *exec.Cmd {
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), bugEnv+"="+string(b))
				return cmd
			}
			c.run(e)
		})
		return r.failures.String()
	}
	t.Fatalf("no case is named %s", name)
	return ""
}

// recorder is a tb that keeps failures to itself.
type recorder struct {
	*testing.T
	mu       sync.Mutex
	failures strings.Builder
	cleanups []func()
}

func (r *recorder) run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				r.T.Errorf("panic: %v", p)
			}
		}()
		f()
	}()
	<-done
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Logf(string, ...any) {}
func (r *recorder) Log(...any)          {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.failures, format+"\n", args...)
}

func (r *recorder) Error(args ...any)                 { r.Errorf("%s", fmt.Sprint(args...)) }
func (r *recorder) Fatalf(format string, args ...any) { r.Errorf(format, args...); runtime.Goexit() }
func (r *recorder) Fatal(args ...any)                 { r.Error(args...); runtime.Goexit() }
func (r *recorder) Fail()                             { r.Errorf("failed") }
func (r *recorder) FailNow()                          { r.Errorf("failed"); runtime.Goexit() }

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failures.Len() > 0
}
