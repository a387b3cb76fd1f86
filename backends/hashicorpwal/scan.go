package hashicorpwal

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	hraft "github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"

	"github.com/raftbench/raftbench/backends"
)

// A segment is a header of 32 bytes and then batches. A batch is frames: an
// entry frame for each record; in the last batch of a sealed segment an index
// frame; and a commit frame with the CRC-32C of everything since the commit frame
// before (in the first batch: since the beginning of the file).
//
//	type (1 byte) | reserved (3) | length, or CRC (4) | payload | padding to 8
//
// The tail, the last segment, is preallocated, that is zero behind the last
// batch. A batch is begun when the one before was synced. So where the batches
// end in something that is not one, this is a torn batch that nobody was told
// of, unless a good batch follows anywhere: then it is damage.
const (
	segmentHeaderBytes = 32
	frameHeaderBytes   = 8
)

// scanned is what reading the segments yields.
type scanned struct {
	records []record
	// tail has been sealed, but wal-meta.db does not know it: where its index
	// stands in the file, 0 if it is not so.
	indexStart uint64
}

func segmentPath(dir string, info types.SegmentInfo) string {
	return filepath.Join(dir, segment.FileName(info))
}

// scan reads and verifies the segments, and clears what is torn behind the end of
// the tail.
func scan(dir string, state types.PersistentState) (*scanned, error) {
	out := &scanned{}
	next := uint64(0)
	for i, info := range state.Segments {
		path := segmentPath(dir, info)
		damage := func(format string, args ...any) error {
			return &backends.DamageError{File: path, Err: fmt.Errorf(format, args...)}
		}
		if info.MinIndex < info.BaseIndex || next > 0 && info.MinIndex != next {
			return nil, damage("the segment begins with record %d, expected was %d", info.MinIndex, next)
		}
		tail := info.SealTime.IsZero()
		if tail != (i == len(state.Segments)-1) {
			return nil, damage("the segment is sealed: %v, which is wrong in its place", !tail)
		}
		b, err := readSegment(path, info)
		switch {
		case errors.Is(err, os.ErrNotExist) && tail:
			return out, missingTail(dir, info)
		case errors.Is(err, os.ErrNotExist):
			return nil, damage("%w", err)
		case err != nil:
			return nil, err
		}
		if tail {
			if err := b.finishTail(path, info); err != nil {
				return nil, err
			}
			out.indexStart = b.indexStart
		} else if got := info.BaseIndex + uint64(b.count); got <= info.MaxIndex {
			return nil, damage("offset %d: bad batch; record %d should be there", b.end, got)
		}
		out.records = append(out.records, b.records...)
		next = info.MaxIndex + 1
	}
	return out, nil
}

// missingTail: the tail is entered in wal-meta.db before its file is made. But
// if there is a file of as late records that wal-meta.db does not know, and that
// raft-wal would delete, then wal-meta.db is wrong.
func missingTail(dir string, info types.SegmentInfo) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil {
		return err
	}
	for _, f := range files {
		var base, id uint64
		if n, err := fmt.Sscanf(filepath.Base(f), "%020d-%016x.wal", &base, &id); n == 2 && err == nil && base >= info.BaseIndex {
			return &backends.DamageError{File: segmentPath(dir, info), Err: fmt.Errorf("it is not there, but %s is", f)}
		}
	}
	return nil
}

// batches is what is good in a segment.
type batches struct {
	records    []record // those that are not deleted
	count      int      // of all
	end        int64    // where the last batch ends
	indexStart uint64   // of a sealed segment
	size       int64    // of the file
}

// readSegment reads batches until one is not good.
func readSegment(path string, info types.SegmentInfo) (*batches, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open a segment: %w", err)
	}
	defer f.Close()
	stat, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open a segment: %w", err)
	}
	b := &batches{size: stat.Size()}
	in := bufio.NewReaderSize(f, 64<<10)
	var batch []byte
	for {
		var good bool
		batch, good, err = readBatch(in, batch[:0], b.end, b.size)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if !good {
			return b, nil
		}
		if err := b.take(batch, info); err != nil {
			return nil, &backends.DamageError{File: path, Err: fmt.Errorf("batch at offset %d: %w", b.end, err)}
		}
		b.end += int64(len(batch))
	}
}

// readBatch reads the frames of one batch, up to and including its commit frame,
// whose checksum decides whether it is good. The first batch has the header of
// the file with it.
func readBatch(in *bufio.Reader, batch []byte, at, size int64) (_ []byte, good bool, err error) {
	grow := func(n int64) (bool, error) {
		if at+int64(len(batch))+n > size {
			return false, nil
		}
		old := len(batch)
		batch = append(batch, make([]byte, n)...)
		_, err := io.ReadFull(in, batch[old:])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return false, nil
		}
		return err == nil, err
	}
	if at == 0 {
		if ok, err := grow(segmentHeaderBytes); !ok {
			return batch, false, err
		}
	}
	for {
		start := len(batch)
		if ok, err := grow(frameHeaderBytes); !ok {
			return batch, false, err
		}
		typ, v := frameHeader(batch[start:])
		switch typ {
		case segment.FrameCommit:
			return batch, crc32.Checksum(batch[:start], castagnoli) == v, nil
		case segment.FrameEntry, segment.FrameIndex:
			if ok, err := grow(padded(v)); !ok {
				return batch, false, err
			}
		default:
			return batch, false, nil
		}
	}
}

func frameHeader(b []byte) (typ byte, lengthOrCRC uint32) {
	return b[0], binary.LittleEndian.Uint32(b[4:])
}

func padded(n uint32) int64 { return (int64(n) + 7) &^ 7 }

// take adds the records of a good batch.
func (b *batches) take(batch []byte, info types.SegmentInfo) error {
	at := 0
	if b.end == 0 {
		if base, id := binary.LittleEndian.Uint64(batch[8:]), binary.LittleEndian.Uint64(batch[16:]); base != info.BaseIndex || id != info.ID {
			return fmt.Errorf("this is segment %d, which begins with record %d", id, base)
		}
		at = segmentHeaderBytes
	}
	for at < len(batch) {
		typ, length := frameHeader(batch[at:])
		at += frameHeaderBytes
		switch typ {
		case segment.FrameCommit:
			return nil
		case segment.FrameIndex:
			b.indexStart = uint64(b.end) + uint64(at)
		case segment.FrameEntry:
			if err := b.takeRecord(batch[at:at+int(length)], info); err != nil {
				return err
			}
		}
		at += int(padded(length))
	}
	return nil
}

func (b *batches) takeRecord(payload []byte, info types.SegmentInfo) error {
	number := info.BaseIndex + uint64(b.count)
	b.count++
	if number < info.MinIndex || info.MaxIndex > 0 && number > info.MaxIndex {
		return nil
	}
	var l hraft.Log
	if err := (&wal.BinaryCodec{}).Decode(payload, &l); err != nil {
		return fmt.Errorf("record %d: %w", number, err)
	}
	r, err := fromLog(&l)
	if err != nil {
		return err
	}
	if r.number != number {
		return fmt.Errorf("record %d stands where %d should", r.number, number)
	}
	b.records = append(b.records, r)
	return nil
}

// finishTail decides whether what follows the last good batch is the remains of a
// torn one, and clears it: raft-wal does not, and could take a part of it for the
// end of a batch that is shorter.
func (b *batches) finishTail(path string, info types.SegmentInfo) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open the tail: %w", err)
	}
	defer f.Close()
	rest, err := restOf(f, b.end)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if len(rest) == 0 {
		return nil
	}
	if at := findBatch(rest); at >= 0 {
		return &backends.DamageError{File: path, Err: fmt.Errorf("offset %d: bad batch, and a good one at offset %d", b.end, b.end+int64(at))}
	}
	err = f.Truncate(b.end)
	if err == nil {
		err = fileutil.Preallocate(f, int64(info.SizeLimit), true)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return fmt.Errorf("clear a torn batch in %s: %w", path, err)
	}
	return nil
}

// restOf is what the file holds from offset to its last byte that is not zero,
// nil if there is none.
func restOf(f *os.File, offset int64) ([]byte, error) {
	var rest []byte
	buf, zeros := make([]byte, 64<<10), make([]byte, 64<<10)
	for at := offset; ; {
		next, ok := nextData(f, at)
		if !ok {
			break
		}
		n, err := f.ReadAt(buf, next)
		if !bytes.Equal(buf[:n], zeros[:n]) {
			rest = append(rest, make([]byte, next-offset-int64(len(rest)))...)
			rest = append(rest, buf[:n]...)
		}
		at = next + int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return bytes.TrimRight(rest, "\x00"), nil
}

// findBatch looks for a good batch in b, which begins behind one. Its checksum
// begins behind a commit frame, and any aligned byte of value 3 may be that of a
// commit frame: the rest of the frame, its own checksum, may be the damage.
func findBatch(b []byte) int {
	for at := 0; at+frameHeaderBytes <= len(b); at += frameHeaderBytes {
		if b[at] != segment.FrameCommit {
			continue
		}
		begin := at + frameHeaderBytes
		if isBatch(b[begin:]) {
			return begin
		}
	}
	return -1
}

// isBatch reports whether b begins with a good batch.
func isBatch(b []byte) bool {
	for at := int64(0); at+frameHeaderBytes <= int64(len(b)); {
		typ, v := frameHeader(b[at:])
		switch typ {
		case segment.FrameCommit:
			return at > 0 && crc32.Checksum(b[:at], castagnoli) == v
		case segment.FrameEntry, segment.FrameIndex:
			at += frameHeaderBytes + padded(v)
		default:
			return false
		}
	}
	return false
}
