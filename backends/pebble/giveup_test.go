package pebble

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/kvlog"
)

// TestGivesUp: pebble ends the process where its log cannot be written; here that
// is an error of Save, of every Save after it, and Close returns.
func TestGivesUp(t *testing.T) {
	o, err := options(nil)
	if err != nil {
		t.Fatal(err)
	}
	var broken atomic.Bool
	e := &engine{dir: t.TempDir(), gaveUp: make(chan struct{}), release: func() error { return nil }}
	inject := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo || op.Kind == errorfs.OpFileWrite) {
			return syscall.EIO
		}
		return nil
	})
	if err := e.openOn(errorfs.Wrap(baseFS, inject), o); err != nil {
		t.Fatal(err)
	}
	s, _, err := kvlog.Open(e.dir, e, kvlog.Config{Unsynced: true, RangeDelete: true})
	if err != nil {
		t.Fatal(err)
	}
	save := func(i uint64) error {
		return s.Save(&raftpb.HardState{Term: proto.Uint64(1)}, []*raftpb.Entry{{Index: &i, Term: proto.Uint64(1)}})
	}
	if err := save(1); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	if err := save(2); !errors.Is(err, syscall.EIO) && (err == nil || !strings.Contains(err.Error(), "input/output error")) {
		t.Errorf("a Save whose sync fails: %v", err)
	}
	broken.Store(false)
	if err := save(3); err == nil {
		t.Error("a Save after one that failed is acknowledged")
	}
	_ = s.Close() // whatever it says, it returns
}

// TestOnSync: the engine's own seam sees the sync of each Save.
func TestOnSync(t *testing.T) {
	var syncs atomic.Int64
	s, _, err := Backend.Open(backends.Options{Dir: t.TempDir(), OnSync: func(time.Duration) { syncs.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	before := syncs.Load()
	for i := uint64(1); i <= 10; i++ {
		if err := s.Save(&raftpb.HardState{Term: proto.Uint64(1)}, []*raftpb.Entry{{Index: proto.Uint64(i), Term: proto.Uint64(1)}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := syncs.Load() - before; got < 10 {
		t.Errorf("%d syncs were seen for 10 Saves", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
