package powercut

import (
	"encoding/binary"
	"fmt"
	"io"
	"log"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// entryID is an entry without its payload.
type entryID struct {
	Index uint64 `json:"i"`
	Term  uint64 `json:"t"`
	Hash  uint64 `json:"h"` // of type and payload
}

func idOf(e *raftpb.Entry) entryID {
	h := xxhash.New()
	var kind [8]byte
	binary.LittleEndian.PutUint64(kind[:], uint64(e.GetType()))
	h.Write(kind[:])
	h.Write(e.GetData())
	return entryID{Index: e.GetIndex(), Term: e.GetTerm(), Hash: h.Sum64()}
}

// snapID is a snapshot without its data; the zero snapID is none.
type snapID struct {
	Index  uint64   `json:"index"`
	Term   uint64   `json:"term"`
	Hash   uint64   `json:"hash"`
	Voters []uint64 `json:"voters"`
}

func snapIDOf(s *raftpb.Snapshot) snapID {
	m := s.GetMetadata()
	if m.GetIndex() == 0 {
		return snapID{}
	}
	return snapID{Index: m.GetIndex(), Term: m.GetTerm(), Hash: xxhash.Sum64(s.GetData()), Voters: m.GetConfState().GetVoters()}
}

func (s snapID) equal(o snapID) bool { return fmt.Sprint(s) == fmt.Sprint(o) }

func (s snapID) String() string {
	return fmt.Sprintf("snapshot %d (term %d, voters %v, data %016x)", s.Index, s.Term, s.Voters, s.Hash)
}

// hardState is a raftpb.HardState that can be compared.
type hardState struct {
	Term   uint64 `json:"term"`
	Vote   uint64 `json:"vote"`
	Commit uint64 `json:"commit"`
}

func hardStateOf(h *raftpb.HardState) hardState {
	return hardState{h.GetTerm(), h.GetVote(), h.GetCommit()}
}

func (h hardState) proto() *raftpb.HardState {
	return &raftpb.HardState{Term: proto.Uint64(h.Term), Vote: proto.Uint64(h.Vote), Commit: proto.Uint64(h.Commit)}
}

func (h hardState) String() string {
	return fmt.Sprintf("{term %d, vote %d, commit %d}", h.Term, h.Vote, h.Commit)
}

// report is what Open returned in the process that ran the engine.
type report struct {
	HardState hardState `json:"hs"`
	Snapshot  snapID    `json:"snap"`
	Entries   []entryID `json:"ents"`
}

func reportOf(st backends.State) report {
	r := report{HardState: hardStateOf(st.HardState), Snapshot: snapIDOf(st.Snapshot)}
	for _, e := range st.Entries {
		r.Entries = append(r.Entries, idOf(e))
	}
	return r
}

func (r report) plan(seed int64) *plan {
	terms := make([]uint64, len(r.Entries))
	for i, e := range r.Entries {
		terms[i] = e.Term
	}
	meta := &raftpb.SnapshotMetadata{Index: &r.Snapshot.Index, Term: &r.Snapshot.Term}
	return newPlan(seed, r.HardState.proto(), meta, terms)
}

// model is what the storage must hold, from the acknowledgements.
type model struct {
	snap    snapID
	entries []entryID // after snap, in order
	// hs are the hard states that Open may return: the last one that had to be
	// durable, and those after it that had not.
	hs []hardState
	// In flight: begun and not acknowledged. At most one of each.
	save    *step
	newSnap *step
	// before is the model without the last acknowledged Save; nil if that is not
	// known.
	before *model
}

func (m *model) last() uint64 { return m.snap.Index + uint64(len(m.entries)) }

// begin notes that s was started.
func (m *model) begin(s step) {
	switch s.kind {
	case stepSave:
		if m.save == nil { // one that failed stays in flight
			m.save = &s
		}
	case stepSnapshot, stepInstall:
		m.newSnap = &s
	}
}

// ack notes that s has returned. It returns how many entries are new.
func (m *model) ack(s step) (entries int) {
	switch s.kind {
	case stepSave:
		before := *m
		before.before = nil
		m.before, m.save = &before, nil
		if len(s.ents) > 0 {
			m.entries = append(m.entries[:s.ents[0].GetIndex()-m.snap.Index-1:len(m.entries)], idsOf(s.ents)...)
		}
		if h := hardStateOf(s.hs); !raft.IsEmptyHardState(s.hs) {
			if s.must {
				m.hs = nil
			}
			m.hs = append(m.hs, h)
		}
		return len(s.ents)
	case stepSync:
		m.hs = m.hs[max(0, len(m.hs)-1):]
	case stepSnapshot, stepInstall:
		m.before, m.newSnap = nil, nil
		m.entries = m.after(s.snap)
		m.snap = snapIDOf(s.snap)
	}
	return 0
}

func idsOf(ents []*raftpb.Entry) []entryID {
	ids := make([]entryID, len(ents))
	for i, e := range ents {
		ids[i] = idOf(e)
	}
	return ids
}

// after is what remains of the entries once snap is the snapshot: nothing where
// the log does not hold the snapshot's last entry.
func (m *model) after(snap *raftpb.Snapshot) []entryID {
	index, term := snap.GetMetadata().GetIndex(), snap.GetMetadata().GetTerm()
	if index <= m.snap.Index || index > m.last() || m.entries[index-m.snap.Index-1].Term != term {
		return nil
	}
	return m.entries[index-m.snap.Index:]
}

// verdict is what a check found. Lost and Wrong count entries, hard states and
// snapshots.
type verdict struct {
	lost, wrong int
	problems    []string
}

func (v *verdict) ok() bool { return v.lost == 0 && v.wrong == 0 }

// maxProblems bounds what a verdict names; it counts all of them.
const maxProblems = 4

func (v *verdict) lose(format string, args ...any) { v.lost++; v.add("lost: "+format, args...) }
func (v *verdict) err(format string, args ...any)  { v.wrong++; v.add("wrong: "+format, args...) }

func (v *verdict) add(format string, args ...any) {
	if len(v.problems) < maxProblems {
		v.problems = append(v.problems, fmt.Sprintf(format, args...))
	}
}

// check compares what Open returned with what must be there, and goes on from
// what was found.
func (m *model) check(r report) *verdict {
	v := &verdict{}
	m.checkSnapshot(v, r)
	m.checkEntries(v, r)
	m.checkHardState(v, r)
	if err := acceptable(r); err != nil {
		v.err("raft does not accept the state: %v", err)
	}
	*m = model{snap: r.Snapshot, entries: r.Entries, hs: []hardState{r.HardState}}
	return v
}

// checkSnapshot takes the snapshot in flight over, if it is there.
func (m *model) checkSnapshot(v *verdict, r report) {
	switch {
	case r.Snapshot.equal(m.snap):
	case m.newSnap != nil && r.Snapshot.equal(snapIDOf(m.newSnap.snap)):
		m.ack(*m.newSnap)
	case r.Snapshot.Index < m.snap.Index:
		v.lose("%v; found %v", m.snap, r.Snapshot)
	default:
		v.err("%v was never saved; the last one is %v", r.Snapshot, m.snap)
	}
}

// checkEntries compares entry by entry. From the first entry of a Save in flight
// on, a prefix of the old or of the new ones may be there; old ones that it replaces
// are not committed, as a commit index that came with it counts the new ones.
func (m *model) checkEntries(v *verdict, r report) {
	for i, e := range r.Entries {
		if want := r.Snapshot.Index + uint64(i) + 1; e.Index != want {
			v.err("entry %d stands where %d is due", e.Index, want)
			return
		}
	}
	settled := m.last() + 1 // the first index that may be missing
	var inFlight []entryID
	if m.save != nil && len(m.save.ents) > 0 {
		inFlight = idsOf(m.save.ents)
		settled = min(settled, inFlight[0].Index) // it may follow a call that failed
	}
	at := func(ids []entryID, index uint64) *entryID {
		if len(ids) == 0 || index < ids[0].Index || index > ids[len(ids)-1].Index {
			return nil
		}
		return &ids[index-ids[0].Index]
	}
	for i := m.snap.Index + 1; i < settled; i++ {
		want, got := at(m.entries, i), at(r.Entries, i)
		switch {
		case got == nil && i > r.Snapshot.Index:
			v.lose("entry %d of term %d; the log ends at %d", i, want.Term, r.Snapshot.Index+uint64(len(r.Entries)))
		case got != nil && *got != *want:
			v.err("entry %d has term %d and hash %016x, saved were term %d and %016x", i, got.Term, got.Hash, want.Term, want.Hash)
		}
	}
	old, fresh := true, true // the tail so far is a prefix of the old, of the new entries
	for i := max(settled, r.Snapshot.Index+1); at(r.Entries, i) != nil; i++ {
		got := *at(r.Entries, i)
		o, n := at(m.entries, i), at(inFlight, i)
		old, fresh = old && o != nil && got == *o, fresh && n != nil && got == *n
		if !old && !fresh {
			v.err("entry %d (term %d, hash %016x) belongs neither to the log before the last Save nor to that Save", i, got.Term, got.Hash)
			return
		}
		if !fresh && len(inFlight) > 0 && i <= r.HardState.Commit {
			v.err("entry %d (term %d, hash %016x) is committed, %v, and the last Save was replacing it", i, got.Term, got.Hash, r.HardState)
		}
	}
}

// checkHardState allows every hard state since the last durable one, raised to
// the snapshot as backends.Recover does.
func (m *model) checkHardState(v *verdict, r report) {
	may := m.hs
	if len(may) == 0 {
		may = []hardState{{}}
	}
	if m.save != nil && !raft.IsEmptyHardState(m.save.hs) {
		may = append(may[:len(may):len(may)], hardStateOf(m.save.hs))
	}
	newest := may[0]
	for _, h := range may {
		if h.Commit < r.Snapshot.Index {
			h.Commit = r.Snapshot.Index
		}
		if h.Term < r.Snapshot.Term {
			h.Term, h.Vote = r.Snapshot.Term, 0
		}
		if h == r.HardState {
			return
		}
		// Of a Save in flight the first entries may be there and the hard state not. Who finds
		// them may say their term, in which nothing can have been promised yet.
		if n := len(r.Entries); n > 0 && h.Term < r.Entries[n-1].Term {
			h.Term, h.Vote = r.Entries[n-1].Term, 0
		}
		if h == r.HardState {
			return
		}
	}
	if got := r.HardState; got.Term < newest.Term || got.Term == newest.Term && got.Commit < newest.Commit {
		v.lose("hard state %v; found %v", newest, got)
		return
	}
	v.err("hard state %v was never saved; the last durable one is %v", r.HardState, newest)
}

// acceptable reports whether raft restarts from what was found.
func acceptable(r report) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	storage := raft.NewMemoryStorage()
	if r.Snapshot.Index > 0 {
		err := storage.ApplySnapshot(&raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
			Index: &r.Snapshot.Index, Term: &r.Snapshot.Term, ConfState: &raftpb.ConfState{Voters: r.Snapshot.Voters},
		}})
		if err != nil {
			return err
		}
	}
	if err := storage.SetHardState(r.HardState.proto()); err != nil {
		return err
	}
	term := r.Snapshot.Term
	ents := make([]*raftpb.Entry, len(r.Entries))
	for i, e := range r.Entries {
		if e.Term < term {
			return fmt.Errorf("entry %d has term %d after term %d", e.Index, e.Term, term)
		}
		term = e.Term
		ents[i] = &raftpb.Entry{Index: proto.Uint64(e.Index), Term: proto.Uint64(e.Term)}
	}
	if err := storage.Append(ents); err != nil {
		return err
	}
	_, err = raft.NewRawNode(&raft.Config{
		ID: 1, ElectionTick: 10, HeartbeatTick: 1, Storage: storage, Applied: r.Snapshot.Index,
		MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 16,
		Logger: &raft.DefaultLogger{Logger: log.New(io.Discard, "", 0)},
	})
	return err
}
