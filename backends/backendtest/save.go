package backendtest

import (
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
)

// Rule 1: what Save acknowledged.

func testSaveReopen(e *env) {
	s := e.newStore()
	s.check("with nothing saved")
	ents := []*raftpb.Entry{
		entry(1, 1, 0),
		{Index: entry(2, 1, 0).Index, Term: entry(2, 1, 0).Term, Data: []byte{}},
		entry(3, 1, 100),
		entry(4, 2, 1),
		entry(5, 2, 1000),
	}
	ents[2].Type = raftpb.EntryType_EntryConfChange.Enum()
	ents[3].Type = raftpb.EntryType_EntryConfChangeV2.Enum()
	s.save(hs(2, 3, 0), ents[:3]...)
	s.check("three entries saved")
	s.check("nothing saved since the last check")
	s.save(hs(2, 3, 3), ents[3:]...)
	s.save(hs(1<<40, 1<<50, 4))
	s.check("entries of two terms and three types saved")
	for i := range uint64(30) {
		s.append(1<<40+i/10, 1, 64)
	}
	s.check("thirty entries saved one by one")
	s.append(1<<40+5, 1000, 10)
	s.check("a thousand small entries saved in one batch")
}

func testValueSizes(e *env) {
	s := e.newStore()
	sizes := []int{0, 1, 7, 8, 9, 127, 128, 511, 512, 513, 4095, 4096, 4097, 32767, 32768, 65535, 65536, 1 << 20, 3<<20 + 1}
	for i, size := range sizes {
		s.save(hs(1, 1, uint64(i)), entry(uint64(i+1), 1, size))
	}
	s.check("values from no byte to 3 MiB saved")
	s.append(2, 1, 5)
	s.check("an entry saved after the big ones")
}

func testBigBatch(e *env) {
	s := e.newStore()
	s.append(1, 3, 100)
	s.append(1, 256, 64<<10)
	s.append(1, 3, 100)
	s.check("256 entries of 64 KiB saved in one batch")
}

func testHardStateOnly(e *env) {
	s := e.newStore()
	s.save(hs(1, 2, 0))
	s.check("a vote saved, and no entry")
	s.save(hs(7, 0, 0), nil...)
	s.check("a term without a vote saved")
	s.append(7, 5, 10)
	s.save(hs(8, 3, 2))
	s.save(hs(9, 1, 4))
	s.check("hard states saved after entries")
}

func testCommitOnly(e *env) {
	s := e.newStore()
	s.append(1, 10, 100)
	for i := range uint64(10) {
		s.commitTo(i + 1)
	}
	s.check("commit-only hard states saved, and the storage closed in order")
	s.append(1, 5, 100)
	s.commitTo(12)
	s.append(1, 5, 100)
	s.commitTo(13)
	s.sync()
	s.commitTo(14)
	s.check("commit-only hard states saved between entries")
}

// testCommitOnlyIsNotForced can look only at engines that report their syncs.
func testCommitOnlyIsNotForced(e *env) {
	var syncs atomic.Int64
	storage, _, err := e.b.Open(backends.Options{Dir: e.TempDir(), OnSync: func(time.Duration) { syncs.Add(1) }})
	if err != nil {
		e.Fatalf("Open: %v; want success", err)
	}
	defer storage.Close()
	const n = 100
	save := func(st *raftpb.HardState, ents ...*raftpb.Entry) {
		if err := storage.Save(st, ents); err != nil {
			e.Fatalf("Save: %v; want success", err)
		}
	}
	syncs.Store(0)
	for i := range uint64(n) {
		save(hs(1, 1, 0), entry(i+1, 1, 100))
	}
	forced := syncs.Load()
	if forced == 0 {
		e.Logf("%s reports no syncs (Options.OnSync): nothing to check", e.b.Name)
		return
	}
	if forced < n {
		e.Fatalf("%d saves of an entry made %d syncs, want at least one each", n, forced)
	}
	syncs.Store(0)
	for i := range uint64(n) {
		save(hs(1, 1, i+1))
	}
	// Some: an engine may rotate a file or compact at this moment.
	if got := syncs.Load(); got > n/4 {
		e.Fatalf("%d commit-only saves made %d syncs, want none of them to wait for the disk", n, got)
	}
}

func testEmptySave(e *env) {
	s := e.newStore()
	s.save(&raftpb.HardState{})
	s.save(nil)
	s.check("an empty Save of an empty storage")
	s.append(3, 4, 10)
	s.commitTo(2)
	s.save(&raftpb.HardState{})
	s.save(nil)
	s.check("an empty Save, which must change nothing, hard state included")
	s.save(nil, run(5, 3, 2, 10)...)
	s.save(&raftpb.HardState{}, run(7, 3, 2, 10)...)
	s.check("entries saved without a hard state, which must stay")
}

// Rule 2: what Save replaces.

// longTail is more entries than any engine here cuts at once.
const longTail = 3500

func testOverwrite(e *env) {
	for _, c := range []struct {
		name        string
		from, count int
	}{
		{"by a shorter one", 11, 3},
		{"by one of the same length", 11, 10},
		{"by a longer one", 11, 25},
		{"by one entry at its end", 20, 1},
		{"by one entry at the first index", 1, 1},
		{"by a longer one at the first index", 1, 30},
	} {
		for _, size := range []int{20, 5000} {
			s := e.newStore()
			s.append(1, 20, size)
			s.save(hs(2, 2, 0), run(uint64(c.from), 2, c.count, size)...)
			s.check("a tail of 20 entries overwritten " + c.name)
			s.append(3, 10, size)
			s.check("a tail overwritten " + c.name + ", the log reopened and appended to")
			s.close()
		}
	}
	s := e.newStore()
	s.append(1, 50, 100)
	for term := uint64(2); term < 20; term++ {
		s.save(hs(term, 2, 0), run(50-2*term, term, int(term%7)+1, 100)...)
	}
	s.check("the tail overwritten eighteen times without a reopen")
}

// testOverwriteAndCommit is a follower that was behind a leader of its own: in one Save
// it hears what replaces its tail, and that this is committed. Engines that cut tails in
// pieces do so beyond a thousand entries.
func testOverwriteAndCommit(e *env) {
	for _, tail := range []int{20, longTail} {
		for _, c := range []struct {
			name   string
			count  int
			commit uint64
		}{
			{"by one entry, and this committed", 1, 11},
			{"by some, and these committed", 5, 15},
			{"by some, of which one is committed", 5, 11},
			{"by a longer one, and most of it committed", tail + 10, uint64(tail)},
		} {
			s := e.newStore()
			s.append(1, tail, 20)
			s.commitTo(3)
			s.save(hs(2, 2, c.commit), run(11, 2, c.count, 20)...)
			s.check(fmt.Sprintf("a tail of %d entries overwritten %s in the same Save", tail-10, c.name))
			s.append(3, 10, 20)
			s.check(fmt.Sprintf("a tail of %d entries overwritten %s, and the log appended to", tail-10, c.name))
			s.close()
		}
	}
}

func testOverwriteReopenAppend(e *env) {
	s := e.newStore()
	s.append(1, 20, 50)
	s.check("twenty entries saved")
	s.save(hs(2, 1, 0), entry(5, 2, 50))
	s.append(2, 5, 50)
	s.check("a tail overwritten and appended to, so that it is still shorter than the old one")
	s.append(3, 20, 50)
	s.check("a log appended to beyond the old tail")
}

func testOverwriteAfterSnapshot(e *env) {
	s := e.newStore()
	s.append(1, 20, 50)
	s.commitTo(10)
	sn := s.snapshotAt(10, 100)
	s.save(hs(2, 1, 10), run(11, 2, 3, 50)...)
	s.check("the tail overwritten right after a snapshot")
	s.release(sn)
	s.save(hs(3, 1, 10), run(11, 3, 1, 50)...)
	s.check("the tail overwritten right after a released snapshot")
}
