package raw

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// smallLog fills a disk with three segments: appends, an overwritten tail, a
// vote, a commit index that is not synced, a snapshot that keeps the log and one
// that empties it. It returns the disk and the state that it must open to.
func smallLog(t *testing.T, cfg config, closed bool) (*cutDisk, backends.State) {
	t.Helper()
	d := newCutDisk(1, 512)
	s, _ := mustOpen(t, d, cfg)
	must(t, s.Save(hs(1, 1, 0), entries(1, 1, 4, 700)))
	must(t, s.Save(hs(1, 1, 2), entries(4, 1, 2, 400)))
	must(t, s.SaveSnap(snapshot(2, 1)))
	must(t, s.Save(hs(2, 3, 2), nil))
	must(t, s.SaveSnap(snapshot(20, 3)))
	must(t, s.Save(hs(3, 0, 20), entries(21, 3, 5, 500)))
	must(t, s.Save(hs(4, 2, 20), entries(23, 4, 3, 300)))
	must(t, s.Save(hs(4, 2, 21), nil))
	must(t, s.Save(&raftpb.HardState{}, entries(26, 4, 1, 500)))
	if closed {
		var err error
		s.first, err = s.prep.next() // so that it is there for sure
		must(t, err)
		must(t, s.Close())
	} else {
		kill(t, d, s)
	}
	if n := len(s.segs); n != 3 {
		t.Fatalf("the log has %d segments, want 3", n)
	}
	again := d.clone()
	s, st := mustOpen(t, again, cfg)
	kill(t, again, s)
	if st.LastIndex() != 26 || st.Snapshot.GetMetadata().GetIndex() != 20 || st.HardState.GetTerm() != 4 {
		t.Fatalf("opened to %v, entries up to %d", st.HardState, st.LastIndex())
	}
	return d, st
}

var smallConfig = config{segment: 4 << 10, recycle: true, prealloc: "zero"}

// tryOpen opens a damaged disk, and says whether it found the state that was
// saved, or said that something is damaged. Anything else is a failure.
func tryOpen(t *testing.T, d *cutDisk, want backends.State, what string) (found bool) {
	t.Helper()
	_, st, err := recoverDir(d)
	if err != nil {
		if de := new(backends.DamageError); !errors.As(err, &de) || !strings.HasPrefix(de.File, "disk/0") {
			t.Errorf("%s: Open: %v: want a DamageError that names a segment", what, err)
		}
		return false
	}
	if !proto.Equal(st.HardState, want.HardState) ||
		!slices.EqualFunc(st.Entries, want.Entries, func(a, b *raftpb.Entry) bool { return proto.Equal(a, b) }) {
		t.Errorf("%s: opened to %v and entries up to %d, want %v, %d", what, st.HardState, st.LastIndex(), want.HardState, want.LastIndex())
	}
	return true
}

// stride is how far apart the places are that a test damages one by one: every
// byte where RAFTBENCH_RAW_CUTS asks for much, else so that all fields and bits
// are hit somewhere.
func stride() int {
	if os.Getenv("RAFTBENCH_RAW_CUTS") != "" {
		return 1
	}
	return 5
}

// One bit of bytes all over the segments of a log that was closed: the state
// that was saved, or an error.
func TestFlippedBits(t *testing.T) {
	d, want := smallLog(t, smallConfig, true)
	errs, fine := 0, 0
	for name, n := range d.names {
		if n.snap != nil {
			continue
		}
		for off := 0; off < len(n.data); off += stride() {
			mask := byte(1) << (off % 8)
			n.data[off] ^= mask
			if tryOpen(t, d, want, fmt.Sprintf("%s, byte %d ^ %#x", name, off, mask)) {
				fine++
			} else {
				errs++
			}
			n.data[off] ^= mask
		}
	}
	if errs < 8000/stride() || fine < 1000/stride() {
		t.Errorf("%d errors, %d times the whole state: the log is not what this test is for", errs, fine)
	}
}

// Any length of any segment: with blocks written ahead, a segment that was
// begun never gets shorter.
func TestTruncated(t *testing.T) {
	d, want := smallLog(t, smallConfig, true)
	errs := 0
	for name, n := range d.names {
		if n.snap != nil {
			continue
		}
		for size := 0; size < len(n.data); size += stride() {
			whole := n.data
			n.data = n.data[:size]
			if !tryOpen(t, d, want, fmt.Sprintf("%s, cut to %d bytes", name, size)) {
				errs++
			}
			n.data = whole
		}
	}
	if want := 3 * 4096 / stride(); errs < want {
		t.Errorf("%d errors, want %d: one for each length of three segments", errs, want)
	}
}

// A log that grows has no length but that of its file: a shorter one is taken
// for a torn write, but only back to where a record ended.
func TestTruncatedWhereItGrows(t *testing.T) {
	cfg := smallConfig
	cfg.prealloc, cfg.segment = "none", 1<<20
	d := newCutDisk(1, 512)
	s, _ := mustOpen(t, d, cfg)
	var last []uint64 // by record
	var ends []int64
	for i := range uint64(5) {
		must(t, s.Save(hs(1, 1, i), entries(1+3*i, 1, 3, 100)))
		last, ends = append(last, 3+3*i), append(ends, s.end)
	}
	kill(t, d, s)
	for size := range d.names[segmentName(1)].data {
		if size < headerSize {
			continue
		}
		damaged := d.clone()
		damaged.names[segmentName(1)].data = damaged.names[segmentName(1)].data[:size]
		want := uint64(0)
		for i, end := range ends {
			if end <= int64(size) {
				want = last[i]
			}
		}
		s, st := mustOpen(t, damaged, cfg)
		if st.LastIndex() != want {
			t.Errorf("cut to %d bytes: entries up to %d, want %d", size, st.LastIndex(), want)
		}
		kill(t, damaged, s)
	}
}

// The record that was being written may be torn in any way, and nothing else.
func TestTornTail(t *testing.T) {
	d, want := smallLog(t, smallConfig, false)
	s, _ := mustOpen(t, d, smallConfig)
	name, end := segmentName(s.current().number), s.end
	before := d.bytes(name)
	must(t, s.Save(hs(5, 1, 22), entries(24, 5, 2, 400)))
	after := d.bytes(name)
	if string(before) == string(after) || s.end <= end || segmentName(s.current().number) != name {
		t.Fatalf("the record is not in %s from %d on", name, end)
	}
	kill(t, d, s)
	// Any set of 128-byte pieces but all of them.
	pieces := (int(s.end-end) + 127) / 128
	for set := range 1<<pieces - 1 {
		torn := d.clone()
		data := slices.Clone(before)
		for p := range pieces {
			if from := int(end) + 128*p; set>>p&1 == 1 {
				copy(data[from:min(from+128, int(s.end))], after[from:])
			}
		}
		torn.names[name].data = data
		if !tryOpen(t, torn, want, fmt.Sprintf("pieces %b", set)) {
			t.Fatalf("pieces %b: Open says that this is damage", set)
		}
	}
}

// A prepared segment is made smaller, larger, or as it is, by a life that is killed, or whose
// power is cut, at any of its steps: whatever it leaves is not damage.
func TestOtherSegmentSize(t *testing.T) {
	for _, prealloc := range []string{"zero", "fallocate", "none"} {
		for _, segment := range []int64{4 << 10, 16 << 10, 64 << 10} {
			for _, power := range []bool{false, true} {
				cfg := config{segment: segment, recycle: true, prealloc: prealloc}
				t.Run(fmt.Sprintf("prealloc=%s/segment=%d/power=%v", prealloc, segment, power), func(t *testing.T) {
					steps := 1
					for dieInPreparation(t, cfg, steps, power) {
						steps++
					}
					if steps < 5 {
						t.Errorf("a life took %d steps: it prepared nothing", steps)
					}
				})
			}
		}
	}
}

// dieInPreparation makes a log whose next segment is prepared with 16 KiB, opens it with cfg
// until it dies at a step, and again. It is false where there is no such step.
func dieInPreparation(t *testing.T, cfg config, step int, power bool) bool {
	t.Helper()
	d := newCutDisk(uint64(step), 512)
	before := cfg
	before.segment, before.prealloc = 16<<10, "zero"
	s, _ := mustOpen(t, d, before)
	must(t, s.Save(hs(1, 1, 0), entries(1, 1, 3, 100)))
	var err error
	s.first, err = s.prep.next() // so that it is there for sure
	must(t, err)
	must(t, s.Close())

	d.revive()
	d.dieAt = step
	if s, _, err = openDisk(d, cfg); err == nil {
		s.first, err = s.prep.next()
		d.kill()
		s.Close()
	}
	if err != nil && !errors.Is(err, errDead) {
		t.Fatalf("step %d: %v", step, err)
	}
	if power {
		d.cut()
	}
	d.revive()
	s, st, openErr := openDisk(d, cfg)
	if openErr != nil {
		t.Fatalf("step %d: Open: %v", step, openErr)
	}
	if st.LastIndex() != 3 {
		t.Errorf("step %d: entries up to %d, want 3", step, st.LastIndex())
	}
	must(t, s.Close())
	return err != nil
}

// What a torn record leaves cannot come back in a later life: Open wrote over
// its start, and nothing of that waits for a sync.
func TestOpenLeavesNothingPending(t *testing.T) {
	d, want := smallLog(t, smallConfig, false)
	s, st := mustOpen(t, d, smallConfig)
	if st.LastIndex() != want.LastIndex() {
		t.Fatalf("entries up to %d, want %d", st.LastIndex(), want.LastIndex())
	}
	d.file(segmentName(s.current().number), func(n *inode) {
		if len(n.writes) > 0 {
			t.Errorf("%d writes wait for a sync", len(n.writes))
		}
	})
	kill(t, d, s)
}

// A commit index that Sync made durable is not overwritten by the next Save.
func TestSyncKeepsCommit(t *testing.T) {
	for seed := range uint64(20) {
		d := newCutDisk(seed, 512)
		s, _ := mustOpen(t, d, config{segment: 64 << 10, recycle: true, prealloc: "zero"})
		must(t, s.Save(hs(1, 1, 0), entries(1, 1, 9, 10)))
		must(t, s.Save(hs(1, 1, 5), nil))
		must(t, s.Sync())
		d.mu.Lock()
		d.dieAt = d.steps + 1
		d.mu.Unlock()
		if err := s.Save(hs(1, 1, 6), entries(10, 1, 9, 1000)); !errors.Is(err, errDead) {
			t.Errorf("seed %d: Save: %v", seed, err)
		}
		s.Close()
		d.cut()
		s, st := mustOpen(t, d, smallConfig)
		if st.HardState.GetCommit() < 5 {
			t.Errorf("seed %d: commit %d, want 5", seed, st.HardState.GetCommit())
		}
		must(t, s.Close())
	}
}

// Segments that are not there, or not what their names say.
func TestMissingSegments(t *testing.T) {
	pristine, want := smallLog(t, smallConfig, true)
	first, last := segmentName(1), segmentName(3)
	for name, damage := range map[string]func(d *cutDisk){
		"the last one is gone": func(d *cutDisk) { delete(d.names, last) },
		"all are gone": func(d *cutDisk) {
			for name, n := range d.names {
				if n.snap == nil {
					delete(d.names, name)
				}
			}
		},
		"a middle one is gone": func(d *cutDisk) { delete(d.names, segmentName(2)) },
		"two are exchanged":    func(d *cutDisk) { d.names[first], d.names[last] = d.names[last], d.names[first] },
		"the snapshot is gone": func(d *cutDisk) {
			for _, name := range d.snapshots() {
				delete(d.names, name)
			}
		},
	} {
		d := pristine.clone()
		damage(d)
		s, st, err := openDisk(d, smallConfig)
		if de := new(backends.DamageError); err == nil || !errors.As(err, &de) {
			t.Errorf("%s: Open: %v, entries up to %d; want a DamageError", name, err, st.LastIndex())
		}
		if err == nil {
			kill(t, d, s)
		}
	}
	// What Release may leave when the power is cut within it is not missed.
	d := pristine.clone()
	delete(d.names, first)
	if !tryOpen(t, d, want, "a released segment is gone") {
		t.Error("a released segment is gone: Open says that this is damage")
	}
}

// A client may store the bytes of a segment as a value.
func TestValueThatLooksLikeTheLog(t *testing.T) {
	cfg := config{segment: 64 << 10, recycle: true, prealloc: "zero"}
	d := newCutDisk(1, 512)
	s, _ := mustOpen(t, d, cfg)
	must(t, s.Save(hs(1, 1, 0), entries(1, 1, 4, 700)))
	must(t, s.Save(hs(1, 1, 0), entries(5, 1, 4, 700)))
	must(t, s.Sync())
	name, end := segmentName(1), s.end
	evil := entries(9, 1, 1, 0)
	evil[0].Data = d.bytes(name)[:end]
	before := d.bytes(name)
	must(t, s.Save(hs(1, 1, 0), evil))
	d.file(name, func(n *inode) {
		n.data = writeAt(n.data, before[end:end+512], int(end)) // torn: its first sector is lost
	})
	kill(t, d, s)
	s, st := mustOpen(t, d, cfg)
	if st.LastIndex() != 8 {
		t.Errorf("entries up to %d, want 8", st.LastIndex())
	}
	must(t, s.Close())
}

func TestLogTerms(t *testing.T) {
	var l logTerms
	l.append(5, entries(5, 1, 3, 0))   // 5 6 7 of term 1
	l.append(8, entries(8, 2, 2, 0))   // 8 9 of term 2
	l.append(9, entries(9, 3, 2, 0))   // 9 10 of term 3
	l.append(11, entries(11, 3, 1, 0)) // 11
	want := map[uint64]uint64{5: 1, 7: 1, 8: 2, 9: 3, 11: 3}
	check := func(from uint64) {
		t.Helper()
		for index, term := range want {
			if index >= from && (!l.holds(index, term) || l.holds(index, term+1)) {
				t.Errorf("entry %d: not of term %d in %+v", index, term, l)
			}
		}
		if l.holds(12, 3) || l.holds(4, 1) {
			t.Errorf("holds what was never stored: %+v", l)
		}
	}
	check(0)
	l.release(8)
	check(8)
	if len(l.runs) != 2 {
		t.Errorf("after release: %+v, want two terms", l)
	}
	if l.reset(20); l.holds(11, 3) || l.last != 20 {
		t.Errorf("after reset: %+v", l)
	}
}
