//go:build amd64 || arm64

package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

const (
	// ringBytes holds some 47,000 calls, which is a second at the highest rate
	// ever seen here. It counts as resident memory of the process, twice.
	ringBytes = 4 << 20
	// drainEvery is how often the ring is emptied. A buffer of a second leaves
	// room for pauses of the process.
	drainEvery = 20 * time.Millisecond
	// maxThreads may be inside a sync at the same time.
	maxThreads = 4096
	// maxFiles bounds the names in a report; the rest count as "…".
	maxFiles = 10_000
)

// Probe is a running probe. Its methods may be called from any goroutine.
type Probe struct {
	close  []func() error
	reader *ringbuf.Reader
	drops  *ebpf.Map
	stop   chan struct{}
	done   chan struct{}

	mu      sync.Mutex
	from    uint64 // calls that began earlier are not counted
	dropped int64  // up to from
	seen    *tally
	record  ringbuf.Record
	broken  error // reading has ended for good
	stopped bool

	once sync.Once
	last Report
}

// tally is what a report is made of.
type tally struct {
	calls, other map[string]int64
	nodes        map[int]*hdrhistogram.Histogram
	files        map[fileID]*File
	failed       int64
}

type fileID struct {
	node int
	name string
}

func newTally() *tally {
	return &tally{
		calls: map[string]int64{}, other: map[string]int64{},
		nodes: map[int]*hdrhistogram.Histogram{}, files: map[fileID]*File{},
	}
}

// Start loads the programs and begins to count. Errors wrap [ErrUnavailable] where
// the kernel or the rights of the process are the reason, and say which.
func Start(opts Options) (*Probe, error) {
	p := &Probe{stop: make(chan struct{}), done: make(chan struct{}), seen: newTally()}
	dirs, err := p.open(opts.Nodes)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("probe: %w", err), p.release())
	}
	if err := p.load(dirs, opts.PID); err != nil {
		return nil, errors.Join(unavailable(err), p.release())
	}
	p.from = now()
	go p.drainRegularly()
	return p, nil
}

// unavailable explains an error of the kernel.
func unavailable(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w: eBPF needs root, or the capabilities BPF and PERFMON: %w", ErrUnavailable, err)
	}
	return fmt.Errorf("%w: it needs Linux 5.17 with eBPF and BTF: %w", ErrUnavailable, err)
}

// open opens the nodes' directories, and keeps them open until the end, so that
// their inodes stay where they are.
func (p *Probe) open(nodes map[int]string) (map[int]*os.File, error) {
	dirs := map[int]*os.File{}
	for node, path := range nodes {
		dir, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		p.close = append(p.close, dir.Close)
		dirs[node] = dir
	}
	return dirs, nil
}

// load creates maps and programs, teaches the nodes, and attaches.
func (p *Probe) load(dirs map[int]*os.File, pid int) error {
	o, err := kernelOffsets()
	if err != nil {
		return err
	}
	m, err := p.newMaps(len(dirs))
	if err != nil {
		return err
	}
	if err := p.learn(m, o, dirs); err != nil {
		return err
	}
	tgid := uint32(pid)
	if tgid == 0 {
		if tgid, err = p.whoami(); err != nil {
			return err
		}
	}
	if p.reader, err = ringbuf.NewReader(m.events); err != nil {
		return fmt.Errorf("map the ring buffer: %w", err)
	}
	p.close = append(p.close, p.reader.Close)
	// Exits first: a call that entered before is not in flight, and is ignored.
	if err := p.attach("sys_exit", exitProgram(m, tgid)); err != nil {
		return err
	}
	return p.attach("sys_enter", enterProgram(m, o, tgid))
}

func (p *Probe) newMaps(nodes int) (kernelMaps, error) {
	var m kernelMaps
	for _, spec := range []struct {
		into **ebpf.Map
		ebpf.MapSpec
	}{
		{&m.nodes, ebpf.MapSpec{Name: "nodes", Type: ebpf.Hash, KeySize: 8, ValueSize: 4, MaxEntries: uint32(max(nodes, 1))}},
		{&m.inFlight, ebpf.MapSpec{Name: "in_flight", Type: ebpf.Hash, KeySize: 4, ValueSize: eventBytes, MaxEntries: maxThreads}},
		{&m.events, ebpf.MapSpec{Name: "events", Type: ebpf.RingBuf, MaxEntries: ringBytes}},
		{&m.dropped, ebpf.MapSpec{Name: "dropped", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}},
	} {
		created, err := ebpf.NewMap(&spec.MapSpec)
		if err != nil {
			return kernelMaps{}, fmt.Errorf("create map %s: %w", spec.Name, err)
		}
		p.close = append(p.close, created.Close)
		*spec.into = created
	}
	p.drops = m.dropped
	return m, nil
}

// learn stores the inodes of the nodes' directories.
func (p *Probe) learn(m kernelMaps, o offsets, dirs map[int]*os.File) error {
	program, err := p.newProgram(learnProgram(m, o))
	if err != nil {
		return err
	}
	for node, dir := range dirs {
		failed, err := program.Run(&ebpf.RunOptions{Context: [2]uint64{uint64(dir.Fd()), uint64(node)}})
		if err != nil {
			return fmt.Errorf("run program learn_node: %w", err)
		}
		if failed != 0 {
			return fmt.Errorf("program learn_node does not find the directory %s", dir.Name())
		}
	}
	return nil
}

func (p *Probe) newProgram(spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	program, err := ebpf.NewProgram(spec)
	if err != nil {
		return nil, fmt.Errorf("load program %s: %w", spec.Name, err)
	}
	p.close = append(p.close, program.Close)
	return program, nil
}

// whoami is this process's number in the initial PID namespace.
func (p *Probe) whoami() (uint32, error) {
	program, err := p.newProgram(whoamiProgram())
	if err != nil {
		return 0, err
	}
	tgid, err := program.Run(&ebpf.RunOptions{})
	if err != nil {
		return 0, fmt.Errorf("run program whoami: %w", err)
	}
	return tgid, nil
}

func (p *Probe) attach(tracepoint string, spec *ebpf.ProgramSpec) error {
	program, err := p.newProgram(spec)
	if err != nil {
		return err
	}
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: tracepoint, Program: program})
	if err != nil {
		return fmt.Errorf("attach to %s: %w", tracepoint, err)
	}
	p.close = append(p.close, l.Close)
	return nil
}

// now is the clock of the events, CLOCK_MONOTONIC.
func now() uint64 {
	const clockMonotonic = 1
	var ts syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		panic("probe: clock_gettime(CLOCK_MONOTONIC): " + errno.Error()) // it cannot fail
	}
	return uint64(ts.Nano())
}

// Reset begins a new report: calls that began before it are forgotten. It does
// nothing after Stop.
func (p *Probe) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	p.drain()
	p.from = now()
	p.dropped = p.countDropped()
	p.seen = newTally()
}

// Report is what was seen so far. The probe goes on. An error says that some of it
// is missing.
func (p *Probe) Report() (Report, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return p.last, p.broken
	}
	return p.report(), p.broken
}

// Stop ends the probe and gives the last report. Later calls give it again.
func (p *Probe) Stop() (Report, error) {
	p.once.Do(func() {
		close(p.stop)
		<-p.done
		p.mu.Lock()
		defer p.mu.Unlock()
		p.last = p.report()
		p.stopped = true
		p.broken = errors.Join(p.broken, p.release())
	})
	return p.last, p.broken
}

// release frees everything, the last first.
func (p *Probe) release() error {
	var errs []error
	for _, c := range slices.Backward(p.close) {
		errs = append(errs, c())
	}
	p.close = nil
	return errors.Join(errs...)
}

func (p *Probe) drainRegularly() {
	defer close(p.done)
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
			p.mu.Lock()
			p.drain()
			p.mu.Unlock()
		}
	}
}

// drain empties the ring. An error ends the reading for good.
func (p *Probe) drain() {
	if p.broken != nil {
		return
	}
	p.reader.SetDeadline(time.Unix(1, 0)) // do not wait
	for {
		err := p.reader.ReadInto(&p.record)
		switch {
		case err == nil:
			p.count(p.record.RawSample)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return
		default:
			p.broken = fmt.Errorf("read the ring buffer: %w", err)
			return
		}
	}
}

// count adds one event.
func (p *Probe) count(sample []byte) {
	if len(sample) < eventBytes {
		p.broken = fmt.Errorf("an event of %d bytes, want %d", len(sample), eventBytes)
		return
	}
	native := binary.NativeEndian
	if native.Uint64(sample[evStart:]) < p.from {
		return
	}
	t := p.seen
	name := callName(native.Uint32(sample[evCall:]))
	if int32(native.Uint32(sample[evReturn:])) < 0 {
		t.failed++
	}
	node := int(int32(native.Uint32(sample[evNode:])))
	if node == noNode {
		t.other[name]++
		return
	}
	t.calls[name]++
	h := t.nodes[node]
	if h == nil {
		h = newHistogram()
		t.nodes[node] = h
	}
	duration := int64(native.Uint64(sample[evDuration:]))
	_ = h.RecordValue(min(max(duration, 1), histogramMax)) // in range, so it cannot fail
	f := t.file(node, sample[evName:eventBytes])
	f.Calls++
	f.Total += time.Duration(duration)
}

// file is the entry of a file; name ends at a zero.
func (t *tally) file(node int, name []byte) *File {
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	if f := t.files[fileID{node, string(name)}]; f != nil {
		return f
	}
	id := fileID{node, string(name)}
	if len(t.files) >= maxFiles {
		id.name = "…"
		if f := t.files[id]; f != nil {
			return f
		}
	}
	f := &File{Node: node, Name: id.name}
	t.files[id] = f
	return f
}

func (p *Probe) countDropped() int64 {
	var n uint64
	if err := p.drops.Lookup(uint32(0), &n); err != nil {
		p.broken = fmt.Errorf("read the counter of dropped events: %w", err)
	}
	return int64(n)
}

// report copies what is counted.
func (p *Probe) report() Report {
	p.drain()
	t := p.seen
	r := Report{
		Calls: maps.Clone(t.calls), Other: maps.Clone(t.other), Failed: t.failed,
		Dropped: p.countDropped() - p.dropped,
		Nodes:   map[int]*hdrhistogram.Histogram{}, All: newHistogram(),
	}
	for node, h := range t.nodes {
		r.Nodes[node] = h.Clone()
		r.All.Merge(h)
	}
	for _, f := range t.files {
		r.Files = append(r.Files, *f)
	}
	slices.SortFunc(r.Files, func(a, b File) int {
		if a.Calls != b.Calls {
			return int(b.Calls - a.Calls)
		}
		if a.Node != b.Node {
			return a.Node - b.Node
		}
		return strings.Compare(a.Name, b.Name)
	})
	return r
}
