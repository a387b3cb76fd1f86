package bbolt

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/backendtest"
)

func TestConformance(t *testing.T) { backendtest.Run(t, Backend) }

// TestConformanceNoFreelistSync is the whole suite once more, with the settings
// that change what is on disk; RAFTBENCH_BBOLT_ALL=1 asks for it.
func TestConformanceNoFreelistSync(t *testing.T) {
	if os.Getenv("RAFTBENCH_BBOLT_ALL") == "" {
		t.Skip("set RAFTBENCH_BBOLT_ALL=1 to run the suite with other settings, too")
	}
	backendtest.Run(t, withParams(map[string]string{"nofreelistsync": "true", "freelist": "array", "pagesize": "16KiB"}))
}

func withParams(params map[string]string) backends.Backend {
	b := Backend
	b.Open = func(opts backends.Options) (backends.Storage, backends.State, error) {
		if opts.Params == nil {
			opts.Params = params
		}
		return Backend.Open(opts)
	}
	return b
}

func TestParams(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"freelist", "tree", "want one of array, hashmap"},
		{"nofreelistsync", "maybe", "want true or false"},
		{"fillpercent", "5", "want a whole number from 10 to 100"},
		{"pagesize", "3KiB", "want a power of two"},
		{"pagesize", "1MiB", "want a size from 1.0 KiB to 64 KiB"},
		{"initialmmap", "-1", "want a size from"},
		{"snapshot", "nowhere", "want one of engine, file"},
		{"sync", "false", "known: freelist, nofreelistsync"},
	} {
		dir := t.TempDir()
		_, _, err := Backend.Open(backends.Options{Dir: dir, Params: map[string]string{c.name: c.value}})
		var bad *backends.ParamError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%s: got %v, want a ParamError with %q", c.name, c.value, err, c.want)
		}
		if files, _ := os.ReadDir(dir); len(files) > 0 {
			t.Errorf("%s=%s: the directory was touched", c.name, c.value)
		}
	}
}

func entries(first, n, size int) []*raftpb.Entry {
	ents := make([]*raftpb.Entry, n)
	for i := range ents {
		data := make([]byte, size)
		for j := range data {
			data[j] = byte(i + j)
		}
		ents[i] = &raftpb.Entry{Index: proto.Uint64(uint64(first + i)), Term: proto.Uint64(1), Data: data}
	}
	return ents
}

func hardState(commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: proto.Uint64(1), Vote: proto.Uint64(1), Commit: &commit}
}

// fill makes a file with a log, a snapshot, and free pages.
func fill(t *testing.T, b backends.Backend) (file []byte, st backends.State) {
	t.Helper()
	dir := t.TempDir()
	s, _, err := b.Open(backends.Options{Dir: dir})
	must(t, err)
	for i := range 12 {
		must(t, s.Save(hardState(uint64(10*i)), entries(10*i+1, 10, 300)))
	}
	snap := &raftpb.Snapshot{Data: make([]byte, 20_000),
		Metadata: &raftpb.SnapshotMetadata{Index: proto.Uint64(60), Term: proto.Uint64(1)}}
	must(t, s.SaveSnap(snap))
	must(t, s.Release(snap))
	must(t, s.Close())
	s, st, err = b.Open(backends.Options{Dir: dir})
	must(t, err)
	must(t, s.Close())
	if len(st.Entries) != 60 || st.Snapshot == nil {
		t.Fatalf("%d entries and snapshot %v, want 60 and one", len(st.Entries), st.Snapshot)
	}
	file, err = os.ReadFile(filepath.Join(dir, fileName))
	must(t, err)
	return file, st
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openDamaged opens a directory with the given file. It is a new file every time:
// bbolt may leave a goroutine behind that looks at the mapping of the old one.
func openDamaged(t *testing.T, dir string, b backends.Backend, file []byte) (backends.State, error) {
	t.Helper()
	path := filepath.Join(dir, fileName)
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		must(t, err)
	}
	must(t, os.WriteFile(path, file, 0o600))
	s, st, err := b.Open(backends.Options{Dir: dir})
	if err != nil {
		return st, err
	}
	return st, s.Close()
}

// TestDamage changes bytes all over the file, cuts it, and swaps pages: Open
// returns what was saved, or an error that names the file, and does not panic.
func TestDamage(t *testing.T) {
	for _, noFreelist := range []string{"false", "true"} {
		b := withParams(map[string]string{"nofreelistsync": noFreelist, "initialmmap": "0B", // a small file
			"snapshot": "engine"})
		file, want := fill(t, b)
		dir := t.TempDir()
		caught, tried := 0, 0
		try := func(what string, file []byte) {
			t.Helper()
			st, err := openDamaged(t, dir, b, file)
			var damage *backends.DamageError
			tried++
			if err != nil {
				if !errors.As(err, &damage) || damage.File != filepath.Join(dir, fileName) {
					t.Fatalf("%s: got %v, want a DamageError that names the file", what, err)
				}
				caught++
			} else if err := same(st, want); err != nil {
				t.Fatalf("%s: Open succeeded with another state: %v", what, err)
			}
		}
		const step = 1031 // coprime to the length of a page and of a record
		for i := 0; i < len(file); i += step {
			bad := append([]byte(nil), file...)
			bad[i] ^= 1 << (i % 8)
			try(fmt.Sprintf("bit %d of byte %d changed", i%8, i), bad)
		}
		const page = 4096
		for p := 0; p < len(file)/page; p++ {
			bad := append([]byte(nil), file...)
			clear(bad[p*page : (p+1)*page])
			try(fmt.Sprintf("page %d zeroed", p), bad)
			for i := range 16 + 16 { // its header, and that of its first element
				if (i+p)%3 > 0 {
					continue
				}
				bad = append([]byte(nil), file...)
				bad[p*page+i] ^= 0xff
				try(fmt.Sprintf("header byte %d of page %d changed", i, p), bad)
			}
			if p > 0 {
				bad = append([]byte(nil), file...)
				copy(bad[p*page:(p+1)*page], file[(p-1)*page:])
				try(fmt.Sprintf("page %d replaced by the one before", p), bad)
			}
		}
		for _, n := range []int{0, 1, 79, 80, page - 1, page, page + 80, 2 * page, 3 * page, len(file) / 2, len(file) - page} {
			try(fmt.Sprintf("the file cut to %d bytes", n), file[:n])
		}
		t.Logf("%d of %d changes to a file of %d bytes were noticed", caught, tried, len(file))
		if caught < 100 {
			t.Fatalf("only %d changes were noticed: the test changes the wrong bytes", caught)
		}
	}
}

func same(got, want backends.State) error {
	if !proto.Equal(got.HardState, want.HardState) || !proto.Equal(got.Snapshot, want.Snapshot) {
		return fmt.Errorf("hard state {%v}, want {%v}; snapshot %d, want %d", got.HardState, want.HardState,
			got.Snapshot.GetMetadata().GetIndex(), want.Snapshot.GetMetadata().GetIndex())
	}
	if len(got.Entries) != len(want.Entries) {
		return fmt.Errorf("%d entries, want %d", len(got.Entries), len(want.Entries))
	}
	for i := range got.Entries {
		if !proto.Equal(got.Entries[i], want.Entries[i]) {
			return fmt.Errorf("entry %d differs", want.Entries[i].GetIndex())
		}
	}
	return nil
}

// TestCheck: bbolt's own check finds nothing wrong with the file that a closed
// storage leaves.
func TestCheck(t *testing.T) {
	for _, params := range []map[string]string{nil, {"nofreelistsync": "true"}} {
		file, _ := fill(t, withParams(params))
		path := filepath.Join(t.TempDir(), fileName)
		must(t, os.WriteFile(path, file, 0o600))
		db, err := bolt.Open(path, 0o600, nil)
		must(t, err)
		must(t, db.View(func(tx *bolt.Tx) error {
			for err := range tx.Check() {
				t.Errorf("%v: check: %v", params, err)
			}
			return nil
		}))
		must(t, db.Close())
	}
}

// TestLockedByAnotherProgram: `bbolt` itself has the file.
func TestLockedByAnotherProgram(t *testing.T) {
	file, _ := fill(t, Backend)
	path := filepath.Join(t.TempDir(), fileName)
	must(t, os.WriteFile(path, file, 0o600))
	db, err := bolt.Open(path, 0o600, nil)
	must(t, err)
	defer db.Close()
	_, _, err = Backend.Open(backends.Options{Dir: filepath.Dir(path)})
	if !errors.Is(err, backends.ErrLocked) || !strings.Contains(err.Error(), path) {
		t.Fatalf("got %v, want ErrLocked that names the file", err)
	}
}

// TestUnfinishedFile: a crash while the file was created leaves the other name.
func TestUnfinishedFile(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, newName), []byte("half"), 0o600))
	s, st, err := Backend.Open(backends.Options{Dir: dir})
	must(t, err)
	if !st.Empty() {
		t.Fatalf("got %+v, want an empty state", st)
	}
	must(t, s.Save(hardState(0), entries(1, 1, 10)))
	must(t, s.Close())
	if _, err := os.Stat(filepath.Join(dir, newName)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the unfinished file is still there: %v", err)
	}
}

// smallImage is a file that a fuzzer can mutate.
func smallImage(f *testing.F, params map[string]string, n int) []byte {
	f.Helper()
	dir := f.TempDir()
	params["pagesize"], params["initialmmap"] = "1KiB", "0B"
	s, _, err := Backend.Open(backends.Options{Dir: dir, Params: params})
	if err != nil {
		f.Fatal(err)
	}
	for i := range n {
		if err := s.Save(hardState(0), entries(i+1, 1, 100)); err != nil {
			f.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		f.Fatal(err)
	}
	m, err := parseMeta(b)
	if err != nil {
		f.Fatal(err)
	}
	return b[:min(uint64(len(b)), (m.pages+2)*m.pageSize)]
}

// FuzzVerify: an image is found whole or damaged, never crashed on, and in one
// that is whole every page that bbolt would follow is there. The meta pages are
// sealed again, so that what they say is not trusted either.
func FuzzVerify(f *testing.F) {
	f.Add(smallImage(f, map[string]string{}, 0))
	f.Add(smallImage(f, map[string]string{}, 12))
	f.Add(smallImage(f, map[string]string{"nofreelistsync": "true"}, 12))
	f.Add(make([]byte, metaSize))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = verifyImage(b)
		for _, at := range []int{0, 1024} {
			if len(b) < at+metaSize {
				return
			}
			h := fnv.New64a()
			h.Write(b[at+16 : at+72])
			order.PutUint64(b[at+72:], h.Sum64())
		}
		if verifyImage(b) != nil || len(b) > 1<<20 {
			return
		}
		path := filepath.Join(t.TempDir(), fileName)
		must(t, os.WriteFile(path, b, 0o600))
		e, err := openFile(path, bolt.Options{Timeout: lockTimeout, NoSync: true})
		must(t, err)
		must(t, e.Iterate([]byte{0}, []byte{math.MaxUint8}, func(_, _ []byte) error { return nil }))
		must(t, e.Close())
	})
}
