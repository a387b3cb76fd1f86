package kvlog

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// withFiles is an engine whose snapshots are in files.
func withFiles(t *testing.T) *fakeEngine {
	return newFake(Config{ChunkBytes: 10, SnapFiles: true, SnapDir: SnapDir(memDir(t))})
}

// withTwoFiles has entries 1 to 9, and snapshots at 3 and at 7, which is current.
func withTwoFiles(t *testing.T) (*fakeEngine, *Storage) {
	t.Helper()
	e := withFiles(t)
	s, _ := mustOpen(t, e)
	must(t, s.Save(testHardState(1, 1, 9), testEntries(1, 1, 9, 10)))
	must(t, s.SaveSnap(testSnap(3, 1, 100)))
	must(t, s.SaveSnap(testSnap(7, 1, 100)))
	return e, s
}

func (e *fakeEngine) wantFiles(t *testing.T, want ...string) {
	t.Helper()
	if got := slices.Sorted(maps.Keys(e.files())); !slices.Equal(got, want) {
		t.Fatalf("the files are %q, want %q", got, want)
	}
}

func fileName(term, index byte) string {
	const digits = "0123456789abcdef"
	return "000000000000000" + string(digits[term]) + "-000000000000000" + string(digits[index]) + ".snap"
}

// TestDataIsInAFile: the engine holds the name, and nothing of the data, and Release
// removes what was replaced.
func TestDataIsInAFile(t *testing.T) {
	e := withFiles(t)
	s, _ := mustOpen(t, e)
	must(t, s.Save(testHardState(1, 1, 9), testEntries(1, 1, 9, 10)))
	must(t, s.SaveSnap(testSnap(3, 1, 100)))
	must(t, s.SaveSnap(testSnap(5, 1, 100)))
	must(t, s.SaveSnap(testSnap(5, 1, 100))) // again, under the same name
	if e.keys(chunkPrefix) != 0 || len(e.kv["s"]) > 50 {
		t.Fatalf("%d chunks, and a record of %d bytes", e.keys(chunkPrefix), len(e.kv["s"]))
	}
	e.wantFiles(t, fileName(1, 3), fileName(1, 5))
	must(t, s.Release(testSnap(5, 1, 0)))
	e.wantFiles(t, fileName(1, 5))
	if _, st := mustOpen(t, e); !proto.Equal(st.Snapshot, testSnap(5, 1, 100)) {
		t.Fatalf("got {%v}", st.Snapshot)
	}
}

// TestFileOrEngine: what is there is read and released however it was kept.
func TestFileOrEngine(t *testing.T) {
	e := withFiles(t)
	for i := range uint64(6) {
		e.cfg.SnapFiles = i%2 == 0
		s, st := mustOpen(t, e)
		if i > 0 && !proto.Equal(st.Snapshot, testSnap(i, 1, 25)) {
			t.Fatalf("life %d: got {%v}", i, st.Snapshot)
		}
		if i > 0 {
			data, size, err := s.OpenSnap(st.Snapshot.GetMetadata())
			must(t, err)
			if got, err := io.ReadAll(data); err != nil || size != 25 || !bytes.Equal(got, st.Snapshot.Data) {
				t.Fatalf("life %d: read back %d bytes, said to be %d: %v", i, len(got), size, err)
			}
			must(t, data.Close())
			must(t, s.SaveSnap(st.Snapshot)) // it changes its place
		}
		must(t, s.SaveSnap(testSnap(i+1, 1, 25)))
		must(t, s.Release(testSnap(i+1, 1, 0)))
		if e.cfg.SnapFiles {
			e.wantFiles(t, fileName(1, byte(i+1)))
		} else {
			e.wantFiles(t)
		}
		if want := 3 * int(i%2); e.keys(chunkPrefix) != want {
			t.Fatalf("life %d: %d chunks, want %d", i, e.keys(chunkPrefix), want)
		}
		must(t, s.Close())
	}
}

// TestFilesOfACrash: a file that the record does not name is not the snapshot, newer
// or not, and goes.
func TestFilesOfACrash(t *testing.T) {
	for _, files := range []bool{true, false} {
		e, _ := withTwoFiles(t)
		crashed := e.after(2) // the file of the second is there, its record is not
		must(t, os.WriteFile(filepath.Join(e.cfg.SnapDir, "1.snap.tmp"), []byte("half"), 0o600))
		must(t, os.Mkdir(filepath.Join(e.cfg.SnapDir, "0000000000000007"), 0o700)) // of a group
		crashed.cfg.SnapFiles = files
		s, st := mustOpen(t, crashed)
		if !proto.Equal(st.Snapshot, testSnap(3, 1, 100)) || st.LastIndex() != 9 {
			t.Fatalf("got {%v} and a log up to %d", st.Snapshot, st.LastIndex())
		}
		e.wantFiles(t, fileName(1, 3))
		must(t, s.SaveSnap(testSnap(8, 1, 100)))
		must(t, s.Close())
	}
}

// TestFileIsDamaged: a file that the record names and that is not as it was is an
// error that names it, and nothing is removed.
func TestFileIsDamaged(t *testing.T) {
	for what, spoil := range map[string]func(path string) error{
		"missing": os.Remove,
		"shorter": func(path string) error { return os.Truncate(path, 90) },
		"empty":   func(path string) error { return os.Truncate(path, 0) },
		"changed": func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 4
			return os.WriteFile(path, b, 0o600)
		},
		"another": func(path string) error {
			return os.Rename(filepath.Join(filepath.Dir(path), fileName(1, 3)), path)
		},
	} {
		for _, files := range []bool{true, false} {
			e, s := withTwoFiles(t)
			must(t, s.Close())
			path := filepath.Join(e.cfg.SnapDir, fileName(1, 7))
			must(t, spoil(path))
			before := len(e.files())
			e.cfg.SnapFiles = files
			for range 2 {
				_, _, err := Open("dir", e, e.cfg)
				var damage *backends.DamageError
				if !errors.As(err, &damage) || damage.File != path {
					t.Fatalf("%s: got %v, want damage that names %s", what, err, path)
				}
			}
			if got := len(e.files()); got != before {
				t.Fatalf("%s: %d files, want %d as before", what, got, before)
			}
		}
	}
}

// TestReadAReleasedFile: what is being read stays readable, and what is not is gone.
func TestReadAReleasedFile(t *testing.T) {
	e := withFiles(t)
	s, _ := mustOpen(t, e)
	old := testSnap(3, 1, 100)
	must(t, s.SaveSnap(old))
	data, _, err := s.OpenSnap(old.GetMetadata())
	must(t, err)
	must(t, s.SaveSnap(testSnap(5, 1, 10)))
	must(t, s.Release(testSnap(5, 1, 0)))
	e.wantFiles(t, fileName(1, 5))
	if got, err := io.ReadAll(data); err != nil || !bytes.Equal(got, old.Data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	must(t, data.Close())
	if _, _, err := s.OpenSnap(old.GetMetadata()); err == nil {
		t.Fatal("a released snapshot can be opened")
	}
}

// TestFileFails: a disk that fails under a file has failed for the storage, and in a
// shared engine for all groups.
func TestFileFails(t *testing.T) {
	meta, data := testSnap(7, 1, 0).GetMetadata(), []byte("data")
	full := errors.New("injected: no room")
	for what, call := range map[string]func(e *fakeEngine, s *Storage) error{
		"SaveSnap": func(e *fakeEngine, s *Storage) error {
			must(t, os.RemoveAll(e.cfg.SnapDir))
			return s.SaveSnap(testSnap(7, 1, 10))
		},
		"StageSnap": func(e *fakeEngine, s *Storage) error {
			must(t, os.RemoveAll(e.cfg.SnapDir))
			_, err := s.StageSnap(meta, int64(len(data)), bytes.NewReader(data))
			return err
		},
		"Save": func(e *fakeEngine, s *Storage) error {
			staged, err := s.StageSnap(meta, int64(len(data)), bytes.NewReader(data))
			must(t, err)
			must(t, os.RemoveAll(e.cfg.SnapDir))
			return staged.Save()
		},
		"SaveSnap without room": func(_ *fakeEngine, s *Storage) error {
			s.cfg.Room = func(n int64) error { return full }
			return s.SaveSnap(testSnap(7, 1, 10))
		},
		"StageSnap without room": func(_ *fakeEngine, s *Storage) error {
			s.cfg.Room = func(n int64) error { return full }
			_, err := s.StageSnap(meta, int64(len(data)), bytes.NewReader(data))
			return err
		},
	} {
		e := withFiles(t)
		shared := NewShared("dir", e, e.cfg, nil)
		g, _ := mustGroup(t, shared, 1)
		other, _ := mustGroup(t, shared, 2)
		must(t, g.Save(testHardState(1, 1, 9), testEntries(1, 1, 9, 10)))
		err := call(e, g.(*Storage))
		if err == nil || !strings.Contains(err.Error(), "snapshot 7") {
			t.Fatalf("%s: got %v, want an error that names the snapshot", what, err)
		}
		commits := e.calls
		for _, s := range []backends.Storage{g, other} {
			if again := s.Save(testHardState(2, 1, 9), nil); again == nil || !strings.Contains(again.Error(), err.Error()) {
				t.Fatalf("Save after %s failed: got %v, want %v", what, again, err)
			}
		}
		if e.calls != commits {
			t.Fatalf("something was written after %s failed", what)
		}
	}
}

// TestStagedFileGoes: what is staged and not saved leaves no file, and that a peer goes
// away says nothing about the disk.
func TestStagedFileGoes(t *testing.T) {
	e := withFiles(t)
	s, _ := mustOpen(t, e)
	if _, err := s.StageSnap(testSnap(7, 1, 0).GetMetadata(), 10, strings.NewReader("short")); err == nil || !strings.Contains(err.Error(), "dir") {
		t.Fatalf("got %v, want an error with the directory", err)
	}
	e.wantFiles(t)
	must(t, s.SaveSnap(testSnap(7, 1, 10)))
	for _, end := range []func(backends.StagedSnap) error{backends.StagedSnap.Discard, backends.StagedSnap.Save} {
		staged, err := s.StageSnap(testSnap(6, 1, 0).GetMetadata(), 4, strings.NewReader("data"))
		must(t, err)
		must(t, end(staged)) // Save: it is older than the current one
		e.wantFiles(t, fileName(1, 7))
	}
	staged, err := s.StageSnap(testSnap(8, 1, 0).GetMetadata(), 4, strings.NewReader("data"))
	must(t, err)
	e.failAt = e.calls + 1
	if err := s.Save(testHardState(1, 1, 0), nil); !errors.Is(err, errInjected) {
		t.Fatalf("got %v, want the error of the engine", err)
	}
	if err := staged.Save(); !errors.Is(err, errInjected) {
		t.Fatalf("saved after a failure: got %v, want the error of the engine", err)
	}
	e.wantFiles(t, fileName(1, 7))
}

// TestFilesOfGroups: groups have directories of their own, so that the same index and
// term in two of them are two files.
func TestFilesOfGroups(t *testing.T) {
	e := withFiles(t)
	s := NewShared("dir", e, e.cfg, nil)
	for id := range uint64(3) {
		g, _ := mustGroup(t, s, id)
		must(t, g.SaveSnap(testSnap(1, 1, 5)))
		must(t, g.SaveSnap(testSnap(7, 1, 10+int(id))))
		must(t, g.Release(testSnap(7, 1, 0)))
		must(t, g.Close())
	}
	for id := range uint64(3) {
		g, st := mustGroup(t, s, id)
		if !proto.Equal(st.Snapshot, testSnap(7, 1, 10+int(id))) {
			t.Fatalf("group %d: got {%v}", id, st.Snapshot)
		}
		must(t, g.Close())
	}
	if dirs, err := os.ReadDir(e.cfg.SnapDir); err != nil || len(dirs) != 3 || dirs[2].Name() != "0000000000000002" {
		t.Fatalf("%v, %v", dirs, err)
	}
	must(t, s.Close())
}
