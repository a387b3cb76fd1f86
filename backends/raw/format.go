package raw

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/zeebo/xxh3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// The format of a segment file. Integers are little endian, checksums the lower half of
// XXH3-64: a torn write is found like by a CRC of as many bits, in less than half the
// time, and Save is measured against a write that has none (BenchmarkFloor).
//
//	header, at offset 0, written when the segment is prepared, and again with its first records
//	┌────────────────────┬──────────┬──────────┬──────────┬──────────┬───────┐
//	│ magic "raftraw\x02"│ number   │ size     │ ways     │ device   │ sum   │
//	│ 0                8 │ 8     12 │ 12    16 │ 16    20 │ 20    28 │ 28 32 │
//	└────────────────────┴──────────┴──────────┴──────────┴──────────┴───────┘
//	number   of the segment, as in the file's name
//	size     the file is never shorter than that again
//	ways     what was measured of a device (way.go): the better io, the better sync of
//	         buffered writes and that of direct ones, each a byte, and a zero; 0 is not known
//	device   which one
//	sum      of bytes 0 to 28
//
//	record, at a multiple of 8, length bytes long, the first at offset 32
//	┌───────┬────────┬────────┬────────┐
//	│ sum   │ length │ segment│ offset │  sum    of everything after it
//	│ 0   4 │ 4    8 │ 8   12 │ 12  16 │  length a multiple of 8
//	├───────┴──┬─────┴─────┬──┴────────┤
//	│ term     │ vote      │ commit    │  the hard state after this record
//	│ 16    24 │ 24     32 │ 32     40 │
//	├──────────┼───────┬───┴───┬───────┘
//	│ index    │ count │ kind  │  save:  count entries from index on
//	│ 40    48 │ 48 52 │ 52 56 │  reset: the log is empty and ends at index
//	├──────────┴───────┴───────┤  begin: the first record of a segment; those of
//	│ count entries, each      │         the segment before end at offset index,
//	│   term 8, flags 4,       │         0 where there is none
//	│   size 4, size bytes     │
//	│ zeros, up to 8           │
//	└──────────────────────────┘
//
// segment and offset say where the record stands: what an earlier life of a
// recycled file left behind, or a client stored as a value, is not taken for a
// record of this place. The flags of an entry are its type (bits 0 to 7) and
// which of its optional fields are set, so that it comes back as it was given.
// There is one encoding of a record: what decodes encodes to the same bytes.
const (
	magic      = "raftraw\x02"
	headerSize = 32
	recordSize = 56 // of a record without entries
	entrySize  = 16 // of an entry without Data
	alignment  = 8

	kindSave  = 0
	kindReset = 1
	kindBegin = 2

	flagTypeMask = 0xff
	flagHasType  = 1 << 8
	flagHasData  = 1 << 9
	flagsKnown   = flagTypeMask | flagHasType | flagHasData
)

func checksum(b []byte) uint32 { return uint32(xxh3.Hash(b)) }

// errNoRecord says that the bytes are no record of the place where they stand:
// the end of the log, a torn write, or damage.
var errNoRecord = errors.New("no valid record")

// header is the start of a segment.
type header struct {
	number, size uint32
	measured     measured
}

// What the bytes of ways stand for.
var (
	ioCodes   = []string{"", "buffered", "direct"}
	syncCodes = []string{"", "fdatasync", "dsync"}
)

func appendHeader(b []byte, h header) []byte {
	start := len(b)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint32(b, h.number)
	b = binary.LittleEndian.AppendUint32(b, h.size)
	b = append(b, code(ioCodes, h.measured.io), code(syncCodes, h.measured.buffered), code(syncCodes, h.measured.direct), 0)
	b = binary.LittleEndian.AppendUint64(b, h.measured.device)
	return binary.LittleEndian.AppendUint32(b, checksum(b[start:]))
}

// decodeHeader reports false where b does not start with a whole header.
func decodeHeader(b []byte) (header, bool) {
	if len(b) < headerSize || string(b[:8]) != magic ||
		checksum(b[:28]) != binary.LittleEndian.Uint32(b[28:]) {
		return header{}, false
	}
	h := header{number: binary.LittleEndian.Uint32(b[8:]), size: binary.LittleEndian.Uint32(b[12:])}
	m := measured{
		device: binary.LittleEndian.Uint64(b[20:]),
		io:     decoded(ioCodes, b[16]), buffered: decoded(syncCodes, b[17]), direct: decoded(syncCodes, b[18]),
	}
	if m.io != "" && m.buffered != "" && (m.io == "buffered" || m.direct != "") {
		h.measured = m
	}
	return h, true
}

func code(codes []string, s string) byte { return byte(slices.Index(codes, s)) }

// decoded is what a byte stands for; nothing where that is not known.
func decoded(codes []string, b byte) string {
	if int(b) < len(codes) {
		return codes[b]
	}
	return ""
}

// hardState is raftpb.HardState by value.
type hardState struct{ term, vote, commit uint64 }

// record is what one Save leaves in the log, or one of the two other kinds.
type record struct {
	kind  uint32
	hs    hardState
	index uint64 // of ents[0]; see the drawing for the other kinds
	ents  []*raftpb.Entry
}

// encodedSize is the length of r on disk. An error means that raft's rules are
// broken (entries that do not follow each other) or that r is too large.
func (r *record) encodedSize() (int64, error) {
	if len(r.ents) > 0 && r.index == 0 {
		return 0, errors.New("a batch starts at index 0")
	}
	n := int64(recordSize)
	for i, e := range r.ents {
		if e.GetIndex() != r.index+uint64(i) {
			return 0, fmt.Errorf("entry %d of a batch that starts at index %d has index %d", i, r.index, e.GetIndex())
		}
		if e.GetType()&^flagTypeMask != 0 {
			return 0, fmt.Errorf("entry %d has the unknown type %d", e.GetIndex(), e.GetType())
		}
		n += entrySize + int64(len(e.GetData()))
	}
	n = (n + alignment - 1) &^ (alignment - 1)
	if n > math.MaxInt32 {
		return 0, fmt.Errorf("a batch of %d bytes does not fit in one record", n)
	}
	return n, nil
}

// appendRecord appends r as it stands at offset of segment. It allocates only
// where b is too small.
func appendRecord(b []byte, r *record, segment uint32, offset int64) []byte {
	start := len(b)
	le := binary.LittleEndian
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // checksum and length, known at the end
	b = le.AppendUint32(b, segment)
	b = le.AppendUint32(b, uint32(offset))
	b = le.AppendUint64(b, r.hs.term)
	b = le.AppendUint64(b, r.hs.vote)
	b = le.AppendUint64(b, r.hs.commit)
	b = le.AppendUint64(b, r.index)
	b = le.AppendUint32(b, uint32(len(r.ents)))
	b = le.AppendUint32(b, r.kind)
	for _, e := range r.ents {
		flags := uint32(e.GetType()) & flagTypeMask
		if e.Type != nil {
			flags |= flagHasType
		}
		if e.Data != nil {
			flags |= flagHasData
		}
		b = le.AppendUint64(b, e.GetTerm())
		b = le.AppendUint32(b, flags)
		b = le.AppendUint32(b, uint32(len(e.Data)))
		b = append(b, e.Data...)
	}
	for (len(b)-start)%alignment != 0 {
		b = append(b, 0)
	}
	rec := b[start:]
	le.PutUint32(rec[4:], uint32(len(rec)))
	le.PutUint32(rec, checksum(rec[4:]))
	return b
}

// standsAt is the cheap half of decodeRecord: whether b could start a record
// that was written at offset of segment.
func standsAt(b []byte, segment uint32, offset int64) bool {
	return len(b) >= recordSize &&
		binary.LittleEndian.Uint32(b[8:]) == segment &&
		int64(binary.LittleEndian.Uint32(b[12:])) == offset
}

// decodeRecord reads the record at the start of b, which is what stands at
// offset of segment, and returns its length on disk. The error is errNoRecord
// where there is none; another one says that a record with a valid checksum
// makes no sense, which no crash explains. The entries' Data alias b.
func decodeRecord(b []byte, segment uint32, offset int64) (record, int64, error) {
	if !standsAt(b, segment, offset) {
		return record{}, 0, errNoRecord
	}
	le := binary.LittleEndian
	n := int64(le.Uint32(b[4:]))
	if n < recordSize || n%alignment != 0 || n > int64(len(b)) ||
		checksum(b[4:n]) != le.Uint32(b) {
		return record{}, 0, errNoRecord
	}
	b = b[:n]
	r := record{
		hs:    hardState{term: le.Uint64(b[16:]), vote: le.Uint64(b[24:]), commit: le.Uint64(b[32:])},
		index: le.Uint64(b[40:]),
		kind:  le.Uint32(b[52:]),
	}
	count := le.Uint32(b[48:])
	if r.kind > kindBegin || r.kind != kindSave && count > 0 {
		return record{}, 0, fmt.Errorf("unknown record kind %d with %d entries", r.kind, count)
	}
	var err error
	r.ents, err = decodeEntries(b[recordSize:], r.index, count)
	return r, n, err
}

// decodeEntries reads count entries from b, which they fill but for the padding.
func decodeEntries(b []byte, index uint64, count uint32) ([]*raftpb.Entry, error) {
	if int64(count)*entrySize > int64(len(b)) {
		return nil, fmt.Errorf("%d entries in %d bytes", count, len(b))
	}
	// Four allocations for a batch, not four for an entry.
	entries := make([]raftpb.Entry, count)
	numbers := make([]uint64, 2*count)
	types := make([]raftpb.EntryType, count)
	ents := make([]*raftpb.Entry, count)
	le := binary.LittleEndian
	for i := range entries {
		if len(b) < entrySize {
			return nil, fmt.Errorf("entry %d of %d is missing", i, count)
		}
		flags, size := le.Uint32(b[8:]), int64(le.Uint32(b[12:]))
		term := le.Uint64(b)
		b = b[entrySize:]
		if size > int64(len(b)) {
			return nil, fmt.Errorf("entry %d of %d has %d of %d bytes", i, count, len(b), size)
		}
		if flags&^flagsKnown != 0 || flags&flagHasType == 0 && flags != flags&flagHasData || flags&flagHasData == 0 && size > 0 {
			return nil, fmt.Errorf("entry %d of %d has %d bytes and the flags %#x", i, count, size, flags)
		}
		e := &entries[i]
		numbers[2*i], numbers[2*i+1] = term, index+uint64(i)
		e.Term, e.Index = &numbers[2*i], &numbers[2*i+1]
		if flags&flagHasType != 0 {
			types[i] = raftpb.EntryType(flags & flagTypeMask)
			e.Type = &types[i]
		}
		if flags&flagHasData != 0 {
			e.Data = b[:size:size]
		}
		b = b[size:]
		ents[i] = e
	}
	if len(b) >= alignment || len(bytes.TrimLeft(b, "\x00")) > 0 {
		return nil, fmt.Errorf("after the last entry stands %x", b)
	}
	return ents, nil
}

func (h hardState) proto() *raftpb.HardState {
	return &raftpb.HardState{Term: proto.Uint64(h.term), Vote: proto.Uint64(h.vote), Commit: proto.Uint64(h.commit)}
}
