package powercut

import (
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// TestCommittedTail: what a Save in flight was replacing may still be there, or be gone,
// but is not committed.
func TestCommittedTail(t *testing.T) {
	ents := func(term uint64, indexes ...uint64) (out []*raftpb.Entry) {
		for _, i := range indexes {
			out = append(out, &raftpb.Entry{Index: proto.Uint64(i), Term: proto.Uint64(term)})
		}
		return out
	}
	old, fresh := ents(1, 1, 2, 3, 4), ents(2, 2, 3)
	before, after := hardState{Term: 1, Commit: 1}, hardState{Term: 2, Commit: 3}
	for _, c := range []struct {
		name    string
		hs      hardState
		entries []*raftpb.Entry
		wrong   int
	}{
		{"nothing of it", before, old, 0},
		{"all of it", after, append(old[:1:1], fresh...), 0},
		{"its first entry", before, append(old[:1:1], fresh[:1]...), 0},
		{"its first entry, and the term of it", hardState{Term: 2, Commit: 1}, append(old[:1:1], fresh[:1]...), 0},
		{"the old tail cut", before, old[:3], 0},
		{"the commit index before the entries", after, old, 2},
		{"the commit index when the old tail is cut", after, old[:3], 2},
	} {
		m := &model{entries: idsOf(old), hs: []hardState{before}}
		m.begin(step{kind: stepSave, hs: after.proto(), ents: fresh, must: true, replaces: true})
		v := m.check(report{HardState: c.hs, Entries: idsOf(c.entries)})
		if v.lost != 0 || v.wrong != c.wrong || c.wrong > 0 && !strings.Contains(v.problems[0], "was replacing it") {
			t.Errorf("%s is on disk: %d lost, %d wrong, want %d: %q", c.name, v.lost, v.wrong, c.wrong, v.problems)
		}
	}
}

// TestTermOfEntries: a hard state may have the term of entries that were being saved, and
// nothing else that was not saved.
func TestTermOfEntries(t *testing.T) {
	entries := []*raftpb.Entry{{Index: proto.Uint64(1), Term: proto.Uint64(2)}}
	for hs, wrong := range map[hardState]int{
		{Term: 1, Vote: 3}: 0, {Term: 2}: 0, {Term: 2, Vote: 1, Commit: 1}: 0, // before, between, after
		{Term: 2, Vote: 3}: 1, {Term: 2, Vote: 1}: 1, {Term: 3}: 1,
	} {
		m := &model{hs: []hardState{{Term: 1, Vote: 3}}}
		m.begin(step{kind: stepSave, hs: hardState{Term: 2, Vote: 1, Commit: 1}.proto(), ents: entries, must: true})
		if v := m.check(report{HardState: hs, Entries: idsOf(entries)}); v.wrong != wrong || v.lost != 0 {
			t.Errorf("%v: %d wrong, %d lost, want %d wrong: %q", hs, v.wrong, v.lost, wrong, v.problems)
		}
	}
}
