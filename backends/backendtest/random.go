package backendtest

import (
	"flag"
	"fmt"
	"os"
	"strconv"
	"sync"

	"pgregory.net/rapid"
)

// testRandomCalls lets rapid choose calls that a raft node could make, and
// shrink the sequence that fails. The oracle is raft.MemoryStorage.
func testRandomCalls(e *env) {
	dir, check := e.TempDir(), 0
	withRapidChecks(e.limits.checks, func() {
		rapid.Check(e.tb, func(t *rapid.T) {
			check++
			sub := *e
			sub.tb = rapidTB{T: t, dir: fmt.Sprintf("%s/%d", dir, check)}
			s := sub.newStore()
			t.Repeat(randomActions(s))
			s.check("at the end")
			s.close()
		})
	})
}

// rapidChecks guards rapid's flag, which is the process's.
var rapidChecks sync.Mutex

// withRapidChecks calls f with another default for -rapid.checks: a hundred
// sequences of synced writes would take minutes.
func withRapidChecks(n int, f func()) {
	rapidChecks.Lock()
	defer rapidChecks.Unlock()
	given := os.Getenv("RAPID_CHECKS") != ""
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "rapid.checks" })
	if !given {
		value := flag.Lookup("rapid.checks").Value
		old := value.String()
		value.Set(strconv.Itoa(n))
		defer value.Set(old)
	}
	f()
}

// rapidTB makes rapid.T a tb: every sequence has a directory, which goes when
// the sequence is over.
type rapidTB struct {
	*rapid.T
	dir string
}

func (t rapidTB) TempDir() string {
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() { os.RemoveAll(t.dir) })
	return t.dir
}

// randomActions are what the loop and the apply side may do at any time. Raft
// never replaces a committed entry, and never lowers term or commit.
func randomActions(s *store) map[string]func(*rapid.T) {
	size := rapid.OneOf(rapid.IntRange(0, 64), rapid.IntRange(0, 5000), rapid.IntRange(60_000, 70_000))
	index := func(t *rapid.T, what string, lo, hi uint64) uint64 {
		if lo > hi {
			t.Skip("no such index")
		}
		return rapid.Uint64Range(lo, hi).Draw(t, what)
	}
	return map[string]func(*rapid.T){
		"append": func(t *rapid.T) {
			st := s.o.state().HardState
			term := st.GetTerm() + rapid.Uint64Range(0, 1).Draw(t, "newTerm")
			term = max(term, 1)
			commit := index(t, "commit", st.GetCommit(), s.o.lastIndex())
			ents := run(s.o.lastIndex()+1, term, rapid.IntRange(1, 20).Draw(t, "n"), size.Draw(t, "size"))
			s.save(hs(term, 1, commit), ents...)
		},
		"appendWithoutHardState": func(t *rapid.T) {
			if st := s.o.state().HardState; st.GetTerm() > 0 {
				s.save(nil, entry(s.o.lastIndex()+1, st.GetTerm(), size.Draw(t, "size")))
			}
		},
		"overwrite": func(t *rapid.T) {
			st := s.o.state().HardState
			from := index(t, "from", st.GetCommit()+1, s.o.lastIndex())
			ents := run(from, st.GetTerm()+1, rapid.IntRange(1, 20).Draw(t, "n"), size.Draw(t, "size"))
			commit := index(t, "commit", st.GetCommit(), from+uint64(len(ents))-1)
			s.save(hs(st.GetTerm()+1, 2, commit), ents...)
		},
		"commit": func(t *rapid.T) {
			st := s.o.state().HardState
			commit := index(t, "commit", st.GetCommit(), s.o.lastIndex())
			if st.GetTerm() > 0 {
				s.save(hs(st.GetTerm(), st.GetVote(), commit))
			}
		},
		"vote": func(t *rapid.T) {
			st := s.o.state().HardState
			s.save(hs(st.GetTerm()+1, rapid.Uint64Range(0, 3).Draw(t, "vote"), st.GetCommit()))
		},
		"snapshot": func(t *rapid.T) {
			at := index(t, "at", s.o.snapshot().GetMetadata().GetIndex()+1, s.o.state().HardState.GetCommit())
			s.snapshotAt(at, size.Draw(t, "size"))
		},
		"release": func(t *rapid.T) {
			if sn := s.o.snapshot(); sn != nil {
				s.release(sn)
			}
		},
		"install": func(t *rapid.T) {
			st := s.o.state().HardState
			s.install(index(t, "at", st.GetCommit()+1, s.o.lastIndex()+10), st.GetTerm()+1, size.Draw(t, "size"))
		},
		"installAndCrash": func(t *rapid.T) {
			st := s.o.state().HardState
			s.saveSnap(snap(index(t, "at", st.GetCommit()+1, s.o.lastIndex()+10), st.GetTerm()+1, size.Draw(t, "size")))
			s.check("after a snapshot without a Save")
		},
		"sync":   func(*rapid.T) { s.sync() },
		"reopen": func(*rapid.T) { s.check("in between") },
	}
}
