package grpc

import (
	"bytes"
	"fmt"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

func collect(into *[]*raftpb.Message) func(*raftpb.Message) error {
	return func(m *raftpb.Message) error {
		*into = append(*into, m)
		return nil
	}
}

// Whatever is put in at one end comes out at the other, however the stream is cut.
func TestFramesRoundTrip(t *testing.T) {
	const maxFrame = 100 // so that every way of cutting occurs with few bytes
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(0, 3*maxFrame), 0, 12).Draw(t, "sizes")
		var stream bytes.Buffer
		e := encoder{max: maxFrame, pool: mem.DefaultBufferPool(), send: func(f *frame) error {
			defer f.out.Free()
			if n := f.out.Len(); n == 0 || n > maxFrame {
				return fmt.Errorf("a frame of %d bytes", n)
			}
			stream.Write(f.out.ReadOnlyData())
			return nil
		}}
		var want []*raftpb.Message
		for i, n := range sizes {
			m := &raftpb.Message{Index: new(uint64(i)), Entries: []*raftpb.Entry{{Data: bytes.Repeat([]byte{byte(i)}, n)}}}
			want = append(want, m)
			e.left += encodedSize(m)
		}
		for _, m := range want {
			if err := e.add(m, encodedSize(m)); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.flush(); err != nil {
			t.Fatal(err)
		}
		if e.left != 0 {
			t.Fatalf("%d bytes were expected to follow", e.left)
		}
		var got []*raftpb.Message
		d := decoder{limit: DefaultMaxMessageBytes}
		for rest := stream.Bytes(); len(rest) > 0; {
			n := min(len(rest), rapid.OneOf(rapid.IntRange(1, 8), rapid.IntRange(1, 2*maxFrame)).Draw(t, "cut"))
			piece := bytes.Clone(rest[:n])
			if err := d.feed(piece, collect(&got)); err != nil {
				t.Fatal(err)
			}
			clear(piece) // the decoder must not have kept it
			rest = rest[n:]
		}
		if len(got) != len(want) || len(d.rest) != 0 {
			t.Fatalf("%d messages came out of %d, %d bytes are left", len(got), len(want), len(d.rest))
		}
		for i := range got {
			if !proto.Equal(got[i], want[i]) {
				t.Fatalf("message %d differs", i)
			}
		}
	})
}

// The decoder survives any stream, keeps to its limit, and does not depend on how
// the stream is cut.
func FuzzDecoder(f *testing.F) {
	m, err := appendMessageOf(&raftpb.Message{Type: raftpb.MsgApp.Enum(), Entries: []*raftpb.Entry{{Data: []byte("data")}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m, 1)
	f.Add(append(m, m...), 7)
	f.Add([]byte{0, 0, 0}, 2)
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 1}, 3)
	f.Fuzz(func(t *testing.T, stream []byte, cut int) {
		const limit = 1 << 10
		if cut < 1 {
			cut = 1
		}
		var whole, parts []*raftpb.Message
		one := decoder{limit: limit}
		errWhole := one.feed(stream, collect(&whole))
		many := decoder{limit: limit}
		var errParts error
		for rest := stream; len(rest) > 0 && errParts == nil; {
			n := min(cut, len(rest))
			errParts = many.feed(rest[:n], collect(&parts))
			rest = rest[n:]
			if held := len(many.rest); errParts == nil && held > limit+10 {
				t.Fatalf("the decoder holds %d bytes, its limit is %d", held, limit)
			}
		}
		if (errWhole == nil) != (errParts == nil) || len(whole) != len(parts) {
			t.Fatalf("whole: %d messages, %v; cut by %d: %d messages, %v", len(whole), errWhole, cut, len(parts), errParts)
		}
		for i := range whole {
			if !proto.Equal(whole[i], parts[i]) {
				t.Fatalf("message %d depends on how the stream is cut", i)
			}
		}
	})
}

func FuzzSnapshotHead(f *testing.F) {
	f.Add([]byte{5, 8, 7, 74, 0})
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, head []byte) {
		m, size, err := snapshotHead(head, 1000)
		if err == nil && (size < 0 || size > 1000 || m.GetType() != raftpb.MsgSnap || m.Snapshot == nil) {
			t.Fatalf("let through: %v, %d bytes", m, size)
		}
	})
}
