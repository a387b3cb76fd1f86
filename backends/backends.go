// Package backends is the contract between a raft loop and the storage under
// its log.
//
// The package holds no engine. An engine lives in a package of its own, exports
// one value of type [Backend], and keeps the rules below; it is proved by
// backendtest.Run and measured by bench.Run without a change to this module.
//
// # The rules
//
//  1. When Save returns and raft.MustSync(st, prevSt, len(ents)) held, the
//     entries and the hard state survive a power cut. When it did not hold (a
//     commit-only hard state), nothing need be forced to disk, and a backend
//     that forces it anyway is measured unfairly slow.
//  2. Entries at or after ents[0].Index are replaced, also on disk, also when
//     the overwritten tail was longer.
//  3. SaveSnap is durable, Data included, on return; a snapshot is never lost
//     because a later one was being written.
//  4. Release(snap) may drop entries at or below the snapshot, never one above
//     it; disk space is given back.
//  5. Open after any crash returns a state that raft.RestartNode accepts:
//     entries contiguous after the snapshot, terms non-decreasing, commit ≤ last
//     index.
//  6. Damage is an error that names the file (never a silent shorter log, unless
//     what is cut is an unacknowledged tail), a second Open of a live directory
//     is an error, and so is a Save after Close.
//
// The reasons stand in docs/contract.md.
package backends

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// Storage persists the raft state of one node.
//
// Save and Sync are called by the raft loop, one at a time. SaveSnap and Release
// may be called by the apply side at the same time. Close is called once, when
// no other call is running; every later call returns [ErrClosed].
//
// A Storage does not keep the slices it is given after it returns, and never
// changes what they hold: entries and their Data are shared with raft and with
// other nodes.
type Storage interface {
	// Save appends ents, replacing any stored entry at or after ents[0].Index,
	// and replaces the hard state unless st is empty (raft.IsEmptyHardState).
	// After an error the storage is unusable: nothing may be acknowledged any
	// more, and every later Save fails too.
	Save(st *raftpb.HardState, ents []*raftpb.Entry) error
	// SaveSnap stores snap, Data included. Where the stored log does not hold
	// the entry (snap.Index, snap.Term), the log is behind the snapshot or
	// conflicts with it, and no entry stored so far is returned by a later Open.
	SaveSnap(snap *raftpb.Snapshot) error
	// Sync forces everything saved so far to disk.
	Sync() error
	// Release frees what snap makes unnecessary: entries at or below its index
	// and older snapshots. snap must have been saved.
	Release(snap *raftpb.Snapshot) error
	// Close frees files and locks. It forces nothing to disk that was not
	// already durable by the rules.
	Close() error
}

// State is what Open found on disk.
type State struct {
	// HardState is the last one saved; empty, never nil, in a new directory.
	HardState *raftpb.HardState
	// Snapshot is the newest durable one, Data included; nil if there is none.
	Snapshot *raftpb.Snapshot
	// Entries holds every entry after Snapshot, in order, without a gap.
	Entries []*raftpb.Entry
}

// Empty reports whether nothing was ever saved: a node that finds it starts,
// and one that does not restarts.
func (s State) Empty() bool {
	return len(s.Entries) == 0 && s.Snapshot == nil && s.HardState.GetTerm() == 0 &&
		s.HardState.GetVote() == 0 && s.HardState.GetCommit() == 0
}

// LastIndex is the index of the last entry, or of the snapshot where no entry
// follows it; 0 in an empty state.
func (s State) LastIndex() uint64 {
	if n := len(s.Entries); n > 0 {
		return s.Entries[n-1].GetIndex()
	}
	return s.Snapshot.GetMetadata().GetIndex()
}

// Options is what a backend is opened with.
type Options struct {
	// Dir exists, and is empty or holds an earlier life of the same backend.
	Dir string
	// Params are engine settings, e.g. {"freelist": "array"}. An unknown key or
	// a bad value is an error of type *[ParamError], returned before Dir is
	// touched.
	Params map[string]string
	// OnSync, if set, is called after each sync that the engine makes through a
	// seam that it owns (a virtual file system), with its duration. Engines
	// without such a seam ignore it. It may be called from any goroutine.
	OnSync func(time.Duration)
}

// Chooser is implemented by a Storage that was left a setting to choose, by what it
// measures of the disk for instance. It is optional.
type Chooser interface {
	// Chosen returns what was chosen, as Open would take it in Options.Params; nil
	// where every setting was given. The caller may not change it.
	Chosen() map[string]string
}

// Durability says what survives a power cut. Results of different durability
// are never ranked together.
type Durability string

const (
	// Synced backends keep rule 1.
	Synced Durability = "synced"
	// None marks a control that keeps nothing: it measures the harness.
	None Durability = "none"
)

// Backend is one storage engine under the contract.
type Backend struct {
	// Name as in `raftbench list`, e.g. "etcd-wal": lower-case letters, digits
	// and dashes.
	Name string
	// Doc is one sentence for `raftbench list`.
	Doc        string
	Durability Durability
	// Params documents the settings that Open accepts.
	Params []Param
	// Open creates or recovers the storage in opts.Dir. Errors: *[ParamError],
	// *[DamageError], [ErrLocked], or what the system said, wrapped with the
	// file's name.
	Open func(opts Options) (Storage, State, error)
	// OpenShared, if set, opens one store for the logs of many raft groups of one
	// host, as CockroachDB and TiKV keep theirs. Options and errors are those of
	// Open. A directory is for one of the two, for its life.
	OpenShared func(opts Options) (Shared, error)

	preset map[string]string
}

// Shared is one store under the logs of many raft groups.
type Shared interface {
	// Group creates or recovers the log of one group, which keeps the rules as a
	// store of its own does. Groups may be used at the same time, and what they
	// save at the same time may share a sync. A group that is open already is
	// [ErrLocked]. After an error of one group the store is unusable for all.
	Group(id uint64) (Storage, State, error)
	// Close frees files and locks; the groups must be closed before.
	Close() error
}

// With returns the backend with settings that every Open gets, unless the
// options name the same key.
func (b Backend) With(params map[string]string) Backend {
	if len(params) == 0 {
		return b
	}
	open, preset := b.Open, maps.Clone(b.preset)
	if preset == nil {
		preset = map[string]string{}
	}
	maps.Copy(preset, params)
	b.preset = preset
	with := func(opts Options) Options {
		merged := maps.Clone(params)
		maps.Copy(merged, opts.Params)
		opts.Params = merged
		return opts
	}
	b.Open = func(opts Options) (Storage, State, error) { return open(with(opts)) }
	if shared := b.OpenShared; shared != nil {
		b.OpenShared = func(opts Options) (Shared, error) { return shared(with(opts)) }
	}
	return b
}

// GroupStorage is the key under which labels say how the groups of a host are
// stored: "shared", all in one store, or "separate", each in one of its own.
const GroupStorage = "group-storage"

// ForGroups returns the backend for a host of many groups, with
// [GroupStorage] in its label: separate where that is asked for, where an earlier
// call has settled it, or where the engine has no shared store.
func (b Backend) ForGroups(separate bool) Backend {
	preset := maps.Clone(b.preset)
	if preset == nil {
		preset = map[string]string{}
	}
	preset[GroupStorage] = "shared"
	if separate || b.OpenShared == nil {
		b.OpenShared, preset[GroupStorage] = nil, "separate"
	}
	b.preset = preset
	return b
}

// Preset is what With set, nil if nothing; do not change it.
func (b Backend) Preset() map[string]string { return b.preset }

// Label is the name with its settings, e.g. "bbolt[freelist=array]".
func (b Backend) Label() string { return FormatName(b.Name, b.preset) }

var (
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("storage is closed")
	// ErrLocked is returned by Open where another Storage has the directory.
	ErrLocked = errors.New("directory is in use by another storage")
)

// DamageError says that a file holds what no crash of a correct system leaves.
type DamageError struct {
	File string // the damaged file, or the directory where the engine names none
	Err  error  // what is wrong with it, with the offset or index where known
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("damaged: %s: %v (restore this node from a peer, or move the directory away)", e.File, e.Err)
}

func (e *DamageError) Unwrap() error { return e.Err }
