package pebble

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/backendtest"
)

func TestConformance(t *testing.T) { backendtest.Run(t, Backend) }

func TestParams(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"memtable", "1KiB", "want a size from 64 KiB"},
		{"memtables", "1", "want a whole number from 2"},
		{"cache", "much", "want a size"},
		{"bytespersync", "0B", "want a size from 4.0 KiB"},
		{"walbytespersync", "2GiB", "want a size from 0 B"},
		{"compression", "lzma", "want one of none, snappy"},
		{"snapshot", "nowhere", "want one of engine, file"},
		{"sync", "false", "known: memtable, memtables"},
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
	for _, compression := range []string{"none", "snappy", "fastest", "balanced", "good"} {
		s, _, err := Backend.Open(backends.Options{Dir: t.TempDir(), Params: map[string]string{"compression": compression}})
		must(t, err)
		must(t, s.Close())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func entries(first uint64, n, size int) []*raftpb.Entry {
	ents := make([]*raftpb.Entry, n)
	for i := range ents {
		ents[i] = &raftpb.Entry{Index: proto.Uint64(first + uint64(i)), Term: proto.Uint64(1), Data: make([]byte, size)}
		for j := range ents[i].Data {
			ents[i].Data[j] = byte(i*j + j>>3)
		}
	}
	return ents
}

func hardState(commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: proto.Uint64(1), Vote: proto.Uint64(1), Commit: &commit}
}

// TestOnSync: pebble's syncs are seen, with the time that they take.
func TestOnSync(t *testing.T) {
	var syncs atomic.Int64
	s, _, err := Backend.Open(backends.Options{Dir: t.TempDir(), OnSync: func(d time.Duration) {
		if d > 0 {
			syncs.Add(1)
		}
	}})
	must(t, err)
	before := syncs.Load()
	const n = 20
	for i := range uint64(n) {
		must(t, s.Save(hardState(i), entries(i+1, 1, 100)))
	}
	if got := syncs.Load() - before; got < n {
		t.Errorf("%d syncs were seen for %d saves", got, n)
	}
	must(t, s.Close())
}

// TestOpensWithPebble: the directory of a closed storage is one that pebble
// opens, with a log in it.
func TestOpensWithPebble(t *testing.T) {
	dir := t.TempDir()
	s, _, err := Backend.Open(backends.Options{Dir: dir})
	must(t, err)
	must(t, s.Save(hardState(0), entries(1, 100, 100)))
	must(t, s.Close())
	db, err := pebble.Open(dir, &pebble.Options{ReadOnly: true, FormatMajorVersion: pebble.FormatNewest, Logger: logger{}})
	must(t, err)
	it, err := db.NewIter(nil)
	must(t, err)
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	must(t, it.Close())
	must(t, db.Close())
	if n != 100+1 {
		t.Fatalf("%d keys, want 100 entries and the hard state", n)
	}
}

// faulty is the backend on a file system that fails when told.
func faulty(inject func(errorfs.Op) error) backends.Backend {
	b := Backend
	b.Open = func(opts backends.Options) (backends.Storage, backends.State, error) {
		return openOn(errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(inject)), opts)
	}
	return b
}

// TestDiskFails makes the n-th change of each kind fail, once, in the log, in a
// table, in the manifest, in a directory: the process lives, the call that met it
// and every later one say which file, nothing that was acknowledged before is
// lost, and the directory opens again.
func TestDiskFails(t *testing.T) {
	for _, c := range []struct {
		name string
		kind errorfs.OpKind
		file string // suffix or prefix of the base name
	}{
		{"log write", errorfs.OpFileWrite, ".log"},
		{"log sync", errorfs.OpFileSyncData, ".log"},
		{"log creation", errorfs.OpCreate, ".log"},
		{"log reuse", errorfs.OpReuseForWrite, ".log"},
		{"table creation", errorfs.OpCreate, ".sst"},
		{"table write", errorfs.OpFileWrite, ".sst"},
		{"table sync", errorfs.OpFileSyncData, ".sst"},
		{"manifest write", errorfs.OpFileWrite, "MANIFEST"},
		{"manifest sync", errorfs.OpFileSync, "MANIFEST"},
		{"directory sync", errorfs.OpFileSync, "dir"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			hits := 0
			for _, nth := range []int64{1, 3} {
				if diskFails(t, c.kind, c.file, nth) {
					hits++
				}
			}
			if hits == 0 {
				t.Error("no change of this kind was made: the test shows nothing")
			}
		})
	}
}

func diskFails(t *testing.T, kind errorfs.OpKind, file string, nth int64) (hit bool) {
	dir := filepath.Join(t.TempDir(), "dir")
	must(t, os.Mkdir(dir, 0o700))
	var armed atomic.Bool
	var count atomic.Int64
	b := faulty(func(op errorfs.Op) error {
		base := filepath.Base(op.Path)
		if armed.Load() && op.Kind == kind && (strings.HasSuffix(base, file) || strings.HasPrefix(base, file)) && count.Add(1) == nth {
			return syscall.EIO
		}
		return nil
	})
	// Small, so that tables and logs come soon.
	s, _, err := b.Open(backends.Options{Dir: dir, Params: map[string]string{"memtable": "64KiB", "memtables": "2"}})
	must(t, err)
	armed.Store(true)
	var acked uint64
	for range 400 {
		if err = s.Save(hardState(acked), entries(acked+1, 8, 1000)); err != nil {
			break
		}
		acked += 8
	}
	hit = count.Load() >= nth
	if hit {
		if err == nil {
			err = s.Save(hardState(acked), nil)
		}
		if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), dir) {
			t.Fatalf("change %d: got %v, want an input/output error that names the file", nth, err)
		}
		for what, call := range map[string]func() error{
			"Save":     func() error { return s.Save(hardState(acked), entries(acked+1, 1, 1)) },
			"Sync":     s.Sync,
			"SaveSnap": func() error { return s.SaveSnap(&raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: &acked}}) },
		} {
			if again := call(); again == nil || again.Error() != err.Error() {
				t.Fatalf("%s after the failure: got %v, want %v", what, again, err)
			}
		}
	}
	_ = s.Close() // whatever it says, it returns
	s, st, err := Backend.Open(backends.Options{Dir: dir})
	must(t, err)
	if st.LastIndex() < acked {
		t.Fatalf("the log ends at %d, want what was acknowledged, %d", st.LastIndex(), acked)
	}
	must(t, s.Close())
	return hit
}

// TestOpenFails: a disk that fails during Open is an error of Open, and the
// directory is not left locked.
func TestOpenFails(t *testing.T) {
	for _, kind := range []errorfs.OpKind{errorfs.OpCreate, errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpRename, errorfs.OpOpenDir} {
		for nth := int64(1); nth <= 4; nth++ {
			dir := t.TempDir()
			s, _, err := Backend.Open(backends.Options{Dir: dir})
			must(t, err)
			must(t, s.Save(hardState(0), entries(1, 10, 100)))
			must(t, s.Close())
			var count atomic.Int64
			b := faulty(func(op errorfs.Op) error {
				if op.Kind == kind && count.Add(1) == nth {
					return syscall.EIO
				}
				return nil
			})
			s, _, err = b.Open(backends.Options{Dir: dir})
			if err == nil {
				if count.Load() >= nth {
					err = s.Save(hardState(0), entries(11, 1, 100)) // in the background
				}
				err = errors.Join(err, s.Close())
			}
			if count.Load() >= nth && !errors.Is(err, syscall.EIO) {
				t.Fatalf("%v number %d: got %v, want an input/output error", kind, nth, err)
			}
			s, st, err := Backend.Open(backends.Options{Dir: dir})
			must(t, err)
			if len(st.Entries) < 10 {
				t.Fatalf("%v number %d: %d entries after it, want 10", kind, nth, len(st.Entries))
			}
			must(t, s.Close())
		}
	}
}

// TestDamage: a changed table or a missing one is damage, and names the
// directory.
func TestDamage(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"missing": os.Remove,
		"changed": func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)/3] ^= 1
			return os.WriteFile(path, b, 0o600)
		},
	} {
		dir := t.TempDir()
		for i := range uint64(2) { // the second Open flushes the log to a table
			s, _, err := Backend.Open(backends.Options{Dir: dir})
			must(t, err)
			must(t, s.Save(hardState(0), entries(1+1000*i, 1000, 1000)))
			must(t, s.Close())
		}
		tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
		must(t, err)
		if len(tables) == 0 {
			t.Fatal("no table was made")
		}
		must(t, spoil(tables[0]))
		_, _, err = Backend.Open(backends.Options{Dir: dir})
		var damage *backends.DamageError
		if !errors.As(err, &damage) || damage.File != dir || !strings.Contains(fmt.Sprint(err), strings.TrimSuffix(filepath.Base(tables[0]), ".sst")) {
			t.Errorf("a table is %s: got %v, want damage that names %s", name, err, filepath.Base(tables[0]))
		}
	}
}
