package kvlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// The first byte of a key says what its value is; see the package comment.
const (
	chunkPrefix = 'c'
	entryPrefix = 'e'
	stateKey    = 'h'
	snapKey     = 's'
)

const (
	entryKeySize = 1 + 8
	chunkKeySize = 1 + 8 + 4
	crcSize      = 4
	snapFixed    = 8 + 8 + 4 + 1 // of a snapshot record, before the metadata
	snapHasData  = 1             // flag: Data was not nil
	snapInFile   = 2             // flag: Data is in a file, which knows all about it
	snapFlags    = snapHasData | snapInFile
	maxChunkSize = 1 << 30
	maxSnapBytes = 1 << 46
	stateMinSize = 8 + crcSize
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendEntryKey(b []byte, index uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, entryPrefix), index)
}

func entryKey(index uint64) []byte { return appendEntryKey(make([]byte, 0, entryKeySize), index) }

// entryIndex is the inverse of entryKey.
func entryIndex(key []byte) (uint64, error) {
	if len(key) != entryKeySize || key[0] != entryPrefix {
		return 0, fmt.Errorf("%q is not the key of an entry", key)
	}
	return binary.BigEndian.Uint64(key[1:]), nil
}

func appendChunkKey(b []byte, gen uint64, seq uint32) []byte {
	b = binary.BigEndian.AppendUint64(append(b, chunkPrefix), gen)
	return binary.BigEndian.AppendUint32(b, seq)
}

func chunkKey(gen uint64, seq uint32) []byte {
	return appendChunkKey(make([]byte, 0, chunkKeySize), gen, seq)
}

func parseChunkKey(key []byte) (gen uint64, seq uint32, err error) {
	if len(key) != chunkKeySize || key[0] != chunkPrefix {
		return 0, 0, fmt.Errorf("%q is not the key of a snapshot chunk", key)
	}
	return binary.BigEndian.Uint64(key[1:]), binary.BigEndian.Uint32(key[9:]), nil
}

// seal appends the checksum of a record, key and value together, that begins at
// start of b.
func seal(b []byte, start int) []byte {
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

var errShort = errors.New("the value is too short to hold a checksum")

// unseal checks a value and returns it without its checksum.
func unseal(key, value []byte) ([]byte, error) {
	n := len(value) - crcSize
	if n < 0 {
		return nil, errShort
	}
	body, want := value[:n], binary.BigEndian.Uint32(value[n:])
	if got := crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body); got != want {
		return nil, fmt.Errorf("checksum is %08x, the record says %08x", got, want)
	}
	return body, nil
}

// appendEntry appends key and value of an entry to b.
func appendEntry(b []byte, e *raftpb.Entry) ([]byte, error) {
	start := len(b)
	b = appendEntryKey(b, e.GetIndex())
	b, err := proto.MarshalOptions{}.MarshalAppend(b, e)
	if err != nil {
		return nil, err
	}
	return seal(b, start), nil
}

// decodeEntry copies what it keeps of value.
func decodeEntry(key, value []byte) (*raftpb.Entry, error) {
	index, err := entryIndex(key)
	if err != nil {
		return nil, err
	}
	body, err := unseal(key, value)
	if err != nil {
		return nil, err
	}
	e := &raftpb.Entry{}
	if err := proto.Unmarshal(body, e); err != nil {
		return nil, err
	}
	if e.GetIndex() != index {
		return nil, fmt.Errorf("the entry under index %d says that it is %d", index, e.GetIndex())
	}
	return e, nil
}

// appendState appends key and value of the state record: a hard state already in
// protobuf, and the index of the last entry.
func appendState(b []byte, last uint64, hardState []byte) []byte {
	start := len(b)
	b = binary.BigEndian.AppendUint64(append(b, stateKey), last)
	return seal(append(b, hardState...), start)
}

func decodeState(value []byte) (last uint64, hs *raftpb.HardState, err error) {
	body, err := unseal([]byte{stateKey}, value)
	if err != nil {
		return 0, nil, err
	}
	if len(value) < stateMinSize {
		return 0, nil, fmt.Errorf("the value has %d bytes, want at least %d", len(value), stateMinSize)
	}
	hs = &raftpb.HardState{}
	if err := proto.Unmarshal(body[8:], hs); err != nil {
		return 0, nil, err
	}
	return binary.BigEndian.Uint64(body), hs, nil
}

// snapRecord makes the chunks of one generation, or a file, the current snapshot.
type snapRecord struct {
	gen      uint64
	inFile   bool // then the next three are zero
	metadata *raftpb.SnapshotMetadata

	bytes      uint64 // of Data
	chunkBytes uint32 // of every chunk but the last
	hasData    bool   // Data was not nil
}

// is reports whether r is the snapshot of an index and a term.
func (r snapRecord) is(meta *raftpb.SnapshotMetadata) bool {
	return r.metadata != nil && r.metadata.GetIndex() == meta.GetIndex() && r.metadata.GetTerm() == meta.GetTerm()
}

// chunks is how many there are.
func (r snapRecord) chunks() uint32 {
	if r.bytes == 0 {
		return 0
	}
	return uint32((r.bytes-1)/uint64(r.chunkBytes)) + 1
}

func appendSnapRecord(b []byte, r snapRecord) ([]byte, error) {
	start := len(b)
	b = binary.BigEndian.AppendUint64(append(b, snapKey), r.gen)
	b = binary.BigEndian.AppendUint64(b, r.bytes)
	b = binary.BigEndian.AppendUint32(b, r.chunkBytes)
	var flags byte
	if r.hasData {
		flags |= snapHasData
	}
	if r.inFile {
		flags |= snapInFile
	}
	b, err := proto.MarshalOptions{}.MarshalAppend(append(b, flags), r.metadata)
	if err != nil {
		return nil, err
	}
	return seal(b, start), nil
}

func decodeSnapRecord(value []byte) (snapRecord, error) {
	body, err := unseal([]byte{snapKey}, value)
	if err != nil {
		return snapRecord{}, err
	}
	if len(body) < snapFixed {
		return snapRecord{}, fmt.Errorf("the value has %d bytes, want at least %d", len(value), snapFixed+crcSize)
	}
	r := snapRecord{
		gen:        binary.BigEndian.Uint64(body),
		bytes:      binary.BigEndian.Uint64(body[8:]),
		chunkBytes: binary.BigEndian.Uint32(body[16:]),
		hasData:    body[20]&snapHasData != 0,
		inFile:     body[20]&snapInFile != 0,
		metadata:   &raftpb.SnapshotMetadata{},
	}
	if flags := body[20]; flags&^snapFlags != 0 {
		return snapRecord{}, fmt.Errorf("unknown flags %#x", flags)
	}
	if r.inFile && (r.bytes != 0 || r.chunkBytes != 0 || r.hasData) {
		return snapRecord{}, fmt.Errorf("data in a file, and %d bytes of it in chunks of %d, cannot be", r.bytes, r.chunkBytes)
	}
	if !r.inFile && (r.chunkBytes == 0 || r.chunkBytes > maxChunkSize || r.bytes > maxSnapBytes ||
		(r.bytes-min(r.bytes, 1))/uint64(r.chunkBytes) >= 1<<32-1) {
		return snapRecord{}, fmt.Errorf("%d bytes in chunks of %d cannot be", r.bytes, r.chunkBytes)
	}
	if err := proto.Unmarshal(body[snapFixed:], r.metadata); err != nil {
		return snapRecord{}, err
	}
	if r.metadata.GetIndex() == 0 {
		return snapRecord{}, errors.New("the snapshot has no index")
	}
	return r, nil
}

// appendChunk appends key and value of a snapshot chunk to b.
func appendChunk(b []byte, gen uint64, seq uint32, data []byte) []byte {
	start := len(b)
	b = append(appendChunkKey(b, gen, seq), data...)
	return seal(b, start)
}

func decodeChunk(key, value []byte) (gen uint64, seq uint32, data []byte, err error) {
	if gen, seq, err = parseChunkKey(key); err != nil {
		return 0, 0, nil, err
	}
	data, err = unseal(key, value)
	return gen, seq, data, err
}
