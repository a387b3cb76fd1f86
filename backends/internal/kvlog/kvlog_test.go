package kvlog

import (
	"errors"
	"io"
	"log"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
)

var discardLogger = &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)}

func mustOpen(t *testing.T, e *fakeEngine) (*Storage, backends.State) {
	t.Helper()
	s, st, err := Open("dir", e, e.cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, st
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// keys counts the records of a kind.
func (e *fakeEngine) keys(prefix byte) int {
	n := 0
	for k := range e.kv {
		if k[0] == prefix {
			n++
		}
	}
	return n
}

func (e *fakeEngine) lastOps(t *testing.T) []Op {
	t.Helper()
	if len(e.batches) == 0 {
		t.Fatal("nothing was committed")
	}
	return e.batches[len(e.batches)-1].ops
}

// TestAppendDeletesNothing: the common Save is puts alone, in one synced batch.
func TestAppendDeletesNothing(t *testing.T) {
	for _, name := range []string{"plain", "lsm"} {
		e := newFake(configs[name])
		s, _ := mustOpen(t, e)
		for i := range uint64(3) {
			must(t, s.Save(testHardState(1, 1, i), testEntries(10*i+1, 1, 10, 100)))
			if n := len(e.batches); n != int(i)+1 {
				t.Fatalf("%s: %d batches after %d saves", name, n, i+1)
			}
			ops := e.lastOps(t)
			if len(ops) != 11 || slices.ContainsFunc(ops, func(op Op) bool { return op.Value == nil }) {
				t.Fatalf("%s: an append of 10 entries is %d operations, want 11 puts", name, len(ops))
			}
			if !e.batches[i].sync {
				t.Fatalf("%s: entries were committed without a sync", name)
			}
		}
	}
}

// TestWhatIsSynced: rule 1, in both directions.
func TestWhatIsSynced(t *testing.T) {
	steps := []struct {
		name    string
		call    func(s *Storage) error
		batches map[string]int // by config, that the call makes
		synced  bool
	}{
		{"entries", func(s *Storage) error { return s.Save(testHardState(1, 1, 0), testEntries(1, 1, 5, 10)) }, map[string]int{"plain": 1, "lsm": 1}, true},
		{"commit alone", func(s *Storage) error { return s.Save(testHardState(1, 1, 3), nil) }, map[string]int{"plain": 0, "lsm": 1}, false},
		{"the same commit again", func(s *Storage) error { return s.Save(testHardState(1, 1, 3), nil) }, map[string]int{"plain": 0, "lsm": 1}, false},
		{"nothing", func(s *Storage) error { return s.Save(nil, nil) }, map[string]int{"plain": 0, "lsm": 0}, false},
		{"an empty hard state", func(s *Storage) error { return s.Save(&raftpb.HardState{}, nil) }, map[string]int{"plain": 0, "lsm": 0}, false},
		{"sync of a commit", (*Storage).Sync, map[string]int{"plain": 1, "lsm": 0}, true},
		{"sync of nothing", (*Storage).Sync, map[string]int{"plain": 0, "lsm": 0}, false},
		{"a vote", func(s *Storage) error { return s.Save(testHardState(1, 2, 3), nil) }, map[string]int{"plain": 1, "lsm": 1}, true},
		{"a term", func(s *Storage) error { return s.Save(testHardState(2, 0, 3), nil) }, map[string]int{"plain": 1, "lsm": 1}, true},
		{"entries without a hard state", func(s *Storage) error { return s.Save(nil, testEntries(6, 2, 1, 10)) }, map[string]int{"plain": 1, "lsm": 1}, true},
		{"a snapshot", func(s *Storage) error { return s.SaveSnap(testSnap(2, 1, 25)) }, map[string]int{"plain": 2, "lsm": 4}, true},
		{"a snapshot of no bytes", func(s *Storage) error { return s.SaveSnap(testSnap(3, 1, 0)) }, map[string]int{"plain": 1, "lsm": 1}, true},
	}
	for _, name := range []string{"plain", "lsm"} {
		e := newFake(configs[name])
		s, _ := mustOpen(t, e)
		for _, step := range steps {
			before, syncs := len(e.batches), e.syncs
			must(t, step.call(s))
			made := e.batches[before:]
			if len(made) != step.batches[name] {
				t.Fatalf("%s: %s made %d batches, want %d", name, step.name, len(made), step.batches[name])
			}
			synced := e.syncs > syncs || len(made) > 0 && made[len(made)-1].sync
			if strings.HasPrefix(step.name, "a snapshot") && slices.ContainsFunc(made, func(b fakeBatch) bool { return !b.sync }) {
				t.Fatalf("%s: a part of %s was not synced", name, step.name)
			}
			if synced != step.synced {
				t.Fatalf("%s: %s was synced: %t, want %t", name, step.name, synced, step.synced)
			}
		}
	}
}

// TestCommitIndexSurvivesClose: what waited in memory is written at the end.
func TestCommitIndexSurvivesClose(t *testing.T) {
	eachConfig(t, func(t *testing.T, cfg Config) {
		e := newFake(cfg)
		s, _ := mustOpen(t, e)
		must(t, s.Save(testHardState(1, 1, 0), testEntries(1, 1, 5, 10)))
		must(t, s.Save(testHardState(1, 1, 4), nil))
		must(t, s.Close())
		if _, st := mustOpen(t, e); st.HardState.GetCommit() != 4 {
			t.Fatalf("commit is %d, want 4", st.HardState.GetCommit())
		}
	})
}

// TestFirstErrorStays: after a failed write nothing is written, and every call
// says what failed first.
func TestFirstErrorStays(t *testing.T) {
	calls := map[string]func(s *Storage) error{
		"Save":        func(s *Storage) error { return s.Save(testHardState(2, 1, 5), testEntries(6, 2, 5, 10)) },
		"Save commit": func(s *Storage) error { return s.Save(testHardState(1, 1, 5), nil) },
		"Save vote":   func(s *Storage) error { return s.Save(testHardState(3, 2, 5), nil) },
		"Sync":        (*Storage).Sync,
		"SaveSnap":    func(s *Storage) error { return s.SaveSnap(testSnap(4, 1, 30)) },
		"Release":     func(s *Storage) error { return s.Release(testSnap(2, 1, 0)) },
	}
	eachConfig(t, func(t *testing.T, cfg Config) {
		for name, call := range calls {
			for failAt := 1; ; failAt++ {
				e := newFake(cfg)
				s, _ := mustOpen(t, e)
				must(t, s.Save(testHardState(1, 1, 0), testEntries(1, 1, 5, 10)))
				must(t, s.SaveSnap(testSnap(2, 1, 20)))
				must(t, s.Save(testHardState(1, 1, 3), nil))
				e.failAt = e.calls + failAt
				err := call(s)
				if e.calls < e.failAt {
					if err != nil {
						t.Fatalf("%s failed without a reason: %v", name, err)
					}
					break
				}
				if !errors.Is(err, errInjected) || !strings.Contains(err.Error(), "dir") {
					t.Fatalf("%s returned %v, want the error of the engine and the directory", name, err)
				}
				e.failAt = 0
				called := e.calls
				for again, call := range calls {
					if got := call(s); got == nil || got.Error() != err.Error() {
						t.Fatalf("%s after a failed %s returned %v, want %v", again, name, got, err)
					}
				}
				must(t, s.Close())
				if e.calls != called {
					t.Fatalf("something was written after %s failed", name)
				}
			}
		}
	})
}

func TestOpenClosesTheEngineThatFails(t *testing.T) {
	e := newFake(Config{})
	e.kv["h"] = []byte("damaged")
	if _, _, err := Open("dir", e, e.cfg); err == nil || e.closed != 1 {
		t.Fatalf("Open returned %v and closed the engine %d times, want an error and once", err, e.closed)
	}
}

func TestGapIsRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		ents []*raftpb.Entry
	}{
		{"after the end", testEntries(12, 1, 1, 1)},
		{"within", append(testEntries(11, 1, 1, 1), testEntries(13, 1, 1, 1)...)},
		{"index 0", testEntries(0, 1, 1, 1)},
	} {
		e := newFake(Config{})
		s, _ := mustOpen(t, e)
		must(t, s.Save(testHardState(1, 1, 0), testEntries(1, 1, 10, 1)))
		if err := s.Save(nil, c.ents); err == nil || len(e.batches) != 1 {
			t.Errorf("%s: Save returned %v after %d batches, want an error and nothing written", c.name, err, len(e.batches)-1)
		}
	}
}

// sample is a storage with every kind of record.
func sample(t *testing.T, cfg Config) *fakeEngine {
	e := newFake(cfg)
	s, _ := mustOpen(t, e)
	must(t, s.Save(testHardState(1, 1, 0), testEntries(1, 1, 6, 10)))
	must(t, s.Save(testHardState(2, 1, 5), testEntries(7, 2, 3, 10)))
	must(t, s.SaveSnap(testSnap(4, 1, 25)))
	must(t, s.Release(testSnap(4, 1, 0)))
	return e
}

func wantDamage(t *testing.T, e *fakeEngine, what string) {
	t.Helper()
	_, _, err := Open("dir", e, e.cfg)
	var damage *backends.DamageError
	if !errors.As(err, &damage) || damage.File != "dir" {
		t.Fatalf("%s: Open returned %v, want a DamageError that names the directory", what, err)
	}
}

// TestDamage: no bit of no record may change, no record may go or move.
func TestDamage(t *testing.T) {
	eachConfig(t, func(t *testing.T, cfg Config) {
		clean := sample(t, cfg)
		n := len(clean.batches)
		for k, v := range clean.kv {
			for bit := range len(v) * 8 {
				e := clean.after(n)
				e.kv[k] = slices.Clone(v)
				e.kv[k][bit/8] ^= 1 << (bit % 8)
				wantDamage(t, e, "a bit changed under "+k)
			}
			e := clean.after(n)
			e.kv[k] = v[:len(v)/2]
			wantDamage(t, e, "half of the value under "+k)
			e = clean.after(n)
			delete(e.kv, k)
			wantDamage(t, e, "nothing under "+k)
			for other := range clean.kv {
				if other != k {
					e = clean.after(n)
					e.kv[k] = clean.kv[other]
					wantDamage(t, e, "the value of "+other+" under "+k)
				}
			}
		}
		for _, k := range []string{"hx", "sx", "ex", "cx"} {
			e := clean.after(n)
			e.kv[k] = []byte("foreign")
			if k == "ex" {
				continue // sorts below the log: superfluous, deleted unread
			}
			wantDamage(t, e, "a foreign key "+k)
		}
	})
}

// TestDamageNamesTheEntry: the message is for somebody who must find it.
func TestDamageNamesTheEntry(t *testing.T) {
	e := sample(t, Config{})
	v := e.kv[string(entryKey(7))]
	v[len(v)-1] ^= 1
	if _, _, err := Open("dir", e, e.cfg); err == nil || !strings.Contains(err.Error(), "entry 7: checksum") {
		t.Fatalf("got %v, want it to name entry 7 and the checksum", err)
	}
}

// TestReleaseDeletes: entries and chunks are gone from the engine, and nothing
// else.
func TestReleaseDeletes(t *testing.T) {
	eachConfig(t, func(t *testing.T, cfg Config) {
		cfg.SnapFiles = false
		e := newFake(cfg)
		s, _ := mustOpen(t, e)
		want := func(entries, chunks int) {
			t.Helper()
			if e.keys(entryPrefix) != entries || e.keys(chunkPrefix) != chunks {
				t.Fatalf("%d entries and %d chunks are stored, want %d and %d",
					e.keys(entryPrefix), e.keys(chunkPrefix), entries, chunks)
			}
		}
		chunk := s.cfg.ChunkBytes
		must(t, s.Save(testHardState(1, 1, 20), testEntries(1, 1, 20, 10)))
		must(t, s.Release(testSnap(10, 1, 0)))
		want(20, 0) // not saved
		must(t, s.SaveSnap(testSnap(10, 1, 2*chunk)))
		must(t, s.SaveSnap(testSnap(12, 1, 2*chunk+1)))
		want(20, 5)
		must(t, s.Release(testSnap(10, 1, 0)))
		want(10, 3)
		must(t, s.SaveSnap(testSnap(11, 1, 9*chunk))) // older than the current one
		want(10, 3)
		must(t, s.Release(testSnap(99, 1, 0))) // not above the current one
		want(8, 3)
		must(t, s.SaveSnap(testSnap(30, 2, chunk)))
		want(0+8, 4)
		must(t, s.Release(testSnap(30, 2, 0)))
		want(0, 1)
		must(t, s.Save(nil, testEntries(31, 2, 5, 10)))
		must(t, s.SaveSnap(testSnap(40, 3, 0)))
		must(t, s.Save(nil, testEntries(41, 3, 5, 10)))
		must(t, s.Save(nil, testEntries(43, 4, 1, 10)))
		want(5+3, 1)
		must(t, s.Release(testSnap(40, 3, 0)))
		want(3, 0)
		must(t, s.Close())
		s, st := mustOpen(t, e)
		if len(st.Entries) != 3 || st.LastIndex() != 43 {
			t.Fatalf("%d entries up to %d, want 3 up to 43", len(st.Entries), st.LastIndex())
		}
		must(t, s.Save(nil, testEntries(44, 4, 1, 10)))
		must(t, s.SaveSnap(testSnap(44, 4, 0)))
		must(t, s.Release(testSnap(44, 4, 0)))
		want(0, 0)
		must(t, s.Save(nil, testEntries(45, 4, 9, 10)))
		must(t, s.SaveSnap(testSnap(50, 5, 0))) // conflicts with a tail
		must(t, s.SaveSnap(testSnap(60, 5, 0)))
		must(t, s.Release(testSnap(60, 5, 0)))
		want(0, 0)
		if e.useless > 0 {
			t.Fatalf("%d deletions of what was not there", e.useless)
		}
	})
}

// TestOpenCleansUp: what a crash left without an owner is deleted.
func TestOpenCleansUp(t *testing.T) {
	eachConfig(t, func(t *testing.T, cfg Config) {
		cfg.SnapFiles = false
		e := newFake(cfg)
		s, _ := mustOpen(t, e)
		must(t, s.Save(testHardState(1, 1, 20), testEntries(1, 1, 20, 10)))
		must(t, s.SaveSnap(testSnap(10, 1, 3*s.cfg.ChunkBytes)))
		n := len(e.batches)
		must(t, s.SaveSnap(testSnap(12, 1, 5*s.cfg.ChunkBytes)))
		e = e.after(n + 2) // in the middle of the chunks
		if want := 3 + 2*s.cfg.ChunksPerBatch; e.keys(chunkPrefix) != want {
			t.Fatalf("%d chunks, want %d", e.keys(chunkPrefix), want)
		}
		s, st := mustOpen(t, e)
		if st.Snapshot.GetMetadata().GetIndex() != 10 || e.keys(chunkPrefix) != 3 || e.keys(entryPrefix) != 10 {
			t.Fatalf("snapshot %d, %d chunks, %d entries, want 10, 3, 10",
				st.Snapshot.GetMetadata().GetIndex(), e.keys(chunkPrefix), e.keys(entryPrefix))
		}
		must(t, s.SaveSnap(testSnap(13, 1, 5*s.cfg.ChunkBytes)))
		if _, st := mustOpen(t, e); st.Snapshot.GetMetadata().GetIndex() != 13 {
			t.Fatalf("snapshot %d, want 13", st.Snapshot.GetMetadata().GetIndex())
		}
	})
}
