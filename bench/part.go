package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/env"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node"
)

// Part is what one process used and saw in the measured time. A run of one process
// has one, a run of several the part of each; what they add up to is written by
// [MergeParts]. A figure that the system does not publish is nil.
type Part struct {
	CPU     *time.Duration
	Written *int64               // to the disk, bytes
	Source  string               // of Written: result.Bytes.WrittenSource
	Peak    *int64               // of resident memory, bytes
	Network *node.TransportStats // of the transports; nil where one does not count, or there is one node
	Logical int64                // handed to Save and SaveSnap, bytes
	GCPause int64                // ns
	Mallocs uint64
	// Throttled is the share of the periods of a CPU quota in which it was used up; nil
	// without one.
	Throttled *float64
	// Chosen are settings that storages chose, a map for each that did.
	Chosen []map[string]string
	Syncs  *SyncPart
}

// SyncPart is what was seen of sync calls.
type SyncPart struct {
	Source string            // "kernel" or "engine"
	Calls  map[string]int64  // by system call, where the kernel was asked
	Nodes  map[uint64]string // by node, encoded as result.Latency.Encoded is
}

// part is the difference between the usage at both ends of the measured time, and
// the syncs in it.
func (c *cluster) part() Part {
	before, after := c.before, c.after
	p := Part{
		Logical: after.logical - before.logical,
		GCPause: int64(after.mem.PauseTotalNs - before.mem.PauseTotalNs),
		Mallocs: after.mem.Mallocs - before.mem.Mallocs,

		Throttled: after.quota.Throttled(before.quota),
		Chosen:    c.chosen(),
	}
	if before.counted {
		sent := after.network.Sub(before.network)
		p.Network = &sent
	}
	if after.ioErr == nil && before.ioErr == nil {
		var device *int64
		if after.devErr == nil && before.devErr == nil {
			n := after.device - before.device
			device = &n
		}
		p.Written, p.Source = written(after.io.Sub(before.io).WriteBytes, device, c.one.Placement == PlacementProcess)
	}
	if before.peakReset && after.peak > 0 {
		p.Peak = &after.peak
	}
	if after.cpuErr == nil && before.cpuErr == nil {
		cpu := after.cpu - before.cpu
		p.CPU = &cpu
	}
	if c.one.Backend.Durability != backends.None {
		p.Syncs = c.syncs.part()
	}
	return p
}

// chosenBy is what a storage was left to choose; nil where that is nothing.
func chosenBy(storage backends.Storage) map[string]string {
	if chooser, ok := storage.(backends.Chooser); ok {
		return chooser.Chosen()
	}
	return nil
}

// chosen is what the storages of all nodes chose.
func (c *cluster) chosen() (all []map[string]string) {
	for _, g := range c.every() {
		for _, m := range g.members {
			if m.chosen != nil {
				all = append(all, m.chosen)
			}
		}
	}
	return all
}

// The sources of bytes written.
const (
	writtenByProcess = "process"
	writtenToDevice  = "device"
)

// written decides between what a process is said to have written and what its device
// has, nil where that is not known. The device also counts what others write, and does
// not yet count what waits in the page cache; the process's own count is right unless
// it is clearly more than that. Where several processes of a run share the device, its
// count is none of theirs, and the figure is not known.
func written(process int64, device *int64, shared bool) (*int64, string) {
	if device == nil || process-*device <= max(*device/4, writtenSlack) {
		return &process, writtenByProcess
	}
	if shared {
		return nil, ""
	}
	return device, writtenToDevice
}

// writtenSlack is what may wait in the page cache at the end of a short run.
const writtenSlack = 16 << 20

// sum adds a figure of one more part; the sum is nil where a part does not have it.
func sum[T int64 | time.Duration](parts []Part, figure func(*Part) *T) *T {
	var total T
	for i := range parts {
		v := figure(&parts[i])
		if v == nil {
			return nil
		}
		total += *v
	}
	return &total
}

// MergeParts writes the costs of a run and its sync calls, all processes together.
// Histograms are merged as such.
func MergeParts(run *result.Run, parts []Part) error {
	mergeCosts(run, parts)
	if run.Durability == string(backends.None) {
		return nil
	}
	return mergeSyncs(run, parts)
}

// mergeCosts writes the costs: of the nodes, the load and the recorders. Resident
// memory is the sum of what each process had at most.
func mergeCosts(run *result.Run, parts []Part) {
	var logical, pause int64
	var mallocs uint64
	for _, p := range parts {
		logical += p.Logical
		pause += p.GCPause
		mallocs += p.Mallocs
	}
	run.GCPause = &pause
	mergeThrottled(run, parts)
	mergeChosen(run, parts)
	run.Bytes = &result.Bytes{Logical: logical}
	mergeNetwork(run, parts)
	run.Bytes.Written = sum(parts, func(p *Part) *int64 { return p.Written })
	if run.Bytes.Written != nil {
		run.Bytes.WrittenSource = writtenByProcess
		if slices.ContainsFunc(parts, func(p Part) bool { return p.Source == writtenToDevice }) {
			run.Bytes.WrittenSource = writtenToDevice
		}
	}
	run.RSS = sum(parts, func(p *Part) *int64 { return p.Peak })
	if written := run.Bytes.Written; written != nil && logical > 0 && run.Durability != string(backends.None) {
		amp := float64(*written) / float64(logical)
		run.WriteAmp = &amp
	}
	if run.Ops == 0 {
		return
	}
	if cpu := sum(parts, func(p *Part) *time.Duration { return p.CPU }); cpu != nil {
		perOp := float64(*cpu) / float64(run.Ops)
		run.CPUPerOp = &perOp
	}
	allocs := float64(mallocs) / float64(run.Ops)
	run.AllocsPerOp = &allocs
}

// throttledLimit is the share of the periods of a CPU quota in which it may be used up
// before figures are in doubt: one stop in a hundred periods is in p99.
const throttledLimit = 0.01

// mergeThrottled writes the share of the process that was stopped most often: several
// may be under one quota.
func mergeThrottled(run *result.Run, parts []Part) {
	for _, p := range parts {
		if p.Throttled != nil && (run.Throttled == nil || *p.Throttled > *run.Throttled) {
			run.Throttled = p.Throttled
		}
	}
	if run.Throttled != nil && *run.Throttled > throttledLimit {
		run.Flags = append(run.Flags, "throttled")
	}
}

// mergeChosen writes what settings the backend chose; where nodes differ, all of them.
func mergeChosen(run *result.Run, parts []Part) {
	values := map[string][]string{}
	for _, p := range parts {
		for _, chosen := range p.Chosen {
			for setting, value := range chosen {
				values[setting] = append(values[setting], value)
			}
		}
	}
	for setting, all := range values {
		if run.Chosen == nil {
			run.Chosen = map[string]string{}
		}
		slices.Sort(all)
		run.Chosen[setting] = strings.Join(slices.Compact(all), ", ")
	}
}

// mergeNetwork writes what the transports sent, and to how much an operation comes.
func mergeNetwork(run *result.Run, parts []Part) {
	var total node.TransportStats
	for _, p := range parts {
		if p.Network == nil {
			return
		}
		total = total.Add(*p.Network)
	}
	run.Bytes.Network = &total.Bytes
	if run.Network == nil {
		run.Network = &result.Network{}
	}
	run.Network.Dropped = &total.Dropped
	if run.Ops == 0 {
		return
	}
	bytesPerOp, messagesPerOp := float64(total.Bytes)/float64(run.Ops), float64(total.Messages)/float64(run.Ops)
	run.Network.BytesPerOp, run.Network.MessagesPerOp = &bytesPerOp, &messagesPerOp
}

// mergeSyncs writes the latency of every sync call, all nodes together and each for
// itself. fsyncs per operation are calls of all nodes, so a part without them, or
// of another source, leaves all of it out.
func mergeSyncs(run *result.Run, parts []Part) error {
	all, nodes := load.NewHistogram(), map[uint64]*hdrhistogram.Histogram{}
	out := result.Fsync{}
	for _, p := range parts {
		if p.Syncs == nil || out.Source != "" && out.Source != p.Syncs.Source {
			run.Flags = append(run.Flags, "fsync_missing")
			return nil
		}
		out.Source = p.Syncs.Source
		for call, n := range p.Syncs.Calls {
			if out.Calls == nil {
				out.Calls = map[string]int64{}
			}
			out.Calls[call] += n
		}
		for id, encoded := range p.Syncs.Nodes {
			h, err := hdrhistogram.Decode([]byte(encoded))
			if err != nil {
				return fmt.Errorf("add up the syncs of node %d: %w", id, err)
			}
			nodes[id] = h
			all.Merge(h)
		}
	}
	if all.TotalCount() == 0 {
		run.Flags = append(run.Flags, "fsync_missing")
		return nil
	}
	out.Latency = load.Summary(all, true)
	for id := uint64(1); id <= uint64(run.Nodes); id++ {
		if h := nodes[id]; h != nil && h.TotalCount() > 0 {
			out.Nodes = append(out.Nodes, result.NodeFsync{Node: int(id), Latency: load.Summary(h, false)})
		}
	}
	run.Fsync = &out
	if run.Ops > 0 {
		perOp := float64(all.TotalCount()) / float64(run.Ops)
		run.FsyncsPerOp = &perOp
	}
	return nil
}

// Outcome is what the nodes of one process counted, and what their files occupy at
// the end.
type Outcome struct {
	// Elections are those that a node of it won in the measured time; where nothing is
	// measured but snapshot installs, after the first one. They are not what a node
	// counts as changes of leader: one that was cut off loses sight of the leader, and
	// finds the same one again.
	Elections      int64
	LateHeartbeats int64  // over the whole run
	Disk           *int64 // bytes that the files occupy; nil where it is not known
	Live           int64  // bytes that must be kept: the state and the entries after the snapshot
}

func (c *cluster) outcome() Outcome {
	var o Outcome
	if c.before != nil && c.after != nil {
		o.Elections = c.after.won - c.before.won
	} else {
		o.Elections = max(c.elections()-int64(len(c.every())), 0)
	}
	var disk int64
	known := c.one.Backend.Durability != backends.None
	for _, g := range c.every() {
		for _, m := range g.members {
			st := m.node.Status()
			o.LateHeartbeats += st.LateHeartbeats
			o.Live += m.state.Bytes() + int64(st.Applied-st.Snapshot)*int64(c.payloads.Mean())
		}
	}
	for _, m := range c.members {
		if !known {
			break
		}
		n, err := env.DiskUsage(m.hostDir)
		known = err == nil && n > 0
		disk += n
	}
	if known {
		o.Disk = &disk
	}
	return o
}

// MergeOutcomes writes what all nodes counted. Space amplification is against what
// must be kept.
func MergeOutcomes(run *result.Run, outcomes []Outcome) {
	var elections, disk, live int64
	known := len(outcomes) > 0
	for _, o := range outcomes {
		run.LateHeartbeats += o.LateHeartbeats
		elections += o.Elections
		live += o.Live
		if known = known && o.Disk != nil; known {
			disk += *o.Disk
		}
	}
	// Where there are faults, those that were seen until the last one was over are in
	// the run already.
	run.LeaderChanges = max(run.LeaderChanges, elections)
	if run.LeaderChanges > 0 && run.Faults == nil {
		run.Flags = append(run.Flags, "leader_changed")
	}
	if !known {
		return
	}
	if run.Bytes == nil {
		run.Bytes = &result.Bytes{}
	}
	run.Bytes.Disk = &disk
	if live > 0 {
		amp := float64(disk) / float64(live)
		run.SpaceAmp = &amp
	}
}
