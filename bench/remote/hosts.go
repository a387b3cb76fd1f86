package remote

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/bench/disk"
	"github.com/raftbench/raftbench/bench/result"
)

// Hosts makes runs whose nodes are on other machines, each with an [Agent]. They
// are the coordinator's from [Dial] to [Hosts.Close].
type Hosts struct{ links []*link }

// link is the session with one agent.
type link struct {
	addr string
	conn net.Conn
	*caller
	over context.Context // ends when the agent is lost
	lose context.CancelCauseFunc

	mu      sync.Mutex
	onEvent func(message)           // of the member
	ended   context.CancelCauseFunc // its end
}

// Dial opens a session with every agent; all of them or none.
func Dial(ctx context.Context, addrs []string, id *Identity, version string) (*Hosts, error) {
	config, err := id.TLS(RoleAgent)
	if err != nil {
		return nil, err
	}
	h := &Hosts{}
	for _, addr := range addrs {
		l, err := dial(ctx, addr, config, version)
		if err != nil {
			h.Close()
			return nil, fmt.Errorf("agent %s: %w", addr, err)
		}
		h.links = append(h.links, l)
	}
	return h, nil
}

func dial(ctx context.Context, addr string, config *tls.Config, version string) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, helloDeadline)
	defer cancel()
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	l := &link{addr: addr, conn: conn}
	l.over, l.lose = context.WithCancelCause(context.Background())
	line := &timedConn{conn, silence}
	l.caller = newCaller(line, line, l.event)
	go func() {
		<-l.gone
		l.lose(fmt.Errorf("the agent is lost: %w", l.err))
	}()
	if err := l.call(ctx, "hello", hello{protocol, version}, nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	go l.keepAlive()
	return l, nil
}

func (l *link) keepAlive() {
	for tick := time.NewTicker(pingEvery); ; {
		select {
		case <-tick.C:
			l.w.tell("ping", nil)
		case <-l.gone:
			tick.Stop()
			return
		}
	}
}

// event takes what the agent and its member tell.
func (l *link) event(m message) {
	l.mu.Lock()
	onEvent, ended := l.onEvent, l.ended
	l.mu.Unlock()
	switch {
	case m.Method == "ping" || onEvent == nil:
	case m.Method == "ended":
		var why string
		_ = json.Unmarshal(m.Body, &why) // then without a reason
		ended(errors.New(why))
	default:
		onEvent(m)
	}
}

// Close ends the sessions. The agents remove what they have of them.
func (h *Hosts) Close() {
	for _, l := range h.links {
		_ = l.conn.Close() // one that is broken is closed, too
		<-l.gone
	}
}

// RunOne is a bench.Spec's RunOne. Node 1 is on the first host, and so on.
func (h *Hosts) RunOne(ctx context.Context, one bench.One, progress func(bench.Progress)) (result.Run, error) {
	if one.Nodes > len(h.links) {
		return one.Header(), &bench.UsageError{Reason: fmt.Sprintf("%d nodes on %d hosts: want a host for each", one.Nodes, len(h.links))}
	}
	return coordinate(ctx, one, h, progress)
}

// launch implements launcher.
func (h *Hosts) launch(ctx context.Context, one bench.One, id uint64, onEvent func(message)) (*peer, error) {
	l := h.links[id-1]
	over, cancel := context.WithCancelCause(l.over)
	l.mu.Lock()
	l.onEvent, l.ended = onEvent, cancel
	l.mu.Unlock()
	p := &peer{id: id, where: fmt.Sprintf("node %d on %s", id, l.addr), caller: l.caller, ctx: over, fail: cancel}
	p.end = func() error {
		l.mu.Lock()
		l.onEvent = nil
		l.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), killAfter+callDeadline)
		defer cancel()
		err := l.call(ctx, "end", nil, nil)
		if l.over.Err() != nil {
			return nil // it cleans up by itself, and the loss was told
		}
		return err
	}
	var at started
	if err := p.call(ctx, callDeadline, "start", nil, &at); err != nil {
		return nil, errors.Join(err, p.end())
	}
	p.advertise = func(string) string { return reachable(l.addr, at.PeerListen) }
	return p, nil
}

// reachable is where other machines find a transport that listens on peerListen:
// on the agent's own name, unless it listens on an address of its own.
func reachable(agent, peerListen string) string {
	host, port, err := net.SplitHostPort(peerListen)
	agentHost, _, agentErr := net.SplitHostPort(agent)
	if err != nil || agentErr != nil {
		return peerListen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = agentHost
	}
	return net.JoinHostPort(host, port)
}

// Calibrate implements bench.HostSet, one host after the other: they may share a
// disk. A host that is lost has no figures; the run that lost it says so.
func (h *Hosts) Calibrate(ctx context.Context, opts disk.Options) ([][]result.Calibration, error) {
	all := make([][]result.Calibration, len(h.links))
	for i, l := range h.links {
		err := l.call(ctx, "calibrate", calibration{opts.At, opts.Block, opts.Seed, opts.Budget}, &all[i])
		if err != nil && !errors.Is(err, errGone) {
			return nil, fmt.Errorf("agent %s: %w", l.addr, err)
		}
	}
	return all, nil
}

// Describe implements bench.HostSet.
func (h *Hosts) Describe(ctx context.Context) ([]result.Host, error) {
	out := make([]result.Host, len(h.links))
	for i, l := range h.links {
		out[i].Addr = l.addr
		if err := l.call(ctx, "env", nil, &out[i].Env); err != nil {
			return nil, fmt.Errorf("agent %s: %w", l.addr, err)
		}
	}
	return out, nil
}
