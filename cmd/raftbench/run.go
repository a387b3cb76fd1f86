package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/powercut"
	"github.com/raftbench/raftbench/backends/powercut/disk"
	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/bench/remote"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/stats"
	"github.com/raftbench/raftbench/bench/trace"
	"github.com/raftbench/raftbench/node"
	"github.com/raftbench/raftbench/node/transport/grpc"
	"github.com/raftbench/raftbench/node/transport/rafthttp"
	"github.com/raftbench/raftbench/reports"
)

// runFlags are the flags of `raftbench run` as they were given.
type runFlags struct {
	backends, transport, loop, raft, load, workload string
	snapshot                                        string
	valueSize, stateSize, burst, dir, out           string
	nodes, repeats, laps, batch, gomaxprocs         int
	groups                                          int
	groupStorage                                    string
	seed                                            int64
	readRatio, compressible                         float64
	duration, warmup, timeout                       time.Duration
	snapshotEntries, catchUpEntries                 uint64
	thresholds                                      []string
	keep, strict, quiet, json, inProcess            bool
	powercut                                        int
	slowDisk                                        string
	noProbe                                         bool
	file, resume, placement                         string
	cpuProfile, execTrace                           string
	faults, metrics, pprof                          string
	hosts, tls, tokenFile                           string
	links                                           *remote.Hosts // sessions with the agents of --hosts
	given                                           func(flag string) bool
}

const defaultBackends = "etcd-wal,bbolt,badger,pebble,raw,mem"

func (a *app) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Compare backends under one raft loop",
		Long: strings.TrimSpace(`
Run a cluster on each backend in turn, several times in shuffled order, under the
same load; read back everything that was acknowledged; print a table and write
result.json, bench.txt, runs.csv and report.html. What an earlier suite left in the same
--out is kept, in a directory of its own below it.

Exit codes: 0 ok · 1 error · 2 usage · 3 an acknowledged entry was lost or wrong ·
4 the measurement is invalid (with --strict) · 99 a threshold was missed ·
130 interrupted (what was finished is written).`),
		Example: `  raftbench run
  raftbench run --backends etcd-wal,mem --load closed:256 --repeats 10
  raftbench run --backends 'bbolt,bbolt[freelist=array]' --load poisson:2000
  raftbench run --backends raw,mem --transport mem,grpc,rafthttp
  raftbench run --workload snapshot --state-size 16MiB,128MiB
  raftbench run --dir /mnt/nvme/bench --keep
  raftbench run --threshold 'etcd-wal:save.p99<5ms'
  raftbench run --load 'search:p99<10ms' --backends etcd-wal
  raftbench run --workload trace:/var/lib/etcd     # your entries, on every backend
  raftbench run --faults 'at 2s: kill leader; at 4s: start' --load open:2000
  raftbench run --file suite.yaml --out nightly    # the same again goes on where it stopped
  raftbench run --resume nightly`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.runSuite(cmd.Context(), &f, cmd.Flags())
		},
	}
	f.register(cmd)
	return cmd
}

func (f *runFlags) register(cmd *cobra.Command) {
	fl := cmd.Flags()
	f.given = fl.Changed
	fl.StringVar(&f.backends, "backends", defaultBackends, "names from 'raftbench list', each optionally with parameters: bbolt[freelist=array]")
	fl.StringVar(&f.transport, "transport", "", strings.Join(slices.Sorted(maps.Keys(networks())), ", ")+"; a list runs each (default mem; grpc where nodes are processes)")
	fl.StringVar(&f.placement, "placement", "in-process", "in-process, or process: each node in a process of its own; a list runs each")
	fl.StringVar(&f.loop, "loop", "ready", "ready (etcd's loop) or async (AsyncStorageWrites); a list runs each")
	fl.StringVar(&f.raft, "raft", "rawnode", "rawnode (raft.RawNode: who has a message steps it) or node (raft.Node, on a goroutine of its own, as in etcd); a list runs each")
	fl.StringVar(&f.hosts, "hosts", "", "agents that run the nodes, each on its machine: a:7400,b:7400,c:7400; see 'raftbench agent'")
	fl.StringVar(&f.tls, "tls", "", "with --hosts: directory with ca.crt, coordinator.crt and coordinator.key")
	fl.StringVar(&f.tokenFile, "token-file", "", "with --hosts: file with the secret that the agents have, too")
	fl.IntVar(&f.nodes, "nodes", 3, "1 to 9")
	fl.IntVar(&f.groups, "groups", 1, "raft groups, of which every node is a member; the load is spread over them")
	fl.StringVar(&f.groupStorage, "group-storage", "shared", "of several groups: shared, one store for each node where the engine can, or separate; for one backend: pebble[group-storage=separate]")
	fl.StringVar(&f.load, "load", "", "closed:N clients; open:R or poisson:R arrivals a second; curve; search:p99<10ms (default closed:64; the recorded batches for trace:DIR)")
	fl.StringVar(&f.workload, "workload", "propose", "propose, snapshot, restart, age, or trace:DIR")
	fl.Float64Var(&f.readRatio, "read-ratio", 0, "share of linearizable reads, 0 to 1")
	fl.StringVar(&f.valueSize, "value-size", "1KiB", "a size, or A-B for a uniform range")
	fl.Float64Var(&f.compressible, "compressible", 0, "share of each value that compresses away, 0 to 1")
	fl.StringVar(&f.stateSize, "state-size", "64MiB", "sizes of the state (workload snapshot) or of the log (restart, also as '100k entries'), comma-separated")
	fl.StringVar(&f.burst, "burst", "32MiB", "what a burst of the age workload adds to the log")
	fl.StringVar(&f.file, "file", "", "YAML file with these settings, of which several may be lists: the suite is their product; flags win")
	fl.StringVar(&f.resume, "resume", "", "directory of an interrupted result: make what is missing, with its settings")
	fl.DurationVar(&f.duration, "duration", 5*time.Second, "measured time of one run")
	fl.DurationVar(&f.warmup, "warmup", time.Second, "time before it, and as much again where the load is not steady by then; 0 for none")
	fl.StringVar(&f.faults, "faults", "", "timeline of network faults and of nodes that are killed: 'at 5s: cut leader-*; at 8s: heal' (docs/faults.md)")
	fl.DurationVar(&f.timeout, "timeout", 0, "of one operation, which then counts as an error, 1ms to 24h (default 10s, 1s with --faults)")
	fl.IntVar(&f.repeats, "repeats", 3, "blocks, each with every backend once in shuffled order; 10 decide, 20 publish")
	fl.IntVar(&f.laps, "laps", 1, "runs of each backend in a block, in turns; a block counts as their median: what else the machine does meanwhile divides out better than in one long run")
	fl.Int64Var(&f.seed, "seed", 1, "of payloads, schedules and order; 0 is taken for 1")
	fl.StringVar(&f.dir, "dir", "", "where the data goes (default: a new folder under the current directory, removed at the end)")
	fl.BoolVar(&f.keep, "keep", false, "leave the data directories where they are")
	fl.StringVar(&f.out, "out", "", "where the results go; an earlier result there moves to earlier-<its start> below, an interrupted one of the same suite goes on (default: raftbench-out/<UTC time>)")
	fl.StringArrayVar(&f.thresholds, "threshold", nil, "demand, e.g. 'etcd-wal:save.p99<5ms'; repeatable; exit code 99 where it is missed, 2 where no run could meet it")
	fl.IntVar(&f.batch, "batch", 512, "most proposals gathered into one MsgProp; 1 proposes one by one")
	fl.IntVar(&f.gomaxprocs, "gomaxprocs", 0, "Ps while a run is on (default: cores + nodes, with groups cores + logs, of which 30 count; cores for mem)")
	fl.StringVar(&f.snapshot, "snapshot", "stream", "how snapshots travel: stream (in chunks, where the backend can) or plain (as one slice in memory)")
	fl.Uint64Var(&f.snapshotEntries, "snapshot-entries", 100_000, "entries between two snapshots")
	fl.Uint64Var(&f.catchUpEntries, "catch-up-entries", 5000, "entries kept in memory for slow followers")
	fl.StringVar(&f.slowDisk, "slow-disk", "none", "one node's disk: leader:+5ms or follower:+5ms (each sync takes so much longer), leader:stall=2s/10s (it stands still for 2s of every 10s)")
	fl.IntVar(&f.powercut, "powercut", 0, "also make so many power cuts per backend and mode after the measurement (needs root and /dev/fuse)")
	fl.BoolVar(&f.noProbe, "no-probe", false, "do not watch fsync in the kernel (see docs/method.md for what the probe costs)")
	fl.StringVar(&f.cpuProfile, "cpuprofile", "", "CPU profile of what each run measures; cpu.pprof becomes cpu-<run id>.pprof")
	fl.StringVar(&f.execTrace, "trace", "", "execution trace of the same, for 'go tool trace'")
	fl.StringVar(&f.metrics, "metrics", "", "address on which to serve Prometheus metrics while it runs, e.g. :9464; without a host, on loopback")
	fl.StringVar(&f.pprof, "pprof", "", "address for net/http/pprof of the process that makes the run, e.g. :6060; without a host, on loopback")
	fl.BoolVar(&f.strict, "strict", false, "exit code 4 where a flag makes the measurement invalid, or a backend committed nothing in any run")
	fl.BoolVar(&f.quiet, "quiet", false, "no progress")
	fl.BoolVar(&f.json, "json", false, "print result.json instead of the table")
	fl.BoolVar(&f.inProcess, "in-process", false, "make all runs in this process, for profiling")
	cmd.Flag("in-process").Hidden = true
}

// spec turns the flags into a suite; everything wrong with them is told at once.
func (f *runFlags) spec() (bench.Spec, error) {
	s := bench.Spec{
		Dir: f.dir, Keep: f.keep, Transport: f.transport, Placement: bench.Placement(f.placement), Networks: networks(), Loop: node.LoopKind(f.loop), Raft: node.RaftKind(f.raft),
		Nodes: f.nodes, Batch: f.batch, ReadRatio: f.readRatio, Compressible: f.compressible,
		Warmup: f.warmup, NoWarmup: f.warmup == 0, Duration: f.duration, Timeout: f.timeout, Repeats: f.repeats, Laps: f.laps, Seed: f.seed,
		Groups: f.groups, SeparateGroups: f.groupStorage == "separate",
		Snapshots: node.SnapshotMode(f.snapshot), GOMAXPROCS: f.gomaxprocs, Probe: !f.noProbe, SnapshotEntries: f.snapshotEntries, CatchUpEntries: f.catchUpEntries,
		CPUProfile: f.cpuProfile, ExecTrace: f.execTrace, Faults: f.faults,
	}
	if s.Transport == "" && s.Placement != bench.PlacementInProcess {
		s.Transport = "grpc"
	}
	var errs []error
	add := func(err error) { errs = append(errs, err) }
	if f.groupStorage != "shared" && f.groupStorage != "separate" {
		add(usageErrorf("--group-storage %q: want shared or separate", f.groupStorage))
	}
	for _, label := range backends.SplitNames(f.backends) {
		b, err := lookup(label)
		add(err)
		s.Backends = append(s.Backends, b)
	}
	var err error
	s.ReadTrace = trace.Read
	if f.load != "" {
		s.Load, err = bench.ParseLoad(f.load)
		add(err)
	}
	s.Workload, err = bench.ParseWorkload(f.workload)
	add(err)
	s.SlowDisk, err = bench.ParseSlowDisk(f.slowDisk)
	add(err)
	s.ValueSize, s.ValueSizeMax, err = parseSizeRange(f.valueSize)
	add(err)
	sizes, err := parseSizes(f.stateSize, max(s.ValueSize, (s.ValueSize+s.ValueSizeMax)/2))
	add(err)
	if s.Workload.Kind != bench.WorkloadPropose {
		s.StateSizes = sizes
	}
	burst, err := parseSize(f.burst)
	add(err)
	s.BurstBytes = int64(burst)
	for _, zero := range []struct {
		name string
		bad  bool
	}{{"nodes", f.nodes == 0}, {"groups", f.groups == 0}, {"repeats", f.repeats == 0}, {"laps", f.laps == 0}, {"batch", f.batch == 0}, {"duration", f.duration == 0},
		{"snapshot-entries", f.snapshotEntries == 0}, {"catch-up-entries", f.catchUpEntries == 0}, {"timeout", f.timeout == 0 && f.given("timeout")}} {
		if zero.bad { // 0 means the default in a Spec, but nobody types it to mean that
			add(usageErrorf("--%s 0: want more than 0", zero.name))
		}
	}
	if f.powercut < 0 {
		add(usageErrorf("--powercut %d: want 0, or more cuts", f.powercut))
	}
	if f.powercut > 0 && !slices.ContainsFunc(s.Backends, func(b backends.Backend) bool { return b.Durability != backends.None }) {
		add(usageErrorf("--powercut %d: no backend of %s keeps anything that a power cut could take", f.powercut, f.backends))
	}
	if err := errors.Join(errs...); err != nil {
		return s, err
	}
	return s, s.Fill()
}

// parseSizeRange reads 1KiB or 100-4KiB; max is 0 for a fixed size.
func parseSizeRange(s string) (lo, hi int, err error) {
	from, to, ranged := strings.Cut(s, "-")
	if !ranged {
		lo, err = parseSize(s)
		return lo, 0, err
	}
	lo, err = parseSize(from)
	if err == nil {
		hi, err = parseSize(to)
	}
	if err != nil {
		return 0, 0, usageErrorf("size %q: want a size above 0 such as 1KiB, or two such as 100-4KiB", s)
	}
	return lo, hi, nil
}

func parseSize(s string) (int, error) {
	n, err := humanize.ParseBytes(s)
	if err != nil || n == 0 || n > 1<<40 {
		return 0, usageErrorf("size %q: want a size above 0 such as 512, 1KiB or 64MiB", s)
	}
	return int(n), nil
}

// parseSizes reads a list of sizes; "100k entries" are as many values.
func parseSizes(list string, valueBytes int) ([]int64, error) {
	var out []int64
	for s := range strings.SplitSeq(list, ",") {
		if count, ok := strings.CutSuffix(strings.TrimSpace(s), "entries"); ok {
			n, err := parseSize(strings.TrimSpace(count))
			if err != nil {
				return nil, usageErrorf("state size %q: want a number of entries such as '100k entries'", s)
			}
			out = append(out, int64(n)*int64(valueBytes))
			continue
		}
		n, err := parseSize(strings.TrimSpace(s))
		if err != nil {
			return nil, err
		}
		out = append(out, int64(n))
	}
	return out, nil
}

// runSuite is `raftbench run`. flags are those that f was filled from.
func (a *app) runSuite(ctx context.Context, f *runFlags, flags *pflag.FlagSet) (err error) {
	command, err := f.takeUp(flags)
	if err != nil {
		return err
	}
	if err := f.place(flags); err != nil {
		return err
	}
	spec, err := f.suite(flags)
	if err != nil {
		return err
	}
	demands, err := parseThresholds(f.thresholds)
	if err != nil {
		return err
	}
	if err := spec.CheckDemands(demands); err != nil {
		return err
	}
	out, err := openOut(f.out, a.stderr)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := out.Close(); closeErr != nil {
			err = errors.Join(err, closeErr)
		}
	}()
	old, err := out.take(f.resume)
	if err != nil {
		return err
	}
	stamp := func(res *result.Result) {
		res.Command, res.Env.Version = command, version()
	}
	watch, err := f.observe(a.stderr)
	if err != nil {
		return err
	}
	defer watch.Close()
	if err := f.dial(ctx); err != nil {
		return err
	}
	defer f.hangUp()
	if err := f.prepare(&spec, old, watch, func(part *result.Result) error {
		stamp(part)
		return out.checkpoint(part)
	}); err != nil {
		return err
	}
	p := newProgress(a.stderr, f.quiet)
	spec.Progress = func(e bench.Progress) {
		p.show(e, &spec)
		watch.note(e)
	}
	res, err := bench.Run(ctx, spec)
	p.clear()
	if err == nil {
		res.PowerCuts, err = a.cutAll(ctx, spec.Backends, f)
	}
	if res == nil {
		return err
	}
	stamp(res)
	res.Thresholds = stats.Evaluate(demands, res.Runs)
	return a.publish(res, err, out, f)
}

// prepare sets what a suite needs of this process.
func (f *runFlags) prepare(spec *bench.Spec, old *result.Result, watch *observatory, checkpoint func(*result.Result) error) error {
	member, err := memberProcess()
	if err != nil {
		return err
	}
	here := bench.RunOne
	if !f.inProcess {
		here, spec.WriteLog = runInProcess, writeInProcess
		if watch != nil {
			here = watch.runOne
		}
	}
	spec.RunOne = func(ctx context.Context, one bench.One, progress func(bench.Progress)) (result.Run, error) {
		switch one.Placement {
		case bench.PlacementProcess:
			return remote.Processes{Member: member}.RunOne(ctx, one, progress)
		case bench.PlacementHosts:
			return f.links.RunOne(ctx, one, progress)
		}
		return here(ctx, one, progress)
	}
	if f.links != nil {
		spec.Hosts = f.links
	}
	spec.Resume, spec.Checkpoint = old, checkpoint
	if err := spec.Fill(); err != nil { // every configuration gets what was set
		return err
	}
	if old != nil && !f.keep && f.links == nil {
		if err := bench.Reclaim(old.Env.Dir); err != nil {
			return err
		}
	}
	if f.powercut > 0 {
		if err := powercut.Available(); err != nil {
			return fmt.Errorf("--powercut: %w", err)
		}
	}
	return nil
}

// cutAll makes the power cuts of --powercut.
func (a *app) cutAll(ctx context.Context, bs []backends.Backend, f *runFlags) ([]result.PowerCut, error) {
	if f.powercut == 0 {
		return nil, nil
	}
	bs = slices.DeleteFunc(slices.Clone(bs), func(b backends.Backend) bool { return b.Durability != backends.Synced })
	return a.cutEach(ctx, bs, []disk.Mode{disk.Strict, disk.Ordered},
		&powercutFlags{cuts: f.powercut, first: 1, seed: f.seed, json: f.quiet, asMeasured: true})
}

// publish writes and prints what was measured, and decides the exit code. runErr
// is why the suite ended early, if it did.
func (a *app) publish(res *result.Result, runErr error, out *outDir, f *runFlags) error {
	if len(res.Runs) == 0 {
		return interrupted(res, runErr)
	}
	writeErr := out.write(res)
	printErr := a.print(res, f.json) // also where nothing could be written: then it is all there is
	if writeErr == nil {
		fmt.Fprintf(a.stderr, "\nreport: %s\n", filepath.Join(out.path, reports.ReportFile))
	}
	ended := errors.Join(interrupted(res, runErr), writeErr, printErr)
	unproved := judgeCuts(res.PowerCuts, nil)
	switch {
	case bench.Lost(res) || slices.ContainsFunc(res.PowerCuts, cutLost):
		return errors.Join(&exitError{exitLost, errors.New("an acknowledged entry was lost or wrong; see the column verified")}, ended)
	case ended != nil:
		return ended
	case unproved != nil:
		return unproved
	case f.strict && reports.Verdict(res).Validity == reports.Invalid:
		return &exitError{exitInvalid, errors.New("the measurement is invalid; the table says why")}
	case f.strict && idle(res.Runs) != "":
		return &exitError{exitInvalid, fmt.Errorf("the measurement is invalid: %s committed nothing in any run", idle(res.Runs))}
	}
	for _, t := range res.Thresholds {
		if !t.OK {
			return &exitError{exitThreshold, fmt.Errorf("threshold missed: %s (%s): %s", t.Expr, t.Backend, t.Reason)}
		}
	}
	return nil
}

// idle names a backend that committed nothing in any run: there is no figure to look at.
// One run of several is in the medians, and in thresholds.
func idle(runs []result.Run) string {
	moved := map[string]bool{}
	for i := range runs {
		name := stats.Name(&runs[i])
		moved[name] = moved[name] || !slices.Contains(runs[i].Flags, "nothing_committed")
	}
	for i := range runs {
		if name := stats.Name(&runs[i]); !moved[name] {
			return name
		}
	}
	return ""
}

// interrupted is the error of a suite that ended early.
func interrupted(res *result.Result, err error) error {
	if res.Interrupted {
		return &exitError{exitInterrupted, fmt.Errorf("interrupted after %d of %d runs", len(res.Runs), res.Planned)}
	}
	return err
}

func (a *app) print(res *result.Result, asJSON bool) error {
	if asJSON {
		return reports.JSON(a.stdout, res)
	}
	return reports.Table(a.stdout, res, a.tableOptions())
}

// tableOptions fit the table to the terminal, or to 100 columns where there is
// none.
func (a *app) tableOptions() reports.TableOptions {
	o := reports.TableOptions{}
	if a.terminal == nil {
		return o
	}
	if width, _, err := term.GetSize(int(a.terminal.Fd())); err == nil {
		o.Width = width
	}
	o.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return o
}

func parseThresholds(exprs []string) ([]stats.Demand, error) {
	var demands []stats.Demand
	var errs []error
	for _, e := range exprs {
		d, err := stats.Threshold(e)
		if err != nil {
			errs = append(errs, usageErrorf("--threshold %v", err))
			continue
		}
		demands = append(demands, d)
	}
	return demands, errors.Join(errs...)
}

// networks are the transports of this build.
func networks() bench.Networks {
	ns := bench.DefaultNetworks()
	ns["grpc"] = func() (node.Network, error) { return grpc.New(grpc.Options{}), nil }
	ns["rafthttp"] = func() (node.Network, error) { return rafthttp.New(rafthttp.Options{}), nil }
	return ns
}
