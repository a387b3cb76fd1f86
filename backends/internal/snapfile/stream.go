package snapfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// noData is the size of Data that is nil, which is not the same as empty.
const noData = -1

// copyBytes is how much of a stream is in memory at a time.
const copyBytes = 1 << 20

// Staged is a snapshot file that is whole and synced, under its temporary name.
type Staged struct {
	dir, tmp    string
	term, index uint64
}

// Stage writes a snapshot whose Data is read from data, which must hold exactly
// size bytes. The file is the same as that of Save.
func Stage(dir string, meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (*Staged, error) {
	if size < 0 {
		return nil, fmt.Errorf("write snapshot %d: its size is %d", meta.GetIndex(), size)
	}
	return stage(dir, meta, size, data)
}

func stage(dir string, meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (_ *Staged, err error) {
	s := &Staged{dir: dir, term: meta.GetTerm(), index: meta.GetIndex()}
	f, err := os.CreateTemp(dir, tmpPattern)
	if err != nil {
		return nil, fmt.Errorf("create a snapshot file: %w", ofDisk(err))
	}
	s.tmp = f.Name()
	err = writeFile(f, meta, size, data)
	if err == nil {
		err = ofDisk(f.Sync())
	}
	if err = errors.Join(err, ofDisk(f.Close())); err != nil {
		return nil, fmt.Errorf("write snapshot %d: %w", s.index, errors.Join(err, os.Remove(s.tmp)))
	}
	return s, nil
}

// diskError is what the file system said, as against what came from the stream.
type diskError struct{ error }

func (e diskError) Unwrap() error { return e.error }

func ofDisk(err error) error {
	if err == nil {
		return nil
	}
	return diskError{err}
}

// DiskFailed reports whether an error of Stage came from the file system. A storage
// whose disk has failed stops, whatever the file was for; that a peer goes away in the
// middle of a stream says nothing about the disk.
func DiskFailed(err error) bool {
	var d diskError
	return errors.As(err, &d)
}

// Publish gives the file its name, durably. After an error it is unknown whether
// it has it.
func (s *Staged) Publish() error {
	path := filepath.Join(s.dir, name(s.term, s.index))
	if err := os.Rename(s.tmp, path); err != nil {
		return fmt.Errorf("publish snapshot: %w", errors.Join(err, os.Remove(s.tmp)))
	}
	if err := syncDir(s.dir); err != nil {
		return fmt.Errorf("sync %s: %w", s.dir, err)
	}
	return nil
}

// Discard removes the file.
func (s *Staged) Discard() error {
	if err := os.Remove(s.tmp); err != nil {
		return fmt.Errorf("discard snapshot %d: %w", s.index, err)
	}
	return nil
}

// File is a staged file: a [*Staged], or what stands for one.
type File interface {
	Publish() error
	Discard() error
}

// Snap is a [backends.StagedSnap] whose Data is in a staged file.
type Snap struct {
	File
	Failure func() error      // why the storage takes nothing any more; nil where it does
	Saved   func(error) error // takes note of the file that has its name, or of why it has not
}

// Save implements [backends.StagedSnap].
func (s Snap) Save() error {
	if err := s.Failure(); err != nil {
		return errors.Join(err, s.Discard())
	}
	return s.Saved(s.Publish())
}

// writeFile writes header and body; the checksum, which is known last, goes to
// its place at the end.
func writeFile(f *os.File, meta *raftpb.SnapshotMetadata, size int64, data io.Reader) error {
	tail, err := proto.Marshal(&raftpb.Snapshot{Metadata: meta})
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	var field []byte
	if size != noData {
		field = protowire.AppendTag(nil, dataNumber, protowire.BytesType)
		field = protowire.AppendVarint(field, uint64(size))
	}
	body := uint64(len(field)) + uint64(max(size, 0)) + uint64(len(tail))
	head := append(make([]byte, 0, headerSize+len(field)), magic...)
	head = append(head, 0, 0, 0, 0)
	head = binary.LittleEndian.AppendUint64(head, body)
	head = append(head, field...)
	if _, err := f.Write(head); err != nil {
		return ofDisk(err)
	}
	sum := crc32.New(castagnoli)
	sum.Write(head[crcOffset+4:])
	w := io.MultiWriter(&earlyWriter{f: f, written: int64(len(head))}, sum)
	if size != noData {
		if err := copyExactly(w, data, size); err != nil {
			return err
		}
	}
	if _, err := w.Write(tail); err != nil {
		return err
	}
	_, err = f.WriteAt(binary.LittleEndian.AppendUint32(nil, sum.Sum32()), int64(crcOffset))
	return ofDisk(err)
}

// earlyBytes is how much is written between two hints to the kernel to begin with
// the disk: large enough for a disk to be at its best, small beside what a
// snapshot is worth a hint for.
const earlyBytes = 8 << 20

// earlyWriter keeps the disk busy while more of a file arrives. Otherwise the
// kernel would hold all of it until Sync, or until a good part of the memory is
// dirty, and the disk would begin when the peer has ended.
type earlyWriter struct {
	f              *os.File
	written, begun int64
}

func (w *earlyWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.written += int64(n)
	if err == nil && w.written-w.begun >= earlyBytes {
		err = startWriteback(w.f, w.begun, w.written-w.begun)
		w.begun = w.written
	}
	return n, ofDisk(err)
}

// copyExactly copies size bytes of data, which must end there. A reader that
// writes by itself, as a bytes.Reader, is not copied through a buffer.
func copyExactly(w io.Writer, data io.Reader, size int64) error {
	limited := &limitedWriter{w: w, left: size}
	if _, err := io.CopyBuffer(limited, data, make([]byte, min(copyBytes, size+1))); err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", size-limited.left, size, err)
	}
	if limited.left > 0 {
		return fmt.Errorf("the data ends after %d of %d bytes: %w", size-limited.left, size, io.ErrUnexpectedEOF)
	}
	return nil
}

// limitedWriter refuses what exceeds a size.
type limitedWriter struct {
	w    io.Writer
	left int64
}

var errTooLong = errors.New("the data goes on")

func (l *limitedWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > l.left {
		return 0, errTooLong
	}
	n, err := l.w.Write(p)
	l.left -= int64(n)
	return n, err
}

// Open reads the Data of the snapshot that was saved with meta, and its size. The
// file stays readable when Release removes it. Data that differs from what was
// saved ends in a *[backends.DamageError] instead of io.EOF.
func Open(dir string, meta *raftpb.SnapshotMetadata) (_ io.ReadCloser, size int64, err error) {
	path := filepath.Join(dir, name(meta.GetTerm(), meta.GetIndex()))
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read snapshot %d: %w", meta.GetIndex(), err)
	}
	r := &reader{f: f, path: path, sum: crc32.New(castagnoli)}
	if err := r.readHead(); err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return r, r.left, nil
}

// reader reads the Data of a file and checks all of it on the way.
type reader struct {
	f        *os.File
	path     string
	sum      hash.Hash32
	want     uint32
	left     int64 // of Data
	tail     int64 // bytes after Data
	verified bool
	err      error
}

// The longest tag and length of the field Data.
const maxFieldHead = 2 * binary.MaxVarintLen64

func (r *reader) damaged(format string, args ...any) error {
	r.err = &backends.DamageError{File: r.path, Err: fmt.Errorf(format, args...)}
	return r.err
}

func (r *reader) readHead() error {
	fi, err := r.f.Stat()
	if err != nil {
		return fmt.Errorf("read a snapshot: %w", err)
	}
	b := make([]byte, min(int64(headerSize+maxFieldHead), fi.Size()))
	if _, err := r.f.ReadAt(b, 0); err != nil {
		return fmt.Errorf("read a snapshot: %w", err)
	}
	if len(b) < headerSize || string(b[:crcOffset]) != magic {
		return r.damaged("not a snapshot file (%d bytes, or another format)", fi.Size())
	}
	body := fi.Size() - int64(headerSize)
	if n := binary.LittleEndian.Uint64(b[crcOffset+4:]); n != uint64(body) {
		return r.damaged("the header says %d bytes, the file has %d", n, body)
	}
	r.want = binary.LittleEndian.Uint32(b[crcOffset:])
	size, head := dataField(b[headerSize:])
	if size > body-int64(head) {
		return r.damaged("%d bytes of data do not fit in %d", size, body-int64(head))
	}
	r.left = max(size, 0)
	r.tail = body - int64(head) - r.left
	start := headerSize + head
	r.sum.Write(b[crcOffset+4 : start])
	if _, err := r.f.Seek(int64(start), io.SeekStart); err != nil {
		return fmt.Errorf("read a snapshot: %w", err)
	}
	return nil
}

func (r *reader) Read(p []byte) (n int, err error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.left > 0 {
		n, err = r.f.Read(p[:min(int64(len(p)), r.left)])
		r.sum.Write(p[:n])
		r.left -= int64(n)
		if errors.Is(err, io.EOF) {
			return n, r.damaged("the file became shorter while it was read")
		}
		if err != nil || r.left > 0 {
			return n, err
		}
	}
	// The last byte is not handed out before it is known to be right.
	if err := r.verify(); err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// verify reads what follows Data and compares the checksum of the whole.
func (r *reader) verify() error {
	if r.verified {
		return nil
	}
	if _, err := io.CopyN(r.sum, r.f, r.tail); err != nil {
		return r.damaged("the file became shorter while it was read")
	}
	if sum := r.sum.Sum32(); sum != r.want {
		return r.damaged("checksum is %08x, the header says %08x", sum, r.want)
	}
	r.verified = true
	return nil
}

func (r *reader) Close() error { return r.f.Close() }

// dataNumber is the field number of raftpb.Snapshot.data. Fields are encoded in
// the order of their numbers, so it comes first.
const dataNumber = 1

// dataField reads where Data begins in an encoded snapshot, and its size, noData
// where the snapshot has none.
func dataField(body []byte) (size int64, head int) {
	number, kind, n := protowire.ConsumeTag(body)
	if n < 0 || number != dataNumber || kind != protowire.BytesType {
		return noData, 0
	}
	length, m := protowire.ConsumeVarint(body[n:])
	if m < 0 || length > 1<<62 {
		return noData, 0
	}
	return int64(length), n + m
}
