package backendtest

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// Rule 3: snapshots.

func testSnapshotData(e *env) {
	for _, size := range []int{0, 1 << 10, 20 << 20} {
		s := e.newStore()
		s.append(1, 10, 20)
		s.commitTo(8)
		s.snapshotAt(8, size)
		s.check(fmt.Sprintf("a snapshot with %d bytes saved", size))
		s.append(1, 5, 20)
		s.check(fmt.Sprintf("entries saved after a snapshot with %d bytes", size))
		s.close()
	}
}

func testNewerSnapshot(e *env) {
	s := e.newStore()
	s.append(1, 100, 20)
	for i := uint64(10); i <= 90; i += 10 {
		s.commitTo(i)
		s.snapshotAt(i, int(i)*100)
		if i%30 == 0 {
			s.check(fmt.Sprintf("the snapshot at %d saved over older ones", i))
		}
	}
	s.snapshotAt(91, 100)
	s.check("a snapshot saved ahead of the saved commit index, which it implies")
}

func testSnapshotInsideLog(e *env) {
	s := e.newStore()
	s.append(1, 10, 20)
	s.append(2, 10, 20)
	s.commitTo(20)
	s.snapshotAt(15, 100)
	s.check("a snapshot saved in the middle of a log that holds its entry, whose tail must stay")
	s.snapshotAt(20, 100)
	s.check("a snapshot saved at the last entry")
	s.append(2, 3, 20)
	s.check("entries saved after a snapshot at the last entry")
}

func testSnapshotAheadOfLog(e *env) {
	s := e.newStore()
	s.install(100, 3, 1000)
	s.check("a snapshot installed in an empty storage")
	s.append(3, 10, 20)
	s.check("entries saved after an installed snapshot")
	s.install(200, 4, 1000)
	s.check("a snapshot installed ahead of the log")
	s.append(4, 10, 20)
	s.install(211, 4, 1000)
	s.append(5, 10, 20)
	s.save(hs(6, 1, 211), run(212, 6, 4, 20)...)
	s.check("a snapshot installed one ahead of the log, entries saved and overwritten")
}

func testSnapshotOverConflict(e *env) {
	for _, index := range []uint64{5, 8, 20} {
		s := e.newStore()
		s.append(1, 20, 20)
		s.commitTo(4)
		s.install(index, 2, 100)
		s.check(fmt.Sprintf("a snapshot at (%d, term 2) installed over a log whose entry %d has term 1", index, index))
		s.append(3, 3, 20)
		s.check("entries saved after a snapshot over a conflicting log, whose old tail must not come back")
		s.append(3, 20, 20)
		s.check("entries saved beyond the end of the conflicting log")
		s.close()
	}
}

// testSnapshotWithoutSave is the crash between the SaveSnap and the Save of an
// install.
func testSnapshotWithoutSave(e *env) {
	const why = "a snapshot saved and nothing after it: the hard state must not be older than the snapshot"
	s := e.newStore()
	s.saveSnap(snap(50, 2, 100))
	s.check(why)
	s.append(3, 5, 20)
	s.commitTo(52)
	s.saveSnap(snap(70, 4, 100))
	s.check(why + ", ahead of the log")
	s.append(4, 20, 20)
	s.saveSnap(snap(80, 5, 100))
	s.check(why + ", over a conflicting log")
	s.save(hs(5, 2, 80), run(81, 5, 2, 20)...)
	s.check("the log goes on after such a crash")
}

// testSnapshotDuringSave is what a node does: its loop saves while its apply
// side snapshots and releases. Meant for the race detector, too.
func testSnapshotDuringSave(e *env) {
	s := e.newStore()
	const n, every = 400, 40
	ready := make(chan uint64, n/every)
	failed := make(chan error, 1)
	done := sync.OnceFunc(func() { close(ready) })
	defer done()
	go func() {
		defer close(failed)
		for index := range ready {
			sn := snap(index, 1, 50_000)
			if err := s.s.SaveSnap(sn); err != nil {
				failed <- fmt.Errorf("SaveSnap during Save: %w", err)
				return
			}
			if err := s.s.Release(sn); err != nil {
				failed <- fmt.Errorf("Release during Save: %w", err)
				return
			}
		}
	}()
	for i := uint64(1); i <= n; i++ {
		s.save(hs(1, 1, i-1), entry(i, 1, 500))
		if i%every == 1 && i > every {
			ready <- i - 1
		}
		if i%10 == 0 {
			s.commitTo(i)
		}
	}
	done()
	if err := <-failed; err != nil {
		e.Fatalf("%v; want success", err)
	}
	s.o.saveSnap(snap(n-every, 1, 50_000))
	s.check("entries saved while snapshots were saved and released")
}

// Rule 4: release.

func testReleaseKeepsRest(e *env) {
	s := e.newStore()
	s.append(1, 100, 200)
	s.commitTo(60)
	sn := s.snapshotAt(30, 10)
	s.release(sn)
	s.check("released up to 30 of 100")
	s.release(sn)
	s.check("released a second time")
	older := sn
	sn = s.snapshotAt(60, 10)
	s.release(older)
	s.check("released up to 30 after a snapshot at 60")
	s.release(sn)
	s.append(2, 10, 200)
	s.release(sn)
	s.check("released up to 60, and entries saved")
	s.commitTo(110)
	sn = s.snapshotAt(110, 10)
	s.release(sn)
	s.check("released up to the last entry")
	s.append(3, 10, 200)
	s.check("entries saved after the whole log was released")
}

// testReleaseGivesSpaceBack writes until what the directory takes is at most
// half of what was written, however large the engine's files are. An engine
// that gives nothing back never gets there.
func testReleaseGivesSpaceBack(e *env) {
	const valueBytes, batch, batchesPerSnapshot = 64 << 10, 16, 8
	s := e.newStore()
	var written, used int64
	for written < e.limits.spaceMax {
		var sn *raftpb.Snapshot
		for range batchesPerSnapshot {
			s.append(1, batch, valueBytes)
			written += batch * valueBytes
		}
		last := s.o.lastIndex()
		s.commitTo(last)
		// A window stays, as a node keeps one for slow followers.
		sn = s.snapshotAt(last-batch, 4<<10)
		s.release(sn)
		if err := s.o.ms.Compact(last - batch); err != nil {
			panic(err)
		}
		if written < e.limits.spaceMin {
			continue
		}
		if used = e.diskUsed(s.dir); used <= written/2 {
			s.check(fmt.Sprintf("%d MiB written and released", written>>20))
			return
		}
	}
	// Freeing may go on in the background.
	for deadline := time.Now().Add(e.limits.settle); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if used = e.diskUsed(s.dir); used <= written/2 {
			return
		}
	}
	e.Fatalf("%d MiB were written, a window of %d MiB kept and the rest released, and the directory takes %d MiB; want at most half of what was written",
		written>>20, batch*valueBytes>>20, used>>20)
}

// diskUsed is what dir takes on disk, in bytes, holes not counted.
func (e *env) diskUsed(dir string) int64 {
	var sum int64
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // the engine removed it meanwhile
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			sum += st.Blocks * 512
		} else {
			sum += info.Size()
		}
		return nil
	})
	if err != nil {
		e.tb.Fatalf("sum up %s: %v", dir, err)
	}
	return sum
}
