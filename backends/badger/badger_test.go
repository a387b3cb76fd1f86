package badger

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/backendtest"
	"github.com/raftbench/raftbench/backends/internal/kvlog"
)

func TestConformance(t *testing.T) { backendtest.Run(t, Backend) }

// openBoth opens a storage, and shows the engine under it.
func openBoth(t *testing.T, opts backends.Options) (backends.Storage, *engine) {
	t.Helper()
	e, err := openLocked(opts)
	must(t, err)
	s, _, err := kvlog.Open(opts.Dir, e, e.config())
	must(t, err)
	return s, e
}

// TestValueLog sends values to the value log, many small memtables to tables, and
// sees the space come back. Not under the race detector: badger v4.9.6 reads the
// highest version of a memtable without a lock when it collects garbage (db.go,
// MaxVersion, called by value.go, rewrite), while its writer changes it.
func TestValueLog(t *testing.T) {
	if raceDetector {
		t.Skip("badger's garbage collection has a data race of its own")
	}
	dir := t.TempDir()
	params := map[string]string{"valuethreshold": "256B", "vlogsize": "16MiB", "memtable": "1MiB", "compression": "none"}
	s, e := openBoth(t, backends.Options{Dir: dir, Params: params})
	const batch, size, keep = 256, 1000, 512
	var last uint64
	var written int64
	for written < 100<<20 {
		must(t, s.Save(hardState(last), entries(last+1, batch, size)))
		last += batch
		written += batch * size
		if last%(8*batch) == 0 {
			snap := &raftpb.Snapshot{Data: make([]byte, 3000), Metadata: &raftpb.SnapshotMetadata{
				Index: proto.Uint64(last - keep), Term: proto.Uint64(1)}}
			must(t, s.SaveSnap(snap))
			must(t, s.Release(snap))
		}
	}
	deadline := time.Now().Add(2 * time.Minute)
	for used := int64(math.MaxInt64); used > written/2; time.Sleep(20 * time.Millisecond) {
		if used = diskUsed(t, dir); time.Now().After(deadline) {
			t.Fatalf("%d MiB were written and all but %d entries released, and the directory takes %d MiB", written>>20, keep, used>>20)
		}
		e.collectGarbage()
	}
	must(t, s.Save(hardState(last), entries(last+1, 1, size)))
	must(t, s.Close())
	s, st, err := Backend.Open(backends.Options{Dir: dir, Params: params})
	must(t, err)
	must(t, s.Close())
	if st.LastIndex() != last+1 || len(st.Entries) < keep {
		t.Fatalf("%d entries up to %d, want at least %d up to %d", len(st.Entries), st.LastIndex(), keep, last+1)
	}
	for i, e := range st.Entries[:len(st.Entries)-1] {
		want := entries(last+1-batch, batch, size)[(e.GetIndex()-1)%batch]
		if !bytes.Equal(e.Data, want.Data) {
			t.Fatalf("entry %d of %d has other data", i, len(st.Entries))
		}
	}
}

// diskUsed is what the files of dir take on disk, holes not counted.
func diskUsed(t *testing.T, dir string) int64 {
	t.Helper()
	files, err := os.ReadDir(dir)
	must(t, err)
	var sum int64
	for _, f := range files {
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(dir, f.Name()), &st); err == nil {
			sum += st.Blocks * 512
		}
	}
	return sum
}

// TestDamagedValueLog: a changed bit of a value in the value log is damage, and
// the directory is not left locked.
func TestDamagedValueLog(t *testing.T) {
	dir := t.TempDir()
	params := map[string]string{"valuethreshold": "50B"}
	s, _, err := Backend.Open(backends.Options{Dir: dir, Params: params})
	must(t, err)
	for i := range uint64(10) {
		must(t, s.Save(hardState(0), entries(1+10*i, 10, 300)))
	}
	must(t, s.Close())
	path := filepath.Join(dir, "000001.vlog")
	whole, err := os.ReadFile(path)
	must(t, err)
	for i := 25; i < len(whole); i += len(whole) / 15 {
		bad := bytes.Clone(whole)
		bad[i] ^= 1 << (i % 8)
		must(t, os.WriteFile(path, bad, 0o600))
		for range 2 {
			s, st, err := Backend.Open(backends.Options{Dir: dir, Params: params})
			var damage *backends.DamageError
			switch {
			case err == nil && len(st.Entries) == 100: // the bit did not matter
				must(t, s.Close())
			case err == nil:
				t.Fatalf("byte %d changed: Open returned %d entries", i, len(st.Entries))
			case !errors.As(err, &damage) || !strings.Contains(err.Error(), dir):
				t.Fatalf("byte %d changed: got %v, want damage", i, err)
			}
		}
		// badger cuts the file where it cannot read on.
		must(t, os.WriteFile(path, whole, 0o600))
	}
}

func TestParams(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"valuethreshold", "2MiB", "want a size from 0 B to 1.0 MiB"},
		{"memtable", "4MiB", "want at most 15 % of the memtable"},
		{"memtables", "0", "want a whole number from 1"},
		{"vlogsize", "2GiB", "want a size from 16 MiB to 1.0 GiB"},
		{"cache", "0B", "want a size"},
		{"compression", "lz4", "want one of none, snappy, zstd"},
		{"compactors", "1", "want a whole number from 2"},
		{"snapshot", "nowhere", "want one of engine, file"},
		{"syncwrites", "false", "known: valuethreshold, memtable"},
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

// TestOpensWithBadger: the directory of a closed storage is one that badger opens
// by itself, with a log in it.
func TestOpensWithBadger(t *testing.T) {
	for _, params := range []map[string]string{nil, {"valuethreshold": "50B"}} {
		dir := t.TempDir()
		s, _, err := Backend.Open(backends.Options{Dir: dir, Params: params})
		must(t, err)
		must(t, s.Save(hardState(0), entries(1, 100, 100)))
		must(t, s.Close())
		db, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil))
		must(t, err)
		n := 0
		must(t, db.View(func(txn *badger.Txn) error {
			it := txn.NewIterator(badger.DefaultIteratorOptions)
			defer it.Close()
			for it.Rewind(); it.Valid(); it.Next() {
				n++
			}
			return nil
		}))
		must(t, db.VerifyChecksum())
		must(t, db.Close())
		if n != 100+1 {
			t.Errorf("%v: %d keys, want 100 entries and the hard state", params, n)
		}
	}
}

// TestLoggedFailureIsAnError: badger only logs a failed sync of its value log.
func TestLoggedFailureIsAnError(t *testing.T) {
	for _, c := range []struct {
		name    string
		log     func(l logger)
		failure bool
	}{
		{"a failed sync of the value log", func(l logger) { l.Errorf("Error while curlf sync: %v\n", "input/output error") }, true},
		{"a failed flush", func(l logger) {
			l.Errorf("error flushing memtable to disk: %v, retrying", errors.New("no space left on device"))
		}, true},
		{"a failed compaction", func(l logger) {
			l.Warningf("[Compactor: %d] LOG Compact FAILED with error: %+v: %+v", 1, errors.New("input/output error"), 0)
		}, true},
		{"a remark", func(l logger) { l.Warningf("%s might be too small. Metrics: %s\n", "Block cache", "none") }, false},
		{"news", func(l logger) { l.Infof("Processed %d entries in %d loops", 1, 1) }, false},
	} {
		s, e := openBoth(t, backends.Options{Dir: t.TempDir()})
		must(t, s.Save(hardState(0), entries(1, 1, 10)))
		c.log(logger{e.health})
		err := s.Save(hardState(0), entries(2, 1, 10))
		if (err != nil) != c.failure {
			t.Errorf("%s: Save returned %v", c.name, err)
		}
		if c.failure {
			if again := s.Save(hardState(0), entries(2, 1, 10)); again == nil || again.Error() != err.Error() {
				t.Errorf("%s: the second Save returned %v, want %v", c.name, again, err)
			}
			var damage *backends.DamageError
			if errors.As(err, &damage) {
				t.Errorf("%s: got damage: %v", c.name, err)
			}
		}
		must(t, s.Close())
	}
}

// TestEmptyLogs: a log without a byte, as a crash leaves it, is no obstacle.
func TestEmptyLogs(t *testing.T) {
	dir := t.TempDir()
	s, _, err := Backend.Open(backends.Options{Dir: dir})
	must(t, err)
	must(t, s.Save(hardState(0), entries(1, 10, 10)))
	must(t, s.Close())
	for _, name := range []string{"00077.mem", "000077.vlog"} {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	s, st, err := Backend.Open(backends.Options{Dir: dir})
	must(t, err)
	must(t, s.Close())
	if len(st.Entries) != 10 {
		t.Fatalf("%d entries, want 10", len(st.Entries))
	}
}

// TestFullDisk: Save stops while there is still space, because a full disk would
// end the process.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	s, e := openBoth(t, backends.Options{Dir: dir})
	must(t, s.Save(hardState(0), entries(1, 1, 10)))
	e.space.reserve = 1 << 60
	e.space.left.Store(0)
	err := s.Save(hardState(0), entries(2, 1, 10))
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("got %v, want an error that there is no space, and where", err)
	}
	must(t, s.Close())
}

// TestDirectoryIsSynced: Commit syncs the directory when a log was created in it,
// and not otherwise.
func TestDirectoryIsSynced(t *testing.T) {
	n := names{dir: t.TempDir()}
	must(t, n.sync())
	first := n.synced
	must(t, os.WriteFile(filepath.Join(n.dir, "file"), nil, 0o600))
	must(t, n.sync())
	if n.synced == first && n.settled {
		t.Fatal("a file was created, and the directory was not synced")
	}
	must(t, os.RemoveAll(n.dir))
	n.settled = true
	if err := n.sync(); err == nil {
		t.Fatal("the directory is gone, and there is no error")
	}
}

func TestErrno(t *testing.T) {
	err := withErrno(errors.New("while msync err: no space left on device"))
	if !errors.Is(err, syscall.ENOSPC) || err.Error() != "while msync err: no space left on device" {
		t.Fatalf("got %v", err)
	}
	if withErrno(nil) != nil {
		t.Fatal("nil became an error")
	}
}
