// Package probe measures the sync system calls of a process as the kernel sees
// them: from the entry of fsync, fdatasync, msync or sync_file_range to its
// return, in nanoseconds, each call attributed to the node whose file it was. A
// write to a file opened with O_DSYNC or O_SYNC is such a call too ("write+dsync"),
// with the copying in its duration.
//
// It needs no help of an engine, and so can tell what an engine believes from what
// happens: badger syncs with msync, which no file-system seam sees, and bbolt
// gives its file to nobody. What it cannot see are single writes with RWF_DSYNC,
// and what is submitted through io_uring.
//
// # How
//
// Two eBPF programs sit on the raw tracepoints sys_enter and sys_exit. They are
// assembled in Go (programs.go); neither a compiler nor kernel headers are needed.
//
// On entry the program walks from the file descriptor (or, for msync, from the
// address: bpf_find_vma) to the file's dentry, and up its parents until it meets
// the directory of a node. Directories are known by the address of their inode,
// which cannot change while the probe holds them open. So a file is attributed
// when it is synced, by where it is, and not by its name or inode number looked up
// later, when descriptor and inode may belong to another file. A call on any other
// file is counted as such, and never guessed. So is an msync that enters at the very
// moment in which another thread changes the address space: 4 of 5000 while three
// threads did nothing but map and unmap 64 MiB.
//
// On exit it sends the call, with its duration, through a ring buffer that the
// probe empties fifty times a second. The buffer does not wake anybody, so that
// measuring a sync does not cost a context switch. What did not fit is counted.
//
// docs/method.md states what it costs.
package probe

import (
	"errors"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// ErrUnavailable is wrapped by every error of [Start] that says that this kernel,
// or the rights of this process, do not allow a probe.
var ErrUnavailable = errors.New("the kernel's view of syncs is not available")

// Options of a probe.
type Options struct {
	// Nodes are the data directories by node. They exist, none lies within
	// another, and they are neither moved nor removed before Stop.
	Nodes map[int]string
	// PID is another process to observe, by its number in the initial PID
	// namespace; 0 is this process.
	PID int
}

// Report is what was seen between [Probe.Reset], or [Start], and the report.
// A call belongs to the time in which it began; one that has not returned yet is
// in no report.
type Report struct {
	// Calls counts by system call name ("write+dsync" for all kinds of write), and Other those on files of no node.
	Calls, Other map[string]int64
	// Nodes has a histogram of nanoseconds for each node, and All their sum.
	Nodes map[int]*hdrhistogram.Histogram
	All   *hdrhistogram.Histogram
	// Files are the synced files of the nodes, the most synced first.
	Files []File
	// Failed counts the calls, of any file, that returned an error.
	Failed int64
	// Dropped counts calls that the ring buffer had no room for. They are
	// missing everywhere else.
	Dropped int64
}

// File is one file name of a node. Files of the same name in different folders of
// a node count as one.
type File struct {
	Node  int
	Name  string // the last element of the path, of which the kernel keeps 47 bytes
	Calls int64
	Total time.Duration
}

// Unattributed is the number of calls on files of no node.
func (r *Report) Unattributed() int64 {
	var n int64
	for _, c := range r.Other {
		n += c
	}
	return n
}

// newHistogram spans a nanosecond to two minutes, in three digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, histogramMax, 3)
}

const histogramMax = int64(2 * time.Minute)
