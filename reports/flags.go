package reports

// Severity is how much a flag takes away from a result.
type Severity int

const (
	// Warns: the figures hold, with the caveat that the flag names.
	Warns Severity = iota
	// Invalidates: no conclusion may be drawn from the runs that carry the flag.
	Invalidates
)

func (s Severity) String() string {
	if s == Invalidates {
		return "invalidates"
	}
	return "warns"
}

// Flag explains one reason to doubt a run, by the name under which it stands in
// result.json.
type Flag struct {
	Name     string
	Severity Severity
	Title    string // a few words, for a badge
	Meaning  string // what was seen and why it matters, one or two sentences
	Action   string // what to do about it
}

// Flags is the registry of every flag that raftbench sets, in the order in
// which reports list them. A name that is not here is shown as it stands.
var Flags = []Flag{
	{"lost", Invalidates, "acknowledged data lost",
		"After the run the store was reopened, and an entry that a client had been told was safe was missing or differed.",
		"Do not use this backend with these options. The run’s directory (--keep) holds the evidence; report it to the engine."},
	{"powercut_lost", Invalidates, "lost data in a power cut",
		"Under simulated power cuts the store lost or changed an acknowledged entry, or could not be opened any more.",
		"Do not use this backend with these options where power can fail. The table of power cuts names the command that replays the first failure."},
	{"run_failed", Invalidates, "run failed",
		"The run ended with an error and has no figures.",
		"Read the error in the list of runs; nothing is known about this backend until it is fixed."},
	{"not_verified", Invalidates, "not verified",
		"What was acknowledged was not read back from the store, so nothing shows that the speed was honest.",
		"Run again without switching verification off."},
	{"fake_disk", Invalidates, "device does not persist",
		"The raw device answers a synced write in under 10 µs. A device that keeps data through a power cut takes longer: this one probably answers from memory.",
		"Measure on the disk that you will use, with its write cache honest; on a virtual machine check the host’s cache mode."},
	{"tmpfs", Invalidates, "in memory, not on a disk",
		"The data directory is on a file system in memory, so a sync costs nothing.",
		"Give --dir a directory on a real disk."},
	{"generator_limited", Invalidates, "load generator too slow",
		"The generator sent operations late: the 99th percentile of its lag is over 10 % of that of the response time. The response times contain the generator’s own delay.",
		"Lower the rate, give the machine more cores, or run the load from other machines with agents."},
	{"nothing_committed", Invalidates, "nothing was committed",
		"Through all of the measured time nothing was committed. The run has a throughput of 0 and no response times, and no verdict is given beside it.",
		"Look for what stopped it in its events and errors, or measure for longer than the disk stalls."},
	{"not_steady", Warns, "not steady",
		"Throughput still moved while it was measured: five windows of the run differed by more than 20 % of their mean, or drifted by more than 10 %. Another duration would give other figures.",
		"Use a longer --warmup and --duration, and a machine with nothing else on it."},
	{"harness_limited", Warns, "limited by the harness",
		"The backend reached more than 80 % of what the harness reaches with a store that keeps nothing. It may be faster than is shown; a small difference to others says nothing.",
		"Use more cores or larger values; compare Save times instead of operations a second."},
	{"floor_drift", Warns, "the disk changed speed",
		"The raw disk’s own median moved by more than 10 % between the calibrations before, between and after the blocks.",
		"Compare within blocks only, as the ratios here do. Absolute figures and × floor are as uncertain as the drift. Look for other load on the disk, or a burst limit of a cloud volume."},
	{"floor_missing", Warns, "device floor not measured",
		"There is no calibration of the raw disk, so nothing says how far a backend is from its limit.",
		"Run with calibration on, on a disk with room for it."},
	{"save_floor_missing", Warns, "no floor at this size",
		"The raw disk was not measured at the size of this run’s Saves, so × floor is absent.",
		"Run again on the same directory; the floor is measured at 2300 B, 4 KiB, 64 KiB and 1 MiB."},
	{"few_repeats", Warns, "too few repeats",
		"A run is the unit of every statistic. Under 6 repeats there is no 95 % interval, and under 10 a difference decides little.",
		"Use --repeats 10 to decide, --repeats 20 to publish."},
	{"leader_changed", Warns, "the leader changed",
		"Leadership moved while it was measured; operations waited for an election.",
		"Look at the time series for the stall, and at the heartbeat and election timeouts against the disk’s slowest sync."},
	{"follower_behind", Warns, "a follower fell behind",
		"At the end of the run a follower had not applied what the leader had committed: two nodes carried the load of three.",
		"Lower the load or lengthen the run; the figures describe a cluster that is losing a member."},
	{"node_died", Warns, "a node died",
		"The process of a node ended, or its storage failed, before the run was over. The others went on; what was acknowledged was looked for on those that were left, and costs that all processes share are absent.",
		"Read the event of the run: it has the reason and the node’s last words. Free memory and disk are what to look at first."},
	{"snapshot_livelock", Warns, "a follower would never catch up",
		"Installing a snapshot took longer than the leader takes from one snapshot to the next at the highest rate that was seen, or the follower needed a second one: when it is done, the entries that follow are gone, and it starts again (etcd issue 5317).",
		"Take snapshots less often (--snapshot-entries), keep more entries for slow followers (--catch-up-entries), or keep the state smaller."},
	{"errors", Warns, "operations failed",
		"Some operations failed or timed out. They are counted in the response times at the time they were given up.",
		"Look at the error count; lower the rate if the backlog grew."},
	{"late_heartbeats", Warns, "late heartbeats",
		"The leader sent heartbeats late, which is how etcd notices that a disk or CPU is overloaded.",
		"See whether Save’s p99 comes near the heartbeat interval; use a faster disk or fewer clients."},
	{"overlay", Warns, "overlay file system",
		"The data directory is on an overlay file system, whose first write to a file copies it.",
		"Give --dir a directory on a volume, outside of the container’s layers."},
	{"steal", Warns, "CPU taken by the host",
		"The hypervisor held CPU back for part of the time: it gave it to others, or this machine has a quota. A quota that is used up stops the machine for the rest of a period, often 100 ms, and the work for its disks may count. Such stops are in every p99.",
		"Use a dedicated machine without a quota, or more repeats spread over hours."},
	{"throttled", Warns, "stopped by a CPU quota",
		"A cgroup’s CPU quota was used up in more than one of a hundred of its periods: then all nodes stood still until the period, often 100 ms, was over. Such stops are in every p99, and a backend that takes more CPU has more of them.",
		"Raise or remove the limit (in a container, that on CPU), or measure at a lower rate."},
	{"pressure", Warns, "busy machine",
		"Other programs competed for CPU, memory or disk (pressure stall information).",
		"Stop them, or repeat when the machine is idle."},
	{"fsync_missing", Warns, "fsync not seen",
		"Neither the kernel nor the engine could be watched for sync calls, so fsync latency and fsyncs per operation are absent.",
		"Run as root (or with CAP_BPF and CAP_PERFMON) for kernel figures."},
	{"gomaxprocs_low", Warns, "GOMAXPROCS under cores + nodes",
		"A thread in fsync holds its processor slot: with too few of them the CPU idles and sync times look longer than they are.",
		"Leave GOMAXPROCS to raftbench, or set it to cores + nodes."},
	{"interrupted", Warns, "interrupted",
		"The suite was stopped before every run was made; backends may have unequal numbers of runs.",
		"Run the whole suite; seed and command are below."},
	{"machine", Warns, "seen on the machine",
		"Before the first run something was found that may disturb what is measured on this machine, or limit what it says.",
		"Mend it and repeat, or pass it on with the figures."},
	{"dirty_build", Warns, "built from changed sources",
		"The program was built from a tree with changes that are in no commit; nobody else can build the same.",
		"Commit, rebuild, and measure again before you publish."},
}

// FlagByName explains a flag. An unknown one is returned under its own name as
// a warning, so that a report of a newer raftbench still says what it carried.
func FlagByName(name string) Flag {
	for _, f := range Flags {
		if f.Name == name {
			return f
		}
	}
	return Flag{Name: name, Severity: Warns, Title: clean(name),
		Meaning: "This report does not know the flag " + clean(name) + "; a newer raftbench set it.",
		Action:  "Read the documentation of the version that made the result."}
}
