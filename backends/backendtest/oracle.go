package backendtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"math"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// oracle knows what a correct storage holds after the calls it was told of.
type oracle struct {
	ms *raft.MemoryStorage
	hs *raftpb.HardState
}

func newOracle() *oracle {
	return &oracle{ms: raft.NewMemoryStorage(), hs: &raftpb.HardState{}}
}

func (o *oracle) save(hs *raftpb.HardState, ents []*raftpb.Entry) {
	if !raft.IsEmptyHardState(hs) {
		o.hs = proto.Clone(hs).(*raftpb.HardState)
	}
	cloned := make([]*raftpb.Entry, len(ents))
	for i, e := range ents {
		cloned[i] = proto.Clone(e).(*raftpb.Entry)
	}
	if err := o.ms.Append(cloned); err != nil {
		panic(err)
	}
}

// saveSnap follows the contract of Storage.SaveSnap: the tail stays only where
// the log holds the snapshot's entry.
func (o *oracle) saveSnap(snap *raftpb.Snapshot) {
	snap = proto.Clone(snap).(*raftpb.Snapshot)
	md := snap.GetMetadata()
	last, err := o.ms.LastIndex()
	if err != nil {
		panic(err)
	}
	if md.GetIndex() <= last {
		if term, err := o.ms.Term(md.GetIndex()); err == nil && term == md.GetTerm() {
			if _, err := o.ms.CreateSnapshot(md.GetIndex(), md.GetConfState(), snap.Data); err != nil {
				panic(err)
			}
			return
		}
	}
	if err := o.ms.ApplySnapshot(snap); err != nil {
		panic(err)
	}
}

func (o *oracle) snapshot() *raftpb.Snapshot {
	snap, err := o.ms.Snapshot()
	if err != nil {
		panic(err)
	}
	if raft.IsEmptySnap(snap) {
		return nil
	}
	return snap
}

func (o *oracle) lastIndex() uint64 {
	last, err := o.ms.LastIndex()
	if err != nil {
		panic(err)
	}
	return last
}

// entries are those after the snapshot.
func (o *oracle) entries() []*raftpb.Entry {
	lo, hi := o.snapshot().GetMetadata().GetIndex()+1, o.lastIndex()+1
	if lo >= hi {
		return nil
	}
	ents, err := o.ms.Entries(lo, hi, math.MaxUint64)
	if err != nil {
		panic(err)
	}
	return ents
}

// state is what Open must return.
func (o *oracle) state() backends.State {
	st, err := backends.Recover("oracle", o.hs, o.snapshot(), o.entries())
	if err != nil {
		panic("backendtest: a case saves what no raft node would: " + err.Error())
	}
	return st
}

// differs says in what got is not want; "" if in nothing. Data of no bytes and
// no Data are the same: raft and its users look at the length only.
func differs(got, want backends.State) string {
	if got.HardState == nil {
		return "State.HardState is nil; want an empty one where nothing was saved"
	}
	if !proto.Equal(got.HardState, want.HardState) && hardState(got.HardState) != hardState(want.HardState) {
		return fmt.Sprintf("hard state is %s, want %s", hardState(got.HardState), hardState(want.HardState))
	}
	if d := snapshotDiffers(got.Snapshot, want.Snapshot); d != "" {
		return d
	}
	if len(got.Entries) != len(want.Entries) {
		return fmt.Sprintf("%s, want %s", describe(got.Entries), describe(want.Entries))
	}
	for i, g := range got.Entries {
		if d := entryDiffers(g, want.Entries[i]); d != "" {
			return d
		}
	}
	return ""
}

func hardState(hs *raftpb.HardState) string {
	return fmt.Sprintf("{term %d, vote %d, commit %d}", hs.GetTerm(), hs.GetVote(), hs.GetCommit())
}

func describe(ents []*raftpb.Entry) string {
	if len(ents) == 0 {
		return "no entries"
	}
	first, last := ents[0], ents[len(ents)-1]
	return fmt.Sprintf("%d entries from %d (term %d) to %d (term %d)",
		len(ents), first.GetIndex(), first.GetTerm(), last.GetIndex(), last.GetTerm())
}

func snapshotDiffers(got, want *raftpb.Snapshot) string {
	g, w := got.GetMetadata(), want.GetMetadata()
	switch {
	case got == nil && want == nil:
		return ""
	case want == nil:
		return fmt.Sprintf("State.Snapshot has index %d, want nil: none was saved", g.GetIndex())
	case got == nil:
		return fmt.Sprintf("State.Snapshot is nil, want the one at index %d", w.GetIndex())
	case g.GetIndex() != w.GetIndex() || g.GetTerm() != w.GetTerm():
		return fmt.Sprintf("snapshot is at index %d, term %d; want index %d, term %d", g.GetIndex(), g.GetTerm(), w.GetIndex(), w.GetTerm())
	case g.GetConfState() == nil || g.GetConfState().Equivalent(w.GetConfState()) != nil:
		return fmt.Sprintf("snapshot %d has the members {%v}, want {%v}", g.GetIndex(), g.GetConfState(), w.GetConfState())
	case !bytes.Equal(got.Data, want.Data):
		return fmt.Sprintf("snapshot %d has other Data (%s)", g.GetIndex(), bytesDiffer(got.Data, want.Data))
	}
	return ""
}

func entryDiffers(got, want *raftpb.Entry) string {
	switch {
	case got.GetIndex() != want.GetIndex():
		return fmt.Sprintf("entry %d stands where %d should", got.GetIndex(), want.GetIndex())
	case got.GetTerm() != want.GetTerm():
		return fmt.Sprintf("entry %d has term %d, want %d", got.GetIndex(), got.GetTerm(), want.GetTerm())
	case got.GetType() != want.GetType():
		return fmt.Sprintf("entry %d is a %s, want a %s", got.GetIndex(), got.GetType(), want.GetType())
	case !bytes.Equal(got.Data, want.Data):
		return fmt.Sprintf("entry %d has other Data (%s)", got.GetIndex(), bytesDiffer(got.Data, want.Data))
	}
	return ""
}

func bytesDiffer(got, want []byte) string {
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	return fmt.Sprintf("%d bytes, want %d, first difference at %d", len(got), len(want), i)
}

// restartable starts a raft node from st and says why it would not.
func restartable(st backends.State) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("raft panics on it: %v", r)
		}
	}()
	ms := raft.NewMemoryStorage()
	if st.Snapshot != nil {
		if err := ms.ApplySnapshot(proto.Clone(st.Snapshot).(*raftpb.Snapshot)); err != nil {
			return err
		}
	}
	if err := ms.SetHardState(proto.Clone(st.HardState).(*raftpb.HardState)); err != nil {
		return err
	}
	// A copy of the slice: Append may write into it.
	if err := ms.Append(append([]*raftpb.Entry(nil), st.Entries...)); err != nil {
		return err
	}
	index, term := st.Snapshot.GetMetadata().GetIndex(), st.Snapshot.GetMetadata().GetTerm()
	for _, e := range st.Entries {
		if e.GetIndex() != index+1 || e.GetTerm() < term {
			return fmt.Errorf("entry (index %d, term %d) follows (index %d, term %d)", e.GetIndex(), e.GetTerm(), index, term)
		}
		index, term = e.GetIndex(), e.GetTerm()
	}
	if term > st.HardState.GetTerm() {
		return fmt.Errorf("the log reaches term %d, the hard state only %d", term, st.HardState.GetTerm())
	}
	if st.HardState.GetCommit() > index {
		return errors.New("the commit index lies beyond the log")
	}
	_, err = raft.NewRawNode(&raft.Config{
		ID: 1, ElectionTick: 10, HeartbeatTick: 1, Storage: ms,
		MaxSizePerMsg: math.MaxUint64, MaxInflightMsgs: 16,
		Applied: st.Snapshot.GetMetadata().GetIndex(),
		Logger:  &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
	})
	return err
}
