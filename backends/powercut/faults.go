package powercut

import (
	"io"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/powercut/disk"
)

// Outcome is what an engine made of a fault.
type Outcome string

// The outcomes, worst first.
const (
	// Lost: something acknowledged was gone or wrong after the fault, at a later
	// Open on a healthy disk at the latest; or no call had failed, and that Open
	// did.
	Lost Outcome = "lost"
	// Bricked: the call failed, and on a healthy disk Open fails too. Nothing was
	// lost without a word, but the node must be restored from a peer.
	Bricked Outcome = "bricked"
	// LostTail: after a bit flip the last acknowledged Save was missing, as if it
	// had been torn and never acknowledged, and everything before it was there. A
	// log whose last record is damaged cannot tell the two apart.
	LostTail Outcome = "lost tail"
	// WentOn: a call failed, and a later Save was acknowledged.
	WentOn Outcome = "went on"
	// Hung: a call did not return.
	Hung Outcome = "hung"
	// Crashed: the process ended by itself. Nothing was lost; but a program that
	// embeds the engine ends with it.
	Crashed Outcome = "crashed"
	// Stopped: the call failed, and so did every Save after it. Nothing was lost.
	Stopped Outcome = "stopped"
	// Absorbed: no call failed, and nothing was lost: the engine wrote again, or
	// did not need what failed.
	Absorbed Outcome = "absorbed"
	// Waited is Absorbed for a fault that only takes time.
	Waited Outcome = "waited"
	// NotHit: the engine did nothing that the fault could strike.
	NotHit Outcome = "not hit"
)

var outcomesByBadness = []Outcome{Lost, WentOn, Hung, Bricked, LostTail, Crashed, Stopped, Absorbed, Waited, NotHit}

// OK reports whether an engine may do that.
func (o Outcome) OK() bool { return o != Lost && o != WentOn && o != Hung && o != Bricked }

// FaultConfig is one engine's row of faults. Backend is required.
type FaultConfig struct {
	Backend backends.Backend
	Params  map[string]string
	Mode    disk.Mode // of the disk; strict if empty
	Seed    int64
	// Runs of each fault, at different moments; 5 if 0, and ten times as many of
	// bit flips.
	Runs int
	// Only, if not empty, names the faults to inject; see [FaultNames].
	Only  []string
	Dir   string // as in Config
	Child Child
	// Trace, if not nil, receives what happened around each outcome that is not
	// OK.
	Trace io.Writer
	// Progress, if not nil, is told the fault that is about to be injected.
	Progress func(fault string)
}
