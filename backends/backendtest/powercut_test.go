package backendtest_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/raftbench/raftbench/backends/backendtest"
	"github.com/raftbench/raftbench/backends/powercut"
	"github.com/raftbench/raftbench/backends/powercut/controls"
)

// TestPowerCut: the helper finds its way into the child without a TestMain, from
// a subtest too. That broken engines are caught is proved in package powercut.
func TestPowerCut(t *testing.T) {
	t.Run("in a subtest", func(t *testing.T) {
		backendtest.PowerCut(t, controls.Backend(controls.None), backendtest.PowerCutOptions{Cuts: 5})
	})
}

// TestPowerCutProvesSomething: cuts that all come before the first acknowledgement fail.
func TestPowerCutProvesSomething(t *testing.T) {
	const inner = "RAFTBENCH_TEST_NOTHING_ACKED"
	if os.Getenv(inner) != "" {
		backendtest.PowerCut(t, controls.Backend(controls.None), backendtest.PowerCutOptions{Cuts: 1, Seed: 3})
		return
	}
	if err := powercut.Available(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), inner+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || strings.Count(string(out), "nothing was acknowledged") != 2 {
		t.Errorf("%v, want it to fail in both modes:\n%s", err, out)
	}
}
