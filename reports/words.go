package reports

// sectionIntro says how to read a section, to someone who reads one for the
// first time.
var sectionIntro = map[string]string{
	"scoreboard": "Medians over the runs. Response time runs from the moment an operation should have been sent until the node that proposed it has applied it. " +
		"Save is the call that must make entries durable, on the leader; × floor is that time as a multiple of a synced raw write of the same size on the same disk.",
	"curve":       "Each point is a load; a hollow one did not reach the rate that was offered. Where the line turns up, queues begin.",
	"effects":     "Ratios are taken within each block, so that what drifts slowly in the machine divides out. The interval holds the true ratio with 95 % confidence; the shaded band is noise.",
	"percentiles": "How slow the slow ones are: the further right, the rarer. Lines end where fewer than 10 operations lie beyond.",
	"stages":      "Mean times of the stages that an operation passes on its way, added up. Means, not percentiles: the stages of the slowest operations may look different.",
	"time":        "One run of each backend, the one with the median throughput; the band is the range over all its runs. Grey is warm-up, which does not count. Axes are shared unless a row says otherwise.",
	"snapshots": "What a follower pays to catch up by snapshot, and a node to come back: to open its store again, and to be ready, with its loop running and its state machine replayed. " +
		"Files are in the page cache, as after a crash of the process alone.",
	"repeats": "Every run, in the order in which they were made, as the deviation from its backend’s median. If all move together, the machine moved; the top row is the raw disk itself.",
}

// sectionEmpty says why a section has nothing to show, and how to get it.
var sectionEmpty = map[string]string{
	"scoreboard":  "No run has figures.",
	"curve":       "Not measured in this run: --load curve measures every backend at 10 % to 110 % of its maximum, and --load 'search:p99<10ms' finds the highest rate that holds an objective.",
	"effects":     "Nothing to compare: there is one backend of this durability class, or no block holds two.",
	"percentiles": "Not measured in this run: no latency distribution was recorded.",
	"stages":      "Not measured in this run: no stages were recorded.",
	"time":        "Not measured in this run: no time series was recorded.",
	"snapshots":   "Not measured in this run: --workload snapshot and --workload restart measure them for a list of sizes.",
	"repeats":     "Only one run was made of each backend: there is no scatter to show.",
}

// eventWords are the kinds of events in words.
var eventWords = map[string]string{
	"gc": "garbage collection", "leader": "new leader", "cut": "network cut", "heal": "network healed",
	"kill": "killed", "restart": "restarted", "pause": "paused", "resume": "resumed",
}

// methodNotes are how the figures came about, for the last section.
var methodNotes = []string{
	"One raft loop, that of etcd, drives every backend; a difference between two results is a difference between two backends.",
	"Every operation carries three time stamps: when it should have been sent, when it was sent, when it was applied. Response is applied − intended, service is applied − sent. " +
		"In a closed loop the two are the same: a client that waits sends nothing, and a stall hides the requests that were never sent. Use --load open:R where that matters.",
	"A run is the unit of every statistic; the operations within it are not independent. Blocks hold every backend once, in seeded random order.",
	"Medians carry an order-statistic interval of at least 95 %, which needs 6 runs. Ratios carry the wider of that and of a bootstrap interval. " +
		"“Faster” and “slower” need an interval that excludes 1 and a test that holds after Holm’s correction for reading many of them; “equivalent” needs an interval inside ±3 %; all else is “inconclusive”.",
	"After every run the store is closed, reopened and read back: index, term and payload hash of every acknowledged entry are compared.",
	"The device floor is a preallocated, pre-written file that is overwritten and synced with fdatasync, measured in the same directory before, between and after the blocks.",
	"fsync latency is what the kernel saw (source “kernel”) or, where that was not allowed, what the engine’s own file layer saw (source “engine”). Where neither could be had it is absent.",
	"A figure that was not measured is shown as “–” and never as 0.",
}
