package main

import (
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/dgraph-io/badger/v4"
	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
)

// TestKeptDataOpensElsewhere: what --keep leaves is what the engines' own tools
// know, not a format of ours.
func TestKeptDataOpensElsewhere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	o := raftbench(t, quick("--backends", "etcd-wal,bbolt,badger,pebble", "--dir", dir, "--keep")...)
	if o.code != 0 {
		t.Fatalf("exit code %d:\n%s", o.code, o.stderr)
	}
	node := func(backend string, id string) string {
		return filepath.Join(dir, "run-001-"+backend, "node-"+id)
	}
	for _, id := range []string{"1", "2", "3"} {
		checkWAL(t, filepath.Join(node("etcd-wal", id), "wal"))
		checkBolt(t, filepath.Join(node("bbolt", id), "raft.db"))
		db, err := pebble.Open(node("pebble", id), &pebble.Options{ReadOnly: true, Logger: quietLogger{}})
		if err != nil {
			t.Errorf("pebble of node %s: %v", id, err)
		} else if err := db.Close(); err != nil {
			t.Error(err)
		}
		bdb, err := badger.Open(badger.DefaultOptions(node("badger", id)).WithLogger(nil))
		if err != nil {
			t.Errorf("badger of node %s: %v", id, err)
		} else if err := bdb.Close(); err != nil {
			t.Error(err)
		}
	}
}

type quietLogger struct{}

func (quietLogger) Infof(string, ...any)  {}
func (quietLogger) Errorf(string, ...any) {}
func (quietLogger) Fatalf(format string, args ...any) {
	panic("pebble: " + format)
}

// checkWAL reads a write-ahead log as etcd does when it starts.
func checkWAL(t *testing.T, dir string) {
	t.Helper()
	lg := zap.NewNop()
	snaps, err := wal.ValidSnapshotEntries(lg, dir)
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	newest := &walpb.Snapshot{}
	if len(snaps) > 0 {
		newest = snaps[len(snaps)-1]
	}
	if _, err := wal.Verify(lg, dir, newest); err != nil {
		t.Errorf("wal.Verify %s: %v", dir, err)
	}
	w, err := wal.Open(lg, dir, newest)
	if err != nil {
		t.Fatalf("wal.Open %s: %v", dir, err)
	}
	if _, hs, _, err := w.ReadAll(); err != nil || hs.GetTerm() == 0 {
		t.Errorf("wal.ReadAll %s: hard state %v, %v", dir, hs, err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// checkBolt is `bbolt check`.
func checkBolt(t *testing.T, path string) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	err = db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			t.Errorf("%s: %v", path, err)
		}
		return nil
	})
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
