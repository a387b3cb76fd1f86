// Package oracle says what a file system may hold after a power cut, from the
// operations alone: it knows nothing of how package disk keeps its books. Tests
// of the disk, and of the disk behind the kernel, are checked against it.
package oracle

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/raftbench/raftbench/backends/powercut/disk"
)

// Op is one operation on a file system of files named a to d in the root and in
// the directory "sub".
type Op struct {
	Kind   string // one of Kinds
	Path   string
	To     string // rename, link
	Off    int64  // write, mmap; the size for truncate
	Len    int    // write, mmap
	Fill   byte   // of what is written
	Synced bool   // mmap: msync; write: O_DSYNC; append: O_SYNC
}

// DataOnly says what the sync of a Synced operation is: msync and O_DSYNC are
// fdatasync, O_SYNC is fsync.
func (op Op) DataOnly() bool { return op.Kind != "append" }

// Kinds are the operations; a caller that cannot do one leaves it out.
var Kinds = []string{
	"create", "write", "overwrite", "append", "truncate", "rename", "link", "unlink",
	"mmap", "fsync", "fdatasync", "fsyncdir",
}

// Oracle follows a run and judges what a cut left.
type Oracle struct {
	mode disk.Mode
	// SplitWrites: the kernel cuts writes at page boundaries, so that a cut may
	// fall between the parts.
	SplitWrites bool
	// names is every state of the names since the last moment at which all of
	// them were durable; the last one is live.
	names []map[string]*file
	// history is per name what it has been since it was last durable (strict).
	history map[string][]*file
	// touched are the files and directories that have a part in the journal for
	// sure (ordered): changed since the last sync of anything.
	touched map[any]bool
	fill    byte
}

// file is one inode: every content since the last sync, the live one last.
type file struct {
	contents [][]byte
}

func (f *file) live() []byte { return f.contents[len(f.contents)-1] }

// New is the oracle of an empty file system with the durable directory "sub".
func New(mode disk.Mode) *Oracle {
	return &Oracle{mode: mode, names: []map[string]*file{{}}, history: map[string][]*file{}, touched: map[any]bool{}}
}

func (o *Oracle) live() map[string]*file { return o.names[len(o.names)-1] }

// Next draws an operation that will succeed; ok is false where this kind has no
// object now.
func (o *Oracle) Next(t *rapid.T, kinds []string) (op Op, ok bool) {
	op = Op{Kind: rapid.SampledFrom(kinds).Draw(t, "kind")}
	names := []string{"a", "b", "c", "d", "sub/a", "sub/b"}
	existing := slices.Sorted(maps.Keys(o.live()))
	free := slices.DeleteFunc(slices.Clone(names), func(n string) bool { return o.live()[n] != nil })
	pick := func(from []string, what string) (string, bool) {
		if len(from) == 0 {
			return "", false
		}
		return rapid.SampledFrom(from).Draw(t, what), true
	}
	switch op.Kind {
	case "create":
		op.Path, ok = pick(free, "path")
		return op, ok
	case "fsyncdir":
		op.Path = rapid.SampledFrom([]string{"", "sub"}).Draw(t, "dir")
		return op, true
	}
	if op.Path, ok = pick(existing, "path"); !ok {
		return op, false
	}
	size := int64(len(o.live()[op.Path].live()))
	switch op.Kind {
	case "link":
		op.To, ok = pick(free, "to")
	case "rename":
		op.To = rapid.SampledFrom(names).Draw(t, "to")
		ok = o.live()[op.To] != o.live()[op.Path]
	case "truncate":
		op.Off = rapid.Int64Range(0, 20000).Draw(t, "size")
	case "write", "overwrite", "append", "mmap":
		o.fill++
		op.Fill = o.fill | 1 // never zero
		op.Len = rapid.SampledFrom([]int{1, 100, 512, 3000, 4096, 9000}).Draw(t, "len")
		op.Synced = rapid.IntRange(0, 3).Draw(t, "synced") == 0
		op.Off, ok = o.place(t, op, size)
	}
	return op, ok
}

func (o *Oracle) place(t *rapid.T, op Op, size int64) (int64, bool) {
	switch op.Kind {
	case "append":
		return size, true
	case "write":
		return rapid.Int64Range(0, size+5000).Draw(t, "off"), true
	}
	// A mapping cannot extend the file.
	room := size - int64(op.Len)
	if room < 0 {
		return 0, false
	}
	return rapid.Int64Range(0, room).Draw(t, "off"), true
}

// Done tells the oracle that op succeeded.
func (o *Oracle) Done(op Op) {
	f := o.live()[op.Path]
	switch op.Kind {
	case "create":
		o.rename(func(m map[string]*file) { m[op.Path] = &file{contents: [][]byte{{}}} })
		o.touch(o.live()[op.Path], op.Path)
	case "link":
		o.rename(func(m map[string]*file) { m[op.To] = f })
		o.touch(f, op.To)
	case "rename":
		o.rename(func(m map[string]*file) { delete(m, op.Path); m[op.To] = f })
		o.touch(f, op.Path, op.To)
	case "unlink":
		o.rename(func(m map[string]*file) { delete(m, op.Path) })
		o.touch(f, op.Path)
	case "truncate":
		if op.Off == int64(len(f.live())) {
			return // nothing changes
		}
		c := make([]byte, op.Off)
		copy(c, f.live())
		f.contents = append(f.contents, c)
		o.touch(f)
	case "write", "overwrite", "append", "mmap":
		end := op.Off + int64(op.Len)
		c := make([]byte, max(end, int64(len(f.live()))))
		copy(c, f.live())
		copy(c[op.Off:], bytes.Repeat([]byte{op.Fill}, op.Len))
		f.contents = append(f.contents, c)
		o.touch(f)
		if op.Synced {
			o.synced(f, op.DataOnly())
		}
	case "fsync":
		o.synced(f, false)
	case "fdatasync":
		o.synced(f, true)
	case "fsyncdir":
		o.syncedDir(op.Path)
	}
}

func (o *Oracle) touch(f *file, names ...string) {
	o.touched[f] = true
	for _, name := range names {
		o.touched[dirOf(name)] = true
	}
}

// rename changes the live names.
func (o *Oracle) rename(change func(map[string]*file)) {
	before := o.live()
	after := maps.Clone(before)
	change(after)
	o.names = append(o.names, after)
	for _, m := range []map[string]*file{before, after} {
		for name := range m {
			if before[name] == after[name] {
				continue
			}
			if len(o.history[name]) == 0 {
				o.history[name] = []*file{before[name]}
			}
			if h := o.history[name]; h[len(h)-1] != after[name] {
				o.history[name] = append(h, after[name])
			}
		}
	}
}

// synced makes f's content durable, and in mode ordered the journal, where it is
// sure that f is part of it. A data-only sync may leave the journal alone.
func (o *Oracle) synced(f *file, dataOnly bool) {
	f.contents = f.contents[len(f.contents)-1:]
	if o.mode == disk.Ordered && o.touched[f] && !dataOnly {
		o.commit()
	}
	clear(o.touched)
}

func (o *Oracle) commit() {
	o.names = o.names[len(o.names)-1:]
	clear(o.history)
}

func (o *Oracle) syncedDir(dir string) {
	for name := range o.history {
		if o.mode == disk.Strict && dirOf(name) == dir {
			delete(o.history, name)
		}
	}
	if o.mode == disk.Ordered && o.touched[dir] {
		o.commit()
	}
	clear(o.touched)
}

func dirOf(name string) string {
	dir, _, found := strings.Cut(name, "/")
	if !found {
		return ""
	}
	return dir
}

// Check says what is wrong with the files that a cut left; nil if they are
// allowed. Whatever it finds, the oracle goes on from what was found.
func (o *Oracle) Check(found map[string]Found) error {
	err := o.checkNames(found)
	if err == nil && o.mode == disk.Ordered {
		err = o.checkJournal(found)
	}
	fresh, byID := map[string]*file{}, map[uint64]*file{}
	for name, c := range found {
		if byID[c.ID] == nil {
			byID[c.ID] = &file{contents: [][]byte{c.Content}}
		}
		fresh[name] = byID[c.ID]
	}
	o.names, o.history = []map[string]*file{fresh}, map[string][]*file{}
	clear(o.touched)
	return err
}

func (o *Oracle) checkNames(found map[string]Found) error {
	for name := range found {
		if o.live()[name] == nil && o.history[name] == nil {
			return fmt.Errorf("%s is there, and never was since the last sync", name)
		}
	}
	for _, name := range []string{"a", "b", "c", "d", "sub/a", "sub/b"} {
		may := o.history[name]
		if may == nil {
			may = []*file{o.live()[name]}
		}
		content, there := found[name]
		var why error
		ok := slices.ContainsFunc(may, func(f *file) bool {
			if f == nil || !there {
				return f == nil && !there
			}
			why = o.may(f, content.Content)
			return why == nil
		})
		if !ok {
			return fmt.Errorf("%s (found: %t, %d possible files): %v", name, there, len(may), why)
		}
	}
	return nil
}

// checkJournal demands that the names are as they were at one moment.
func (o *Oracle) checkJournal(found map[string]Found) error {
	for _, m := range o.names {
		same := len(m) == len(found)
		for name, f := range m {
			c, there := found[name]
			same = same && there && o.may(f, c.Content) == nil
		}
		if same {
			return nil
		}
	}
	return fmt.Errorf("the names %v were never together", slices.Sorted(maps.Keys(found)))
}

// may says why content is impossible for f.
func (o *Oracle) may(f *file, content []byte) error {
	least, most, known := len(f.contents[0]), 0, false
	for _, c := range f.contents {
		least, most = min(least, len(c)), max(most, len(c))
		known = known || len(c) == len(content)
	}
	if (o.mode == disk.Ordered || o.SplitWrites) && len(content)%disk.PageSize == 0 {
		known = known || (len(content) >= least && len(content) <= most)
	}
	if !known {
		return fmt.Errorf("size %d: it had %d to %d since its last sync", len(content), least, most)
	}
	for i, b := range content {
		ok := slices.ContainsFunc(f.contents, func(c []byte) bool {
			return i < len(c) && c[i] == b || i >= len(c) && b == 0
		})
		if !ok {
			return fmt.Errorf("byte %d is %#x, which it was at none of %d moments since the last sync", i, b, len(f.contents))
		}
	}
	return nil
}

// Lost reports whether the cut took something that was live: what nobody may
// rely on.
func (o *Oracle) Lost(found map[string]Found) bool {
	if len(found) != len(o.live()) {
		return true
	}
	for name, f := range o.live() {
		if c, there := found[name]; !there || !bytes.Equal(c.Content, f.live()) {
			return true
		}
	}
	return false
}

// Found is a file that a cut left; names with the same ID are links to it.
type Found struct {
	ID      uint64
	Content []byte
}

// Files reads what a disk durably holds.
func Files(d *disk.Disk) map[string]Found {
	found := map[string]Found{}
	d.Walk(func(path string, n *disk.Node) {
		if !n.IsDir() {
			found[path] = Found{n.Ino, n.Content()}
		}
	})
	return found
}
