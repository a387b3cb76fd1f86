package kvlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/raftbench/raftbench/backends"
)

// Shared keeps the logs of many raft groups in one engine. The keys of a group
// are those of the package comment behind
//
//	'g' group(8)
//
// and the checksum at the end of every value is XORed with that of these nine
// bytes, so that the record of one group under the key of another is damage.
//
// Commits of several groups share what the engine lets them share. An engine that
// gathers concurrent commits (pebble, badger) is left to it. Where it makes one
// after the other (Config.OneCommit), those that wait become one: the one that has
// just been made hands the lead to the first that waits, which commits for all.
//
// Files of snapshots are in a directory for each group, named by its number.
type Shared struct {
	dir       string
	e         Engine
	cfg       Config
	openError func(dir string, err error) error

	failed atomic.Pointer[error] // the first error, of any group; or that it is closed

	mu      sync.Mutex
	open    map[uint64]bool // groups
	busy    bool            // OneCommit: somebody leads
	waiting []*request      // OneCommit: in order of arrival
}

// request is a Commit that waits.
type request struct {
	ops   []Op
	bytes int
	sync  bool
	err   error
	next  chan bool // true: lead; false: it was made, and err is its outcome
}

const (
	groupPrefix     = 'g'
	groupPrefixSize = 1 + 8
	// maxGathered bounds what the commits that become one hold together: a commit
	// takes time in proportion, in which all others wait.
	maxGathered = 1 << 20
)

// NewShared takes e over. dir names the place in errors; openError, which may be
// nil, turns an error of the engine into what Open is to return.
func NewShared(dir string, e Engine, cfg Config, openError func(dir string, err error) error) *Shared {
	if openError == nil {
		openError = func(_ string, err error) error { return err }
	}
	return &Shared{dir: dir, e: e, cfg: cfg, openError: openError, open: map[uint64]bool{}}
}

// Group is Group of [backends.Shared].
func (s *Shared) Group(id uint64) (backends.Storage, backends.State, error) {
	if err := s.usable(); err != nil {
		return nil, backends.State{}, err
	}
	if s.cfg.SnapFiles {
		if err := makeDir(s.cfg.SnapDir); err != nil {
			return nil, backends.State{}, fmt.Errorf("group %d: %w", id, err)
		}
	}
	s.mu.Lock()
	if s.open[id] {
		s.mu.Unlock()
		return nil, backends.State{}, fmt.Errorf("%s: group %d: %w", s.dir, id, backends.ErrLocked)
	}
	s.open[id] = true
	s.mu.Unlock()
	g := &groupEngine{s: s, id: id, prefix: binary.BigEndian.AppendUint64([]byte{groupPrefix}, id)}
	g.mask = crc32.Checksum(g.prefix, castagnoli)
	cfg := s.cfg
	cfg.SnapDir = filepath.Join(cfg.SnapDir, fmt.Sprintf("%016x", id))
	cfg.failed = func(err error) { s.done(err) }
	storage, st, err := Open(s.dir, g, cfg) // closes g after an error
	if err != nil {
		return nil, backends.State{}, fmt.Errorf("group %d: %w", id, s.openError(s.dir, err))
	}
	return storage, st, nil
}

// Close is Close of [backends.Shared].
func (s *Shared) Close() error {
	s.mu.Lock()
	open := len(s.open)
	s.mu.Unlock()
	if open > 0 {
		return fmt.Errorf("%s: close: %d groups are still open", s.dir, open)
	}
	if err := s.failed.Load(); err != nil && errors.Is(*err, backends.ErrClosed) {
		return *err
	}
	closed := fmt.Errorf("%s: %w", s.dir, backends.ErrClosed)
	s.failed.Store(&closed)
	if err := s.e.Close(); err != nil {
		return fmt.Errorf("%s: close: %w", s.dir, err)
	}
	return nil
}

func (s *Shared) usable() error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// done notes the outcome of a Commit or Sync of the engine, or of a file beside it.
func (s *Shared) done(err error) error {
	if err != nil {
		s.failed.CompareAndSwap(nil, &err)
	}
	return err
}

func (s *Shared) commit(ops []Op, sync bool) error {
	if err := s.usable(); err != nil {
		return err
	}
	if !s.cfg.OneCommit {
		return s.done(s.e.Commit(ops, sync))
	}
	r := &request{ops: ops, sync: sync, next: make(chan bool, 1)}
	for _, op := range ops {
		r.bytes += len(op.Key) + len(op.Value)
	}
	s.mu.Lock()
	s.waiting = append(s.waiting, r)
	wait := s.busy
	s.busy = true
	s.mu.Unlock()
	if wait {
		if lead := <-r.next; !lead {
			return r.err
		}
	}
	return s.lead()
}

// lead commits for those at the head of the queue, of which the caller is the
// first, and hands the lead on.
func (s *Shared) lead() error {
	s.mu.Lock()
	n := s.together()
	batch := slices.Clone(s.waiting[:n])
	s.waiting = slices.Delete(s.waiting, 0, n)
	s.mu.Unlock()
	ops, sync := batch[0].ops, false
	for i, r := range batch {
		if i > 0 {
			ops = append(ops, r.ops...)
		}
		sync = sync || r.sync
	}
	err := s.usable() // one before may have failed since
	if err == nil {
		err = s.done(s.e.Commit(ops, sync))
	}
	for _, r := range batch[1:] {
		r.err = err
		r.next <- false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) > 0 {
		s.waiting[0].next <- true
	} else {
		s.busy = false
	}
	return err
}

// together is how many of those that wait fit into one commit, one at least; s.mu
// is held.
func (s *Shared) together() int {
	n, bytes, ops := 0, 0, 0
	for _, r := range s.waiting {
		bytes, ops = bytes+r.bytes, ops+len(r.ops)
		tooMany := s.cfg.DeleteStep > 0 && ops > s.cfg.DeleteStep || s.cfg.MaxBatchOps > 0 && ops > s.cfg.MaxBatchOps
		tooBig := bytes > maxGathered || s.cfg.MaxBatchBytes > 0 && bytes > s.cfg.MaxBatchBytes
		if n > 0 && (tooMany || tooBig) {
			break
		}
		n++
	}
	return n
}

// groupEngine is one group's part of a shared engine.
type groupEngine struct {
	s      *Shared
	id     uint64
	prefix []byte
	mask   uint32
}

// Commit implements Engine. The checksums are masked in place: every record is
// built for one Commit.
func (g *groupEngine) Commit(ops []Op, sync bool) error {
	size := 0
	for _, op := range ops {
		size += 2*groupPrefixSize + len(op.Key) + len(op.End)
	}
	keys := make([]byte, 0, size)
	key := func(k []byte) []byte {
		start := len(keys)
		keys = append(append(keys, g.prefix...), k...)
		return keys[start:len(keys):len(keys)]
	}
	out := make([]Op, len(ops))
	for i, op := range ops {
		out[i] = Op{Key: key(op.Key), Value: op.Value}
		if op.End != nil {
			out[i].End = key(op.End)
		}
		g.flip(op.Value)
	}
	return g.s.commit(out, sync)
}

// flip masks the checksum at the end of a value, or takes the mask away.
func (g *groupEngine) flip(value []byte) {
	if n := len(value) - crcSize; n >= 0 {
		binary.BigEndian.PutUint32(value[n:], binary.BigEndian.Uint32(value[n:])^g.mask)
	}
}

func (g *groupEngine) Iterate(lo, hi []byte, f func(key, value []byte) error) error {
	var own []byte // the engine's memory may be read-only
	return g.s.e.Iterate(slices.Concat(g.prefix, lo), slices.Concat(g.prefix, hi), func(key, value []byte) error {
		own = append(own[:0], value...)
		g.flip(own)
		return f(key[groupPrefixSize:], own)
	})
}

func (g *groupEngine) Sync() error {
	if err := g.s.usable(); err != nil {
		return err
	}
	return g.s.done(g.s.e.Sync())
}

// Close ends the group's use of the engine.
func (g *groupEngine) Close() error {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	delete(g.s.open, g.id)
	return nil
}
