package bench

import (
	"sync"

	"github.com/raftbench/raftbench/node"
)

// journal remembers what was applied on the node that acknowledges: for each
// index the operation's id, and the terms as runs. Payloads follow from ids, so
// ten million operations take 80 MB.
type journal struct {
	mu     sync.Mutex
	first  uint64 // index of the first entry noted
	next   uint64 // the index after the last one
	chunks [][]uint64
	terms  []termRun
}

type termRun struct{ from, term uint64 }

const journalChunk = 1 << 16

// add notes an entry; false for one at or below the last index, which was noted
// before.
func (j *journal) add(index, term, id uint64) bool {
	if j.next == 0 {
		j.first, j.next = index, index
	}
	if index < j.next {
		return false
	}
	if n := len(j.terms); n == 0 || j.terms[n-1].term != term {
		j.terms = append(j.terms, termRun{from: index, term: term})
	}
	for ; j.next < index; j.next++ {
		j.put(0) // not a proposal, or not seen
	}
	j.put(id)
	j.next++
	return true
}

func (j *journal) put(id uint64) {
	at := j.next - j.first
	if at%journalChunk == 0 {
		j.chunks = append(j.chunks, make([]uint64, 0, journalChunk))
	}
	last := len(j.chunks) - 1
	j.chunks[last] = append(j.chunks[last], id)
}

// id is the operation at index, 0 if none was noted there.
func (j *journal) id(index uint64) uint64 {
	if index < j.first || index >= j.next {
		return 0
	}
	at := index - j.first
	return j.chunks[at/journalChunk][at%journalChunk]
}

// each calls f for every operation noted, in order of index.
func (j *journal) each(f func(index, term, id uint64)) {
	run := 0
	for index := j.first; index < j.next; index++ {
		for run+1 < len(j.terms) && j.terms[run+1].from <= index {
			run++
		}
		if id := j.id(index); id != 0 {
			f(index, j.terms[run].term, id)
		}
	}
}

// expectation is the state that the noted operations up to an index lead to.
type expectation struct {
	last  map[uint64]uint64 // key → id of its last write
	chain uint64
	count uint64
}

// expect computes what a state machine holds that applied everything up to index.
func (j *journal) expect(index uint64, key func(id uint64) uint64) expectation {
	e := expectation{last: map[uint64]uint64{}}
	j.each(func(i, term, id uint64) {
		if i <= index {
			e.last[key(id)] = id
			e.chain = node.Chain(e.chain, i, term, id)
			e.count++
		}
	})
	return e
}
