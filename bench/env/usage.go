package env

import (
	"errors"
	"fmt"
	"strings"
)

// ErrUnsupported is returned where the system does not publish a figure.
var ErrUnsupported = errors.New("not published by this system")

// IO is what a process has read and written since it began, by proc_pid_io(5).
type IO struct {
	ReadChars, WriteChars int64 // through system calls, page cache included; mmap is not
	ReadCalls, WriteCalls int64
	ReadBytes, WriteBytes int64 // from and to the storage layer; mmap included
	CancelledBytes        int64 // dirtied, and gone before they were written
}

// ProcIO reads the counters of this process. WriteBytes counts a page when it
// becomes dirty, once until it is written back: writing a page ten times between
// two syncs counts once. Where the file system has large folios (ext4 since Linux
// 6.16, XFS) it counts the whole folio, up to 2 MiB, however little of it is written
// to the device: see [DeviceWritten].
func ProcIO() (IO, error) { return machine.procIO() }

func (t tree) procIO() (IO, error) {
	text := t.read("proc/self/io")
	if text == "" {
		return IO{}, fmt.Errorf("read /proc/self/io: %w", ErrUnsupported)
	}
	var io IO
	into := map[string]*int64{
		"rchar": &io.ReadChars, "wchar": &io.WriteChars, "syscr": &io.ReadCalls, "syscw": &io.WriteCalls,
		"read_bytes": &io.ReadBytes, "write_bytes": &io.WriteBytes, "cancelled_write_bytes": &io.CancelledBytes,
	}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if at := into[name]; at != nil {
			*at = number(value)
		}
	}
	return io, nil
}

// Sub is what was read and written between before and io.
func (io IO) Sub(before IO) IO {
	return IO{
		ReadChars: io.ReadChars - before.ReadChars, WriteChars: io.WriteChars - before.WriteChars,
		ReadCalls: io.ReadCalls - before.ReadCalls, WriteCalls: io.WriteCalls - before.WriteCalls,
		ReadBytes: io.ReadBytes - before.ReadBytes, WriteBytes: io.WriteBytes - before.WriteBytes,
		CancelledBytes: io.CancelledBytes - before.CancelledBytes,
	}
}

// sectorBytes is the unit of the block layer's counters, whatever the device has.
const sectorBytes = 512

// DeviceWritten is how many bytes were written to the block device under dir since it
// was there, by whomever, the journal of the file system included.
func DeviceWritten(dir string) (int64, error) { return machine.deviceWritten(dir) }

func (t tree) deviceWritten(dir string) (int64, error) {
	at, err := nearest(dir)
	if err != nil {
		return 0, fmt.Errorf("find the device of %s: %w", dir, err)
	}
	m, ok := findMount(t.read("proc/self/mountinfo"), at)
	if !ok || m.block() == "" {
		return 0, fmt.Errorf("find the device of %s: %w", dir, ErrUnsupported)
	}
	// Documentation/block/stat.rst: the seventh field is "write sectors".
	fields := strings.Fields(t.read("sys/dev/block", m.block(), "stat"))
	if len(fields) < 7 {
		return 0, fmt.Errorf("read /sys/dev/block/%s/stat: %w", m.block(), ErrUnsupported)
	}
	return sectorBytes * number(fields[6]), nil
}

// Memory is resident memory in bytes.
type Memory struct{ Now, Peak int64 }

// RSS reads the resident memory of this process, now and at its highest since the
// process began or [ResetPeakRSS].
func RSS() (Memory, error) { return machine.rss() }

func (t tree) rss() (Memory, error) {
	var m Memory
	for line := range strings.Lines(t.read("proc/self/status")) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] { // in kB, which are 1024 bytes
		case "VmRSS:":
			m.Now = number(fields[1]) << 10
		case "VmHWM:":
			m.Peak = number(fields[1]) << 10
		}
	}
	if m.Now == 0 {
		return Memory{}, fmt.Errorf("read /proc/self/status: %w", ErrUnsupported)
	}
	return m, nil
}
