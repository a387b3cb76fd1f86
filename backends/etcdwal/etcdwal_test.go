package etcdwal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/backendtest"
)

func TestConformance(t *testing.T) { backendtest.Run(t, Backend) }

// smallSegments makes every few saves cut a segment.
var smallSegments = map[string]string{"segment": "64KiB"}

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

// entries are n from first on; their Data is random, or zeros where it could be
// taken for what a torn write leaves.
func entries(first, term uint64, n, size int, zero bool) []*raftpb.Entry {
	out := make([]*raftpb.Entry, n)
	for i := range out {
		data := make([]byte, size)
		if !zero {
			rand.NewChaCha8([32]byte{byte(first), byte(i)}).Read(data)
		}
		out[i] = &raftpb.Entry{Index: proto.Uint64(first + uint64(i)), Term: proto.Uint64(term), Type: raftpb.EntryType_EntryNormal.Enum(), Data: data}
	}
	return out
}

func snapshot(index, term uint64) *raftpb.Snapshot {
	return &raftpb.Snapshot{Data: []byte("state"), Metadata: &raftpb.SnapshotMetadata{
		Index: &index, Term: &term, ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}},
	}}
}

// wantDamage opens dir and expects a DamageError for the file.
func wantDamage(t *testing.T, dir, file string) {
	t.Helper()
	s, state, err := Backend.Open(backends.Options{Dir: dir, Params: smallSegments})
	var damage *backends.DamageError
	if err == nil {
		s.Close()
		t.Fatalf("Open succeeded with entries up to %d; want a DamageError for %s", state.LastIndex(), file)
	}
	if !errors.As(err, &damage) || damage.File != file {
		t.Fatalf("Open: %v; want a DamageError for %s", err, file)
	}
}

// filled is a closed store of some segments, with a snapshot at 100 of 300
// entries of term 1.
func filled(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s, _ := mustOpen(t, dir)
	for i := range uint64(30) {
		mustDo(t, s.Save(hardState(1, 2, i*10), entries(i*10+1, 1, 10, 1000, false)))
	}
	mustDo(t, s.SaveSnap(snapshot(100, 1)))
	mustDo(t, s.Close())
	return dir
}

func mustSegments(t *testing.T, dir string) []segment {
	t.Helper()
	segments, err := listSegments(filepath.Join(dir, "wal"))
	mustDo(t, err)
	return segments
}

func TestEtcdReadsIt(t *testing.T) {
	dir := filled(t)
	s, _ := mustOpen(t, dir)
	mustDo(t, s.Release(snapshot(100, 1)))
	mustDo(t, s.Close())

	lg, walDir := zap.NewNop(), filepath.Join(dir, "wal")
	snaps, err := wal.ValidSnapshotEntries(lg, walDir)
	mustDo(t, err)
	newest := snaps[len(snaps)-1]
	if newest.GetIndex() != 100 {
		t.Fatalf("the newest snapshot that etcd finds is at %d, want 100", newest.GetIndex())
	}
	sn, err := snap.New(lg, filepath.Join(dir, "snap")).LoadNewestAvailable(snaps)
	mustDo(t, err)
	if string(sn.Data) != "state" {
		t.Fatalf("etcd's snapshotter reads %q", sn.Data)
	}
	hs, err := wal.Verify(lg, walDir, newest)
	mustDo(t, err)
	if hs.GetCommit() != 290 || hs.GetVote() != 2 {
		t.Fatalf("wal.Verify finds the hard state %v", hs)
	}
	w, err := wal.Open(lg, walDir, newest)
	mustDo(t, err)
	defer w.Close()
	metadata, _, ents, err := w.ReadAll()
	mustDo(t, err)
	if len(ents) != 200 || ents[199].GetIndex() != 300 {
		t.Fatalf("wal.ReadAll finds %d entries", len(ents))
	}
	// etcd-dump-logs panics on metadata of another type.
	if err := proto.Unmarshal(metadata, &etcdserverpb.Metadata{}); err != nil {
		t.Fatalf("the metadata is no etcdserverpb.Metadata: %v", err)
	}
}

func TestOneSegmentSize(t *testing.T) {
	dir := t.TempDir()
	s, _ := mustOpen(t, dir)
	other := map[string]string{"segment": "128KiB"}
	wantParamError := func(dir string) {
		t.Helper()
		_, _, err := Backend.Open(backends.Options{Dir: dir, Params: other})
		var bad *backends.ParamError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), "segment") {
			t.Fatalf("got %v, want a ParamError about the segment size", err)
		}
	}
	wantParamError(t.TempDir()) // while one of another size is open
	mustDo(t, s.Close())
	wantParamError(dir) // that was made with another size
	s2, _, err := Backend.Open(backends.Options{Dir: t.TempDir(), Params: other})
	mustDo(t, err)
	mustDo(t, s2.Close())
	if s, _ := mustOpen(t, dir); s == nil {
		t.Fatal("the directory does not open any more")
	}
}

func TestReleaseDeletesSegments(t *testing.T) {
	dir := filled(t)
	before := mustSegments(t, dir)
	s, _ := mustOpen(t, dir)
	mustDo(t, s.SaveSnap(snapshot(250, 1)))
	mustDo(t, s.Release(snapshot(250, 1)))
	after := mustSegments(t, dir)
	if len(before) < 4 || len(after) >= len(before) || after[0].index > 250 {
		t.Fatalf("%d segments became %d, the first from %d", len(before), len(after), after[0].index)
	}
	snaps, err := os.ReadDir(filepath.Join(dir, "snap"))
	mustDo(t, err)
	if len(snaps) != 1 {
		t.Fatalf("%d snapshots are left, want 1", len(snaps))
	}
}

// A power cut may undo some deletions of a directory and not others.
func TestDeletedSegmentReturns(t *testing.T) {
	dir := filled(t)
	old := mustSegments(t, dir)[0]
	content, err := os.ReadFile(old.path)
	mustDo(t, err)
	s, want := mustOpen(t, dir)
	mustDo(t, s.SaveSnap(snapshot(250, 1)))
	mustDo(t, s.Release(snapshot(250, 1)))
	mustDo(t, s.Close())
	mustDo(t, os.WriteFile(old.path, content, 0o600))
	s, state := mustOpen(t, dir)
	if state.LastIndex() != want.LastIndex() || state.Snapshot.GetMetadata().GetIndex() != 250 {
		t.Fatalf("the log reaches %d from snapshot %d; want %d and 250", state.LastIndex(), state.Snapshot.GetMetadata().GetIndex(), want.LastIndex())
	}
	mustDo(t, s.Release(snapshot(250, 1)))
	if now := mustSegments(t, dir); now[0].seq == old.seq {
		t.Fatal("the segment that came back is not released again")
	}
}

func TestMissingFiles(t *testing.T) {
	t.Run("segment", func(t *testing.T) {
		for i := range mustSegments(t, filled(t)) {
			dir := filled(t)
			segments := mustSegments(t, dir)
			if i == len(segments)-1 {
				continue // see below
			}
			mustDo(t, os.Remove(segments[i].path))
			if segments[i+1].index <= 100 {
				// Released, as far as the snapshot at 100 is concerned.
				_, state := mustOpen(t, dir)
				if state.LastIndex() != 300 {
					t.Fatalf("without %s the log ends at %d", segments[i].path, state.LastIndex())
				}
				continue
			}
			wantDamage(t, dir, filepath.Join(dir, "wal"))
		}
	})
	t.Run("all segments", func(t *testing.T) {
		dir := filled(t)
		mustDo(t, os.RemoveAll(filepath.Join(dir, "wal")))
		wantDamage(t, dir, filepath.Join(dir, "wal"))
	})
	t.Run("snapshot", func(t *testing.T) {
		dir := filled(t)
		path := snapshotPath(filepath.Join(dir, "snap"), 1, 100)
		mustDo(t, os.Remove(path))
		wantDamage(t, dir, path)
		wantDamage(t, dir, path)
	})
}

// What a crash leaves while the WAL is created, or a segment is cut, or a
// snapshot is saved.
func TestUnfinishedFiles(t *testing.T) {
	dir := t.TempDir()
	mustDo(t, os.MkdirAll(filepath.Join(dir, "wal.tmp"), 0o700))
	mustDo(t, os.WriteFile(filepath.Join(dir, "wal.tmp", "0000000000000000-0000000000000000.wal"), []byte("half"), 0o600))
	mustDo(t, os.MkdirAll(filepath.Join(dir, "wal"), 0o700))
	s, state := mustOpen(t, dir)
	if !state.Empty() {
		t.Fatalf("the log reaches %d, want an empty one", state.LastIndex())
	}
	mustDo(t, s.Save(hardState(1, 1, 0), entries(1, 1, 3, 10, false)))
	mustDo(t, s.Close())

	for _, tmp := range []string{"0.tmp", "1.tmp"} {
		mustDo(t, os.WriteFile(filepath.Join(dir, "wal", tmp), bytes.Repeat([]byte("stale"), 20_000), 0o600))
	}
	mustDo(t, os.WriteFile(snapshotPath(filepath.Join(dir, "snap"), 1, 3), []byte("half"), 0o600))
	s, state = mustOpen(t, dir)
	if state.LastIndex() != 3 || state.Snapshot != nil {
		t.Fatalf("the log reaches %d and a snapshot of %d bytes; want 3 and none", state.LastIndex(), len(state.Snapshot.GetData()))
	}
	// The segments that are prepared now have nothing of the old ones in them.
	for i := range uint64(10) {
		mustDo(t, s.Save(hardState(1, 1, 0), entries(4+i*10, 1, 10, 1000, false)))
	}
	mustDo(t, s.Close())
	if _, state = mustOpen(t, dir); state.LastIndex() != 103 || len(mustSegments(t, dir)) != 2 {
		t.Fatalf("the log reaches %d in %d segments, want 103 in 2", state.LastIndex(), len(mustSegments(t, dir)))
	}
}

// TestHardStateAcrossReleasedSegments: the WAL repeats in a new segment only a
// hard state that was saved since it was opened.
func TestHardStateAcrossReleasedSegments(t *testing.T) {
	dir := filled(t)
	s, state := mustOpen(t, dir)
	want := state.HardState
	for i := range uint64(30) {
		mustDo(t, s.Save(nil, entries(301+i*10, 1, 10, 1000, false)))
	}
	sn := snapshot(595, 1)
	mustDo(t, s.SaveSnap(sn))
	mustDo(t, s.Release(sn))
	mustDo(t, s.Close())
	if _, state = mustOpen(t, dir); state.HardState.GetVote() != want.GetVote() {
		t.Fatalf("hard state is %v, want the vote of %v", state.HardState, want)
	}
}

// TestSegmentCutAtOpen: the WAL names a segment after the last entry that it
// read, which may lie before the snapshot.
func TestSegmentCutAtOpen(t *testing.T) {
	dir := t.TempDir()
	s, _ := mustOpen(t, dir)
	mustDo(t, s.Save(hardState(1, 1, 13), entries(1, 1, 23, 100, false)))
	mustDo(t, s.Save(hardState(2, 1, 13), entries(16, 2, 2, 60_000, false)))
	mustDo(t, s.SaveSnap(snapshot(21, 3))) // of a leader; the crash comes before Save
	mustDo(t, s.Close())
	s, _ = mustOpen(t, dir)
	if n := len(mustSegments(t, dir)); n != 2 {
		t.Fatalf("Open left %d segments; this test is about one that Open cuts", n)
	}
	mustDo(t, s.Release(snapshot(21, 3)))
	mustDo(t, s.Save(hardState(3, 1, 21), entries(22, 3, 1, 10, false)))
	mustDo(t, s.Close())
	if _, state := mustOpen(t, dir); state.LastIndex() != 22 || state.Snapshot.GetMetadata().GetIndex() != 21 {
		t.Fatalf("the log reaches %d, the snapshot is at %d; want 22 and 21", state.LastIndex(), state.Snapshot.GetMetadata().GetIndex())
	}
}

// recordOffsets returns where the records of the last segment begin.
func recordOffsets(t *testing.T, path string) []int64 {
	t.Helper()
	b, err := os.ReadFile(path)
	mustDo(t, err)
	var out []int64
	for at := int64(0); at+8 <= int64(len(b)); {
		l := binary.LittleEndian.Uint64(b[at:])
		if l == 0 {
			break
		}
		out = append(out, at)
		at += 8 + int64(l&(1<<56-1)+7)&^7
	}
	return out
}

// TestTornTail takes sectors away from the last write, in every combination that
// a seed chooses. What came before must be there, and the log must go on.
func TestTornTail(t *testing.T) {
	for _, zero := range []bool{false, true} {
		pristine := t.TempDir()
		s, _ := mustOpen(t, pristine)
		mustDo(t, s.Save(hardState(1, 1, 0), entries(1, 1, 10, 700, zero)))
		before := len(recordOffsets(t, mustSegments(t, pristine)[0].path))
		mustDo(t, s.Save(hardState(1, 1, 8), entries(11, 1, 12, 700, zero)))
		mustDo(t, s.Close())
		path := mustSegments(t, pristine)[0].path
		content, err := os.ReadFile(path)
		mustDo(t, err)
		offsets := recordOffsets(t, path)
		from, to := offsets[before], offsets[len(offsets)-1]+64

		rng := rand.New(rand.NewPCG(1, 2))
		for trial := range 200 {
			torn := bytes.Clone(content)
			// The sector that the write begins in held what was there before.
			for sector := from / sectorBytes * sectorBytes; sector < to; sector += sectorBytes {
				if rng.IntN(1+trial%5) == 0 {
					clear(torn[max(sector, from):min(sector+sectorBytes, to)])
				}
			}
			checkTorn(t, fmt.Sprintf("zero payload %v, trial %d", zero, trial), pristine, path, torn)
		}
	}
}

func checkTorn(t *testing.T, what, pristine, path string, torn []byte) {
	t.Helper()
	dir := t.TempDir()
	mustDo(t, os.CopyFS(dir, os.DirFS(pristine)))
	mustDo(t, os.WriteFile(filepath.Join(dir, "wal", filepath.Base(path)), torn, 0o600))
	s, state, err := Backend.Open(backends.Options{Dir: dir, Params: smallSegments})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer s.Close()
	if state.LastIndex() < 10 || state.LastIndex() > 22 {
		t.Fatalf("%s: the log ends at %d, want 10 to 22", what, state.LastIndex())
	}
	last := state.LastIndex()
	mustDo(t, s.Save(hardState(2, 1, 0), entries(last+1, 2, 2, 3000, true)))
	mustDo(t, s.Close())
	again, state, err := Backend.Open(backends.Options{Dir: dir, Params: smallSegments})
	if err != nil || state.LastIndex() != last+2 {
		t.Fatalf("%s: after two more entries the log ends at %d, want %d (%v)", what, state.LastIndex(), last+2, err)
	}
	mustDo(t, again.Close())
}

// TestDamagedLength flips every bit of the length field of a record in the
// middle, and sets it to zero. wal.Repair would cut the log there. A few bits
// mean nothing.
func TestDamagedLength(t *testing.T) {
	for _, zero := range []bool{false, true} {
		dir := t.TempDir()
		s, _ := mustOpen(t, dir)
		for i := range uint64(20) {
			mustDo(t, s.Save(hardState(1, 1, 0), entries(i+1, 1, 1, 1500, zero)))
		}
		mustDo(t, s.Close())
		path := mustSegments(t, dir)[0].path
		content, err := os.ReadFile(path)
		mustDo(t, err)
		offsets := recordOffsets(t, path)
		at := offsets[len(offsets)/2]
		harmless := 0
		for bit := range 64 {
			damaged := bytes.Clone(content)
			damaged[at+int64(bit/8)] ^= 1 << (bit % 8)
			mustDo(t, os.WriteFile(path, damaged, 0o600))
			s, state, err := Backend.Open(backends.Options{Dir: dir, Params: smallSegments})
			if err != nil {
				wantDamage(t, dir, path)
				continue
			}
			harmless++
			mustDo(t, s.Close())
			if state.LastIndex() != 20 {
				t.Fatalf("with bit %d flipped the log ends at %d; want an error or the whole log", bit, state.LastIndex())
			}
		}
		if harmless > 8 {
			t.Errorf("%d of 64 flipped bits made no difference", harmless)
		}
		damaged := bytes.Clone(content)
		clear(damaged[at : at+8])
		mustDo(t, os.WriteFile(path, damaged, 0o600))
		wantDamage(t, dir, path)
	}
}

// TestCutSegment: a segment that ends early was cut, unless it ends behind a
// record. Then it gets its size back.
func TestCutSegment(t *testing.T) {
	dir := t.TempDir()
	s, _ := mustOpen(t, dir)
	mustDo(t, s.Save(hardState(1, 1, 0), entries(1, 1, 10, 100, false)))
	mustDo(t, s.Close())
	path := mustSegments(t, dir)[0].path
	ends := recordOffsets(t, path)
	content, err := os.ReadFile(path)
	mustDo(t, err)
	for size := int64(64<<10 - 1); size >= 0; size -= max(1, min(size-150, 97)) {
		mustDo(t, os.Truncate(path, size))
		if !slices.Contains(ends, size) {
			wantDamage(t, dir, path)
		}
	}
	for i, end := range ends {
		mustDo(t, os.WriteFile(path, content[:end], 0o600))
		if i < 2 { // the head
			wantDamage(t, dir, path)
			continue
		}
		s, state := mustOpen(t, dir)
		mustDo(t, s.Save(hardState(2, 1, 0), entries(state.LastIndex()+1, 2, 1, 100, false)))
		mustDo(t, s.Close())
		if info, err := os.Stat(path); err != nil || info.Size() != 64<<10 {
			t.Fatalf("cut at %d, the segment has %d bytes after Open (%v), want %d", end, info.Size(), err, 64<<10)
		}
	}
}

func TestPanicIsAnError(t *testing.T) {
	s, _ := mustOpen(t, t.TempDir())
	w := s.w
	s.w = nil
	err := s.Save(hardState(1, 1, 0), nil)
	if err == nil || !strings.Contains(err.Error(), "panicked") || !strings.Contains(err.Error(), s.walDir) {
		t.Fatalf("Save with a broken WAL: %v; want an error that says so and names %s", err, s.walDir)
	}
	s.w = w
	for what, err2 := range map[string]error{
		"Save": s.Save(nil, nil), "Sync": s.Sync(), "SaveSnap": s.SaveSnap(snapshot(1, 1)), "Release": s.Release(snapshot(1, 1)),
	} {
		if err2 == nil || err2.Error() != err.Error() {
			t.Errorf("%s after a failed Save: %v; want the same error", what, err2)
		}
	}
	mustDo(t, s.Close())
}

func TestLockedSegmentStays(t *testing.T) {
	dir := filled(t)
	s, _ := mustOpen(t, dir)
	before := mustSegments(t, dir)
	// Segment 0 was never opened, for the snapshot lies behind it.
	mustDo(t, deleteSegments(s.walDir, 300))
	after := mustSegments(t, dir)
	if want := holding(before, 100); len(before)-len(after) != want {
		t.Fatalf("%d of %d segments were deleted, want the %d that the WAL does not hold", len(before)-len(after), len(before), want)
	}
}

func TestIsTorn(t *testing.T) {
	const length, at = 1000, 504 // the length field is the last of its sector
	header := []byte{0x08, 2, 0x10, 3, 0x1a, 0xe0, 0x07}
	file := func(length uint64, then []byte) []byte {
		b := bytes.Repeat([]byte{7}, at)
		b = binary.LittleEndian.AppendUint64(b, length)
		return append(b, then...)
	}
	sector := func(b ...byte) []byte { return append(b, make([]byte, sectorBytes-len(b))...) }
	for _, c := range []struct {
		name string
		file []byte
		at   int64
		want bool
	}{
		{"end of the file", file(0, nil)[:at], at, true},
		{"file ends in the length", file(0, nil)[:at+3], at, true},
		{"zeros", file(0, sector()), at, true},
		{"record's first sector is there, the next is not", file(length, nil), at, true},
		{"record's first sector is there, the next is zero", file(length, sector()), at, true},
		{"header agrees with the length", file(7+0x3e0, sector(header...)), at, true},
		{"header does not agree", file(length, sector(header...)), at, false},
		{"header of another kind", file(length, sector(0x10, 2, 0x10)), at, false},
		{"header ends in a varint", append(file(length, nil)[at:], 0x08, 2, 0x10, 0x80), 0, true},
		{"impossible padding", file(0x90<<56|length, sector(header...)), at, false},
		{"zero length, the sector goes on", append(make([]byte, 8), 1), 0, false},
		{"record without data", append(binary.LittleEndian.AppendUint64(nil, 4), 0x08, 4, 0x10, 3), 0, true},
	} {
		got, err := isTorn(bytes.NewReader(c.file), int64(len(c.file)), c.at)
		if err != nil || got != c.want {
			t.Errorf("%s: got %v (%v), want %v", c.name, got, err, c.want)
		}
	}
}

func FuzzIsTorn(f *testing.F) {
	rec, err := proto.Marshal(&raftpb.HardState{Term: proto.Uint64(1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(binary.LittleEndian.AppendUint64(nil, uint64(len(rec))), uint16(0))
	f.Add(append(binary.LittleEndian.AppendUint64(nil, 0x82<<56|14), 0x08, 2, 0x10, 3, 0x1a, 8), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		if int(at) > len(b) {
			return
		}
		if _, err := isTorn(bytes.NewReader(b), int64(len(b)), int64(at)); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	})
}
