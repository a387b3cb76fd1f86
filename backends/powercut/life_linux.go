package powercut

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/raftbench/raftbench/backends/powercut/disk"
	"github.com/raftbench/raftbench/backends/powercut/fusefs"
)

// script is what happens in one life.
type script struct {
	order
	trigger  fusefs.Trigger
	patience time.Duration
	// inject, if not nil, is called with the mounted disk when as many steps have
	// been acknowledged as injectAt says; 0 is before the process starts.
	inject   func(*fusefs.FS)
	injectAt int
	// lose: nothing that was not durable survives the end.
	lose bool
}

// life is one process on the disk, from the mount to the cut.
type life struct {
	script
	model *model
	fs    *fusefs.FS
	found *disk.Disk // a copy of the disk as the engine found it, where it is kept
	left  *disk.Disk // what the cut left

	// What the process said; complete once the process is gone.
	opened    bool
	openErr   string
	report    report // what Open returned
	verdict   *verdict
	plan      *plan
	steps     map[int]step // begun, not acknowledged
	acks      int
	acked     int64    // entries acknowledged
	lateAcks  int      // Saves acknowledged after an error
	calls     []string // the last ones
	engineErr string   // of a call
	crashed   bool
	hung      bool
	closed    bool
	attention chan struct{} // closed when there is nothing to wait for
	once      sync.Once
}

// live runs one life on d.
func (s *stage) live(ctx context.Context, d *disk.Disk, m *model, sc script, keep bool) (*life, error) {
	l := &life{script: sc, model: m, steps: map[int]step{}, attention: make(chan struct{})}
	if keep {
		l.found = d.Lose() // everything on it is durable: a copy
	}
	fs, err := s.mount(d, sc.Seed)
	if err != nil {
		return nil, err
	}
	l.fs = fs
	fs.Arm(sc.trigger)
	if sc.inject != nil && sc.injectAt == 0 {
		sc.inject(fs)
	}
	sc.Dir = filepath.Join(s.dir, nodeDir)
	p, err := s.next(sc.order)
	if err != nil {
		fs.Lose()
		_, unmountErr := fs.Unmount()
		return nil, errors.Join(err, unmountErr)
	}
	err = l.wait(ctx, p)
	if sc.lose {
		l.left = fs.Lose()
	} else {
		l.left = fs.Cut(sc.Seed)
	}
	if _, unmountErr := fs.Unmount(); unmountErr != nil || err != nil {
		return nil, errors.Join(err, unmountErr)
	}
	return l, nil
}

// wait follows the process until the disk dies or there is nothing to wait for,
// and kills it.
func (l *life) wait(ctx context.Context, p *process) error {
	read := make(chan struct{})
	go func() {
		readFrames(p.acks, l.handle)
		close(read)
	}()
	timer := time.NewTimer(l.patience)
	defer timer.Stop()
	var err error
	select {
	case <-l.fs.Died():
	case <-l.attention:
	case <-p.exited:
		l.crashed = true
	case <-timer.C:
		l.hung = true
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	// The disk dies first and answers nothing until the process is killed: no
	// acknowledgement is made of an answer that a power cut would not have given.
	l.fs.Kill()
	p.signal()
	l.fs.Release()
	<-read
	p.kill()
	l.crashed = l.crashed && !l.closed
	switch {
	case l.crashed:
		l.blame(fmt.Sprintf("the process ended by itself (%v): %s", p.err, firstLines(p.output.String(), 3)))
	case l.hung:
		l.blame(fmt.Sprintf("nothing happened for %v", l.patience))
	}
	return err
}

// blame notes an error that the engine, or its end, made known.
func (l *life) blame(text string) {
	if !l.opened {
		l.openErr = text
	} else if l.engineErr == "" {
		l.engineErr = text
	}
}

func firstLines(s string, n int) string {
	lines := strings.SplitN(strings.TrimSpace(s), "\n", n+1)
	return strings.Join(lines[:min(n, len(lines))], " | ")
}

// stop ends the life: there is nothing to wait for.
func (l *life) stop() { l.once.Do(func() { close(l.attention) }) }

// handle takes one frame; all of them come from one goroutine.
func (l *life) handle(f frame) {
	switch f.kind {
	case frameFailed:
		l.openErr = f.text
		l.stop()
	case frameOpened:
		l.handleOpened(f)
	case frameBegin:
		s := l.plan.next()
		for s.n < f.n {
			s = l.plan.next()
		}
		l.steps[f.n] = s
		l.model.begin(s)
		l.note("begin", s)
	case frameAck:
		l.handleAck(f)
	case frameAckLate:
		l.lateAcks++
		l.note("ack after an error", l.steps[f.n])
	case frameError:
		s := l.steps[f.n]
		l.note("error", s)
		l.blame(fmt.Sprintf("%s: %s", stepNames[s.kind], f.text))
		if l.AfterError == 0 {
			l.stop()
		}
	case frameRefused:
		l.note("error", l.steps[f.n])
	case frameIdle:
		l.stop()
	case frameClosed:
		l.closed = true
		if f.text != "" {
			l.blame("Close: " + f.text)
		}
		l.stop()
	}
}

func (l *life) handleAck(f frame) {
	s := l.steps[f.n]
	delete(l.steps, f.n)
	l.acked += int64(l.model.ack(s))
	l.acks++
	l.note("ack  ", s)
	if l.inject != nil && l.acks == l.injectAt {
		l.inject(l.fs)
	}
}

func (l *life) handleOpened(f frame) {
	if err := json.Unmarshal([]byte(f.text), &l.report); err != nil {
		panic(fmt.Sprintf("powercut: a child reports %q: %v", f.text, err))
	}
	l.opened = true
	l.plan = l.report.plan(l.Seed)
	l.verdict = l.model.check(l.report)
	if !l.verdict.ok() {
		l.stop()
	}
}

// problems lists what is wrong with this life.
func (l *life) problems() []string {
	var ps []string
	if l.openErr != "" {
		ps = append(ps, "Open failed: "+l.openErr)
	}
	if l.verdict != nil {
		ps = append(ps, l.verdict.problems...)
	}
	if l.engineErr != "" {
		ps = append(ps, "on a healthy disk: "+l.engineErr)
	}
	return ps
}

// maxCalls is how many calls of the storage a trace shows.
const maxCalls = 24

func (l *life) note(what string, s step) {
	if len(l.calls) >= maxCalls {
		l.calls = l.calls[1:]
	}
	l.calls = append(l.calls, what+" "+s.String())
}

func (l *life) writeCalls(w io.Writer) {
	for _, c := range l.calls {
		fmt.Fprintln(w, "   ", c)
	}
}
