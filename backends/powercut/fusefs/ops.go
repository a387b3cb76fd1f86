//go:build linux

package fusefs

import (
	"fmt"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/raftbench/raftbench/backends/powercut/disk"
)

// The kernel may keep names and attributes as long as it likes: it sees every
// change.
const cacheTime = time.Hour

// opRename2 is FUSE_RENAME2. In a plain FUSE_RENAME the field Flags is not there:
// go-fuse shows the first bytes of the name in its place.
const opRename2 = 45

// bridge answers the kernel.
type bridge struct {
	fuse.RawFileSystem // ENOSYS for what is not there
	*FS
}

func (f bridge) String() string { return "powercut" }

// node finds what the kernel talks about. The lock is held.
func (f *FS) node(id uint64) *disk.Node {
	if k := f.nodes[id]; k != nil {
		return k.node
	}
	panic(fmt.Sprintf("fusefs: the kernel asks for inode %d, which it forgot", id))
}

// nodeOf is node for callers that do not hold the lock.
func (f *FS) nodeOf(id uint64) *disk.Node {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.node(id)
}

func fillAttr(n *disk.Node, out *fuse.Attr) {
	out.Ino = n.Ino
	out.Nlink = uint32(n.Links)
	out.Mode = syscall.S_IFREG | n.Perm
	if n.IsDir() {
		out.Mode = syscall.S_IFDIR | n.Perm
	}
	out.Size = uint64(n.Size())
	out.Blocks = uint64(n.Allocated() / 512)
	out.Blksize = disk.PageSize
	out.SetTimes(&n.Mtime, &n.Mtime, &n.Mtime)
}

// enter makes a node known to the kernel. The lock is held.
func (f *FS) enter(n *disk.Node, out *fuse.EntryOut) {
	k := f.nodes[n.Ino]
	if k == nil {
		k = &known{node: n}
		f.nodes[n.Ino] = k
	}
	k.lookups++
	out.NodeId = n.Ino
	out.SetEntryTimeout(cacheTime)
	out.SetAttrTimeout(cacheTime)
	fillAttr(n, &out.Attr)
}

func (f bridge) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	if !f.alive() {
		return fuse.EIO
	}
	defer f.mu.Unlock()
	n, errno := f.disk.Lookup(f.node(h.NodeId), name)
	if errno == 0 {
		f.enter(n, out)
	}
	return fuse.Status(errno)
}

func (f bridge) Forget(id, lookups uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := f.nodes[id]
	if k == nil || id == fuse.FUSE_ROOT_ID {
		return
	}
	k.lookups -= min(lookups, k.lookups)
	if k.lookups == 0 {
		delete(f.nodes, id)
	}
}

func (f bridge) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if !f.alive() {
		return fuse.EIO
	}
	defer f.mu.Unlock()
	out.SetTimeout(cacheTime)
	fillAttr(f.node(in.NodeId), &out.Attr)
	return fuse.OK
}

func (f bridge) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	n := f.nodeOf(in.NodeId)
	if size, ok := in.GetSize(); ok {
		st := f.run(call{
			op: OpTruncate, node: n, note: fmt.Sprintf("to %d", size),
			do: func() syscall.Errno { return f.disk.Truncate(n, int64(size)) },
		})
		if !st.Ok() {
			return st
		}
	}
	if !f.alive() {
		return fuse.EIO
	}
	defer f.mu.Unlock()
	if perm, ok := in.GetMode(); ok {
		n.Perm = perm
	}
	if t, ok := in.GetMTime(); ok {
		n.Mtime = t
	}
	out.SetTimeout(cacheTime)
	fillAttr(n, &out.Attr)
	return fuse.OK
}

func (f bridge) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return f.create(in.NodeId, name, in.Mode, true, out)
}

func (f bridge) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return f.create(in.NodeId, name, in.Mode, false, &out.EntryOut)
}

func (f bridge) create(parent uint64, name string, mode uint32, isDir bool, out *fuse.EntryOut) fuse.Status {
	dir := f.nodeOf(parent)
	return f.run(call{op: OpCreate, node: dir, name: name, do: func() syscall.Errno {
		var n *disk.Node
		var errno syscall.Errno
		if isDir {
			n, errno = f.disk.Mkdir(dir, name, mode)
		} else {
			n, errno = f.disk.Create(dir, name, mode)
		}
		if errno == 0 {
			f.enter(n, out)
		}
		return errno
	}})
}

func (f bridge) Unlink(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	dir := f.nodeOf(h.NodeId)
	return f.run(call{op: OpUnlink, node: dir, name: name,
		do: func() syscall.Errno { return f.disk.Unlink(dir, name) }})
}

func (f bridge) Rmdir(_ <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	dir := f.nodeOf(h.NodeId)
	return f.run(call{op: OpUnlink, node: dir, name: name,
		do: func() syscall.Errno { return f.disk.Rmdir(dir, name) }})
}

func (f bridge) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, newName string) fuse.Status {
	var flags uint32
	if in.Opcode == opRename2 {
		flags = in.Flags
	}
	dir, newDir := f.nodeOf(in.NodeId), f.nodeOf(in.Newdir)
	return f.run(call{op: OpRename, node: dir, name: name, note: "to " + newName,
		do: func() syscall.Errno { return f.disk.Rename(dir, name, newDir, newName, flags) }})
}

func (f bridge) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	dir, n := f.nodeOf(in.NodeId), f.nodeOf(in.Oldnodeid)
	return f.run(call{op: OpLink, node: dir, name: name, do: func() syscall.Errno {
		errno := f.disk.Link(n, dir, name)
		if errno == 0 {
			f.enter(n, out)
		}
		return errno
	}})
}

func (f bridge) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.OK }

func (f bridge) Tmpfile(<-chan struct{}, *fuse.CreateIn, *fuse.CreateOut) fuse.Status {
	return fuse.Status(syscall.EOPNOTSUPP)
}

func (f bridge) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return f.run(call{op: OpOpen, node: f.nodeOf(in.NodeId), do: func() syscall.Errno { return 0 }})
}

func (f bridge) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	n := f.nodeOf(in.NodeId)
	var got int
	st := f.run(call{
		op: OpRead, node: n, note: fmt.Sprintf("%d bytes at %d", len(buf), in.Offset),
		do: func() syscall.Errno {
			got = f.disk.Read(n, int64(in.Offset), buf)
			return 0
		},
	})
	return fuse.ReadResultData(buf[:got]), st
}

func (f bridge) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	n := f.nodeOf(in.NodeId)
	off := int64(in.Offset)
	var wrote int
	fromMapping := in.WriteFlags&fuse.WRITE_CACHE != 0
	write := func(part []byte) syscall.Errno {
		var errno syscall.Errno
		wrote, errno = f.disk.Write(n, off, part)
		if errno == 0 && wrote < len(part) && fromMapping {
			// The kernel's FUSE driver would lose the rest without a word, where a
			// disk file system reports that it has no space for it.
			return syscall.ENOSPC
		}
		return errno
	}
	c := call{
		op: OpWrite, node: n, note: fmt.Sprintf("%d bytes at %d", len(data), off),
		do:   func() syscall.Errno { return write(data) },
		torn: func() { f.disk.Write(n, off, data[:f.tear(off, len(data))]) },
	}
	if !fromMapping && len(data) > 1 { // for the same reason
		c.short = func() syscall.Errno { return write(data[:len(data)/2]) }
	}
	st := f.run(c)
	return uint32(wrote), st
}

// tear says how much of a write has happened when the power fails inside: whole
// pages, because a page is locked against being written back while data is copied
// into it.
func (f *FS) tear(off int64, length int) int {
	first := int(disk.PageSize - off%disk.PageSize) // of the first page
	if length <= first {
		return 0
	}
	return first + f.dice.IntN((length-first)/disk.PageSize+1)*disk.PageSize
}

func (f bridge) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	n := f.nodeOf(in.NodeId)
	return f.run(call{
		op: OpAllocate, node: n, note: fmt.Sprintf("%d bytes at %d, mode %#x", in.Length, in.Offset, in.Mode),
		do: func() syscall.Errno {
			return f.disk.Fallocate(n, in.Mode, int64(in.Offset), int64(in.Length))
		},
	})
}

// Flush comes with every close and promises nothing.
func (f bridge) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status {
	if !f.alive() {
		return fuse.EIO
	}
	f.mu.Unlock()
	return fuse.OK
}

func (f bridge) Release(<-chan struct{}, *fuse.ReleaseIn) {}

func (f bridge) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n := f.nodeOf(in.NodeId)
	dataOnly, note := in.FsyncFlags&1 != 0, ""
	if dataOnly {
		note = "data only"
	}
	return f.run(call{op: OpFsync, node: n, note: note, do: func() syscall.Errno {
		f.disk.Fsync(n, dataOnly)
		return 0
	}})
}

func (f bridge) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	n := f.nodeOf(in.NodeId)
	return f.run(call{op: OpFsyncDir, node: n, do: func() syscall.Errno {
		f.disk.FsyncDir(n)
		return 0
	}})
}

func (f bridge) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if !f.alive() {
		return fuse.EIO
	}
	defer f.mu.Unlock()
	f.nextFh++
	out.Fh = f.nextFh
	f.listing[out.Fh] = f.node(in.NodeId).Names()
	return fuse.OK
}

func (f bridge) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	if !f.alive() {
		return fuse.EIO
	}
	defer f.mu.Unlock()
	dir := f.node(in.NodeId)
	if in.Offset == 0 {
		f.listing[in.Fh] = dir.Names() // also after rewinddir
	}
	names := f.listing[in.Fh]
	for i := int(in.Offset); i < len(names); i++ {
		n, errno := f.disk.Lookup(dir, names[i])
		if errno != 0 {
			continue
		}
		mode := uint32(syscall.S_IFREG)
		if n.IsDir() {
			mode = syscall.S_IFDIR
		}
		if !out.AddDirEntry(fuse.DirEntry{Name: names[i], Ino: n.Ino, Mode: mode, Off: uint64(i + 1)}) {
			break
		}
	}
	return fuse.OK
}

func (f bridge) ReleaseDir(in *fuse.ReleaseIn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.listing, in.Fh)
}

func (f bridge) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if !f.alive() {
		return fuse.EIO
	}
	defer f.mu.Unlock()
	capacity := f.disk.Capacity()
	if capacity == 0 {
		capacity = 1 << 40
	}
	out.Bsize, out.Frsize, out.NameLen = disk.PageSize, disk.PageSize, 255
	out.Blocks = uint64(capacity / disk.PageSize)
	out.Bfree = uint64(max(0, capacity-f.disk.Used()) / disk.PageSize)
	out.Bavail = out.Bfree
	out.Files, out.Ffree = 1<<20, 1<<20
	return fuse.OK
}
