package remote

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/raftbench/raftbench/bench"
)

// A frame is 4 bytes of length, big endian, and that much JSON: a [message]. A
// request has an id and a method; its reply the same id and no method; an event a
// method and no id. maxFrame bounds what either side takes: the longest frames are
// pieces of the journal (under 1 MiB) and the figures of a run.
const maxFrame = 16 << 20

type message struct {
	ID     uint64          `json:"id,omitempty"`
	Method string          `json:"method,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	Error  string          `json:"error,omitempty"`
	Usage  bool            `json:"usage,omitempty"` // the error is a bench.UsageError
}

// fail is the reply to a request that failed.
func fail(id uint64, err error) message {
	var usage *bench.UsageError
	return message{ID: id, Error: err.Error(), Usage: errors.As(err, &usage)}
}

func (m *message) err() error {
	switch {
	case m.Error == "":
		return nil
	case m.Usage:
		return &bench.UsageError{Reason: m.Error}
	}
	return errors.New(m.Error)
}

// decode takes a reply apart.
func (m *message) decode(method string, reply any) error {
	if err := m.err(); err != nil || reply == nil {
		return err
	}
	if err := json.Unmarshal(m.Body, reply); err != nil {
		return fmt.Errorf("%s: decode the reply: %w", method, err)
	}
	return nil
}

// reader reads frames.
type reader struct{ in *bufio.Reader }

func newReader(in io.Reader) *reader { return &reader{bufio.NewReaderSize(in, 1<<16)} }

// read returns the next message, and the frame that it came in. io.EOF means that
// there is none.
func (r *reader) read() (m message, frame []byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return m, nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxFrame {
		return m, nil, fmt.Errorf("a frame of %d bytes: %d are allowed", size, maxFrame)
	}
	frame = make([]byte, 4+size)
	copy(frame, head[:])
	if _, err := io.ReadFull(r.in, frame[4:]); err != nil {
		return m, nil, fmt.Errorf("a frame of %d bytes is cut off: %w", size, err)
	}
	if err := json.Unmarshal(frame[4:], &m); err != nil {
		return m, nil, fmt.Errorf("a frame of %d bytes: %w", size, err)
	}
	return m, frame, nil
}

// writer writes frames, from several goroutines.
type writer struct {
	mu  sync.Mutex
	out io.Writer
}

func (w *writer) write(m message) error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode %s: %w", m.Method, err)
	}
	if len(data) > maxFrame {
		return fmt.Errorf("%s takes %d bytes: %d are allowed", m.Method, len(data), maxFrame)
	}
	return w.raw(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(data)), uint32(len(data))), data...))
}

// raw writes a whole frame as it was read.
func (w *writer) raw(frame []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.out.Write(frame)
	return err
}

// caller sends requests and takes their replies, in whatever order they come.
type caller struct {
	w       *writer
	onEvent func(message) // on the reading goroutine; must not block

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan message
	err     error         // set before gone is closed
	gone    chan struct{} // closed when nothing more comes
}

// newCaller reads from in until it ends.
func newCaller(in io.Reader, out io.Writer, onEvent func(message)) *caller {
	c := &caller{w: &writer{out: out}, onEvent: onEvent, waiting: map[uint64]chan message{}, gone: make(chan struct{})}
	go c.readAll(newReader(in))
	return c
}

func (c *caller) readAll(r *reader) {
	for {
		m, _, err := r.read()
		if err != nil {
			c.err = err
			close(c.gone)
			return
		}
		if m.ID == 0 {
			c.onEvent(m)
			continue
		}
		c.mu.Lock()
		reply := c.waiting[m.ID]
		delete(c.waiting, m.ID)
		c.mu.Unlock()
		if reply != nil {
			reply <- m
		}
	}
}

// errGone is the error of a call that will have no reply.
var errGone = errors.New("the connection has ended")

// call sends a request and decodes its reply, either of which may be nil.
func (c *caller) call(ctx context.Context, method string, args, reply any) error {
	body, err := json.Marshal(args)
	if err != nil {
		return fmt.Errorf("%s: encode: %w", method, err)
	}
	answer := make(chan message, 1)
	c.mu.Lock()
	c.next++
	id := c.next
	c.waiting[id] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
	}()
	if err := c.w.write(message{ID: id, Method: method, Body: body}); err != nil {
		return fmt.Errorf("%s: %w: %w", method, errGone, err)
	}
	select {
	case m := <-answer:
		return m.decode(method, reply)
	case <-c.gone:
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, context.Cause(ctx))
	}
	select {
	case m := <-answer: // was the last that came
		return m.decode(method, reply)
	default:
		return fmt.Errorf("%s: %w: %w", method, errGone, c.err)
	}
}

// tell sends an event. Who is gone does not hear it.
func (w *writer) tell(method string, body any) {
	data, err := json.Marshal(body)
	if err == nil {
		_ = w.write(message{Method: method, Body: data})
	}
}
