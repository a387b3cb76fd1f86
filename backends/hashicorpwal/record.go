package hashicorpwal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sort"

	hraft "github.com/hashicorp/raft"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// maxData is less than raft-wal's limit for a frame, segment.MaxEntrySize, by
// more than the rest of a record takes.
const maxData = 64<<20 - 1<<10

// record is one element of the log, as a raft.Log: Index is the number of the
// record, Term and Data are those of the entry, and Extensions hold
//
//	flags                         1 byte: 1 entry, 2 hard state
//	type, index                   uvarints, where there is an entry
//	term, vote, commit            uvarints, where there is a hard state
//	CRC-32C                       4 bytes, little endian: of the record's number,
//	                              its term, the bytes above, and Data
//
// raft-wal has a checksum for a batch, but none for an element.
type record struct {
	number uint64
	entry  *raftpb.Entry     // nil: a hard state alone
	hs     *raftpb.HardState // nil: not the last record of its batch
}

const (
	hasEntry byte = 1 << iota
	hasHardState
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r record) toLog(l *hraft.Log) {
	ext := make([]byte, 1, 64)
	l.Index, l.Type = r.number, hraft.LogNoop
	if e := r.entry; e != nil {
		l.Type, l.Term, l.Data = hraft.LogCommand, e.GetTerm(), e.Data
		ext[0] |= hasEntry
		ext = binary.AppendUvarint(ext, uint64(e.GetType()))
		ext = binary.AppendUvarint(ext, e.GetIndex())
	}
	if r.hs != nil {
		ext[0] |= hasHardState
		ext = binary.AppendUvarint(ext, r.hs.GetTerm())
		ext = binary.AppendUvarint(ext, r.hs.GetVote())
		ext = binary.AppendUvarint(ext, r.hs.GetCommit())
	}
	l.Extensions = binary.LittleEndian.AppendUint32(ext, checksum(l, ext))
}

func checksum(l *hraft.Log, ext []byte) uint32 {
	var head [16]byte
	binary.LittleEndian.PutUint64(head[:], l.Index)
	binary.LittleEndian.PutUint64(head[8:], l.Term)
	crc := crc32.Update(0, castagnoli, head[:])
	crc = crc32.Update(crc, castagnoli, ext)
	return crc32.Update(crc, castagnoli, l.Data)
}

// fromLog is the inverse of toLog. The record takes over l.Data.
func fromLog(l *hraft.Log) (record, error) {
	r := record{number: l.Index}
	if len(l.Extensions) < 5 {
		return r, fmt.Errorf("record %d: not a record of this backend", l.Index)
	}
	ext, crc := l.Extensions[:len(l.Extensions)-4], binary.LittleEndian.Uint32(l.Extensions[len(l.Extensions)-4:])
	if got := checksum(l, ext); got != crc {
		return r, fmt.Errorf("record %d: checksum is %08x, the record says %08x", l.Index, got, crc)
	}
	flags, rest := ext[0], ext[1:]
	var err error
	next := func() *uint64 {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			err, n = errors.New("it ends early"), 0
		}
		rest = rest[n:]
		return &v
	}
	if flags&hasEntry != 0 {
		r.entry = &raftpb.Entry{Type: raftpb.EntryType(*next()).Enum(), Index: next(), Term: proto.Uint64(l.Term), Data: l.Data}
	}
	if flags&hasHardState != 0 {
		r.hs = &raftpb.HardState{Term: next(), Vote: next(), Commit: next()}
	}
	if err == nil && (len(rest) > 0 || flags&^(hasEntry|hasHardState) != 0) {
		err = errors.New("it holds something else")
	}
	if err != nil {
		return r, fmt.Errorf("record %d: %w", l.Index, err)
	}
	return r, nil
}

// logIndex knows the records of the entries that count, in runs of consecutive
// entries of one term in consecutive records: a few runs, however many entries.
type logIndex struct{ runs []run }

type run struct {
	index, count uint64
	number       uint64 // of the record of the first entry
	term         uint64
}

func (r run) end() uint64 { return r.index + r.count }

// put adds an entry and cuts what it replaces.
func (x *logIndex) put(index, term, number uint64) {
	for n := len(x.runs); n > 0 && x.runs[n-1].end() > index; n-- {
		if last := &x.runs[n-1]; last.index < index {
			last.count = index - last.index
		} else {
			x.runs = x.runs[:n-1]
		}
	}
	if n := len(x.runs); n > 0 {
		if last := &x.runs[n-1]; last.end() == index && last.term == term && last.number+last.count == number {
			last.count++
			return
		}
	}
	x.runs = append(x.runs, run{index: index, count: 1, number: number, term: term})
}

// holds reports whether the entry at index is there and has this term.
func (x *logIndex) holds(index, term uint64) bool {
	i := sort.Search(len(x.runs), func(i int) bool { return x.runs[i].end() > index })
	return i < len(x.runs) && x.runs[i].index <= index && x.runs[i].term == term
}

// dropTo forgets the entries up to index.
func (x *logIndex) dropTo(index uint64) {
	i := sort.Search(len(x.runs), func(i int) bool { return x.runs[i].end() > index+1 })
	x.runs = append([]run(nil), x.runs[i:]...)
	if len(x.runs) > 0 && x.runs[0].index <= index {
		first := &x.runs[0]
		gone := index + 1 - first.index
		first.index, first.number, first.count = index+1, first.number+gone, first.count-gone
	}
}

// number is that of the first entry's record, 0 if there is no entry.
func (x *logIndex) number() uint64 {
	if len(x.runs) == 0 {
		return 0
	}
	return x.runs[0].number
}

// last is the index of the last entry, 0 if there is none.
func (x *logIndex) last() uint64 {
	if n := len(x.runs); n > 0 {
		return x.runs[n-1].end() - 1
	}
	return 0
}
