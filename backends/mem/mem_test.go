package mem

import (
	"errors"
	"os"
	"testing"

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
