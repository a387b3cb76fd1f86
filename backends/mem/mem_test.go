package mem

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"testing/iotest"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

func mustOpen(t testing.TB, dir string) backends.Storage {
	t.Helper()
	s, st, err := Backend.Open(backends.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if !st.Empty() || st.HardState == nil {
		t.Fatalf("state after Open = %+v, want an empty one", st)
	}
	return s
}

func entry(index uint64) *raftpb.Entry {
	return &raftpb.Entry{Term: proto.Uint64(1), Index: proto.Uint64(index), Data: []byte("x")}
}

func snapshot(index uint64) *raftpb.Snapshot {
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Term: proto.Uint64(1), Index: proto.Uint64(index)}}
}

func TestKeepsNothing(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	calls := map[string]error{
		"Save":     s.Save(&raftpb.HardState{Term: proto.Uint64(1)}, []*raftpb.Entry{entry(1)}),
		"SaveSnap": s.SaveSnap(snapshot(1)),
		"Sync":     s.Sync(),
		"Release":  s.Release(snapshot(1)),
		"Close":    s.Close(),
	}
	for name, err := range calls {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 0 {
		t.Errorf("directory holds %v (%v), want nothing", files, err)
	}
	if err := mustOpen(t, dir).Close(); err != nil {
		t.Error(err)
	}
}

func TestAfterClose(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	calls := map[string]error{
		"Save":     s.Save(&raftpb.HardState{}, nil),
		"SaveSnap": s.SaveSnap(snapshot(1)),
		"Sync":     s.Sync(),
		"Release":  s.Release(snapshot(1)),
		"Close":    s.Close(),
	}
	for name, err := range calls {
		if !errors.Is(err, backends.ErrClosed) {
			t.Errorf("%s after Close = %v, want ErrClosed", name, err)
		}
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if _, _, err := Backend.Open(backends.Options{Dir: dir + "/."}); !errors.Is(err, backends.ErrLocked) {
		t.Errorf("second Open = %v, want ErrLocked", err)
	}
	other := mustOpen(t, t.TempDir())
	for _, s := range []backends.Storage{s, other} {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestUnknownParam(t *testing.T) {
	_, _, err := Backend.Open(backends.Options{Dir: t.TempDir(), Params: map[string]string{"size": "1"}})
	if pe := new(backends.ParamError); !errors.As(err, &pe) {
		t.Errorf("Open = %v, want a ParamError", err)
	}
}

// pattern is the data of a snapshot, different for each seed.
func pattern(seed byte, size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = seed + byte(i) + byte(i>>8) + byte(i>>16)
	}
	return data
}

func stage(t *testing.T, s backends.Storage, index uint64, data []byte) backends.StagedSnap {
	t.Helper()
	staged, err := s.(backends.SnapshotStreamer).StageSnap(snapshot(index).GetMetadata(), int64(len(data)), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return staged
}

func save(t *testing.T, staged backends.StagedSnap) {
	t.Helper()
	if err := staged.Save(); err != nil {
		t.Fatal(err)
	}
}

func openSnap(t *testing.T, s backends.Storage, index uint64, want []byte) io.ReadCloser {
	t.Helper()
	data, size, err := s.(backends.SnapshotStreamer).OpenSnap(snapshot(index).GetMetadata())
	if err != nil || size != int64(len(want)) {
		t.Fatalf("OpenSnap of %d: %d bytes, %v; want %d", index, size, err, len(want))
	}
	return data
}

func readAll(t *testing.T, data io.ReadCloser, want []byte) {
	t.Helper()
	if got, err := io.ReadAll(data); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes that are not the %d of the snapshot, %v", len(got), len(want), err)
	}
	for range 2 {
		if err := data.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSnapshotStreams: the newest snapshot is read back, however it was saved, and stays
// as it is for its reader while later ones take the memory of those before.
func TestSnapshotStreams(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	defer s.Close()
	const size = 3*chunkBytes + 17
	want := map[uint64][]byte{}
	for i := uint64(1); i <= 6; i++ {
		want[i] = pattern(byte(i), size)
	}
	save(t, stage(t, s, 1, want[1]))
	first := openSnap(t, s, 1, want[1])
	given := bytes.Clone(want[2])
	if err := s.SaveSnap(&raftpb.Snapshot{Metadata: snapshot(2).GetMetadata(), Data: given}); err != nil {
		t.Fatal(err)
	}
	clear(given) // the caller's
	readAll(t, openSnap(t, s, 2, want[2]), want[2])
	if _, _, err := s.(backends.SnapshotStreamer).OpenSnap(snapshot(1).GetMetadata()); err == nil {
		t.Error("OpenSnap of a snapshot that was replaced: no error")
	}
	five, four := stage(t, s, 5, want[5]), stage(t, s, 4, want[4])
	save(t, stage(t, s, 3, want[3]))
	readAll(t, openSnap(t, s, 3, want[3]), want[3])
	save(t, five)
	save(t, four) // older than the newest
	third := openSnap(t, s, 5, want[5])
	if err := stage(t, s, 6, want[6]).Discard(); err != nil {
		t.Fatal(err)
	}
	save(t, stage(t, s, 6, want[6]))
	readAll(t, openSnap(t, s, 6, want[6]), want[6])
	readAll(t, third, want[5])
	readAll(t, first, want[1])
	spare := func() {
		t.Helper()
		if n := len(s.(*storage).spare); n > size/chunkBytes {
			t.Errorf("%d chunks are kept for the next snapshot, more than one has", n)
		}
	}
	one, two, three := stage(t, s, 7, want[1]), stage(t, s, 8, want[2]), stage(t, s, 9, want[3])
	for _, staged := range []backends.StagedSnap{one, two} {
		if err := staged.Discard(); err != nil {
			t.Fatal(err)
		}
		spare()
	}
	save(t, three)
	spare()
}

// TestBrokenStreams: data of another length, or an error of it, leaves what was there.
func TestBrokenStreams(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	defer s.Close()
	const size = chunkBytes + 5
	old := pattern(1, size)
	save(t, stage(t, s, 1, old))
	next, broken := pattern(2, size), errors.New("the peer went away")
	for what, data := range map[string]io.Reader{
		"is short":   bytes.NewReader(next[1:]),
		"is long":    io.MultiReader(bytes.NewReader(next), bytes.NewReader([]byte{0})),
		"breaks":     io.MultiReader(bytes.NewReader(next[:size/2]), iotest.ErrReader(broken)),
		"ends badly": io.MultiReader(bytes.NewReader(next), iotest.ErrReader(broken)),
	} {
		if _, err := s.(backends.SnapshotStreamer).StageSnap(snapshot(2).GetMetadata(), size, data); err == nil {
			t.Errorf("data that %s: no error", what)
		}
		readAll(t, openSnap(t, s, 1, old), old)
	}
	readAll(t, openSnap(t, s, 1, old), old)
}

// TestSnapshotMemory: a snapshot takes the memory of the one before the last.
func TestSnapshotMemory(t *testing.T) {
	s := mustOpen(t, t.TempDir())
	defer s.Close()
	const chunks = 4
	used := map[*byte]bool{}
	for i := uint64(1); i <= 10; i++ {
		save(t, stage(t, s, i, pattern(byte(i), chunks*chunkBytes)))
		for _, chunk := range s.(*storage).newest.chunks {
			used[&chunk[0]] = true
		}
	}
	if len(used) != 2*chunks {
		t.Errorf("ten snapshots of %d chunks lay in %d, want the memory of two", chunks, len(used))
	}
}

func BenchmarkSave(b *testing.B) {
	s := mustOpen(b, b.TempDir())
	defer s.Close()
	hs, ents := &raftpb.HardState{Term: proto.Uint64(1)}, []*raftpb.Entry{entry(1)}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Save(hs, ents); err != nil {
			b.Fatal(err)
		}
	}
}
