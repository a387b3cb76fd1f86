package backendtest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/raftbench/raftbench/backends"
)

// testStateIsTheCallers keeps what Open returned while the storage goes on and
// closes: raft holds on to these entries for as long as it likes.
func testStateIsTheCallers(e *env) {
	s := e.newStore()
	s.append(1, 50, 2000)
	s.commitTo(30)
	s.snapshotAt(10, 5000)
	s.close()
	state := s.open()
	want := s.o.state()
	want = backends.State{HardState: proto.Clone(want.HardState).(*raftpb.HardState), Snapshot: proto.Clone(want.Snapshot).(*raftpb.Snapshot), Entries: want.Entries}
	s.save(hs(2, 1, 30), run(31, 2, 100, 2000)...)
	s.release(s.snapshotAt(30, 5000))
	s.append(3, 500, 2000)
	s.close()
	if d := differs(state, want); d != "" {
		e.Fatalf("the state that Open returned changed while the storage was used and closed: %s", d)
	}
}

// testCallersMemory: what is handed to a storage is shared with raft and with
// other nodes, which the storage must not disturb; and it is raft's to reuse
// when the call is over.
func testCallersMemory(e *env) {
	s := e.newStore()
	st, ents, sn := hs(4, 2, 3), run(1, 4, 20, 300), snap(3, 4, 5000)
	if err := s.s.Save(st, ents); err != nil {
		e.Fatalf("Save: %v; want success", err)
	}
	if err := s.s.SaveSnap(sn); err != nil {
		e.Fatalf("SaveSnap: %v; want success", err)
	}
	if !proto.Equal(st, hs(4, 2, 3)) {
		e.Fatalf("Save changed the hard state it was given to %s", hardState(st))
	}
	if d := snapshotDiffers(sn, snap(3, 4, 5000)); d != "" {
		e.Fatalf("SaveSnap changed the snapshot it was given: %s", d)
	}
	for i, want := range run(1, 4, 20, 300) {
		if d := entryDiffers(ents[i], want); d != "" {
			e.Fatalf("Save changed the entries it was given: %s", d)
		}
	}
	scramble(st, ents, sn)
	s.o.save(hs(4, 2, 3), run(1, 4, 20, 300))
	s.o.saveSnap(snap(3, 4, 5000))
	if e.b.Durability == backends.None {
		return
	}
	// A later call must not write what the first one left in shared memory.
	s.append(4, 5, 300)
	s.check("what was saved changed by the caller after the call")
}

func scramble(st *raftpb.HardState, ents []*raftpb.Entry, sn *raftpb.Snapshot) {
	*st.Term, *st.Vote, *st.Commit = 99, 99, 99
	for i, ent := range ents {
		clear(ent.Data)
		*ent.Index, *ent.Term = 99, 99
		ents[i] = nil
	}
	clear(sn.Data)
	*sn.Metadata.Index = 99
	sn.Metadata.ConfState.Voters[0] = 99
}

// Rule 6: errors.

func testSecondOpen(e *env) {
	s := e.newStore()
	s.append(1, 3, 10)
	for range 2 {
		second, _, err := e.b.Open(backends.Options{Dir: s.dir})
		if err == nil {
			second.Close()
			e.Fatalf("a second Open of a live directory succeeded; want an error that is backends.ErrLocked")
		}
		if !errors.Is(err, backends.ErrLocked) {
			e.Fatalf("a second Open of a live directory returned %q; want an error that is backends.ErrLocked", err)
		}
	}
	s.append(1, 3, 10)
	if e.b.Durability == backends.None {
		s.close()
		s.open()
		return
	}
	s.check("a second Open was refused, which must leave the first unharmed")
}

func testAfterClose(e *env) {
	s := e.newStore()
	s.append(1, 3, 10)
	sn := snap(2, 1, 10)
	s.saveSnap(sn)
	closed := s.s
	s.close()
	calls := []struct {
		name string
		call func() error
	}{
		{"Save", func() error { return closed.Save(hs(1, 1, 2), run(4, 1, 1, 10)) }},
		{"Save of a commit index", func() error { return closed.Save(hs(1, 1, 3), nil) }},
		{"Sync", closed.Sync},
		{"SaveSnap", func() error { return closed.SaveSnap(snap(3, 1, 10)) }},
		{"Release", func() error { return closed.Release(sn) }},
		{"Close", closed.Close},
	}
	check := func(when string) {
		for _, c := range calls {
			if err := c.call(); !errors.Is(err, backends.ErrClosed) {
				e.Fatalf("%s %s returned %v; want an error that is backends.ErrClosed", c.name, when, err)
			}
		}
	}
	check("after Close")
	state := s.open()
	check("after Close, while the directory is open again")
	if e.b.Durability == backends.None {
		return
	}
	if d := differs(state, s.o.state()); d != "" {
		e.Fatalf("calls after Close changed what is stored: %s", d)
	}
	s.check("calls after Close, while the directory is open again")
}

func testUnknownParameter(e *env) {
	dir := filepath.Join(e.TempDir(), "data")
	if err := os.Mkdir(dir, 0o700); err != nil {
		e.tb.Fatalf("%v", err)
	}
	storage, _, err := e.b.Open(backends.Options{Dir: dir, Params: map[string]string{"no-such-parameter": "1"}})
	if err == nil {
		storage.Close()
		e.Fatalf("Open took the parameter no-such-parameter; want a *backends.ParamError")
	}
	var bad *backends.ParamError
	if !errors.As(err, &bad) {
		e.Fatalf("Open with an unknown parameter returned %T %q; want a *backends.ParamError", err, err)
	}
	for _, p := range e.b.Params {
		if !strings.Contains(err.Error(), p.Name) {
			e.Fatalf("Open with an unknown parameter says %q; want it to name the known ones, %q among them", err, p.Name)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		e.Fatalf("Open with an unknown parameter left %v in the directory (%v); want it untouched", files, err)
	}
}

func testKeepsNothing(e *env) {
	s := e.newStore()
	s.append(1, 10, 100)
	s.saveSnap(snap(5, 1, 100))
	s.sync()
	s.close()
	if state := s.open(); !state.Empty() || state.HardState == nil {
		e.Fatalf("Open returned a state that reaches index %d; want an empty one, every time", state.LastIndex())
	}
}
