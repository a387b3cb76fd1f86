package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing/iotest"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
)

// Rule 3 for a storage that takes and gives snapshots as streams. An engine that
// does not is asked for nothing here.

// streamBytes is more than any engine puts into one piece.
const streamBytes = 2<<20 + 5

// streamStore is newStore, and the storage's other interface; false where it has
// none.
func (e *env) streamStore() (*store, bool) {
	e.Helper()
	s := e.newStore()
	if _, ok := s.s.(backends.SnapshotStreamer); !ok {
		e.Logf("%s takes no streams", e.b.Name)
		return nil, false
	}
	return s, true
}

// streamer is the open storage: it is another one after each check.
func (s *store) streamer() backends.SnapshotStreamer { return s.s.(backends.SnapshotStreamer) }

// stage stages a snapshot from a reader that gives a few bytes at a time.
func (s *store) stage(sn *raftpb.Snapshot) backends.StagedSnap {
	s.Helper()
	staged, err := s.streamer().StageSnap(sn.GetMetadata(), int64(len(sn.Data)), slowly(sn.Data))
	if err != nil {
		s.Fatalf("StageSnap(index %d, %d bytes): %v; want success", sn.GetMetadata().GetIndex(), len(sn.Data), err)
	}
	return staged
}

func slowly(data []byte) io.Reader { return iotest.HalfReader(bytes.NewReader(data)) }

func (s *store) saveStream(sn *raftpb.Snapshot) {
	s.Helper()
	if err := s.stage(sn).Save(); err != nil {
		s.Fatalf("Save of a staged snapshot (index %d, %d bytes): %v; want success", sn.GetMetadata().GetIndex(), len(sn.Data), err)
	}
}

// twentyAndSnapshot saves 20 entries, and a snapshot at the tenth.
func (s *store) twentyAndSnapshot(size int) {
	s.Helper()
	s.append(1, 20, 20)
	s.commitTo(20)
	s.snapshotAt(10, size)
}

// testStream asks of streamed snapshots what is asked of others.
func testStream(e *env) {
	if _, ok := e.streamStore(); !ok {
		return
	}
	e.streams = true
	for _, test := range []func(*env){testSnapshotInsideLog, testSnapshotAheadOfLog, testSnapshotOverConflict,
		testSnapshotWithoutSave, testReleaseKeepsRest} {
		test(e)
	}
}

// testStreamIsStaged: until it is saved, a staged snapshot does not count.
func testStreamIsStaged(e *env) {
	const size = streamBytes
	s, ok := e.streamStore()
	if !ok {
		return
	}
	s.twentyAndSnapshot(size)

	if err := s.stage(snap(15, 1, size)).Discard(); err != nil {
		s.Fatalf("Discard: %v; want success", err)
	}
	s.check("a snapshot staged and discarded")

	staged := s.stage(snap(16, 1, size))
	s.crashed("a snapshot staged and not saved when the process died")
	s.append(1, 5, 20) // goes on meanwhile
	older := s.snapshotAt(12, 100)
	s.release(older)
	if err := staged.Save(); err != nil {
		s.Fatalf("Save of a snapshot staged before others were saved and released: %v; want success", err)
	}
	s.o.saveSnap(snap(16, 1, size))
	s.check("a staged snapshot saved after others were saved and released")

	late := s.stage(snap(11, 1, size))
	if err := late.Save(); err != nil {
		s.Fatalf("Save of a staged snapshot that is older than the newest: %v; want success", err)
	}
	s.check("a staged snapshot saved that is older than the newest")
}

// crashed opens a copy of the directory as it is now, as after a crash of the
// process, and compares what it holds with the oracle.
func (s *store) crashed(when string) {
	s.Helper()
	dir := s.copyDir()
	storage, got, err := s.b.Open(backends.Options{Dir: dir})
	if err != nil {
		s.Fatalf("%s: Open: %v; want the state before", when, err)
	}
	defer storage.Close()
	if d := differs(got, s.o.state()); d != "" {
		s.Fatalf("%s: %s", when, d)
	}
}

// copyDir copies the directory while nothing in it changes: an engine may be
// tidying up in the background.
func (s *store) copyDir() string {
	s.Helper()
	for deadline := time.Now().Add(s.limits.settle); ; time.Sleep(20 * time.Millisecond) {
		dir, before := s.TempDir(), s.listing()
		err := os.CopyFS(dir, os.DirFS(s.dir))
		if err == nil && s.listing() == before {
			return dir
		}
		if time.Now().After(deadline) {
			s.tb.Fatalf("the directory did not come to rest within %v (%v)", s.limits.settle, err)
		}
	}
}

// listing is names, sizes and times of all files.
func (s *store) listing() string {
	var b strings.Builder
	// What vanishes meanwhile shows in the next listing.
	_ = filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			if info, err := d.Info(); err == nil {
				fmt.Fprintln(&b, path, info.Size(), info.ModTime())
			}
		}
		return nil
	})
	return b.String()
}

// testBrokenStream: a stream that fails, or ends too early or too late, changes
// nothing, and neither does a crash in its middle.
func testBrokenStream(e *env) {
	const size = streamBytes
	s, ok := e.streamStore()
	if !ok {
		return
	}
	s.twentyAndSnapshot(size)
	next := snap(15, 1, size)
	broken := errors.New("the peer went away")
	for _, c := range []struct {
		what string
		data io.Reader
	}{
		{"fails in its middle", io.MultiReader(slowly(next.Data[:size/2]), iotest.ErrReader(broken))},
		{"fails at its end", io.MultiReader(slowly(next.Data), iotest.ErrReader(broken))},
		{"is a byte short", slowly(next.Data[:size-1])},
		{"is a byte too long", io.MultiReader(slowly(next.Data), bytes.NewReader([]byte{0}))},
		{"is cut by a crash", io.MultiReader(slowly(next.Data[:size/2]), readerFunc(func() error {
			s.crashed("a process died in the middle of a stream")
			return broken
		}))},
	} {
		_, err := s.streamer().StageSnap(next.GetMetadata(), size, c.data)
		if err == nil {
			s.Fatalf("StageSnap of a stream that %s: no error", c.what)
		}
		s.check("a stream that " + c.what)
	}
	s.saveSnap(next)
	s.check("a snapshot saved after streams that failed")
}

// readerFunc is a reader that fails with what the function returns.
type readerFunc func() error

func (f readerFunc) Read([]byte) (int, error) { return 0, f() }

// testOpenSnap reads snapshots back, however they were saved.
func testOpenSnap(e *env) {
	s, ok := e.streamStore()
	if !ok {
		return
	}
	s.append(1, 40, 20)
	s.commitTo(40)
	for i, size := range []int{0, 100, streamBytes} {
		for _, streams := range []bool{false, true} {
			s.streams = streams
			index := uint64(2*i + 1)
			if streams {
				index++
			}
			sn := s.snapshotAt(index, size)
			what := fmt.Sprintf("a snapshot of %d bytes, streamed: %v", size, streams)
			s.readBack(what, sn)
			s.check(what)
			s.readBack(what+", after a restart", sn)
			s.release(sn)
			s.readBack(what+", after its release", sn)
		}
	}
	s.streams = false
	old := s.snapshotAt(20, streamBytes)
	data, _, err := s.streamer().OpenSnap(old.GetMetadata())
	if err != nil {
		s.Fatalf("OpenSnap: %v; want the data", err)
	}
	s.release(s.snapshotAt(30, 10))
	got, err := io.ReadAll(data)
	if err != nil || !bytes.Equal(got, old.Data) {
		s.Fatalf("a snapshot opened before a later one was saved and released: %d bytes of %d, %v", len(got), len(old.Data), err)
	}
	if err := data.Close(); err != nil {
		s.Fatalf("close it: %v", err)
	}
	s.release(s.snapshotAt(31, 10))
	if data, _, err := s.streamer().OpenSnap(snap(35, 1, 0).GetMetadata()); err == nil {
		data.Close()
		s.Fatalf("OpenSnap of a snapshot that was never saved: no error")
	}
	s.check("snapshots read while others were released")
}

func (s *store) readBack(what string, sn *raftpb.Snapshot) {
	s.Helper()
	data, size, err := s.streamer().OpenSnap(sn.GetMetadata())
	if err != nil {
		s.Fatalf("%s: OpenSnap: %v; want its data", what, err)
	}
	defer data.Close()
	if size != int64(len(sn.Data)) {
		s.Fatalf("%s: OpenSnap says %d bytes, want %d", what, size, len(sn.Data))
	}
	if len(sn.Data) < 1000 { // it reads in many ways
		err = iotest.TestReader(data, sn.Data)
	} else if got, readErr := io.ReadAll(data); !bytes.Equal(got, sn.Data) {
		err = errors.Join(readErr, fmt.Errorf("%d bytes are not those that were saved", len(got)))
	}
	if err != nil {
		s.Fatalf("%s: %v", what, err)
	}
}
