package disk

import (
	"maps"
	"slices"
)

// Fsync makes the content of a file durable, and in mode Ordered the journal,
// if the file has a part in it. dataOnly is fdatasync.
func (d *Disk) Fsync(n *Node, dataOnly bool) {
	if n.dir {
		d.FsyncDir(n)
		return
	}
	commit := n.changesMetadata(dataOnly) || n.datasyncSeq > d.committed ||
		(!dataOnly && n.syncSeq > d.committed)
	written := len(n.pending) > 0
	d.settle(n, d.seq)
	switch {
	case d.mode == Strict:
	case commit:
		d.commitJournal()
	case written:
		n.syncSeq = d.seq // the times of the inode wait in the journal
	}
}

// changesMetadata reports whether writing back what is pending changes the
// inode: its times at every write (fsync writes them, fdatasync does not), its
// size, or its map of blocks.
func (n *Node) changesMetadata(dataOnly bool) bool {
	for _, e := range n.pending {
		if !dataOnly || e.kind != eventWrite || e.off+int64(len(e.data)) > n.durable.size {
			return true
		}
		for i := e.off / PageSize; i*PageSize < e.off+int64(len(e.data)); i++ {
			if n.durable.pages[i] == nil {
				return true
			}
		}
	}
	return false
}

// FailSync is a sync that returned an error: the pages that were not written
// back are marked clean all the same, as Linux does, so that no later sync
// writes them; reads go on showing them until the next mount.
func (d *Disk) FailSync(n *Node) {
	if n.dir {
		return
	}
	var kept []event
	for _, e := range n.pending {
		if e.kind != eventWrite {
			kept = append(kept, e)
			continue
		}
		d.unsyncedBytes -= int64(len(e.data))
	}
	n.pending = kept
	if len(kept) == 0 {
		delete(d.dirty, n)
	}
}

// settle makes the pending events of n up to seq durable.
func (d *Disk) settle(n *Node, seq uint64) {
	var written []event
	for len(n.pending) > 0 && n.pending[0].seq <= seq {
		e := n.pending[0]
		n.pending = n.pending[1:]
		switch e.kind {
		case eventWrite:
			d.unsyncedBytes -= int64(len(e.data))
			n.durable.put(e.off, e.data)
			n.durable.size = max(n.durable.size, e.off+int64(len(e.data)))
			written = append(written, e)
		case eventResize:
			n.durable.truncate(e.off)
		case eventZero:
			n.durable.zero(e.off, e.length)
		}
	}
	if len(n.pending) > 0 {
		return
	}
	n.pending = nil
	delete(d.dirty, n)
	// Nothing is pending: what was written is the live page by now, and one copy
	// of it is enough. It also holds what an earlier, failed sync had dropped from
	// that page, as a page cache that writes the whole page does.
	for _, e := range written {
		for i := e.off / PageSize; i*PageSize < e.off+int64(len(e.data)); i++ {
			if p := n.live.pages[i]; p != nil {
				p.shared = true
				n.durable.pages[i] = p
			}
		}
	}
}

// FsyncDir makes the names in a directory durable.
func (d *Disk) FsyncDir(dir *Node) {
	if d.mode == Ordered {
		if dir.syncSeq > d.committed {
			d.commitJournal()
		}
		return
	}
	// Everything that touches dir, and, before it, every change of the same names
	// elsewhere that it builds on.
	type key struct {
		dir  *Node
		name string
	}
	needed := map[key]bool{}
	take := make([]bool, len(d.names))
	for i := len(d.names) - 1; i >= 0; i-- {
		for _, e := range d.names[i].edits {
			if e.dir == dir || needed[key{e.dir, e.name}] {
				take[i] = true
			}
		}
		if take[i] {
			for _, e := range d.names[i].edits {
				needed[key{e.dir, e.name}] = true
			}
		}
	}
	var rest []change
	for i, c := range d.names {
		if take[i] {
			c.apply()
		} else {
			rest = append(rest, c)
		}
	}
	d.names = rest
}

// commitJournal makes every change of names durable, and with committed every
// truncation.
func (d *Disk) commitJournal() {
	for _, c := range d.names {
		if c.flush != nil {
			d.settle(c.flush, c.seq)
		}
		c.apply()
	}
	d.names = nil
	d.committed = d.seq
}

// apply carries a change over to the durable names.
func (c change) apply() {
	for _, e := range c.edits {
		if e.node == nil {
			delete(e.dir.durableEntries, e.name)
		} else {
			e.dir.durableEntries[e.name] = e.node
		}
	}
}

// SyncAll makes the live state durable: the clean shutdown of a machine.
func (d *Disk) SyncAll() {
	for n := range d.dirty {
		d.settle(n, d.seq)
	}
	d.commitJournal()
}

// Unsynced says how much a cut could take now: files with pending data, bytes of
// it, and changes of names.
func (d *Disk) Unsynced() (files int, bytes int64, names int) {
	return len(d.dirty), d.unsyncedBytes, len(d.names)
}

// sectorsOf calls f with every sector of size granule that [off, end) touches.
func sectorsOf(off, end, granule int64, f func(sector, lo, hi int64)) {
	for s := off / granule; off < end && s*granule < end; s++ {
		f(s, max(off, s*granule), min(end, (s+1)*granule))
	}
}

// sortedNames lists the durable names of a directory in order.
func (n *Node) sortedNames() []string {
	return slices.Sorted(maps.Keys(n.durableEntries))
}
