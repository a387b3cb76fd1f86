package backendtest

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/powercut"
	"github.com/raftbench/raftbench/backends/powercut/disk"
)

// PowerCutOptions are what PowerCut may be told; the zero value is a good start.
type PowerCutOptions struct {
	Cuts   int               // for each mode; 30 if 0
	Seed   int64             // 1 if 0
	Modes  []disk.Mode       // both if empty
	Params map[string]string // powercut.SmallParams(b) if nil
}

// PowerCut runs b on a disk that dies, again and again, and fails if something
// acknowledged was lost, something was there that had never been saved, or Open
// failed. A failure prints the seed, the operations before the cut, and how to
// repeat it. See package powercut.
//
// It needs Linux, root and /dev/fuse; elsewhere the test is skipped, or fails
// where the environment variable CI is set. As with Run, the test binary is
// started again for the same test: what comes before PowerCut in it runs in the
// child too.
func PowerCut(t *testing.T, b backends.Backend, opts PowerCutOptions) {
	key := "test:" + t.Name() + ":" + b.Name
	powercut.ChildOf(key, b)
	if powercut.IsChild() || os.Getenv(childEnv) != "" {
		return // a child for another call
	}
	if err := powercut.Available(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("the power cannot be cut here, and CI must: %v", err)
		}
		t.Skipf("the power cannot be cut here: %v", err)
	}
	if opts.Cuts == 0 {
		opts.Cuts = 30
	}
	if opts.Seed == 0 {
		opts.Seed = 1
	}
	if opts.Params == nil {
		opts.Params = powercut.SmallParams(b)
	}
	if len(opts.Modes) == 0 {
		opts.Modes = []disk.Mode{disk.Strict, disk.Ordered}
	}
	child := powercut.Child{Args: childCommand(t.Name()).Args[1:], Key: key}
	for _, mode := range opts.Modes {
		var trace strings.Builder
		row, err := powercut.Run(context.Background(), powercut.Config{
			Backend: b, Params: opts.Params, Mode: mode, Cuts: opts.Cuts, Seed: opts.Seed, Child: child, Trace: &trace,
		})
		if err != nil {
			t.Fatalf("mode %s: %v", mode, err)
		}
		if row.FirstBad > 0 {
			t.Errorf("mode %s, seed %d, cut %d of %d: rule 1 is broken (%s)\n%s\nrepeat with PowerCutOptions{Cuts: %d, Seed: %d}\n%s",
				mode, row.Seed, row.FirstBad, opts.Cuts, rules[1], row.Detail, row.FirstBad, row.Seed, trace.String())
			continue
		}
		if row.Acked == 0 {
			t.Errorf("mode %s, seed %d: nothing was acknowledged before any of %d cuts: this proves nothing; make more of them (PowerCutOptions.Cuts)", mode, row.Seed, row.Cuts)
			continue
		}
		t.Logf("mode %s: %d entries survived %d cuts (%v)", mode, row.Acked, row.Cuts, opts.Params)
	}
}
