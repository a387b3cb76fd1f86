package isolate

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// fill sets every field of m, to any depth that messages have, to something that
// is not its zero value. It fails on a kind of field that it does not know, so that a
// field which a later raft adds cannot be forgotten by Clone.
func fill(t *testing.T, m protoreflect.Message, depth int) {
	t.Helper()
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsList() && f.Message() != nil:
			if depth == 0 {
				continue
			}
			list := m.Mutable(f).List()
			fill(t, list.AppendMutable().Message(), depth-1)
		case f.IsList():
			m.Mutable(f).List().Append(protoreflect.ValueOfUint64(7))
		case f.Message() != nil:
			fill(t, m.Mutable(f).Message(), depth-1)
		case f.Kind() == protoreflect.EnumKind:
			m.Set(f, protoreflect.ValueOfEnum(1))
		case f.Kind() == protoreflect.Uint64Kind:
			m.Set(f, protoreflect.ValueOfUint64(uint64(f.Number())))
		case f.Kind() == protoreflect.BoolKind:
			m.Set(f, protoreflect.ValueOfBool(true))
		case f.Kind() == protoreflect.BytesKind:
			m.Set(f, protoreflect.ValueOfBytes([]byte("bytes")))
		default:
			t.Fatalf("field %s is of a kind that this test does not fill", f.FullName())
		}
	}
}

func TestCloneCopiesEveryField(t *testing.T) {
	m := new(raftpb.Message)
	fill(t, m.ProtoReflect(), 2)
	if c := Clone(m); !proto.Equal(m, c) {
		t.Fatalf("the copy differs\n got %v\nwant %v", c, m)
	}
	if c := Clone(&raftpb.Message{}); !proto.Equal(c, &raftpb.Message{}) {
		t.Fatalf("the copy of an empty message is %v", c)
	}
}

// What the sender may still write to must not show in the copy.
func TestCloneSharesOnlyWhatIsImmutable(t *testing.T) {
	m := new(raftpb.Message)
	fill(t, m.ProtoReflect(), 2)
	c := Clone(m)
	want := proto.Clone(c).(*raftpb.Message)
	entry, data := m.Entries[0], m.Snapshot.Data

	*m.To, *m.Type, *m.Reject = 99, raftpb.MsgSnap, false
	m.Entries[0] = &raftpb.Entry{Data: []byte("other")}
	m.Context[0] = 'X'
	*m.Snapshot.Metadata.Index = 99
	m.Snapshot.Metadata.ConfState.Voters[0] = 99
	m.Snapshot.Data = nil
	*m.Responses[0].To = 99
	if !proto.Equal(c, want) {
		t.Fatalf("a change by the sender shows in the copy\n got %v\nwant %v", c, want)
	}
	if c.Entries[0] != entry || &c.Snapshot.Data[0] != &data[0] {
		t.Fatal("entries and snapshot data are copied; they are meant to be shared")
	}
	if spare := cap(c.Entries) - len(c.Entries); spare != 0 {
		t.Fatalf("the slice of entries has room for %d more: raft appends to it", spare)
	}
}

func TestPayloadBytes(t *testing.T) {
	m := &raftpb.Message{
		Entries:  []*raftpb.Entry{{Data: make([]byte, 10)}, {}},
		Context:  make([]byte, 3),
		Snapshot: &raftpb.Snapshot{Data: make([]byte, 100)},
	}
	if got := PayloadBytes(m); got != 113 {
		t.Fatalf("PayloadBytes = %d, want 113", got)
	}
	if got := PayloadBytes(&raftpb.Message{}); got != 0 {
		t.Fatalf("PayloadBytes of an empty message = %d, want 0", got)
	}
}

func BenchmarkClone(b *testing.B) {
	m := &raftpb.Message{Type: raftpb.MsgApp.Enum(), To: new(uint64(2)), From: new(uint64(1)), Term: new(uint64(3)),
		LogTerm: new(uint64(3)), Index: new(uint64(4)), Commit: new(uint64(4)), Entries: make([]*raftpb.Entry, 16)}
	b.ReportAllocs()
	for b.Loop() {
		Clone(m)
	}
}
