// Package controls holds a small sound engine and broken copies of it: the
// controls of package powercut. A torture that lets one of the broken ones pass
// proves nothing about the others.
//
// The engine is one file, JOURNAL, of records:
//
//	offset  size  content
//	0       1     kind: 'e' raftpb.Entry, 'h' raftpb.HardState, 's' raftpb.Snapshot,
//	              't' the end of a journal that Release wrote, for what stands before
//	1       4     length of the body, little endian
//	5       4     CRC-32C of all but itself
//	9       8     how far the file had been synced when the record was written
//	17      n     body, protobuf
//
// Save appends its records with one write and syncs. Release writes a new journal
// that holds what is left, and renames it over the old one. Open replays, and cuts
// the file behind the last whole record: a torn tail was never acknowledged. It is
// damage instead where a whole record further on says that the place had been
// synced.
package controls

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/dirlock"
	"github.com/raftbench/raftbench/backends/powercut/disk"
)

// Flaw is what is wrong with a control.
type Flaw string

// The flaws. None is the sound engine.
const (
	None Flaw = "none"
	// NeverSyncs: no fsync at all.
	NeverSyncs Flaw = "never-syncs"
	// SyncsBeforeWriting: the fsync of a Save comes before its write.
	SyncsBeforeWriting Flaw = "syncs-before-writing"
	// ForgetsDirectory: files are synced, their names are not. Only mode strict
	// takes the names away: ext4 commits them with the file.
	ForgetsDirectory Flaw = "forgets-directory"
	// AcknowledgesFirst: Save returns while its sync runs.
	AcknowledgesFirst Flaw = "acknowledges-first"
	// KeepsOverwrittenTail: replaced entries beyond the new ones come back.
	KeepsOverwrittenTail Flaw = "keeps-overwritten-tail"
	// NoChecksum: a torn record is taken for whole.
	NoChecksum Flaw = "no-checksum"
	// RenamesUnsynced: the new journal is renamed before it is synced.
	RenamesUnsynced Flaw = "renames-unsynced"
	// VoteUnsynced: only entries are synced, a vote is not.
	VoteUnsynced Flaw = "vote-unsynced"
	// SnapshotUnsynced: SaveSnap returns before its sync.
	SnapshotUnsynced Flaw = "snapshot-unsynced"
	// RetriesSync: a sync that failed is tried again, and believed. Power cuts do
	// not show it, disk faults do.
	RetriesSync Flaw = "retries-sync"
	// ForgetsErrors: a Save after a failed one succeeds.
	ForgetsErrors Flaw = "forgets-errors"
	// IgnoresReadErrors: a journal that cannot be read is taken for empty.
	IgnoresReadErrors Flaw = "ignores-read-errors"
)

var both = []disk.Mode{disk.Strict, disk.Ordered}

// Flaws are those that a power cut shows, with the modes that show them. A torture
// must catch each in 50 cuts with seed 1, and in 200 with any of ten seeds.
var Flaws = []struct {
	Flaw  Flaw
	Modes []disk.Mode
}{
	{NeverSyncs, both},
	{SyncsBeforeWriting, both},
	{ForgetsDirectory, []disk.Mode{disk.Strict}},
	{AcknowledgesFirst, both},
	{KeepsOverwrittenTail, both},
	// A cut must leave the head of a large record and take its middle. ext4 leaves
	// a prefix of what was appended, which the engine notices.
	{NoChecksum, []disk.Mode{disk.Strict}},
	// On ext4 auto_da_alloc saves it.
	{RenamesUnsynced, []disk.Mode{disk.Strict}},
	{VoteUnsynced, both},
	{SnapshotUnsynced, both},
}

// Backend is the engine with one flaw; its name is "control-" and the flaw's.
func Backend(f Flaw) backends.Backend {
	return backends.Backend{
		Name: "control-" + string(f), Doc: "A journal to test the torture with.", Durability: backends.Synced,
		Open: func(o backends.Options) (backends.Storage, backends.State, error) { return open(f, o) },
	}
}

// Lookup finds a control by the name of its backend.
func Lookup(name string) (backends.Backend, error) {
	for _, f := range []Flaw{None, RetriesSync, ForgetsErrors, IgnoresReadErrors} {
		if b := Backend(f); b.Name == name {
			return b, nil
		}
	}
	for _, f := range Flaws {
		if b := Backend(f.Flaw); b.Name == name {
			return b, nil
		}
	}
	return backends.Backend{}, fmt.Errorf("no control is named %q", name)
}

const (
	headerSize  = 17
	journalName = "JOURNAL"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// journal is an open store.
type journal struct {
	flaw    Flaw
	dir     string
	release func() error

	mu     sync.Mutex
	file   *os.File
	size   int64
	synced int64 // how far the file is durable
	failed error // the first error; nothing succeeds after it
	late   sync.WaitGroup

	hs   *raftpb.HardState
	snap *raftpb.Snapshot
	ents []*raftpb.Entry // after snap
}

func open(flaw Flaw, o backends.Options) (backends.Storage, backends.State, error) {
	if err := backends.NewSettings("control", nil, o.Params).Err(); err != nil {
		return nil, backends.State{}, err
	}
	release, err := dirlock.Lock(o.Dir)
	if err != nil {
		return nil, backends.State{}, err
	}
	j := &journal{flaw: flaw, dir: o.Dir, release: release, hs: &raftpb.HardState{}}
	st, err := j.recover()
	if err != nil {
		if j.file != nil {
			j.file.Close()
		}
		return nil, backends.State{}, errors.Join(err, release())
	}
	return j, st, nil
}

func (j *journal) path() string { return filepath.Join(j.dir, journalName) }

func (j *journal) recover() (backends.State, error) {
	content, err := os.ReadFile(j.path())
	fresh := errors.Is(err, fs.ErrNotExist)
	if err != nil && !fresh && j.flaw != IgnoresReadErrors {
		return backends.State{}, err
	}
	whole := j.replay(content)
	if at, found := syncedLater(content, whole); found && j.flaw != NoChecksum {
		return backends.State{}, &backends.DamageError{File: j.path(), Err: fmt.Errorf(
			"no record at offset %d, which was synced before the one at %d was written", whole, at)}
	}
	if j.file, err = os.OpenFile(j.path(), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return backends.State{}, err
	}
	j.size, j.synced = int64(whole), int64(whole)
	if fresh || whole < len(content) {
		if err := j.file.Truncate(j.size); err != nil {
			return backends.State{}, err
		}
		if err := j.sync(j.file); err != nil {
			return backends.State{}, err
		}
	}
	if fresh {
		if err := j.syncDir(); err != nil {
			return backends.State{}, err
		}
	}
	ents := append([]*raftpb.Entry(nil), j.ents...)
	return backends.Recover(j.dir, j.hs, j.snap, ents)
}

// replay applies every whole record and returns where they end.
func (j *journal) replay(b []byte) int {
	at := 0
	for {
		kind, body, _, whole := record(b[at:])
		if (!whole && j.flaw != NoChecksum) || body == nil || !j.apply(kind, body) {
			return at
		}
		at += headerSize + len(body)
	}
}

// record reads the record at the start of b: no body where there is none, and not
// whole where the checksum is wrong.
func record(b []byte) (kind byte, body []byte, synced int64, whole bool) {
	if len(b) < headerSize || b[0] == 0 {
		return 0, nil, 0, false
	}
	n := int(binary.LittleEndian.Uint32(b[1:]))
	if n > len(b)-headerSize {
		return 0, nil, 0, false
	}
	body = b[headerSize : headerSize+n : headerSize+n]
	whole = binary.LittleEndian.Uint32(b[5:]) == checksum(b[:headerSize], body)
	return b[0], body, int64(binary.LittleEndian.Uint64(b[9:])), whole
}

// syncedLater finds a record that was written after the one at offset at had been
// synced.
func syncedLater(b []byte, at int) (where int, found bool) {
	for i := at; i+headerSize <= len(b); i++ {
		if _, _, synced, whole := record(b[i:]); whole && synced > int64(at) {
			return i, true
		}
	}
	return 0, false
}

func checksum(header, body []byte) uint32 {
	c := crc32.Checksum(header[:5], castagnoli)
	c = crc32.Update(c, castagnoli, header[9:headerSize])
	return crc32.Update(c, castagnoli, body)
}

func (j *journal) apply(kind byte, body []byte) bool {
	switch kind {
	case 'e':
		e := &raftpb.Entry{}
		if proto.Unmarshal(body, e) != nil {
			return false
		}
		j.put(e)
	case 'h':
		hs := &raftpb.HardState{}
		if proto.Unmarshal(body, hs) != nil {
			return false
		}
		j.hs = hs
	case 's':
		snap := &raftpb.Snapshot{}
		if proto.Unmarshal(body, snap) != nil {
			return false
		}
		j.putSnap(snap)
	case 't':
	default:
		return false
	}
	return true
}

// put appends e, in place of what stands at its index and after it.
func (j *journal) put(e *raftpb.Entry) {
	at := int64(e.GetIndex()) - int64(j.snap.GetMetadata().GetIndex()) - 1
	if at < 0 || at > int64(len(j.ents)) {
		j.ents = append(j.ents, e) // a gap, for Recover to find
		return
	}
	if j.flaw == KeepsOverwrittenTail && at < int64(len(j.ents)) {
		j.ents[at] = e
		return
	}
	j.ents = append(j.ents[:at], e)
}

func (j *journal) putSnap(snap *raftpb.Snapshot) {
	index, term := snap.GetMetadata().GetIndex(), snap.GetMetadata().GetTerm()
	at := int64(index) - int64(j.snap.GetMetadata().GetIndex())
	if at < 1 || at > int64(len(j.ents)) || j.ents[at-1].GetTerm() != term {
		j.ents = nil
	} else {
		j.ents = append([]*raftpb.Entry(nil), j.ents[at:]...)
	}
	j.snap = snap
}

func (j *journal) sync(f *os.File) error {
	if j.flaw == NeverSyncs {
		return nil
	}
	err := f.Sync()
	if err != nil && j.flaw == RetriesSync {
		err = f.Sync()
	}
	return err
}

func (j *journal) syncDir() error {
	if j.flaw == ForgetsDirectory {
		return nil
	}
	d, err := os.Open(j.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return j.sync(d)
}

func encode(b []byte, kind byte, m proto.Message, synced int64) ([]byte, error) {
	body, err := proto.Marshal(m)
	if err != nil {
		return nil, err
	}
	header := make([]byte, headerSize)
	header[0] = kind
	binary.LittleEndian.PutUint32(header[1:], uint32(len(body)))
	binary.LittleEndian.PutUint64(header[9:], uint64(synced))
	binary.LittleEndian.PutUint32(header[5:], checksum(header, body))
	return append(append(b, header...), body...), nil
}

// do runs f unless the store failed before, and remembers how it ends.
func (j *journal) do(f func() error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed != nil && j.flaw != ForgetsErrors {
		return j.failed
	}
	if err := f(); err != nil {
		j.failed = err
		return err
	}
	return nil
}

func (j *journal) Save(st *raftpb.HardState, ents []*raftpb.Entry) error {
	return j.do(func() error {
		must := raft.MustSync(st, j.hs, len(ents)) && !(raft.IsEmptyHardState(st) && len(ents) == 0)
		if j.flaw == VoteUnsynced {
			must = len(ents) > 0
		}
		var b []byte
		var err error
		for _, e := range ents {
			if b, err = encode(b, 'e', e, j.synced); err != nil {
				return err
			}
			j.put(proto.Clone(e).(*raftpb.Entry))
		}
		if !raft.IsEmptyHardState(st) {
			if b, err = encode(b, 'h', st, j.synced); err != nil {
				return err
			}
			j.hs = proto.Clone(st).(*raftpb.HardState)
		}
		return j.append(b, must)
	})
}

// append writes b at the end and syncs, in the order that the flaw has.
func (j *journal) append(b []byte, must bool) error {
	if j.flaw == SyncsBeforeWriting && must {
		if err := j.sync(j.file); err != nil {
			return err
		}
		must = false
	}
	if _, err := j.file.WriteAt(b, j.size); err != nil {
		return err
	}
	j.size += int64(len(b))
	switch {
	case !must:
		return nil
	case j.flaw == AcknowledgesFirst:
		file := j.file
		j.late.Go(func() { _ = file.Sync() })
		return nil
	}
	return j.syncFile()
}

func (j *journal) syncFile() error {
	if err := j.sync(j.file); err != nil {
		return err
	}
	j.synced = j.size
	return nil
}

func (j *journal) SaveSnap(snap *raftpb.Snapshot) error {
	return j.do(func() error {
		b, err := encode(nil, 's', snap, j.synced)
		if err != nil {
			return err
		}
		j.putSnap(proto.Clone(snap).(*raftpb.Snapshot))
		return j.append(b, j.flaw != SnapshotUnsynced)
	})
}

func (j *journal) Sync() error {
	return j.do(j.syncFile)
}

// Release writes the journal anew, without what snap covers.
func (j *journal) Release(*raftpb.Snapshot) error {
	return j.do(func() error {
		j.late.Wait()
		// The new journal gets its name when all of it is synced, and every record
		// says so.
		draft, err := j.image(0)
		if err != nil {
			return err
		}
		b, err := j.image(int64(len(draft)))
		if err != nil {
			return err
		}
		f, err := os.Create(j.path() + ".new")
		if err != nil {
			return err
		}
		if _, err := f.Write(b); err != nil {
			return errors.Join(err, f.Close())
		}
		if j.flaw != RenamesUnsynced {
			if err := j.sync(f); err != nil {
				return errors.Join(err, f.Close())
			}
		}
		if err := os.Rename(f.Name(), j.path()); err != nil {
			return errors.Join(err, f.Close())
		}
		old := j.file
		j.file, j.size, j.synced = f, int64(len(b)), int64(len(b))
		return errors.Join(old.Close(), j.syncDir())
	})
}

func (j *journal) image(synced int64) ([]byte, error) {
	var b []byte
	var err error
	if j.snap != nil {
		if b, err = encode(b, 's', j.snap, synced); err != nil {
			return nil, err
		}
	}
	for _, e := range j.ents {
		if b, err = encode(b, 'e', e, synced); err != nil {
			return nil, err
		}
	}
	if b, err = encode(b, 'h', j.hs, synced); err != nil {
		return nil, err
	}
	return encode(b, 't', &raftpb.HardState{}, synced)
}

func (j *journal) Close() error {
	err := j.do(func() error {
		j.late.Wait()
		j.failed = backends.ErrClosed
		return errors.Join(j.file.Close(), j.release())
	})
	return err
}
