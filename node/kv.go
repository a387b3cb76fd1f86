package node

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"runtime"
	"slices"

	"github.com/cespare/xxhash/v2"
	"go.etcd.io/raft/v3/raftpb"
)

// KV is the default state machine: an in-memory map from a fixed number of keys
// to the entry last written to each. An entry's data is
//
//	8 bytes request id · 8 bytes key, little endian · value
//
// and is stored as it is, without a copy. Shorter data is written to key 0.
//
// A snapshot is
//
//	8 bytes "rbkv0001" · 8 bytes number of keys · 8 bytes entries applied ·
//	8 bytes chain, then for each key in use
//	8 bytes key · 4 bytes length · data, then 4 bytes CRC-32C of all before
//
// in little endian. The chain is a running hash over the index, term and request
// id of every entry applied, so that two states are equal only if the same
// entries were applied in the same order.
type KV struct {
	values  [][]byte
	bytes   int64 // of all values
	applied uint64
	chain   uint64
}

const (
	kvMagic      = "rbkv0001"
	kvHeaderSize = 32
	kvItemHeader = 12
	encodeStep   = 256 << 10          // of a state, after which others may run: some 50 µs
	chainPrime   = 0x9E3779B97F4A7C15 // 2^64 ÷ golden ratio: spreads consecutive indexes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// NewKV returns an empty map of keys keys.
func NewKV(keys int) *KV { return &KV{values: make([][]byte, max(keys, 1))} }

// Fill writes seeded random values of valueBytes each to the keys until the
// state holds about stateBytes. Nodes that fill from one seed hold one state.
func (kv *KV) Fill(seed int64, stateBytes int64, valueBytes int) {
	rng := rand.NewChaCha8([32]byte{0: byte(seed), 1: byte(seed >> 8), 2: byte(seed >> 16), 3: byte(seed >> 24)})
	for key := range kv.values {
		if kv.bytes >= stateBytes {
			return
		}
		data := make([]byte, max(valueBytes, 16))
		_, _ = rng.Read(data)
		binary.LittleEndian.PutUint64(data[8:], uint64(key))
		kv.put(uint64(key), data)
	}
}

func (kv *KV) put(key uint64, data []byte) {
	slot := &kv.values[key%uint64(len(kv.values))]
	kv.bytes += int64(len(data)) - int64(len(*slot))
	*slot = data
}

// Apply implements [StateMachine].
func (kv *KV) Apply(ents []*raftpb.Entry) {
	for _, e := range ents {
		data := e.GetData()
		var id, key uint64
		if len(data) >= 16 {
			id = binary.LittleEndian.Uint64(data)
			key = binary.LittleEndian.Uint64(data[8:])
		}
		kv.put(key, data)
		kv.applied++
		kv.chain = Chain(kv.chain, e.GetIndex(), e.GetTerm(), id)
	}
}

// Chain extends the running hash of a [KV] by one entry.
func Chain(chain, index, term, id uint64) uint64 {
	chain = (chain ^ index) * chainPrime
	chain = (chain ^ chain>>29 ^ term) * chainPrime
	return (chain ^ chain>>31 ^ id) * chainPrime
}

// Bytes is the size of all values.
func (kv *KV) Bytes() int64 { return kv.bytes }

// Get returns the data last written to a key, nil if there is none.
func (kv *KV) Get(key uint64) []byte { return kv.values[key%uint64(len(kv.values))] }

// Keys is the number of keys.
func (kv *KV) Keys() int { return len(kv.values) }

// Applied is the number of entries applied since the state was empty, and their
// chain.
func (kv *KV) Applied() (count, chain uint64) { return kv.applied, kv.chain }

// Hash is a hash of the whole state.
func (kv *KV) Hash() uint64 {
	h := xxhash.New()
	var word [8]byte
	add := func(v uint64) {
		binary.LittleEndian.PutUint64(word[:], v)
		_, _ = h.Write(word[:])
	}
	add(kv.chain)
	for key, data := range kv.values {
		if data != nil {
			add(uint64(key))
			_, _ = h.Write(data)
		}
	}
	return h.Sum64()
}

// Snapshot implements [StateMachine]. The capture copies the table of values,
// not the values.
func (kv *KV) Snapshot() func() ([]byte, error) {
	frozen := kv.freeze()
	return func() ([]byte, error) { return frozen.encode(), nil }
}

// freeze is a copy that later writes do not change.
func (kv *KV) freeze() *KV {
	frozen := *kv
	frozen.values = slices.Clone(kv.values)
	return &frozen
}

// encodedSize is how many bytes a snapshot has.
func (kv *KV) encodedSize() int64 {
	used := 0
	for _, data := range kv.values {
		if data != nil {
			used++
		}
	}
	return kvHeaderSize + int64(used)*kvItemHeader + kv.bytes + 4
}

func (kv *KV) appendHeader(b []byte) []byte {
	b = append(b, kvMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(kv.values)))
	b = binary.LittleEndian.AppendUint64(b, kv.applied)
	return binary.LittleEndian.AppendUint64(b, kv.chain)
}

func appendItemHeader(b []byte, key uint64, size int) []byte {
	b = binary.LittleEndian.AppendUint64(b, key)
	return binary.LittleEndian.AppendUint32(b, uint32(size))
}

func (kv *KV) encode() []byte {
	out := kv.appendHeader(make([]byte, 0, kv.encodedSize()))
	yielded := 0
	for key, data := range kv.values {
		if data != nil {
			out = append(appendItemHeader(out, uint64(key), len(data)), data...)
		}
		if len(out)-yielded >= encodeStep {
			runtime.Gosched()
			yielded = len(out)
		}
	}
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

// decodeHeader makes an empty state from the first kvHeaderSize bytes of a
// snapshot, which begin with the magic.
func decodeHeader(b []byte) (*KV, error) {
	keys := binary.LittleEndian.Uint64(b[8:])
	if keys == 0 || keys > 1<<28 {
		return nil, fmt.Errorf("%d keys", keys)
	}
	return &KV{
		values:  make([][]byte, keys),
		applied: binary.LittleEndian.Uint64(b[16:]),
		chain:   binary.LittleEndian.Uint64(b[24:]),
	}, nil
}

// Restore implements [StateMachine]. The values of the new state share memory
// with data.
func (kv *KV) Restore(data []byte) error {
	if len(data) < kvHeaderSize+4 || string(data[:8]) != kvMagic {
		return fmt.Errorf("restore state: %d bytes are not a snapshot of this state machine", len(data))
	}
	body, sum := data[:len(data)-4], binary.LittleEndian.Uint32(data[len(data)-4:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return fmt.Errorf("restore state: checksum %08x of %d bytes, want %08x", got, len(body), sum)
	}
	next, err := decodeHeader(body)
	if err != nil {
		return fmt.Errorf("restore state: %w", err)
	}
	for body = body[kvHeaderSize:]; len(body) > 0; {
		if len(body) < kvItemHeader {
			return fmt.Errorf("restore state: %d bytes left over", len(body))
		}
		key, size := binary.LittleEndian.Uint64(body), int(binary.LittleEndian.Uint32(body[8:]))
		body = body[kvItemHeader:]
		if key >= uint64(len(next.values)) || size > len(body) {
			return fmt.Errorf("restore state: value of key %d with %d bytes does not fit", key, size)
		}
		next.put(key, body[:size:size])
		body = body[size:]
	}
	*kv = *next
	return nil
}
