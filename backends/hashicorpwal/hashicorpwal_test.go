package hashicorpwal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	hraft "github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/backendtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) { backendtest.Run(t, Backend) }

// smallSegments seal a segment every few saves.
var smallSegments = map[string]string{"segment": "16KiB"}

func TestConformanceSmallSegments(t *testing.T) {
	b := Backend
	b.Open = func(opts backends.Options) (backends.Storage, backends.State, error) {
		if opts.Params == nil {
			opts.Params = smallSegments
		}
		return Backend.Open(opts)
	}
	backendtest.Run(t, b)
}

func mustOpen(t *testing.T, dir string) (*storage, backends.State) {
	t.Helper()
	s, state, err := Backend.Open(backends.Options{Dir: dir, Params: smallSegments})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*storage), state
}

func mustDo(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func hardState(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}

func entries(first, term uint64, n, size int) []*raftpb.Entry {
	out := make([]*raftpb.Entry, n)
	for i := range out {
		data := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(first), byte(i)}).Read(data)
		out[i] = &raftpb.Entry{Index: proto.Uint64(first + uint64(i)), Term: proto.Uint64(term), Type: raftpb.EntryType_EntryNormal.Enum(), Data: data}
	}
	return out
}

func snapshot(index, term uint64) *raftpb.Snapshot {
	return &raftpb.Snapshot{Data: []byte("state"), Metadata: &raftpb.SnapshotMetadata{
		Index: &index, Term: &term, ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}},
	}}
}

// wantDamage opens dir twice and expects a DamageError for the file both times.
func wantDamage(t *testing.T, what, dir, file string) {
	t.Helper()
	for range 2 {
		s, state, err := Backend.Open(backends.Options{Dir: dir, Params: smallSegments})
		var damage *backends.DamageError
		if err == nil {
			s.Close()
			t.Fatalf("%s: Open succeeded with entries up to %d; want a DamageError for %s", what, state.LastIndex(), file)
		}
		if !errors.As(err, &damage) || damage.File != file {
			t.Fatalf("%s: Open: %v; want a DamageError for %s", what, err, file)
		}
	}
}

// filled is a closed store of some segments: entries 1 to 100 of term 1.
func filled(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s, _ := mustOpen(t, dir)
	for i := range uint64(20) {
		mustDo(t, s.Save(hardState(1, 2, i*5), entries(i*5+1, 1, 5, 800)))
	}
	mustDo(t, s.Close())
	return dir
}

func mustSegments(t *testing.T, dir string) []string {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "wal", "*.wal"))
	mustDo(t, err)
	return segments
}

// TestWhatRaftWALLeavesOpen pins what this package does around raft-wal: when
// one of these fails, raft-wal has been mended, and the code can go.
func TestWhatRaftWALLeavesOpen(t *testing.T) {
	log := func(index uint64, size int) *hraft.Log {
		return &hraft.Log{Index: index, Term: 1, Data: make([]byte, size)}
	}
	open := func(t *testing.T, dir string) (*wal.WAL, *metadb.BoltMetaDB) {
		t.Helper()
		meta := &metadb.BoltMetaDB{}
		w, err := wal.Open(dir, wal.WithMetaStore(meta), wal.WithSegmentSize(64<<10), wal.WithLogger(hclog.NewNullLogger()))
		mustDo(t, err)
		return w, meta
	}
	closeAll := func(t *testing.T, w *wal.WAL, meta *metadb.BoltMetaDB) {
		t.Helper()
		mustDo(t, errors.Join(w.Close(), meta.Close()))
	}
	t.Run("tail truncation", func(t *testing.T) {
		dir := t.TempDir()
		w, meta := open(t, dir)
		mustDo(t, w.StoreLogs([]*hraft.Log{log(1, 10), log(2, 10), log(3, 10)}))
		mustDo(t, w.DeleteRange(3, 3))
		closeAll(t, w, meta)
		w, meta = open(t, dir)
		defer closeAll(t, w, meta)
		if err := w.GetLog(1, &hraft.Log{}); err == nil {
			t.Error("a log whose tail was truncated can be read after a reopen")
		}
	})
	t.Run("sealed tail", func(t *testing.T) {
		// The rotation is entered by a meta store that fails, as in a crash.
		dir := t.TempDir()
		meta := &failingMeta{}
		w, err := wal.Open(dir, wal.WithMetaStore(meta), wal.WithSegmentSize(64<<10), wal.WithLogger(hclog.NewNullLogger()))
		mustDo(t, err)
		meta.failing = true
		mustDo(t, w.StoreLogs([]*hraft.Log{log(1, 100<<10)}))
		closeAll(t, w, &meta.BoltMetaDB)
		w, plain := open(t, dir)
		defer closeAll(t, w, plain)
		if err := w.StoreLog(log(2, 10)); !errors.Is(err, wal.ErrSealed) {
			t.Errorf("a log that was closed before its rotation was finished can be appended to: %v", err)
		}
	})
	t.Run("damage in the tail", func(t *testing.T) {
		dir := t.TempDir()
		w, meta := open(t, dir)
		for i := range uint64(10) {
			mustDo(t, w.StoreLogs([]*hraft.Log{log(i+1, 100)}))
		}
		closeAll(t, w, meta)
		path := filepath.Join(dir, segment.FileName(types.SegmentInfo{BaseIndex: 1}))
		b, err := os.ReadFile(path)
		mustDo(t, err)
		b[segmentHeaderBytes] = 0xff // the type of the first frame
		mustDo(t, os.WriteFile(path, b, 0o600))
		w, meta = open(t, dir)
		defer closeAll(t, w, meta)
		if last, err := w.LastIndex(); err != nil || last != 0 {
			t.Errorf("a damaged tail is not taken for an empty one: last index %d (%v)", last, err)
		}
	})
}

type failingMeta struct {
	metadb.BoltMetaDB
	failing bool
}

func (m *failingMeta) CommitState(s types.PersistentState) error {
	if m.failing {
		return errors.New("not now")
	}
	return m.BoltMetaDB.CommitState(s)
}

// TestUnfinishedRotation closes in every state that a segment can be in, from
// empty to just sealed, and goes on.
func TestUnfinishedRotation(t *testing.T) {
	dir := t.TempDir()
	last := uint64(0)
	for i := range 40 {
		s, state := mustOpen(t, dir)
		if state.LastIndex() != last || state.HardState.GetCommit() != last {
			t.Fatalf("life %d: the log ends at %d, commit at %d; want %d", i, state.LastIndex(), state.HardState.GetCommit(), last)
		}
		mustDo(t, s.Save(hardState(1, 1, last+2), entries(last+1, 1, 2, 1000+i*150)))
		last += 2
		mustDo(t, s.Close())
	}
	if n := len(mustSegments(t, dir)); n < 5 {
		t.Fatalf("%d segments; this test is about those that are sealed", n)
	}
}

// TestTornTail takes away parts of the last batch. What came before must be
// there, and the log must go on, in shorter and longer batches that are torn
// again.
func TestTornTail(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for trial := range 40 {
		dir := t.TempDir()
		s, _ := mustOpen(t, dir)
		mustDo(t, s.Save(hardState(1, 1, 0), entries(1, 1, 3, 200)))
		last := uint64(3)
		for range 4 {
			before, err := os.ReadFile(mustSegments(t, dir)[0])
			mustDo(t, err)
			mustDo(t, s.Save(nil, entries(last+1, 1, 1+rng.IntN(3), 100+rng.IntN(900))))
			mustDo(t, s.Close())
			tear(t, rng, mustSegments(t, dir)[0], before)
			var state backends.State
			s, state = mustOpen(t, dir)
			if state.LastIndex() < last {
				t.Fatalf("trial %d: the log ends at %d, want at least %d", trial, state.LastIndex(), last)
			}
			wantClearTail(t, mustSegments(t, dir)[0])
			last = state.LastIndex()
			mustDo(t, s.Save(nil, entries(last+1, 1, 1, 1+rng.IntN(300))))
			last++
		}
		mustDo(t, s.Close())
	}
}

// wantClearTail: nothing of a torn batch is left for raft-wal to find.
func wantClearTail(t *testing.T, path string) {
	t.Helper()
	b, err := readSegment(path, types.SegmentInfo{BaseIndex: 1, MinIndex: 1})
	mustDo(t, err)
	f, err := os.Open(path)
	mustDo(t, err)
	defer f.Close()
	rest, err := restOf(f, b.end)
	mustDo(t, err)
	if len(rest) > 0 {
		t.Fatalf("%d bytes of a torn batch are left behind the log's end", len(rest))
	}
}

// tear sets some of the sectors that the last write changed back to what they
// were.
func tear(t *testing.T, rng *rand.Rand, path string, before []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	mustDo(t, err)
	for at := 0; at < len(b); at += 512 {
		end := min(at+512, len(b))
		old := make([]byte, end-at)
		if at < len(before) {
			copy(old, before[at:])
		}
		if !bytes.Equal(b[at:end], old) && rng.IntN(2) == 0 {
			copy(b[at:end], old)
		}
	}
	mustDo(t, os.WriteFile(path, b, 0o600))
}

// TestDamagedSegments flips a bit in every part of every batch but the last.
func TestDamagedSegments(t *testing.T) {
	dir := filled(t)
	segments := mustSegments(t, dir)
	if len(segments) < 3 {
		t.Fatalf("%d segments, want some", len(segments))
	}
	for i, path := range segments {
		content, err := os.ReadFile(path)
		mustDo(t, err)
		end := len(bytes.TrimRight(content, "\x00"))
		if i == len(segments)-1 {
			end -= 5 * 900
		}
		for at := 0; at < end; at += 401 {
			damaged := bytes.Clone(content)
			damaged[at] ^= 1 << (at % 8)
			mustDo(t, os.WriteFile(path, damaged, 0o600))
			s, state, err := Backend.Open(backends.Options{Dir: dir, Params: smallSegments})
			var damage *backends.DamageError
			switch {
			case err == nil && state.LastIndex() == 100: // reserved bytes
				mustDo(t, s.Close())
			case err == nil:
				t.Fatalf("%s, offset %d: the log ends at %d", path, at, state.LastIndex())
			case !errors.As(err, &damage) || damage.File != path:
				t.Fatalf("%s, offset %d: %v; want a DamageError for the file", path, at, err)
			}
		}
		mustDo(t, os.WriteFile(path, content, 0o600))
	}
}

// TestDamagedMeta flips bits in wal-meta.db, which has no checksums: bbolt or
// raft-wal may go on with something else, but the log must not be another one.
func TestDamagedMeta(t *testing.T) {
	dir := filled(t)
	path := filepath.Join(dir, "wal", metadb.FileName)
	content, err := os.ReadFile(path)
	mustDo(t, err)
	files := map[string][]byte{}
	for _, s := range mustSegments(t, dir) {
		files[s], err = os.ReadFile(s)
		mustDo(t, err)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	refused := 0
	var used []int
	for i, c := range content {
		if c != 0 {
			used = append(used, i)
		}
	}
	for range 150 {
		at := used[rng.IntN(len(used))]
		damaged := bytes.Clone(content)
		damaged[at] ^= 1 << rng.IntN(8)
		mustDo(t, os.WriteFile(path, damaged, 0o600))
		s, state, err := Backend.Open(backends.Options{Dir: dir, Params: smallSegments})
		if err != nil {
			refused++
			if !strings.Contains(err.Error(), dir) {
				t.Fatalf("offset %d: %v; want an error that names %s", at, err, dir)
			}
		} else {
			mustDo(t, s.Close())
			if state.LastIndex() != 100 || len(state.Entries) != 100 {
				t.Fatalf("offset %d: %d entries up to %d; want an error, or 100", at, len(state.Entries), state.LastIndex())
			}
		}
		for s, b := range files {
			mustDo(t, os.WriteFile(s, b, 0o600))
		}
	}
	if refused == 0 {
		t.Error("no flipped bit made a difference")
	}
}

// TestDamagedMetaIsClosed: bbolt panics on a page of the wrong kind, and must not
// keep its lock, for which the next Open would wait.
func TestDamagedMetaIsClosed(t *testing.T) {
	dir := filled(t)
	path := filepath.Join(dir, "wal", metadb.FileName)
	content, err := os.ReadFile(path)
	mustDo(t, err)
	refused := 0
	for page := 2 * os.Getpagesize(); page < len(content); page += os.Getpagesize() {
		damaged := bytes.Clone(content)
		damaged[page+8], damaged[page+9] = 0xff, 0xff // the flags that say what it is
		mustDo(t, os.WriteFile(path, damaged, 0o600))
		for range 3 {
			done := make(chan error, 1)
			go func() {
				s, _, err := Backend.Open(backends.Options{Dir: dir, Params: smallSegments})
				if err == nil {
					err = s.Close()
				} else {
					refused++
				}
				done <- err
			}()
			select {
			case <-done:
			case <-time.After(time.Minute):
				t.Fatalf("page %d: Open hangs", page/os.Getpagesize())
			}
		}
	}
	if refused == 0 {
		t.Error("no damaged page made a difference")
	}
}

func TestMissingFiles(t *testing.T) {
	// Not the tail: raft-wal cannot tell that from a crash before it was made.
	for i := 0; ; i++ {
		dir := filled(t)
		segments := mustSegments(t, dir)
		if i >= len(segments)-1 {
			break
		}
		mustDo(t, os.Remove(segments[i]))
		wantDamage(t, "a sealed segment is missing", dir, segments[i])
	}
	dir := filled(t)
	meta := filepath.Join(dir, "wal", metadb.FileName)
	mustDo(t, os.Remove(meta))
	wantDamage(t, "no wal-meta.db", dir, meta)
	mustDo(t, os.RemoveAll(filepath.Join(dir, "wal")))
	wantDamage(t, "no log", dir, meta)

	// The tail under another name, as if wal-meta.db named a wrong one.
	dir = filled(t)
	segments := mustSegments(t, dir)
	tail := segments[len(segments)-1]
	other := strings.Replace(tail, ".wal", "", 1)
	other = other[:len(other)-1] + "f.wal"
	mustDo(t, os.Rename(tail, other))
	wantDamage(t, "the tail under another name", dir, tail)
	if _, err := os.Stat(other); err != nil {
		t.Fatalf("the records are gone: %v", err)
	}
}

func TestReleaseDeletesSegments(t *testing.T) {
	dir := filled(t)
	before := mustSegments(t, dir)
	s, _ := mustOpen(t, dir)
	mustDo(t, s.SaveSnap(snapshot(90, 1)))
	mustDo(t, s.Release(snapshot(90, 1)))
	after := mustSegments(t, dir)
	if len(after) >= len(before) || len(after) > 2 {
		t.Fatalf("%d segments became %d", len(before), len(after))
	}
	mustDo(t, s.SaveSnap(snapshot(100, 1)))
	mustDo(t, s.Release(snapshot(100, 1)))
	mustDo(t, s.Close())
	// The hard state was in a record that was released but for the last.
	if _, state := mustOpen(t, dir); state.HardState.GetVote() != 2 || state.LastIndex() != 100 {
		t.Fatalf("hard state is %v and the log ends at %d", state.HardState, state.LastIndex())
	}
}

func TestRotationFails(t *testing.T) {
	dir := t.TempDir()
	s, _ := mustOpen(t, dir)
	// The next segment's file is in the way.
	mustDo(t, os.WriteFile(filepath.Join(dir, "wal", fmt.Sprintf("%020d-%016x.wal", 4, 1)), nil, 0o600))
	mustDo(t, s.Save(hardState(1, 1, 0), entries(1, 1, 3, 10_000)))
	err := s.Save(nil, entries(4, 1, 1, 10))
	if err == nil || !strings.Contains(err.Error(), "file exists") || !strings.Contains(err.Error(), s.walDir) {
		t.Fatalf("Save after a failed rotation: %v; want its reason, and the directory", err)
	}
	for what, err2 := range map[string]error{
		"Save": s.Save(nil, nil), "Sync": s.Sync(), "SaveSnap": s.SaveSnap(snapshot(1, 1)), "Release": s.Release(snapshot(1, 1)),
	} {
		if err2 == nil || err2.Error() != err.Error() {
			t.Errorf("%s after a failed Save: %v; want the same error", what, err2)
		}
	}
}

func TestTooBigEntry(t *testing.T) {
	s, _ := mustOpen(t, t.TempDir())
	e := entries(1, 1, 1, 0)
	e[0].Data = make([]byte, maxData+1)
	if err := s.Save(hardState(1, 1, 0), e); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Fatalf("an entry of %d bytes: %v; want an error that says how large it may be", len(e[0].Data), err)
	}
}

func TestGapIsRefused(t *testing.T) {
	s, _ := mustOpen(t, t.TempDir())
	mustDo(t, s.Save(hardState(1, 1, 0), entries(1, 1, 3, 10)))
	if err := s.Save(nil, entries(5, 1, 1, 10)); err == nil || !strings.Contains(err.Error(), "begin at 5") {
		t.Fatalf("entry 5 after 3: %v; want an error", err)
	}
}

// TestConflictReleased: of a log that a snapshot replaced, only the last record
// stays, and its entry does not come back.
func TestConflictReleased(t *testing.T) {
	dir := t.TempDir()
	s, _ := mustOpen(t, dir)
	mustDo(t, s.Save(hardState(1, 1, 4), entries(1, 1, 20, 10)))
	mustDo(t, s.SaveSnap(snapshot(8, 2)))
	mustDo(t, s.Release(snapshot(8, 2)))
	if s.first != s.last {
		t.Fatalf("the records %d to %d are left, want only the last", s.first, s.last)
	}
	mustDo(t, s.Close())
	s, state := mustOpen(t, dir)
	if state.LastIndex() != 8 || len(state.Entries) > 0 {
		t.Fatalf("the log ends at %d after the snapshot at 8", state.LastIndex())
	}
	mustDo(t, s.Save(hardState(2, 1, 8), entries(9, 2, 1, 10)))
	mustDo(t, s.Close())
	if _, state = mustOpen(t, dir); state.LastIndex() != 9 {
		t.Fatalf("the log ends at %d, want 9", state.LastIndex())
	}
}

func TestGapIsDamage(t *testing.T) {
	dir := t.TempDir()
	s, _ := mustOpen(t, dir)
	mustDo(t, s.Save(hardState(1, 1, 0), entries(1, 1, 3, 10)))
	var l hraft.Log
	record{number: s.last + 1, entry: entries(10, 1, 1, 10)[0], hs: s.hs}.toLog(&l)
	mustDo(t, s.w.StoreLog(&l))
	mustDo(t, s.Close())
	wantDamage(t, "entry 10 after 3", dir, s.walDir)
}

// TestLogIndex compares the runs with a list of all entries.
func TestLogIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type entry struct{ index, term, number uint64 }
		var x logIndex
		var want []entry
		number := uint64(0)
		last := func() uint64 {
			if len(want) == 0 {
				return 0
			}
			return want[len(want)-1].index
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				index := last() + 1
				if len(want) > 0 {
					index = rapid.Uint64Range(want[0].index, last()+1).Draw(t, "index")
				}
				term := rapid.Uint64Range(1, 3).Draw(t, "term")
				for range rapid.IntRange(1, 5).Draw(t, "n") {
					number += rapid.Uint64Range(1, 2).Draw(t, "step")
					for len(want) > 0 && last() >= index {
						want = want[:len(want)-1]
					}
					want = append(want, entry{index, term, number})
					x.put(index, term, number)
					index++
				}
			},
			"drop": func(t *rapid.T) {
				to := rapid.Uint64Range(0, last()+2).Draw(t, "to")
				for len(want) > 0 && want[0].index <= to {
					want = want[1:]
				}
				x.dropTo(to)
			},
			"": func(t *rapid.T) {
				if x.last() != last() {
					t.Fatalf("last is %d, want %d", x.last(), last())
				}
				first := uint64(0)
				if len(want) > 0 {
					first = want[0].number
				}
				if x.number() != first {
					t.Fatalf("the first record is %d, want %d", x.number(), first)
				}
				for i := range last() + 3 {
					for term := range uint64(4) {
						has := false
						for _, e := range want {
							has = has || e.index == i && e.term == term
						}
						if x.holds(i, term) != has {
							t.Fatalf("holds(%d, %d) is %v", i, term, !has)
						}
					}
				}
			},
		})
	})
}

func FuzzFromLog(f *testing.F) {
	var l hraft.Log
	for _, r := range []record{
		{number: 1, entry: entries(7, 3, 1, 10)[0]},
		{number: 2, hs: hardState(1, 2, 3)},
		{number: 1 << 40, entry: entries(7, 3, 1, 0)[0], hs: hardState(1, 2, 3)},
	} {
		r.toLog(&l)
		f.Add(l.Index, l.Term, l.Data, l.Extensions[:len(l.Extensions)-4])
	}
	f.Fuzz(func(t *testing.T, index, term uint64, data, ext []byte) {
		l := hraft.Log{Index: index, Term: term, Data: data, Extensions: ext}
		if _, err := fromLog(&l); err == nil && len(ext) < 5 {
			t.Fatal("took a record that is too short")
		}
		// With a good checksum, the rest is parsed.
		crc := checksum(&l, ext)
		l.Extensions = append(bytes.Clone(ext), byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24))
		r, err := fromLog(&l)
		if err != nil {
			return
		}
		var again hraft.Log
		r.toLog(&again)
		back, err := fromLog(&again)
		if err != nil || !proto.Equal(back.hs, r.hs) || !proto.Equal(back.entry, r.entry) {
			t.Fatalf("a record comes back as another: %v", err)
		}
	})
}

// FuzzIsBatch: the reader of batches takes no byte for granted.
func FuzzIsBatch(f *testing.F) {
	dir := f.TempDir()
	s, _, err := Backend.Open(backends.Options{Dir: dir, Params: smallSegments})
	if err != nil {
		f.Fatal(err)
	}
	if err := errors.Join(s.Save(hardState(1, 1, 0), entries(1, 1, 3, 30)), s.Close()); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "wal", segment.FileName(types.SegmentInfo{BaseIndex: 1})))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.TrimRight(b, "\x00"))
	f.Add(b[:segmentHeaderBytes])
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "segment")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readSegment(path, types.SegmentInfo{BaseIndex: 1, MinIndex: 1}); err != nil {
			var damage *backends.DamageError
			if !errors.As(err, &damage) {
				t.Fatal(err)
			}
		}
		findBatch(b)
	})
}
