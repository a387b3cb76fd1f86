package backendtest_test

import (
	"testing"

	"github.com/raftbench/raftbench/backends/backendtest"
	"github.com/raftbench/raftbench/backends/powercut/controls"
)

// TestPowerCut: the helper finds its way into the child without a TestMain, from
// a subtest too. That broken engines are caught is proved in package powercut.
func TestPowerCut(t *testing.T) {
	t.Run("in a subtest", func(t *testing.T) {
		backendtest.PowerCut(t, controls.Backend(controls.None), backendtest.PowerCutOptions{Cuts: 5})
	})
}
