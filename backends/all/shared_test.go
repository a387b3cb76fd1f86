package all

import (
	"os"
	"testing"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/backendtest"
	"github.com/raftbench/raftbench/backends/powercut/disk"
)

// everyShared asks for what takes minutes: all shared stores, and power cuts.
const everyShared = "RAFTBENCH_SHARED"

// eachShared is a test for every backend with shared stores, of which only the one
// named always is made.
func eachShared(t *testing.T, always string, test func(*testing.T, backends.Backend)) {
	for _, b := range Backends {
		if b.OpenShared == nil {
			continue
		}
		t.Run(b.Name, func(t *testing.T) {
			if b.Name != always && os.Getenv(everyShared) == "" {
				t.Skipf("set %s=1 to try groups on a shared store of %s, too", everyShared, b.Name)
			}
			test(t, b)
		})
	}
}

// TestSharedConformance: a group of a shared store keeps the rules, and its
// neighbours stay as they are.
func TestSharedConformance(t *testing.T) {
	eachShared(t, "bbolt", func(t *testing.T, b backends.Backend) { backendtest.Run(t, backendtest.Group(b)) })
}

// TestSharedPowerCut pulls the plug on a group of a shared store and its neighbours.
// In strict mode badger may not open again, shared or not (see its package comment).
func TestSharedPowerCut(t *testing.T) {
	eachShared(t, "", func(t *testing.T, b backends.Backend) {
		opts := backendtest.PowerCutOptions{}
		if b.Name == "badger" {
			opts.Modes = []disk.Mode{disk.Ordered}
		}
		backendtest.PowerCut(t, backendtest.Group(b), opts)
	})
}
