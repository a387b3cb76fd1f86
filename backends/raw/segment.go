package raw

import (
	"errors"
	"fmt"
	"slices"
	"sync"
)

const (
	segmentSuffix = ".seg"   // a segment: begun, or prepared to be
	spareSuffix   = ".spare" // a released segment that waits to be recycled
)

func segmentName(number uint32) string { return fmt.Sprintf("%010d%s", number, segmentSuffix) }

func spareName(number uint32) string { return fmt.Sprintf("%010d%s", number, spareSuffix) }

// parseName is the inverse of segmentName and spareName.
func parseName(name, suffix string) (number uint32, ok bool) {
	if n, err := fmt.Sscanf(name, "%010d", &number); n != 1 || err != nil {
		return 0, false
	}
	return number, name == fmt.Sprintf("%010d%s", number, suffix)
}

// segment is one file of the log.
type segment struct {
	number uint32
	size   uint32 // of the file, as the header says it
	file   file   // nil once a later segment was begun: nothing is read or written then
	// last is the index of the last entry in it that no later record replaced;
	// 0 if there is none.
	last uint64
	// grown says that one large record made the file longer than the others.
	grown bool
}

// preparer makes segments ready ahead of need, so that Save finds one whose
// blocks are written and whose name is durable. One goroutine does the work, in
// the order of the segments' numbers.
type preparer struct {
	disk disk
	cfg  config
	// found is the highest number that has a file since before Open.
	found uint32
	ready chan *segment // bounded: at most one waits here and one in the goroutine
	err   error         // why the goroutine ended; read only after ready was closed
	stop  chan struct{}
	done  chan struct{}

	mu     sync.Mutex
	spares []string // names of files to recycle
}

var errStopped = errors.New("stopped")

// startPreparer prepares the segments from next on. found is the highest number
// that has a file already.
func startPreparer(d disk, cfg config, next, found uint32, spares []string) *preparer {
	p := &preparer{
		disk: d, cfg: cfg, found: found, spares: spares,
		ready: make(chan *segment, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go p.run(next)
	return p
}

func (p *preparer) run(next uint32) {
	defer close(p.done)
	defer close(p.ready)
	for n := next; ; n++ {
		seg, err := p.prepare(n)
		if err != nil {
			p.err = fmt.Errorf("prepare %s: %w", p.disk.path(segmentName(n)), err)
			return
		}
		select {
		case p.ready <- seg:
		case <-p.stop:
			p.err = errors.Join(errStopped, seg.file.close())
			return
		}
	}
}

// next returns the next segment; it waits only where Save is faster than the
// preparation. The caller owns its file.
func (p *preparer) next() (*segment, error) {
	seg, ok := <-p.ready
	if !ok {
		return nil, p.err
	}
	return seg, nil
}

// close ends the goroutine, and returns when it has ended.
func (p *preparer) close() error {
	close(p.stop)
	<-p.done
	if seg, ok := <-p.ready; ok {
		return seg.file.close()
	}
	return nil
}

// recycle takes over files that were released, and returns those beyond the
// number to keep, for the caller to remove.
func (p *preparer) recycle(names []string, keep int) (surplus []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spares = append(p.spares, names...)
	if len(p.spares) > keep {
		surplus = slices.Clone(p.spares[keep:])
		p.spares = p.spares[:keep]
	}
	return surplus
}

func (p *preparer) takeSpare() (name string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.spares) == 0 {
		return "", false
	}
	name, p.spares = p.spares[0], p.spares[1:]
	return name, true
}

// prepare returns segment n ready to be begun: its blocks as the parameters say,
// its header, its size and its name durable. The file may be new, released, or
// left half prepared by a crash; what it holds does not matter, since no record
// in it stands where it says it does.
func (p *preparer) prepare(n uint32) (_ *segment, err error) {
	name := segmentName(n)
	if n > p.found {
		if spare, ok := p.takeSpare(); ok {
			if err := p.disk.rename(spare, name); err != nil {
				return nil, err
			}
		}
	}
	f, err := p.disk.open(name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if err := p.shrink(f, n); err != nil {
		return nil, err
	}
	size, err := p.fill(f)
	if err != nil {
		return nil, err
	}
	// The header says how long the file is, so that must be true before.
	if err := f.sync(); err != nil {
		return nil, err
	}
	if err := p.writeHeader(f, n, size); err != nil {
		return nil, err
	}
	if err := p.disk.syncNames(); err != nil {
		return nil, fmt.Errorf("sync the directory: %w", err)
	}
	return &segment{number: n, size: uint32(size), file: f}, nil
}

// writeHeader makes the header of segment n durable, in a page of its own: it is not begun.
func (p *preparer) writeHeader(f file, n uint32, size int64) error {
	var b pages
	b.reserve(headerSize)
	b.b = appendHeader(b.b, header{number: n, size: uint32(size), measured: p.cfg.measured})
	return f.writeSync(b.whole(), 0)
}

// shrink cuts the file of segment n to the size of a segment, where it comes from a life
// with larger ones. A file that is shorter than its header says is damage; so the header
// says less before the file is cut, whatever ends the process in between.
func (p *preparer) shrink(f file, n uint32) error {
	want := p.cfg.segment
	size, err := f.size()
	if err != nil || size <= want {
		return err
	}
	if err := p.writeHeader(f, n, want); err != nil {
		return err
	}
	return f.truncate(want)
}

// fillChunk is how much is written and synced at a time: a Save that comes in
// between waits for one chunk on its way to the disk, not for a whole segment.
const fillChunk = 1 << 20

var zeros = alignedBytes(fillChunk)

// fill gives f its size and its blocks, and returns the size that it will never
// fall below once it is synced.
func (p *preparer) fill(f file) (size int64, err error) {
	size, err = f.size()
	if err != nil {
		return 0, err
	}
	want := p.cfg.segment
	switch {
	case size < want && p.cfg.prealloc == "none":
		return headerSize, nil
	case size < want && p.cfg.prealloc == "fallocate":
		if err := f.allocate(want); err != nil {
			return 0, err
		}
	}
	for off := size / pageBytes * pageBytes; off < want && p.cfg.prealloc == "zero"; off += fillChunk {
		select {
		case <-p.stop:
			return 0, errStopped
		default:
		}
		if err := f.writeSync(zeros[:min(fillChunk, want-off)], off); err != nil {
			return 0, err
		}
	}
	return want, nil
}
