package disk

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Cut is the power cut: a new disk that holds what was durable and the part of
// the rest that seed lets survive, all of it durable. The old disk is not
// changed, except that it may share pages with the new one.
func (d *Disk) Cut(seed int64) *Disk {
	return newCutter(d, seed).cut()
}

func (c *cutter) cut() *Disk {
	c.cutNames()
	d := c.d
	next := &Disk{mode: d.mode, ino: d.ino, capacity: d.capacity, dirty: map[*Node]struct{}{}}
	c.copies = map[*Node]*Node{}
	next.root = c.copyTree(next, d.root)
	return next
}

// Lose is the harshest cut: nothing survives that was not durable.
func (d *Disk) Lose() *Disk {
	c := newCutter(d, 0)
	c.fate, c.mixed = nothing, false
	return c.cut()
}

// fate is how what was not synced fares, for a cut or for one file of it.
type fate uint8

const (
	nothing  fate = iota // survives
	all                  // survives
	prefix               // what was written before some moment, sector by sector
	suffix               // what was written after some moment, and nothing else
	each                 // decides alone, with the cutter's odds
	numFates             // for the dice
)

// cutter decides one cut. Its dice for a file depend on the seed and on the
// file's number only, not on the order in which files are visited.
type cutter struct {
	d       *Disk
	seed    uint64
	fate    fate
	mixed   bool // each file rolls its own fate
	odds    float64
	granule int64
	journal uint64 // ordered: events up to it survive
	// entries are the durable names of each directory after the cut, where they
	// differ from Node.durableEntries.
	entries map[*Node]map[string]*Node
	copies  map[*Node]*Node
	flushed map[*Node]uint64 // data up to the event survives (auto_da_alloc)
}

func newCutter(d *Disk, seed int64) *cutter {
	c := &cutter{d: d, seed: uint64(seed), entries: map[*Node]map[string]*Node{}, flushed: map[*Node]uint64{}}
	r := c.dice(0)
	c.fate = fate(r.IntN(int(numFates)))
	c.mixed = r.IntN(2) == 0
	c.odds = []float64{0.1, 0.5, 0.9}[r.IntN(3)]
	c.granule = []int64{512, 4096}[r.IntN(2)]
	return c
}

func (c *cutter) dice(ino uint64) *rand.Rand { return rand.New(rand.NewPCG(c.seed, ino)) }

// fateOf is the fate of what hangs on r.
func (c *cutter) fateOf(r *rand.Rand) fate {
	if c.mixed {
		return fate(r.IntN(int(numFates)))
	}
	return c.fate
}

// cutNames decides which changes of names survive.
func (c *cutter) cutNames() {
	// Number 0 was used for the cut itself, and no inode has the highest one.
	r := c.dice(^uint64(0))
	f := c.fateOf(r)
	if c.d.mode == Ordered {
		c.cutJournal(r, f)
		return
	}
	type key struct {
		dir  *Node
		name string
	}
	lost := map[key]bool{}
	moment := r.IntN(len(c.d.names) + 1)
	for i, ch := range c.d.names {
		survives := c.survives(f, r, i, i, moment)
		for _, e := range ch.edits {
			survives = survives && !lost[key{e.dir, e.name}]
		}
		for _, e := range ch.edits {
			if survives {
				c.edit(e)
			} else {
				lost[key{e.dir, e.name}] = true
			}
		}
	}
}

// survives decides event i of a list; last is the last event that the same place
// has, moment the one that divides prefix and suffix.
func (c *cutter) survives(f fate, r *rand.Rand, i, last, moment int) bool {
	switch f {
	case all:
		return true
	case prefix:
		return i < moment
	case suffix:
		return last >= moment
	case each:
		return r.Float64() < c.odds
	}
	return false
}

// cutJournal keeps a prefix of the journal.
func (c *cutter) cutJournal(r *rand.Rand, f fate) {
	d := c.d
	c.journal = d.committed
	switch f {
	case nothing:
	case all:
		c.journal = d.seq
	default:
		moments := []uint64{d.committed}
		for _, ch := range d.names {
			moments = append(moments, ch.seq)
		}
		for n := range d.dirty {
			for _, e := range n.pending {
				if e.kind != eventWrite && e.seq > d.committed {
					moments = append(moments, e.seq)
				}
			}
		}
		slices.Sort(moments)
		c.journal = moments[r.IntN(len(moments))]
	}
	for _, ch := range d.names {
		if ch.seq > c.journal {
			break
		}
		if ch.flush != nil {
			c.flushed[ch.flush] = ch.seq
		}
		for _, e := range ch.edits {
			c.edit(e)
		}
	}
}

func (c *cutter) edit(e edit) {
	m := c.entries[e.dir]
	if m == nil {
		m = map[string]*Node{}
		for name, n := range e.dir.durableEntries {
			m[name] = n
		}
		c.entries[e.dir] = m
	}
	if e.node == nil {
		delete(m, e.name)
	} else {
		m[e.name] = e.node
	}
}

// copyTree makes the new disk's node of n, and of everything under it.
func (c *cutter) copyTree(next *Disk, n *Node) *Node {
	if m := c.copies[n]; m != nil {
		m.Links++
		return m
	}
	m := &Node{Ino: n.Ino, Perm: n.Perm, Mtime: n.Mtime, Links: 1, dir: n.dir}
	c.copies[n] = m
	if !n.dir {
		m.durable = c.content(n)
		m.live = m.durable.clone()
		// A preallocation is durable as far as the size that came with it.
		m.alloc = min(n.alloc, (m.live.size+PageSize-1)/PageSize)
		next.used += m.allocatedPages()
		return m
	}
	m.Links = 2
	m.entries, m.durableEntries = map[string]*Node{}, map[string]*Node{}
	entries := c.entries[n]
	if entries == nil {
		entries = n.durableEntries
	}
	// In order, so that a file with two names gets the same one for Path each time.
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		k := c.copyTree(next, entries[name])
		k.parent, k.name = m, name
		m.entries[name], m.durableEntries[name] = k, k
		if k.dir {
			m.Links++
		}
	}
	return m
}

// content is what a file holds after the cut.
func (c *cutter) content(n *Node) image {
	r := c.dice(n.Ino)
	s := &survival{
		cutter: c, dice: r, fate: c.fateOf(r), events: n.pending,
		img: n.durable.clone(), limit: int64(1) << 62,
	}
	s.eventMoment = r.IntN(len(s.events) + 1)
	s.metaMoment = s.metadataMoment()
	s.number()
	s.moment = r.IntN(s.sectors + 1)
	s.stopped = map[int64]bool{}
	flushed := c.flushed[n]
	for i, e := range s.events {
		s.step(i, e, e.seq <= flushed)
	}
	s.expose()
	return s.img
}

// survival is the decision over one file.
type survival struct {
	*cutter
	dice   *rand.Rand
	fate   fate
	events []event
	img    image
	// sectors is how many sectors the events write, one counted as often as it is
	// written; first numbers those of each event.
	sectors int
	first   []int
	// moment divides the sectors for the fates prefix and suffix.
	moment int
	// eventMoment: data appended by earlier events survives (ordered).
	eventMoment int
	// metaMoment: sizes and truncations before it survive (strict; in ordered the
	// journal decides).
	metaMoment int
	// limit: a truncation that did not survive keeps every later write from
	// surviving at or beyond it; the blocks written belong to the new extent.
	limit     int64
	lastWrite map[int64]int  // by sector, the number of its last write
	stopped   map[int64]bool // sectors of which a write was lost: later ones are too
	appended  int64          // ordered: end of the surviving appended data
}

// number counts the sectors that are written.
func (s *survival) number() {
	s.lastWrite, s.first = map[int64]int{}, make([]int, len(s.events))
	for i, e := range s.events {
		s.first[i] = s.sectors
		if e.kind != eventWrite {
			continue
		}
		sectorsOf(e.off, e.off+int64(len(e.data)), s.granule, func(sec, _, _ int64) {
			s.lastWrite[sec] = s.sectors
			s.sectors++
		})
	}
}

func (s *survival) metadataMoment() int {
	switch s.fate {
	case nothing:
		return 0
	case all:
		return len(s.events)
	}
	// The size of a file that was written goes to the disk often, and with it zeros
	// in the place of data that did not.
	if s.dice.IntN(2) == 0 {
		return len(s.events)
	}
	return s.dice.IntN(len(s.events) + 1)
}

// step decides event i. A forced one survives whatever the dice say.
func (s *survival) step(i int, e event, forced bool) {
	meta := i < s.metaMoment || forced
	if s.d.mode == Ordered && e.kind != eventWrite {
		meta = e.seq <= s.journal || e.seq <= s.d.committed || forced
	}
	switch {
	case e.kind == eventWrite:
		s.write(i, e, meta, forced)
	case !meta && e.kind == eventResize:
		s.limit = min(s.limit, e.off, e.before)
	case !meta:
	case e.kind == eventResize:
		s.img.truncate(e.off)
		s.appended = 0
		for sec := range s.stopped {
			if (sec+1)*s.granule > e.off {
				delete(s.stopped, sec)
			}
		}
	default:
		s.img.zero(e.off, e.length)
	}
}

func (s *survival) write(i int, e event, meta, forced bool) {
	end := min(e.off+int64(len(e.data)), s.limit)
	off := e.off
	if forced {
		s.img.put(off, e.data)
		s.img.size = max(s.img.size, off+int64(len(e.data)))
		return
	}
	if end <= off {
		return
	}
	if s.d.mode == Ordered {
		if i < s.appendMoment() && end > s.img.size {
			lo := max(off, s.img.size)
			s.img.put(lo, e.data[lo-off:end-off])
			s.appended = max(s.appended, end)
		}
		end = min(end, s.img.size)
	}
	sectorsOf(off, end, s.granule, func(sec, lo, hi int64) {
		if s.stopped[sec] {
			return
		}
		number := s.first[i] + int(sec-off/s.granule)
		if !s.survives(s.fate, s.dice, number, s.lastWrite[sec], s.moment) {
			s.stopped[sec] = true
			return
		}
		s.img.put(lo, e.data[lo-off:hi-off])
	})
	if s.d.mode == Strict && meta {
		s.img.size = max(s.img.size, end)
	}
}

// appendMoment: appended data of earlier events survives.
func (s *survival) appendMoment() int {
	switch s.fate {
	case nothing:
		return 0
	case all:
		return len(s.events)
	}
	return s.eventMoment
}

// expose settles the size: what survived beyond it is not there.
func (s *survival) expose() {
	if s.appended > s.img.size {
		size := s.appended
		if blocks := (size - s.img.size) / PageSize; s.fate != all && blocks > 0 && s.dice.IntN(2) == 0 {
			size = max(s.img.size, (size-1-s.dice.Int64N(blocks)*PageSize)/PageSize*PageSize)
		}
		s.img.size = size
	}
	s.img.truncate(s.img.size)
}
