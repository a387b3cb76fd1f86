package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench/disk"
	"github.com/raftbench/raftbench/bench/load"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/node"
)

// Spec describes a suite: every backend, Repeats times. The zero value of an
// optional field means its default.
type Spec struct {
	Backends []backends.Backend `json:"-"` // at least one
	Dir      string             // where the data goes; see [Workspace]
	Keep     bool               // leave the data where it is

	Transport string        // default "mem"
	Networks  Networks      `json:"-"` // how transports are made; default [DefaultNetworks]
	Loop      node.LoopKind // default ready
	Raft      node.RaftKind // how raft is driven; default rawnode
	Nodes     int           // 1 to 9; default 3
	Placement Placement     // where the nodes run; default in-process, the others need RunOne
	Batch     int           // most proposals in one MsgProp; default 512
	// Groups is how many raft groups every node is a member of; default 1. With
	// more, a node keeps all in one store where the backend can (OpenShared), unless
	// SeparateGroups, and all send over one network.
	Groups         int
	SeparateGroups bool

	Workload     Workload // default propose
	Load         Load     // default Closed(64)
	ReadRatio    float64  // share of linearizable reads
	ValueSize    int      // bytes; default 1024
	ValueSizeMax int      // upper end of a uniform range; 0: fixed size
	Compressible float64  // share of each value that compresses away; default 0
	StateSizes   []int64  // bytes of state (snapshot), or of log (restart); default 64 MiB
	SlowDisk     SlowDisk `json:",omitzero"` // one node's disk; default: none is slow

	Cycles     int   // of the age workload; default 20, of which 6 at either end are compared
	BurstBytes int64 // that each but the first 6 adds to the log before it is measured; default 32 MiB

	Warmup   time.Duration // default 1 s; NoWarmup leaves it out
	NoWarmup bool
	Duration time.Duration // default 5 s
	Ops      int64         // measure so many operations instead of a time
	Timeout  time.Duration // of one operation; default 10 s, with Faults 1 s
	Repeats  int           // blocks; default 3
	Laps     int           // runs of each backend in a block, in turns; default 1
	Seed     int64         // default 1

	// Snapshots is whether the Data of snapshots is streamed where an engine can;
	// default node.SnapshotStream.
	Snapshots node.SnapshotMode
	// SnapshotEntries and CatchUpEntries as in node.Config, with its defaults.
	SnapshotEntries, CatchUpEntries uint64
	// GOMAXPROCS while a run is on; default cores + nodes where storage syncs,
	// because a blocking fsync holds a P; cores for a backend that never blocks.
	GOMAXPROCS int

	Probe        bool // look for fsync in the kernel
	NoCalibrate  bool // leave the device floor out
	NoRecorders  bool // record only what was acknowledged, to measure what recording costs
	NoSnapshots  bool // propose: leave the snapshot install at the end out
	CalibrateFor time.Duration

	timersOnly bool // see load.Config

	// Faults is a timeline of network faults and of nodes that are killed and started,
	// counted from the start of measuring; see node/transport/faulty for its grammar.
	Faults string

	// CPUProfile and ExecTrace, if set, name the files that get a CPU profile (for
	// go tool pprof) and an execution trace (for go tool trace) of what each run
	// measures; the run's id goes in front of the extension.
	CPUProfile, ExecTrace string

	// Hosts, if set, are the machines where the nodes are.
	Hosts HostSet `json:"-"`
	// RunOne makes one run; default [RunOne] in this process. The command runs
	// itself instead, so that no backend's leftovers count for the next.
	RunOne func(ctx context.Context, one One, progress func(Progress)) (result.Run, error) `json:"-"`
	// Progress, if set, hears of phases and finished runs. It is called from one
	// goroutine at a time and must not block.
	Progress func(Progress) `json:"-"`
	// Watch, if set, hears of the run while it runs. It is for a single run: a process
	// that makes several would need one for each.
	Watch Watcher `json:"-"`
	// Matrix, if not empty, holds the configurations to measure instead of this
	// one: every block makes the runs of each, in one shuffled order. Variant must
	// tell them apart. What frames the suite counts here alone: Dir, Keep, Repeats,
	// Seed, calibration, and the functions.
	Matrix []Spec `json:"-"`
	// Variant names a configuration of a matrix in the ids of its runs.
	Variant string
	// Resume is what an interrupted process made of the same suite: its runs are
	// not made again.
	Resume *result.Result `json:"-"`
	// Checkpoint, if set, gets what is finished after every run, marked as
	// interrupted. It must not keep or change it. Its error ends the suite.
	Checkpoint func(*result.Result) error `json:"-"`
	// WriteLog, if set, has another process call [WriteLog], and kills it where
	// one.Killed. Without it the log of the restart workload is written by the
	// process that opens it, and nothing is killed.
	WriteLog func(ctx context.Context, one One) error `json:"-"`
	// ReadTrace reads the WAL directory of an etcd member for the trace workload.
	ReadTrace func(dir string) (*load.Trace, error) `json:"-"`
}

// One is a single run: what is left of a Spec when the matrix is expanded.
type One struct {
	Spec
	Backend   backends.Backend `json:"-"`
	Block     int              // from 1
	Lap       int              // from 1, within the block
	Order     int              // from 1
	StateSize int64
	RunDir    string // of this run alone
	Killed    bool   // restart: the process that wrote the log was killed
	Written   bool   // restart: the log is in RunDir
}

// ID names the run within its suite.
func (o One) ID() string {
	id := fmt.Sprintf("%03d-%s", o.Block, o.Backend.Label())
	if o.Workload.Kind != "" && o.Workload.Kind != WorkloadPropose {
		id += "-" + string(o.Workload.Kind)
	}
	if o.Variant != "" {
		id += "-" + o.Variant
	}
	if o.Laps > 1 {
		id += fmt.Sprintf("-lap-%02d", o.Lap)
	}
	switch {
	case o.Load.Step > 0:
		id += fmt.Sprintf("-search-%02d", o.Load.Step)
	case o.Load.Point != "":
		id += "-" + o.Load.Point
	}
	if o.StateSize > 0 {
		id += "-" + strconv.FormatInt(o.StateSize, 10)
	}
	if o.Killed {
		id += "-killed"
	}
	return id
}

// Progress is what a run is doing.
type Progress struct {
	Block, Blocks int
	Order, Runs   int
	Backend       string
	Phase         string // "plan" once, when everything was checked; "calibrate"; of a run "start", "warm-up", "measure", "drain", "snapshot", "verify", "done"
	Ops           float64
	P99           time.Duration
	Elapsed       time.Duration // of the phase
	Left          time.Duration // of the suite, estimated
	Run           *result.Run   // phase "done"
}

// UsageError is an input that no machine could run.
type UsageError struct{ Reason string }

func (e *UsageError) Error() string { return e.Reason }

func usage(format string, args ...any) error {
	return &UsageError{Reason: fmt.Sprintf(format, args...)}
}

// Placement is where the nodes of a run are.
type Placement string

// The placements. Package bench/remote makes runs of the last two.
const (
	PlacementInProcess Placement = "in-process" // all in one
	PlacementProcess   Placement = "process"    // each in its own, on this machine
	PlacementHosts     Placement = "hosts"      // each in its own, on a machine of its own
)

// HostSet is the machines of the placement hosts, in the order of the nodes.
type HostSet interface {
	// Describe returns address and environment of each.
	Describe(ctx context.Context) ([]result.Host, error)
	// Calibrate measures the device floor of each.
	Calibrate(ctx context.Context, opts disk.Options) ([][]result.Calibration, error)
}

// remote reports whether nodes of one run are in several processes.
func (p Placement) remote() bool { return p != "" && p != PlacementInProcess }

// checkPlacement checks what the placement demands of the rest.
func (s *Spec) checkPlacement(check func(ok bool, format string, args ...any)) {
	switch s.Placement {
	case "", PlacementInProcess:
		return
	case PlacementProcess, PlacementHosts:
		check(s.CPUProfile == "" && s.ExecTrace == "", "placement %s: profiles are of one process; use the placement in-process", s.Placement)
	default:
		check(false, "placement %q: want in-process, process or hosts", s.Placement)
		return
	}
	check(s.Placement != PlacementHosts || !s.Keep, "data on other hosts cannot be kept: their agents remove it")
	check(!DefaultNetworks().known(s.Transport), "placement %s: the transport %s does not leave its process; use grpc or rafthttp", s.Placement, s.Transport)
	check(s.Workload.Kind == WorkloadPropose, "placement %s is possible with the workload propose, not %s", s.Placement, s.Workload)
}

// LoadKind is how operations arrive.
type LoadKind string

// The kinds of load.
const (
	LoadClosed  LoadKind = "closed"  // N clients, each waits for its answer
	LoadOpen    LoadKind = "open"    // constant rate
	LoadPoisson LoadKind = "poisson" // random arrivals
	LoadCurve   LoadKind = "curve"   // the maximum, then shares of it
	LoadSearch  LoadKind = "search"  // the highest rate that holds an SLO
	LoadTrace   LoadKind = "trace"   // the batches of a trace, one after the other
)

// Load is what the generator is asked for.
type Load struct {
	Kind    LoadKind
	Clients int
	Rate    float64       // operations a second
	Metric  string        // search: "p50", "p90", "p99", "p999"
	SLO     time.Duration // search: the response's percentile stays below
	Point   string        // of a curve or search
	Share   float64
	Step    int // of a search, from 1
}

// Closed is a load of n clients that each wait for their answer.
func Closed(n int) Load { return Load{Kind: LoadClosed, Clients: n} }

// Open is a load of rate operations a second at constant gaps.
func Open(rate float64) Load { return Load{Kind: LoadOpen, Rate: rate} }

// Poisson is a load of rate operations a second at random gaps.
func Poisson(rate float64) Load { return Load{Kind: LoadPoisson, Rate: rate} }

// String is the form that [ParseLoad] reads.
func (l Load) String() string {
	switch l.Kind {
	case LoadClosed:
		return fmt.Sprintf("closed:%d", l.Clients)
	case LoadOpen, LoadPoisson:
		return fmt.Sprintf("%s:%s", l.Kind, strconv.FormatFloat(l.Rate, 'f', -1, 64))
	case LoadSearch:
		return "search:" + l.objective()
	}
	return string(l.Kind)
}

// ParseLoad reads closed:N, open:R, poisson:R, curve, or search:p99<10ms.
func ParseLoad(s string) (Load, error) {
	kind, arg, _ := strings.Cut(s, ":")
	switch LoadKind(kind) {
	case LoadClosed:
		n, err := strconv.Atoi(arg)
		if err != nil || n < 1 || n > 1<<20 {
			return Load{}, usage("load %q: want closed:N with 1 to %d clients", s, 1<<20)
		}
		return Closed(n), nil
	case LoadOpen, LoadPoisson:
		rate, err := strconv.ParseFloat(arg, 64)
		if err != nil || !(rate >= 0.1 && rate <= 1e8) {
			return Load{}, usage("load %q: want %s:R with 0.1 to 100000000 operations a second", s, kind)
		}
		return Load{Kind: LoadKind(kind), Rate: rate}, nil
	case LoadCurve, LoadTrace:
		if arg == "" {
			return Load{Kind: LoadKind(kind)}, nil
		}
	case LoadSearch:
		metric, limit, ok := strings.Cut(arg, "<")
		slo, err := time.ParseDuration(limit)
		if ok && err == nil && slo > 0 && slices.Contains([]string{"p50", "p90", "p99", "p999"}, metric) {
			return Load{Kind: LoadSearch, Metric: metric, SLO: slo}, nil
		}
		return Load{}, usage("load %q: want search:METRIC<DURATION, e.g. search:p99<10ms, with p50, p90, p99 or p999", s)
	}
	return Load{}, usage("load %q: want closed:N, open:R, poisson:R, curve, or search:p99<10ms", s)
}

// WorkloadKind is what is done to the cluster.
type WorkloadKind string

// The workloads.
const (
	WorkloadPropose  WorkloadKind = "propose"  // proposals, and a snapshot install at the end
	WorkloadSnapshot WorkloadKind = "snapshot" // installs for a list of state sizes
	WorkloadRestart  WorkloadKind = "restart"  // Open against log size
	WorkloadAge      WorkloadKind = "age"      // bursts and truncation in cycles
	WorkloadTrace    WorkloadKind = "trace"    // entry sizes of a real etcd member
)

// Workload is a kind and its argument.
type Workload struct {
	Kind WorkloadKind
	Dir  string // trace: the WAL directory
}

// String is the form that [ParseWorkload] reads.
func (w Workload) String() string {
	if w.Dir != "" {
		return string(w.Kind) + ":" + w.Dir
	}
	return string(w.Kind)
}

// ParseWorkload reads propose, snapshot, restart, age, or trace:DIR.
func ParseWorkload(s string) (Workload, error) {
	kind, dir, _ := strings.Cut(s, ":")
	w := Workload{Kind: WorkloadKind(kind), Dir: dir}
	switch w.Kind {
	case WorkloadPropose, WorkloadSnapshot, WorkloadRestart, WorkloadAge:
		if dir == "" {
			return w, nil
		}
	case WorkloadTrace:
		if dir != "" {
			return w, nil
		}
		return w, usage("workload trace: want trace:DIR with the WAL directory of an etcd member")
	}
	return w, usage("workload %q: want propose, snapshot, restart, age, or trace:DIR", s)
}

const (
	maxNodes        = 9
	maxRepeats      = 10_000
	maxLaps         = 1000
	maxValueBytes   = 16 << 20
	maxStateBytes   = 8 << 30
	defaultStateLen = 64 << 20
	// mostKeys is the number of keys that proposals write: with 1 KiB values a
	// state of 4 MiB, so that snapshots every SnapshotEntries cost little beside
	// the log and an install at the end shows a cost. Of large values there are fewer, so
	// that the state stays below mostState, but at least fewestKeys.
	mostKeys   = 4096
	fewestKeys = 4
	mostState  = 64 << 20
)

// stateKeys is the number of keys that proposals write.
func (o One) stateKeys() int { return min(mostKeys, max(fewestKeys, mostState/o.meanValue())) }

// Fill applies the defaults and checks everything that can be checked before any
// work starts. Errors are of type *[UsageError].
func (s *Spec) Fill() error {
	s.defaults()
	if len(s.Matrix) > 0 {
		return s.fillMatrix()
	}
	if len(s.Backends) == 0 {
		return usage("no backend given")
	}
	seen := map[string]bool{}
	for _, b := range s.Backends {
		if b.Open == nil || b.Name == "" {
			return usage("backend %q has no name or no Open", b.Name)
		}
		if seen[b.Label()] {
			return usage("backend %s is given twice", b.Label())
		}
		seen[b.Label()] = true
	}
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, usage(format, args...))
		}
	}
	check(s.Nodes >= 1 && s.Nodes <= maxNodes, "nodes %d: want 1 to %d", s.Nodes, maxNodes)
	check(s.Loop == node.LoopReady || s.Loop == node.LoopAsync, "loop %q: want ready or async", s.Loop)
	check(s.Raft == node.RaftNode || s.Raft == node.RaftRawNode, "raft %q: want node or rawnode", s.Raft)
	check(s.Snapshots == node.SnapshotStream || s.Snapshots == node.SnapshotPlain, "snapshot %q: want stream or plain", s.Snapshots)
	check(s.Networks.known(s.Transport), "transport %q: want one of %s", s.Transport, strings.Join(s.Networks.names(), ", "))
	check(s.ValueSize >= 16 && s.ValueSize <= maxValueBytes && s.ValueSizeMax <= maxValueBytes,
		"value size %d B: want 16 B to 16 MiB (the first 16 bytes hold the operation's id and key)", s.ValueSize)
	check(s.ValueSizeMax == 0 || s.ValueSizeMax >= s.ValueSize, "value size %d-%d: the range is empty", s.ValueSize, s.ValueSizeMax)
	check(s.Compressible >= 0 && s.Compressible <= 1, "compressible %v: want 0 to 1", s.Compressible)
	check(s.ReadRatio >= 0 && s.ReadRatio <= 1, "read ratio %v: want 0 to 1", s.ReadRatio)
	check(s.Duration >= 100*time.Millisecond && s.Duration <= 24*time.Hour, "duration %v: want 100ms to 24h", s.Duration)
	check(s.Warmup == 0 || s.Warmup >= time.Millisecond && s.Warmup <= time.Hour, "warm-up %v: want 0, or 1ms to 1h", s.Warmup)
	check(s.Timeout >= time.Millisecond && s.Timeout <= 24*time.Hour, "timeout %v: want 1ms to 24h", s.Timeout)
	check(s.Repeats >= 1 && s.Repeats <= maxRepeats, "repeats %d: want 1 to %d", s.Repeats, maxRepeats)
	check(s.Laps >= 1 && s.Laps <= maxLaps, "laps %d: want 1 to %d", s.Laps, maxLaps)
	check(s.Laps == 1 || s.Load.Kind != LoadCurve && s.Load.Kind != LoadSearch,
		"laps %d: a %s is a series of runs already; give repeats instead", s.Laps, s.Load.Kind)
	check(s.Batch >= 1 && s.Batch <= 1<<16, "batch %d: want 1 to 65536", s.Batch)
	s.checkGroups(check)
	check(s.GOMAXPROCS >= 0 && s.GOMAXPROCS <= 1024, "gomaxprocs %d: want 0 (automatic) to 1024", s.GOMAXPROCS)
	check(s.Workload.Kind != WorkloadSnapshot || s.Nodes >= 3, "workload snapshot cuts a follower off and needs 3 nodes, not %d", s.Nodes)
	s.checkWorkload(check)
	s.checkPlacement(check)
	s.checkProfiles(check)
	s.checkFaults(check)
	s.checkSlowDisk(check)
	for _, size := range s.StateSizes {
		check(size >= 1<<10 && size <= maxStateBytes, "state size %d B: want 1 KiB to 8 GiB", size)
	}
	return errors.Join(errs...)
}

func (s *Spec) defaults() {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&s.Nodes, 3)
	def(&s.Batch, 512)
	def(&s.ValueSize, 1024)
	def(&s.Repeats, 3)
	def(&s.Laps, 1)
	def(&s.Groups, 1)
	if s.Groups > 1 {
		s.Backends = slices.Clone(s.Backends)
		for i, b := range s.Backends {
			s.Backends[i] = b.ForGroups(s.SeparateGroups)
		}
	}
	def(&s.Cycles, ageCycles)
	if s.BurstBytes == 0 {
		s.BurstBytes = ageBurstBytes
	}
	if s.Seed == 0 {
		s.Seed = 1
	}
	if s.Transport == "" {
		s.Transport = "mem"
	}
	if s.Loop == "" {
		s.Loop = node.LoopReady
	}
	if s.Raft == "" {
		s.Raft = node.RaftRawNode
	}
	if s.Snapshots == "" {
		s.Snapshots = node.SnapshotStream
	}
	if s.Workload.Kind == "" {
		s.Workload.Kind = WorkloadPropose
	}
	if s.Load.Kind == "" {
		s.Load = Closed(64)
		if s.Workload.Kind == WorkloadTrace {
			s.Load = Load{Kind: LoadTrace}
		}
	}
	if s.Duration == 0 {
		s.Duration = 5 * time.Second
	}
	if s.Warmup == 0 && !s.NoWarmup {
		s.Warmup = time.Second
	}
	if s.Timeout == 0 {
		s.Timeout = 10 * time.Second
		if s.Faults != "" {
			s.Timeout = faultTimeout
		}
	}
	if s.SnapshotEntries == 0 {
		s.SnapshotEntries = 100_000
	}
	if s.CatchUpEntries == 0 {
		s.CatchUpEntries = 5_000
	}
	if len(s.StateSizes) == 0 && (s.Workload.Kind == WorkloadSnapshot || s.Workload.Kind == WorkloadRestart) {
		s.StateSizes = []int64{defaultStateLen}
	}
	if s.Networks == nil {
		s.Networks = DefaultNetworks()
	}
	if s.RunOne == nil {
		s.RunOne = RunOne
	}
}
