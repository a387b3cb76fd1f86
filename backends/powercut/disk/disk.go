// Package disk is a file system in memory that knows, for every change made to
// it, whether the change would survive a power cut at this moment.
//
// A [Disk] holds two states: the live one, which reads and lookups see, and the
// durable one, which a fresh mount would find. Writes, truncations and changes of
// names move the live state; fsync, fdatasync and fsync of a directory carry what
// they promise over to the durable state; [Disk.Cut] makes a new Disk of the
// durable state and of a seeded part of what had not been synced.
//
// # What a cut may leave of what was not synced
//
// Data: every sector (512 bytes or 4 KiB, chosen per cut) decides alone. Where a
// sector was written several times, it holds its content as of one moment since
// the last sync: a page cache writes whole pages back, so a later write never
// survives without the earlier ones to the same sector. What did not survive
// reads as before the write, as zeros where nothing was there; stale blocks of
// other files are never exposed.
//
// In mode [Strict], which promises no more than POSIX:
//   - the size of a file and its truncations survive as of one moment since the
//     last sync, independently of the data: a file may have its new size and
//     zeros in it;
//   - fsync of a file makes its content durable, never a name;
//   - a created, renamed, linked or removed name is durable once the directory
//     is synced. Until then every name decides alone; changes of one name
//     survive in their order, and a rename is atomic.
//
// In mode [Ordered], which is ext4 with data=ordered, delayed allocation and
// auto_da_alloc, its defaults:
//   - names, truncations and preallocations go through one journal: what survives
//     of it is a prefix;
//   - fsync of a file or directory commits the whole journal if the inode has a
//     part in it that is not committed, or the file's data changes its metadata;
//     fdatasync does not for a plain overwrite of blocks that were written before;
//   - data appended survives as a prefix, at the content of one moment, and the
//     size never exceeds it;
//   - a rename over an existing file takes the data of the new file along.
//
// Left out, and gentler than some real systems: blocks that return an error or
// another file's content, directories whose entries are damaged, and journals
// that are. Harder than ext4: a block that was preallocated and never written may
// survive in part where ext4 converts it as a whole.
//
// A Disk is not safe for concurrent use; package fusefs serialises.
package disk

import (
	"maps"
	"path"
	"slices"
	"syscall"
	"time"
)

// Mode is what the file system promises about names and metadata.
type Mode string

// The modes; the package comment says what they promise.
const (
	Strict  Mode = "strict"
	Ordered Mode = "ordered"
)

// maxUnsynced bounds the copies kept of data that was not synced, in bytes;
// beyond it everything is written back, as a kernel does that runs out of room
// for dirty pages.
const maxUnsynced = 256 << 20

// Flags of [Disk.Rename] and [Disk.Fallocate], as in the system calls.
const (
	RenameNoReplace   = 1
	FallocKeepSize    = 0x01
	FallocPunchHole   = 0x02
	FallocZeroRange   = 0x10
	fallocUnderstands = FallocKeepSize | FallocPunchHole | FallocZeroRange
)

// Disk is a file system; see the package comment.
type Disk struct {
	mode Mode
	root *Node
	ino  uint64 // last one given out

	seq       uint64   // last event
	committed uint64   // ordered: journal events up to it are durable
	names     []change // of names, not durable yet, in order

	dirty         map[*Node]struct{} // files with pending events
	unsyncedBytes int64

	capacity int64 // in pages; 0 is unlimited
	used     int64 // pages allocated by the live state
}

// Node is a file or directory.
type Node struct {
	Ino   uint64
	Perm  uint32 // permission bits
	Mtime time.Time
	Links int // names in the live state; for a directory 2 + subdirectories

	dir bool

	// A file: what reads see, what a cut cannot take, and how to get from one to
	// the other.
	live, durable image
	pending       []event
	alloc         int64 // pages below are preallocated

	// A directory, in the live and in the durable state.
	entries, durableEntries map[string]*Node

	// ordered: the last journal event with a part in this inode, for fsync and
	// for fdatasync.
	syncSeq, datasyncSeq uint64

	parent *Node // of the newest name, for Path
	name   string
}

// event is a change of one file that is not durable yet.
type event struct {
	seq    uint64
	kind   eventKind
	off    int64
	data   []byte // of a write
	length int64  // of a zeroed range
	before int64  // size before a resize
}

type eventKind uint8

const (
	eventWrite  eventKind = iota
	eventResize           // to off
	eventZero             // [off, off+length) becomes a hole
)

// change is one atomic change of names.
type change struct {
	seq   uint64
	edits []edit
	// flush is the file whose data the change takes along (auto_da_alloc).
	flush *Node
}

// edit sets (node) or removes (nil) a name.
type edit struct {
	dir  *Node
	name string
	node *Node
}

// New is an empty disk whose root directory is durable.
func New(mode Mode) *Disk {
	d := &Disk{mode: mode, dirty: map[*Node]struct{}{}}
	d.root = d.newNode(true, 0o755)
	d.root.Links = 2
	return d
}

func (d *Disk) newNode(dir bool, perm uint32) *Node {
	d.ino++
	n := &Node{Ino: d.ino, Perm: perm & 0o7777, dir: dir, Mtime: time.Now()}
	if dir {
		n.entries, n.durableEntries = map[string]*Node{}, map[string]*Node{}
	} else {
		n.live, n.durable = newImage(), newImage()
	}
	return n
}

// Mode is the mode given to New.
func (d *Disk) Mode() Mode { return d.mode }

// Root is the directory that everything hangs from.
func (d *Disk) Root() *Node { return d.root }

// SetCapacity bounds the space that files may allocate, in bytes; 0 is unlimited.
func (d *Disk) SetCapacity(bytes int64) { d.capacity = bytes / PageSize }

// Used is the space that files have allocated, in bytes.
func (d *Disk) Used() int64 { return d.used * PageSize }

// Capacity is what SetCapacity set, in bytes.
func (d *Disk) Capacity() int64 { return d.capacity * PageSize }

// IsDir reports whether n is a directory.
func (n *Node) IsDir() bool { return n.dir }

// Size is the live size in bytes.
func (n *Node) Size() int64 { return n.live.size }

// Allocated is the live space in bytes.
func (n *Node) Allocated() int64 { return n.allocatedPages() * PageSize }

// Path is the newest name of n, from the root, without a leading slash.
func (n *Node) Path() string {
	if n.parent == nil {
		return n.name
	}
	return path.Join(n.parent.Path(), n.name)
}

// Names lists a directory in order.
func (n *Node) Names() []string {
	return slices.Sorted(maps.Keys(n.entries))
}

// Lookup finds a name in a directory.
func (d *Disk) Lookup(dir *Node, name string) (*Node, syscall.Errno) {
	if !dir.dir {
		return nil, syscall.ENOTDIR
	}
	if n := dir.entries[name]; n != nil {
		return n, 0
	}
	return nil, syscall.ENOENT
}

// Create makes an empty file.
func (d *Disk) Create(dir *Node, name string, perm uint32) (*Node, syscall.Errno) {
	return d.create(dir, name, false, perm)
}

// Mkdir makes an empty directory.
func (d *Disk) Mkdir(dir *Node, name string, perm uint32) (*Node, syscall.Errno) {
	return d.create(dir, name, true, perm)
}

func (d *Disk) create(dir *Node, name string, isDir bool, perm uint32) (*Node, syscall.Errno) {
	if !dir.dir {
		return nil, syscall.ENOTDIR
	}
	if dir.entries[name] != nil {
		return nil, syscall.EEXIST
	}
	n := d.newNode(isDir, perm)
	n.Links = 1
	if isDir {
		n.Links = 2
		dir.Links++
	}
	d.change(change{edits: []edit{{dir, name, n}}})
	n.datasyncSeq = d.seq
	return n, 0
}

// change applies c to the live state and remembers it as not durable.
func (d *Disk) change(c change) {
	d.seq++
	c.seq = d.seq
	for _, e := range c.edits {
		if old := e.dir.entries[e.name]; old != nil {
			old.syncSeq = d.seq
		}
		if e.node == nil {
			delete(e.dir.entries, e.name)
		} else {
			e.dir.entries[e.name] = e.node
			e.node.parent, e.node.name = e.dir, e.name
			e.node.syncSeq = d.seq
		}
		e.dir.syncSeq, e.dir.datasyncSeq = d.seq, d.seq
		e.dir.Mtime = time.Now()
	}
	d.names = append(d.names, c)
}

// Link gives a file another name.
func (d *Disk) Link(n, dir *Node, name string) syscall.Errno {
	switch {
	case n.dir:
		return syscall.EPERM
	case dir.entries[name] != nil:
		return syscall.EEXIST
	}
	n.Links++
	d.change(change{edits: []edit{{dir, name, n}}})
	return 0
}

// Unlink removes the name of a file; its content stays for those who have it
// open, and for a cut that takes the removal back.
func (d *Disk) Unlink(dir *Node, name string) syscall.Errno {
	n := dir.entries[name]
	switch {
	case n == nil:
		return syscall.ENOENT
	case n.dir:
		return syscall.EISDIR
	}
	d.change(change{edits: []edit{{dir, name, nil}}})
	d.unlinked(n)
	return 0
}

func (d *Disk) unlinked(n *Node) {
	n.Links--
	if n.Links == 0 {
		d.used -= n.allocatedPages()
	}
}

// Rmdir removes an empty directory.
func (d *Disk) Rmdir(dir *Node, name string) syscall.Errno {
	n := dir.entries[name]
	switch {
	case n == nil:
		return syscall.ENOENT
	case !n.dir:
		return syscall.ENOTDIR
	case len(n.entries) > 0:
		return syscall.ENOTEMPTY
	}
	n.Links = 0
	dir.Links--
	d.change(change{edits: []edit{{dir, name, nil}}})
	return 0
}

// Rename moves a name, over an existing one unless flags holds RenameNoReplace.
func (d *Disk) Rename(dir *Node, name string, newDir *Node, newName string, flags uint32) syscall.Errno {
	n, old := dir.entries[name], newDir.entries[newName]
	switch {
	case flags&^RenameNoReplace != 0:
		return syscall.EINVAL
	case n == nil:
		return syscall.ENOENT
	case old == n:
		return 0
	case old != nil && flags&RenameNoReplace != 0:
		return syscall.EEXIST
	case old != nil && old.dir && !n.dir:
		return syscall.EISDIR
	case old != nil && !old.dir && n.dir:
		return syscall.ENOTDIR
	case old != nil && old.dir && len(old.entries) > 0:
		return syscall.ENOTEMPTY
	}
	c := change{edits: []edit{{dir, name, nil}, {newDir, newName, n}}}
	if old != nil && !n.dir {
		c.flush = n
	}
	if n.dir {
		dir.Links--
		newDir.Links++
	}
	d.change(c)
	if old == nil {
		return 0
	}
	if old.dir {
		old.Links = 0
		newDir.Links--
	} else {
		d.unlinked(old)
	}
	return 0
}

// Read fills buf from off and returns the bytes read; fewer at the end.
func (d *Disk) Read(n *Node, off int64, buf []byte) int { return n.live.read(off, buf) }

// Write stores data at off. Where space runs out it stores what fits, at page
// boundaries, and returns ENOSPC if that is nothing.
func (d *Disk) Write(n *Node, off int64, data []byte) (int, syscall.Errno) {
	if n.dir {
		return 0, syscall.EISDIR
	}
	data = d.fit(n, off, data)
	if len(data) == 0 {
		return 0, syscall.ENOSPC
	}
	n.live.put(off, data)
	n.live.size = max(n.live.size, off+int64(len(data)))
	d.record(n, event{kind: eventWrite, off: off, data: slices.Clone(data)})
	d.unsyncedBytes += int64(len(data))
	if d.unsyncedBytes > maxUnsynced {
		for m := range d.dirty {
			d.settle(m, d.seq)
		}
	}
	return len(data), 0
}

// fit cuts data to the free space and books the pages that it will take.
func (d *Disk) fit(n *Node, off int64, data []byte) []byte {
	end := off + int64(len(data))
	for i := off / PageSize; i*PageSize < end; i++ {
		if i < n.alloc || n.live.pages[i] != nil {
			continue
		}
		if d.capacity > 0 && d.used >= d.capacity {
			return data[:max(0, i*PageSize-off)]
		}
		if n.Links > 0 {
			d.used++
		}
	}
	return data
}

func (d *Disk) record(n *Node, e event) {
	d.seq++
	e.seq = d.seq
	n.pending = append(n.pending, e)
	n.Mtime = time.Now()
	d.dirty[n] = struct{}{}
}

// Truncate sets the size of a file.
func (d *Disk) Truncate(n *Node, size int64) syscall.Errno {
	if n.dir {
		return syscall.EISDIR
	}
	before := n.live.size
	if size == before {
		return 0
	}
	d.rebook(n, func() {
		n.live.truncate(size)
		n.alloc = min(n.alloc, (size+PageSize-1)/PageSize)
	})
	d.record(n, event{kind: eventResize, off: size, before: before})
	return 0
}

// Fallocate preallocates, punches a hole or zeroes a range.
func (d *Disk) Fallocate(n *Node, mode uint32, off, length int64) syscall.Errno {
	switch {
	case n.dir:
		return syscall.EISDIR
	case mode&^fallocUnderstands != 0:
		return syscall.EOPNOTSUPP
	}
	end := off + length
	if mode&(FallocPunchHole|FallocZeroRange) != 0 {
		d.rebook(n, func() { n.live.zero(off, length) })
		d.record(n, event{kind: eventZero, off: off, length: length})
	} else {
		was := n.alloc
		// Pages between the old preallocation and off count as taken: engines
		// preallocate from the front.
		d.rebook(n, func() { n.alloc = max(n.alloc, (end+PageSize-1)/PageSize) })
		if d.capacity > 0 && d.used > d.capacity {
			d.rebook(n, func() { n.alloc = was })
			return syscall.ENOSPC
		}
	}
	if before := n.live.size; mode&FallocKeepSize == 0 && end > before {
		n.live.size = end
		d.record(n, event{kind: eventResize, off: end, before: before})
	}
	return 0
}

func (n *Node) allocatedPages() int64 {
	pages := n.alloc
	for i := range n.live.pages {
		if i >= n.alloc {
			pages++
		}
	}
	return pages
}

// rebook keeps the count of used pages over a change of n's allocation.
func (d *Disk) rebook(n *Node, change func()) {
	before := n.allocatedPages()
	change()
	if n.Links > 0 {
		d.used += n.allocatedPages() - before
	}
}
