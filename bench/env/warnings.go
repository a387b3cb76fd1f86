package env

import (
	"fmt"
	"slices"

	"github.com/dustin/go-humanize"

	"github.com/raftbench/raftbench/bench/result"
)

const (
	lowSpaceBytes  = 5 << 30 // a default run writes 1 to 2 GiB, and full disks are slow before they are full
	busyLoadShare  = 0.5     // load average per core before anything was started
	busyIOPercent  = 5.0     // PSI: share of the last 10 s in which something waited for a disk
	busyStealShare = 0.02    // of the CPU time that the host gave to others
)

// memory file systems keep nothing through a power cut; their sync is a no-op.
var memoryFS = []string{"tmpfs", "ramfs", "devtmpfs"}

// networkFS have a floor that is a network's.
var networkFS = []string{"nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "fuse.sshfs"}

// Warnings are the reasons in e to doubt what is measured in it, each a sentence
// for the report. Pressure is judged before the run only: afterwards it is the
// run's own.
func Warnings(e result.Env) []string {
	var out []string
	warn := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	switch {
	case slices.Contains(memoryFS, e.FileSystem):
		warn("the data is on %s, in memory: nothing survives a power cut, and a sync costs nothing", e.FileSystem)
	case e.FileSystem == "overlay":
		warn("the data is on an overlay file system: what is measured is the container's layers; mount a volume and use --dir")
	case slices.Contains(networkFS, e.FileSystem):
		warn("the data is on %s: what is measured is a network and a server", e.FileSystem)
	}
	if unsafeMount(e.MountOptions) {
		warn("the file system is mounted without barriers (%s): a sync does not reach the medium", e.MountOptions)
	}
	if e.CPUQuota > 0 && e.CPUQuota < float64(e.Cores) {
		warn("a cgroup limits this process to %.3g of %d cores: it is stopped when it has used them up, and that shows as latency", e.CPUQuota, e.Cores)
	}
	if e.MemoryLimit > 0 && e.MemoryLimit < e.MemoryBytes {
		warn("a cgroup limits this process to %s of memory, page cache included", humanize.IBytes(uint64(e.MemoryLimit)))
	}
	if e.FreeBytes > 0 && e.FreeBytes < lowSpaceBytes {
		warn("only %s are free for the data", humanize.IBytes(uint64(e.FreeBytes)))
	}
	if e.Dirty {
		warn("this build has changes that its commit does not hold")
	}
	return append(out, busy(e)...)
}

// busy warns of what else the machine did before the run.
func busy(e result.Env) []string {
	p := e.Before
	if p == nil {
		return nil
	}
	var out []string
	if e.Cores > 0 && p.Load1 > busyLoadShare*float64(e.Cores) {
		out = append(out, fmt.Sprintf("the machine was busy before the run: load %.1f on %d cores", p.Load1, e.Cores))
	}
	if p.IOSome10 != nil && *p.IOSome10 > busyIOPercent {
		out = append(out, fmt.Sprintf("something was waiting for a disk in %.0f %% of the 10 s before the run", *p.IOSome10))
	}
	if p.StealShare != nil && *p.StealShare > busyStealShare {
		out = append(out, fmt.Sprintf("the host has given %.0f %% of this machine's CPU time to others", 100**p.StealShare))
	}
	return out
}
