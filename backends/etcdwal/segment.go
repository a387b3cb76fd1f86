package etcdwal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"github.com/raftbench/raftbench/backends"
)

// segmentSize guards wal.SegmentSizeBytes, a variable of the whole process that
// the WAL reads at every Save.
var segmentSize struct {
	sync.Mutex
	users int
}

// useSegmentSize sets the process's segment size until release is called. Two
// storages that live at the same time must agree on it.
func useSegmentSize(bytes int64) (release func(), err error) {
	segmentSize.Lock()
	defer segmentSize.Unlock()
	switch {
	case segmentSize.users == 0:
		wal.SegmentSizeBytes = bytes // nobody reads it now
	case wal.SegmentSizeBytes != bytes:
		return nil, &backends.ParamError{Backend: name, Reason: fmt.Sprintf(
			"segment: an open etcd-wal of this process uses %d bytes, this one wants %d; etcd has one size for a process", wal.SegmentSizeBytes, bytes)}
	}
	segmentSize.users++
	return sync.OnceFunc(func() {
		segmentSize.Lock()
		defer segmentSize.Unlock()
		segmentSize.users--
	}), nil
}

// segment is a file of the WAL: the seq-th, whose first entry has the index
// that the WAL was at when it was cut (or, after an overwrite, a later one).
type segment struct {
	path       string
	seq, index uint64
}

// listSegments returns the segments in order.
func listSegments(dir string) ([]segment, error) {
	names, err := fileutil.ReadDir(dir, fileutil.WithExt(".wal"))
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	var out []segment
	for _, name := range names {
		s := segment{path: filepath.Join(dir, name)}
		if _, err := fmt.Sscanf(name, "%016x-%016x.wal", &s.seq, &s.index); err != nil {
			return nil, fmt.Errorf("%s is not the name of a segment", s.path)
		}
		out = append(out, s)
	}
	return out, nil
}

// holding is the position of the segment from which a WAL is read that begins
// at a snapshot of the given index, as wal.Open chooses it; -1 if there is none.
func holding(segments []segment, index uint64) int {
	for i := len(segments) - 1; i >= 0; i-- {
		if segments[i].index <= index {
			return i
		}
	}
	return -1
}

// deleteSegments removes what a WAL that begins at a snapshot of the given index
// does not read, oldest first, up to a segment that the WAL has not unlocked.
func deleteSegments(dir string, index uint64) error {
	segments, err := listSegments(dir)
	if err != nil {
		return err
	}
	for _, s := range segments[:max(0, holding(segments, index))] {
		l, err := fileutil.TryLockFile(s.path, os.O_WRONLY, fileutil.PrivateFileMode)
		switch {
		case errors.Is(err, fileutil.ErrLocked):
			return nil
		case errors.Is(err, os.ErrNotExist): // another Release was here first
			continue
		case err != nil:
			return fmt.Errorf("lock an old segment: %w", err)
		}
		err = os.Remove(s.path)
		l.Close()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove an old segment: %w", err)
		}
	}
	return nil
}

// deleteSnapshots removes the snapshots below index. Those that were written but
// never recorded in the WAL go with them.
func deleteSnapshots(dir string, index uint64) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	for _, f := range files {
		var t, i uint64
		if n, err := fmt.Sscanf(f.Name(), "%016x-%016x", &t, &i); n != 2 || err != nil || !strings.HasSuffix(f.Name(), ".snap") || i >= index {
			continue
		}
		if err := os.Remove(filepath.Join(dir, f.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove an old snapshot: %w", err)
		}
	}
	return nil
}

func snapshotPath(dir string, term, index uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x-%016x.snap", term, index))
}
