package backends_test

import (
	"errors"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
)

func TestRecover(t *testing.T) {
	hs := func(term, vote, commit uint64) *raftpb.HardState {
		return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
	}
	snap := func(index, term uint64) *raftpb.Snapshot {
		return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: &term}}
	}
	log := func(first uint64, terms ...uint64) (ents []*raftpb.Entry) {
		for i, term := range terms {
			index := first + uint64(i)
			ents = append(ents, &raftpb.Entry{Index: &index, Term: &term})
		}
		return ents
	}
	for _, c := range []struct {
		name   string
		hs     *raftpb.HardState
		snap   *raftpb.Snapshot
		ents   []*raftpb.Entry
		want   *raftpb.HardState
		last   uint64
		damage string // in the error
	}{
		{name: "nothing", want: hs(0, 0, 0)},
		{name: "as saved", hs: hs(3, 2, 4), snap: snap(2, 1), ents: log(3, 1, 3, 3), want: hs(3, 2, 4), last: 5},
		{name: "covered by the snapshot", hs: hs(1, 1, 3), snap: snap(3, 1), ents: log(1, 1, 1, 1, 1), want: hs(1, 1, 3), last: 4},
		{name: "older than the snapshot", hs: hs(1, 2, 3), snap: snap(9, 4), ents: log(1, 1, 1, 1), want: hs(4, 0, 9), last: 9},
		{name: "in conflict with the snapshot", hs: hs(1, 2, 3), snap: snap(4, 2), ents: log(1, 1, 1, 1, 1, 1, 1), want: hs(2, 0, 4), last: 4},
		{name: "entries of a later term than the hard state", hs: hs(3, 2, 4), ents: log(1, 1, 1, 1, 3, 4), want: hs(4, 0, 4), last: 5},
		{name: "a gap", hs: hs(1, 1, 1), ents: append(log(1, 1, 1), log(4, 1)...), damage: "from index 2 to 4"},
		{name: "a gap after the snapshot", snap: snap(5, 1), ents: log(7, 1), damage: "from index 5 to 7"},
		{name: "a falling term", ents: log(1, 2, 1), damage: "term 1 after term 2"},
		{name: "a commit index beyond the log", hs: hs(1, 1, 3), ents: log(1, 1, 1), damage: "the log ends at 2"},
	} {
		st, err := backends.Recover("dir", c.hs, c.snap, c.ents)
		if c.damage != "" {
			var damage *backends.DamageError
			if !errors.As(err, &damage) || damage.File != "dir" || !strings.Contains(err.Error(), c.damage) {
				t.Errorf("%s: got %v, want a DamageError about %q", c.name, err, c.damage)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := st.HardState
		if got.GetTerm() != c.want.GetTerm() || got.GetVote() != c.want.GetVote() || got.GetCommit() != c.want.GetCommit() || st.LastIndex() != c.last {
			t.Errorf("%s: got %v and last index %d, want %v and %d", c.name, got, st.LastIndex(), c.want, c.last)
		}
	}
}
