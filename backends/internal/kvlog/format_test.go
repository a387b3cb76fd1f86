package kvlog

import (
	"bytes"
	"encoding/hex"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// TestFormat pins the bytes on disk: a change of them needs a way to read the
// old ones.
func TestFormat(t *testing.T) {
	e, err := appendEntry(nil, &raftpb.Entry{Index: proto.Uint64(258), Term: proto.Uint64(3), Data: []byte("data")})
	must(t, err)
	hs, err := proto.Marshal(testHardState(3, 2, 257))
	must(t, err)
	snap, err := appendSnapRecord(nil, snapRecord{gen: 5, bytes: 2000, chunkBytes: 1024, hasData: true,
		metadata: &raftpb.SnapshotMetadata{Index: proto.Uint64(250), Term: proto.Uint64(2)}})
	must(t, err)
	file, err := appendSnapRecord(nil, snapRecord{gen: 6, inFile: true,
		metadata: &raftpb.SnapshotMetadata{Index: proto.Uint64(250), Term: proto.Uint64(2)}})
	must(t, err)
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"entry", e, "650000000000000102" + "1003" + "188202" + "220464617461" + "fb6ff664"},
		{"hard state", appendState(nil, 258, hs), "68" + "0000000000000102" + "0803" + "1002" + "188102" + "d27a4fa4"},
		{"snapshot in a file", file, "73" + "0000000000000006" + "0000000000000000" + "00000000" + "02" + "10fa01" + "1802" + "7ffe4216"},
		{"snapshot", snap, "73" + "0000000000000005" + "00000000000007d0" + "00000400" + "01" + "10fa01" + "1802" + "fbc8bc7f"},
		{"chunk", appendChunk(nil, 5, 1, []byte("data")), "63" + "0000000000000005" + "00000001" + "64617461" + "ad2615b5"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s is %s, want %s", c.name, got, c.want)
		}
	}
}

// TestPresence: what was nil stays nil, and what was empty stays empty.
func TestPresence(t *testing.T) {
	for _, want := range []*raftpb.Entry{
		{Index: proto.Uint64(1)},
		{Index: proto.Uint64(1), Term: proto.Uint64(0), Data: []byte{}},
		{Index: proto.Uint64(1), Type: raftpb.EntryType_EntryConfChangeV2.Enum(), Data: nil},
	} {
		b, err := appendEntry(nil, want)
		must(t, err)
		got, err := decodeEntry(b[:entryKeySize], b[entryKeySize:])
		must(t, err)
		if !proto.Equal(got, want) || (got.Data == nil) != (want.Data == nil) {
			t.Errorf("got {%v}, want {%v}", got, want)
		}
	}
	for _, data := range [][]byte{nil, {}} {
		e := newFake(Config{})
		s, _ := mustOpen(t, e)
		snap := testSnap(3, 1, 0)
		snap.Data = data
		must(t, s.SaveSnap(snap))
		if _, st := mustOpen(t, e); !proto.Equal(st.Snapshot, snap) {
			t.Errorf("got snapshot {%v}, want {%v}", st.Snapshot, snap)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range []*raftpb.Entry{testEntry(1, 1, 0), testEntry(1<<40, 7, 300), {Index: proto.Uint64(2)}} {
		b, err := appendEntry(nil, e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[:entryKeySize], b[entryKeySize:])
		f.Add(b[:entryKeySize], b[entryKeySize:len(b)-1])
	}
	f.Add([]byte{}, []byte{})
	f.Add(entryKey(1), []byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		// As found, and as if the checksum were right: what stands before it must
		// not be trusted either.
		for _, value := range [][]byte{value, reseal(key, value)} {
			e, err := decodeEntry(key, value)
			if err != nil {
				continue
			}
			b, err := appendEntry(nil, e)
			if err != nil {
				t.Fatal(err)
			}
			again, err := decodeEntry(b[:entryKeySize], b[entryKeySize:])
			if err != nil || !proto.Equal(e, again) || !bytes.Equal(b[:entryKeySize], key) {
				t.Fatalf("{%v} became {%v}, %v", e, again, err)
			}
		}
	})
}

func reseal(key, value []byte) []byte {
	return seal(append(bytes.Clone(key), value...), 0)[len(key):]
}

func FuzzDecodeState(f *testing.F) {
	for _, st := range []*raftpb.HardState{{}, testHardState(0, 0, 0), testHardState(3, 2, 1<<50)} {
		hs, err := proto.Marshal(st)
		if err != nil {
			f.Fatal(err)
		}
		b := appendState(nil, 17, hs)
		f.Add(b[1:])
		f.Add(b[1 : len(b)-crcSize])
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, value := range [][]byte{value, reseal([]byte{stateKey}, value)} {
			last, st, err := decodeState(value)
			if err != nil {
				continue
			}
			hs, err := proto.Marshal(st)
			if err != nil {
				t.Fatal(err)
			}
			gotLast, got, err := decodeState(appendState(nil, last, hs)[1:])
			if err != nil || gotLast != last || !proto.Equal(got, st) {
				t.Fatalf("{%v} at %d became {%v} at %d, %v", st, last, got, gotLast, err)
			}
		}
	})
}

func FuzzDecodeSnapRecord(f *testing.F) {
	for _, r := range []snapRecord{
		{gen: 1, chunkBytes: 1, metadata: testSnap(1, 1, 0).Metadata},
		{gen: 3, inFile: true, metadata: testSnap(7, 2, 0).Metadata},
		{gen: 9, bytes: 1 << 30, chunkBytes: 1 << 20, hasData: true, metadata: testSnap(1<<40, 3, 0).Metadata},
	} {
		b, err := appendSnapRecord(nil, r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[1:])
		f.Add(b[1 : len(b)-crcSize])
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, value := range [][]byte{value, reseal([]byte{snapKey}, value)} {
			r, err := decodeSnapRecord(value)
			if err != nil {
				continue
			}
			if r.inFile && (r.bytes != 0 || r.chunks() != 0 || r.hasData) {
				t.Fatalf("a file, and chunks: %+v", r)
			}
			if n := uint64(r.chunks()) * uint64(r.chunkBytes); !r.inFile && (n < r.bytes || n >= r.bytes+uint64(r.chunkBytes)) {
				t.Fatalf("%d chunks for %d bytes in chunks of %d", r.chunks(), r.bytes, r.chunkBytes)
			}
			b, err := appendSnapRecord(nil, r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := decodeSnapRecord(b[1:])
			if err != nil || !proto.Equal(got.metadata, r.metadata) {
				t.Fatalf("%+v became %+v, %v", r, got, err)
			}
			got.metadata, r.metadata = nil, nil
			if got != r {
				t.Fatalf("%+v became %+v", r, got)
			}
		}
	})
}

func FuzzDecodeChunk(f *testing.F) {
	b := appendChunk(nil, 7, 2, []byte("some data"))
	f.Add(b[:chunkKeySize], b[chunkKeySize:])
	f.Add(b[:chunkKeySize], b[chunkKeySize:len(b)-crcSize])
	f.Add([]byte("c"), []byte{})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		for _, value := range [][]byte{value, reseal(key, value)} {
			gen, seq, data, err := decodeChunk(key, value)
			if err != nil {
				continue
			}
			if b := appendChunk(nil, gen, seq, data); !bytes.Equal(b, append(bytes.Clone(key), value...)) {
				t.Fatalf("%x %x became %x", key, value, b)
			}
		}
	})
}

// unsealed is what an engine holds, without checksums, as FuzzOpen takes it.
func (e *fakeEngine) unsealed() []byte {
	var b []byte
	for k, v := range e.kv {
		v = v[:len(v)-crcSize]
		b = append(append(append(append(b, byte(len(k))), k...), byte(len(v))), v...)
	}
	return b
}

// FuzzOpen gives Open an engine with arbitrary records, sealed or not: it returns
// a state that a node can start from, or an error, and never panics.
func FuzzOpen(f *testing.F) {
	e := newFake(Config{ChunkBytes: 16})
	s, _, err := Open("dir", e, e.cfg)
	if err != nil {
		f.Fatal(err)
	}
	if err := s.Save(testHardState(1, 1, 3), testEntries(1, 1, 4, 5)); err != nil {
		f.Fatal(err)
	}
	if err := s.SaveSnap(testSnap(2, 1, 20)); err != nil {
		f.Fatal(err)
	}
	seed := e.unsealed()
	f.Add(seed)
	f.Add(seed[:len(seed)/2])
	e = newFake(Config{SnapDir: SnapDir(f.TempDir()), SnapFiles: true})
	if s, _, err = Open("dir", e, e.cfg); err != nil {
		f.Fatal(err)
	}
	if err := s.SaveSnap(testSnap(2, 1, 20)); err != nil {
		f.Fatal(err)
	}
	f.Add(e.unsealed())
	file := e.files()
	f.Fuzz(func(t *testing.T, b []byte) {
		e := newFake(Config{DeleteStep: 2})
		next := func() []byte {
			if len(b) == 0 {
				return nil
			}
			n := min(int(b[0]), len(b)-1)
			r := b[1 : 1+n]
			b = b[1+n:]
			return r
		}
		for len(b) > 0 {
			key := next()
			e.kv[string(key)] = reseal(key, next())
		}
		if r, err := decodeSnapRecord(e.kv["s"]); err == nil && r.inFile {
			e.cfg.SnapDir = SnapDir(t.TempDir())
			if err := writeFiles(e.cfg.SnapDir, file); err != nil {
				t.Fatal(err)
			}
		}
		_, st, err := Open("dir", e, e.cfg)
		if err != nil {
			return
		}
		if err := startable(st); err != nil {
			t.Fatalf("Open returned a state that raft does not start from: %v", err)
		}
	})
}
