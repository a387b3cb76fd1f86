package powercut

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// stepKind is which call of the storage a step makes.
type stepKind uint8

const (
	stepSave stepKind = iota
	stepSync
	// stepSnapshot is SaveSnap and then Release on a goroutine of their own, as
	// the apply side does it, while the steps that follow go on.
	stepSnapshot
	// stepInstall is SaveSnap of a snapshot that the log does not reach, or
	// contradicts: a follower that was left behind. A stepSave follows it, and a
	// stepSync and stepRelease that one.
	stepInstall
	stepRelease
)

var stepNames = [...]string{"Save", "Sync", "SaveSnap+Release", "SaveSnap", "Release"}

// step is one call, numbered from 1 within a life.
type step struct {
	n    int
	kind stepKind
	hs   *raftpb.HardState // never nil in a stepSave
	ents []*raftpb.Entry
	snap *raftpb.Snapshot
	// must: raft.MustSync held, or the call is durable by its own rule.
	must bool
	// replaces: a stepSave whose first entry stood there before.
	replaces bool
}

// idleKinds are steps after which a cut finds the engine idle: what each of them
// promised must be on the disk without the help of the next one.
var idleKinds = []string{"vote", "vote", "entries", "overwrite", "snapshot", "install", "sync"}

// is reports whether s is of a kind from idleKinds.
func (s step) is(kind string) bool {
	switch kind {
	case "vote":
		return s.kind == stepSave && s.must && len(s.ents) == 0
	case "entries":
		return s.kind == stepSave && len(s.ents) > 0
	case "overwrite":
		return s.replaces
	case "snapshot":
		return s.kind == stepSnapshot
	case "install":
		return s.kind == stepInstall
	}
	return s.kind == stepSync
}

// maxLog is how many entries a log may hold before it is compacted, so that what
// a life reports stays small.
const maxLog = 400

// profile is what a life is heavy on, in per cent of its steps; the rest appends.
type profile struct {
	election, overwrite, commitOnly, snapshot, install, sync int
	large                                                    int // of the entries, per cent tens of KiB
}

var profiles = []profile{
	{election: 6, overwrite: 8, commitOnly: 10, snapshot: 5, install: 2, sync: 3, large: 10},
	{election: 2, overwrite: 2, commitOnly: 5, snapshot: 2, install: 0, sync: 1, large: 0},
	{election: 2, overwrite: 4, commitOnly: 5, snapshot: 8, install: 1, sync: 2, large: 60},
	{election: 5, overwrite: 35, commitOnly: 5, snapshot: 5, install: 2, sync: 2, large: 15},
	{election: 5, overwrite: 10, commitOnly: 5, snapshot: 30, install: 10, sync: 2, large: 10},
}

// plan is the workload of one life: what a raft node might save, from the state
// that Open returned. Two plans of one seed and one state are the same, so that
// the process that checks knows what the one that was killed did.
type plan struct {
	dice    *rand.Rand
	profile profile
	n       int
	queue   []step

	hs, prev  *raftpb.HardState
	snapIndex uint64
	snapTerm  uint64
	terms     []uint64 // of the entries after snapIndex
}

func newPlan(seed int64, hs *raftpb.HardState, snap *raftpb.SnapshotMetadata, terms []uint64) *plan {
	p := &plan{
		dice:      rand.New(rand.NewPCG(uint64(seed), 2)),
		hs:        proto.Clone(hs).(*raftpb.HardState),
		snapIndex: snap.GetIndex(),
		snapTerm:  snap.GetTerm(),
		terms:     terms,
	}
	p.profile = profiles[p.dice.IntN(len(profiles))]
	p.prev = proto.Clone(p.hs).(*raftpb.HardState)
	return p
}

// planOf is the plan that follows an opened state.
func planOf(seed int64, st backends.State) *plan {
	terms := make([]uint64, len(st.Entries))
	for i, e := range st.Entries {
		terms[i] = e.GetTerm()
	}
	return newPlan(seed, st.HardState, st.Snapshot.GetMetadata(), terms)
}

func (p *plan) last() uint64 { return p.snapIndex + uint64(len(p.terms)) }

func (p *plan) termAt(index uint64) uint64 {
	if index == p.snapIndex {
		return p.snapTerm
	}
	return p.terms[index-p.snapIndex-1]
}

// next is the step to make now.
func (p *plan) next() step {
	if len(p.queue) == 0 {
		p.refill()
	}
	s := p.queue[0]
	p.queue = p.queue[1:]
	p.n++
	s.n = p.n
	return s
}

func (p *plan) refill() {
	r := p.dice.IntN(100)
	chance := func(percent int) bool {
		r -= percent
		return r < 0
	}
	pr := p.profile
	switch {
	case p.hs.GetTerm() == 0, chance(pr.election):
		p.elect()
	case chance(pr.overwrite) && p.last() > p.hs.GetCommit():
		p.overwrite()
	case chance(pr.commitOnly) && p.last() > p.hs.GetCommit():
		p.commit(p.last())
		p.save(nil)
	case len(p.terms) > maxLog || chance(pr.snapshot) && p.hs.GetCommit() > p.snapIndex:
		p.compact()
	case chance(pr.install):
		p.install()
	case chance(pr.sync):
		p.queue = append(p.queue, step{kind: stepSync, must: true})
	default:
		p.append()
	}
}

// elect starts a term: the vote is saved alone, and a leader appends an empty
// entry.
func (p *plan) elect() {
	p.hs.Term = proto.Uint64(p.hs.GetTerm() + 1 + uint64(p.dice.IntN(2)))
	p.hs.Vote = proto.Uint64(uint64(p.dice.IntN(4)))
	p.save(nil)
	if p.dice.IntN(2) == 0 {
		p.save([]*raftpb.Entry{{Type: raftpb.EntryNormal.Enum(), Term: p.hs.Term, Index: proto.Uint64(p.last() + 1)}})
	}
}

func (p *plan) append() {
	ents := p.entries(p.last() + 1)
	if p.dice.IntN(2) == 0 {
		p.commit(p.last() + uint64(len(ents)))
	}
	p.save(ents)
}

// overwrite replaces uncommitted entries in a later term, by fewer or by more.
func (p *plan) overwrite() {
	p.hs.Term = proto.Uint64(p.hs.GetTerm() + 1)
	p.hs.Vote = proto.Uint64(0)
	if p.dice.IntN(2) == 0 {
		p.save(nil)
	}
	first := p.last() - uint64(p.dice.Int64N(int64(min(p.last()-p.hs.GetCommit(), 40))))
	p.save(p.entries(first))
}

// commit moves the commit index, at most to limit.
func (p *plan) commit(limit uint64) {
	c := p.hs.GetCommit()
	// Most of the time some entries stay uncommitted, for an overwrite to find.
	c += uint64(p.dice.Int64N(int64(limit-c) + 1))
	p.hs.Commit = proto.Uint64(c)
}

func (p *plan) entries(first uint64) []*raftpb.Entry {
	count := 1
	switch r := p.dice.IntN(20); {
	case r == 0:
		count = 9 + p.dice.IntN(56)
	case r < 5:
		count = 2 + p.dice.IntN(7)
	}
	ents := make([]*raftpb.Entry, count)
	for i := range ents {
		kind := raftpb.EntryNormal
		if p.dice.IntN(30) == 0 {
			kind = raftpb.EntryConfChangeV2
		}
		ents[i] = &raftpb.Entry{
			Type: kind.Enum(), Term: proto.Uint64(p.hs.GetTerm()), Index: proto.Uint64(first + uint64(i)),
			Data: p.payload(p.size(count)),
		}
	}
	return ents
}

// size draws the size of a payload: mostly small, some tens of KiB, rarely a MiB.
func (p *plan) size(count int) int {
	switch r := p.dice.IntN(100); {
	case r < p.profile.large && count < 9:
		if p.dice.IntN(60) == 0 {
			return 1 << 20
		}
		return 4096 + p.dice.IntN(60<<10)
	case r >= 97:
		return 0
	case r >= 75:
		return 256 + p.dice.IntN(4096)
	}
	return 1 + p.dice.IntN(256)
}

// payload is random bytes, or now and then what a decoder may take for the end of
// a log: zeros, or ones.
func (p *plan) payload(size int) []byte {
	if size == 0 {
		return nil
	}
	data := make([]byte, (size+7)/8*8)
	switch p.dice.IntN(20) {
	case 0:
	case 1:
		for i := range data {
			data[i] = 0xff
		}
	default:
		for i := 0; i < len(data); i += 8 {
			binary.LittleEndian.PutUint64(data[i:], p.dice.Uint64())
		}
	}
	return data[:size]
}

// save queues a Save of ents and of the hard state, where it changed.
func (p *plan) save(ents []*raftpb.Entry) {
	st := &raftpb.HardState{}
	if !proto.Equal(p.hs, p.prev) {
		st = proto.Clone(p.hs).(*raftpb.HardState)
	}
	must := raft.MustSync(p.hs, p.prev, len(ents))
	p.prev = proto.Clone(p.hs).(*raftpb.HardState)
	replaces := len(ents) > 0 && ents[0].GetIndex() <= p.last()
	if len(ents) > 0 {
		p.terms = p.terms[:ents[0].GetIndex()-p.snapIndex-1]
		for _, e := range ents {
			p.terms = append(p.terms, e.GetTerm())
		}
	}
	p.queue = append(p.queue, step{kind: stepSave, hs: st, ents: ents, must: must, replaces: replaces})
}

// compact snapshots at a committed index, most often a recent one.
func (p *plan) compact() {
	commit := p.hs.GetCommit()
	if commit <= p.snapIndex {
		p.commit(p.last())
		p.save(nil)
		return
	}
	index := commit
	if p.dice.IntN(3) == 0 {
		index = p.snapIndex + 1 + uint64(p.dice.Int64N(int64(commit-p.snapIndex)))
	}
	snap := p.snapshot(index, p.termAt(index))
	p.terms = p.terms[index-p.snapIndex:]
	p.snapIndex, p.snapTerm = index, snap.GetMetadata().GetTerm()
	p.queue = append(p.queue, step{kind: stepSnapshot, snap: snap, must: true})
}

// install is a snapshot from a leader of a new term, beyond the log's end or in
// the middle of a log that diverged.
func (p *plan) install() {
	p.hs.Term = proto.Uint64(p.hs.GetTerm() + 1)
	p.hs.Vote = proto.Uint64(0)
	index := p.last() + 1 + uint64(p.dice.IntN(50))
	if uncommitted := p.last() - p.hs.GetCommit(); uncommitted > 0 && p.dice.IntN(2) == 0 {
		index = p.hs.GetCommit() + 1 + uint64(p.dice.Int64N(int64(uncommitted)))
	}
	snap := p.snapshot(index, p.hs.GetTerm())
	p.snapIndex, p.snapTerm, p.terms = index, p.hs.GetTerm(), nil
	p.hs.Commit = proto.Uint64(index)
	p.queue = append(p.queue, step{kind: stepInstall, snap: snap, must: true})
	p.save(nil)
	p.queue = append(p.queue, step{kind: stepSync, must: true}, step{kind: stepRelease, snap: snap, must: true})
}

func (p *plan) snapshot(index, term uint64) *raftpb.Snapshot {
	size := p.dice.IntN(20 << 10)
	if p.dice.IntN(40) == 0 {
		size = 1 << 20
	}
	voters := []uint64{1, 2, 3}[:1+p.dice.IntN(3)]
	return &raftpb.Snapshot{
		Data: p.payload(size),
		Metadata: &raftpb.SnapshotMetadata{
			Index: proto.Uint64(index), Term: proto.Uint64(term),
			ConfState: &raftpb.ConfState{Voters: voters},
		},
	}
}

// String shows a step in a trace.
func (s step) String() string {
	text := fmt.Sprintf("#%d %s", s.n, stepNames[s.kind])
	if s.snap != nil {
		m := s.snap.GetMetadata()
		text += fmt.Sprintf(" index %d term %d, %d bytes", m.GetIndex(), m.GetTerm(), len(s.snap.GetData()))
	}
	if s.hs != nil && !raft.IsEmptyHardState(s.hs) {
		text += fmt.Sprintf(" hard state %v", hardStateOf(s.hs))
	}
	if n := len(s.ents); n > 0 {
		size := 0
		for _, e := range s.ents {
			size += len(e.GetData())
		}
		text += fmt.Sprintf(" entries %d to %d of term %d, %d bytes", s.ents[0].GetIndex(), s.ents[n-1].GetIndex(), s.ents[0].GetTerm(), size)
	}
	return text
}
