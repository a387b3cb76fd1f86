package powercut

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/raftbench/raftbench/backends"
)

// childEnv makes a process the one that runs the engine on the dying disk. Its
// value says who answers: [MaybeChild] (mainChild), or the test that set it.
const childEnv = "RAFTBENCH_POWERCUT_CHILD"

const mainChild = "main"

// diskChild before that value makes it a process that serves a [RemoteDisk].
const diskChild = "disk:"

// acksFd is the descriptor of the pipe on which a child reports.
const acksFd = 3

// order is what a child is to do; it comes on stdin when the disk is mounted.
type order struct {
	Backend string            `json:"backend"`
	Params  map[string]string `json:"params,omitempty"`
	Dir     string            `json:"dir"`
	Seed    int64             `json:"seed"`
	// Steps of the workload before Close.
	Steps int `json:"steps"`
	// Idle, if not empty, is the kind of step after which the workload stops and
	// waits for the cut, instead of Close: the first one from step Steps on.
	Idle string `json:"idle,omitempty"`
	// AfterError is how many Saves are tried after the first error, to see whether
	// the engine still acknowledges.
	AfterError int `json:"after_error,omitempty"`
}

// What a child reports, one frame each: kind, number, length, text.
const (
	frameOpened  = 'O' // text: report
	frameFailed  = 'F' // Open failed; text: the error
	frameBegin   = 'B' // number: of the step
	frameAck     = 'A'
	frameRelease = 'R' // the Release of a stepSnapshot is done
	frameError   = 'E' // number: of the step; text: the error
	frameAckLate = 'L' // a Save succeeded after the error
	frameRefused = 'N' // a Save failed after the error; text: the error
	frameDone    = 'D' // every step is done; Close follows
	frameIdle    = 'I' // every step is done; nothing follows
	frameClosed  = 'C' // text: the error, if any
)

type frame struct {
	kind byte
	n    int
	text string
}

// frameHead is kind, number and length of the text.
const frameHead = 1 + 8 + 4

// frameWriter writes frames, each with one write(2): what is in the pipe when the
// process is killed counts.
type frameWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (f *frameWriter) send(kind byte, n int, text string) {
	buf := make([]byte, 0, frameHead+len(text))
	buf = append(buf, kind)
	buf = binary.LittleEndian.AppendUint64(buf, uint64(n))
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(text)))
	buf = append(buf, text...)
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.w.Write(buf); err != nil {
		os.Exit(3) // the parent is gone
	}
}

// maxSteps bounds a life whose engine hardly touches the disk.
const maxSteps = 1500

// readFrames calls f with each whole frame until the pipe ends.
func readFrames(r io.Reader, f func(frame)) {
	br := bufio.NewReader(r)
	var head [frameHead]byte
	for {
		if _, err := io.ReadFull(br, head[:]); err != nil {
			return
		}
		text := make([]byte, binary.LittleEndian.Uint32(head[9:]))
		if _, err := io.ReadFull(br, text); err != nil {
			return
		}
		f(frame{head[0], int(binary.LittleEndian.Uint64(head[1:])), string(text)})
	}
}

// MaybeChild must be the first thing that main, or TestMain, of a program does
// that calls [Run] or [Faults] with the zero [Child]: those start the same
// program again, as the process that runs the engine and is killed. In that
// process MaybeChild does not return; in any other it does nothing. lookup finds
// a backend by its name.
func MaybeChild(lookup func(name string) (backends.Backend, error)) {
	become(mainChild, lookup)
}

// ChildOf is [MaybeChild] for a process that was started with [Child].Key: where
// this is the one, it runs b and does not return.
func ChildOf(key string, b backends.Backend) {
	become(key, func(string) (backends.Backend, error) { return b, nil })
}

// become does not return in a process that was started for it.
func become(key string, lookup func(name string) (backends.Backend, error)) {
	switch os.Getenv(childEnv) {
	case key:
		childMain(lookup)
	case diskChild + key:
		diskMain()
	}
}

// IsChild reports whether this process runs an engine for another one.
func IsChild() bool { return os.Getenv(childEnv) != "" }

func childMain(lookup func(name string) (backends.Backend, error)) {
	in := json.NewDecoder(os.Stdin)
	var o order
	if err := in.Decode(&o); err != nil {
		os.Exit(0) // a spare that was never needed
	}
	// Stdin ends when the parent does.
	go func() {
		io.Copy(io.Discard, io.MultiReader(in.Buffered(), os.Stdin))
		os.Exit(3)
	}()
	out := &frameWriter{w: os.NewFile(acksFd, "acknowledgements")}
	b, err := lookup(o.Backend)
	if err != nil {
		out.send(frameFailed, 0, err.Error())
		select {}
	}
	(&child{order: o, out: out}).live(b)
	select {} // until the parent has seen everything
}

// child is the life of one process.
type child struct {
	order
	out   *frameWriter
	store backends.Storage
	plan  *plan
	// background is the apply side: a snapshot and its release.
	background sync.WaitGroup
	mu         sync.Mutex
	failed     bool
}

func (c *child) live(b backends.Backend) {
	store, st, err := b.Open(backends.Options{Dir: c.Dir, Params: c.Params})
	if err != nil {
		c.out.send(frameFailed, 0, err.Error())
		return
	}
	c.store = store
	text, err := json.Marshal(reportOf(st))
	if err != nil {
		panic(err) // of a struct of numbers
	}
	c.out.send(frameOpened, 0, string(text))
	c.plan = planOf(c.Seed, st)
	for !c.hasFailed() && c.plan.n < maxSteps {
		s := c.plan.next()
		if c.Idle == "" && s.n > c.Steps {
			break
		}
		c.step(s)
		if c.Idle != "" && s.n >= c.Steps && s.is(c.Idle) {
			c.background.Wait()
			c.out.send(frameIdle, s.n, "")
			return
		}
	}
	c.background.Wait()
	if c.hasFailed() {
		c.tryOn()
	}
	c.out.send(frameDone, 0, "")
	text = nil
	if err := store.Close(); err != nil {
		text = []byte(err.Error())
	}
	c.out.send(frameClosed, 0, string(text))
}

func (c *child) hasFailed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

func (c *child) step(s step) {
	if s.kind != stepSave && s.kind != stepSync {
		c.background.Wait() // one snapshot at a time, as the apply side has it
	}
	c.out.send(frameBegin, s.n, "")
	if s.kind != stepSnapshot {
		c.done(s, c.call(s))
		return
	}
	c.background.Go(func() {
		err := c.saveSnap(s)
		c.done(s, err)
		if err != nil {
			return
		}
		if err := c.store.Release(s.snap); err != nil {
			c.done(s, fmt.Errorf("Release: %w", err))
			return
		}
		c.out.send(frameRelease, s.n, "")
	})
}

func (c *child) call(s step) error {
	switch s.kind {
	case stepSave:
		return c.store.Save(s.hs, s.ents)
	case stepSync:
		return c.store.Sync()
	case stepInstall:
		return c.saveSnap(s)
	case stepRelease:
		return c.store.Release(s.snap)
	}
	panic(fmt.Sprintf("powercut: step %d has kind %d", s.n, s.kind))
}

// saveSnap makes a snapshot durable, every second one as a stream where the
// storage takes one: what is promised is the same.
func (c *child) saveSnap(s step) error {
	streamer, ok := c.store.(backends.SnapshotStreamer)
	data := s.snap.GetData()
	if !ok || data == nil || s.snap.GetMetadata().GetIndex()%2 == 0 {
		return c.store.SaveSnap(s.snap)
	}
	// Without its WriteTo the reader is copied in chunks.
	staged, err := streamer.StageSnap(s.snap.GetMetadata(), int64(len(data)), struct{ io.Reader }{bytes.NewReader(data)})
	if err != nil {
		return err
	}
	return staged.Save()
}

func (c *child) done(s step, err error) {
	if err == nil {
		c.out.send(frameAck, s.n, "")
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed {
		c.out.send(frameRefused, s.n, err.Error())
		return
	}
	c.failed = true
	c.out.send(frameError, s.n, err.Error())
}

// tryOn saves after an error, a while apart so that what happens in the
// background happens.
func (c *child) tryOn() {
	for range c.AfterError {
		s := c.plan.next()
		for s.kind != stepSave || len(s.ents) == 0 {
			s = c.plan.next()
		}
		c.out.send(frameBegin, s.n, "")
		if err := c.store.Save(s.hs, s.ents); err != nil {
			c.out.send(frameRefused, s.n, err.Error())
		} else {
			c.out.send(frameAckLate, s.n, "")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
