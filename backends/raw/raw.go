// Package raw is a raft log on bare files: the smallest complete backend, and
// the speed of light among them. A Save is one write and one sync of blocks that
// were written before, so that the file system has nothing to record but the
// data; and where the disk is faster so, the write passes by the page cache.
//
// # On disk
//
//	0000000007.seg    a header, then records, one per Save (format.go)
//	0000000008.seg    the current one; what follows its last record means nothing
//	0000000009.seg    prepared: named, written and synced, but without a record
//	0000000005.spare  released, waits to be recycled
//	direct.probe      while Open measures the disk (way.go)
//	….snap            snapshots (package snapfile)
//
// Every record carries the hard state, so a segment whose entries are released
// can go: those after it need nothing from it. The log is what the records say,
// read in order; an entry replaces an earlier one of the same index and all
// that followed that.
//
// A goroutine prepares segments ahead of need (segment.go): it writes zeros, or
// takes a released file as it is, and makes size and name durable before a
// record is written. To begin a segment therefore costs a Save nothing but a
// record of 56 bytes, which goes out in the same write as its own.
//
// # What a crash may do
//
// One rule makes recovery simple: everything before the end of the log is
// durable, and at the end there is at most one record that is not. Save writes
// at the end; where it must sync, it syncs, and only then does the end move.
// A hard state with nothing new but the commit index is written at the end
// without a sync, and the end stays: the next record overwrites it, and carries
// its hard state or a newer one. (With io=direct there is no page cache that would
// take it, and it waits in memory for the next record, or for Sync or Close.) So:
//
//   - The write of a record that was not acknowledged can be torn in any way.
//     There is no valid record at the end then (its checksum covers all of it),
//     and the log is cut there. Nothing else of it can look like a record later:
//     a record has one header, and that is where the next record goes.
//   - A write is of whole pages, and shares its first one with acknowledged bytes.
//     It writes them unchanged, so whichever version of a sector survives, they do.
//     (A disk that leaves a sector unreadable when power fails within its write
//     breaks this, and the promise of disks to write a sector whole or not at all.)
//   - A segment begins with two records in one write, the begin record and that
//     of the Save. They start in the same sector, so the second one is not there
//     without the first.
//   - A valid record proves that everything before it was durable when it was
//     written. A place without a valid record is therefore damage, not a torn
//     write, where a valid record of the same segment, or a begun segment,
//     follows. Close writes the hard state at the end, without a sync, to leave
//     that proof for the record before it. A file that is shorter than when it
//     was prepared is damage too. What remains without proof is the last record
//     of a process that was killed before it wrote another: if exactly that one
//     is damaged afterwards, it is taken for a torn write. (With prealloc=none
//     a file has no length to hold it to, and a missing end is taken for one.)
//   - What an earlier life of a recycled file left there is not taken for a
//     record, since each record says in which segment and where it stands.
//   - The last process may have been killed before its last sync: what Open
//     reads may be in the page cache only. Open syncs the last segment and the
//     directory before it hands out anything. Then it writes the hard state at
//     the end, and syncs that: a torn record that was cut can never come back,
//     not even where the next write at its place is torn as well.
//
// SaveSnap writes the snapshot's file first (StageSnap, then Save of what it
// returns, write the same file in two steps). Where the log does not hold the
// snapshot's entry, a reset record follows, which empties the log; where a crash
// comes between the two, Open finds the conflict and does the same. Release
// renames or removes whole segments and only then lets their files be written.
package raw

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/dirlock"
	"github.com/raftbench/raftbench/backends/internal/snapfile"
)

// Backend is the engine "raw".
var Backend = backends.Backend{
	Name:       "raw",
	Doc:        "one write and one sync of pre-written, recycled files per Save: the floor of the device",
	Durability: backends.Synced,
	Params:     params,
	Open:       open,
}

var params = []backends.Param{
	{Name: "segment", Default: "16MiB", Meaning: "size of one file of the log, in whole pages"},
	{Name: "recycle", Default: "on", Meaning: "reuse released files, one more than were begun since the last release: on, off"},
	{Name: "prealloc", Default: "zero", Meaning: "how a new file is made ready: zero (written), fallocate (blocks reserved), none (it grows)"},
	{Name: "io", Default: "auto", Meaning: "the way of a write: buffered (through the page cache), direct (O_DIRECT); auto is buffered unless direct is clearly faster, measured once per device and process and kept by the log"},
	{Name: "sync", Default: "auto", Meaning: "how a write is made durable: fdatasync, dsync (O_DSYNC), fsync; auto is fdatasync for buffered and dsync for direct writes, unless the other one is clearly faster, measured in the same way"},
}

type config struct {
	segment  int64
	recycle  bool
	prealloc string
	way      way
	measured measured // what is known of the device, for the headers
}

func parse(given map[string]string) (config, error) {
	p := backends.NewSettings("raw", params, given)
	cfg := config{
		segment:  p.Bytes("segment", 4<<10, 1<<30),
		recycle:  p.Bool("recycle"),
		prealloc: p.Choice("prealloc", "zero", "fallocate", "none"),
		way: way{
			io:   p.Choice("io", "auto", "buffered", "direct"),
			sync: p.Choice("sync", "auto", "fdatasync", "dsync", "fsync"),
		},
	}
	cfg.segment = (cfg.segment + pageBytes - 1) / pageBytes * pageBytes
	return cfg, p.Err()
}

var (
	_ backends.SnapshotStreamer = (*storage)(nil)
	_ backends.Chooser          = (*storage)(nil)
)

// storage is an open log.
type storage struct {
	disk   disk
	cfg    config
	prep   *preparer
	unlock func() error
	chosen map[string]string // what was "auto"

	// mu guards what follows: the loop calls Save while the apply side calls
	// SaveSnap and Release.
	mu  sync.Mutex
	err error // ErrClosed, or the failure that nothing may be acknowledged after

	hs   hardState
	prev *raftpb.HardState // hs for raft.MustSync: it points into hs
	log  logTerms
	segs []*segment // that were begun; the last one is written to
	end  int64      // of the durable records of the last one
	// pending says that a hard state was saved after that, without a sync.
	pending bool
	// buf begins with the durable records of the page in which end lies, which are
	// written again with the next one.
	buf pages

	first     *segment // prepared for a log that has no segment yet
	snapIndex uint64   // of the newest snapshot
	begun     int      // segments since the last Release
}

func open(opts backends.Options) (backends.Storage, backends.State, error) {
	cfg, err := parse(opts.Params)
	if err != nil {
		return nil, backends.State{}, err
	}
	unlock, err := dirlock.Lock(opts.Dir)
	if err != nil {
		return nil, backends.State{}, fmt.Errorf("raw: %w", err)
	}
	given := cfg.way
	if cfg.way, cfg.measured, err = choose(opts.Dir, given); err != nil {
		return nil, backends.State{}, fmt.Errorf("raw: %w", errors.Join(err, unlock()))
	}
	s, st, err := openDisk(&osDisk{dir: opts.Dir, way: cfg.way, onSync: opts.OnSync}, cfg)
	if err != nil {
		return nil, backends.State{}, fmt.Errorf("raw: open: %w", errors.Join(err, unlock()))
	}
	s.unlock, s.chosen = unlock, given.chosen(cfg.way)
	return s, st, nil
}

// openDisk recovers the log that d holds, or begins one.
func openDisk(d disk, cfg config) (*storage, backends.State, error) {
	r, st, err := recoverDir(d)
	if err != nil {
		return nil, backends.State{}, err
	}
	s := &storage{disk: d, cfg: cfg, hs: r.hs, log: r.log, segs: r.segs, end: r.end,
		snapIndex: r.snap.GetMetadata().GetIndex(), unlock: func() error { return nil }}
	s.buf.huge = cfg.way.io == "direct"
	s.buf.keep(r.tail)
	s.prev = &raftpb.HardState{Term: &s.hs.term, Vote: &s.hs.vote, Commit: &s.hs.commit}
	if err := s.settle(r); err != nil {
		return nil, backends.State{}, err
	}
	s.prep = startPreparer(d, cfg, r.next, r.found, r.spares)
	if err := s.begin(r.conflict); err != nil {
		return nil, backends.State{}, errors.Join(err, s.Close())
	}
	return s, st, nil
}

// settle makes durable what was found, finishes an interrupted Release, and removes
// what an interrupted measurement left.
func (s *storage) settle(r *recovered) error {
	if n := len(s.segs); n > 0 {
		last := s.segs[n-1]
		f, err := s.disk.open(segmentName(last.number))
		if err != nil {
			return err
		}
		last.file = f
		if err := f.sync(); err != nil {
			return errors.Join(err, f.close())
		}
	}
	spares, err := s.setAside(r.released)
	r.spares = append(r.spares, spares...)
	if !s.cfg.recycle {
		for _, name := range r.spares {
			err = errors.Join(err, s.disk.remove(name))
		}
		r.spares = nil
	}
	for _, name := range r.probes {
		err = errors.Join(err, s.disk.remove(name))
	}
	if err == nil {
		err = s.disk.syncNames()
	}
	if err != nil && len(s.segs) > 0 {
		err = errors.Join(err, s.current().file.close())
	}
	return err
}

// begin leaves the storage ready for its first Save.
func (s *storage) begin(conflict bool) error {
	if len(s.segs) == 0 {
		// The first Save should not be the one that waits.
		var err error
		if s.first, err = s.prep.next(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if conflict {
		return s.reset(s.snapIndex)
	}
	if len(s.segs) == 0 {
		return nil
	}
	return s.write(&record{kind: kindSave, hs: s.hs}, true)
}

// Chosen implements [backends.Chooser].
func (s *storage) Chosen() map[string]string { return s.chosen }

func (s *storage) current() *segment { return s.segs[len(s.segs)-1] }

// Save implements [backends.Storage].
func (s *storage) Save(st *raftpb.HardState, ents []*raftpb.Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	r := record{kind: kindSave, hs: s.hs, ents: ents}
	sync := len(ents) > 0
	if !raft.IsEmptyHardState(st) {
		r.hs = hardState{term: st.GetTerm(), vote: st.GetVote(), commit: st.GetCommit()}
		sync = raft.MustSync(st, s.prev, len(ents))
	} else if len(ents) == 0 {
		return nil
	}
	if len(ents) > 0 {
		r.index = ents[0].GetIndex()
	}
	if err := s.write(&r, sync); err != nil {
		return s.fail("save", err)
	}
	s.hs = r.hs
	if len(ents) > 0 {
		if r.index <= s.log.last {
			forget(s.segs, r.index)
		}
		s.log.append(r.index, ents)
		s.current().last = s.log.last
	}
	return nil
}

// fail stops the storage for good. After a failed sync it is not known what is
// on disk, and a second one would only say that there is nothing left to sync.
func (s *storage) fail(what string, err error) error {
	s.err = fmt.Errorf("raw: %s: %w", what, err)
	return s.err
}

// write puts r at the end of the log, and moves the end behind it if sync.
// Only a synced record begins a segment, so that the begin record is synced with
// it; every segment keeps room for a hard state that is not.
func (s *storage) write(r *record, sync bool) error {
	size, err := r.encodedSize()
	if err != nil {
		return err
	}
	if len(s.segs) == 0 || sync && s.end+size+recordSize > s.cfg.segment {
		return s.writeFirst(r, size)
	}
	if !sync && s.cfg.way.io == "direct" {
		s.pending = true
		return nil
	}
	seg := s.current()
	tail := s.end % pageBytes
	s.buf.reserve(tail + size)
	s.buf.b = appendRecord(s.buf.b[:tail], r, seg.number, s.end)
	if err := s.flush(seg.file, s.end-tail, sync); err != nil {
		return err
	}
	if sync {
		s.end += size
		s.buf.keep(s.buf.b[:tail+size])
	}
	s.pending = !sync
	return nil
}

// writeFirst begins the next segment with r. A record that is larger than a
// segment makes its segment grow.
func (s *storage) writeFirst(r *record, size int64) error {
	seg, err := s.first, error(nil)
	if s.first = nil; seg == nil {
		if seg, err = s.prep.next(); err != nil {
			return err
		}
	}
	begin := record{kind: kindBegin, hs: s.hs, index: uint64(s.end)}
	end := headerSize + recordSize + size
	s.buf.reserve(end)
	s.buf.b = appendHeader(s.buf.b[:0], header{number: seg.number, size: seg.size, measured: s.cfg.measured})
	s.buf.b = appendRecord(s.buf.b, &begin, seg.number, headerSize)
	s.buf.b = appendRecord(s.buf.b, r, seg.number, headerSize+recordSize)
	if err := s.flush(seg.file, 0, true); err != nil {
		return errors.Join(err, seg.file.close())
	}
	s.buf.keep(s.buf.b[:end])
	var old file
	if len(s.segs) > 0 {
		old, s.current().file = s.current().file, nil
	}
	s.end, s.pending = end, false
	seg.grown = s.end > s.cfg.segment
	s.segs = append(s.segs, seg)
	s.begun++
	if old == nil {
		return nil
	}
	// What is not synced in it is superseded by r.
	return old.close()
}

// flush writes the buffer, and zeros up to the end of its last page. A page is
// written to disk as a whole anyway; if only a part of it were given, and it had left
// the page cache since the segment was prepared, it would have to be read first.
func (s *storage) flush(f file, off int64, sync bool) error {
	b := s.buf.whole()
	if sync {
		return f.writeSync(b, off)
	}
	return f.write(b, off)
}

// reset empties the log, which then ends at index.
func (s *storage) reset(index uint64) error {
	if err := s.write(&record{kind: kindReset, hs: s.hs, index: index}, true); err != nil {
		return s.fail("reset the log", err)
	}
	forget(s.segs, 0)
	s.log.reset(index)
	return nil
}

// SaveSnap implements [backends.Storage].
func (s *storage) SaveSnap(snap *raftpb.Snapshot) error {
	if err := s.failure(); err != nil {
		return err
	}
	if raft.IsEmptySnap(snap) {
		return nil
	}
	// Not under the lock: a large snapshot must not hold up Save.
	return s.snapshotSaved(snap.GetMetadata(), s.disk.saveSnapshot(snap))
}

// snapshotSaved takes note of a snapshot whose file is durable, or that could not
// be written (err).
func (s *storage) snapshotSaved(meta *raftpb.SnapshotMetadata, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	index, term := meta.GetIndex(), meta.GetTerm()
	switch {
	case s.err != nil:
		return s.err
	case err != nil:
		return s.fail(fmt.Sprintf("save snapshot %d", index), err)
	case index <= s.snapIndex:
		return nil
	}
	s.snapIndex = index
	if s.log.holds(index, term) {
		return nil
	}
	return s.reset(index)
}

// StageSnap implements [backends.SnapshotStreamer].
func (s *storage) StageSnap(meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (backends.StagedSnap, error) {
	if err := s.failure(); err != nil {
		return nil, err
	}
	f, err := s.disk.stageSnapshot(meta, size, data)
	if err != nil {
		if snapfile.DiskFailed(err) {
			s.mu.Lock()
			defer s.mu.Unlock()
			return nil, s.fail("stage a snapshot", err)
		}
		return nil, fmt.Errorf("raw: stage a snapshot: %w", err)
	}
	return snapfile.Snap{File: f, Failure: s.failure, Saved: func(err error) error { return s.snapshotSaved(meta, err) }}, nil
}

// OpenSnap implements [backends.SnapshotStreamer].
func (s *storage) OpenSnap(meta *raftpb.SnapshotMetadata) (io.ReadCloser, int64, error) {
	if err := s.failure(); err != nil {
		return nil, 0, err
	}
	data, size, err := s.disk.openSnapshot(meta)
	if err != nil {
		return nil, 0, fmt.Errorf("raw: %w", err)
	}
	return data, size, nil
}

func (s *storage) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Sync implements [backends.Storage]. Only a commit index can be waiting.
func (s *storage) Sync() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || !s.pending {
		return s.err
	}
	if err := s.write(&record{kind: kindSave, hs: s.hs}, true); err != nil {
		return s.fail("sync", err)
	}
	return nil
}

// Release implements [backends.Storage].
func (s *storage) Release(snap *raftpb.Snapshot) error {
	index := snap.GetMetadata().GetIndex()
	segs, keep, err := s.cut(index)
	if err != nil {
		return err
	}
	spares, err := s.setAside(segs)
	if err == nil && len(segs) > 0 {
		// The names must be gone for good before the preparer writes to the files.
		err = s.disk.syncNames()
	}
	if err != nil {
		return fmt.Errorf("raw: release segments up to index %d: %w", index, err)
	}
	for _, name := range s.prep.recycle(spares, keep) {
		if err := s.disk.remove(name); err != nil {
			return fmt.Errorf("raw: remove a spare segment: %w", err)
		}
	}
	if err := s.disk.releaseSnapshots(index); err != nil {
		return fmt.Errorf("raw: %w", err)
	}
	return nil
}

// cut takes the segments out of the log that hold nothing above index, and says
// how many spare files to keep: one more than were begun since the last Release,
// because the time until the next one will need about as many.
func (s *storage) cut(index uint64) (segs []*segment, keep int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, 0, s.err
	}
	if index > s.snapIndex {
		return nil, 0, fmt.Errorf("raw: release of snapshot %d, but the newest that was saved is %d", index, s.snapIndex)
	}
	n := 0
	for n < len(s.segs)-1 && s.segs[n].last <= index {
		n++
	}
	segs, s.segs = s.segs[:n], s.segs[n:]
	s.log.release(index)
	keep, s.begun = s.begun+1, 0
	return segs, keep, nil
}

// setAside takes the names from segments that hold nothing that is needed, and
// returns the new names of those that can be recycled.
func (s *storage) setAside(segs []*segment) (spares []string, err error) {
	for _, seg := range segs {
		if !s.cfg.recycle || seg.grown {
			err = s.disk.remove(segmentName(seg.number))
		} else {
			err = s.disk.rename(segmentName(seg.number), spareName(seg.number))
			spares = append(spares, spareName(seg.number))
		}
		if err != nil {
			return nil, err
		}
	}
	return spares, nil
}

// Close implements [backends.Storage].
func (s *storage) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.err, backends.ErrClosed) {
		return s.err
	}
	var errs []error
	if direct := s.cfg.way.io == "direct"; s.err == nil && len(s.segs) > 0 && (direct || !s.pending) {
		// The proof that everything before it is durable.
		errs = append(errs, s.write(&record{kind: kindSave, hs: s.hs}, direct))
	}
	s.err = backends.ErrClosed
	errs = append(errs, s.prep.close())
	if len(s.segs) > 0 {
		errs = append(errs, s.current().file.close())
	}
	if s.first != nil {
		errs = append(errs, s.first.file.close())
	}
	s.buf.free()
	errs = append(errs, s.unlock())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("raw: close: %w", err)
	}
	return nil
}
