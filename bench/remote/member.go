package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node"
)

// Network is a transport whose peers are told once they are known.
type Network interface {
	node.Network
	AddPeer(id uint64, addr string)
	Addr(id uint64) string // where a node listens
}

// Endpoint says where a node's transport listens, and who may talk to it.
type Endpoint struct {
	Listen  string // "": a free port of 127.0.0.1
	Cluster string // name of the run; others are refused
	Token   string // secret of the run
	// Identity, if set, is what both ends prove who they are with, by TLS.
	Identity *Identity
	Dir      string // for what the transport writes
}

// Program is what this build knows of, for the members that it becomes.
type Program struct {
	Backend func(label string) (backends.Backend, error)
	Network func(transport string, e Endpoint) (Network, error)
}

// place is where a member works. It comes from whoever started the member, and
// only from there.
type place struct {
	Dir      string
	Listen   string
	Identity *Identity
}

// opening is the request to start the node.
type opening struct {
	One     bench.One
	Backend string // label
	ID      uint64
	Cluster string
	Token   string
}

// verdict is the outcome of one node's verification.
type verdict struct {
	Verified result.Verified
	Restart  *result.Restart
}

// stopGrace is how long a member may take to stop its node after its input ended.
const stopGrace = 15 * time.Second

// member is this process as one node of a run.
type member struct {
	prog Program
	w    *writer

	mu    sync.Mutex
	place *place
	net   Network
	m     *bench.Member
}

// Serve makes this process a member: it obeys what comes through in until that
// ends, and then stops the node.
func Serve(ctx context.Context, in io.Reader, out io.Writer, prog Program) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &member{prog: prog, w: &writer{out: out}}
	var calls sync.WaitGroup
	err := s.obey(ctx, newReader(in), &calls)
	cancel()
	stopped := make(chan error, 1)
	go func() {
		calls.Wait()
		stopped <- s.stop()
	}()
	select {
	case stopErr := <-stopped:
		return errors.Join(err, stopErr)
	case <-time.After(stopGrace):
		return errors.Join(err, fmt.Errorf("the node did not stop within %v", stopGrace))
	}
}

// obey starts each request in a goroutine of its own: whoever needs an order waits
// for replies. The place comes first, and an agent does not wait.
func (s *member) obey(ctx context.Context, r *reader, calls *sync.WaitGroup) error {
	for {
		m, _, err := r.read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		if m.Method == "place" {
			s.reply(ctx, m)
			continue
		}
		calls.Go(func() { s.reply(ctx, m) })
	}
}

// reply carries out one request and answers it.
func (s *member) reply(ctx context.Context, m message) {
	reply := message{ID: m.ID}
	value, err := s.do(ctx, m.Method, m.Body)
	if err == nil {
		reply.Body, err = json.Marshal(value)
	}
	if err != nil {
		reply = fail(m.ID, err)
	}
	_ = s.w.write(reply) // a parent that is gone ends the input, too
}

// do carries out one request.
func (s *member) do(ctx context.Context, method string, body json.RawMessage) (any, error) {
	switch method {
	case "place":
		return nil, with(body, s.settle)
	case "open":
		return answer(body, s.open)
	}
	s.mu.Lock()
	m, net := s.m, s.net
	s.mu.Unlock()
	if m == nil {
		return nil, fmt.Errorf("%s: the node is not open", method)
	}
	switch method {
	case "peers":
		return nil, with(body, func(peers map[uint64]string) error {
			for id, addr := range peers {
				net.AddPeer(id, addr)
			}
			return nil
		})
	case "campaign":
		return nil, m.Campaign(ctx)
	case "status":
		return m.Status(), nil
	case "load":
		return m.Load(ctx, func(p bench.Progress) { s.w.tell("progress", p) },
			func(on bool) { s.w.tell("measuring", on) }, func(f bench.LinkFault) { s.w.tell("faulted", f) })
	case "fault":
		return nil, with(body, m.Fault)
	case "measure":
		return nil, with(body, func(on bool) error {
			m.Measure(on)
			return nil
		})
	case "part":
		return m.Part()
	case "outcome":
		return m.Outcome(), nil
	case "stop":
		return nil, m.Stop()
	case "journal":
		return answer(body, func(nth int) (bench.JournalPiece, error) { return m.Journal(nth), nil })
	case "add-journal":
		return nil, with(body, m.AddJournal)
	case "verify":
		v, restart, err := m.Verify()
		return verdict{v, restart}, err
	}
	return nil, fmt.Errorf("unknown request %q; the other side may be of another version", method)
}

// answer calls f with the decoded body.
func answer[A, R any](body json.RawMessage, f func(A) (R, error)) (any, error) {
	var args A
	if err := json.Unmarshal(body, &args); err != nil {
		return nil, fmt.Errorf("decode the request: %w", err)
	}
	return f(args)
}

// with is answer for what has none.
func with[A any](body json.RawMessage, f func(A) error) error {
	_, err := answer(body, func(args A) (any, error) { return nil, f(args) })
	return err
}

// settle takes the place, once.
func (s *member) settle(p place) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.place != nil {
		return errors.New("this member has its place")
	}
	if !filepath.IsAbs(p.Dir) {
		return fmt.Errorf("the member's directory %q is not an absolute path", p.Dir)
	}
	s.place = &p
	return nil
}

// open starts the node and returns where its transport listens.
func (s *member) open(o opening) (addr string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.place == nil || s.m != nil {
		return "", errors.New("open: this member has no place yet, or has its node")
	}
	if o.ID == 0 || o.ID > uint64(o.One.Nodes) {
		return "", fmt.Errorf("open: node %d of %d", o.ID, o.One.Nodes)
	}
	one := o.One
	if one.Backend, err = s.prog.Backend(o.Backend); err != nil {
		return "", err
	}
	dir := filepath.Join(s.place.Dir, fmt.Sprintf("node-%d", o.ID))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the node's directory: %w", err)
	}
	one.RunDir = s.place.Dir
	s.net, err = s.prog.Network(one.Transport, Endpoint{
		Listen: s.place.Listen, Cluster: o.Cluster, Token: o.Token, Identity: s.place.Identity, Dir: s.place.Dir,
	})
	if err != nil {
		return "", err
	}
	m, err := bench.StartMember(one, o.ID, dir, s.net)
	if err != nil {
		return "", err
	}
	s.m = m
	go func() {
		<-m.Failed() // never, if it does not; the process ends before
		s.w.tell("failed", m.Err().Error())
	}()
	return s.net.Addr(o.ID), nil
}

func (s *member) stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		return nil
	}
	return s.m.Stop()
}
