package grpc

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// The stream Messages carries a stream of bytes, cut into frames wherever a frame
// is full; a frame is one gRPC message:
//
//	uvarint n | n bytes of raftpb.Message | uvarint n | …
//
// Snapshot carries one message:
//
//	first frame:   uvarint d | raftpb.Message without the snapshot's Data
//	other frames:  the d bytes of Data
const (
	// maxFrame is what a frame holds at most. gRPC's default limit is 4 MiB; 1 MiB
	// is where larger frames stop paying (one gRPC message is flow-controlled as a
	// whole, and held in memory as a whole at either end).
	maxFrame = 1 << 20
	// DefaultMaxMessageBytes is the largest message taken, encoded: 1 GiB of
	// data and what is around it.
	DefaultMaxMessageBytes = 1<<30 + 1<<20
	// DefaultMaxSnapshotBytes is the most data of a snapshot that is taken; a
	// receiver that stores it as it comes needs no memory for it.
	DefaultMaxSnapshotBytes = 16 << 30
)

var errTooLarge = errors.New("message exceeds the limit")

// frame is what the codec marshals and unmarshals.
type frame struct {
	out mem.Buffer      // to be sent
	in  mem.BufferSlice // received; the reader frees it
}

// codec passes frames as they are.
type codec struct{}

func (codec) Name() string { return "raftbench-frame" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return nil, fmt.Errorf("grpc transport: marshal %T", v)
	}
	if f.out == nil {
		return nil, nil
	}
	return mem.BufferSlice{f.out}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*frame)
	if !ok {
		return fmt.Errorf("grpc transport: unmarshal %T", v)
	}
	data.Ref()
	f.in = data
	return nil
}

// encoder turns messages into frames.
type encoder struct {
	send func(*frame) error
	pool mem.BufferPool
	buf  *[]byte // the frame being filled, nil if none is
	left int     // what is still to be added, so that a frame is no larger than needed
	max  int     // of a frame: maxFrame, less in tests
}

// encodedSize is what a message takes of the stream, at most.
func encodedSize(m *raftpb.Message) int { return proto.Size(m) + binary.MaxVarintLen64 }

// add appends a message to the stream; need is its encodedSize, found out after
// the last change to the message.
func (e *encoder) add(m *raftpb.Message, need int) error {
	if e.buf != nil && len(*e.buf)+need > e.max {
		if err := e.flush(); err != nil {
			return err
		}
	}
	defer func() { e.left -= need }()
	if need > e.max {
		return e.addLarge(m, need)
	}
	if e.buf == nil {
		e.buf = e.pool.Get(min(max(need, e.left), e.max))
		*e.buf = (*e.buf)[:0]
	}
	b, err := appendMessage(*e.buf, m)
	if err != nil {
		return err
	}
	*e.buf = b
	return nil
}

// addLarge sends a message that needs frames of its own.
func (e *encoder) addLarge(m *raftpb.Message, need int) error {
	b, err := appendMessage(make([]byte, 0, need), m)
	if err != nil {
		return err
	}
	return sendChunks(b, e.max, e.send)
}

// sendChunks sends b in frames of at most size bytes that share its memory.
func sendChunks(b []byte, size int, send func(*frame) error) error {
	for len(b) > 0 {
		n := min(len(b), size)
		if err := send(&frame{out: mem.SliceBuffer(b[:n])}); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// appendMessage appends a message whose sizes proto.Size has just cached.
func appendMessage(b []byte, m *raftpb.Message) ([]byte, error) {
	cached := proto.MarshalOptions{UseCachedSize: true}
	b = binary.AppendUvarint(b, uint64(cached.Size(m)))
	b, err := cached.MarshalAppend(b, m)
	if err != nil {
		return nil, fmt.Errorf("grpc transport: marshal %s: %w", m.GetType(), err)
	}
	return b, nil
}

// flush sends the frame that is being filled.
func (e *encoder) flush() error {
	if e.buf == nil {
		return nil
	}
	f := &frame{out: mem.NewBuffer(e.buf, e.pool)}
	e.buf = nil
	return e.send(f)
}

// discard gives back a frame that will not be sent.
func (e *encoder) discard() {
	if e.buf != nil {
		e.pool.Put(e.buf)
		e.buf = nil
	}
}

// decoder takes a stream of messages apart. It holds no more memory than twice
// what it was fed of an unfinished message.
type decoder struct {
	limit int
	rest  []byte // of a message whose end is still to come
}

// feed takes the next bytes of the stream and calls emit for each message that is
// now complete. The message shares nothing with p.
func (d *decoder) feed(p []byte, emit func(*raftpb.Message) error) error {
	kept := len(d.rest) > 0
	if kept {
		d.rest = append(d.rest, p...)
		p = d.rest
	}
	fed := len(p)
	for len(p) > 0 {
		size, n := binary.Uvarint(p)
		if n < 0 || size > uint64(d.limit) {
			return fmt.Errorf("grpc transport: message of %d bytes: %w", size, errTooLarge)
		}
		if n == 0 || uint64(len(p)-n) < size {
			break
		}
		m := new(raftpb.Message)
		if err := proto.Unmarshal(p[n:n+int(size)], m); err != nil {
			return fmt.Errorf("grpc transport: unmarshal a message of %d bytes: %w", size, err)
		}
		p = p[n+int(size):]
		if err := emit(m); err != nil {
			return err
		}
	}
	switch {
	case kept && len(p) == fed: // a long message; what is there is where it belongs
	case len(p) == 0 && cap(d.rest) > 4*maxFrame:
		d.rest = nil
	default:
		d.rest = append(d.rest[:0], p...)
	}
	return nil
}

// sendSnapshot sends a MsgSnap and size bytes of data.
func sendSnapshot(m *raftpb.Message, data io.Reader, size int64, send func(*frame) error) error {
	length := proto.Size(m)
	head := binary.AppendUvarint(make([]byte, 0, length+binary.MaxVarintLen64), uint64(size))
	head, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(head, m)
	if err != nil {
		return fmt.Errorf("grpc transport: marshal %s: %w", m.GetType(), err)
	}
	if err := send(&frame{out: mem.SliceBuffer(head)}); err != nil {
		return err
	}
	return sendData(data, size, mem.DefaultBufferPool(), send)
}

// sendData sends size bytes in frames of which a few are in memory at a time.
func sendData(data io.Reader, size int64, pool mem.BufferPool, send func(*frame) error) error {
	for left := size; left > 0; {
		buf := pool.Get(int(min(left, maxFrame)))
		if _, err := io.ReadFull(data, *buf); err != nil {
			pool.Put(buf)
			return fmt.Errorf("grpc transport: read a snapshot %d bytes before its end: %w", left, err)
		}
		left -= int64(len(*buf))
		if err := send(&frame{out: mem.NewBuffer(buf, pool)}); err != nil {
			return err
		}
	}
	// The reader may know only here that what it gave was wrong.
	if n, err := io.ReadFull(data, make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("grpc transport: a snapshot goes on after %d bytes: %w", size, err)
	}
	return nil
}

// snapshotHead reads the first frame of a snapshot: the message and how many bytes
// of Data follow.
func snapshotHead(head []byte, limit int64) (*raftpb.Message, int64, error) {
	size, n := binary.Uvarint(head)
	if n <= 0 || size > uint64(limit) {
		return nil, 0, fmt.Errorf("grpc transport: snapshot of %d bytes: %w", size, errTooLarge)
	}
	m := new(raftpb.Message)
	if err := proto.Unmarshal(head[n:], m); err != nil {
		return nil, 0, fmt.Errorf("grpc transport: unmarshal the head of a snapshot: %w", err)
	}
	if m.GetType() != raftpb.MsgSnap || m.Snapshot == nil {
		return nil, 0, fmt.Errorf("grpc transport: a %s came as a snapshot", m.GetType())
	}
	return m, int64(size), nil
}

// frameReader reads the data of a snapshot from its frames. An error of its own
// is a gRPC status.
type frameReader struct {
	recv func(*frame) error
	left int64 // of what was announced
	rest mem.BufferSlice
	skip int // of rest[0]
	err  error
}

func (r *frameReader) Read(p []byte) (n int, err error) {
	for len(r.rest) == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	for n < len(p) && len(r.rest) > 0 {
		b := r.rest[0].ReadOnlyData()[r.skip:]
		k := copy(p[n:], b)
		n, r.skip = n+k, r.skip+k
		if k == len(b) {
			r.rest[0].Free()
			r.rest, r.skip = r.rest[1:], 0
		}
	}
	return n, nil
}

// next takes the next frame.
func (r *frameReader) next() error {
	if r.err != nil {
		return r.err
	}
	var f frame
	err := r.recv(&f)
	if err != nil && (r.left > 0 || !errors.Is(err, io.EOF)) {
		err = status.Error(codes.DataLoss, fmt.Sprintf("snapshot ends %d bytes early: %v", r.left, err))
	} else if n := int64(f.in.Len()); err == nil && n > r.left {
		f.in.Free()
		err = status.Error(codes.InvalidArgument, fmt.Sprintf("snapshot exceeds by %d bytes what it announced", n-r.left))
	}
	if err != nil {
		r.err = err
		return err
	}
	r.left -= int64(f.in.Len())
	r.rest = f.in
	return nil
}

// free gives back what was not read.
func (r *frameReader) free() {
	r.rest.Free()
	r.rest = nil
}
