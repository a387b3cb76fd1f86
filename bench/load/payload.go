// Package load makes operations and times them: payloads, closed and open
// arrival, and the recorders of what became of them.
//
// It knows nothing of raft. A [Target] takes operations; whoever owns it reports
// each one that is done through [Generator.Done].
//
// # Time stamps
//
// Every operation has three: intended (when the schedule says that it is sent),
// sent, and applied. Response is applied − intended, service is applied − sent,
// lag is sent − intended. In a closed loop intended is sent, so a stall hides the
// requests that were never made; in an open loop a late operation is sent at once
// and never dropped, so the stall is in the response of all that it delayed.
// Nothing is back-filled: that would correct twice.
package load

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// HeaderSize is the smallest payload: 8 bytes operation id, 8 bytes key.
const HeaderSize = 16

// poolBytes is large enough that an engine's compression window (32 KiB to 64
// KiB in snappy and zstd's fast levels) sees no repetition between payloads, and
// small enough to stay in a cache: making payloads must cost little.
const poolBytes = 1 << 20

// Payloads makes the payload of every operation from its id alone, so that what
// is read back can be compared byte for byte without having been kept.
//
// A payload is the id and the key, little endian, then bytes from a seeded
// random pool; the last part of it, Compressible of the whole, is one repeated
// byte, so that a compressor can save about that share and no more.
type Payloads struct {
	min, max     int
	keys         uint64
	seed         uint64
	compressible float64
	pool         []byte
	trace        *traced // sizes come from it; nil: from the range
}

// NewPayloads checks the sizes. min and max are bytes, keys is the number of keys
// that the state machine has, compressible is from 0 to 1.
func NewPayloads(seed int64, min, max, keys int, compressible float64) (*Payloads, error) {
	if min < HeaderSize || max < min || max > 64<<20 {
		return nil, fmt.Errorf("value size %d to %d bytes: want %d B to 64 MiB (the first %d bytes hold the operation's id and key)", min, max, HeaderSize, HeaderSize)
	}
	if compressible < 0 || compressible > 1 || keys < 1 {
		return nil, fmt.Errorf("compressible share %v of values for %d keys: want 0 to 1, and 1 key or more", compressible, keys)
	}
	p := &Payloads{min: min, max: max, keys: uint64(keys), seed: uint64(seed), compressible: compressible}
	p.pool = make([]byte, poolBytes+max)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], p.seed)
	_, _ = rand.NewChaCha8(key).Read(p.pool)
	return p, nil
}

// mix is the finalizer of SplitMix64 (Steele, Lea, Flood, 2014).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xBF58476D1CE4E5B9
	x ^= x >> 27
	x *= 0x94D049BB133111EB
	return x ^ x>>31
}

// Size is the length of the payload of operation id.
func (p *Payloads) Size(id uint64) int {
	if p.trace != nil {
		return p.trace.size(id)
	}
	if p.min == p.max {
		return p.min
	}
	return p.min + int(mix(id^p.seed)%uint64(p.max-p.min+1))
}

// Mean is the mean size.
func (p *Payloads) Mean() int {
	if p.trace != nil {
		return p.trace.mean()
	}
	return (p.min + p.max) / 2
}

// Key is the key that operation id writes.
func (p *Payloads) Key(id uint64) uint64 { return mix(id+p.seed) % p.keys }

// Make returns a fresh payload, which the caller owns.
func (p *Payloads) Make(id uint64) []byte { return p.Fill(nil, id) }

// Fill is Make in the memory of buf, if that is large enough; buf is not to be used
// any more.
func (p *Payloads) Fill(buf []byte, id uint64) []byte {
	size, body := p.body(id)
	if cap(buf) < size {
		buf = make([]byte, 0, size)
	}
	out := append(buf[:0], p.pool[body-HeaderSize:body-HeaderSize+size]...)
	p.finish(id, out)
	return out
}

// body is the size of a payload and where its random bytes begin in the pool.
func (p *Payloads) body(id uint64) (size, at int) {
	return p.Size(id), HeaderSize + int(mix(id)%poolBytes)
}

func (p *Payloads) finish(id uint64, out []byte) {
	if same := int(float64(len(out)) * p.compressible); same > 0 {
		tail := out[max(len(out)-same, HeaderSize):]
		for i := range tail {
			tail[i] = 'r'
		}
	}
	binary.LittleEndian.PutUint64(out, id)
	binary.LittleEndian.PutUint64(out[8:], p.Key(id))
}

// ID is the operation that a payload belongs to, 0 if it is none of ours.
func ID(payload []byte) uint64 {
	if len(payload) < HeaderSize {
		return 0
	}
	return binary.LittleEndian.Uint64(payload)
}

// Client is the client of a closed loop that made an operation: equal for all its
// operations, and dense among those of one worker.
func Client(id uint64) uint64 { return id>>workerShift + id>>slotShift&slotMask }

// Number counts the operations of a worker.
func Number(id uint64) uint64 { return id>>workerShift + id&(1<<slotShift-1) }

// Check reports whether data is the payload of operation id, byte for byte.
func (p *Payloads) Check(id uint64, data []byte) bool {
	return ID(data) == id && len(data) == p.Size(id) && string(data) == string(p.Make(id))
}
