// Package journal is a complete storage engine in one file: every Save is a
// record at the end of a file, and Release writes the file anew without what is
// not needed. It is meant to be read, not to be fast.
package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/raftbench/raftbench/backends"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Backend is what backendtest.Run proves and bench.Run measures.
var Backend = backends.Backend{
	Name: "journal", Doc: "one file, appended to and rewritten", Durability: backends.Synced, Open: open,
}

type storage struct {
	dir string

	mu     sync.Mutex // SaveSnap and Release come from another goroutine than Save
	lock   *os.File
	f      *os.File
	hs     *raftpb.HardState
	ents   []*raftpb.Entry
	failed error // what ended the storage: it is every later call's answer
}

func open(opts backends.Options) (backends.Storage, backends.State, error) {
	// Parameters first, before the directory is touched.
	if err := backends.NewSettings("journal", nil, opts.Params).Err(); err != nil {
		return nil, backends.State{}, err
	}
	lock, err := os.OpenFile(filepath.Join(opts.Dir, "LOCK"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, backends.State{}, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, backends.State{}, fmt.Errorf("%s: %w", opts.Dir, backends.ErrLocked)
	}
	s := &storage{dir: opts.Dir, lock: lock, hs: &raftpb.HardState{}}
	state, err := s.recover()
	if err != nil {
		return nil, backends.State{}, errors.Join(err, lock.Close())
	}
	return s, state, nil
}

func (s *storage) path(name string) string { return filepath.Join(s.dir, name) }

// recover reads what is there. A bad record is a torn last one, and is cut,
// unless a good record stands anywhere behind it.
func (s *storage) recover() (backends.State, error) {
	var snap *raftpb.Snapshot
	b, err := os.ReadFile(s.path("snapshot"))
	if err == nil {
		snap = &raftpb.Snapshot{}
		if kind, body, _ := cut(b); kind != 's' || proto.Unmarshal(body, snap) != nil {
			return backends.State{}, &backends.DamageError{File: s.path("snapshot"), Err: errors.New("bad checksum")}
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return backends.State{}, err
	}
	b, err = os.ReadFile(s.path("journal"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return backends.State{}, err
	}
	end := 0
	for end < len(b) {
		kind, body, n := cut(b[end:])
		if n == 0 {
			break
		}
		if err := s.take(kind, body); err != nil {
			return backends.State{}, &backends.DamageError{File: s.path("journal"), Err: err}
		}
		end += n
	}
	for i := end + 1; i < len(b); i++ {
		if _, _, n := cut(b[i:]); n > 0 {
			return backends.State{}, &backends.DamageError{File: s.path("journal"), Err: fmt.Errorf("bad record at offset %d", end)}
		}
	}
	state, err := backends.Recover(s.dir, s.hs, snap, s.ents)
	if err != nil {
		return state, err
	}
	s.hs = proto.Clone(state.HardState).(*raftpb.HardState)
	// The state's entries are raft's from here on; a slice of our own holds them.
	s.ents = append([]*raftpb.Entry(nil), state.Entries...)
	// Writing it anew cuts the torn end, and makes durable what a process that was
	// killed had written and not synced.
	return state, s.rewrite()
}

func (s *storage) take(kind byte, body []byte) error {
	switch kind {
	case 'h':
		s.hs = &raftpb.HardState{}
		return proto.Unmarshal(body, s.hs)
	case 'e':
		e := &raftpb.Entry{}
		if err := proto.Unmarshal(body, e); err != nil {
			return err
		}
		s.put(e)
		return nil
	case 'd': // a snapshot replaced the log
		s.ents = nil
		return nil
	}
	return fmt.Errorf("a record of the unknown kind %q", kind)
}

// put appends e and cuts what it replaces.
func (s *storage) put(e *raftpb.Entry) {
	if n := len(s.ents); n > 0 {
		keep := int64(e.GetIndex()) - int64(s.ents[0].GetIndex())
		s.ents = s.ents[:max(0, min(keep, int64(n)))]
	}
	s.ents = append(s.ents, e)
}

// do runs f on the open storage; its error is final.
func (s *storage) do(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		if err := f(); err != nil {
			s.failed = fmt.Errorf("journal: %s: %w", s.dir, err)
		}
	}
	return s.failed
}

func (s *storage) Save(st *raftpb.HardState, ents []*raftpb.Entry) error {
	return s.do(func() error {
		mustSync := len(ents) > 0
		var b []byte
		for _, e := range ents {
			e = proto.Clone(e).(*raftpb.Entry) // the caller's memory is the caller's
			s.put(e)
			b = append(b, record('e', e)...)
		}
		if !raft.IsEmptyHardState(st) {
			mustSync = raft.MustSync(st, s.hs, len(ents))
			s.hs = proto.Clone(st).(*raftpb.HardState)
			b = append(b, record('h', st)...)
		}
		return s.write(b, mustSync)
	})
}

func (s *storage) write(b []byte, sync bool) error {
	if _, err := s.f.Write(b); err != nil || !sync {
		return err
	}
	return s.f.Sync()
}

func (s *storage) SaveSnap(snap *raftpb.Snapshot) error {
	return s.do(func() error {
		if err := s.replace("snapshot", record('s', snap)); err != nil {
			return err
		}
		md := snap.GetMetadata()
		for _, e := range s.ents {
			if e.GetIndex() == md.GetIndex() && e.GetTerm() == md.GetTerm() {
				return nil // the log goes on behind the snapshot
			}
		}
		s.ents = nil
		return s.write(record('d', &raftpb.HardState{}), true)
	})
}

func (s *storage) Sync() error { return s.do(func() error { return s.f.Sync() }) }

func (s *storage) Release(snap *raftpb.Snapshot) error {
	return s.do(func() error {
		keep := s.ents
		for len(keep) > 0 && keep[0].GetIndex() <= snap.GetMetadata().GetIndex() {
			keep = keep[1:]
		}
		s.ents = append([]*raftpb.Entry(nil), keep...)
		return s.rewrite()
	})
}

func (s *storage) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.failed, backends.ErrClosed) {
		return s.failed
	}
	s.failed = fmt.Errorf("journal: %s: %w", s.dir, backends.ErrClosed)
	return errors.Join(s.f.Close(), s.lock.Close())
}

// rewrite makes the journal hold the hard state and the entries, and opens it
// for appending.
func (s *storage) rewrite() error {
	b := record('h', s.hs)
	for _, e := range s.ents {
		b = append(b, record('e', e)...)
	}
	if err := s.replace("journal", b); err != nil {
		return err
	}
	if s.f != nil {
		s.f.Close()
	}
	var err error
	s.f, err = os.OpenFile(s.path("journal"), os.O_WRONLY|os.O_APPEND, 0)
	return err
}

// replace writes a file so that after a power cut the old one is there or the
// new one, whole: under another name, synced, renamed, and the name synced.
func (s *storage) replace(name string, b []byte) error {
	tmp, err := os.Create(s.path(name + ".tmp"))
	if err != nil {
		return err
	}
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), s.path(name)); err != nil {
		return err
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

const header = 4 + 4 + 1

// record is its length, the CRC of length, kind and body, the kind, the body.
func record(kind byte, m proto.Message) []byte {
	b := append(make([]byte, header-1), kind)
	b, err := proto.MarshalOptions{}.MarshalAppend(b, m)
	if err != nil {
		panic(err) // a message of raft that cannot be encoded
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	binary.LittleEndian.PutUint32(b[4:], checksum(b))
	return b
}

func checksum(b []byte) uint32 {
	return crc32.ChecksumIEEE(append(bytes.Clone(b[:4]), b[8:]...))
}

// cut takes the first record of b apart; n is its length, 0 if it is not good.
func cut(b []byte) (kind byte, body []byte, n int) {
	if len(b) < header {
		return 0, nil, 0
	}
	n = int(binary.LittleEndian.Uint32(b))
	if n < header || n > len(b) || checksum(b[:n]) != binary.LittleEndian.Uint32(b[4:]) {
		return 0, nil, 0
	}
	return b[8], b[header:n], n
}
