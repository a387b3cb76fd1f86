package powercut

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/raftbench/raftbench/backends/powercut/disk"
	"github.com/raftbench/raftbench/backends/powercut/fusefs"
)

// Available says why disks that die cannot be had here; nil if they can.
func Available() error {
	if err := fusefs.Available(); err != nil {
		return err
	}
	s, err := newStage("", Child{})
	if err != nil {
		return err
	}
	return s.close()
}

// stage is where disks are mounted and engines run: a mount namespace of its own,
// held by one thread. Mounts and children belong to it and cannot outlive this
// process, however it ends.
type stage struct {
	dir   string // mount point
	child Child
	calls chan func()
	spare *process // started ahead, waits for its order
}

func newStage(parent string, c Child) (*stage, error) {
	dir, err := os.MkdirTemp(parent, "raftbench-powercut-")
	if err != nil {
		return nil, fmt.Errorf("make a mount point: %w", err)
	}
	s := &stage{dir: dir, child: c, calls: make(chan func())}
	ready := make(chan error)
	go s.thread(ready)
	if err := <-ready; err != nil {
		os.Remove(dir)
		return nil, err
	}
	return s, nil
}

// thread runs every call in the namespace. It ends with the thread, because the
// goroutine never unlocks it.
func (s *stage) thread(ready chan<- error) {
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNS)
	if err == nil {
		err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	}
	if err != nil {
		ready <- fmt.Errorf("make a mount namespace: %w", err)
		return
	}
	ready <- nil
	for f := range s.calls {
		f()
	}
}

// do runs f on the thread.
func (s *stage) do(f func() error) error {
	done := make(chan error)
	s.calls <- func() { done <- f() }
	return <-done
}

func (s *stage) close() error {
	if s.spare != nil {
		s.spare.kill()
	}
	close(s.calls)
	if err := os.Remove(s.dir); err != nil {
		return fmt.Errorf("remove the mount point: %w", err)
	}
	return nil
}

func (s *stage) mount(d *disk.Disk, seed int64) (*fusefs.FS, error) {
	return fusefs.Mount(s.dir, fusefs.Options{Disk: d, Seed: seed, Attach: s.do})
}

// maxOutput is how much of what an engine prints is kept, in bytes: the head,
// where a panic names its reason.
const maxOutput = 16 << 10

// process is a child.
type process struct {
	cmd    *exec.Cmd
	orders io.WriteCloser
	acks   *os.File
	output bytes.Buffer // complete once exited is closed
	exited chan struct{}
	err    error // of Wait, once exited is closed
	once   sync.Once
}

// headWriter keeps the first bytes of what is written.
type headWriter struct{ b *bytes.Buffer }

func (w headWriter) Write(p []byte) (int, error) {
	w.b.Write(p[:min(len(p), max(0, maxOutput-w.b.Len()))])
	return len(p), nil
}

// start starts a child, which waits for its order. With it, what a process costs
// to start is paid while another one still works.
func (s *stage) start() (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	key := s.child.Key
	if key == "" {
		key = mainChild
	}
	p := &process{cmd: exec.Command(self, s.child.Args...), exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), childEnv+"="+key)
	p.cmd.Stdout, p.cmd.Stderr = headWriter{&p.output}, headWriter{&p.output}
	p.cmd.Stderr = p.cmd.Stdout
	// Ctrl-C is for this process: an engine that it ended would look as if it had ended itself.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if p.orders, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.acks = r
	p.cmd.ExtraFiles = []*os.File{w}
	err = s.do(p.cmd.Start)
	w.Close()
	if err != nil {
		r.Close()
		return nil, fmt.Errorf("start the process that runs the engine: %w", err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// next is a process with the order o, and another one is started ahead.
func (s *stage) next(o order) (*process, error) {
	p := s.spare
	s.spare = nil
	if p == nil {
		var err error
		if p, err = s.start(); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	if _, err := p.orders.Write(append(text, '\n')); err != nil {
		p.kill()
		return nil, fmt.Errorf("the process that should run the engine is gone (%w): %s", err, p.output.String())
	}
	if s.spare, err = s.start(); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// kill ends the process and waits until it has.
func (p *process) kill() {
	p.signal()
	<-p.exited
	p.once.Do(func() { p.acks.Close() })
}

// signal sends SIGKILL and does not wait: a process that hangs in the dead device
// ends when that is released.
func (p *process) signal() {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		panic(fmt.Sprintf("powercut: kill process %d: %v", p.cmd.Process.Pid, err))
	}
}
