package torture

import (
	"encoding/binary"
	"fmt"
	"sync"

	"go.etcd.io/raft/v3/raftpb"
)

// keyCount is how many registers there are: few, so that operations meet.
const keyCount = 3

// applied is an entry that reached a state machine.
type applied struct{ index, term, id, key uint64 }

// registers is the state machine: a register for each key, which holds the id of
// the write that was applied to it last, and everything that was ever applied. A
// snapshot holds it all.
type registers struct {
	mu      sync.Mutex
	values  [keyCount]uint64
	log     []applied
	waiters map[uint64]chan applied
}

func newRegisters() *registers { return &registers{waiters: map[uint64]chan applied{}} }

// payload is a write: the id, which is also the value, and the key.
func payload(id, key uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, id), key)
}

// await tells of the write id when it is applied; forget takes that back.
func (r *registers) await(id uint64) <-chan applied {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := make(chan applied, 1)
	r.waiters[id] = c
	return c
}

func (r *registers) forget(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiters, id)
}

func (r *registers) get(key uint64) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.values[key]
}

// upTo is what was applied up to an index, and whether that was reached.
func (r *registers) upTo(index uint64) (log []applied, reached bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.log {
		if a.index <= index {
			log = append(log, a)
		}
		reached = reached || a.index >= index
	}
	return log, reached
}

// Apply implements node.StateMachine.
func (r *registers) Apply(ents []*raftpb.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range ents {
		a := applied{
			index: e.GetIndex(), term: e.GetTerm(),
			id: binary.LittleEndian.Uint64(e.GetData()), key: binary.LittleEndian.Uint64(e.GetData()[8:]),
		}
		r.add(a)
		if c := r.waiters[a.id]; c != nil {
			c <- a
			delete(r.waiters, a.id)
		}
	}
}

func (r *registers) add(a applied) {
	r.values[a.key] = a.id
	r.log = append(r.log, a)
}

// Snapshot implements node.StateMachine.
func (r *registers) Snapshot() func() ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	log := r.log[:len(r.log):len(r.log)]
	return func() ([]byte, error) {
		var out []byte
		for _, a := range log {
			for _, v := range []uint64{a.index, a.term, a.id, a.key} {
				out = binary.LittleEndian.AppendUint64(out, v)
			}
		}
		return out, nil
	}
}

// Restore implements node.StateMachine.
func (r *registers) Restore(data []byte) error {
	if len(data)%32 != 0 {
		return fmt.Errorf("a snapshot of %d bytes", len(data))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log, r.values = nil, [keyCount]uint64{}
	for ; len(data) > 0; data = data[32:] {
		word := func(i int) uint64 { return binary.LittleEndian.Uint64(data[8*i:]) }
		r.add(applied{word(0), word(1), word(2), word(3)})
	}
	return nil
}
