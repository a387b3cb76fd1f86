// Package result is the schema of result.json, "raftbench/v1": what a suite of
// runs measured, and everything needed to judge and to repeat it.
//
// Durations are integer nanoseconds with the unit in the JSON name, sizes are
// bytes. A figure that was not measured is absent, never 0: latencies with Count
// 0 are left out, and a scalar that may truly be 0 is a pointer. Programs outside
// this repository read these fields; names are never reused with another
// meaning, and a reader must ignore names that it does not know.
package result

import "time"

// Schema is the version of the format.
const Schema = "raftbench/v1"

// Result is one suite: the runs of one command on one machine.
type Result struct {
	Schema      string            `json:"schema"`
	ID          string            `json:"id"`      // unique: UTC time and random bits
	Started     time.Time         `json:"started"` // UTC
	Ended       time.Time         `json:"ended,omitzero"`
	Command     []string          `json:"command"` // argv that repeats the suite
	Seed        int64             `json:"seed"`
	Planned     int               `json:"planned,omitempty"`     // runs that the suite was to make
	Interrupted bool              `json:"interrupted,omitempty"` // stopped before every run was made
	Env         Env               `json:"env"`
	Calibration []Calibration     `json:"calibration,omitempty"`
	Hosts       []Host            `json:"hosts,omitempty"` // placement hosts: where nodes 1, 2, … were
	Runs        []Run             `json:"runs"`
	Comparisons []Comparison      `json:"comparisons,omitempty"`
	Thresholds  []Threshold       `json:"thresholds,omitempty"`
	PowerCuts   []PowerCut        `json:"powercuts,omitempty"`
	Searches    []Search          `json:"searches,omitempty"`
	Suite       string            `json:"suite,omitempty"` // equal for suites that make the same runs
	Notes       map[string]string `json:"notes,omitempty"` // e.g. what the probe costs
}

// Env is the machine and the build.
type Env struct {
	Hostname       string            `json:"hostname,omitempty"`
	OS             string            `json:"os"`
	Arch           string            `json:"arch"`
	Kernel         string            `json:"kernel,omitempty"`
	CPU            string            `json:"cpu,omitempty"`
	Cores          int               `json:"cores"`
	CPUQuota       float64           `json:"cpu_quota,omitempty"`      // cgroup limit in cores, where one is set
	CPUScheduling  string            `json:"cpu_scheduling,omitempty"` // policy, and nice or priority where not 0: "SCHED_OTHER", "SCHED_BATCH, nice 5"
	MemoryBytes    int64             `json:"memory_bytes,omitempty"`
	MemoryLimit    int64             `json:"memory_limit_bytes,omitempty"` // cgroup limit, where one is set
	Virtualization string            `json:"virtualization,omitempty"`
	Go             string            `json:"go"`
	GOMAXPROCS     int               `json:"gomaxprocs"`
	GOGC           string            `json:"gogc,omitempty"`
	Version        string            `json:"version"` // of raftbench
	Commit         string            `json:"commit,omitempty"`
	Dirty          bool              `json:"dirty,omitempty"`
	Build          string            `json:"build,omitempty"` // of the program file, SHA-256 in part, where no version or commit tells what it was built from
	Modules        map[string]string `json:"modules,omitempty"`
	Dir            string            `json:"dir,omitempty"` // where the data went
	FileSystem     string            `json:"filesystem,omitempty"`
	MountOptions   string            `json:"mount_options,omitempty"`
	Device         string            `json:"device,omitempty"`
	Model          string            `json:"model,omitempty"`
	Rotational     *bool             `json:"rotational,omitempty"`
	Scheduler      string            `json:"scheduler,omitempty"`
	WriteCache     string            `json:"write_cache,omitempty"` // "write back", "write through"
	FreeBytes      int64             `json:"free_bytes,omitempty"`
	Before         *Pressure         `json:"pressure_before,omitempty"`
	After          *Pressure         `json:"pressure_after,omitempty"`
	Warnings       []string          `json:"warnings,omitempty"`
}

// Host is a machine with an agent. Env and Calibration of the result itself are
// those of the first one.
type Host struct {
	Addr        string        `json:"addr"` // of the agent
	Env         Env           `json:"env"`
	Calibration []Calibration `json:"calibration,omitempty"`
}

// Pressure is how busy the machine was with other things.
type Pressure struct {
	Load1       float64  `json:"load1"`
	CPUSome10   *float64 `json:"psi_cpu_some_avg10,omitempty"` // per cent
	IOSome10    *float64 `json:"psi_io_some_avg10,omitempty"`
	MemSome10   *float64 `json:"psi_memory_some_avg10,omitempty"`
	StealShare  *float64 `json:"steal_share,omitempty"` // of CPU time since boot, or since Before
	AvailableMB *int64   `json:"memory_available_mb,omitempty"`
}

// Latency is a distribution. Encoded holds the whole histogram, compressed as
// HdrHistogram's V2 base64, where it was kept.
type Latency struct {
	Count   int64         `json:"count"`
	Mean    time.Duration `json:"mean_ns"`
	P50     time.Duration `json:"p50_ns"`
	P90     time.Duration `json:"p90_ns"`
	P99     time.Duration `json:"p99_ns"`
	P999    time.Duration `json:"p999_ns"`
	Max     time.Duration `json:"max_ns"`
	Encoded string        `json:"hdr,omitempty"`
}

// Calibration is one measurement of the device floor.
type Calibration struct {
	At    string `json:"at"`    // "before", "between", "after"
	Block int    `json:"block"` // of the block that follows
	Kind  string `json:"kind"`  // "overwrite+fdatasync", "append+fdatasync", "append+fsync", "overwrite+dsync", "overwrite+direct+dsync"
	Bytes int    `json:"bytes"` // of each write
	Latency
	// Sync is the fdatasync or fsync call alone; absent where it is O_DSYNC.
	Sync *Latency `json:"sync,omitempty"`
	// Drift is (highest − lowest) ÷ p50 of the medians of its rounds; absent where
	// they held too few writes to tell.
	Drift          float64 `json:"drift,omitempty"`
	IOPS           float64 `json:"iops,omitempty"`
	BytesPerSecond float64 `json:"bytes_per_second,omitempty"`
}

// Run is one measurement of one backend: the replicate of every statistic.
type Run struct {
	ID    string `json:"id"`
	Block int    `json:"block"` // from 1
	Order int    `json:"order"` // position in execution, from 1
	// Lap is the turn within the block, from 1; absent where each block holds one.
	Lap     int               `json:"lap,omitempty"`
	Started time.Time         `json:"started,omitzero"`
	Env     string            `json:"env,omitempty"` // id of the result it comes from, in a merged report
	Backend string            `json:"backend"`
	Params  map[string]string `json:"params,omitempty"`
	// Chosen are settings that the backend chose itself, by what it measured of the disk;
	// "a, b" where nodes differ.
	Chosen     map[string]string `json:"chosen,omitempty"`
	Durability string            `json:"durability"`
	Transport  string            `json:"transport"`
	Loop       string            `json:"loop"`
	Raft       string            `json:"raft,omitempty"` // "node" (raft.Node) or "rawnode" (raft.RawNode)
	Nodes      int               `json:"nodes"`
	Placement  string            `json:"placement,omitempty"`
	Leader     int               `json:"leader,omitempty"` // node that carried the load, where each is a process
	Groups     int               `json:"groups,omitempty"`
	GOMAXPROCS int               `json:"gomaxprocs,omitempty"`
	Batch      int               `json:"batch,omitempty"` // most proposals gathered into one MsgProp
	// SnapshotMode is how snapshots were to go, "stream" or "plain"; Snapshot.Mode
	// is how they went.
	SnapshotMode string  `json:"snapshot_mode,omitempty"`
	Workload     string  `json:"workload"`
	Load         Load    `json:"load"`
	ReadRatio    float64 `json:"read_ratio,omitempty"`
	ValueBytes   int     `json:"value_bytes,omitempty"` // the mean, where sizes are a range
	ValueSize    string  `json:"value_size,omitempty"`  // as given, e.g. "100-4096"
	StateBytes   int64   `json:"state_bytes,omitempty"`
	// SlowDisk says whose disk was made slow while the load was on, and how:
	// "leader:+5ms" (each sync takes so much longer), "follower:stall=2s/10s" (it
	// stands still for 2s of every 10s). The node keeps it when the lead moves.
	SlowDisk string `json:"slow_disk,omitempty"`
	// Settings are what else was asked for, figures depend on, and is not the default, by
	// the names of the command's flags: "duration": "10s", "compressible": "0.5".
	Settings map[string]string `json:"settings,omitempty"`

	Ops        int64         `json:"ops"`
	Errors     int64         `json:"errors"`
	Elapsed    time.Duration `json:"elapsed_ns,omitzero"`
	Throughput float64       `json:"throughput_ops,omitempty"` // operations a second

	Response Latency `json:"response,omitzero"` // intended send → applied
	Service  Latency `json:"service,omitzero"`  // actual send → applied
	Lag      Latency `json:"lag,omitzero"`      // intended → actual send
	Reads    Latency `json:"reads,omitzero"`    // response of linearizable reads alone

	Save           Latency  `json:"save,omitzero"` // Save that must sync, on the leader
	SaveBytes      float64  `json:"save_bytes,omitempty"`
	SaveFloor      float64  `json:"save_x_floor,omitempty"` // Save p50 ÷ device floor at the same size
	Fsync          *Fsync   `json:"fsync,omitempty"`
	FsyncsPerOp    *float64 `json:"fsyncs_per_op,omitempty"`
	EntriesPerSave *float64 `json:"entries_per_save,omitempty"`
	Stages         *Stages  `json:"stages,omitempty"`

	Snapshots []Snapshot `json:"snapshots,omitempty"` // every install of this run
	Snapshot  *Snapshot  `json:"snapshot,omitempty"`  // the median one by install time
	Restart   *Restart   `json:"restart,omitempty"`

	Bytes       *Bytes   `json:"bytes,omitempty"`
	WriteAmp    *float64 `json:"write_amp,omitempty"` // bytes written ÷ bytes logical
	SpaceAmp    *float64 `json:"space_amp,omitempty"` // bytes on disk ÷ bytes live
	CPUPerOp    *float64 `json:"cpu_ns_per_op,omitempty"`
	AllocsPerOp *float64 `json:"allocs_per_op,omitempty"`
	GCPause     *int64   `json:"gc_pause_ns,omitempty"` // sum over the measured time
	RSS         *int64   `json:"rss_bytes,omitempty"`   // highest
	// Throttled is the share of the periods of a CPU quota (of a cgroup), in the measured
	// time, in which it was used up; absent without a quota.
	Throttled *float64 `json:"throttled_share,omitempty"`

	Network *Network `json:"network,omitempty"` // what the transport cost

	LeaderChanges  int64 `json:"leader_changes,omitempty"`
	LateHeartbeats int64 `json:"late_heartbeats,omitempty"`

	Faults *Faults `json:"faults,omitempty"` // what was done to the cluster on purpose

	Series  []Point   `json:"series,omitempty"`
	Events  []Event   `json:"events,omitempty"`
	Windows []float64 `json:"windows,omitempty"` // ops/s of the five windows of the steady gate
	Backlog []int64   `json:"backlog,omitempty"` // open loop: operations in flight at the end of each window
	Cycles  []Cycle   `json:"cycles,omitempty"`  // workload age
	// Aging compares the last cycles with the first.
	Aging    []Comparison `json:"aging,omitempty"`
	Trace    *Trace       `json:"trace,omitempty"` // workload trace
	Verified *Verified    `json:"verified,omitempty"`
	// Flags are the reasons to doubt the run, by name; see reports/flags.
	Flags []string `json:"flags,omitempty"`
	Error string   `json:"error,omitempty"` // why the run ended without figures
}

// Load is what was asked of the generator.
type Load struct {
	Kind    string  `json:"kind"` // "closed", "open", "poisson"
	Clients int     `json:"clients,omitempty"`
	Rate    float64 `json:"rate,omitempty"`  // operations a second
	Point   string  `json:"point,omitempty"` // "50%" of a curve, "search" step
	Share   float64 `json:"share,omitempty"` // of the maximum found, in a curve
	SLO     string  `json:"slo,omitempty"`
	Step    int     `json:"step,omitempty"`   // of a search, from 1
	Missed  string  `json:"missed,omitempty"` // why a step of a search failed; absent: it held the objective
}

// Search is the outcome of one search for the highest rate that holds an
// objective, on one backend in one block.
type Search struct {
	Backend string            `json:"backend"`
	Params  map[string]string `json:"params,omitempty"`
	Block   int               `json:"block"`
	Config  string            `json:"config,omitempty"` // of a matrix
	SLO     string            `json:"slo"`
	Rate    float64           `json:"rate,omitempty"` // operations a second, confirmed three times; absent: none was found
	Steps   int               `json:"steps"`          // runs that it took
}

// Fsync is the latency of the sync system calls, and who saw it.
type Fsync struct {
	Latency
	Source string           `json:"source"`          // "kernel" or "engine"
	Calls  map[string]int64 `json:"calls,omitempty"` // by system call
	Nodes  []NodeFsync      `json:"nodes,omitempty"`
}

// NodeFsync is one node's share.
type NodeFsync struct {
	Node int `json:"node"`
	Latency
}

// Stages are means over the operations of a run; they add up to the mean
// service time.
type Stages struct {
	Queue     time.Duration `json:"queue_ns"`     // sent → its Save begins
	Save      time.Duration `json:"save_ns"`      // its Save on the leader, as far as it was waited for
	Replicate time.Duration `json:"replicate_ns"` // leader's Save done → handed to the apply side
	Apply     time.Duration `json:"apply_ns"`     // handed over → applied
}

// Snapshot is one snapshot from creation to the follower that restored it. A
// stage that did not happen is absent.
//
// Of a streamed one (Mode "stream") the stages overlap: storages write while the
// state machine encodes and while the transport carries. They are cut at the last
// byte: Create ends when the state machine has given it, Transfer when the
// follower has it, and Save is what is left of writing then, the sync and the
// publication.
type Snapshot struct {
	Bytes    int64         `json:"bytes"`
	Mode     string        `json:"mode,omitempty"`       // how it went: "stream" or "plain"
	Create   time.Duration `json:"create_ns,omitzero"`   // state machine → bytes, on the leader
	Transfer time.Duration `json:"transfer_ns,omitzero"` // handed to the transport → received
	Save     time.Duration `json:"save_ns,omitzero"`     // SaveSnap on the follower
	Restore  time.Duration `json:"restore_ns,omitzero"`  // bytes → state machine
	Release  time.Duration `json:"release_ns,omitzero"`  // Release on the follower
	// Install is the whole: the follower is reachable again → its state machine
	// is restored.
	Install time.Duration `json:"install_ns,omitzero"`
	HashOK  *bool         `json:"hash_ok,omitempty"` // restored state = leader's state
	// ForegroundP99 is the response p99 of the load from when the follower can be reached
	// again until it has caught up.
	ForegroundP99 time.Duration `json:"foreground_p99_ns,omitzero"`
	ForegroundOps float64       `json:"foreground_ops,omitempty"` // its operations a second
	// Restores counts the snapshots that the follower needed until it had caught
	// up; counting ends at 2.
	Restores int `json:"restores,omitempty"`
	// Interval is the time from one snapshot to the next at the highest rate that
	// the run has seen.
	Interval time.Duration `json:"interval_ns,omitzero"`
}

// Restart is what Open cost.
type Restart struct {
	Open    time.Duration `json:"open_ns"`
	Ready   time.Duration `json:"ready_ns,omitzero"` // Open → state machine replayed, loop running
	Entries int64         `json:"entries"`
	Bytes   int64         `json:"bytes"`
	Killed  bool          `json:"killed,omitempty"` // the process before it was killed, not closed
}

// Bytes counts what a run wrote, all nodes together.
type Bytes struct {
	Logical int64  `json:"logical"`           // handed to Save and SaveSnap
	Written *int64 `json:"written,omitempty"` // to the disk, see WrittenSource
	// WrittenSource is who counted: "process" (/proc/self/io write_bytes), or, where
	// that is more than the device has written, because the kernel counts whole large
	// folios, "device" (all that was written to it, by whomever).
	WrittenSource string `json:"written_source,omitempty"`
	Disk          *int64 `json:"disk,omitempty"`    // allocated after the run
	Network       *int64 `json:"network,omitempty"` // sent by the transport
}

// Network is what the transport between the nodes cost, all nodes together, as
// each counts what it sends: encoded bytes with the transport's own framing, or
// the payload alone where messages are handed over as they are (mem).
type Network struct {
	BytesPerOp    *float64 `json:"bytes_per_op,omitempty"`
	MessagesPerOp *float64 `json:"messages_per_op,omitempty"`
	Dropped       *int64   `json:"dropped,omitempty"` // messages refused or lost while it was measured
	// RTT is a heartbeat and its answer between two idle ends on a network of the
	// same kind without other traffic.
	RTT Latency `json:"rtt,omitzero"`
}

// Point is one second of a run. T counts from the start of the warm-up.
type Point struct {
	T      time.Duration `json:"t_ns"`
	Ops    int64         `json:"ops"` // completed in the interval
	P50    time.Duration `json:"p50_ns,omitzero"`
	P99    time.Duration `json:"p99_ns,omitzero"`
	Max    time.Duration `json:"max_ns,omitzero"`
	Warmup bool          `json:"warmup,omitempty"`
	// Buckets counts operations by response time, bucket i holding those below
	// 2^i microseconds that no lower one holds: the rows of the heat map.
	Buckets []int64 `json:"buckets,omitempty"`
}

// Event is a mark on the time axis.
type Event struct {
	T    time.Duration `json:"t_ns"`
	Node int           `json:"node,omitempty"`
	Kind string        `json:"kind"` // "snapshot", "gc", "fault", "leader", "stall"
	Text string        `json:"text,omitempty"`
}

// Faults is what was done to the cluster while it was measured, and how it got over
// it. Stalls and recoveries are known to some 5 ms.
type Faults struct {
	Timeline string  `json:"timeline"`             // of --faults
	Before   float64 `json:"before_ops,omitempty"` // operations a second before the first event
	// Stall is the longest time without an operation from the first event on.
	Stall time.Duration `json:"stall_ns,omitzero"`
	// Recovery is the longest one of the events; absent where the last event was
	// followed by none.
	Recovery *time.Duration `json:"recovery_ns,omitempty"`
	Events   []FaultEvent   `json:"events,omitempty"`
}

// FaultEvent is one event of a timeline as it happened.
type FaultEvent struct {
	T     time.Duration `json:"t_ns"`              // as in series
	Text  string        `json:"text"`              // "cut leader-*"
	Node  int           `json:"node,omitempty"`    // who led, where the event names the leader
	Stall time.Duration `json:"stall_ns,omitzero"` // longest time without an operation until the next event
	// Recovery is the time until the cluster made 90 % of the operations a second
	// from before the first event, over half a second; absent where it did not before
	// the next event.
	Recovery *time.Duration `json:"recovery_ns,omitempty"`
}

// Cycle is one turn of the age workload.
type Cycle struct {
	Cycle int     `json:"cycle"`
	Young bool    `json:"young,omitempty"` // before the first burst
	Save  Latency `json:"save"`
	Disk  int64   `json:"disk_bytes"`
	Ops   float64 `json:"throughput_ops"`
}

// Trace is the WAL of an etcd member that a run replayed, and how true it was to
// it. Deciles are those of the entries' sizes in bytes: 11 figures, of which the
// first is the smallest size and the last the largest.
type Trace struct {
	Dir      string  `json:"dir"`
	Entries  int64   `json:"entries"`          // in the WAL, those that are replayed
	Batches  int64   `json:"batches"`          // runs of entries between two hard states
	Deciles  []int64 `json:"deciles"`          // in the WAL
	Replayed []int64 `json:"replayed"`         // of the entries that were acknowledged
	WorstGap float64 `json:"worst_decile_gap"` // largest |replayed ÷ WAL − 1| of the nine between
}

// Verified is the outcome of reading everything back.
type Verified struct {
	OK    bool  `json:"ok"`
	Acked int64 `json:"acked"` // entries acknowledged to a client
	Lost  int64 `json:"lost"`
	Wrong int64 `json:"wrong"` // index, term or payload differ
	// Detail names the first entries that failed.
	Detail string `json:"detail,omitempty"`
}

// Comparison is one metric of one backend against the baseline.
type Comparison struct {
	Metric   string  `json:"metric"` // "throughput_ops", "response.p99_ns", "save.p50_ns", …
	Baseline string  `json:"baseline"`
	Backend  string  `json:"backend"`
	Config   string  `json:"config,omitempty"` // load, value size, …, where the table has several
	N        int     `json:"n"`                // blocks that hold both
	Ratio    float64 `json:"ratio"`            // median of backend ÷ baseline within the block
	Lo       float64 `json:"lo,omitempty"`     // interval of at least 95 %, see bench/stats
	Hi       float64 `json:"hi,omitempty"`     // absent, as all that follows, below 6 blocks
	P        float64 `json:"p,omitempty"`      // Mann-Whitney
	PHolm    float64 `json:"p_holm,omitempty"` // corrected over the table
	// PPaired is the test within the blocks; absent between suites.
	PPaired        float64 `json:"p_paired,omitempty"`
	PPairedHolm    float64 `json:"p_paired_holm,omitempty"`
	BaselineMedian float64 `json:"baseline_median,omitempty"` // over the same blocks
	BackendMedian  float64 `json:"backend_median,omitempty"`
	Verdict        string  `json:"verdict"` // "faster", "slower", "equivalent", "inconclusive"
}

// Threshold is one demand of --threshold and how it ended.
type Threshold struct {
	Expr    string   `json:"expr"`
	Backend string   `json:"backend"`
	Value   *float64 `json:"value,omitempty"` // in the metric's unit
	OK      bool     `json:"ok"`
	Reason  string   `json:"reason,omitempty"`
}

// PowerCut is one engine's durability under power loss.
type PowerCut struct {
	Backend    string            `json:"backend"`
	Params     map[string]string `json:"params,omitempty"`
	Mode       string            `json:"mode"` // "strict", "ordered"
	Seed       int64             `json:"seed"`
	Cuts       int               `json:"cuts"`
	Acked      int64             `json:"acked"` // acknowledged entries checked
	Lost       int64             `json:"lost"`
	Wrong      int64             `json:"wrong"`
	OpenFailed int               `json:"open_failed"`
	FirstBad   int               `json:"first_bad_cut,omitempty"` // from 1
	Detail     string            `json:"detail,omitempty"`
	Replay     string            `json:"replay,omitempty"` // command that shows the first failure
	Elapsed    time.Duration     `json:"elapsed_ns,omitzero"`
}
