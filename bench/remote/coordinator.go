package remote

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node"
)

// launcher starts members.
type launcher interface {
	// launch starts member id of a run. onEvent hears what the member tells, in
	// order, and must not block.
	launch(ctx context.Context, one bench.One, id uint64, onEvent func(message)) (*peer, error)
}

const (
	// pollEvery is how often the coordinator asks for a condition that nobody
	// measures.
	pollEvery = 5 * time.Millisecond
	// Bounds of requests: of one that takes no time by itself, of one that closes
	// storage, and of one that opens and reads all of it.
	callDeadline   = 30 * time.Second
	stopDeadline   = 2 * time.Minute
	verifyDeadline = 20 * time.Minute
)

// maxTold is how much may wait to be passed on to a member: the timelines of faults
// are shorter.
const maxTold = 1000

// loadDeadline bounds the load: the warm-up may be made twice, and what is under
// way at the end times out.
func loadDeadline(one bench.One) time.Duration {
	if one.Ops > 0 {
		return 24 * time.Hour
	}
	return 2*one.Warmup + one.Duration + 2*one.Timeout + time.Minute
}

// coordinator drives the members through one run.
type coordinator struct {
	one      bench.One
	progress func(bench.Progress)
	peers    []*peer
	leader   *peer // carries the load; nil before there is one

	mu     sync.Mutex // of what follows, and of changes to peers
	loaded time.Time  // when the load was asked for: 0 on the run's time axis
	ending bool
	noted  map[uint64]bool
	events []result.Event // of members that ended before they were told to
}

// coordinate makes one run. It returns the run also with an error, as far as it got.
func coordinate(ctx context.Context, one bench.One, l launcher, progress func(bench.Progress)) (result.Run, error) {
	c := &coordinator{one: one, noted: map[uint64]bool{}, progress: func(p bench.Progress) {
		p.Backend = one.Backend.Label()
		progress(p)
	}}
	run := one.Header()
	err := c.start(ctx, l)
	if err == nil {
		err = c.makeRun(ctx, &run)
	}
	err = errors.Join(err, c.end())
	if len(c.events) > 0 {
		run.Events = append(run.Events, c.events...)
		run.Flags = append(run.Flags, "node_died")
	}
	if err != nil {
		run.Error = err.Error()
		return run, fmt.Errorf("run %s: %w", one.ID(), err)
	}
	return run, nil
}

// start starts every member and its node, and tells each where the others are.
func (c *coordinator) start(ctx context.Context, l launcher) error {
	c.progress(bench.Progress{Phase: "start"})
	for id := uint64(1); id <= uint64(c.one.Nodes); id++ {
		p, err := l.launch(ctx, c.one, id, func(m message) { c.event(id, m) })
		if err != nil {
			return fmt.Errorf("start node %d: %w", id, err)
		}
		p.told = make(chan request, maxTold)
		c.mu.Lock()
		c.peers = append(c.peers, p)
		c.mu.Unlock()
		go c.watch(p)
	}
	o := opening{One: c.one, Backend: c.one.Backend.Label(), Cluster: rand.Text(), Token: rand.Text()}
	addrs := map[uint64]string{}
	for _, p := range c.peers {
		o.ID = p.id
		var listening string
		if err := p.call(ctx, stopDeadline, "open", o, &listening); err != nil {
			return err
		}
		addrs[p.id] = p.advertise(listening)
	}
	return c.each(ctx, c.peers, func(ctx context.Context, p *peer) error {
		others := map[uint64]string{}
		for id, addr := range addrs {
			if id != p.id {
				others[id] = addr
			}
		}
		return p.call(ctx, callDeadline, "peers", others, nil)
	})
}

// watch notes a member that ends before it is told to.
func (c *coordinator) watch(p *peer) {
	<-p.ctx.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.note(p)
}

// note notes the end of a member, once; c.mu is held.
func (c *coordinator) note(p *peer) {
	if c.ending || c.noted[p.id] {
		return
	}
	c.noted[p.id] = true
	e := result.Event{Node: int(p.id), Kind: "fault", Text: fmt.Sprintf("%s: %v", p.where, context.Cause(p.ctx))}
	if !c.loaded.IsZero() {
		e.T = time.Since(c.loaded)
	}
	c.events = append(c.events, e)
}

// event takes what a member tells.
func (c *coordinator) event(id uint64, m message) {
	switch m.Method {
	case "progress":
		var p bench.Progress
		if json.Unmarshal(m.Body, &p) == nil {
			c.progress(p)
		}
	case "measuring":
		pass[bool](c, id, "measure", m.Body)
	case "faulted":
		pass[bench.LinkFault](c, id, "fault", m.Body)
	case "failed":
		var why string
		_ = json.Unmarshal(m.Body, &why) // then without a reason
		for _, p := range c.all() {
			if p.id == id {
				p.fail(fmt.Errorf("its node stopped: %s", why))
			}
		}
	}
}

// pass has all but one member told what that one tells.
func pass[T any](c *coordinator, from uint64, method string, body json.RawMessage) {
	var what T
	if json.Unmarshal(body, &what) != nil {
		return
	}
	for _, p := range c.all() {
		if p.id == from {
			continue
		}
		select {
		case p.told <- request{method, what}:
		default:
			p.fail(fmt.Errorf("%s: it was told more than it could be passed on", method))
		}
	}
}

// all are the members that were started, dead ones too.
func (c *coordinator) all() []*peer {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.peers)
}

// makeRun takes the members through the phases of a run.
func (c *coordinator) makeRun(ctx context.Context, run *result.Run) error {
	if err := c.elect(ctx); err != nil {
		return err
	}
	if err := c.load(ctx, run); err != nil {
		return err
	}
	behind, err := c.drain(ctx)
	if err != nil {
		return err
	}
	if behind {
		run.Flags = append(run.Flags, "follower_behind")
	}
	if err := c.conclude(ctx, run); err != nil {
		return err
	}
	c.progress(bench.Progress{Phase: "verify"})
	if err := c.spread(ctx); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	return c.verify(ctx, run)
}

// elect waits for a leader that has applied its own first entry. Node 1 stands for
// election as soon as it may, to save the time-out.
func (c *coordinator) elect(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bench.ElectionDeadline,
		fmt.Errorf("no leader among %d nodes within %v; can they reach each other?", c.one.Nodes, bench.ElectionDeadline))
	defer cancel()
	if err := c.peers[0].call(ctx, callDeadline, "campaign", nil, nil); err != nil {
		return err
	}
	return c.poll(ctx, func() (bool, error) {
		for _, p := range c.peers {
			st, err := c.status(ctx, p)
			if err != nil {
				return false, err
			}
			if st.IsLeader && st.Applied > uint64(c.one.Nodes) {
				c.leader = p
				return true, nil
			}
		}
		return false, nil
	})
}

func (c *coordinator) status(ctx context.Context, p *peer) (st node.Status, err error) {
	err = p.call(ctx, callDeadline, "status", nil, &st)
	return st, err
}

// poll asks until done, an error, or the end of ctx.
func (c *coordinator) poll(ctx context.Context, done func() (bool, error)) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// load has the leader's process make the load, while the others count.
func (c *coordinator) load(ctx context.Context, run *result.Run) error {
	var counting sync.WaitGroup
	over := make(chan struct{})
	for _, p := range c.followers() {
		counting.Go(func() { relay(ctx, p, over) })
	}
	c.mu.Lock()
	c.loaded = time.Now()
	c.mu.Unlock()
	started := run.Started // by the clock of this machine
	err := c.leader.call(ctx, loadDeadline(c.one), "load", nil, run)
	run.Started, run.Leader = started, int(c.leader.id)
	close(over)
	counting.Wait()
	if err != nil && c.leader.lost() {
		err = fmt.Errorf("the leader, which carried the load, is gone: %w", err)
	}
	return err
}

// relay passes on what the leader's process tells, in order, until the load is over
// and nothing of it is left.
func relay(ctx context.Context, p *peer, over <-chan struct{}) {
	for {
		var r request
		select {
		case r = <-p.told:
		case <-over:
			select {
			case r = <-p.told:
			default:
				return
			}
		}
		if err := p.call(ctx, callDeadline, r.method, r.args, nil); err != nil {
			p.fail(err) // it would count, or be reached, otherwise than the others
			return
		}
	}
}

// followers are the members beside the leader that are there.
func (c *coordinator) followers() []*peer {
	var out []*peer
	for _, p := range c.peers {
		if p != c.leader && !p.lost() {
			out = append(out, p)
		}
	}
	return out
}

// drain waits until every follower has applied what the leader has.
func (c *coordinator) drain(ctx context.Context) (behind bool, err error) {
	deadline := time.Now().Add(bench.DrainDeadline)
	err = c.poll(ctx, func() (bool, error) {
		st, err := c.status(ctx, c.leader)
		if err != nil {
			return false, err
		}
		behind = false
		for _, p := range c.followers() {
			theirs, err := c.status(ctx, p)
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			// One that ended will not catch up, and was noted.
			behind = behind || !p.lost() && (err != nil || theirs.Applied < st.Applied)
		}
		return !behind || time.Now().After(deadline), nil
	})
	return behind, err
}

// conclude collects what each process counted, and stops the nodes. Costs of which
// a part is missing are left out.
func (c *coordinator) conclude(ctx context.Context, run *result.Run) error {
	var mu sync.Mutex
	var parts []bench.Part
	var outcomes []bench.Outcome
	live := append([]*peer{c.leader}, c.followers()...)
	err := c.each(ctx, live, func(ctx context.Context, p *peer) error {
		var part bench.Part
		var outcome bench.Outcome
		if err := errors.Join(p.call(ctx, callDeadline, "part", nil, &part), p.call(ctx, callDeadline, "outcome", nil, &outcome)); err != nil {
			return err
		}
		mu.Lock()
		parts, outcomes = append(parts, part), append(outcomes, outcome)
		mu.Unlock()
		return p.call(ctx, stopDeadline, "stop", nil, nil)
	})
	if err != nil {
		return err
	}
	all := len(parts) == c.one.Nodes
	if all {
		err = bench.MergeParts(run, parts)
	}
	bench.MergeOutcomes(run, outcomes)
	if !all {
		run.Bytes, run.SpaceAmp = nil, nil
	}
	return err
}

// spread sends what the leader's process acknowledged to all others.
func (c *coordinator) spread(ctx context.Context) error {
	for nth := 0; ; nth++ {
		var piece bench.JournalPiece
		if err := c.leader.call(ctx, callDeadline, "journal", nth, &piece); err != nil {
			return err
		}
		if err := c.each(ctx, c.followers(), func(ctx context.Context, p *peer) error {
			return p.call(ctx, callDeadline, "add-journal", piece, nil)
		}); err != nil {
			return err
		}
		if piece.Last {
			return nil
		}
	}
}

// verify has each member look for what was acknowledged, one after the other: on
// one machine they would be in each other's way, and reopening is timed.
func (c *coordinator) verify(ctx context.Context, run *result.Run) error {
	var details []string
	total := result.Verified{OK: true}
	for _, p := range append([]*peer{c.leader}, c.followers()...) {
		var v verdict
		if err := p.call(ctx, verifyDeadline, "verify", nil, &v); err != nil {
			if p != c.leader && p.lost() {
				continue
			}
			return fmt.Errorf("verify: %w", err)
		}
		if p == c.leader {
			total.Acked, run.Restart = v.Verified.Acked, v.Restart
		}
		total.OK = total.OK && v.Verified.OK
		total.Lost += v.Verified.Lost
		total.Wrong += v.Verified.Wrong
		if v.Verified.Detail != "" {
			details = append(details, v.Verified.Detail)
		}
	}
	total.Detail = strings.Join(details, "; ")
	run.Verified = &total
	return nil
}

// end ends every member. It returns when nothing of them is left.
func (c *coordinator) end() error {
	c.mu.Lock()
	for _, p := range c.peers {
		if p.lost() {
			c.note(p)
		}
	}
	c.ending = true
	peers := c.peers
	c.mu.Unlock()
	errs := make([]error, len(peers))
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			if err := p.end(); err != nil {
				errs[i] = fmt.Errorf("end %s: %w", p.where, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// each does something with several members at a time. What fails because a
// follower has ended is no error: that was noted.
func (c *coordinator) each(ctx context.Context, peers []*peer, f func(context.Context, *peer) error) error {
	errs := make([]error, len(peers))
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() {
			err := f(ctx, p)
			if c.leader != nil && p != c.leader && p.lost() {
				return
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
