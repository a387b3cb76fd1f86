package raw

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
)

// recovered is what a directory holds.
type recovered struct {
	replay
	snap *raftpb.Snapshot
	// conflict says that the log does not hold what the snapshot stands for:
	// its entries are void, and a reset record must say so.
	conflict bool
	segs     []*segment // that were begun, in order, with their last; no file is open
	end      int64      // where the records of the last of them end
	tail     []byte     // what stands before that, from the start of its page

	next, found uint32     // the first number that was not begun, the highest that has a file
	released    []*segment // what an interrupted Release left
	spares      []string
	probes      []string // what an interrupted measurement left
}

// recoverDir turns what d holds into a State. It changes nothing.
func recoverDir(d disk) (*recovered, backends.State, error) {
	r, err := readDir(d)
	if err != nil {
		return nil, backends.State{}, err
	}
	if r.conflict = r.conflicts(); r.conflict {
		r.ents = nil
	}
	var hs *raftpb.HardState
	if r.hs != (hardState{}) {
		hs = r.hs.proto()
	}
	st, err := backends.Recover(d.path("."), hs, r.snap, r.ents)
	return r, st, err
}

// readDir reads everything and changes nothing (but for the temporary files of
// unfinished snapshots). The package comment says what is damage and why.
func readDir(d disk) (*recovered, error) {
	names, err := d.list()
	if err != nil {
		return nil, err
	}
	r := &recovered{}
	if r.snap, err = d.loadSnapshot(); err != nil {
		return nil, err
	}
	var numbers []uint32
	for _, name := range names {
		if n, ok := parseName(name, segmentSuffix); ok {
			numbers = append(numbers, n)
		} else if _, ok := parseName(name, spareSuffix); ok {
			r.spares = append(r.spares, name)
		} else if slices.Contains(probeNames, name) {
			r.probes = append(r.probes, name)
		}
	}
	slices.Sort(numbers)
	// The log is what is numbered without a gap up to the highest number. A
	// power cut within Release may leave some of what stood before; whether
	// something is missing shows in the indexes of the entries.
	first := len(numbers) - 1
	for first > 0 && numbers[first-1] == numbers[first]-1 {
		first--
	}
	if first < 0 {
		first = 0
	}
	for _, n := range numbers[:first] {
		r.released = append(r.released, &segment{number: n})
	}
	if err := r.readSegments(d, numbers[first:]); err != nil {
		return nil, err
	}
	if len(r.segs) == 0 {
		if err := r.checkNothingBegun(d, numbers[first:]); err != nil {
			return nil, err
		}
	}
	r.next, r.found = 1, 0
	if n := len(numbers); n > 0 {
		r.next, r.found = numbers[first]+uint32(len(r.segs)), numbers[n-1]
	}
	return r, nil
}

// checkNothingBegun tells a new directory, where a crash may have left prepared
// segments and even a first snapshot, from one whose log was taken away. numbers
// are those of the prepared segments.
func (r *recovered) checkNothingBegun(d disk, numbers []uint32) error {
	if len(numbers) > 0 && numbers[0] != 1 {
		return &backends.DamageError{File: d.path(segmentName(numbers[0] - 1)),
			Err: errors.New("the segments that hold the log are missing")}
	}
	if len(numbers) == 0 && r.snap != nil {
		return &backends.DamageError{File: d.path(segmentName(1)),
			Err: errors.New("there is a snapshot, but no segment")}
	}
	return nil
}

// readSegments replays the segments of numbers that were begun: those before the
// first one that was not.
func (r *recovered) readSegments(d disk, numbers []uint32) error {
	var prev []byte // the segment before, whose end the next one knows
	for i, n := range numbers {
		b, err := d.read(segmentName(n), math.MaxInt64)
		if err != nil {
			return err
		}
		prevEnd, begun, err := readBegin(d, b, n, i == len(numbers)-1)
		if err != nil {
			return err
		}
		if !begun {
			if err := checkNotBegun(d, numbers[i:]); err != nil {
				return err
			}
			break
		}
		if i > 0 {
			if err := r.readWhole(d, prev, prevEnd); err != nil {
				return err
			}
		}
		r.segs = append(r.segs, &segment{number: n})
		prev = b
	}
	if len(r.segs) == 0 {
		return nil
	}
	return r.readTail(d, prev)
}

// readBegin checks the header of segment n, whose bytes are b, and says whether
// it was begun and where the segment before it ends. Only the last segment can
// be without a header: the next one is not created before it has one.
func readBegin(d disk, b []byte, n uint32, last bool) (prevEnd int64, begun bool, err error) {
	h, ok := decodeHeader(b)
	if ok = ok && h.number == n; !ok && !last {
		return 0, false, damaged(d, n, "no valid header")
	}
	if ok && int64(len(b)) < int64(h.size) {
		return 0, false, damaged(d, n, "%d bytes long, but had %d when it was prepared", len(b), h.size)
	}
	if ok {
		rec, _, err := decodeRecord(b[headerSize:], n, headerSize)
		if err == nil && rec.kind != kindBegin {
			err = fmt.Errorf("a record of kind %d", rec.kind)
		}
		if !errors.Is(err, errNoRecord) {
			if err != nil {
				err = damaged(d, n, "offset %d: %w", headerSize, err)
			}
			return int64(rec.index), err == nil, err
		}
	}
	// The way of a segment that was not begun, if no record proves otherwise.
	if off, ok := findRecord(b, n, headerSize); ok {
		return 0, false, damaged(d, n, "it does not begin as it should, but there is a record at offset %d", off)
	}
	return 0, false, nil
}

// checkNotBegun is called where numbers[0] was not begun: then those after it
// were not, either.
func checkNotBegun(d disk, numbers []uint32) error {
	for _, n := range numbers[1:] {
		b, err := d.read(segmentName(n), headerSize+recordSize)
		if err != nil {
			return err
		}
		if _, begun := findRecord(b, n, headerSize); begun {
			return damaged(d, numbers[0], "it does not begin as it should, but segment %d was begun after it", n)
		}
	}
	return nil
}

// readWhole replays the newest of r.segs, which holds durable records up to end.
func (r *recovered) readWhole(d disk, b []byte, end int64) error {
	n := r.segs[len(r.segs)-1].number
	if end < headerSize || end > int64(len(b)) {
		return damaged(d, n, "%d bytes long, but its records end at %d", len(b), end)
	}
	for off := int64(headerSize); off < end; {
		rec, size, err := decodeRecord(b[off:end], n, off)
		if err == nil {
			err = r.apply(rec, off, r.segs)
		}
		if err != nil {
			return damaged(d, n, "offset %d: %w", off, err)
		}
		off += size
	}
	return nil
}

// readTail replays the last segment up to where its valid records end, and
// looks for the proof that more should be valid: a record further on.
func (r *recovered) readTail(d disk, b []byte) error {
	n := r.segs[len(r.segs)-1].number
	off := int64(headerSize)
	for {
		rec, size, err := decodeRecord(b[off:], n, off)
		if errors.Is(err, errNoRecord) {
			break
		}
		if err == nil {
			err = r.apply(rec, off, r.segs)
		}
		if err != nil {
			return damaged(d, n, "offset %d: %w", off, err)
		}
		off += size
	}
	if later, ok := findRecord(b, n, off+alignment); ok {
		return damaged(d, n, "offset %d: %w, but one at offset %d, which was written after it was on disk", off, errNoRecord, later)
	}
	r.end, r.tail = off, b[off/pageBytes*pageBytes:off]
	return nil
}

// findRecord looks for a valid record of a segment at or after off.
func findRecord(b []byte, segment uint32, off int64) (int64, bool) {
	for ; off+recordSize <= int64(len(b)); off += alignment {
		if !standsAt(b[off:], segment, off) {
			continue
		}
		if _, _, err := decodeRecord(b[off:], segment, off); !errors.Is(err, errNoRecord) {
			return off, true
		}
	}
	return 0, false
}

func damaged(d disk, number uint32, format string, args ...any) error {
	return &backends.DamageError{File: d.path(segmentName(number)), Err: fmt.Errorf(format, args...)}
}

// replay is the log as the records read so far leave it.
type replay struct {
	hs   hardState
	ents []*raftpb.Entry
	log  logTerms
}

// apply adds one record, which stands at off of the last of segs.
func (r *replay) apply(rec record, off int64, segs []*segment) error {
	r.hs = rec.hs
	if (rec.kind == kindBegin) != (off == headerSize) {
		return fmt.Errorf("a record of kind %d", rec.kind)
	}
	if rec.kind == kindReset {
		r.ents = nil
		r.log.reset(rec.index)
		forget(segs, 0)
		return nil
	}
	if len(rec.ents) == 0 {
		return nil
	}
	if !r.log.empty() && rec.index > r.log.last+1 {
		return fmt.Errorf("the log jumps from index %d to %d", r.log.last, rec.index)
	}
	if n := len(r.ents); n > 0 {
		first := r.ents[0].GetIndex()
		r.ents = r.ents[:min(uint64(n), max(rec.index, first)-first)]
	}
	r.ents = append(r.ents, rec.ents...)
	if rec.index <= r.log.last {
		forget(segs, rec.index)
	}
	r.log.append(rec.index, rec.ents)
	segs[len(segs)-1].last = r.log.last
	return nil
}

// conflicts reports whether the log does not hold the entry that the snapshot
// stands for: it ends before it, or has another term there. A log that starts
// after the snapshot's entry was released up to it, or has a gap, which is for
// backends.Recover to find.
func (r *recovered) conflicts() bool {
	m := r.snap.GetMetadata()
	if r.log.last < m.GetIndex() {
		return true
	}
	return len(r.ents) > 0 && r.ents[0].GetIndex() <= m.GetIndex() && !r.log.holds(m.GetIndex(), m.GetTerm())
}

// forget records that the entries from index on are no longer those of segs.
func forget(segs []*segment, index uint64) {
	for _, s := range segs {
		if s.last >= index {
			s.last = max(index, 1) - 1
		}
	}
}

// logTerms knows the term of every entry of the log, by the index at which each
// term begins: a handful of numbers, whatever the length of the log.
type logTerms struct {
	runs []termRun
	last uint64 // index of the last entry
}

type termRun struct{ first, term uint64 }

// empty reports whether nothing was ever stored.
func (l *logTerms) empty() bool { return l.last == 0 }

// reset drops every entry; the next one will be index+1.
func (l *logTerms) reset(index uint64) { l.runs, l.last = l.runs[:0], index }

// append stores ents, which start at first and replace what stood there.
func (l *logTerms) append(first uint64, ents []*raftpb.Entry) {
	n := len(l.runs)
	for n > 0 && l.runs[n-1].first >= first {
		n--
	}
	l.runs = l.runs[:n]
	for i, e := range ents {
		term := e.GetTerm()
		if n == 0 || l.runs[n-1].term != term {
			l.runs = append(l.runs, termRun{first + uint64(i), term})
			n++
		}
	}
	l.last = first + uint64(len(ents)) - 1
}

// holds reports whether the entry at index is there and has the given term.
func (l *logTerms) holds(index, term uint64) bool {
	if index > l.last {
		return false
	}
	for _, r := range slices.Backward(l.runs) {
		if r.first <= index {
			return r.term == term
		}
	}
	return false
}

// release forgets the terms of entries below index.
func (l *logTerms) release(index uint64) {
	for len(l.runs) > 1 && l.runs[1].first <= index {
		l.runs = slices.Delete(l.runs, 0, 1)
	}
}
