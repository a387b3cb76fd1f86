package kvlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/internal/snapfile"
)

var _ backends.SnapshotStreamer = (*Storage)(nil)

// StageSnap implements [backends.SnapshotStreamer]: chunks of a generation that no
// record names, or a file with a temporary name, which Open deletes. It holds no lock
// while it waits for data.
func (s *Storage) StageSnap(meta *raftpb.SnapshotMetadata, size int64, data io.Reader) (backends.StagedSnap, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if meta.GetIndex() == 0 || size < 0 {
		return nil, fmt.Errorf("%s: stage a snapshot at index %d with %d bytes", s.dir, meta.GetIndex(), size)
	}
	if s.cfg.SnapFiles {
		return s.stageFile(meta, size, data)
	}
	s.snapMu.Lock()
	r := s.newGeneration(meta, uint64(size))
	s.snapMu.Unlock()
	written, err := s.stageChunks(r, data)
	if err == nil {
		return &staged{s, r, nil}, nil
	}
	err = fmt.Errorf("%s: stage snapshot %d: %w", s.dir, meta.GetIndex(), err)
	if s.usable() == nil {
		r.bytes = written
		err = errors.Join(err, s.dropChunks(r))
	}
	return nil, err
}

// stageChunks writes the chunks of r, and returns how many bytes it wrote.
func (s *Storage) stageChunks(r snapRecord, data io.Reader) (written uint64, err error) {
	buf := make([]byte, min(uint64(s.cfg.ChunksPerBatch*s.cfg.ChunkBytes), max(r.bytes, 1)))
	w := chunkWriter{s: s, r: r}
	for first := uint32(0); written < r.bytes; first += uint32(s.cfg.ChunksPerBatch) {
		n, err := io.ReadFull(data, buf[:min(uint64(len(buf)), r.bytes-written)])
		if err != nil {
			return written, fmt.Errorf("after %d of %d bytes: %w", written+uint64(n), r.bytes, err)
		}
		if err := w.save(first, buf[:n]); err != nil {
			return written, err
		}
		written += uint64(n)
	}
	if n, err := io.ReadFull(data, buf[:1]); n > 0 || !errors.Is(err, io.EOF) {
		return written, fmt.Errorf("the data goes on after %d bytes: %w", r.bytes, err)
	}
	return written, nil
}

// staged implements [backends.StagedSnap].
type staged struct {
	s    *Storage
	r    snapRecord
	file *snapfile.Staged // nil where Data is in chunks
}

func (t *staged) Save() error {
	t.s.snapMu.Lock()
	defer t.s.snapMu.Unlock()
	if err := t.s.usable(); err != nil {
		return errors.Join(err, t.discardFile())
	}
	if t.r.metadata.GetIndex() < t.s.current.metadata.GetIndex() {
		return t.drop()
	}
	if t.file != nil {
		if err := t.file.Publish(); err != nil {
			return t.s.failFile(t.r.metadata, err)
		}
	}
	return t.s.makeCurrent(t.r)
}

func (t *staged) Discard() error {
	if err := t.s.usable(); err != nil {
		return errors.Join(err, t.discardFile())
	}
	return t.drop()
}

func (t *staged) drop() error {
	if t.file != nil {
		return t.discardFile()
	}
	return t.s.dropChunks(t.r)
}

func (t *staged) discardFile() error {
	if t.file == nil {
		return nil
	}
	return t.file.Discard()
}

// OpenSnap implements [backends.SnapshotStreamer]. Each Read looks its chunks up
// anew, because a long transaction would keep the engine from freeing anything.
func (s *Storage) OpenSnap(meta *raftpb.SnapshotMetadata) (io.ReadCloser, int64, error) {
	s.snapMu.Lock()
	defer s.snapMu.Unlock()
	if err := s.usable(); err != nil {
		return nil, 0, err
	}
	for _, r := range append([]snapRecord{s.current}, s.stale...) {
		if r.is(meta) && r.inFile {
			return s.openFile(r)
		}
		if r.is(meta) {
			s.pins.add(r.gen, 1)
			return &chunkReader{s: s, r: r}, int64(r.bytes), nil
		}
	}
	return nil, 0, fmt.Errorf("%s: there is no snapshot at index %d and term %d", s.dir, meta.GetIndex(), meta.GetTerm())
}

// pins counts the readers of each generation.
type pins struct {
	mu  sync.Mutex
	gen map[uint64]int
}

func (p *pins) add(gen uint64, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gen == nil {
		p.gen = map[uint64]int{}
	}
	if p.gen[gen] += n; p.gen[gen] == 0 {
		delete(p.gen, gen)
	}
}

func (p *pins) held(gen uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gen[gen] > 0
}

// chunkReader reads the Data of a snapshot whose generation is pinned.
type chunkReader struct {
	s    *Storage
	r    snapRecord
	next uint32 // chunk
	buf  []byte
	rest []byte // of buf
	once sync.Once
}

// readAhead is how much is looked up at a time, at least one chunk.
const readAhead = 1 << 20

func (c *chunkReader) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// fill reads the next chunks.
func (c *chunkReader) fill() error {
	if c.next == c.r.chunks() {
		return io.EOF
	}
	if err := c.s.usable(); err != nil {
		return err
	}
	last := min(c.next+max(readAhead/c.r.chunkBytes, 1), c.r.chunks())
	c.buf = c.buf[:0]
	err := c.s.e.Iterate(chunkKey(c.r.gen, c.next), chunkKey(c.r.gen, last), func(key, value []byte) error {
		want := chunkKey(c.r.gen, c.next)
		if !bytes.Equal(key, want) {
			return c.s.damage(want, errors.New("it is missing"))
		}
		_, _, data, err := decodeChunk(key, value)
		if err != nil {
			return c.s.damage(key, err)
		}
		c.buf = append(c.buf, data...)
		c.next++
		return nil
	})
	if err == nil && (c.next != last || len(c.buf) == 0) {
		err = c.s.damage(chunkKey(c.r.gen, c.next), errors.New("it is missing, or empty"))
	}
	if err != nil {
		return fmt.Errorf("%s: read snapshot %d: %w", c.s.dir, c.r.metadata.GetIndex(), err)
	}
	c.rest = c.buf
	return nil
}

// Close lets Release free the snapshot.
func (c *chunkReader) Close() error {
	c.once.Do(func() { c.s.pins.add(c.r.gen, -1) })
	return nil
}
