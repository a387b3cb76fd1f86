package bench

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
)

// SlowDisk makes one node's disk slow while the load is on. Either Delay or Stall
// and Every are set; the zero value is a cluster whose disks are all as they are.
//
// It is a decorator around Save, SaveSnap and Sync, so it needs neither root nor a
// file system of its own, the other nodes keep the same disk, and every engine is
// slowed alike. What it cannot know is how often an engine syncs within one Save:
// one that syncs twice would pay Delay twice on a disk that is really slow. Files
// that an engine writes in the background (compaction) are not slowed.
type SlowDisk struct {
	// Role is who has the slow disk when the load begins: the node keeps it when
	// it gains or loses the lead later.
	Role Role
	// Delay is added to each Save that must sync, SaveSnap and Sync.
	Delay time.Duration
	// Stall is how long the disk stands still at the end of each Every of the
	// measured time: what is to be synced meanwhile waits until it is over.
	Stall, Every time.Duration
}

// Role is what a node is in its cluster.
type Role string

// The roles that a slow disk may have.
const (
	RoleLeader   Role = "leader"
	RoleFollower Role = "follower"
)

const (
	noSlowDisk   = "none"
	maxSlowDelay = time.Minute
	maxSlowEvery = time.Hour
)

// String is the form that [ParseSlowDisk] reads; "" where no disk is slow.
func (d SlowDisk) String() string {
	switch {
	case d.Role == "":
		return ""
	case d.Every > 0:
		return string(d.Role) + ":stall=" + d.Stall.String() + "/" + d.Every.String()
	}
	return string(d.Role) + ":+" + d.Delay.String()
}

// ParseSlowDisk reads ROLE:+DELAY or ROLE:stall=STALL/EVERY, where ROLE is leader or
// follower, and none.
func ParseSlowDisk(s string) (SlowDisk, error) {
	if s == "" || s == noSlowDisk {
		return SlowDisk{}, nil
	}
	role, how, _ := strings.Cut(s, ":")
	d := SlowDisk{Role: Role(role)}
	if !slices.Contains([]Role{RoleLeader, RoleFollower}, d.Role) {
		return SlowDisk{}, wantSlowDisk(s)
	}
	var err error
	if delay, ok := strings.CutPrefix(how, "+"); ok {
		d.Delay, err = time.ParseDuration(delay)
		if err != nil || d.Delay <= 0 || d.Delay > maxSlowDelay {
			return SlowDisk{}, wantSlowDisk(s)
		}
		return d, nil
	}
	stall, every, ok := strings.Cut(strings.TrimPrefix(how, "stall="), "/")
	if !ok || !strings.HasPrefix(how, "stall=") {
		return SlowDisk{}, wantSlowDisk(s)
	}
	d.Stall, err = time.ParseDuration(stall)
	if err == nil {
		d.Every, err = time.ParseDuration(every)
	}
	if err != nil || d.Stall <= 0 || d.Every <= d.Stall || d.Every > maxSlowEvery {
		return SlowDisk{}, wantSlowDisk(s)
	}
	return d, nil
}

func wantSlowDisk(s string) error {
	return usage("slow disk %q: want leader:+5ms or follower:+5ms (each sync takes up to %v longer), "+
		"leader:stall=2s/10s (it stands still for 2s of every 10s, of every %v at most), or none", s, maxSlowDelay, maxSlowEvery)
}

// checkSlowDisk checks what depends on the rest of the specification.
func (s *Spec) checkSlowDisk(check func(ok bool, format string, args ...any)) {
	if s.SlowDisk == (SlowDisk{}) {
		return
	}
	if same, err := ParseSlowDisk(s.SlowDisk.String()); err != nil {
		check(false, "%v", err)
	} else {
		check(same == s.SlowDisk, "slow disk %+v: want a role, and either a delay or stalls", s.SlowDisk)
	}
	check(s.SlowDisk.Role != RoleFollower || s.Nodes >= 2, "slow disk %s: one node has no follower", s.SlowDisk)
	check(s.SlowDisk.Every <= s.Duration, "slow disk %s: no stall falls into the %v that are measured; measure for %v at least", s.SlowDisk, s.Duration, s.SlowDisk.Every)
	check(!s.Placement.remote(), "slow disk %s: the nodes must be in one process, not placed as %s", s.SlowDisk, s.Placement)
	check(s.Workload.Kind == WorkloadPropose || s.Workload.Kind == WorkloadTrace,
		"slow disk %s: only the workloads propose and trace have one, not %s", s.SlowDisk, s.Workload)
}

// syncRule tells which Saves must sync; it follows one node's hard state.
type syncRule struct{ prev *raftpb.HardState }

func (r *syncRule) mustSync(hs *raftpb.HardState, ents []*raftpb.Entry) bool {
	if raft.IsEmptyHardState(hs) {
		return len(ents) > 0
	}
	prev := cmp.Or(r.prev, &raftpb.HardState{})
	r.prev = hs
	return raft.MustSync(hs, prev, len(ents))
}

// slowDisk is the slow disk of a run. Before begin and after end it is as fast as
// the others.
type slowDisk struct {
	SlowDisk
	o *observer

	mu      sync.Mutex
	node    uint64        // whose it is; 0: nobody's
	begun   time.Duration // since base
	start   time.Duration // of the measured time, since base; 0 before
	ended   chan struct{} // closed by end
	stalled int64         // windows of Every that were told, from 1
}

func (d *slowDisk) begin(node uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.node, d.begun, d.ended = node, d.o.now(), make(chan struct{})
}

// measure begins the time in which stalls are counted.
func (d *slowDisk) measure() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.node != 0 {
		d.start = d.o.now()
	}
}

// end lets go of those who wait.
func (d *slowDisk) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.node != 0 {
		d.node = 0
		close(d.ended)
	}
}

// wait takes as long as the disk of a node takes longer than the others.
func (d *slowDisk) wait(node uint64) {
	d.mu.Lock()
	if d.node != node {
		d.mu.Unlock()
		return
	}
	left, ended := d.Delay, d.ended
	if d.Every > 0 {
		left = d.stallLeft()
	}
	d.mu.Unlock()
	if left <= 0 {
		return
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ended:
	}
}

// stallLeft is how much of a stall is left; each Every ends with one. What first
// meets a stall makes it an event.
func (d *slowDisk) stallLeft() time.Duration {
	if d.start == 0 {
		return 0
	}
	since := d.o.now() - d.start
	left := d.Every - since%d.Every
	if left > d.Stall {
		return 0
	}
	if window := int64(since/d.Every) + 1; window > d.stalled {
		d.stalled = window
		d.o.event("stall", d.node, "disk, for "+left.Round(time.Millisecond).String())
	}
	return left
}

// slowedStorage is a storage on the slow disk, if its node has it.
type slowedStorage struct {
	backends.Storage
	disk *slowDisk
	node uint64
	rule syncRule
}

func (s *slowedStorage) Save(hs *raftpb.HardState, ents []*raftpb.Entry) error {
	if s.rule.mustSync(hs, ents) {
		s.disk.wait(s.node)
	}
	return s.Storage.Save(hs, ents)
}

func (s *slowedStorage) SaveSnap(snap *raftpb.Snapshot) error {
	s.disk.wait(s.node)
	return s.Storage.SaveSnap(snap)
}

func (s *slowedStorage) Sync() error {
	s.disk.wait(s.node)
	return s.Storage.Sync()
}

// slowDown gives the slow disk to the node whose role it is to have it.
func (c *cluster) slowDown() {
	lead := c.o.proposer.Load()
	switch c.one.SlowDisk.Role {
	case RoleLeader:
		c.slow.begin(lead.id)
	case RoleFollower:
		c.slow.begin(c.others(lead)[0].id)
	}
}
