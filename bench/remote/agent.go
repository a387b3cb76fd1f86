package remote

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"sync"
	"time"

	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/bench/disk"
	"github.com/raftbench/raftbench/bench/env"
	"github.com/raftbench/raftbench/bench/result"
)

const (
	// pingEvery is how often either side of a session says that it is there, and
	// silence after how long the other takes it for lost.
	pingEvery = 2 * time.Second
	silence   = 15 * time.Second
	// helloDeadline bounds the handshake and the first frame.
	helloDeadline = 10 * time.Second
	// maxStrangers bounds the connections that have not said hello yet; more are
	// closed at once.
	maxStrangers = 32
	// maxCalibration bounds what a coordinator may ask of the disk at a time.
	maxCalibration = 10 * time.Minute
)

// protocol is the version of the requests; both sides must have the same.
const protocol = 1

// hello opens a session.
type hello struct {
	Protocol int
	Version  string // of raftbench, for messages
}

// started says where the transport of a member that was started listens.
type started struct{ PeerListen string }

// calibration asks an agent for the device floor.
type calibration struct {
	At     string
	Block  int
	Seed   int64
	Budget time.Duration
}

// Agent lets a coordinator on another machine run one node here.
//
// It listens with TLS and talks to nobody who does not prove the role of a
// coordinator: no byte of a request is read before. It runs one bench at a time. It
// writes only below Dir, which must be new, empty, or an agent's of before, and
// removes what it wrote when a run ends or its coordinator is lost.
type Agent struct {
	Dir        string
	PeerListen string // host:port that the node's transport listens on
	Identity   *Identity
	Version    string
	Member     func() *exec.Cmd // prepares the command that calls [Serve]
	// Log hears of coordinators and members, if set.
	Log func(format string, args ...any)

	ws   *bench.Workspace
	mu   sync.Mutex
	busy string // address of the coordinator that is served; "" if there is none
	runs int
}

// Run serves on l until ctx ends, and returns when nothing of it is left. l is
// closed.
func (a *Agent) Run(ctx context.Context, l net.Listener) (err error) {
	defer func() { err = errors.Join(err, closed(l)) }()
	config, err := a.Identity.TLS(RoleCoordinator)
	if err != nil {
		return err
	}
	if err := bench.Reclaim(a.Dir); err != nil { // of an agent that was killed
		return err
	}
	if a.ws, err = bench.OpenWorkspace(a.Dir, 1, false); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.ws.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })() // its error is told at the end
	var sessions sync.WaitGroup
	defer sessions.Wait()
	defer cancel()
	strangers := make(chan struct{}, maxStrangers)
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept a coordinator: %w", err)
		}
		select {
		case strangers <- struct{}{}:
		default:
			_ = conn.Close() // it may try again
			continue
		}
		sessions.Go(func() {
			known := sync.OnceFunc(func() { <-strangers })
			defer known()
			a.receive(ctx, tls.Server(conn, config), known)
		})
	}
}

// closed closes a listener that may be closed already.
func closed(l net.Listener) error {
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func (a *Agent) log(format string, args ...any) {
	if a.Log != nil {
		a.Log(format, args...)
	}
}

// receive serves a connection. known is called once it has proved its role.
func (a *Agent) receive(ctx context.Context, conn *tls.Conn, known func()) {
	defer conn.Close() // who is gone need not be told
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	from := conn.RemoteAddr().String()
	first, cancel := context.WithTimeout(ctx, helloDeadline)
	defer cancel()
	if err := conn.HandshakeContext(first); err != nil {
		a.log("refused %s: %v", from, err)
		return
	}
	line := &timedConn{conn, helloDeadline}
	w, r := &writer{out: line}, newReader(line)
	m, _, err := r.read()
	if err != nil {
		a.log("refused %s: %v", from, err)
		return
	}
	if err := a.admit(from, m); err != nil {
		a.log("refused %s: %v", from, err)
		_ = w.write(fail(m.ID, err))
		return
	}
	known()
	a.log("coordinator %s begins", from)
	defer func() {
		a.mu.Lock()
		a.busy = ""
		a.mu.Unlock()
		a.log("coordinator %s has ended; everything of it is removed", from)
	}()
	line.patience = silence
	if w.write(message{ID: m.ID, Body: []byte("{}")}) != nil {
		return
	}
	(&session{a: a, w: w, ctx: ctx}).serve(r)
}

// admit takes a hello, where no other coordinator is served.
func (a *Agent) admit(from string, m message) error {
	var h hello
	if m.Method != "hello" || json.Unmarshal(m.Body, &h) != nil {
		return errors.New("a session begins with a hello")
	}
	if h.Protocol != protocol {
		return fmt.Errorf("the coordinator is raftbench %s with protocol %d, this agent is %s with %d; use one version", h.Version, h.Protocol, a.Version, protocol)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.busy != "" {
		return fmt.Errorf("the agent is busy with the bench of %s; one at a time", a.busy)
	}
	a.busy = from
	return nil
}

// timedConn gives up on a peer that is silent, or does not read.
type timedConn struct {
	net.Conn
	patience time.Duration
}

func (c *timedConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *timedConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(silence)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// session is one coordinator's, from its hello until it ends or is lost.
type session struct {
	a   *Agent
	w   *writer
	ctx context.Context

	mu    sync.Mutex
	child *child // nil: none
	dir   string // of its run
}

// serve reads requests until the coordinator is gone, and then cleans up.
func (s *session) serve(r *reader) {
	ctx, cancel := context.WithCancel(s.ctx)
	var calls sync.WaitGroup
	calls.Go(func() {
		for tick := time.NewTicker(pingEvery); ; {
			select {
			case <-tick.C:
				s.w.tell("ping", nil)
			case <-ctx.Done():
				tick.Stop()
				return
			}
		}
	})
	for {
		m, frame, err := r.read()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.a.log("the coordinator is lost: %v", err)
			}
			break
		}
		switch m.Method {
		case "ping":
		case "start", "end": // in order with what goes to the member
			s.reply(m, func() (any, error) { return s.own(ctx, m) })
		case "env", "calibrate":
			calls.Go(func() { s.reply(m, func() (any, error) { return s.own(ctx, m) }) })
		default:
			s.forward(m, frame)
		}
	}
	cancel()
	calls.Wait()
	if err := s.endMember(); err != nil {
		s.a.log("clean up: %v", err)
	}
}

func (s *session) reply(m message, f func() (any, error)) {
	reply := message{ID: m.ID}
	value, err := f()
	if err == nil {
		reply.Body, err = json.Marshal(value)
	}
	if err != nil {
		reply = fail(m.ID, err)
	}
	_ = s.w.write(reply) // one who is gone is noticed by the reader
}

// own carries out what is asked of the agent itself.
func (s *session) own(ctx context.Context, m message) (any, error) {
	switch m.Method {
	case "start":
		return s.start()
	case "end":
		return nil, s.endMember()
	case "env":
		return env.Collect(s.a.ws.Path()), nil
	}
	return answer(m.Body, func(c calibration) ([]result.Calibration, error) {
		if c.Budget <= 0 || c.Budget > maxCalibration {
			return nil, fmt.Errorf("calibrate for %v: want up to %v", c.Budget, maxCalibration)
		}
		return disk.Calibrate(ctx, s.a.ws.Path(), disk.Options{At: c.At, Block: c.Block, Seed: c.Seed, Budget: c.Budget})
	})
}

// start starts a member in a new directory.
func (s *session) start() (out started, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child != nil {
		return out, errors.New("this agent has a node; it can have one")
	}
	s.a.mu.Lock()
	s.a.runs++
	name := fmt.Sprintf("run-%d", s.a.runs)
	s.a.mu.Unlock()
	dir, err := s.a.ws.Make(name)
	if err != nil {
		return out, err
	}
	c, err := startChild(s.a.Member)
	if err != nil {
		return out, errors.Join(err, s.a.ws.Discard(dir))
	}
	s.child, s.dir = c, dir
	go s.relay(c)
	body, err := json.Marshal(place{Dir: dir, Listen: s.a.PeerListen, Identity: s.a.Identity})
	if err == nil {
		err = (&writer{out: c.in}).write(message{ID: placeID, Method: "place", Body: body})
	}
	return started{PeerListen: s.a.PeerListen}, err
}

// placeID is the number of the agent's own request to a member, which no
// coordinator comes to.
const placeID = 1 << 63

// relay passes on what a member says, and that it has ended.
func (s *session) relay(c *child) {
	r := newReader(c.out)
	for {
		m, frame, err := r.read()
		if err != nil {
			break
		}
		switch {
		case m.ID != placeID:
			_ = s.w.raw(frame) // one who is gone is noticed by the reader
		case m.Error != "":
			s.w.tell("failed", m.Error)
		}
	}
	c.reap()
	s.w.tell("ended", c.reason().Error())
	close(c.relayed)
}

// forward passes a request on to the member.
func (s *session) forward(m message, frame []byte) {
	s.mu.Lock()
	c := s.child
	s.mu.Unlock()
	var err error
	switch {
	case m.Method == "place":
		err = errors.New("the place of a member is its agent's matter")
	case c == nil:
		err = fmt.Errorf("%s: there is no node", m.Method)
	default:
		err = (&writer{out: c.in}).raw(frame)
	}
	if err != nil {
		_ = s.w.write(fail(m.ID, err))
	}
}

// endMember ends the member and removes its directory.
func (s *session) endMember() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == nil {
		return nil
	}
	s.child.end()
	<-s.child.relayed // so that its end is told before the next one's beginning
	err := s.a.ws.Discard(s.dir)
	s.child = nil
	return err
}
