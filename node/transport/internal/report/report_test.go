package report

import (
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gate is a sink that waits until it is opened, as a raft loop that is busy.
type gate struct {
	open chan struct{}

	mu          sync.Mutex
	unreachable map[uint64]int
	snapshots   int
}

func (g *gate) ReportUnreachable(id uint64) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unreachable[id]++
}

func (g *gate) ReportSnapshot(uint64, raft.SnapshotStatus) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	g.snapshots++
}

func (g *gate) counts() (unreachable2, unreachable3, snapshots int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.unreachable[2], g.unreachable[3], g.snapshots
}

// Unreachable reports may be merged, snapshot reports may not, and no call waits
// for the sink.
func TestReports(t *testing.T) {
	g := &gate{open: make(chan struct{}), unreachable: make(map[uint64]int)}
	r := New(g)
	for range 100 {
		r.Unreachable(2)
		r.Unreachable(3)
		r.Snapshot(2, raft.SnapshotFinish)
	}
	close(g.open)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		two, three, snaps := g.counts()
		if two > 0 && three > 0 && snaps == 100 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("reported: %d and %d times unreachable, %d snapshots of 100", two, three, snaps)
		}
	}
	r.Close()
	two, three, _ := g.counts()
	if two > 2 || three > 2 {
		t.Errorf("reported %d and %d times unreachable: while one report waits, the rest is to be merged", two, three)
	}
	r.Unreachable(4)
	r.Snapshot(4, raft.SnapshotFailure)
	r.Close()
	if _, _, snaps := g.counts(); snaps != 100 {
		t.Errorf("reported after Close")
	}
}
