package backendtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/dirlock"
	"github.com/raftbench/raftbench/backends/internal/snapfile"
)

// journal is a small correct engine, one file that Release rewrites. It exists
// to be broken: each bug is one promise that it stops keeping.
type journal struct {
	bug    bug
	dir    string
	onSync func(time.Duration)
	lock   func() error

	mu     sync.Mutex
	f      *os.File
	closed bool
	hs     *raftpb.HardState
	snap   *raftpb.Snapshot // newest, without Data
	ents   []*raftpb.Entry  // everything in the file
	// forgotten is what the bug of that name has not written yet.
	forgotten []byte
}

type bug string

const (
	noBug                 bug = ""
	losesHardState        bug = "loses the hard state"
	losesCommitOnly       bug = "loses commit-only hard states"
	forcesCommitOnly      bug = "syncs for commit-only hard states"
	emptySaveClears       bug = "takes an empty hard state for a new one"
	keepsOldTail          bug = "does not cut a longer old tail"
	keepsOldTailOnDisk    bug = "cuts the old tail in memory only"
	cutsInPieces          bug = "cuts a thousand entries of an old tail and no more"
	keepsOldCommit        bug = "takes no commit index together with a new tail"
	commitsFirst          bug = "writes the commit index before what it replaces"
	losesType             bug = "loses the type of an entry"
	cutsBigValues         bug = "cuts values at 1 MiB"
	losesLastOfBatch      bug = "loses the last entry of a big batch"
	losesSnapshotData     bug = "loses the snapshot's Data"
	losesConfState        bug = "loses the snapshot's members"
	keepsFirstSnapshot    bug = "keeps the first snapshot"
	keepsConflict         bug = "returns a tail that conflicts with the snapshot"
	dropsTail             bug = "drops the tail behind a snapshot inside the log"
	oldHardState          bug = "returns a hard state older than the snapshot"
	releasesTooMuch       bug = "releases one entry above the snapshot"
	neverReleases         bug = "gives no space back"
	noLock                bug = "takes no lock"
	lockIsNotErrLocked    bug = "refuses a second open with another error"
	savesAfterClose       bug = "saves after Close"
	closesTwice           bug = "closes twice without a word"
	anyParameter          bug = "takes any parameter"
	plainParamError       bug = "refuses a parameter with a plain error"
	touchesBeforeParams   bug = "touches the directory before it looks at parameters"
	retainsEntries        bug = "writes entries at the next call, from the caller's memory"
	mutatesEntries        bug = "scribbles in the entries"
	sharesState           bug = "returns a state that it goes on using"
	shorterOnDamage       bug = "takes damage for the end of the log"
	panicsOnDamage        bug = "panics on damage"
	hangsOnDamage         bug = "hangs on damage"
	padsShortRecord       bug = "fills up a record that is cut"
	noChecksum            bug = "does not check what it reads"
	damageNamesNothing    bug = "reports damage without a name"
	acknowledgesEarly     bug = "writes only every third Save"
	dropsOldSnapshotFirst bug = "removes the old snapshot before it writes the new one"
	commitBeyondLog       bug = "returns a commit index beyond the log"
)

func broken(b bug) backends.Backend {
	return backends.Backend{
		Name: "journal", Doc: "for the suite's own tests", Durability: backends.Synced,
		Params: []backends.Param{{Name: "known", Default: "1", Meaning: "nothing"}},
		Open: func(opts backends.Options) (backends.Storage, backends.State, error) {
			j := &journal{bug: b, dir: opts.Dir, onSync: opts.OnSync}
			st, err := j.open(opts)
			if err != nil {
				return nil, backends.State{}, err
			}
			return j, st, nil
		},
	}
}

func (j *journal) open(opts backends.Options) (backends.State, error) {
	if j.bug == touchesBeforeParams {
		if err := os.WriteFile(filepath.Join(j.dir, "touched"), nil, 0o600); err != nil {
			return backends.State{}, err
		}
	}
	if err := backends.NewSettings("journal", []backends.Param{{Name: "known"}}, opts.Params).Err(); err != nil && j.bug != anyParameter {
		if j.bug == plainParamError {
			err = errors.New("bad parameter; known: known")
		}
		return backends.State{}, err
	}
	j.lock = func() error { return nil }
	if j.bug != noLock {
		lock, err := dirlock.Lock(j.dir)
		if j.bug == lockIsNotErrLocked && err != nil {
			err = errors.New("busy")
		}
		if err != nil {
			return backends.State{}, err
		}
		j.lock = lock
	}
	st, err := j.recover()
	if err != nil {
		j.lock()
		return backends.State{}, err
	}
	return st, nil
}

func (j *journal) path() string { return filepath.Join(j.dir, "journal") }

func (j *journal) recover() (backends.State, error) {
	snap, err := snapfile.Load(j.dir)
	if err != nil {
		return backends.State{}, err
	}
	b, err := os.ReadFile(j.path())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return backends.State{}, err
	}
	j.hs = &raftpb.HardState{}
	valid, err := j.replay(b)
	if err != nil {
		return backends.State{}, err
	}
	if j.f, err = os.OpenFile(j.path(), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return backends.State{}, err
	}
	if err := j.f.Truncate(int64(valid)); err != nil {
		return backends.State{}, err
	}
	if _, err := j.f.Seek(int64(valid), 0); err != nil {
		return backends.State{}, err
	}
	if j.bug == keepsConflict && snap != nil {
		return backends.State{HardState: j.hs, Snapshot: snap, Entries: j.tail(snap.GetMetadata().GetIndex())}, nil
	}
	st, err := backends.Recover(j.dir, j.hs, snap, append([]*raftpb.Entry(nil), j.ents...))
	if err != nil {
		return st, err
	}
	j.ents, j.hs = append([]*raftpb.Entry(nil), st.Entries...), proto.Clone(st.HardState).(*raftpb.HardState)
	if snap != nil {
		j.snap = &raftpb.Snapshot{Metadata: snap.Metadata}
	}
	switch {
	case j.bug == oldHardState && snap != nil:
		st.HardState = &raftpb.HardState{}
	case j.bug == commitBeyondLog && len(st.Entries) > 0:
		st.HardState.Commit = proto.Uint64(st.LastIndex() + 1)
	case j.bug == sharesState:
		j.ents = st.Entries
	}
	return st, nil
}

// A record is: its length (4 bytes), the CRC of the length and of the body
// (4 bytes), and the body, which is a kind (1 byte) and a protobuf message.
func record(kind byte, m proto.Message) []byte {
	b := make([]byte, 9)
	b[8] = kind
	b, err := proto.MarshalOptions{}.MarshalAppend(b, m)
	if err != nil {
		panic(err)
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	binary.LittleEndian.PutUint32(b[4:], crc32.ChecksumIEEE(append(bytes.Clone(b[:4]), b[8:]...)))
	return b
}

// replay reads records up to a torn last one and says where the good ones end.
func (j *journal) replay(b []byte) (valid int, err error) {
	for at := 0; at < len(b); {
		rest := b[at:]
		n := 0
		if len(rest) >= 9 {
			n = int(binary.LittleEndian.Uint32(rest))
		}
		if j.bug == padsShortRecord && n > len(rest) {
			rest = append(bytes.Clone(rest), make([]byte, n-len(rest))...)
			return len(b), j.take(rest[8], rest[9:n])
		}
		good := n >= 9 && n <= len(rest) &&
			(j.bug == noChecksum || crc32.ChecksumIEEE(append(bytes.Clone(rest[:4]), rest[8:n]...)) == binary.LittleEndian.Uint32(rest[4:]))
		if !good {
			return at, j.badRecord(rest, at)
		}
		if err := j.take(rest[8], rest[9:n]); err != nil {
			return at, &backends.DamageError{File: j.path(), Err: err}
		}
		at += n
	}
	return len(b), nil
}

// badRecord decides between a torn last record and damage: whether a good record
// begins anywhere behind it.
func (j *journal) badRecord(rest []byte, at int) error {
	switch j.bug {
	case shorterOnDamage:
		return nil
	case panicsOnDamage:
		panic("bad record")
	case hangsOnDamage:
		for {
			time.Sleep(time.Hour)
		}
	}
	for i := 1; i+9 <= len(rest); i++ {
		n := int(binary.LittleEndian.Uint32(rest[i:]))
		if n < 9 || n > len(rest)-i || rest[i+8] > 'z' {
			continue
		}
		if crc32.ChecksumIEEE(append(bytes.Clone(rest[i:i+4]), rest[i+8:i+n]...)) == binary.LittleEndian.Uint32(rest[i+4:]) {
			if j.bug == damageNamesNothing {
				return errors.New("bad record")
			}
			return &backends.DamageError{File: j.path(), Err: fmt.Errorf("bad record at offset %d, good ones behind it", at)}
		}
	}
	return nil
}

func (j *journal) take(kind byte, body []byte) error {
	switch kind {
	case 'h':
		j.hs = &raftpb.HardState{}
		return proto.Unmarshal(body, j.hs)
	case 'e':
		e := &raftpb.Entry{}
		if err := proto.Unmarshal(body, e); err != nil {
			return err
		}
		j.put(e, j.bug != keepsOldTail && j.bug != keepsOldTailOnDisk)
	case 'd': // everything so far is discarded
		j.ents = nil
	}
	return nil
}

// put appends e, cutting what it replaces.
func (j *journal) put(e *raftpb.Entry, cut bool) {
	for i, old := range slices.Backward(j.ents) {
		if old.GetIndex() < e.GetIndex() {
			break
		}
		if old.GetIndex() == e.GetIndex() {
			switch {
			case !cut:
				j.ents[i] = e
			case j.bug == cutsInPieces && len(j.ents) > i+1000:
				j.ents = append(append(j.ents[:i:i], e), j.ents[i+1000:]...)
			default:
				j.ents = append(j.ents[:i], e)
			}
			return
		}
	}
	j.ents = append(j.ents, e)
}

// tail is a copy of the entries after index.
func (j *journal) tail(index uint64) []*raftpb.Entry {
	for i, e := range j.ents {
		if e.GetIndex() > index {
			return append([]*raftpb.Entry(nil), j.ents[i:]...)
		}
	}
	return nil
}

func (j *journal) usable() error {
	if j.closed && j.bug != savesAfterClose {
		return backends.ErrClosed
	}
	return nil
}

func (j *journal) Save(st *raftpb.HardState, ents []*raftpb.Entry) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil || j.closed {
		return err
	}
	replaces := len(ents) > 0 && len(j.tail(ents[0].GetIndex()-1)) > 0
	switch {
	case j.bug == keepsOldCommit && replaces:
		st = &raftpb.HardState{Term: st.Term, Vote: st.Vote, Commit: j.hs.Commit}
	case j.bug == commitsFirst && replaces:
		if err := j.write(record('h', st), true); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond) // the rest takes a while on a slow disk
	}
	var b []byte
	for i, e := range ents {
		if j.bug == mutatesEntries && len(e.Data) > 0 {
			e.Data[0]++
		}
		e = proto.Clone(e).(*raftpb.Entry)
		switch {
		case j.bug == losesType:
			e.Type = nil
		case j.bug == cutsBigValues && len(e.Data) > 1<<20:
			e.Data = e.Data[:1<<20]
		case j.bug == losesLastOfBatch && i == 255:
			continue
		}
		b = append(b, record('e', e)...)
		j.put(e, j.bug != keepsOldTail)
		if j.bug == retainsEntries {
			j.ents[len(j.ents)-1] = ents[i]
		}
	}
	mustSync := len(ents) > 0
	if !raft.IsEmptyHardState(st) {
		mustSync = raft.MustSync(st, j.hs, len(ents))
	}
	if !raft.IsEmptyHardState(st) || j.bug == emptySaveClears {
		if st == nil {
			st = &raftpb.HardState{}
		}
		if j.bug != losesHardState && (j.bug != losesCommitOnly || mustSync) {
			b = append(b, record('h', st)...)
		}
		j.hs = proto.Clone(st).(*raftpb.HardState)
	}
	return j.write(b, mustSync || j.bug == forcesCommitOnly)
}

func (j *journal) write(b []byte, sync bool) error {
	if j.bug == acknowledgesEarly {
		j.forgotten = append(j.forgotten, b...)
		if len(j.ents)%3 != 0 {
			return nil
		}
		b, j.forgotten = j.forgotten, nil
	}
	if _, err := j.f.Write(b); err != nil {
		return err
	}
	if !sync {
		return nil
	}
	start := time.Now()
	err := j.f.Sync()
	if j.onSync != nil {
		j.onSync(time.Since(start))
	}
	return err
}

func (j *journal) SaveSnap(snap *raftpb.Snapshot) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil || j.closed {
		return err
	}
	if j.bug == keepsFirstSnapshot && j.snap != nil {
		return nil
	}
	stored := proto.Clone(snap).(*raftpb.Snapshot)
	switch j.bug {
	case losesSnapshotData:
		stored.Data = nil
	case losesConfState:
		stored.Metadata.ConfState = &raftpb.ConfState{}
	}
	if j.bug == dropsOldSnapshotFirst {
		if err := snapfile.Release(j.dir, snap.GetMetadata().GetIndex()); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond) // the new one takes a while on a slow disk
	}
	if err := snapfile.Save(j.dir, stored); err != nil {
		return err
	}
	index := snap.GetMetadata().GetIndex()
	j.snap = &raftpb.Snapshot{Metadata: proto.Clone(snap.GetMetadata()).(*raftpb.SnapshotMetadata)}
	held := false
	for _, e := range j.ents {
		held = held || e.GetIndex() == index && e.GetTerm() == snap.GetMetadata().GetTerm()
	}
	if len(j.ents) > 0 && j.ents[0].GetIndex() > index {
		held = true
	}
	if held && j.bug != dropsTail || j.bug == keepsConflict {
		return nil
	}
	j.ents = nil
	return j.write(record('d', &raftpb.HardState{}), true)
}

func (j *journal) Sync() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil || j.closed {
		return err
	}
	return j.f.Sync()
}

func (j *journal) Release(snap *raftpb.Snapshot) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil || j.closed {
		return err
	}
	if j.bug == neverReleases {
		return nil
	}
	index := snap.GetMetadata().GetIndex()
	if j.bug == releasesTooMuch {
		index++
	}
	j.ents = j.tail(index)
	if err := j.rewrite(); err != nil {
		return err
	}
	return snapfile.Release(j.dir, snap.GetMetadata().GetIndex())
}

func (j *journal) rewrite() error {
	b := record('h', j.hs)
	for _, e := range j.ents {
		b = append(b, record('e', e)...)
	}
	tmp := j.path() + ".tmp"
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(tmp, j.path())
	}
	if err != nil {
		f.Close()
		return err
	}
	j.f.Close()
	j.f = f
	d, err := os.Open(j.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (j *journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		if j.bug == closesTwice {
			return nil
		}
		return backends.ErrClosed
	}
	j.closed = true
	if j.bug == retainsEntries {
		if err := j.rewrite(); err != nil {
			return err
		}
	}
	if _, err := j.f.Write(j.forgotten); err != nil {
		return err
	}
	return errors.Join(j.f.Close(), j.lock())
}
