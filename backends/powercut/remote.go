package powercut

import (
	"time"

	"github.com/raftbench/raftbench/backends/powercut/disk"
)

// DiskFault is what goes wrong on a [RemoteDisk].
type DiskFault struct {
	// Op is "open", "read", "write", "fsync" (fdatasync and msync too),
	// "fsyncdir", "create", "rename", "unlink", "link", "truncate" or "fallocate".
	Op string `json:"op"`
	// Path strikes only paths that contain it.
	Path  string `json:"path,omitempty"`
	Skip  int    `json:"skip,omitempty"`  // operations that go well first
	Times int    `json:"times,omitempty"` // operations that fail then; 0 is all
	// Errno is what they return, e.g. syscall.EIO; 0 is success, for a Delay.
	Errno int           `json:"errno,omitempty"`
	Short bool          `json:"short,omitempty"` // a write stores its first half
	Delay time.Duration `json:"delay,omitempty"` // comes before each
}

// DiskOptions are the options of [StartDisk].
type DiskOptions struct {
	Mode  disk.Mode // strict if empty
	Child Child
}

// diskRequest is one command to the process that serves a RemoteDisk, and
// diskAnswer what comes back, a JSON line each.
type diskRequest struct {
	Cmd   string     `json:"cmd"` // "mount", "inject", "heal", "fill", "cut", "unmount"
	Dir   string     `json:"dir,omitempty"`
	Mode  disk.Mode  `json:"mode,omitempty"`
	Fault *DiskFault `json:"fault,omitempty"`
	Free  int64      `json:"free,omitempty"`
	Seed  int64      `json:"seed,omitempty"`
}

type diskAnswer struct {
	Error string `json:"error,omitempty"`
}
