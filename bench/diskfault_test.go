package bench_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/all"
	"github.com/raftbench/raftbench/backends/powercut"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/node"
)

// diskFaults are what happens to the disk of one node, and the error that its
// node must stop with.
var diskFaults = []struct {
	name   string
	strike func(*powercut.RemoteDisk) error
	err    error
}{
	{"EIO on fsync, once", func(d *powercut.RemoteDisk) error {
		return d.Inject(powercut.DiskFault{Op: "fsync", Errno: int(syscall.EIO), Times: 1})
	}, syscall.EIO},
	{"EIO on write, once", func(d *powercut.RemoteDisk) error {
		return d.Inject(powercut.DiskFault{Op: "write", Errno: int(syscall.EIO), Times: 1})
	}, syscall.EIO},
	{"disk full", func(d *powercut.RemoteDisk) error { return d.Fill(0) }, syscall.ENOSPC},
}

// diskFaultsEverywhere makes every fault strike every engine, as leader and as
// follower; without it the engines take turns.
const diskFaultsEverywhere = "RAFTBENCH_DISK_FAULTS"

// TestOneDiskFails: under load the disk of one node of three fails. That node stops
// with an error that names the file and the error; the others go on, if it led
// under a new leader; and after a power cut of that node everything that was ever
// acknowledged is there, and the three of them go on.
func TestOneDiskFails(t *testing.T) {
	if err := powercut.Available(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("CI must be able to make disks fail: %v", err)
		}
		t.Skip(err)
	}
	engines := []string{"raw", "etcd-wal", "bbolt"}
	for i, fault := range diskFaults {
		for j, role := range []string{"leader", "follower"} {
			for k, engine := range engines {
				if os.Getenv(diskFaultsEverywhere) == "" && (i+j)%len(engines) != k {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", engine, role, fault.name), func(t *testing.T) {
					b, err := all.Lookup(engine)
					if err != nil {
						t.Fatal(err)
					}
					c := startOnBadDisk(t, b.With(powercut.SmallParams(b)))
					c.failOne(role == "leader", fault.strike, fault.err)
				})
			}
		}
	}
}

// badDiskNode is the node whose disk fails.
const badDiskNode = 1

// patience bounds what a test waits for; nothing takes as long.
const patience = 3 * time.Minute

// strikeAgain is when a fault that has not stopped the node is made again.
const strikeAgain = 3 * time.Second

// ledger holds every entry that any node has applied, which is what a client may
// have been told of.
type ledger struct {
	mu      sync.Mutex
	entries map[uint64]ack // by index
	err     error          // two nodes applied different entries
}

func (l *ledger) add(ents []*raftpb.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range ents {
		a := ack{e.GetIndex(), e.GetTerm(), load.ID(e.GetData())}
		if old, ok := l.entries[a.index]; ok && old != a {
			l.err = fmt.Errorf("nodes applied different entries: %+v and %+v", old, a)
		}
		l.entries[a.index] = a
	}
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}

func (l *ledger) all() ([]ack, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []ack
	for _, a := range l.entries {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b ack) int { return int(a.index) - int(b.index) })
	return out, l.err
}

// bookkeeper is a state machine that enters what it applies.
type bookkeeper struct {
	*node.KV
	ledger *ledger
}

func (b bookkeeper) Apply(ents []*raftpb.Entry) {
	b.KV.Apply(ents)
	b.ledger.add(ents)
}

// badDiskCluster is three nodes, of which one is on a disk that can be made to fail.
type badDiskCluster struct {
	t        *testing.T
	dir      string
	backend  backends.Backend
	disk     *powercut.RemoteDisk
	nodes    map[uint64]*node.Node
	stop     func() error
	ledger   *ledger
	payloads *load.Payloads
	proposed uint64
	deadline time.Time
}

func startOnBadDisk(t *testing.T, b backends.Backend) *badDiskCluster {
	t.Helper()
	c := &badDiskCluster{t: t, dir: t.TempDir(), backend: b, ledger: &ledger{entries: map[uint64]ack{}}, deadline: time.Now().Add(patience)}
	if err := os.Mkdir(c.place(), 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.disk, err = powercut.StartDisk(c.place(), powercut.DiskOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.disk.Close(); err != nil {
			t.Error(err)
		}
	})
	if c.payloads, err = load.NewPayloads(1, 16, 2000, 256, 0); err != nil {
		t.Fatal(err)
	}
	c.nodes, c.stop, err = openCluster(c.dir, b, func(uint64) node.StateMachine {
		return bookkeeper{node.NewKV(256), c.ledger}
	})
	if err != nil {
		t.Fatal(errors.Join(err, c.stop()))
	}
	return c
}

// place is where the bad disk is mounted.
func (c *badDiskCluster) place() string {
	return filepath.Join(c.dir, fmt.Sprint("node-", badDiskNode))
}

func (c *badDiskCluster) failOne(leads bool, strike func(*powercut.RemoteDisk) error, want error) {
	t, bad := c.t, c.nodes[badDiskNode]
	stopped := false
	defer func() {
		if !stopped {
			_ = c.stop()
		}
	}()
	c.propose("a leader in place, and 200 entries", func() bool {
		l := c.leader()
		if l != nil && (l == bad) != leads {
			to := uint64(badDiskNode)
			if l == bad {
				to++
			}
			l.TransferLeadership(context.Background(), to)
			return false
		}
		return l != nil && c.ledger.len() >= 200
	})
	if err := strike(c.disk); err != nil {
		t.Fatal(err)
	}
	// A write or sync that only stages a snapshot from the leader may fail: the
	// snapshot is refused, and the node goes on. Then the disk fails again.
	next := time.Now().Add(strikeAgain)
	c.propose("the node to stop", func() bool {
		if bad.Err() == nil && time.Now().After(next) {
			if err := strike(c.disk); err != nil {
				t.Fatal(err)
			}
			next = time.Now().Add(strikeAgain)
		}
		return bad.Err() != nil
	})
	if err := bad.Err(); !errors.Is(err, want) || !strings.Contains(err.Error(), c.place()) {
		t.Errorf("the node stopped with %q, which should be %q and name a file below %s", err, want, c.place())
	}
	then := c.ledger.len()
	c.propose("the others to acknowledge 300 more entries", func() bool { return c.ledger.len() >= then+300 })
	for id, n := range c.nodes {
		if err := n.Err(); err != nil && n != bad {
			t.Errorf("node %d stopped too: %v", id, err)
		}
	}
	stopped = true
	c.checkStop(c.stop())
	acked, err := c.ledger.all()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d entries acknowledged; the node said: %v", len(acked), bad.Err())
	if err := errors.Join(c.disk.Heal(), c.disk.Cut(1)); err != nil {
		t.Fatal(err)
	}
	checkMajority(t, c.dir, c.backend, acked)
	checkGoesOn(t, c.dir, c.backend)
}

// checkStop: only the storage on the bad disk may fail to close.
func (c *badDiskCluster) checkStop(err error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return
	}
	for _, e := range joined.Unwrap() {
		if !strings.Contains(e.Error(), c.place()) {
			c.t.Errorf("stop: %v", e)
		}
	}
}

// leader is the node that leads and has not failed; nil while there is none.
func (c *badDiskCluster) leader() *node.Node {
	var l *node.Node
	for _, n := range c.nodes {
		if n.Err() == nil && n.Status().IsLeader && (l == nil || n.Status().Term > l.Status().Term) {
			l = n
		}
	}
	return l
}

// propose loads whoever leads until done. Proposals may be lost with their leader;
// so it waits for each batch only for a while.
func (c *badDiskCluster) propose(what string, done func() bool) {
	c.t.Helper()
	const batch = 32
	for !done() {
		if time.Now().After(c.deadline) {
			c.t.Fatalf("waited in vain for %s: %d entries acknowledged of %d proposed, node %d: %v", what, c.ledger.len(), c.proposed, badDiskNode, c.nodes[badDiskNode].Err())
		}
		l := c.leader()
		if l == nil {
			time.Sleep(time.Millisecond)
			continue
		}
		payloads := make([][]byte, batch)
		for i := range payloads {
			c.proposed++
			payloads[i] = c.payloads.Make(c.proposed)
		}
		before := c.ledger.len()
		if err := l.Propose(context.Background(), payloads...); err != nil {
			continue // it has just stopped
		}
		for patience := 20; patience > 0 && c.ledger.len() < before+batch; patience-- {
			time.Sleep(time.Millisecond)
		}
	}
}
