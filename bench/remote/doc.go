// Package remote makes runs whose nodes are in processes of their own, on this
// machine ([Processes]) or on others ([Hosts], [Agent]).
//
// # Who does what
//
//	coordinator ── frames ──▶ member 1   (bench.Member: one node, its storage,
//	     │                      │ ▲        and on one of them the load)
//	     ├──────────────────▶ member 2
//	     │                      │ ▲
//	     └─ TLS ─▶ agent ─────▶ member 3
//
// A member is this program, started again by whoever is on its machine: the
// coordinator itself, or an agent. It obeys what comes in through its standard
// input and answers through its standard output; when the input ends, so does the
// member. Nobody else can talk to it, and nothing of it outlives whoever started it.
// Across machines the agent passes the same frames on, both ways, over a connection
// on which both sides have proved who they are.
//
// The coordinator starts all members, tells them where the others are, waits for a
// leader, and has the leader's process make the load: so no message of the
// harness lies between a client and its leader. Followers count meanwhile. Then
// each process reports what it used and saw, histograms as histograms; what was
// acknowledged goes from the leader's process to all others (8 bytes an entry,
// because payloads follow from ids), and each looks for it in what it stored.
//
// Clocks are never compared: every duration is between two readings in one
// process. The measured time of the followers begins when they hear of it, a
// message's time after the leader's.
package remote
