package raw

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// records are the shapes that a Save can have.
func records() map[string]record {
	hs := hardState{term: 7, vote: 3, commit: 1 << 40}
	full := &raftpb.Entry{Term: proto.Uint64(7), Index: proto.Uint64(9), Type: raftpb.EntryConfChangeV2.Enum(), Data: []byte("conf")}
	return map[string]record{
		"hard state":      {hs: hs},
		"begin":           {kind: kindBegin, hs: hs, index: 1 << 20},
		"reset":           {kind: kindReset, hs: hs, index: 12},
		"one entry":       {hs: hs, index: 9, ents: []*raftpb.Entry{full}},
		"no data":         {hs: hs, index: 9, ents: []*raftpb.Entry{{Term: proto.Uint64(1), Index: proto.Uint64(9)}}},
		"empty data":      {hs: hs, index: 9, ents: []*raftpb.Entry{{Term: proto.Uint64(1), Index: proto.Uint64(9), Data: []byte{}}}},
		"several entries": {hs: hs, index: 9, ents: []*raftpb.Entry{full, {Term: proto.Uint64(8), Index: proto.Uint64(10), Data: make([]byte, 5000)}, {Term: proto.Uint64(8), Index: proto.Uint64(11), Data: []byte("x")}}},
	}
}

func equalRecords(a, b record) bool {
	return a.kind == b.kind && a.hs == b.hs && a.index == b.index &&
		slices.EqualFunc(a.ents, b.ents, func(x, y *raftpb.Entry) bool { return proto.Equal(x, y) })
}

func TestRecordRoundTrip(t *testing.T) {
	for name, r := range records() {
		b := appendRecord([]byte("before"), &r, 5, 64)[len("before"):]
		size, err := r.encodedSize()
		if err != nil || size != int64(len(b)) || size%alignment != 0 {
			t.Errorf("%s: encodedSize = %d, %v; encoded to %d bytes", name, size, err, len(b))
		}
		got, n, err := decodeRecord(append(b, "after"...), 5, 64)
		if err != nil || n != size || !equalRecords(got, r) {
			t.Errorf("%s: decoded to %+v, %d, %v", name, got, n, err)
		}
		if _, _, err := decodeRecord(b, 4, 64); !errors.Is(err, errNoRecord) {
			t.Errorf("%s: in another segment: %v", name, err)
		}
		if _, _, err := decodeRecord(b, 5, 72); !errors.Is(err, errNoRecord) {
			t.Errorf("%s: at another offset: %v", name, err)
		}
	}
}

func TestRecordDamage(t *testing.T) {
	for name, r := range records() {
		b := appendRecord(nil, &r, 5, 64)
		for i := range b {
			b[i] ^= 0x10
			if _, _, err := decodeRecord(b, 5, 64); !errors.Is(err, errNoRecord) {
				t.Errorf("%s: byte %d flipped: %v", name, i, err)
			}
			if _, _, err := decodeRecord(b[:i], 5, 64); !errors.Is(err, errNoRecord) {
				t.Errorf("%s: %d bytes of it: %v", name, i, err)
			}
			b[i] ^= 0x10
		}
	}
}

func TestHeader(t *testing.T) {
	h := header{number: 3, size: 1 << 24, measured: measured{device: 1 << 63, io: "direct", buffered: "fdatasync", direct: "dsync"}}
	b := appendHeader([]byte("before"), h)[len("before"):]
	if len(b) != headerSize {
		t.Fatalf("%d bytes, want %d", len(b), headerSize)
	}
	if got, ok := decodeHeader(b); !ok || got != h {
		t.Errorf("decoded to %+v, %v", got, ok)
	}
	for i := range b {
		b[i] ^= 0x10
		if _, ok := decodeHeader(b); ok {
			t.Errorf("byte %d flipped: still valid", i)
		}
		b[i] ^= 0x10
	}
	// What is not known here, of a later version or not written by an earlier one, says
	// nothing of the device and is no damage.
	for _, ways := range []string{"\x03\x01\x02", "\x01\x03\x02", "\x02\x01\x03", "\x02\x01\x00", "\x01\x00\x02", "\x00\x00\x00"} {
		copy(b[16:], ways)
		binary.LittleEndian.PutUint32(b[28:], checksum(b[:28]))
		if got, ok := decodeHeader(b); !ok || got != (header{number: 3, size: 1 << 24}) {
			t.Errorf("%q: decoded to %+v, %v", ways, got, ok)
		}
	}
}

func TestBadBatches(t *testing.T) {
	entry := func(i uint64) *raftpb.Entry { return &raftpb.Entry{Index: proto.Uint64(i), Term: proto.Uint64(1)} }
	unknown := entry(1)
	unknown.Type = raftpb.EntryType(256).Enum()
	for name, ents := range map[string][]*raftpb.Entry{
		"gap":          {entry(1), entry(3)},
		"twice":        {entry(1), entry(1)},
		"index 0":      {entry(0)},
		"unknown type": {unknown},
	} {
		r := record{index: ents[0].GetIndex(), ents: ents}
		if _, err := r.encodedSize(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzDecodeRecord feeds the decoder with anything: it must not panic, and what
// it accepts must encode to the same bytes.
func FuzzDecodeRecord(f *testing.F) {
	for _, r := range records() {
		f.Add(appendRecord(nil, &r, 5, 64), true)
		f.Add(appendRecord(nil, &r, 5, 64), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, seal bool) {
		if seal { // let the fuzzer past the checksum
			b = sealed(b)
		}
		r, n, err := decodeRecord(b, 5, 64)
		if err != nil {
			return
		}
		if again := appendRecord(nil, &r, 5, 64); !bytes.Equal(again, b[:n]) {
			t.Errorf("decoded from %x, encoded to %x", b[:n], again)
		}
		if size, err := r.encodedSize(); err == nil && size != n {
			t.Errorf("%d bytes long, but encodedSize = %d", n, size)
		}
	})
}

// FuzzReadDir feeds recovery with any two segment files.
func FuzzReadDir(f *testing.F) {
	segment := func(n uint32, prevEnd int, names ...string) []byte {
		b := appendHeader(nil, header{number: n})
		begin := record{kind: kindBegin, index: uint64(prevEnd)}
		b = appendRecord(b, &begin, n, headerSize)
		for _, name := range names {
			r := records()[name]
			b = appendRecord(b, &r, n, int64(len(b)))
		}
		return b
	}
	one := segment(1, 0, "one entry", "hard state")
	two := segment(2, len(one), "reset")
	f.Add(one, two)
	f.Add(one, []byte{})
	f.Add([]byte{}, two)
	f.Add(one[:100], two[:headerSize])
	f.Fuzz(func(t *testing.T, one, two []byte) {
		d := newCutDisk(1, 512)
		d.names[segmentName(1)] = &inode{data: one}
		d.names[segmentName(2)] = &inode{data: two}
		r, err := readDir(d)
		if err == nil && len(r.segs) > 0 && (r.end < headerSize || r.end > int64(max(len(one), len(two)))) {
			t.Errorf("the log ends at %d", r.end)
		}
	})
}

// sealed makes b look like a record of segment 5, offset 64.
func sealed(b []byte) []byte {
	b = append(slices.Clone(b), make([]byte, max(0, recordSize-len(b)))...)
	b = b[:len(b)&^(alignment-1)]
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)))
	binary.LittleEndian.PutUint32(b[8:], 5)
	binary.LittleEndian.PutUint32(b[12:], 64)
	binary.LittleEndian.PutUint32(b, checksum(b[4:]))
	return b
}
