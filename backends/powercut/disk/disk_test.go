package disk_test

import (
	"bytes"
	"path"
	"slices"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/raftbench/raftbench/backends/powercut/disk"
	"github.com/raftbench/raftbench/backends/powercut/internal/oracle"
)

// TestAgainstOracle runs random operations and cuts, generation after
// generation, on the disk alone.
func TestAgainstOracle(t *testing.T) {
	for _, mode := range []disk.Mode{disk.Strict, disk.Ordered} {
		t.Run(string(mode), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				d := newDisk(t, mode)
				o := oracle.New(mode)
				for range rapid.IntRange(1, 4).Draw(t, "generations") {
					for range rapid.IntRange(1, 40).Draw(t, "ops") {
						if op, ok := o.Next(t, oracle.Kinds); ok {
							apply(t, d, op)
							o.Done(op)
						}
					}
					d = d.Cut(rapid.Int64().Draw(t, "seed"))
					if err := o.Check(oracle.Files(d)); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

func newDisk(t fataler, mode disk.Mode) *disk.Disk {
	t.Helper()
	d := disk.New(mode)
	if _, errno := d.Mkdir(d.Root(), "sub", 0o755); errno != 0 {
		t.Fatalf("mkdir: %v", errno)
	}
	d.SyncAll()
	return d
}

func find(t fataler, d *disk.Disk, p string) *disk.Node {
	t.Helper()
	n := d.Root()
	for p != "" {
		var first string
		first, p, _ = cut(p)
		next, errno := d.Lookup(n, first)
		if errno != 0 {
			t.Fatalf("lookup %s: %v", first, errno)
		}
		n = next
	}
	return n
}

func cut(p string) (first, rest string, found bool) {
	if i := slices.Index([]byte(p), '/'); i >= 0 {
		return p[:i], p[i+1:], true
	}
	return p, "", false
}

func parent(t fataler, d *disk.Disk, p string) (*disk.Node, string) {
	t.Helper()
	dir, name := path.Split(p)
	return find(t, d, path.Clean("/" + dir)[1:]), name
}

func apply(t fataler, d *disk.Disk, op oracle.Op) {
	t.Helper()
	var errno syscall.Errno
	switch op.Kind {
	case "create":
		dir, name := parent(t, d, op.Path)
		_, errno = d.Create(dir, name, 0o644)
	case "link":
		dir, name := parent(t, d, op.To)
		errno = d.Link(find(t, d, op.Path), dir, name)
	case "rename":
		dir, name := parent(t, d, op.Path)
		newDir, newName := parent(t, d, op.To)
		errno = d.Rename(dir, name, newDir, newName, 0)
	case "unlink":
		dir, name := parent(t, d, op.Path)
		errno = d.Unlink(dir, name)
	case "truncate":
		errno = d.Truncate(find(t, d, op.Path), op.Off)
	case "write", "overwrite", "append", "mmap":
		n := find(t, d, op.Path)
		_, errno = d.Write(n, op.Off, bytes.Repeat([]byte{op.Fill}, op.Len))
		if op.Synced {
			d.Fsync(n, op.DataOnly())
		}
	case "fsync":
		d.Fsync(find(t, d, op.Path), false)
	case "fdatasync":
		d.Fsync(find(t, d, op.Path), true)
	case "fsyncdir":
		d.FsyncDir(find(t, d, op.Path))
	}
	if errno != 0 {
		t.Fatalf("%+v: %v", op, errno)
	}
}
