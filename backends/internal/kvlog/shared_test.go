package kvlog

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

func mustGroup(t *testing.T, s *Shared, id uint64) (backends.Storage, backends.State) {
	t.Helper()
	g, st, err := s.Group(id)
	must(t, err)
	return g, st
}

// TestGroupsAreApart: groups in one engine hold what they were given, after each
// was overwritten, snapshotted and released in its own way.
func TestGroupsAreApart(t *testing.T) {
	eachConfig(t, func(t *testing.T, cfg Config) {
		for _, one := range []bool{false, true} {
			cfg.OneCommit = one
			e := newFake(cfg)
			s := NewShared("dir", e, cfg, nil)
			const groups = 5
			for id := range uint64(groups) {
				g, _ := mustGroup(t, s, id)
				must(t, g.Save(testHardState(1, 1, 0), testEntries(1, 1, 10+int(id), 10)))
				must(t, g.Save(testHardState(2, 2, 5), testEntries(8, 2, 1+int(id), 10)))
				must(t, g.SaveSnap(testSnap(3+id%2, 1, 25)))
				must(t, g.Release(testSnap(3+id%2, 1, 0)))
				must(t, g.Close())
			}
			for id := range uint64(groups) {
				g, st := mustGroup(t, s, id)
				alone := newFake(cfg)
				a, _ := mustOpen(t, alone)
				must(t, a.Save(testHardState(1, 1, 0), testEntries(1, 1, 10+int(id), 10)))
				must(t, a.Save(testHardState(2, 2, 5), testEntries(8, 2, 1+int(id), 10)))
				must(t, a.SaveSnap(testSnap(3+id%2, 1, 25)))
				_, want := mustOpen(t, alone)
				if !proto.Equal(st.Snapshot, want.Snapshot) || !proto.Equal(st.HardState, want.HardState) || fmt.Sprint(st.Entries) != fmt.Sprint(want.Entries) {
					t.Fatalf("group %d: got %v, want %v", id, st, want)
				}
				must(t, g.Close())
			}
			must(t, s.Close())
			if e.closed != 1 {
				t.Fatalf("the engine was closed %d times", e.closed)
			}
		}
	})
}

// TestRecordOfAnotherGroup: the record of one group under the key of another is
// damage, although it is whole.
func TestRecordOfAnotherGroup(t *testing.T) {
	e := newFake(Config{})
	s := NewShared("dir", e, Config{}, nil)
	for id := range uint64(2) {
		g, _ := mustGroup(t, s, id)
		must(t, g.Save(testHardState(1, 1, 0), testEntries(1, 1, 3, 10)))
		must(t, g.Close())
	}
	key := func(group byte) string { return string([]byte{'g', 0, 0, 0, 0, 0, 0, 0, group}) + string(entryKey(2)) }
	if e.kv[key(0)] == nil {
		t.Fatalf("there is no key %q", key(0))
	}
	e.kv[key(1)] = e.kv[key(0)]
	mustGroup(t, s, 0)
	if _, _, err := s.Group(1); !errors.As(err, new(*backends.DamageError)) {
		t.Fatalf("got %v, want damage", err)
	}
}

// TestOneCommitForThoseThatWait: while a commit is being made, those that come
// gather, and all are made by the next.
func TestOneCommitForThoseThatWait(t *testing.T) {
	const groups = 20
	e := &slowFake{fakeEngine: newFake(Config{}), begun: make(chan struct{}, groups), goOn: make(chan struct{})}
	s := NewShared("dir", e, Config{OneCommit: true}, nil)
	var wg sync.WaitGroup
	save := func(id uint64) {
		g, _ := mustGroup(t, s, id)
		wg.Go(func() { must(t, g.Save(testHardState(1, 1, 0), testEntries(1, 1, 1, 10))) })
	}
	save(0)
	<-e.begun
	for id := range uint64(groups - 1) {
		save(id + 1)
	}
	for waiting := 0; waiting < groups-1; {
		s.mu.Lock()
		waiting = len(s.waiting)
		s.mu.Unlock()
	}
	close(e.goOn)
	wg.Wait()
	if n := len(e.batches); n != 2 {
		t.Errorf("%d commits for %d groups, want 2", n, groups)
	}
	for id := range uint64(groups) {
		delete(s.open, id)
		if _, st := mustGroup(t, s, id); len(st.Entries) != 1 {
			t.Errorf("group %d has %d entries, want 1", id, len(st.Entries))
		}
	}
}

type slowFake struct {
	*fakeEngine
	begun, goOn chan struct{}
}

func (e *slowFake) Commit(ops []Op, sync bool) error {
	e.begun <- struct{}{}
	<-e.goOn
	return e.fakeEngine.Commit(ops, sync)
}

// TestErrorOfOneGroupStopsAll: nothing is written after a failure, by any group,
// those that waited for the failed commit included.
func TestErrorOfOneGroupStopsAll(t *testing.T) {
	for _, one := range []bool{false, true} {
		e := newFake(Config{})
		s := NewShared("dir", e, Config{OneCommit: one}, nil)
		a, _ := mustGroup(t, s, 1)
		b, _ := mustGroup(t, s, 2)
		e.failAt = 1
		if err := a.Save(testHardState(1, 1, 0), testEntries(1, 1, 1, 10)); !errors.Is(err, errInjected) {
			t.Fatalf("got %v", err)
		}
		e.failAt = 0
		if err := b.Save(testHardState(1, 1, 0), testEntries(1, 1, 1, 10)); !errors.Is(err, errInjected) {
			t.Errorf("another group after the failure: got %v", err)
		}
		if _, _, err := s.Group(3); !errors.Is(err, errInjected) {
			t.Errorf("a group opened after the failure: got %v", err)
		}
		if len(e.kv) != 0 {
			t.Errorf("something was written after the failure: %d keys", len(e.kv))
		}
		must(t, a.Close())
		must(t, b.Close())
		must(t, s.Close())
	}
}

func TestSharedIsOpenedAndClosedOnce(t *testing.T) {
	e := newFake(Config{})
	s := NewShared("dir", e, Config{}, nil)
	g, _ := mustGroup(t, s, 1)
	if _, _, err := s.Group(1); !errors.Is(err, backends.ErrLocked) {
		t.Errorf("a group opened twice: got %v", err)
	}
	if err := s.Close(); err == nil || e.closed != 0 {
		t.Errorf("closed under an open group: %v", err)
	}
	must(t, g.Close())
	g, _ = mustGroup(t, s, 1)
	must(t, g.Close())
	must(t, s.Close())
	if err := s.Close(); !errors.Is(err, backends.ErrClosed) || e.closed != 1 {
		t.Errorf("closed twice: got %v", err)
	}
	if _, _, err := s.Group(1); !errors.Is(err, backends.ErrClosed) {
		t.Errorf("a group of a closed store: got %v", err)
	}
}
