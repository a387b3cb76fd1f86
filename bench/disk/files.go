package disk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"syscall"
	"time"
)

// files are the open files of a calibration.
type files struct {
	dir     string
	created []*os.File
	written *os.File // allocated and written before
	dsync   *os.File // the same file, opened with O_DSYNC
	direct  *os.File // and with O_DIRECT besides; nil where it was not asked for
	targets map[string]*target
	bytes   []byte // random; of newPages
	offset  int
}

func newFiles(dir string, opts Options) (*files, error) {
	bytes, err := newPages(2*slices.Max(opts.Sizes) + 2*directBlock)
	if err != nil {
		return nil, err
	}
	f := &files{dir: dir, targets: map[string]*target{}, bytes: bytes}
	// Random, so that neither a compressing file system nor a device that
	// recognises zeros is flattered.
	var seed [32]byte
	seed[0] = byte(opts.Seed)
	_, _ = rand.NewChaCha8(seed).Read(f.bytes) // cannot fail
	return f, nil
}

// payload is size bytes that differ from those of the call before, and begin at a multiple
// of align in memory.
func (f *files) payload(size, align int) []byte {
	f.offset = (f.offset + max(509, align)) % (len(f.bytes) - size)
	return f.bytes[f.offset/align*align:][:size]
}

func (f *files) create() (*os.File, error) {
	file, err := os.CreateTemp(f.dir, ".raftbench-disk-*")
	if err == nil {
		f.created = append(f.created, file)
	}
	return file, err
}

// remove closes and removes every file. Errors are of no use to anyone here: a
// file that cannot be removed has a name that says whose it is.
func (f *files) remove() {
	for _, again := range []*os.File{f.dsync, f.direct} {
		if again != nil {
			_ = again.Close()
		}
	}
	for _, file := range f.created {
		_ = file.Close()
		_ = os.Remove(file.Name())
	}
	freePages(f.bytes)
}

// target is a file that is written in one way, from its start to limit and then
// from its start again.
type target struct {
	*os.File
	next, limit int64
	align       int                  // of a write in memory; its length and its place are multiples too
	sync        func(*os.File) error // nil for O_DSYNC
	grows       bool                 // is cut at the limit, not overwritten
}

// target returns that of a kind and size. Growing files are one for each; what is
// overwritten is the same file for all.
func (f *files) target(ctx context.Context, kind string, size int) (*target, error) {
	key := fmt.Sprint(kind, size)
	if t := f.targets[key]; t != nil {
		return t, nil
	}
	t, err := f.open(ctx, kind)
	if err != nil {
		return nil, err
	}
	f.targets[key] = t
	return t, nil
}

func (f *files) open(ctx context.Context, kind string) (*target, error) {
	if kind == Append || kind == AppendFsync {
		file, err := f.create()
		t := &target{File: file, limit: growBytes, align: 1, grows: true, sync: fdatasync}
		if kind == AppendFsync {
			t.sync = (*os.File).Sync
		}
		return t, err
	}
	if err := f.prepare(ctx); err != nil {
		return nil, err
	}
	switch kind {
	case Dsync:
		return &target{File: f.dsync, limit: writtenBytes, align: 1}, nil
	case Direct:
		if f.direct == nil {
			var err error
			if f.direct, err = openDirect(f.written.Name()); err != nil {
				return nil, err
			}
		}
		return &target{File: f.direct, limit: writtenBytes, align: directBlock}, nil
	}
	return &target{File: f.written, limit: writtenBytes, align: 1, sync: fdatasync}, nil
}

// prepare writes the file that is overwritten, and opens it a second time.
func (f *files) prepare(ctx context.Context) error {
	if f.written != nil {
		return nil
	}
	file, err := f.create()
	if err != nil {
		return err
	}
	for at := int64(0); at < writtenBytes; at += int64(len(f.bytes)) {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		chunk := f.bytes[:min(int64(len(f.bytes)), writtenBytes-at)]
		if _, err := file.WriteAt(chunk, at); err != nil {
			return err
		}
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if f.dsync, err = openDsync(file.Name()); err != nil {
		return err
	}
	f.written = file
	return nil
}

// takesDirect tries a write past the page cache: some file systems refuse it when the file
// is opened, some when it is written, and some never.
func (f *files) takesDirect(ctx context.Context) (bool, error) {
	t, err := f.open(ctx, Direct)
	if err == nil {
		_, err = t.write(f.payload(directBlock, directBlock))
	}
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return false, nil
	}
	return err == nil, err
}

// makeRoom goes back to the start where a write would exceed the limit. It is
// not part of what is measured.
func (t *target) makeRoom(size int) error {
	if t.next+int64(size) <= t.limit {
		return nil
	}
	t.next = 0
	if !t.grows {
		return nil
	}
	if err := t.Truncate(0); err != nil {
		return err
	}
	return t.Sync()
}

// write writes data at the next place and makes it durable.
func (t *target) write(data []byte) (sample, error) {
	begin := time.Now()
	if _, err := t.WriteAt(data, t.next); err != nil {
		return sample{}, err
	}
	t.next += int64(len(data))
	if t.sync == nil {
		return sample{total: time.Since(begin)}, nil
	}
	written := time.Now()
	if err := t.sync(t.File); err != nil {
		return sample{}, err
	}
	end := time.Now()
	return sample{total: end.Sub(begin), sync: end.Sub(written)}, nil
}
