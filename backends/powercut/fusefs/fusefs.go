//go:build linux

// Package fusefs mounts a [disk.Disk] with FUSE and lets it die or misbehave.
//
// Every system call on the mount becomes an operation on the disk, under one
// lock. Written data reaches the disk at once (the kernel's write-back cache is
// off), so that what is pending there is what an application wrote and did not
// sync; pages dirtied through a shared mapping arrive when the kernel writes them
// back, at msync at the latest. O_DSYNC and O_SYNC arrive as a write and a sync.
//
// A process must not map files of a mount that it serves itself: a page fault
// holds a thread that the garbage collector waits for, while the server that
// could answer the fault waits for the collector. Package powercut runs engines
// in a process of their own.
package fusefs

import (
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/raftbench/raftbench/backends/powercut/disk"
)

// Op is a kind of operation, as faults and cuts name it.
type Op uint8

// The kinds. Those from OpWrite on change the disk and are counted.
const (
	OpAny Op = iota // of those that are counted
	OpOpen
	OpRead
	OpWrite
	OpFsync    // fsync, fdatasync, msync, and the sync of an O_DSYNC write
	OpFsyncDir // fsync of a directory
	OpCreate   // of a file or directory
	OpRename
	OpUnlink // of a file or directory
	OpLink
	OpTruncate
	OpAllocate // fallocate
	numOps
)

var opNames = [numOps]string{
	"any", "open", "read", "write", "fsync", "fsyncdir", "create", "rename", "unlink", "link", "truncate", "fallocate",
}

func (o Op) String() string { return opNames[o] }

// ParseOp is the inverse of Op.String.
func ParseOp(name string) (Op, error) {
	if i := slices.Index(opNames[:], name); i >= 0 {
		return Op(i), nil
	}
	return 0, fmt.Errorf("unknown operation %q; known: %s", name, strings.Join(opNames[:], ", "))
}

// Trigger says when the device dies: inside the operation that is Then after the
// Nth one of kind Op, both counted from the mount, or inside operation Most,
// whichever comes first. The zero Trigger never fires.
type Trigger struct {
	Op   Op
	N    int // from 1; 0 is never
	Then int
	Most int // 0 is never
	// Pending counts operations of kind Op only while a cut could take so many
	// bytes of data at least.
	Pending int64
}

func (t Trigger) String() string {
	if t.N == 0 && t.Most == 0 {
		return "never"
	}
	s := fmt.Sprintf("inside %s #%d", t.Op, t.N)
	if t.Then > 0 {
		s = fmt.Sprintf("%d operations after %s #%d", t.Then, t.Op, t.N)
	}
	if t.Pending > 0 {
		s += fmt.Sprintf(" with %d bytes unsynced", t.Pending)
	}
	return s + fmt.Sprintf(", at the latest operation #%d", t.Most)
}

// Fault is what goes wrong with operations of one kind.
type Fault struct {
	Op Op
	// Match chooses by the path below the mount point; nil is every path.
	Match func(path string) bool
	Skip  int // operations that match and go well first
	Times int // operations that fail then; 0 is all of them
	// Err is returned instead of doing it. A sync that fails loses the data that
	// it should have written, see disk.FailSync.
	Err syscall.Errno
	// Short makes a write store its first half only.
	Short bool
	// Delay comes before it.
	Delay time.Duration
	// Fatal, if not 0, makes the device die inside the operation so many after
	// this one, of those that are counted.
	Fatal int
}

// Options are what Mount needs; the zero value is a new disk in mode strict.
type Options struct {
	Disk *disk.Disk // to mount; a new one of Mode if nil
	Mode disk.Mode  // of a new disk
	Seed int64      // of what happens to the operation that a cut falls into
	// Attach, if not nil, runs mount and unmount calls, on a thread in another
	// mount namespace for example.
	Attach func(func() error) error
}

// FS is a mounted disk.
type FS struct {
	dir    string
	attach func(func() error) error
	server *fuse.Server

	mu      sync.Mutex
	disk    *disk.Disk
	nodes   map[uint64]*known
	listing map[uint64][]string // of open directories
	nextFh  uint64
	dice    *rand.Rand
	counts  [numOps]int
	trigger Trigger
	hits    int // operations that the trigger counts
	after   int // operations since the trigger's Nth
	faults  []*injected
	trace   trace

	dead     bool
	died     chan struct{}
	released chan struct{} // the dead device answers (EIO)
	once     sync.Once     // closes released
}

// known is an inode that the kernel remembers.
type known struct {
	node    *disk.Node
	lookups uint64
}

type injected struct {
	Fault
	seen, fired int
}

// Mount serves a disk at dir, which must exist. Root only.
func Mount(dir string, opts Options) (*FS, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if opts.Mode == "" {
		opts.Mode = disk.Strict
	}
	if opts.Disk == nil {
		opts.Disk = disk.New(opts.Mode)
	}
	if opts.Attach == nil {
		opts.Attach = func(f func() error) error { return f() }
	}
	f := &FS{
		dir:      dir,
		attach:   opts.Attach,
		disk:     opts.Disk,
		nodes:    map[uint64]*known{fuse.FUSE_ROOT_ID: {node: opts.Disk.Root(), lookups: 1}},
		listing:  map[uint64][]string{},
		dice:     rand.New(rand.NewPCG(uint64(opts.Seed), 1)),
		died:     make(chan struct{}),
		released: make(chan struct{}),
	}
	err = f.attach(f.mount)
	if err != nil {
		return nil, fmt.Errorf("mount a fuse file system at %s: %w", dir, err)
	}
	return f, nil
}

// maxWrite is the most that one WRITE carries, in bytes; larger ones are split by
// the kernel, and a cut may fall between the parts.
const maxWrite = 256 << 10

func (f *FS) mount() error {
	server, err := fuse.NewServer(bridge{fuse.NewDefaultRawFileSystem(), f}, f.dir, &fuse.MountOptions{
		FsName: "raftbench-powercut", Name: "powercut",
		DirectMountStrict: true, DisableXAttrs: true, DisableReadDirPlus: true,
		// Nobody else changes the disk, so the kernel need not doubt its cache.
		ExplicitDataCacheControl: true,
		MaxWrite:                 maxWrite,
		Logger:                   log.New(io.Discard, "", 0),
	})
	if err != nil {
		return err
	}
	f.server = server
	go server.Serve()
	return server.WaitMount()
}

// Available says why a mount is impossible here; nil if it is possible.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("mounting a FUSE file system directly needs root")
	}
	file, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("FUSE is not available: %w", err)
	}
	return file.Close()
}

// Dir is the mount point.
func (f *FS) Dir() string { return f.dir }

// Unmount ends the mount, waits for the last request, which is when every process
// has closed what it had open, and returns the disk as it is.
func (f *FS) Unmount() (*disk.Disk, error) {
	if err := f.Detach(); err != nil {
		return nil, err
	}
	f.server.Wait()
	return f.disk, nil
}

// Detach takes the mount away and goes on serving those who have files open.
func (f *FS) Detach() error {
	err := f.attach(func() error { return unix.Unmount(f.dir, unix.MNT_DETACH) })
	if err != nil {
		return fmt.Errorf("unmount %s: %w", f.dir, err)
	}
	return nil
}

// Arm sets when the device dies.
func (f *FS) Arm(t Trigger) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trigger = t
}

// Inject makes operations go wrong from now on, and returns a function that says
// how many did.
func (f *FS) Inject(fault Fault) (fired func() int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	in := &injected{Fault: fault}
	f.faults = append(f.faults, in)
	return func() int {
		f.mu.Lock()
		defer f.mu.Unlock()
		return in.fired
	}
}

// Heal ends every fault.
func (f *FS) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// Fill leaves free bytes of space on the disk.
func (f *FS) Fill(free int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disk.SetCapacity(f.disk.Used() + free)
}

// Died is closed when the device dies. Operations hang from then on until
// Release.
func (f *FS) Died() <-chan struct{} { return f.died }

// Release makes a dead device answer: EIO, to everything. It is called when the
// processes that wait have been killed, so that none of them acts on the answer.
func (f *FS) Release() { f.once.Do(func() { close(f.released) }) }

// Kill makes the device die between two operations.
func (f *FS) Kill() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.die()
}

func (f *FS) die() {
	if !f.dead {
		f.dead = true
		close(f.died)
	}
}

// Cut kills the device, answers EIO from now on, and returns what a fresh mount
// will find. The mount itself stays until Unmount.
func (f *FS) Cut(seed int64) *disk.Disk {
	f.Kill()
	f.Release()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.disk.Cut(seed)
}

// Lose is Cut, and nothing survives that was not durable.
func (f *FS) Lose() *disk.Disk {
	f.Kill()
	f.Release()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.disk.Lose()
}

// Ops is how many operations of a kind there have been.
func (f *FS) Ops(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counts[op]
}

// alive takes the lock, unless the device is dead: then it waits for Release and
// says no.
func (f *FS) alive() bool {
	f.mu.Lock()
	if !f.dead {
		return true
	}
	f.mu.Unlock()
	<-f.released
	return false
}

// call describes one operation to run.
type call struct {
	op   Op
	node *disk.Node // what it is about, for its path
	name string     // below node
	note string
	do   func() syscall.Errno
	// torn does a part of it, and reports whether it could: the power fails
	// inside. nil where there is no inside.
	torn func()
	// short does a part of it and returns success.
	short func() syscall.Errno
}

// run does c with all that can happen to it.
func (f *FS) run(c call) fuse.Status {
	if !f.alive() {
		return fuse.EIO
	}
	path := c.node.Path()
	if c.name != "" {
		path = filepath.Join(path, c.name)
	}
	fault := f.match(c.op, path)
	if fault != nil && fault.Delay > 0 {
		f.mu.Unlock()
		select {
		case <-time.After(fault.Delay):
		case <-f.died:
		}
		if !f.alive() {
			return fuse.EIO
		}
	}
	if f.fires(c.op) {
		f.cutInside(c, path)
		f.mu.Unlock()
		<-f.released
		return fuse.EIO
	}
	defer f.mu.Unlock()
	var errno syscall.Errno
	switch {
	case fault != nil && fault.Err != 0:
		errno = fault.Err
		if c.op == OpFsync {
			f.disk.FailSync(c.node)
		}
	case fault != nil && fault.Short && c.short != nil:
		errno = c.short()
	default:
		errno = c.do()
	}
	f.trace.add(record{f.counts[OpAny], c.op, path, c.note, errno, fault != nil, false})
	return fuse.Status(errno)
}

// cutInside kills the device in the middle of c: it happened, did not, or
// happened in part.
func (f *FS) cutInside(c call, path string) {
	switch f.dice.IntN(3) {
	case 0:
		c.do()
	case 1:
		if c.torn != nil {
			c.torn()
		}
	}
	f.trace.add(record{f.counts[OpAny], c.op, path, c.note, 0, false, true})
	f.die()
}

// fires counts an operation and reports whether the device dies in it.
func (f *FS) fires(op Op) bool {
	if op < OpWrite {
		return false
	}
	f.counts[OpAny]++
	f.counts[op]++
	if f.trigger.Most > 0 && f.counts[OpAny] >= f.trigger.Most {
		return true
	}
	if f.trigger.N == 0 {
		return false
	}
	if f.trigger.Op == OpAny || f.trigger.Op == op {
		if _, pending, _ := f.disk.Unsynced(); pending >= f.trigger.Pending {
			f.hits++
		}
	}
	if f.hits < f.trigger.N {
		return false
	}
	f.after++
	return f.after > f.trigger.Then
}

// match finds the fault that strikes this operation.
func (f *FS) match(op Op, path string) *Fault {
	for _, in := range f.faults {
		if in.Op != op || (in.Match != nil && !in.Match(path)) {
			continue
		}
		in.seen++
		if in.seen <= in.Skip || (in.Times > 0 && in.fired >= in.Times) {
			continue
		}
		in.fired++
		if in.Fatal > 0 {
			f.trigger = Trigger{N: 1, Then: in.Fatal}
		}
		return &in.Fault
	}
	return nil
}
