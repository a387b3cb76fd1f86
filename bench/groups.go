package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node/transport/groups"
)

// groupSet is the raft groups of a run: every node is a member of each, keeps all
// of them in one store where the backend can, and sends for all of them over one
// network. Leaders are spread over the nodes in turn, and the load over the groups.
type groupSet struct {
	one      One
	net      *groups.Network
	clusters []*cluster        // one for each group
	stores   []backends.Shared // by node; empty where each group has a store of its own
}

const maxGroups = 1024

// checkGroups checks what groups demand.
func (s *Spec) checkGroups(check func(ok bool, format string, args ...any)) {
	check(s.Groups >= 1 && s.Groups <= maxGroups, "groups %d: want 1 to %d", s.Groups, maxGroups)
	if s.Groups == 1 {
		for _, b := range s.Backends {
			check(b.Preset()[backends.GroupStorage] == "", "%s: %s is for several groups", b.Label(), backends.GroupStorage)
		}
		return
	}
	check(s.Faults == "" && s.SlowDisk.Role == "", "faults and slow disks are possible with one group")
	check(!s.Placement.remote(), "several groups need the placement in-process, not %s", s.Placement)
	check(s.Workload.Kind == WorkloadPropose, "several groups need the workload propose, not %s", s.Workload)
}

// runGroups runs the phases of a run of many groups. There are no snapshot
// installs: they are of one group, and measured there.
func runGroups(ctx context.Context, one One, run *result.Run, report func(Progress)) (err error) {
	payloads, _, err := one.payloads()
	if err != nil {
		return err
	}
	report(Progress{Phase: "start"})
	if err := one.fillRoundTrip(ctx, run); err != nil {
		return err
	}
	gs, err := startGroups(ctx, one, payloads)
	if err != nil {
		return err
	}
	running := true
	defer func() {
		if running {
			err = errors.Join(err, gs.stop())
		}
	}()
	all := gs.clusters[0]
	if err := all.measure(ctx, run, report); err != nil {
		return err
	}
	if err := MergeParts(run, []Part{all.part()}); err != nil {
		return err
	}
	behind := make([][]uint64, len(gs.clusters))
	late := false
	for i, c := range gs.clusters {
		if behind[i], err = c.drain(ctx, DrainDeadline); err != nil {
			return err
		}
		late = late || len(behind[i]) > 0
	}
	if late {
		run.Flags = append(run.Flags, "follower_behind")
	}
	MergeOutcomes(run, []Outcome{all.outcome()})
	running = false
	if err := gs.stop(); err != nil {
		return err
	}
	report(Progress{Phase: "verify"})
	run.Verified, run.Restart, err = gs.verify(behind)
	return err
}

// startGroups opens the stores, starts every node of every group and waits for the
// leaders. What was started is stopped again after an error.
func startGroups(ctx context.Context, one One, payloads *load.Payloads) (*groupSet, error) {
	inner, err := one.Networks[one.Transport]()
	if err != nil {
		return nil, fmt.Errorf("make the %s network: %w", one.Transport, err)
	}
	gs := &groupSet{one: one, net: groups.New(inner)}
	t := &tally{}
	for i := range one.Groups {
		c := newCluster(one, payloads, gs.net.Group(uint64(i)), t)
		c.candidate = i % one.Nodes
		c.open = func(m *member) (backends.Storage, backends.State, error) { return gs.openGroup(uint64(i), m) }
		gs.clusters = append(gs.clusters, c)
	}
	gs.clusters[0].groups = gs
	if _, err := gs.openStores(); err != nil {
		return nil, errors.Join(err, gs.stop())
	}
	for i, c := range gs.clusters {
		for id := uint64(1); id <= uint64(one.Nodes); id++ {
			m := &member{id: id, dir: one.nodeDir(id), hostDir: one.nodeDir(id)}
			if one.Backend.OpenShared == nil {
				m.dir = filepath.Join(m.hostDir, fmt.Sprintf("group-%d", i+1))
			}
			if err := c.addMember(m); err != nil {
				return nil, errors.Join(fmt.Errorf("group %d: %w", i+1, err), gs.stop())
			}
		}
	}
	gs.clusters[0].watchSyncs()
	if err := gs.elect(ctx); err != nil {
		return nil, errors.Join(err, gs.stop())
	}
	return gs, nil
}

// openStores opens every node's shared store and returns the longest time that one
// took; without shared stores there is nothing to do.
func (gs *groupSet) openStores() (longest time.Duration, err error) {
	if gs.one.Backend.OpenShared == nil {
		return 0, nil
	}
	for id := uint64(1); id <= uint64(gs.one.Nodes); id++ {
		dir := gs.one.nodeDir(id)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, fmt.Errorf("make the node's directory: %w", err)
		}
		start := time.Now()
		s, err := gs.one.Backend.OpenShared(backends.Options{Dir: dir, OnSync: gs.clusters[0].syncs.onSync(id)})
		if err != nil {
			return 0, fmt.Errorf("open %s of node %d in %s: %w", gs.one.Backend.Label(), id, dir, err)
		}
		longest = max(longest, time.Since(start))
		gs.stores = append(gs.stores, s)
	}
	return longest, nil
}

func (gs *groupSet) closeStores() error {
	var errs []error
	for i, s := range gs.stores {
		if err := s.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close %s of node %d: %w", gs.one.Backend.Label(), i+1, err))
		}
	}
	gs.stores = nil
	return errors.Join(errs...)
}

// openGroup opens one group's storage on one node.
func (gs *groupSet) openGroup(group uint64, m *member) (backends.Storage, backends.State, error) {
	if len(gs.stores) > 0 {
		return gs.stores[m.id-1].Group(group)
	}
	return gs.one.Backend.Open(backends.Options{Dir: m.dir, OnSync: gs.clusters[0].syncs.onSync(m.id)})
}

// elect waits for the leaders of all groups.
func (gs *groupSet) elect(ctx context.Context) error {
	errs := make([]error, len(gs.clusters))
	var wg sync.WaitGroup
	for i, c := range gs.clusters {
		wg.Go(func() {
			if err := c.elect(ctx); err != nil {
				errs[i] = fmt.Errorf("group %d: %w", i+1, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// stop ends every node, and closes the stores and the network.
func (gs *groupSet) stop() error {
	var errs []error
	for _, c := range gs.clusters {
		errs = append(errs, c.stop())
	}
	return errors.Join(append(errs, gs.closeStores(), gs.net.Close())...)
}

// verify reopens the stores and verifies every group. The restart is that of one
// replica of every group, one after the other, and of the store that they are in.
func (gs *groupSet) verify(behind [][]uint64) (*result.Verified, *result.Restart, error) {
	took, err := gs.openStores()
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("verify: %w", err), gs.closeStores())
	}
	total, restart := &result.Verified{OK: true}, &result.Restart{Open: took}
	for i, c := range gs.clusters {
		v, re, err := c.verifyCluster(behind[i])
		total.OK = total.OK && v.OK
		total.Acked, total.Lost, total.Wrong = total.Acked+v.Acked, total.Lost+v.Lost, total.Wrong+v.Wrong
		if v.Detail != "" && strings.Count(total.Detail, ";") < maxDetails {
			total.Detail = strings.TrimPrefix(fmt.Sprintf("%s; group %d: %s", total.Detail, i+1, v.Detail), "; ")
		}
		if re != nil {
			restart.Open, restart.Entries, restart.Bytes = restart.Open+re.Open, restart.Entries+re.Entries, restart.Bytes+re.Bytes
		}
		if err != nil {
			return total, nil, errors.Join(fmt.Errorf("group %d: %w", i+1, err), gs.closeStores())
		}
	}
	if gs.one.Backend.Durability == backends.None {
		restart = nil
	}
	return total, restart, gs.closeStores()
}

// target is what takes the operations of the load.
func (c *cluster) target() load.Target {
	if c.groups != nil {
		return c.groups
	}
	return c
}

var _ load.Target = (*groupSet)(nil)

// groupOf spreads operations over the groups: by client in a closed loop, and one
// after the other in an open one.
func (gs *groupSet) groupOf(id uint64) int {
	if gs.one.Load.Kind == LoadClosed {
		id = load.Client(id)
	} else {
		id = load.Number(id)
	}
	return int(id % uint64(len(gs.clusters)))
}

// Propose implements load.Target.
func (gs *groupSet) Propose(ctx context.Context, payloads [][]byte) error {
	return handOut(ctx, gs, payloads, load.ID, (*cluster).Propose)
}

// Enqueue implements load.Target.
func (gs *groupSet) Enqueue(ctx context.Context, payloads [][]byte) error {
	return handOut(ctx, gs, payloads, load.ID, (*cluster).Enqueue)
}

// Read implements load.Target.
func (gs *groupSet) Read(ctx context.Context, ids []uint64) error {
	return handOut(ctx, gs, ids, func(id uint64) uint64 { return id }, (*cluster).Read)
}

// handOut gives each group its part of items, in their order.
func handOut[T any](ctx context.Context, gs *groupSet, items []T, id func(T) uint64, give func(*cluster, context.Context, []T) error) error {
	parts := make([][]T, len(gs.clusters))
	for _, item := range items {
		at := gs.groupOf(id(item))
		parts[at] = append(parts[at], item)
	}
	for i, part := range parts {
		if len(part) > 0 {
			if err := give(gs.clusters[i], ctx, part); err != nil {
				return err
			}
		}
	}
	return nil
}
