package main

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/all"
	"github.com/raftbench/raftbench/backends/powercut"
	"github.com/raftbench/raftbench/backends/powercut/disk"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "dump" {
		dump(os.Args[2])
		return
	}
	powercut.MaybeChild(all.Lookup)
	name, params, _ := backends.ParseName(os.Args[1])
	b, err := all.Lookup(name)
	if err != nil {
		panic(err)
	}
	cuts, _ := strconv.Atoi(os.Args[2])
	seed, _ := strconv.Atoi(os.Args[3])
	for _, m := range []disk.Mode{disk.Strict, disk.Ordered} {
		r, err := powercut.Run(context.Background(), powercut.Config{Backend: b, Params: params, Mode: m, Cuts: cuts, Seed: int64(seed), Trace: os.Stderr, Keep: "/tmp/h/keep"})
		fmt.Printf("%s %+v %v\n", m, r, err)
	}
}
