package torture

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// errKilled is what the storage of a node returns that was killed.
var errKilled = errors.New("the node was killed")

// disks are the disks of all nodes. A kill leaves of each what was synced, and of
// the rest what the seed decides.
type disks struct {
	mu  sync.Mutex // guards every disk
	rng *rand.Rand
	all map[uint64]*disk
	// lying disks acknowledge before they save: what was saved since the last
	// writeBack is lost when the power fails. All write back at one moment, so that
	// what is left is a state that the cluster was in, and only acknowledged entries
	// are missing. (Nodes that lost different parts make raft itself panic.)
	lying bool
}

type disk struct {
	life          int   // a storage of an earlier life is dead
	seen, durable image // by the node; by the next life
	saving        *saving
	latency       time.Duration // of every Save
}

// saving is a Save under way, of which a kill leaves nothing, a part or all.
type saving struct {
	hs   *raftpb.HardState
	ents []*raftpb.Entry
}

// image is what a disk holds. It is replaced, never changed.
type image struct {
	hs   *raftpb.HardState
	snap *raftpb.Snapshot
	ents []*raftpb.Entry
}

func newDisks(nodes int, seed int64, lying bool) *disks {
	d := &disks{all: map[uint64]*disk{}, lying: lying, rng: rand.New(rand.NewPCG(uint64(seed), 2))}
	for id := uint64(1); id <= uint64(nodes); id++ {
		d.all[id] = &disk{}
	}
	return d
}

// open begins a life on a disk.
func (d *disks) open(id uint64) (backends.Storage, backends.State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := d.all[id]
	k.life++
	k.seen = k.durable
	st, err := backends.Recover("disk", k.seen.hs, k.seen.snap, append([]*raftpb.Entry(nil), k.seen.ents...))
	return &storage{all: d, disk: k, life: k.life}, st, err
}

// cut takes the power from some disks at one moment.
func (d *disks) cut(ids []uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		k := d.all[id]
		k.life++
		if d.lying {
			continue
		}
		if d.rng.IntN(2) == 0 {
			k.durable = k.seen // what was not synced may have been written all the same
		}
		if s := k.saving; s != nil {
			switch n := len(s.ents); d.rng.IntN(3) {
			case 0:
				k.durable = k.durable.save(s.hs, s.ents)
			case 1: // torn: some of the entries, without the hard state
				k.durable = k.durable.save(nil, s.ents[:d.rng.IntN(n+1)])
			}
		}
		k.saving = nil
	}
}

// writeBack saves what lying disks have acknowledged.
func (d *disks) writeBack() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.lying {
		return
	}
	for _, k := range d.all {
		k.durable = k.seen
	}
}

func (d *disks) slow(id uint64, latency time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all[id].latency = latency
}

// save is the image after a Save.
func (im image) save(hs *raftpb.HardState, ents []*raftpb.Entry) image {
	if !raft.IsEmptyHardState(hs) {
		im.hs = proto.Clone(hs).(*raftpb.HardState)
	}
	if len(ents) > 0 {
		keep := 0
		for keep < len(im.ents) && im.ents[keep].GetIndex() < ents[0].GetIndex() {
			keep++
		}
		im.ents = append(im.ents[:keep:keep], ents...)
	}
	return im
}

// saveSnap is the image after a SaveSnap.
func (im image) saveSnap(snap *raftpb.Snapshot) image {
	meta := snap.GetMetadata()
	if meta.GetIndex() < im.snap.GetMetadata().GetIndex() {
		return im
	}
	held := false
	for _, e := range im.ents {
		held = held || e.GetIndex() == meta.GetIndex() && e.GetTerm() == meta.GetTerm()
	}
	if !held {
		im.ents = nil
	}
	im.snap = snap
	return im
}

func (im image) release(index uint64) image {
	from := 0
	for from < len(im.ents) && im.ents[from].GetIndex() <= min(index, im.snap.GetMetadata().GetIndex()) {
		from++
	}
	im.ents = im.ents[from:]
	return im
}

// storage is one life on a disk.
type storage struct {
	all  *disks
	disk *disk
	life int
}

// Save implements backends.Storage.
func (s *storage) Save(hs *raftpb.HardState, ents []*raftpb.Entry) error {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	k := s.disk
	if s.life != k.life {
		return errKilled
	}
	if k.latency > 0 {
		k.saving = &saving{hs, ents}
		wait := k.latency
		s.all.mu.Unlock()
		time.Sleep(wait)
		s.all.mu.Lock()
		if s.life != k.life {
			return errKilled
		}
		k.saving = nil
	}
	before := k.seen.hs
	if before == nil {
		before = &raftpb.HardState{}
	}
	k.seen = k.seen.save(hs, ents)
	if s.all.lying {
		return nil
	}
	if len(ents) > 0 || !raft.IsEmptyHardState(hs) && raft.MustSync(hs, before, 0) {
		k.durable = k.seen
	}
	return nil
}

// change makes a durable change at once.
func (s *storage) change(f func(image) image) error {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if s.life != s.disk.life {
		return errKilled
	}
	s.disk.seen = f(s.disk.seen)
	if !s.all.lying {
		s.disk.durable = f(s.disk.durable)
	}
	return nil
}

// SaveSnap implements backends.Storage.
func (s *storage) SaveSnap(snap *raftpb.Snapshot) error {
	return s.change(func(im image) image { return im.saveSnap(snap) })
}

// Sync implements backends.Storage.
func (s *storage) Sync() error {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if s.life != s.disk.life {
		return errKilled
	}
	if !s.all.lying {
		s.disk.durable = s.disk.seen
	}
	return nil
}

// Release implements backends.Storage.
func (s *storage) Release(snap *raftpb.Snapshot) error {
	return s.change(func(im image) image { return im.release(snap.GetMetadata().GetIndex()) })
}

// Close implements backends.Storage.
func (s *storage) Close() error { return nil }
