package disk_test

import (
	"bytes"
	"fmt"
	"syscall"
	"testing"

	"github.com/raftbench/raftbench/backends/powercut/disk"
	"github.com/raftbench/raftbench/backends/powercut/internal/oracle"
)

// page is a page of b.
func page(b byte) []byte { return bytes.Repeat([]byte{b}, disk.PageSize) }

// state renders what a disk holds, one character a page, for comparison.
func state(d *disk.Disk) string {
	s := ""
	d.Walk(func(path string, n *disk.Node) {
		if n.IsDir() {
			return
		}
		s += path + "="
		c := n.Content()
		for len(c) > 0 {
			p := c[:min(disk.PageSize, len(c))]
			c = c[len(p):]
			switch {
			case bytes.Count(p, p[:1]) != len(p):
				s += "~" // torn
			case p[0] == 0:
				s += "0"
			default:
				s += string(p[0])
			}
		}
		s += " "
	})
	return s
}

// step is what is done to a disk before its power is cut.
type step func(t *testing.T, d *disk.Disk)

func create(name string) step {
	return func(t *testing.T, d *disk.Disk) {
		if _, errno := d.Create(d.Root(), name, 0o644); errno != 0 {
			t.Fatal(errno)
		}
	}
}

func write(name string, off int64, b byte) step {
	return func(t *testing.T, d *disk.Disk) { d.Write(find(t, d, name), off, page(b)) }
}

func fsync(name string) step {
	return func(t *testing.T, d *disk.Disk) { d.Fsync(find(t, d, name), false) }
}

func fdatasync(name string) step {
	return func(t *testing.T, d *disk.Disk) { d.Fsync(find(t, d, name), true) }
}

func rename(from, to string) step {
	return func(t *testing.T, d *disk.Disk) { d.Rename(d.Root(), from, d.Root(), to, 0) }
}

func unlink(name string) step {
	return func(t *testing.T, d *disk.Disk) { d.Unlink(d.Root(), name) }
}

func truncate(name string, size int64) step {
	return func(t *testing.T, d *disk.Disk) { d.Truncate(find(t, d, name), size) }
}

func dirsync(_ *testing.T, d *disk.Disk) { d.FsyncDir(d.Root()) }

// promises lists, for a disk where the file "old" holds the page O and "new" does not
// exist, what each sequence of steps may leave.
var promises = []struct {
	name  string
	steps []step
	// The states that some seeds lead to, all of them.
	strict, ordered []string
}{
	{
		"overwrite", []step{write("old", 0, 'N')},
		[]string{"old=O ", "old=N ", "old=~ "}, []string{"old=O ", "old=N ", "old=~ "},
	},
	{
		"overwrite, fdatasync", []step{write("old", 0, 'N'), fdatasync("old")},
		[]string{"old=N "}, []string{"old=N "},
	},
	{
		// Strict: the size may survive without the data.
		"append", []step{write("old", disk.PageSize, 'N')},
		[]string{"old=O ", "old=ON ", "old=O0 ", "old=O~ "}, []string{"old=O ", "old=ON "},
	},
	{
		"truncate", []step{truncate("old", 0)},
		[]string{"old=O ", "old= "}, []string{"old=O ", "old= "},
	},
	{
		"create, write, fsync: the name is not durable in strict",
		[]step{create("new"), write("new", 0, 'N'), fsync("new")},
		[]string{"old=O ", "new=N old=O "}, []string{"new=N old=O "},
	},
	{
		"create, write, fsync, fsync the directory",
		[]step{create("new"), write("new", 0, 'N'), fsync("new"), dirsync},
		[]string{"new=N old=O "}, []string{"new=N old=O "},
	},
	{
		"create, write, fsync the directory: the data is not durable",
		[]step{create("new"), write("new", 0, 'N'), dirsync},
		[]string{"new= old=O ", "new=0 old=O ", "new=~ old=O ", "new=N old=O "},
		[]string{"new= old=O ", "new=N old=O "},
	},
	{
		"write a new file, rename it over the old one",
		[]step{create("new"), write("new", 0, 'N'), fsync("new"), rename("new", "old")},
		[]string{"old=O ", "new=N old=O ", "old=N "}, []string{"new=N old=O ", "old=N "},
	},
	{
		// Ordered: auto_da_alloc takes the data along.
		"rename over the old one without fsync, fsync the directory",
		[]step{create("new"), write("new", 0, 'N'), rename("new", "old"), dirsync},
		[]string{"old= ", "old=0 ", "old=~ ", "old=N "}, []string{"old=N "},
	},
	{
		"rename over the old one without fsync",
		[]step{create("new"), write("new", 0, 'N'), rename("new", "old")},
		[]string{"old=O ", "new= old=O ", "new=0 old=O ", "new=~ old=O ", "new=N old=O ", "old= ", "old=0 ", "old=~ ", "old=N "},
		[]string{"old=O ", "new= old=O ", "new=N old=O ", "old=N "},
	},
	{
		// Blocks written after a truncation belong to the new extent: they are
		// not there without the truncation.
		"truncate and write again",
		[]step{write("old", disk.PageSize, 'O'), fsync("old"), truncate("old", 0), write("old", 0, 'N')},
		[]string{"old=OO ", "old= ", "old=0 ", "old=~ ", "old=N "},
		[]string{"old=OO ", "old= ", "old=N "},
	},
	{
		"rename twice", []step{rename("old", "x"), rename("x", "y")},
		[]string{"old=O ", "x=O ", "y=O "}, []string{"old=O ", "x=O ", "y=O "},
	},
	{
		"create, fdatasync", []step{create("new"), fdatasync("new")},
		[]string{"old=O ", "new= old=O "}, []string{"new= old=O "},
	},
	{
		"unlink", []step{unlink("old")},
		[]string{"", "old=O "}, []string{"", "old=O "},
	},
	{
		"unlink, fsync the directory", []step{unlink("old"), dirsync},
		[]string{""}, []string{""},
	},
	{
		// fsync of a plain overwrite commits the journal (the times of the inode
		// change), fdatasync does not.
		"unlink in the wake of another file's fsync",
		[]step{create("new"), dirsync, write("new", 0, 'A'), fsync("new"), unlink("old"), write("new", 0, 'N'), fsync("new")},
		[]string{"new=N ", "new=N old=O "}, []string{"new=N "},
	},
	{
		"unlink in the wake of another file's fdatasync",
		[]step{create("new"), dirsync, write("new", 0, 'A'), fsync("new"), unlink("old"), write("new", 0, 'N'), fdatasync("new")},
		[]string{"new=N ", "new=N old=O "}, []string{"new=N ", "new=N old=O "},
	},
	{
		// An append changes the size, which fdatasync commits, and with it the
		// journal.
		"unlink in the wake of another file's append and fdatasync",
		[]step{create("new"), dirsync, write("new", 0, 'A'), fsync("new"), unlink("old"), write("new", disk.PageSize, 'N'), fdatasync("new")},
		[]string{"new=AN ", "new=AN old=O "}, []string{"new=AN "},
	},
}

// TestPromises: of every promise, some seed leads to each of its states, and none to
// another.
func TestPromises(t *testing.T) {
	for _, c := range promises {
		for mode, want := range map[disk.Mode][]string{disk.Strict: c.strict, disk.Ordered: c.ordered} {
			t.Run(fmt.Sprintf("%s/%s", mode, c.name), func(t *testing.T) {
				d := disk.New(mode)
				create("old")(t, d)
				write("old", 0, 'O')(t, d)
				d.SyncAll()
				for _, s := range c.steps {
					s(t, d)
				}
				seen := map[string]bool{}
				for seed := range int64(300) {
					seen[state(d.Cut(seed))] = true
				}
				for _, w := range want {
					if !seen[w] {
						t.Errorf("no seed leads to %q", w)
					}
					delete(seen, w)
				}
				for s := range seen {
					t.Errorf("a seed leads to %q, which is not allowed", s)
				}
			})
		}
	}
}

// TestAppendWithinAPage: a new size is metadata although no block is, so that
// fdatasync commits the journal.
func TestAppendWithinAPage(t *testing.T) {
	d := newDisk(t, disk.Ordered)
	n, _ := d.Create(d.Root(), "f", 0o644)
	d.Write(n, 0, []byte("A"))
	d.SyncAll()
	if _, errno := d.Create(d.Root(), "g", 0o644); errno != 0 {
		t.Fatal(errno)
	}
	d.Write(n, 1, []byte("B"))
	d.Fsync(n, true)
	after := d.Lose()
	if _, errno := after.Lookup(after.Root(), "g"); errno != 0 {
		t.Errorf("the name created before is lost: %v", errno)
	}
}

// TestSectorsKeepTheirOrder: a page cache writes whole sectors back, so the
// second write to one never survives without the first.
func TestSectorsKeepTheirOrder(t *testing.T) {
	for _, mode := range []disk.Mode{disk.Strict, disk.Ordered} {
		d := newDisk(t, mode)
		n, _ := d.Create(d.Root(), "f", 0o644)
		d.Write(n, 0, page('O'))
		d.SyncAll()
		d.Write(n, 0, bytes.Repeat([]byte("A"), 100))
		d.Write(n, 100, bytes.Repeat([]byte("B"), 100))
		seen := map[string]bool{}
		for seed := range int64(300) {
			c := find(t, d.Cut(seed), "f").Content()
			seen[string([]byte{c[0], c[100]})] = true
		}
		if !seen["OO"] || !seen["AO"] || !seen["AB"] || len(seen) != 3 {
			t.Errorf("%s: found %v, want OO, AO and AB", mode, seen)
		}
	}
}

// TestCutIsRepeatable: the same seed takes the same things.
func TestCutIsRepeatable(t *testing.T) {
	d := newDisk(t, disk.Strict)
	for i := range 20 {
		n, errno := d.Create(d.Root(), fmt.Sprint(i), 0o644)
		if errno != 0 {
			t.Fatal(errno)
		}
		d.Write(n, 0, bytes.Repeat([]byte{byte(i + 1)}, 20000))
	}
	for seed := range int64(20) {
		a, b := d.Cut(seed), d.Cut(seed)
		if state(a) != state(b) {
			t.Fatalf("seed %d: %s and %s", seed, state(a), state(b))
		}
	}
}

// TestCutLeavesTheOldDiskAlone: pages are shared, so writes to either must not
// show in the other.
func TestCutLeavesTheOldDiskAlone(t *testing.T) {
	d := newDisk(t, disk.Strict)
	n, _ := d.Create(d.Root(), "f", 0o644)
	d.Write(n, 0, page('A'))
	d.SyncAll()
	next := d.Cut(1)
	d.Write(n, 0, page('B'))
	m := find(t, next, "f")
	next.Write(m, 100, []byte("C"))
	next.SyncAll()
	if got := m.Content(); got[0] != 'A' || got[100] != 'C' {
		t.Errorf("the new disk reads %q, %q", got[0], got[100])
	}
	d.SyncAll()
	if got := n.Content(); got[0] != 'B' || got[100] != 'B' {
		t.Errorf("the old disk reads %q, %q", got[0], got[100])
	}
}

// TestFailedSync: what a failed sync dropped, no later sync brings back, unless
// the page is written again; reads show it until the cut.
func TestFailedSync(t *testing.T) {
	d := newDisk(t, disk.Ordered)
	n, _ := d.Create(d.Root(), "f", 0o644)
	d.Write(n, 0, append(page('A'), page('A')...))
	d.SyncAll()
	d.Write(n, 0, append(page('B'), page('B')...))
	d.FailSync(n)
	d.Fsync(n, false)
	var buf [2 * disk.PageSize]byte
	d.Read(n, 0, buf[:])
	if buf[0] != 'B' || buf[disk.PageSize] != 'B' {
		t.Errorf("reads show %q, %q, want B", buf[0], buf[disk.PageSize])
	}
	if s := state(d.Cut(1)); s != "f=AA " {
		t.Errorf("after a failed sync and a good one: %s, want f=AA", s)
	}
	d.Write(n, 0, []byte("B"))
	d.Fsync(n, false)
	if s := state(d.Cut(1)); s != "f=BA " {
		t.Errorf("after the first page was touched again: %s, want f=BA", s)
	}
}

// TestOpenUnlinkedFile: a file without a name takes writes and syncs and is gone
// after the cut.
func TestOpenUnlinkedFile(t *testing.T) {
	d := newDisk(t, disk.Strict)
	n, _ := d.Create(d.Root(), "f", 0o644)
	d.SyncAll()
	d.Unlink(d.Root(), "f")
	d.FsyncDir(d.Root())
	d.Write(n, 0, page('A'))
	d.Fsync(n, false)
	if s := state(d.Cut(1)); s != "" {
		t.Errorf("a removed file is back: %s", s)
	}
	if d.Used() != 0 {
		t.Errorf("%d bytes in use", d.Used())
	}
}

func TestCapacity(t *testing.T) {
	d := newDisk(t, disk.Strict)
	d.SetCapacity(4 * disk.PageSize)
	n, _ := d.Create(d.Root(), "f", 0o644)
	if errno := d.Fallocate(n, 0, 0, 3*disk.PageSize); errno != 0 {
		t.Fatal(errno)
	}
	if wrote, errno := d.Write(n, 0, make([]byte, 3*disk.PageSize)); wrote != 3*disk.PageSize || errno != 0 {
		t.Fatalf("preallocated space: wrote %d, %v", wrote, errno)
	}
	if wrote, errno := d.Write(n, 3*disk.PageSize-10, make([]byte, 2*disk.PageSize)); wrote != 10+disk.PageSize || errno != 0 {
		t.Errorf("at the end of the disk: wrote %d, %v", wrote, errno)
	}
	if _, errno := d.Write(n, 4*disk.PageSize, []byte("x")); errno != syscall.ENOSPC {
		t.Errorf("on a full disk: %v", errno)
	}
	if errno := d.Fallocate(n, 0, 0, 5*disk.PageSize); errno != syscall.ENOSPC {
		t.Errorf("preallocation on a full disk: %v", errno)
	}
	d.Truncate(n, disk.PageSize)
	if d.Used() != disk.PageSize {
		t.Errorf("%d bytes in use after the truncation", d.Used())
	}
	if _, errno := d.Write(n, 4*disk.PageSize, []byte("x")); errno != 0 {
		t.Errorf("after the truncation: %v", errno)
	}
	other, _ := d.Create(d.Root(), "other", 0o644)
	d.Write(other, 0, page('A'))
	d.Rename(d.Root(), "other", d.Root(), "f", 0)
	if d.Used() != disk.PageSize {
		t.Errorf("%d bytes in use after a rename over the file", d.Used())
	}
	// The count is the same when it is made anew.
	d.SyncAll()
	if next := d.Cut(1); next.Used() != d.Used() {
		t.Errorf("%d bytes in use, %d after the cut", d.Used(), next.Used())
	}
}

func TestFlip(t *testing.T) {
	d := newDisk(t, disk.Strict)
	n, _ := d.Create(d.Root(), "f", 0o644)
	d.Write(n, 0, page('A'))
	d.SyncAll()
	flipped := d.Cut(0)
	path, off, ok := flipped.Flip(7, func(string) bool { return true })
	if !ok || path != "f" {
		t.Fatalf("flipped %q, %t", path, ok)
	}
	got := find(t, flipped, "f").Content()
	for i, b := range got {
		if (b != 'A') != (int64(i) == off) {
			t.Errorf("byte %d is %q; the flip was at %d", i, b, off)
		}
	}
	if !bytes.Equal(n.Content(), page('A')) {
		t.Error("the original changed")
	}
	if _, _, ok := flipped.Flip(7, func(string) bool { return false }); ok {
		t.Error("a flip in no file")
	}
}

func TestDumpAndLoad(t *testing.T) {
	d := newDisk(t, disk.Ordered)
	n, _ := d.Create(find(t, d, "sub"), "f", 0o644)
	d.Write(n, 3*disk.PageSize, []byte("tail"))
	d.Truncate(n, 10*disk.PageSize+1)
	d.SyncAll()
	dir := t.TempDir()
	if err := d.Dump(dir); err != nil {
		t.Fatal(err)
	}
	back, err := disk.Load(disk.Ordered, dir)
	if err != nil {
		t.Fatal(err)
	}
	want, got := oracle.Files(d), oracle.Files(back)
	if len(got) != 1 || !bytes.Equal(got["sub/f"].Content, want["sub/f"].Content) {
		t.Errorf("%d files came back, or another content", len(got))
	}
	if files, bytes, names := back.Unsynced(); files+names != 0 || bytes != 0 {
		t.Error("what was loaded is not durable")
	}
}
