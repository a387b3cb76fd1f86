package trace_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/bench/trace"
)

// save is one Save of a log that a test writes.
type save struct {
	hs    bool // the hard state changes
	sizes []int
}

// write makes a log in a new directory.
func write(t *testing.T, segment int64, saves []save) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "wal")
	before := wal.SegmentSizeBytes
	wal.SegmentSizeBytes = segment
	defer func() { wal.SegmentSizeBytes = before }()
	w, err := wal.Create(nil, dir, []byte("metadata"))
	if err != nil {
		t.Fatal(err)
	}
	index := uint64(0)
	for i, s := range saves {
		hs := &raftpb.HardState{}
		if s.hs {
			hs = &raftpb.HardState{Term: proto.Uint64(1), Commit: proto.Uint64(uint64(i))}
		}
		var ents []*raftpb.Entry
		for _, n := range s.sizes {
			index++
			ents = append(ents, &raftpb.Entry{Term: proto.Uint64(1), Index: proto.Uint64(index), Data: make([]byte, n)})
		}
		if err := w.Save(hs, ents); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestBatches(t *testing.T) {
	dir := write(t, 64<<10, []save{
		{true, []int{10, 20, 30}},
		{true, nil},          // a commit alone
		{false, []int{40}},   // without a hard state: it joins the next
		{true, []int{50}},    //
		{true, []int{0, 60}}, // an entry without data is none of a client's
		{true, []int{0}},
		{true, []int{70_000}}, // fills a segment
		{true, []int{80}},
	})
	if names, _ := filepath.Glob(filepath.Join(dir, "*.wal")); len(names) < 2 {
		t.Fatalf("segments %v: want two at least", names)
	}
	got, err := trace.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{10, 20, 30, 40, 50, 60, 70_000, 80}; !slices.Equal(got.Sizes, want) {
		t.Errorf("sizes %v, want %v", got.Sizes, want)
	}
	if want := []int{3, 2, 1, 1, 1}; !slices.Equal(got.Batches, want) {
		t.Errorf("batches %v, want %v", got.Batches, want)
	}
	if err := got.Check(); err != nil {
		t.Error(err)
	}
}

// TestPlaces: the log is found in the directory itself, and below that of a
// member, also where the name is a pattern.
func TestPlaces(t *testing.T) {
	dir := write(t, 64<<10, []save{{true, []int{10}}})
	member := filepath.Join(t.TempDir(), "m[1]*")
	if err := errors.Join(os.MkdirAll(filepath.Join(member, "member"), 0o755), os.Rename(dir, filepath.Join(member, "member", "wal"))); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{member, filepath.Join(member, "member"), filepath.Join(member, "member", "wal")} {
		if got, err := trace.Read(dir); err != nil || len(got.Sizes) != 1 {
			t.Errorf("%s: %v, %v", dir, got, err)
		}
	}
}

func TestErrors(t *testing.T) {
	change := func(f func(data []byte) []byte, which int) string {
		dir := write(t, 16<<10, []save{{true, []int{1000}}, {true, []int{20_000}}, {true, []int{1000}}, {true, []int{1000}}})
		names, _ := filepath.Glob(filepath.Join(dir, "*.wal"))
		slices.Sort(names)
		path := names[which]
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, f(data), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	flip := func(data []byte) []byte { data[700] ^= 1; return data }
	for name, tc := range map[string]struct{ dir, want string }{
		"nothing there":      {filepath.Join(t.TempDir(), "none"), "no such file"},
		"no log":             {t.TempDir(), "no *.wal file"},
		"no entry":           {write(t, 64<<10, []save{{true, nil}}), "no entry with data"},
		"damage":             {change(flip, 0), "0000000000000000-0000000000000000.wal: offset"},
		"no checksum":        {change(func(data []byte) []byte { return data[16:] }, 0), "wal"},
		"a missing segment":  {change(func([]byte) []byte { return nil }, 0), "wal"},
		"torn, not the last": {change(func(data []byte) []byte { return data[:500] }, 0), "EOF"},
	} {
		if got, err := trace.Read(tc.dir); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, error %v, want %q", name, got, err, tc.want)
		}
	}
	if _, err := trace.Read(t.TempDir()); !errors.Is(err, trace.ErrNoWAL) {
		t.Errorf("no log: %v", err)
	}
	torn := change(func(data []byte) []byte { return data[:600] }, 1)
	if got, err := trace.Read(torn); err != nil || !slices.Equal(got.Sizes, []int{1000, 20_000, 1000}) {
		t.Errorf("torn at the end: %v, %v", got, err)
	}
}

// FuzzRead: no content of a segment makes the reader panic or hang, and what it
// returns is a trace.
func FuzzRead(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "wal")
	w, err := wal.Create(nil, dir, nil)
	if err != nil {
		f.Fatal(err)
	}
	for i := range uint64(3) {
		err = errors.Join(err, w.Save(&raftpb.HardState{Term: proto.Uint64(1), Commit: proto.Uint64(i)},
			[]*raftpb.Entry{{Term: proto.Uint64(1), Index: proto.Uint64(i + 1), Data: make([]byte, 100)}}))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		f.Fatal(err)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "*.wal"))
	data, err := os.ReadFile(names[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data[:1024])
	f.Add(data[:100])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "0000000000000000-0000000000000000.wal"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := trace.Read(dir)
		if err == nil {
			err = got.Check()
			if err != nil {
				t.Error(err)
			}
		}
	})
}
