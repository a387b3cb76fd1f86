package raw

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t testing.TB, d disk, cfg config) (*storage, backends.State) {
	t.Helper()
	s, st, err := openDisk(d, cfg)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s, st
}

// kill ends a storage as kill -9 ends its process: the disk keeps what was
// written.
func kill(t testing.TB, d *cutDisk, s *storage) {
	t.Helper()
	d.kill()
	s.Close()
	d.revive()
}

// file runs f on a file while the storage that uses the disk is alive: its
// preparer makes segments in the background.
func (d *cutDisk) file(name string, f func(n *inode)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d.names[name])
}

// bytes is a copy of what a file holds now.
func (d *cutDisk) bytes(name string) (data []byte) {
	d.file(name, func(n *inode) { data = slices.Clone(n.data) })
	return data
}

// clone copies the disk as it is read back, and takes all of it for durable.
func (d *cutDisk) clone() *cutDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := newCutDisk(1, d.sector)
	for name, n := range d.names {
		c.names[name] = &inode{data: slices.Clone(n.data), durable: slices.Clone(n.data), snap: n.snap}
	}
	c.durable = maps.Clone(c.names)
	return c
}

func hs(term, vote, commit uint64) *raftpb.HardState { return hardState{term, vote, commit}.proto() }

func entries(first, term uint64, n, size int) []*raftpb.Entry {
	ents := make([]*raftpb.Entry, n)
	for i := range ents {
		index := first + uint64(i)
		ents[i] = &raftpb.Entry{Index: proto.Uint64(index), Term: proto.Uint64(term),
			Data: bytes.Repeat([]byte{byte(index*31 + term)}, size)}
	}
	return ents
}

func snapshot(index, term uint64) *raftpb.Snapshot {
	return &raftpb.Snapshot{Data: fmt.Append(nil, "state at ", index),
		Metadata: &raftpb.SnapshotMetadata{Index: proto.Uint64(index), Term: proto.Uint64(term)}}
}

// segmentsOf counts the files of a disk by suffix.
func segmentsOf(t *testing.T, d disk) (segs, spares int) {
	t.Helper()
	names, err := d.list()
	must(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, segmentSuffix) {
			segs++
		} else if strings.HasSuffix(name, spareSuffix) {
			spares++
		}
	}
	return segs, spares
}

// A log that is released as it grows lives in the same files for ever.
func TestRecycling(t *testing.T) {
	for _, recycle := range []bool{true, false} {
		cfg := config{segment: 8 << 10, recycle: recycle, prealloc: "zero"}
		d := newCutDisk(1, 512)
		s, _ := mustOpen(t, d, cfg)
		inodes := map[*inode]bool{}
		for i := range uint64(200) {
			must(t, s.Save(hs(1, 1, i), entries(i*10+1, 1, 10, 150)))
			if i%5 == 4 {
				snap := snapshot(i*10, 1)
				must(t, s.SaveSnap(snap))
				must(t, s.Release(snap))
				if segs, spares := segmentsOf(t, d); segs+spares > 7 {
					t.Fatalf("recycle=%v: %d segments and %d spares after a release", recycle, segs, spares)
				}
			}
			d.mu.Lock()
			for _, n := range d.names {
				if n.snap == nil {
					inodes[n] = true
				}
			}
			d.mu.Unlock()
		}
		must(t, s.Close())
		if few := len(inodes) < 20; few != recycle {
			t.Errorf("recycle=%v: the log went through %d files", recycle, len(inodes))
		}
		s, st := mustOpen(t, d, cfg)
		must(t, s.Close())
		if len(st.Entries) != 10 || st.LastIndex() != 2000 {
			t.Errorf("recycle=%v: %d entries up to %d", recycle, len(st.Entries), st.LastIndex())
		}
	}
}

// The files of one big burst are given back by the releases after it.
func TestSpareFilesAreGivenBack(t *testing.T) {
	cfg := config{segment: 4 << 10, recycle: true, prealloc: "zero"}
	d := newCutDisk(1, 512)
	s, _ := mustOpen(t, d, cfg)
	must(t, s.Save(hs(1, 1, 0), entries(1, 1, 1, 10)))
	for i := range uint64(50) {
		must(t, s.Save(hs(1, 1, i+1), entries(i+2, 1, 1, 3000)))
	}
	must(t, s.SaveSnap(snapshot(50, 1)))
	for range 2 {
		must(t, s.Release(snapshot(50, 1)))
	}
	if segs, spares := segmentsOf(t, d); segs+spares > 6 {
		t.Errorf("%d segments and %d spares are left", segs, spares)
	}
	must(t, s.Close())
}

// A Save that is larger than a segment makes its segment grow; its file is cut
// when it is used again.
func TestLargeSave(t *testing.T) {
	cfg := config{segment: 4 << 10, recycle: true, prealloc: "zero"}
	d := newCutDisk(1, 512)
	s, _ := mustOpen(t, d, cfg)
	for i := range uint64(12) {
		size := 100
		if i%3 == 1 {
			size = 50_000
		}
		must(t, s.Save(hs(1, 1, i), entries(i+1, 1, 1, size)))
		must(t, s.Save(hs(1, 1, i+1), nil))
		if i == 8 {
			must(t, s.SaveSnap(snapshot(8, 1)))
			must(t, s.Release(snapshot(8, 1)))
		}
	}
	must(t, s.Close())
	s, st := mustOpen(t, d, cfg)
	if st.LastIndex() != 12 || len(st.Entries) != 4 || st.HardState.GetCommit() != 12 {
		t.Errorf("%d entries up to %d, %v", len(st.Entries), st.LastIndex(), st.HardState)
	}
	must(t, s.Close())
	big := 0
	for _, n := range d.names {
		if len(n.data) > 8<<10 {
			big++
		}
	}
	if big != 1 {
		t.Errorf("%d large files, want the one that is still needed", big)
	}
}

// A segment whose tail was overwritten by a later one holds it back no longer.
func TestReleaseOfOverwrittenTail(t *testing.T) {
	d := newCutDisk(1, 512)
	s, _ := mustOpen(t, d, smallConfig)
	must(t, s.Save(hs(1, 1, 0), entries(1, 1, 20, 100)))
	for i := range uint64(3) {
		must(t, s.Save(hs(2+i, 1, 3), entries(5, 2+i, 20, 100)))
	}
	first := s.segs[0].number
	must(t, s.SaveSnap(snapshot(4, 1)))
	must(t, s.Release(snapshot(4, 1)))
	if len(s.segs) != 1 || s.segs[0].number == first {
		t.Errorf("%d segments from %d on are left, want the last one", len(s.segs), s.segs[0].number)
	}
	must(t, s.Close())
	s, st := mustOpen(t, d, smallConfig)
	if len(st.Entries) != 20 || st.LastIndex() != 24 || st.Entries[0].GetTerm() != 4 {
		t.Errorf("%d entries up to %d of term %d", len(st.Entries), st.LastIndex(), st.Entries[0].GetTerm())
	}
	must(t, s.Close())
}

// One large Save does not hold its memory for ever.
func TestBufferIsGivenBack(t *testing.T) {
	d := newCutDisk(1, 512)
	s, _ := mustOpen(t, d, smallConfig)
	must(t, s.Save(hs(1, 1, 0), entries(1, 1, 1, keepBuffer+1)))
	if got := cap(s.buf.b); got > keepBuffer {
		t.Errorf("a buffer of %d bytes is kept", got)
	}
	must(t, s.Close())
}

// After the first failure nothing is acknowledged any more, whatever the disk
// says later; what was acknowledged before it is there.
func TestStopsAfterAFailure(t *testing.T) {
	cfg := config{segment: 8 << 10, recycle: true, prealloc: "zero"}
	stopped := 0
	for fault := 1; fault < 120; fault++ {
		d := newCutDisk(1, 512)
		s, _ := mustOpen(t, d, cfg)
		d.mu.Lock()
		d.faultAt = d.steps + fault
		d.mu.Unlock()
		acked, failed := uint64(0), error(nil)
		for i := range uint64(30) {
			err := s.Save(hs(1, 1, acked), entries(i+1, 1, 1, 1000))
			if failed != nil && !errors.Is(err, errFault) {
				t.Fatalf("fault at step %d: Save after %v: %v", fault, failed, err)
			}
			if err == nil {
				acked = i + 1
			} else if failed == nil {
				failed = err
			}
		}
		if failed != nil {
			stopped++
			for what, err := range map[string]error{"SaveSnap": s.SaveSnap(snapshot(acked, 1)),
				"Sync": s.Sync(), "Release": s.Release(snapshot(acked, 1))} {
				if !errors.Is(err, errFault) {
					t.Errorf("fault at step %d: %s after %v: %v", fault, what, failed, err)
				}
			}
		}
		s.Close()
		d.cut()
		s, st := mustOpen(t, d, cfg)
		if st.LastIndex() < acked || st.LastIndex() > acked+1 {
			t.Errorf("fault at step %d: entries up to %d, acknowledged up to %d", fault, st.LastIndex(), acked)
		}
		must(t, s.Close())
	}
	if stopped < 50 {
		t.Errorf("only %d of the faults stopped the storage", stopped)
	}
}

func TestFailedSnapshotStops(t *testing.T) {
	d := newCutDisk(1, 512)
	s, _ := mustOpen(t, d, smallConfig)
	must(t, s.Save(hs(1, 1, 1), entries(1, 1, 2, 10)))
	failing := &failingSnapshots{disk: d}
	s.disk = failing
	if err := s.SaveSnap(snapshot(1, 1)); !errors.Is(err, errFault) {
		t.Errorf("SaveSnap: %v", err)
	}
	if err := s.Save(hs(1, 1, 2), nil); !errors.Is(err, errFault) {
		t.Errorf("Save after a failed SaveSnap: %v", err)
	}
	must(t, s.Close())
}

type failingSnapshots struct{ disk }

func (failingSnapshots) saveSnapshot(*raftpb.Snapshot) error { return errFault }

// A snapshot that was not saved must not free anything.
func TestReleaseOfUnsavedSnapshot(t *testing.T) {
	d := newCutDisk(1, 512)
	s, _ := mustOpen(t, d, smallConfig)
	must(t, s.Save(hs(1, 1, 2), entries(1, 1, 2, 10)))
	if err := s.Release(snapshot(2, 1)); err == nil {
		t.Error("Release of a snapshot that was never saved returns nil")
	}
	must(t, s.Close())
}

func openDir(t testing.TB, dir string, params map[string]string, onSync func(time.Duration)) *storage {
	t.Helper()
	st, _, err := open(backends.Options{Dir: dir, Params: params, OnSync: onSync})
	must(t, err)
	t.Cleanup(func() { st.Close() })
	return st.(*storage)
}

// countingFile counts what Save asks of its file.
type countingFile struct {
	file
	writes, syncs int
}

func (f *countingFile) write(p []byte, off int64) error {
	f.writes++
	return f.file.write(p, off)
}

func (f *countingFile) writeSync(p []byte, off int64) error {
	f.writes++
	f.syncs++
	return f.file.writeSync(p, off)
}

// ways are all that a directory's disk takes.
func ways(t *testing.T, dir string) (all []way) {
	t.Helper()
	noDirect := tryDirect(dir)
	for _, io := range []string{"buffered", "direct"} {
		if io == "direct" && noDirect != nil {
			t.Logf("no direct writes here: %v", noDirect)
			continue
		}
		for _, sync := range []string{"fdatasync", "dsync", "fsync"} {
			all = append(all, way{io, sync})
		}
	}
	return all
}

// A Save is one write and one sync, a commit index alone one write, or none where the
// page cache is not used, and neither allocates.
func TestSaveCosts(t *testing.T) {
	for _, w := range ways(t, t.TempDir()) {
		s := openDir(t, t.TempDir(), map[string]string{"io": w.io, "sync": w.sync, "segment": "1MiB"}, nil)
		ents := entries(1, 1, 16, 100)
		state, commit := hs(1, 1, 0), hs(1, 1, 0)
		index := uint64(1)
		save := func() {
			for _, e := range ents {
				*e.Index = index
				index++
			}
			must(t, s.Save(state, ents))
			*commit.Commit = index - 1
			must(t, s.Save(commit, nil))
		}
		save() // begins the segment, and sizes the buffer
		counter := &countingFile{file: s.current().file}
		s.current().file = counter
		const runs = 50
		// The goroutine that prepares segments allocates, too, and ends.
		if got := testing.AllocsPerRun(runs, save); got >= 1 {
			t.Errorf("%v: %v allocations in each Save", w, got)
		}
		writes := 2 * (runs + 1)
		if w.io == "direct" {
			writes = runs + 1
		}
		if counter.writes != writes || counter.syncs != runs+1 {
			t.Errorf("%v: %d writes and %d syncs in %d rounds", w, counter.writes, counter.syncs, runs+1)
		}
		must(t, s.Save(state, entries(index, 1, 1, 100_000)))
		if mapped := s.buf.mapped != nil; mapped != (w.io == "direct") {
			t.Errorf("%v: huge pages for a large Save: %v", w, mapped)
		}
		must(t, s.Close())
	}
}

func TestOnSync(t *testing.T) {
	for _, w := range ways(t, t.TempDir()) {
		syncs, nanos := 0, time.Duration(0)
		d := &osDisk{dir: t.TempDir(), way: w, onSync: func(d time.Duration) { syncs, nanos = syncs+1, nanos+d }}
		f, err := d.open("file")
		must(t, err)
		check := func(what string, want int) {
			t.Helper()
			if syncs != want || nanos <= 0 && want > 0 {
				t.Errorf("%v: told of %d syncs in %v after %s, want %d", w, syncs, nanos, what, want)
			}
		}
		flags, err := unix.FcntlInt(f.(*osFile).synced.Fd(), unix.F_GETFL, 0)
		must(t, err)
		if direct, dsync := flags&oDirect != 0, flags&unix.O_DSYNC != 0; direct != (w.io == "direct") || dsync != (w.sync == "dsync") {
			t.Errorf("%v: direct %v, O_DSYNC %v", w, direct, dsync)
		}
		page := alignedBytes(pageBytes)
		copy(page, "abc")
		must(t, f.write(page, 0))
		check("write", 0)
		must(t, f.writeSync(page, pageBytes))
		check("writeSync", 1)
		must(t, f.sync())
		check("sync", 2)
		must(t, d.syncNames())
		check("syncNames", 3)
		must(t, f.close())
		if b, err := d.read("file", 3*pageBytes); err != nil || string(b) != string(page)+string(page) {
			t.Errorf("%v: the file holds %q, %v", w, b, err)
		}
	}
}

func TestAuto(t *testing.T) {
	dir := t.TempDir()
	s := openDir(t, dir, nil, nil)
	if w := s.cfg.way; !slices.Contains(ways(t, dir), w) || w.sync == "fsync" {
		t.Errorf("auto became %v", w)
	} else if got, want := s.Chosen(), map[string]string{"io": w.io, "sync": w.sync}; !maps.Equal(got, want) {
		t.Errorf("chosen is said to be %q, want %q", got, want)
	}
	must(t, s.Save(hs(1, 1, 0), entries(1, 1, 3, 100)))
	must(t, s.Close())
	left, err := filepath.Glob(filepath.Join(dir, "*.probe"))
	if err != nil || len(left) > 0 {
		t.Errorf("files that were measured with are still there: %q, %v", left, err)
	}
	again, st, err := open(backends.Options{Dir: dir, Params: map[string]string{"sync": "dsync"}})
	if err != nil || st.LastIndex() != 3 {
		t.Fatalf("reopened to entries up to %d, %v", st.LastIndex(), err)
	}
	if got := again.(backends.Chooser).Chosen(); len(got) != 1 || got["io"] == "" {
		t.Errorf("chosen with sync=dsync: %q", got)
	}
	must(t, again.Close())
}

func TestBadParams(t *testing.T) {
	for _, params := range []map[string]string{
		{"segment": "1"}, {"segment": "x"}, {"segment": "2GiB"}, {"recycle": "maybe"},
		{"prealloc": "some"}, {"sync": "never"}, {"io": "both"}, {"sinc": "auto"},
	} {
		dir := filepath.Join(t.TempDir(), "not there")
		_, _, err := open(backends.Options{Dir: dir, Params: params})
		if pe := new(backends.ParamError); !errors.As(err, &pe) {
			t.Errorf("%v: %v, want a ParamError", params, err)
		}
	}
}

func TestOpenErrorsNameTheFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not there")
	if _, _, err := open(backends.Options{Dir: dir}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), dir) {
		t.Errorf("Open of a missing directory: %v", err)
	}
	dir = t.TempDir()
	s := openDir(t, dir, nil, nil)
	must(t, s.Save(hs(1, 1, 0), entries(1, 1, 3, 100)))
	must(t, s.Save(hs(1, 1, 0), entries(4, 1, 3, 100)))
	must(t, s.Close())
	name := filepath.Join(dir, segmentName(1))
	b, err := os.ReadFile(name)
	must(t, err)
	b[200]++
	must(t, os.WriteFile(name, b, 0o600))
	_, _, err = open(backends.Options{Dir: dir})
	if de := new(backends.DamageError); !errors.As(err, &de) || de.File != name || !strings.Contains(err.Error(), "offset 88") {
		t.Errorf("Open of a damaged segment: %v", err)
	}
	// The failed Open let go of the directory.
	b[200]--
	must(t, os.WriteFile(name, b, 0o600))
	openDir(t, dir, nil, nil)
}
