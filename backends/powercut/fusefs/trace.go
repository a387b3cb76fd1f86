//go:build linux

package fusefs

import (
	"fmt"
	"io"
	"syscall"
)

// traceLength is how many operations before a cut are kept.
const traceLength = 256

// record is one operation that was done.
type record struct {
	n       int
	op      Op
	path    string
	note    string
	errno   syscall.Errno
	faulted bool
	cut     bool
}

func (r record) String() string {
	s := fmt.Sprintf("%6d %-9s %s", r.n, r.op, r.path)
	if r.note != "" {
		s += " " + r.note
	}
	if r.errno != 0 {
		s += ": " + r.errno.Error()
	}
	if r.faulted {
		s += " (fault)"
	}
	if r.cut {
		s += "  <- power cut inside"
	}
	return s
}

// trace keeps the last operations that changed the disk.
type trace struct {
	ring [traceLength]record
	n    int
}

func (t *trace) add(r record) {
	if r.op < OpWrite && !r.faulted {
		return
	}
	t.ring[t.n%traceLength] = r
	t.n++
}

// Trace writes the last operations, oldest first, a line each.
func (f *FS) Trace(w io.Writer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := max(0, f.trace.n-traceLength); i < f.trace.n; i++ {
		fmt.Fprintln(w, f.trace.ring[i%traceLength])
	}
}
