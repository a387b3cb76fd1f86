package etcdwal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// A record of the WAL is, in the file, a length field of 8 bytes (padding in its
// top byte), a walpb.Record of that length, and padding to a multiple of 8:
//
//	length | 0x08 type | 0x10 crc | 0x1a n, n bytes of data | padding
//
// The crc runs over the data of all records since the log began, and each
// segment begins with a record that repeats it. Behind the last record of the
// last segment the file is preallocated, that is zero.
//
// A write that a power cut interrupted leaves sectors of zeros among those that
// were written, or a file that ends too early. wal.ReadAll takes a zero length
// for the end of the log, and reports io.ErrUnexpectedEOF for a record that
// holds a zero sector or reaches beyond the end of the file, which wal.Repair
// then cuts. But a damaged length field looks the same: it is zero, or names
// more bytes than there are. So what is behind the last good record must be
// looked at more closely: a sector is written whole or not at all, hence
//
//   - a zero length field is the end only if the rest of its sector is zero, too;
//   - a record is torn only if its own header, where it was written, agrees with
//     the length field.
//
// A segment has its full size before it gets its name, so one that is shorter was
// cut, unless it ends exactly behind a record: to clear what is behind the last
// one, ReadAll cuts the file there and extends it again, and a crash may fall in
// between.
//
// What is left undetected is damage that sets whole sectors of the last segment
// to zero, or cuts it behind a record, and takes no committed entry with it; that
// cannot be told from a crash.
const sectorBytes = 512

// scanned is what one reading of all segments yields.
type scanned struct {
	snapshots []*walpb.Snapshot
	metadata  []byte
	// tornAt is where the last segment ends in a torn record, -1 if it does not.
	tornAt int64
	// short: the last segment ends behind a record.
	short bool
}

// scan reads every record. What is wrong is a *backends.DamageError.
func scan(segments []segment) (*scanned, error) {
	out := &scanned{tornAt: -1}
	var crc uint32
	for i, seg := range segments {
		last := i == len(segments)-1
		next, err := out.readSegment(seg, crc, i == 0, last)
		if err != nil {
			return nil, err
		}
		crc = next
	}
	return out, nil
}

// readSegment takes in one segment and returns the checksum at its end.
func (s *scanned) readSegment(seg segment, crc uint32, first, last bool) (uint32, error) {
	f, err := os.Open(seg.path)
	if err != nil {
		return 0, fmt.Errorf("open a segment: %w", err)
	}
	defer f.Close()
	damage := func(at int64, err error) (uint32, error) {
		return 0, &backends.DamageError{File: seg.path, Err: fmt.Errorf("offset %d: %w", at, err)}
	}
	d := wal.NewDecoder(fileutil.NewFileReader(f))
	rec := &walpb.Record{}
	for n := 0; ; n++ {
		at := d.LastOffset()
		if err := d.Decode(rec); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) || !last && !errors.Is(err, io.EOF) {
				return damage(at, err)
			}
			if n < 2 {
				// The checksum and the metadata are synced before a segment gets its name.
				return damage(at, errors.New("the segment has no head"))
			}
			if !last {
				return d.LastCRC(), nil
			}
			return d.LastCRC(), s.end(seg, f, at, err)
		}
		switch {
		case n == 0 && (rec.GetType() != wal.CrcType || !first && rec.GetCrc() != crc):
			return damage(at, errors.New("the segment does not continue the one before it"))
		case n == 1 && rec.GetType() != wal.MetadataType:
			return damage(at, errors.New("the segment has no metadata"))
		}
		if err := s.take(rec, d, n); err != nil {
			return damage(at, err)
		}
	}
}

func (s *scanned) take(rec *walpb.Record, d wal.Decoder, n int) error {
	switch rec.GetType() {
	case wal.CrcType:
		if crc := d.LastCRC(); n > 0 && rec.Validate(crc) != nil {
			return wal.ErrCRCMismatch
		}
		d.UpdateCRC(rec.GetCrc())
	case wal.SnapshotType:
		sn := &walpb.Snapshot{}
		if err := proto.Unmarshal(rec.Data, sn); err != nil {
			return fmt.Errorf("snapshot record: %w", err)
		}
		s.snapshots = append(s.snapshots, sn)
	case wal.MetadataType:
		s.metadata = rec.Data
	}
	return nil
}

// end looks at what stands at offset at of the last segment, where the decoder
// gave up with io.EOF or io.ErrUnexpectedEOF.
func (s *scanned) end(seg segment, f *os.File, at int64, decodeErr error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if size := preallocated(s.metadata); info.Size() < size {
		if s.short = info.Size() == at; !s.short {
			return &backends.DamageError{File: seg.path, Err: fmt.Errorf("the file has %d bytes; it was made with %d", info.Size(), size)}
		}
	}
	torn, err := isTorn(f, info.Size(), at)
	if err != nil {
		return fmt.Errorf("%s: %w", seg.path, err)
	}
	if !torn {
		return &backends.DamageError{File: seg.path, Err: fmt.Errorf("offset %d: no record, and not a torn one: %w", at, decodeErr)}
	}
	if errors.Is(decodeErr, io.ErrUnexpectedEOF) {
		s.tornAt = at
	}
	return nil
}

// isTorn tells a torn record (or the clean end of the log) from a damaged one.
func isTorn(f io.ReaderAt, size, at int64) (bool, error) {
	// The length field's sector and the next: a record's header is shorter than a
	// sector.
	start := at / sectorBytes * sectorBytes
	buf := make([]byte, min(2*sectorBytes, size-start))
	if _, err := f.ReadAt(buf, start); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	own, next := buf[at-start:min(sectorBytes, int64(len(buf)))], buf[min(sectorBytes, int64(len(buf))):]
	if len(own) < 8 {
		return true, nil // the file ends within the length field
	}
	length := binary.LittleEndian.Uint64(own)
	if length == 0 {
		return isZero(own), nil
	}
	if top := length >> 56; top != 0 && (top < 0x81 || top > 0x87) {
		return false, nil
	}
	if isZero(next) { // or not there at all
		next = nil
	}
	return headerAgrees(append(own[8:len(own):len(own)], next...), length&(1<<56-1)), nil
}

func isZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// headerAgrees says whether b, which may end early, begins with a walpb.Record
// of the given size.
func headerAgrees(b []byte, size uint64) bool {
	var used uint64
	for _, field := range []protowire.Number{1, 2, 3} {
		if used == size {
			return field > 2 // a record without data
		}
		num, typ, n := protowire.ConsumeTag(b[used:])
		if n < 0 {
			return endsEarly(b[used:])
		}
		if num != field {
			return false
		}
		used += uint64(n)
		if want := protowire.VarintType; field < 3 && typ != want || field == 3 && typ != protowire.BytesType {
			return false
		}
		v, n := protowire.ConsumeVarint(b[used:])
		if n < 0 {
			return endsEarly(b[used:])
		}
		used += uint64(n)
		if field == 3 {
			used += v
		}
	}
	return used == size
}

// endsEarly: b is the beginning of a varint.
func endsEarly(b []byte) bool {
	for _, c := range b {
		if c < 0x80 {
			return false
		}
	}
	return len(b) < 10
}

// repair gives the last segment a clean end: no torn record, as wal.Repair does,
// but without the copy that it makes, and the full size, which wal.Repair takes
// away for good.
func (s *scanned) repair(last segment) error {
	if s.tornAt < 0 && !s.short {
		return nil
	}
	f, err := os.OpenFile(last.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("repair the end of the log: %w", err)
	}
	defer f.Close()
	if s.tornAt >= 0 {
		_, err = f.Seek(s.tornAt, io.SeekStart)
		if err == nil {
			err = fileutil.ZeroToEnd(f)
		}
	} else {
		err = fileutil.Preallocate(f, preallocated(s.metadata), true)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return fmt.Errorf("repair the end of %s: %w", last.path, err)
	}
	return nil
}

// preallocatedField is the field of the metadata at the head of each segment
// that holds the size to which the last segment is preallocated. The metadata is
// an etcdserverpb.Metadata, which knows fields 1 and 2.
const preallocatedField protowire.Number = 1000

func metadataFor(segmentBytes int64) []byte {
	b := protowire.AppendTag(nil, preallocatedField, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(segmentBytes))
}

// preallocated reads metadataFor back; 0 for a WAL that etcd made.
func preallocated(metadata []byte) int64 {
	for len(metadata) > 0 {
		num, typ, n := protowire.ConsumeTag(metadata)
		if n < 0 {
			return 0
		}
		metadata = metadata[n:]
		if num == preallocatedField && typ == protowire.VarintType {
			if v, n := protowire.ConsumeVarint(metadata); n > 0 {
				return int64(v)
			}
			return 0
		}
		if n = protowire.ConsumeFieldValue(num, typ, metadata); n < 0 {
			return 0
		}
		metadata = metadata[n:]
	}
	return 0
}
