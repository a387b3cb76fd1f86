package badger

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"

	"github.com/raftbench/raftbench/backends/internal/kvlog"
)

// names keeps the names of files durable that badger creates and does not sync.
type names struct {
	dir string

	mu      sync.Mutex
	synced  time.Time // of the directory when it was last synced
	settled bool      // that time was not so young that another change could have it, too
}

// timeGrain is more than the clock of a file system takes to move on: one tick of
// the kernel is at most 10 ms.
const timeGrain = 100 * time.Millisecond

// sync syncs the directory where it has changed since the last time.
func (n *names) sync() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	info, err := os.Stat(n.dir)
	if err != nil {
		return err // it names the directory
	}
	changed := info.ModTime()
	if changed.Equal(n.synced) && n.settled {
		return nil
	}
	if err := kvlog.SyncPath(n.dir); err != nil {
		return err
	}
	n.synced = changed
	n.settled = now.Sub(changed) > timeGrain
	return nil
}

// space keeps badger away from a full disk: see the package comment.
type space struct {
	dir     string
	reserve uint64       // bytes that must be free
	left    atomic.Int64 // bytes that may be committed before the next look
}

const (
	// spaceStep is how much is committed between two looks at the free space.
	spaceStep = 4 << 20
	// spareSpace is for compactions.
	spareSpace = 64 << 20
)

// newSpace reserves what a flush of the memtables that wait, and a compaction,
// would write.
func newSpace(dir string, o badger.Options) space {
	return space{dir: dir, reserve: uint64(2*o.MemTableSize + spareSpace)}
}

// check is called before n bytes are committed.
func (s *space) check(n int64) error {
	if s.left.Add(-n) > 0 {
		return nil
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.dir, &st); err != nil {
		return fmt.Errorf("statfs %s: %w", s.dir, err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < s.reserve+uint64(n) {
		return fmt.Errorf("%s: %w: %d bytes are free, badger needs %d", s.dir, syscall.ENOSPC, free, s.reserve+uint64(n))
	}
	s.left.Store(spaceStep)
	return nil
}
