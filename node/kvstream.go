package node

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
)

var _ StreamingStateMachine = (*KV)(nil)

// StreamSnapshot implements [StreamingStateMachine]. The capture copies the table
// of values, not the values.
func (kv *KV) StreamSnapshot() (data io.Reader, size int64) {
	frozen := kv.freeze()
	r := &kvReader{values: frozen.values}
	r.head = frozen.appendHeader(r.scratch[:0])
	return r, frozen.encodedSize()
}

// kvReader is the encoding of a state, made as it is read.
type kvReader struct {
	values     [][]byte
	next       int    // of values
	head, body []byte // what is left of the header and of the value under way
	scratch    [kvHeaderSize]byte
	sum        uint32
	summed     bool // the checksum is in head, or was
}

func (r *kvReader) Read(p []byte) (n int, err error) {
	from := 0 // what of p is not in sum yet
	for yield := encodeStep; n < len(p); {
		if n >= yield {
			runtime.Gosched()
			yield = n + encodeStep
		}
		switch {
		case len(r.head) > 0:
			k := copy(p[n:], r.head)
			r.head, n = r.head[k:], n+k
		case len(r.body) > 0:
			k := copy(p[n:], r.body)
			r.body, n = r.body[k:], n+k
		case r.nextItem():
		case !r.summed:
			r.sum = crc32.Update(r.sum, castagnoli, p[from:n])
			from, r.summed = n, true
			r.head = binary.LittleEndian.AppendUint32(r.scratch[:0], r.sum)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
	if !r.summed {
		r.sum = crc32.Update(r.sum, castagnoli, p[from:n])
	}
	return n, nil
}

// nextItem makes the next key in use the one under way.
func (r *kvReader) nextItem() bool {
	for r.next < len(r.values) {
		key, data := r.next, r.values[r.next]
		r.values[key] = nil // may be freed when it was read
		r.next++
		if data != nil {
			r.head = appendItemHeader(r.scratch[:0], uint64(key), len(data))
			r.body = data
			return true
		}
	}
	return false
}

// restoreBuffer is how much of a stream is decoded at a time.
const restoreBuffer = 256 << 10

// collectBytes is the size of an old state from which on a collection is made for
// it: smaller ones do not matter to the peak of memory.
const collectBytes = 32 << 20

// RestoreStream implements [StreamingStateMachine]. Each value gets memory of its
// own, so that an overwritten one is freed; the old state is given up first. A
// large one is collected there and then: otherwise the heap would grow by the new
// state before the collector's next turn, into memory that the system must first
// find and clear.
func (kv *KV) RestoreStream(data io.Reader, size int64) error {
	old := kv.bytes
	*kv = KV{values: make([][]byte, 1)}
	if old >= collectBytes {
		runtime.GC()
	}
	next, err := decodeStream(data, size)
	if err != nil {
		return fmt.Errorf("restore state: %w", err)
	}
	*kv = *next
	return nil
}

// decodeStream reads a state of size bytes, after which data must end.
func decodeStream(data io.Reader, size int64) (*KV, error) {
	sum := crc32.New(castagnoli)
	body := io.TeeReader(io.LimitReader(data, size-4), sum)
	r := &itemReader{r: bufio.NewReaderSize(body, restoreBuffer), left: size - 4}
	var head [kvHeaderSize]byte
	if err := r.read(head[:]); err != nil {
		return nil, err
	}
	if string(head[:8]) != kvMagic {
		return nil, fmt.Errorf("%d bytes are not a snapshot of this state machine", size)
	}
	next, err := decodeHeader(head[:])
	if err != nil {
		return nil, err
	}
	for r.left > 0 {
		if err := next.readItem(r); err != nil {
			return nil, err
		}
	}
	if _, err := io.ReadFull(data, head[:4]); err != nil {
		return nil, fmt.Errorf("read the checksum: %w", err)
	}
	if got, want := sum.Sum32(), binary.LittleEndian.Uint32(head[:]); got != want {
		return nil, fmt.Errorf("checksum %08x of %d bytes, want %08x", got, size-4, want)
	}
	if n, err := io.ReadFull(data, head[:1]); n > 0 || !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("the stream goes on after %d bytes: %w", size, err)
	}
	return next, nil
}

// readItem reads one key and its value.
func (kv *KV) readItem(r *itemReader) error {
	head := r.item[:]
	if err := r.read(head); err != nil {
		return err
	}
	key, size := binary.LittleEndian.Uint64(head), int64(binary.LittleEndian.Uint32(head[8:]))
	if key >= uint64(len(kv.values)) || size > r.left {
		return fmt.Errorf("value of key %d with %d bytes does not fit", key, size)
	}
	value := make([]byte, size)
	if err := r.read(value); err != nil {
		return err
	}
	kv.put(key, value)
	return nil
}

// itemReader keeps how much is left before the checksum.
type itemReader struct {
	r    *bufio.Reader
	left int64
	item [kvItemHeader]byte
}

func (r *itemReader) read(p []byte) error {
	if int64(len(p)) > r.left {
		return fmt.Errorf("%d bytes left over, want %d", r.left, len(p))
	}
	if _, err := io.ReadFull(r.r, p); err != nil {
		return fmt.Errorf("%d bytes before the end: %w", r.left, err)
	}
	r.left -= int64(len(p))
	return nil
}
