package bench

import (
	"errors"
	"fmt"
	"time"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node"
)

// verifier compares what the nodes hold with what was acknowledged.
type verifier struct {
	payloads *load.Payloads
	journal  *journal
	out      result.Verified
}

// maxDetails bounds the failures that are spelled out.
const maxDetails = 3

func (v *verifier) bad(counter *int64, n int64, format string, args ...any) {
	if v.out.Lost+v.out.Wrong < maxDetails {
		if v.out.Detail != "" {
			v.out.Detail += "; "
		}
		v.out.Detail += fmt.Sprintf(format, args...)
	}
	*counter += n
}

// verifyCluster reopens every node's storage, one after the other, and looks for
// every acknowledged entry: its index, term and payload byte for byte, or, where
// it is below the snapshot, its effect on the snapshot's state. A backend that
// keeps nothing is judged by the state machines that its nodes held.
//
// It returns what reopening the acknowledging node cost; nil for such a backend.
func (c *cluster) verifyCluster(behind []uint64) (result.Verified, *result.Restart, error) {
	v := &verifier{payloads: c.payloads, journal: &c.o.journal}
	v.journal.each(func(uint64, uint64, uint64) { v.out.Acked++ })
	var restart *result.Restart
	for _, m := range c.members {
		applied := m.node.Status().Applied
		if contains(behind, m.id) || applied < v.journal.next-1 {
			continue // flagged; it holds a part of the log that is not its fault
		}
		v.checkState(m, m.state.KV, applied, "state")
		if c.one.Backend.Durability == backends.None {
			continue
		}
		re, err := v.checkStored(c, m)
		if err != nil {
			return v.out, restart, err
		}
		if m == c.o.proposer.Load() {
			restart = re
		}
	}
	v.out.OK = v.out.Lost == 0 && v.out.Wrong == 0
	return v.out, restart, nil
}

func contains(ids []uint64, id uint64) bool {
	for _, i := range ids {
		if i == id {
			return true
		}
	}
	return false
}

// checkStored reopens one node's storage.
func (v *verifier) checkStored(c *cluster, m *member) (*result.Restart, error) {
	b := c.one.Backend
	start := time.Now()
	storage, st, err := c.open(m)
	if err != nil {
		return nil, fmt.Errorf("verify: reopen %s of node %d in %s: %w", b.Label(), m.id, m.dir, err)
	}
	restart := &result.Restart{Open: time.Since(start), Entries: int64(len(st.Entries)), Bytes: entryBytes(st.Entries)}
	snapIndex := st.Snapshot.GetMetadata().GetIndex()
	if snapIndex > 0 {
		kv := node.NewKV(1)
		if err := kv.Restore(st.Snapshot.GetData()); err != nil {
			v.bad(&v.out.Wrong, 1, "node %d: snapshot %d: %v", m.id, snapIndex, err)
		} else {
			v.checkState(m, kv, snapIndex, fmt.Sprintf("snapshot %d", snapIndex))
		}
	}
	v.checkEntries(m, st)
	if err := storage.Close(); err != nil && !errors.Is(err, backends.ErrClosed) {
		return nil, fmt.Errorf("verify: close %s of node %d: %w", b.Label(), m.id, err)
	}
	return restart, nil
}

// checkEntries looks for every acknowledged entry after the snapshot.
func (v *verifier) checkEntries(m *member, st backends.State) {
	first := st.Snapshot.GetMetadata().GetIndex() + 1
	v.journal.each(func(index, term, id uint64) {
		if index < first {
			return
		}
		at := index - first
		if at >= uint64(len(st.Entries)) {
			v.bad(&v.out.Lost, 1, "node %d: entry %d is gone (the log ends at %d)", m.id, index, st.LastIndex())
			return
		}
		e := st.Entries[at]
		if e.GetIndex() != index || e.GetTerm() != term {
			v.bad(&v.out.Wrong, 1, "node %d: entry %d of term %d where entry %d of term %d was acknowledged", m.id, e.GetIndex(), e.GetTerm(), index, term)
		} else if !v.payloads.Check(id, e.GetData()) {
			v.bad(&v.out.Wrong, 1, "node %d: entry %d has another payload than was acknowledged", m.id, index)
		}
	})
}

// checkState compares a state machine that applied everything up to index with
// what the journal leads to: the last write of every key, and the chain over all.
// Where leadership moved, the state holds entries that nobody acknowledged; then
// what was written last is not known, and only what is missing is told.
func (v *verifier) checkState(m *member, kv *node.KV, index uint64, what string) {
	want := v.journal.expect(index, v.payloads.Key)
	count, chain := kv.Applied()
	for key, id := range want.last {
		if data := kv.Get(key); data == nil {
			v.bad(&v.out.Lost, 1, "node %d: %s has nothing under key %d", m.id, what, key)
		} else if count == want.count && !v.payloads.Check(id, data) {
			v.bad(&v.out.Wrong, 1, "node %d: %s has another value under key %d than was acknowledged last", m.id, what, key)
		}
	}
	switch {
	case count < want.count:
		v.bad(&v.out.Lost, int64(want.count-count), "node %d: %s applied %d entries, %d were acknowledged", m.id, what, count, want.count)
	case count == want.count && chain != want.chain:
		v.bad(&v.out.Wrong, 1, "node %d: %s applied other entries, or in another order, than were acknowledged", m.id, what)
	}
}
