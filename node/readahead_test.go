package node

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

func TestReadAhead(t *testing.T) {
	broken := errors.New("broken")
	for _, size := range []int{0, 1, readAheadBytes - 1, readAheadBytes, 5*readAheadBytes + 7} {
		want := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{}).Read(want)
		for name, data := range map[string]io.Reader{
			"whole":         bytes.NewReader(want),
			"halves":        iotest.HalfReader(bytes.NewReader(want)),
			"data with EOF": iotest.DataErrReader(bytes.NewReader(want)),
		} {
			r := newReadAhead(data)
			if got, err := io.ReadAll(iotest.HalfReader(r)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %s: got %d others, %v", size, name, len(got), err)
			}
			if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("%d bytes, %s: after the end %d, %v", size, name, n, err)
			}
			r.Close()
			r.Close()
		}
		r := newReadAhead(io.MultiReader(bytes.NewReader(want), iotest.ErrReader(broken)))
		if got, err := io.ReadAll(r); !errors.Is(err, broken) || !bytes.Equal(got, want) {
			t.Errorf("%d bytes, then an error: got %d bytes, %v", size, len(got), err)
		}
		r.Close()
	}
}

// TestReadAheadClose: it reads only a few chunks ahead, and after Close not at all.
func TestReadAheadClose(t *testing.T) {
	data := &endless{}
	r := newReadAhead(data)
	if _, err := io.ReadFull(r, make([]byte, readAheadBytes)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); data.reads.Load() < readAheadChunks; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d reads ahead, want %d", data.reads.Load(), readAheadChunks)
		}
	}
	r.Close()
	if got := data.reads.Load(); got > readAheadChunks {
		t.Errorf("%d reads, one chunk was taken and there are %d", got, readAheadChunks)
	}
}

// TestReadAheadMemory: streams that are read at the same time have memory of their own,
// whatever was closed before, and when.
func TestReadAheadMemory(t *testing.T) {
	filled := func(b byte) *bytes.Reader { return bytes.NewReader(bytes.Repeat([]byte{b}, 5*readAheadBytes)) }
	for _, read := range []int{0, 1, readAheadBytes, 3 * readAheadBytes, 5 * readAheadBytes} {
		r := newReadAhead(filled('x'))
		if _, err := io.ReadFull(r, make([]byte, read)); err != nil {
			t.Fatal(err)
		}
		r.Close()
		one, two := newReadAhead(filled('1')), newReadAhead(filled('2'))
		a, b := make([]byte, readAheadBytes), make([]byte, readAheadBytes)
		for range 5 {
			_, errA := io.ReadFull(one, a)
			_, errB := io.ReadFull(two, b)
			if err := errors.Join(errA, errB); err != nil {
				t.Fatal(err)
			}
			if n, m := bytes.Count(a, []byte{'1'}), bytes.Count(b, []byte{'2'}); n != len(a) || m != len(b) {
				t.Fatalf("after a stream closed at %d: %d and %d bytes of %d are their own", read, n, m, len(a))
			}
		}
		one.Close()
		two.Close()
	}
}

type endless struct{ reads atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.reads.Add(1)
	return len(p), nil
}

// BenchmarkReadAhead is a stream of 4 MiB, the state that proposals write.
func BenchmarkReadAhead(b *testing.B) {
	const size = 4 * readAheadBytes
	b.SetBytes(size)
	b.ReportAllocs()
	p := make([]byte, readAheadBytes)
	for b.Loop() {
		r := newReadAhead(io.LimitReader(&endless{}, size))
		for {
			if _, err := r.Read(p); err != nil {
				break
			}
		}
		r.Close()
	}
}
