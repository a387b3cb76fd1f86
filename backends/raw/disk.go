package raw

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends/internal/snapfile"
)

// disk is all that raw asks of a file system: one directory. The tests put one
// in its place that counts the steps, fails them, and cuts the power between
// them.
type disk interface {
	// path is what errors call a file.
	path(name string) string
	list() ([]string, error)
	// open opens a file for reading and writing; it is created if missing.
	open(name string) (file, error)
	// read returns the first max bytes of a file, or all if it has less.
	read(name string, max int64) ([]byte, error)
	rename(from, to string) error
	remove(name string) error
	// syncNames makes every open, rename and remove so far durable.
	syncNames() error

	saveSnapshot(snap *raftpb.Snapshot) error
	// stageSnapshot and openSnapshot are those of backends.SnapshotStreamer, for
	// the snapshot's file alone.
	stageSnapshot(meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (snapfile.File, error)
	openSnapshot(meta *raftpb.SnapshotMetadata) (io.ReadCloser, int64, error)
	// loadSnapshot returns the newest one, nil if there is none.
	loadSnapshot() (*raftpb.Snapshot, error)
	// releaseSnapshots removes those below index.
	releaseSnapshots(index uint64) error
}

// file is an open segment.
type file interface {
	size() (int64, error)
	// write and writeSync take whole pages: off, the length of p and its place in
	// memory are multiples of pageBytes. What write is given may stay in the page cache.
	write(p []byte, off int64) error
	// writeSync makes p durable, and the size of the file if p extends it.
	// Nothing else that was written before need be durable when it returns.
	writeSync(p []byte, off int64) error
	// sync makes everything written so far durable.
	sync() error
	// allocate reserves blocks up to size without writing them.
	allocate(size int64) error
	truncate(size int64) error
	close() error
}

// osDisk is a directory of the operating system.
type osDisk struct {
	dir    string
	way    way // without "auto"
	onSync func(time.Duration)
}

func (d *osDisk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *osDisk) list() ([]string, error) {
	files, err := os.ReadDir(d.dir)
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Name()
	}
	return names, err
}

func (d *osDisk) open(name string) (file, error) {
	f, err := os.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	o := &osFile{File: f, disk: d, synced: f}
	if flags := d.way.flags(); flags != 0 {
		if o.synced, err = os.OpenFile(d.path(name), os.O_RDWR|flags, 0); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return o, nil
}

func (d *osDisk) read(name string, max int64) ([]byte, error) {
	f, err := os.Open(d.path(name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(max, fi.Size()))
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, err
	}
	return b, nil
}

func (d *osDisk) rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d *osDisk) remove(name string) error { return os.Remove(d.path(name)) }

func (d *osDisk) syncNames() error {
	f, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.timed(f.Sync), f.Close())
}

func (d *osDisk) saveSnapshot(snap *raftpb.Snapshot) error { return snapfile.Save(d.dir, snap) }

func (d *osDisk) stageSnapshot(meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (snapfile.File, error) {
	return snapfile.Stage(d.dir, meta, size, data)
}

func (d *osDisk) openSnapshot(meta *raftpb.SnapshotMetadata) (io.ReadCloser, int64, error) {
	return snapfile.Open(d.dir, meta)
}

func (d *osDisk) loadSnapshot() (*raftpb.Snapshot, error) { return snapfile.Load(d.dir) }

func (d *osDisk) releaseSnapshots(index uint64) error { return snapfile.Release(d.dir, index) }

// timed reports how long a sync took to whoever asked for it.
func (d *osDisk) timed(sync func() error) error {
	if d.onSync == nil {
		return sync()
	}
	start := time.Now()
	err := sync()
	d.onSync(time.Since(start))
	return err
}

// osFile is a file of an osDisk. Its errors name the file.
type osFile struct {
	*os.File
	disk   *osDisk
	synced *os.File // what writeSync writes to: the same, or opened again with the flags of the way
}

func (f *osFile) size() (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

func (f *osFile) write(p []byte, off int64) error {
	_, err := f.WriteAt(p, off)
	return err
}

func (f *osFile) writeSync(p []byte, off int64) error {
	if f.disk.way.sync == "dsync" {
		return f.disk.timed(func() error {
			_, err := f.synced.WriteAt(p, off)
			return err
		})
	}
	if _, err := f.synced.WriteAt(p, off); err != nil {
		return err
	}
	return f.sync()
}

func (f *osFile) sync() error {
	if f.disk.way.sync == "fsync" {
		return f.disk.timed(f.Sync)
	}
	return f.disk.timed(f.fdatasync)
}

func (f *osFile) fdatasync() error {
	if err := fdatasync(f.File); err != nil {
		return &os.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
	}
	return nil
}

func (f *osFile) allocate(size int64) error {
	if err := fallocate(f.File, size); err != nil {
		return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
	}
	return nil
}

func (f *osFile) truncate(size int64) error { return f.Truncate(size) }

func (f *osFile) close() error {
	if f.synced != f.File {
		return errors.Join(f.synced.Close(), f.Close())
	}
	return f.Close()
}
