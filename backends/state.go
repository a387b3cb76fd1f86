package backends

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Recover turns what an engine read back into a State that keeps rule 5. Engines
// call it as the last step of Open; dir names the place in errors.
//
// It drops the entries that the snapshot covers, and those that conflict with it:
// a follower that installs a snapshot over a log that diverged crashes before its
// engine could cut the old tail, and every entry of that tail has a term lower
// than the snapshot's (a later term would contain the committed entry at the
// snapshot's index). It raises a hard state that is older than the snapshot,
// because SaveSnap comes before Save in the loop and a crash may fall between
// them: what the snapshot holds is committed, and a vote in the snapshot's term
// would have been saved before it was sent. For the same reason it raises the term
// to that of the last entry: an engine that does not write entries and hard state
// as one may find the entries of an interrupted Save alone.
//
// hs, snap and ents become part of the State; ents may be cut in place. A gap, a
// falling term, or a commit index beyond the log is a *[DamageError].
func Recover(dir string, hs *raftpb.HardState, snap *raftpb.Snapshot, ents []*raftpb.Entry) (State, error) {
	st := State{HardState: &raftpb.HardState{}}
	if hs != nil {
		st.HardState = proto.Clone(hs).(*raftpb.HardState)
	}
	snapIndex, snapTerm := snap.GetMetadata().GetIndex(), snap.GetMetadata().GetTerm()
	if snapIndex > 0 {
		st.Snapshot = snap
	}
	for len(ents) > 0 && ents[0].GetIndex() <= snapIndex {
		ents = ents[1:]
	}
	if len(ents) > 0 && ents[0].GetTerm() < snapTerm {
		ents = nil
	}
	st.Entries = ents

	damage := func(format string, args ...any) (State, error) {
		return State{}, &DamageError{File: dir, Err: fmt.Errorf(format, args...)}
	}
	index, term := snapIndex, snapTerm
	for _, e := range ents {
		if e.GetIndex() != index+1 {
			return damage("the log jumps from index %d to %d", index, e.GetIndex())
		}
		if e.GetTerm() < term {
			return damage("entry %d has term %d after term %d", e.GetIndex(), e.GetTerm(), term)
		}
		index, term = e.GetIndex(), e.GetTerm()
	}
	if st.HardState.GetCommit() < snapIndex {
		st.HardState.Commit = proto.Uint64(snapIndex)
	}
	if st.HardState.GetTerm() < term {
		st.HardState.Term, st.HardState.Vote = proto.Uint64(term), proto.Uint64(0)
	}
	if st.HardState.GetCommit() > index {
		return damage("the hard state says that %d is committed, but the log ends at %d", st.HardState.GetCommit(), index)
	}
	return st, nil
}
