package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/bench/result"
)

// killAfter is how long a member that was asked to end has before it is killed.
const killAfter = stopGrace + 5*time.Second

// child is a member process of this one.
type child struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.ReadCloser
	words  LastWords
	exited chan struct{} // closed after it was waited for
	status error         // set before

	relayed chan struct{} // an agent's: closed after its end was told
}

// startChild starts command as a member. Its output must be read to the end before
// it is waited for.
func startChild(command func() *exec.Cmd) (*child, error) {
	c := &child{cmd: command(), exited: make(chan struct{}), relayed: make(chan struct{})}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the parent, which ends its members
	c.cmd.Stderr = &c.words
	var err error
	if c.in, err = c.cmd.StdinPipe(); err == nil {
		if c.out, err = c.cmd.StdoutPipe(); err == nil {
			err = c.cmd.Start()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("start a member: %w", err)
	}
	return c, nil
}

// reap waits for the process, after its output has ended.
func (c *child) reap() {
	kill := time.AfterFunc(killAfter, func() { _ = c.cmd.Process.Kill() }) // it is gone, or goes now
	defer kill.Stop()
	c.status = c.cmd.Wait()
	close(c.exited)
}

// end closes the member's input, so that it stops, and returns when it has ended;
// one that does not is killed.
func (c *child) end() {
	_ = c.in.Close()
	select {
	case <-c.exited:
	case <-time.After(killAfter):
		_ = c.cmd.Process.Kill()
		<-c.exited
	}
}

// reason says how it ended, and its last words.
func (c *child) reason() error {
	status := "it exited"
	if c.status != nil {
		status = c.status.Error()
	}
	if words := c.words.String(); words != "" {
		return fmt.Errorf("the process ended (%s); its last words: %s", status, words)
	}
	return fmt.Errorf("the process ended (%s) without a word", status)
}

// LastWords keeps the end of what a process wrote to standard error. The zero value
// is ready, and safe for concurrent use.
type LastWords struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const lastWordsBytes = 8 << 10

// Write implements io.Writer; it does not fail.
func (l *LastWords) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p)
	if extra := l.buf.Len() - lastWordsBytes; extra > 0 {
		l.buf.Next(extra)
	}
	return len(p), nil
}

// String is the last 8 KiB, without space around them.
func (l *LastWords) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(l.buf.String())
}

// Processes makes runs whose nodes are processes of this machine.
type Processes struct {
	// Member prepares the command that calls [Serve] with its standard input and
	// output.
	Member func() *exec.Cmd
}

// RunOne is a bench.Spec's RunOne.
func (p Processes) RunOne(ctx context.Context, one bench.One, progress func(bench.Progress)) (result.Run, error) {
	return coordinate(ctx, one, p, progress)
}

// launch implements launcher.
func (p Processes) launch(ctx context.Context, one bench.One, id uint64, onEvent func(message)) (*peer, error) {
	c, err := startChild(p.Member)
	if err != nil {
		return nil, err
	}
	over, cancel := context.WithCancelCause(context.Background())
	peer := &peer{id: id, where: fmt.Sprintf("node %d", id), caller: newCaller(c.out, c.in, onEvent), ctx: over, fail: cancel,
		advertise: func(listening string) string { return listening }}
	go func() {
		<-peer.gone
		c.reap()
		cancel(c.reason())
	}()
	peer.end = func() error {
		c.end()
		return nil
	}
	if err := peer.call(ctx, callDeadline, "place", place{Dir: one.RunDir}, nil); err != nil {
		return nil, errors.Join(err, peer.end())
	}
	return peer, nil
}
