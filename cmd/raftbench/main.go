// Command raftbench compares storage under a raft log. See the README, or
// `raftbench --help`.
package main

import (
	"context"
	"os"

	"github.com/raftbench/raftbench/backends/powercut"
)

func main() {
	powercut.MaybeChild(lookup) // where this process is the one whose power is cut
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
