package node

import (
	"io"
	"sync"
)

// readAheadBytes is how much is read at a time, and readAheadChunks how many such
// chunks there are: one that is filled, one that waits, one that is read from.
const (
	readAheadBytes  = 1 << 20
	readAheadChunks = 3
)

// readAhead reads data on a goroutine of its own, so that one who reads the next
// bytes (from a file or a peer, checking them) and one who uses the last (to write
// or to decode them) work at the same time. It reads no further than a few chunks
// ahead. What Read gives, an error of data included, is what data gave.
type readAhead struct {
	full  chan chunk
	empty chan *readAheadBuf
	stop  chan struct{}
	ended chan struct{}
	once  sync.Once
	last  chunk // that is read from
	rest  []byte
}

type chunk struct {
	buf *readAheadBuf
	n   int
	err error
}

type readAheadBuf [readAheadBytes]byte

// readAheadBufs are those of streams that were closed: a node reads one for every
// snapshot, and fresh memory must be found and cleared, and the old collected.
var readAheadBufs = sync.Pool{New: func() any { return new(readAheadBuf) }}

func newReadAhead(data io.Reader) *readAhead {
	r := &readAhead{
		full: make(chan chunk, readAheadChunks), empty: make(chan *readAheadBuf, readAheadChunks),
		stop: make(chan struct{}), ended: make(chan struct{}),
	}
	for range readAheadChunks {
		r.empty <- nil // made when it is needed
	}
	go r.fill(data)
	return r
}

// fill reads until data ends or Close.
func (r *readAhead) fill(data io.Reader) {
	defer close(r.ended)
	for {
		var c chunk
		select {
		case c.buf = <-r.empty:
		case <-r.stop:
			return
		}
		if c.buf == nil {
			c.buf = readAheadBufs.Get().(*readAheadBuf)
		}
		c.n, c.err = data.Read(c.buf[:])
		r.full <- c // has room for all there are
		if c.err != nil {
			return
		}
	}
}

func (r *readAhead) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.last.err != nil {
			return 0, r.last.err
		}
		if r.last.buf != nil {
			r.empty <- r.last.buf // has room for all there are
		}
		r.last = <-r.full
		r.rest = r.last.buf[:r.last.n]
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// Close returns when data is not read any more: after the Read of it that is under
// way. Nothing may be read after it, nor at the same time.
func (r *readAhead) Close() {
	r.once.Do(func() {
		close(r.stop)
		<-r.ended
		close(r.full)
		close(r.empty)
		for c := range r.full {
			r.free(c.buf)
		}
		for buf := range r.empty {
			r.free(buf)
		}
		r.free(r.last.buf)
	})
}

func (*readAhead) free(buf *readAheadBuf) {
	if buf != nil {
		readAheadBufs.Put(buf)
	}
}
