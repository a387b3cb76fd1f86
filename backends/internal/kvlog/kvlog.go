// Package kvlog keeps a raft log in an ordered key-value engine: the part that
// the bbolt, badger and pebble backends share.
//
// It promises the rules of package backends for any engine that keeps the few
// promises of [Engine]. What it leaves to the engine's package: opening and
// locking the directory, the engine's settings, and turning what its engine does
// in trouble (panics, background threads that give up) into an error of Commit.
//
// # Keys and values
//
// Numbers are big endian, so that the order of the keys is the order of the log.
// Every value ends with the CRC-32C of its key and of what stands before it,
// because not every engine checks its pages (bbolt does not), and because a
// value that turns up under another key is as wrong as one that has changed.
//
//	key                          value
//	'c' generation(8) number(4)  data                                       crc(4)
//	'e' index(8)                 raftpb.Entry                               crc(4)
//	'h'                          last(8) raftpb.HardState                   crc(4)
//	's'                          generation(8) bytes(8) chunk(4) flags(1)
//	                             raftpb.SnapshotMetadata                    crc(4)
//
// Of flags, 1 says that Data was not nil, and 2 that it is in a file.
//
// 'e' records are the log. Protobuf was preferred to a shorter format of our
// own: it costs 0.1 µs of a Save of 200 µs, and other tools can read it.
//
// 'h' is written by every batch that changes the log. It holds the hard state,
// and the index of the last entry as a witness: a log that ends before it is
// damaged, not short.
//
// 's' names the current snapshot, whose Data is cut into 'c' records, because an
// engine keeps a batch in memory. They are written under a generation that was
// never used before and synced; then one batch with a new 's' makes them current.
// A crash before that leaves the older snapshot as it was, and chunks of no
// generation that is named, which Open deletes. Release deletes the chunks of the
// snapshots that were replaced.
//
// # Snapshots in files
//
// An engine writes what it is given more than once, and keeps some of it in memory.
// So Data is in a file, as hashicorp/raft keeps snapshots beside raft-boltdb, unless
// [SnapshotParam] says otherwise:
//
//	Dir/snap/<term>-<index>.snap           (package snapfile)
//	Dir/snap/<group>/<term>-<index>.snap   of a group in a shared engine
//
// An 's' record with the flag 2 names one: by its metadata, and with zero in bytes and
// chunk, which the file knows. The file is durable under its name before the record
// that names it is committed, and so the record alone says what is current: Open reads
// what the record leads to, chunks or file, however the engine is set, and takes no
// other file for newer. A file that is named and is missing, or does not match its own
// checksum, is damage.
//
// A crash before the record leaves a file that nothing names, or one with a temporary
// name; one after Release may bring back a file that was removed. Open removes them
// all. A snapshot that is saved a second time at its index and term replaces its own
// file under the same name; both are the same state, so that either will do. A file
// that is being read stays readable when it is removed.
//
// # What is forced to disk
//
// A Save is one batch, synced where raft.MustSync asks for it. A commit index
// alone need not be durable: it is committed without a sync where the engine has
// such a thing, and else waits in memory for the next batch, Sync or Close.
//
// The last index and the terms of the log are kept in memory, so that a Save that
// appends reads nothing and deletes nothing.
package kvlog

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// Op is one change of a batch: a put where Value is set, the deletion of the keys
// from Key to before End where End is set, and else the deletion of Key.
type Op struct {
	Key, Value, End []byte
}

// Engine is an ordered key-value store as this package needs it. Its methods but
// Close may be called by several goroutines at the same time.
//
// After an error of Commit or Sync no other call than Close follows.
type Engine interface {
	// Commit applies ops in order and atomically. With sync it returns when they,
	// and everything that was committed before, survive a power cut; without, a
	// crash may lose them, but only together with all that was committed later.
	// The slices are unchanged until it returns, and for ever after an error.
	Commit(ops []Op, sync bool) error
	// Iterate calls f for the keys from lo to before hi, in order, until it
	// returns an error, which Iterate returns. Key and value are f's until it
	// returns.
	Iterate(lo, hi []byte, f func(key, value []byte) error) error
	// Sync makes durable what was committed.
	Sync() error
	// Close frees files and locks.
	Close() error
}

// Config is what this package must know of an engine. Zero limits are none.
type Config struct {
	// Unsynced: a Commit without sync is cheaper than one with.
	Unsynced bool
	// RangeDelete: the engine knows Op.End.
	RangeDelete bool
	// MaxBatchBytes and MaxBatchOps bound one Commit. A larger Save becomes
	// several, each of which leaves a log that a node can start from.
	MaxBatchBytes, MaxBatchOps int
	// DeleteStep bounds the deletions of one Commit where RangeDelete is off:
	// what Release drops must not hold up Save.
	DeleteStep int
	// ChunkBytes is the length of a snapshot chunk; 0 is 1 MiB.
	ChunkBytes int
	// ChunksPerBatch is how many chunks one Commit holds; 0 is 1.
	ChunksPerBatch int
	// OneCommit: the engine makes one Commit after the other, so that those of
	// several groups that wait are better made as one. Others gather by themselves.
	OneCommit bool
	// Released, if set, is called at the end of every Release.
	Released func()
	// SnapDir is where files of snapshots are, see [SnapDir]. It need not exist; it
	// is made, in a directory that does, where SnapFiles is set.
	SnapDir string
	// SnapFiles: the Data of new snapshots goes to files.
	SnapFiles bool
	// Room, if set, says whether a file of so many bytes may be written beside the
	// engine. Its error is taken for one of the disk.
	Room func(bytes int64) error

	// failed, if set, is told of an error of the disk that the engine has not seen.
	failed func(error)
}

const (
	defaultChunkBytes = 1 << 20
	// maxKeptBuffer bounds the memory that a Save leaves for the next one.
	maxKeptBuffer = 8 << 20
)

// Storage is a raft log in an Engine.
type Storage struct {
	dir string
	e   Engine
	cfg Config

	closed atomic.Bool
	failed atomic.Pointer[error] // the first error; nothing is written after it

	// snapMu serialises SaveSnap and Release. It is taken before mu.
	snapMu  sync.Mutex
	lastGen uint64       // the highest generation that was ever used
	current snapRecord   // the zero record if there is no snapshot
	stale   []snapRecord // replaced, and to be deleted by Release
	pins    pins         // what is being read

	// mu guards the log.
	mu      sync.Mutex
	last    uint64      // of the log, or of the snapshot where it has no entries
	stored  []span      // the entries that the engine holds, in order
	terms   []termStart // of every entry above the snapshot
	hs      *raftpb.HardState
	hsBytes []byte // hs in protobuf
	pending bool   // hs waits for the next batch
	dirty   bool   // something was committed without a sync after it

	// What Save encodes, kept for the next one.
	buf   []byte
	ends  []int // of the records in buf
	state []byte
	ops   []Op
}

// termStart is the first index of a term in the log.
type termStart struct{ index, term uint64 }

// span is a run of entries, both ends included. There is more than one where
// snapshots were installed ahead of the log and nothing was released since.
type span struct{ lo, hi uint64 }

// usable returns why the storage must not be used any more.
func (s *Storage) usable() error {
	if s.closed.Load() {
		return fmt.Errorf("%s: %w", s.dir, backends.ErrClosed)
	}
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// fail makes every later call return the first error: whether what failed is on
// disk is unknown, and a second attempt to sync it may succeed without writing
// it.
func (s *Storage) fail(err error) error {
	s.failed.CompareAndSwap(nil, &err)
	return *s.failed.Load()
}

// commit is the only way to the engine. The caller has put the state record into
// ops where the log changes.
func (s *Storage) commit(what string, ops []Op, sync bool) error {
	if err := s.e.Commit(ops, sync); err != nil {
		return s.fail(fmt.Errorf("%s: %s: %w", s.dir, what, err))
	}
	return nil
}

// Save is Save of [backends.Storage].
func (s *Storage) Save(st *raftpb.HardState, ents []*raftpb.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	changed := !raft.IsEmptyHardState(st)
	if !changed {
		st = s.hs
	}
	if !changed && len(ents) == 0 {
		return nil
	}
	sync := raft.MustSync(st, s.hs, len(ents))
	before := s.hs.GetCommit()
	if changed {
		if err := s.setHardState(st); err != nil {
			return s.fail(err)
		}
	}
	if len(ents) > 0 {
		return s.append(ents, before)
	}
	if !sync && !s.cfg.Unsynced {
		s.pending = true
		return nil
	}
	return s.commitState(sync)
}

// setHardState replaces hs and hsBytes; st stays the caller's.
func (s *Storage) setHardState(st *raftpb.HardState) error {
	b, err := proto.MarshalOptions{}.MarshalAppend(s.hsBytes[:0], st)
	if err != nil {
		return fmt.Errorf("%s: encode the hard state: %w", s.dir, err)
	}
	s.hsBytes = b
	*s.hs.Term, *s.hs.Vote, *s.hs.Commit = st.GetTerm(), st.GetVote(), st.GetCommit()
	return nil
}

// stateOp is the put of the state record; it lives until the next call.
func (s *Storage) stateOp(last uint64, hardState []byte) Op {
	s.state = appendState(s.state[:0], last, hardState)
	return Op{Key: s.state[:1], Value: s.state[1:]}
}

// commitState commits the hard state alone.
func (s *Storage) commitState(sync bool) error {
	s.ops = append(s.ops[:0], s.stateOp(s.last, s.hsBytes))
	if err := s.commit("save the hard state", s.ops, sync); err != nil {
		return err
	}
	s.pending, s.dirty = false, !sync
	return nil
}

// append commits ents and the hard state, in one batch unless that is more than
// the engine takes. before is the commit index that was saved before this Save.
func (s *Storage) append(ents []*raftpb.Entry, before uint64) error {
	if err := s.encode(ents); err != nil {
		return s.fail(err)
	}
	for from := 0; from < len(ents); {
		to := s.partEnd(from)
		if err := s.appendPart(ents, from, to, before); err != nil {
			return err
		}
		from = to
	}
	s.pending, s.dirty = false, false
	if cap(s.buf) > maxKeptBuffer {
		s.buf = nil
	}
	clear(s.ops)
	return nil
}

// encode fills buf and ends.
func (s *Storage) encode(ents []*raftpb.Entry) error {
	first := ents[0].GetIndex()
	if first > s.last+1 || first == 0 {
		return fmt.Errorf("%s: save from index %d would leave a gap: the log ends at %d", s.dir, first, s.last)
	}
	s.buf, s.ends = s.buf[:0], s.ends[:0]
	for i, e := range ents {
		if want := first + uint64(i); e.GetIndex() != want {
			return fmt.Errorf("%s: save entry %d where %d must stand", s.dir, e.GetIndex(), want)
		}
		var err error
		if s.buf, err = appendEntry(s.buf, e); err != nil {
			return fmt.Errorf("%s: encode entry %d: %w", s.dir, e.GetIndex(), err)
		}
		s.ends = append(s.ends, len(s.buf))
	}
	return nil
}

func (s *Storage) start(i int) int {
	if i == 0 {
		return 0
	}
	return s.ends[i-1]
}

// partEnd is the end of the largest batch from record from, of one at least.
func (s *Storage) partEnd(from int) int {
	if s.cfg.MaxBatchBytes == 0 && s.cfg.MaxBatchOps == 0 {
		return len(s.ends)
	}
	to := from + 1
	for to < len(s.ends) &&
		(s.cfg.MaxBatchBytes == 0 || s.ends[to]-s.start(from) <= s.cfg.MaxBatchBytes) &&
		(s.cfg.MaxBatchOps == 0 || to-from < s.cfg.MaxBatchOps) {
		to++
	}
	return to
}

// appendPart commits ents[from:to] with the hard state.
//
// Every part but the last says that no more is committed than before this Save,
// since the entries that the new commit index counts may be in a later part. But
// the new term goes with the first part: a node must not start in a term older
// than its entries. A log that ends within a Save that did not return is what
// rule 1 allows.
func (s *Storage) appendPart(ents []*raftpb.Entry, from, to int, before uint64) error {
	last := ents[to-1].GetIndex()
	if err := s.shortenTail(last, before); err != nil {
		return err
	}
	ops := s.deletions(s.ops[:0], last+1, s.last)
	for i := from; i < to; i++ {
		r := s.buf[s.start(i):s.ends[i]]
		ops = append(ops, Op{Key: r[:entryKeySize:entryKeySize], Value: r[entryKeySize:]})
	}
	hardState := s.hsBytes
	if to < len(ents) {
		var err error
		if hardState, err = s.hardStateWithCommit(before); err != nil {
			return s.fail(err)
		}
	}
	ops = append(ops, s.stateOp(last, hardState))
	s.ops = ops
	if err := s.commit("save entries", ops, to == len(ents) || !s.cfg.Unsynced); err != nil {
		return err
	}
	s.noteStored(ents[from].GetIndex(), last)
	s.noteTerms(ents[from:to])
	return nil
}

func (s *Storage) hardStateWithCommit(commit uint64) ([]byte, error) {
	hs := proto.Clone(s.hs).(*raftpb.HardState)
	hs.Commit = proto.Uint64(min(commit, hs.GetCommit()))
	b, err := proto.Marshal(hs)
	if err != nil {
		return nil, fmt.Errorf("%s: encode the hard state: %w", s.dir, err)
	}
	return b, nil
}

// noteStored keeps last and stored in step with a Save of the entries lo to hi.
func (s *Storage) noteStored(lo, hi uint64) {
	s.last = hi
	s.cutStored(lo)
	if n := len(s.stored); n > 0 && s.stored[n-1].hi+1 == lo {
		s.stored[n-1].hi = hi
		return
	}
	s.stored = append(s.stored, span{lo, hi})
}

// cutStored forgets the entries from lo on.
func (s *Storage) cutStored(lo uint64) {
	n := len(s.stored)
	for n > 0 && s.stored[n-1].lo >= lo {
		n--
	}
	s.stored = s.stored[:n]
	if n > 0 {
		s.stored[n-1].hi = min(s.stored[n-1].hi, lo-1)
	}
}

// noteTerms keeps terms in step with a Save of ents.
func (s *Storage) noteTerms(ents []*raftpb.Entry) {
	s.terms = s.terms[:sort.Search(len(s.terms), func(i int) bool { return s.terms[i].index >= ents[0].GetIndex() })]
	for _, e := range ents {
		if n := len(s.terms); n == 0 || s.terms[n-1].term != e.GetTerm() {
			s.terms = append(s.terms, termStart{e.GetIndex(), e.GetTerm()})
		}
	}
}

// termOf is the term of an entry above the snapshot, 0 where there is none.
func (s *Storage) termOf(index uint64) uint64 {
	i := sort.Search(len(s.terms), func(i int) bool { return s.terms[i].index > index })
	if index > s.last || i == 0 {
		return 0
	}
	return s.terms[i-1].term
}

// deletions appends what deletes the entries from lo to hi, both included.
func (s *Storage) deletions(ops []Op, lo, hi uint64) []Op {
	if lo > hi {
		return ops
	}
	if s.cfg.RangeDelete {
		return append(ops, Op{Key: entryKey(lo), End: entryKey(hi + 1)})
	}
	for i := lo; i <= hi; i++ {
		ops = append(ops, Op{Key: entryKey(i)})
	}
	return ops
}

// shortenTail deletes from the end of the log as long as what will be deleted
// above index is more than a batch takes. From the end, so that a crash leaves no
// gap. A tail that is being replaced was never committed: until it is gone no more
// is than before, as the new commit index counts the entries that replace it.
func (s *Storage) shortenTail(index, before uint64) error {
	step := uint64(s.cfg.DeleteStep)
	if s.cfg.RangeDelete || step == 0 {
		return nil
	}
	for s.last > index && s.last-index > step {
		to := s.last - step
		hardState, err := s.hardStateWithCommit(before)
		if err != nil {
			return s.fail(err)
		}
		ops := append(s.deletions(nil, to+1, s.last), s.stateOp(to, hardState))
		if err := s.commit("cut the tail of the log", ops, !s.cfg.Unsynced); err != nil {
			return err
		}
		s.last = to
	}
	return nil
}

// Sync is Sync of [backends.Storage].
func (s *Storage) Sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return err
	}
	switch {
	case s.pending:
		return s.commitState(true)
	case s.dirty:
		if err := s.e.Sync(); err != nil {
			return s.fail(fmt.Errorf("%s: sync: %w", s.dir, err))
		}
		s.dirty = false
	}
	return nil
}

// Close is Close of [backends.Storage]. A commit index that waits in memory is
// written first: it costs a restarted node nothing to know it.
func (s *Storage) Close() error {
	s.snapMu.Lock()
	defer s.snapMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Swap(true) {
		return fmt.Errorf("%s: %w", s.dir, backends.ErrClosed)
	}
	var err error
	if s.pending && s.failed.Load() == nil {
		err = s.commitState(!s.cfg.Unsynced)
	}
	if cerr := s.e.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("%s: close: %w", s.dir, cerr))
	}
	s.terms, s.buf, s.ops = nil, nil, nil
	return err
}

// forgetTerms drops the terms of the entries up to index.
func (s *Storage) forgetTerms(index uint64) {
	i := sort.Search(len(s.terms), func(i int) bool { return s.terms[i].index > index+1 })
	if i > 1 {
		s.terms = slices.Delete(s.terms, 0, i-1)
	}
}
