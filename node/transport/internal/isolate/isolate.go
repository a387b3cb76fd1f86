// Package isolate makes the copy of a raft message that a receiver may keep.
//
// # What is shared and why that is safe
//
// Read in go.etcd.io/raft/v3 v3.7.0, every place that could write to a part of
// a message after it was handed out in Ready.Messages:
//
//   - A *raftpb.Entry is never written to once it is in a log. A proposal is
//     cloned by raft.appendEntry (Data included) before term and index are set;
//     MemoryStorage and the unstable log move pointers only, and never clear an
//     array ("clients might still be using them", log_unstable.go). So entries
//     and their Data are shared between sender and receiver.
//   - The slice of entries is written to by a receiver: raft.stepLeader replaces
//     a refused configuration change in m.Entries[i] of a forwarded MsgProp, and
//     unstable.truncateAndAppend keeps the received slice as its own and appends
//     to it. So each message gets a slice of its own, without spare capacity.
//   - The message struct is written to by a receiver: raft.stepFollower sets To
//     of a MsgProp, MsgReadIndex or MsgTransferLeader that it forwards. So each
//     message is a struct of its own.
//   - Scalars are replaced (m.To = &x), never written through; they are copied
//     nevertheless, in the same allocation as the struct.
//   - A snapshot's Data is shared by raft itself between its storage and every
//     message, and proto.Clone'd at the ends. It is shared; struct and metadata
//     are copied.
//
// The one thing that a marshaller writes into a shared entry is protobuf's size
// cache, which it does atomically (protobuf-go, internal/impl/encode.go).
package isolate

import (
	"google.golang.org/protobuf/proto"

	"go.etcd.io/raft/v3/raftpb"
)

// envelope is a message and room for its scalars, so that a copy costs one
// allocation and one more for the entries.
type envelope struct {
	msg                                                      raftpb.Message
	typ                                                      raftpb.MessageType
	to, from, term, logTerm, index, commit, vote, rejectHint uint64
	reject                                                   bool
}

// Clone returns a message of the receiver's own: it shares nothing with m but
// the entries and the Data of the snapshot, both immutable. Unknown fields are
// not carried.
func Clone(m *raftpb.Message) *raftpb.Message {
	e := new(envelope)
	c := &e.msg
	if m.Type != nil {
		e.typ = *m.Type
		c.Type = &e.typ
	}
	c.To = copyScalar(&e.to, m.To)
	c.From = copyScalar(&e.from, m.From)
	c.Term = copyScalar(&e.term, m.Term)
	c.LogTerm = copyScalar(&e.logTerm, m.LogTerm)
	c.Index = copyScalar(&e.index, m.Index)
	c.Commit = copyScalar(&e.commit, m.Commit)
	c.Vote = copyScalar(&e.vote, m.Vote)
	c.RejectHint = copyScalar(&e.rejectHint, m.RejectHint)
	c.Reject = copyScalar(&e.reject, m.Reject)
	if m.Entries != nil {
		c.Entries = make([]*raftpb.Entry, len(m.Entries))
		copy(c.Entries, m.Entries)
	}
	if m.Context != nil {
		c.Context = append(make([]byte, 0, len(m.Context)), m.Context...)
	}
	if m.Snapshot != nil {
		c.Snapshot = &raftpb.Snapshot{Data: m.Snapshot.Data}
		if m.Snapshot.Metadata != nil {
			c.Snapshot.Metadata = proto.Clone(m.Snapshot.Metadata).(*raftpb.SnapshotMetadata)
		}
	}
	for _, r := range m.Responses {
		c.Responses = append(c.Responses, Clone(r))
	}
	return c
}

func copyScalar[T any](room, v *T) *T {
	if v == nil {
		return nil
	}
	*room = *v
	return room
}

// PayloadBytes is what a message carries for its users: the Data of its entries
// and of its snapshot, and its Context. Framing and scalars are not counted.
func PayloadBytes(m *raftpb.Message) int64 {
	n := int64(len(m.Context) + len(m.GetSnapshot().GetData()))
	for _, e := range m.Entries {
		n += int64(len(e.GetData()))
	}
	for _, r := range m.Responses {
		n += PayloadBytes(r)
	}
	return n
}
