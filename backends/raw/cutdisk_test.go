package raw

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends/internal/snapfile"
)

var (
	errDead  = errors.New("the power is cut")
	errFault = errors.New("injected fault")
)

// cutDisk is a disk in memory that keeps what is durable apart from what was
// only written. Its power can be cut at any step; cut then leaves what was
// durable and of the rest a random part: of data any set of sectors, of names
// any set of changes. It is as strict as a POSIX file system may be.
type cutDisk struct {
	mu      sync.Mutex
	rnd     *rand.Rand
	sector  int
	names   map[string]*inode
	durable map[string]*inode
	changes []nameChange // since the last syncNames
	steps   int
	dieAt   int // the step that does not return; 0 for none
	faultAt int // the step that fails and changes nothing; 0 for none
	dead    bool
}

type inode struct {
	data    []byte // as read back
	durable []byte
	writes  []pendingWrite
	snap    *raftpb.Snapshot // instead of data; durable, if its name is
}

type pendingWrite struct {
	off  int
	data []byte
}

// nameChange is a file that was created (from is ""), renamed, or removed (to
// is "").
type nameChange struct {
	from, to string
	node     *inode
}

func newCutDisk(seed uint64, sector int) *cutDisk {
	return &cutDisk{rnd: rand.New(rand.NewPCG(seed, 1)), sector: sector,
		names: map[string]*inode{}, durable: map[string]*inode{}}
}

// step counts one operation that changes the disk. die says that it must do its
// work, as far as a power cut lets it, and then return errDead.
func (d *cutDisk) step() (die bool, err error) {
	if d.dead {
		return false, errDead
	}
	d.steps++
	if d.steps == d.faultAt {
		return false, errFault
	}
	if d.steps == d.dieAt {
		d.dead = true
		return true, nil
	}
	return false, nil
}

func dieErr(die bool) error {
	if die {
		return errDead
	}
	return nil
}

// cut ends the life of the machine: what was not durable survives in part.
func (d *cutDisk) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := maps.Clone(d.durable)
	for _, c := range d.changes {
		if d.rnd.IntN(2) == 0 {
			continue
		}
		if c.from != "" {
			delete(names, c.from)
		}
		if c.to != "" {
			names[c.to] = c.node
		}
	}
	for _, n := range names {
		n.cut(d.rnd, d.sector)
	}
	d.names, d.durable, d.changes = names, maps.Clone(names), nil
	d.revive()
}

// revive makes the disk usable again after a process died: everything that was
// written is still there, and no more durable than it was.
func (d *cutDisk) revive() { d.dead, d.dieAt, d.faultAt, d.steps = false, 0, 0, 0 }

// kill ends the process that uses the disk: none of its calls works any more.
func (d *cutDisk) kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
}

func (n *inode) cut(rnd *rand.Rand, sector int) {
	survives := rnd.IntN(4) // 0: nothing, 3: everything, else each with a chance
	for _, w := range n.writes {
		for from := w.off; from < w.off+len(w.data); {
			to := min((from/sector+1)*sector, w.off+len(w.data))
			if survives == 3 || survives > 0 && rnd.IntN(2) == 0 {
				n.durable = writeAt(n.durable, w.data[from-w.off:to-w.off], from)
			}
			from = to
		}
	}
	n.writes = nil
	n.data = slices.Clone(n.durable)
}

func writeAt(b, p []byte, off int) []byte {
	if grow := off + len(p) - len(b); grow > 0 {
		b = append(b, make([]byte, grow)...)
	}
	copy(b[off:], p)
	return b
}

func (d *cutDisk) path(name string) string { return filepath.Join("disk", name) }

func (d *cutDisk) list() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.names)), nil
}

func (d *cutDisk) open(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n, ok := d.names[name]; ok {
		return &cutFile{d, n}, dieErr(d.dead)
	}
	die, err := d.step()
	if err != nil {
		return nil, err
	}
	n := &inode{}
	d.names[name] = n
	d.changes = append(d.changes, nameChange{to: name, node: n})
	return &cutFile{d, n}, dieErr(die)
}

func (d *cutDisk) read(name string, max int64) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.names[name]
	if !ok {
		return nil, fmt.Errorf("read %s: %w", name, os.ErrNotExist)
	}
	return slices.Clone(n.data[:min(max, int64(len(n.data)))]), nil
}

func (d *cutDisk) rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	die, err := d.step()
	if err != nil {
		return err
	}
	n, ok := d.names[from]
	if !ok {
		return fmt.Errorf("rename %s: %w", from, os.ErrNotExist)
	}
	if _, ok := d.names[to]; ok {
		return fmt.Errorf("rename %s: %s exists", from, to)
	}
	delete(d.names, from)
	d.names[to] = n
	d.changes = append(d.changes, nameChange{from: from, to: to, node: n})
	return dieErr(die)
}

func (d *cutDisk) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	die, err := d.step()
	if err != nil {
		return err
	}
	if _, ok := d.names[name]; !ok {
		return fmt.Errorf("remove %s: %w", name, os.ErrNotExist)
	}
	delete(d.names, name)
	d.changes = append(d.changes, nameChange{from: name})
	return dieErr(die)
}

func (d *cutDisk) syncNames() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if die, err := d.step(); die || err != nil {
		return errors.Join(err, dieErr(die))
	}
	d.durable, d.changes = maps.Clone(d.names), nil
	return nil
}

func (d *cutDisk) saveSnapshot(snap *raftpb.Snapshot) error {
	d.mu.Lock()
	die, err := d.step()
	if err == nil {
		n := &inode{snap: snap}
		name := fmt.Sprintf("%016x.snap", snap.GetMetadata().GetIndex())
		d.names[name] = n
		d.changes = append(d.changes, nameChange{to: name, node: n})
	}
	d.mu.Unlock()
	if die || err != nil {
		return errors.Join(err, dieErr(die))
	}
	return d.syncNames()
}

// stageSnapshot takes no step: nothing that it writes is found after a cut.
func (d *cutDisk) stageSnapshot(meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (snapfile.File, error) {
	b, err := io.ReadAll(data)
	if err == nil && int64(len(b)) != size {
		err = fmt.Errorf("%d bytes, want %d", len(b), size)
	}
	return &cutStaged{d, &raftpb.Snapshot{Metadata: meta, Data: b}}, err
}

type cutStaged struct {
	d    *cutDisk
	snap *raftpb.Snapshot
}

func (s *cutStaged) Publish() error { return s.d.saveSnapshot(s.snap) }
func (s *cutStaged) Discard() error { return nil }

func (d *cutDisk) openSnapshot(meta *raftpb.SnapshotMetadata) (io.ReadCloser, int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[fmt.Sprintf("%016x.snap", meta.GetIndex())]
	if n == nil {
		return nil, 0, os.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(n.snap.Data)), int64(len(n.snap.Data)), nil
}

func (d *cutDisk) snapshots() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(d.names)), func(n string) bool { return !strings.HasSuffix(n, ".snap") })
}

func (d *cutDisk) loadSnapshot() (*raftpb.Snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if names := d.snapshots(); len(names) > 0 {
		return d.names[names[len(names)-1]].snap, nil
	}
	return nil, nil
}

func (d *cutDisk) releaseSnapshots(index uint64) error {
	d.mu.Lock()
	names := d.snapshots()
	d.mu.Unlock()
	for _, name := range names {
		if name < fmt.Sprintf("%016x.snap", index) {
			if err := d.remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

type cutFile struct {
	d *cutDisk
	n *inode
}

func (f *cutFile) size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.n.data)), dieErr(f.d.dead)
}

func (f *cutFile) write(p []byte, off int64) error {
	if err := wholePages(p, off); err != nil {
		return err
	}
	return f.put(p, off)
}

func (f *cutFile) put(p []byte, off int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	die, err := f.d.step()
	if err != nil {
		return err
	}
	f.n.data = writeAt(f.n.data, p, int(off))
	f.n.writes = append(f.n.writes, pendingWrite{int(off), slices.Clone(p)})
	return dieErr(die)
}

// wholePages says what keeps a write from passing by the page cache.
func wholePages(p []byte, off int64) error {
	if place := uintptr(unsafe.Pointer(unsafe.SliceData(p))); place%pageBytes != 0 || len(p)%pageBytes != 0 || off%pageBytes != 0 {
		return fmt.Errorf("a write of %d bytes from memory at %#x to offset %d: not whole pages", len(p), place, off)
	}
	return nil
}

func (f *cutFile) writeSync(p []byte, off int64) error {
	if err := f.write(p, off); err != nil {
		return err
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if die, err := f.d.step(); die || err != nil {
		return errors.Join(err, dieErr(die))
	}
	// As O_DSYNC: this write, and nothing before it that it does not cover.
	end := int(off) + len(p)
	f.n.durable = writeAt(f.n.durable, p, int(off))
	f.n.writes = slices.DeleteFunc(f.n.writes, func(w pendingWrite) bool { return w.off >= int(off) && w.off+len(w.data) <= end })
	for i, w := range f.n.writes { // an older write that survives must not cover this one
		if from := max(w.off, int(off)); from < min(w.off+len(w.data), end) {
			f.n.writes[i].data = slices.Clone(f.n.data[w.off : w.off+len(w.data)])
		}
	}
	return nil
}

func (f *cutFile) sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if die, err := f.d.step(); die || err != nil {
		return errors.Join(err, dieErr(die))
	}
	f.n.durable, f.n.writes = slices.Clone(f.n.data), nil
	return nil
}

func (f *cutFile) allocate(size int64) error {
	f.d.mu.Lock()
	n := int64(len(f.n.data))
	f.d.mu.Unlock()
	return f.put(make([]byte, size-n), n)
}

func (f *cutFile) truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	die, err := f.d.step()
	if err != nil {
		return err
	}
	f.n.data = f.n.data[:size]
	// What waits behind the new end is never written; the end itself may be lost.
	for i, w := range f.n.writes {
		f.n.writes[i].data = w.data[:max(0, min(len(w.data), int(size)-w.off))]
	}
	return dieErr(die)
}

func (f *cutFile) close() error { return nil }

// The disk must lose what it may lose, or the tests that use it prove nothing.
func TestCutDisk(t *testing.T) {
	lost, kept := 0, 0
	for seed := range uint64(64) {
		d := newCutDisk(seed, 512)
		f, _ := d.open("synced")
		if err := errors.Join(f.writeSync(alignedBytes(pageBytes), 0), d.syncNames()); err != nil {
			t.Fatal(err)
		}
		g, _ := d.open("nameless")
		p := alignedBytes(pageBytes)
		for i := range p {
			p[i] = 'x'
		}
		if err := errors.Join(f.write(p, 0), g.writeSync(p, 0)); err != nil {
			t.Fatal(err)
		}
		d.cut()
		b, err := d.read("synced", 2*pageBytes)
		if err != nil || len(b) != pageBytes {
			t.Fatalf("a durable file is gone: %v, %d bytes", err, len(b))
		}
		for i := range b {
			if b[i] != b[i/512*512] {
				t.Fatalf("a sector is torn: %q", b)
			}
		}
		if _, err := d.read("nameless", 1000); err != nil {
			lost++
		} else if !bytes.Equal(b, p) && !bytes.Equal(b, make([]byte, len(b))) {
			kept++
		}
	}
	if lost == 0 || kept == 0 {
		t.Errorf("%d names lost, %d files half written: want some of both", lost, kept)
	}
}
