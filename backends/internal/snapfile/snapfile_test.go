package snapfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

func snapshot(term, index uint64, data []byte) *raftpb.Snapshot {
	return &raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{
		Term: proto.Uint64(term), Index: proto.Uint64(index), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}},
	}}
}

// encode is the file that Save writes.
func encode(t testing.TB, snap *raftpb.Snapshot) []byte {
	t.Helper()
	dir := t.TempDir()
	if err := Save(dir, snap); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, name(snap.GetMetadata().GetTerm(), snap.GetMetadata().GetIndex())))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustSave(t *testing.T, dir string, snap *raftpb.Snapshot) {
	t.Helper()
	if err := Save(dir, snap); err != nil {
		t.Fatal(err)
	}
}

func wantLoad(t *testing.T, dir string, want *raftpb.Snapshot) {
	t.Helper()
	got, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want == nil && got != nil || want != nil && !proto.Equal(got, want) {
		t.Fatalf("got %v, want %v", got.GetMetadata(), want.GetMetadata())
	}
}

func TestNewestByIndex(t *testing.T) {
	dir := t.TempDir()
	wantLoad(t, dir, nil)
	newest := snapshot(5, 200, bytes.Repeat([]byte("x"), 1<<20))
	// The higher term stands on the lower index, and the older one is written
	// last: neither makes it newer.
	mustSave(t, dir, newest)
	mustSave(t, dir, snapshot(6, 100, nil))
	wantLoad(t, dir, newest)

	if err := Release(dir, 200); err != nil {
		t.Fatal(err)
	}
	wantLoad(t, dir, newest)
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Fatalf("after Release %d files are left, want 1: %v", len(files), files)
	}
}

func TestUnfinishedFileIsRemoved(t *testing.T) {
	dir := t.TempDir()
	want := snapshot(1, 10, []byte("data"))
	mustSave(t, dir, want)
	left := filepath.Join(dir, "123.snap.tmp")
	if err := os.WriteFile(left, []byte(magic), 0o600); err != nil {
		t.Fatal(err)
	}
	wantLoad(t, dir, want)
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the unfinished file is still there: %v", err)
	}
}

func TestDamageNamesTheFile(t *testing.T) {
	whole := encode(t, snapshot(3, 20, []byte("some data of the snapshot")))
	check := func(what string, b []byte) {
		dir := t.TempDir()
		mustSave(t, dir, snapshot(2, 10, nil))
		path := filepath.Join(dir, name(3, 20))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var damage *backends.DamageError
		if _, err := Load(dir); !errors.As(err, &damage) || damage.File != path {
			t.Fatalf("%s: got %v, want a DamageError for %s", what, err, path)
		}
	}
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 0x10
		check("one bit flipped", flipped)
		check("cut short", whole[:i])
	}
	check("one byte too many", append(bytes.Clone(whole), 0))
	check("another snapshot under this name", encode(t, snapshot(3, 21, nil)))
}

func FuzzDecode(f *testing.F) {
	for _, s := range []*raftpb.Snapshot{snapshot(1, 1, nil), snapshot(7, 1<<40, []byte("data"))} {
		f.Add(encode(f, s))
	}
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		snap, err := decode(b)
		if err != nil {
			return
		}
		snap.ProtoReflect().SetUnknown(nil) // not kept
		back, err := decode(encode(t, snap))
		if err != nil || !proto.Equal(back, snap) {
			t.Fatalf("decode(encode(x)) differs: %v", err)
		}
	})
}

// TestKeep: one is left, and what is not a snapshot; and a directory that is not there
// is as good as an empty one.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	for _, index := range []uint64{10, 20, 30} {
		mustSave(t, dir, snapshot(1, index, nil))
	}
	mustSave(t, dir, snapshot(2, 20, []byte("data")))
	for _, other := range []string{"123.snap.tmp", "LOCK"} {
		if err := os.WriteFile(filepath.Join(dir, other), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Keep(dir, 2, 20); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, 2)
	wantLoad(t, dir, snapshot(2, 20, []byte("data")))
	if err := Keep(dir, 0, 0); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, 1)
	if err := Keep(filepath.Join(dir, "none"), 1, 1); err != nil {
		t.Fatal(err)
	}
	if err := Remove(dir, 1, 10); err != nil {
		t.Fatalf("remove what is gone: %v", err)
	}
	var damage *backends.DamageError
	if _, err := Read(dir, 1, 10); !errors.As(err, &damage) || damage.File != filepath.Join(dir, name(1, 10)) {
		t.Fatalf("read what is gone: got %v, want a DamageError that names the file", err)
	}
}
