package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of raftbench and of the engines that it was built with",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintf(a.stdout, "raftbench %s (%s, %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			info, ok := debug.ReadBuildInfo()
			if !ok {
				return nil
			}
			for _, dep := range info.Deps {
				if engineModules[dep.Path] {
					fmt.Fprintf(a.stdout, "  %-38s %s\n", dep.Path, dep.Version)
				}
			}
			return nil
		},
	}
}

// engineModules are the modules whose version changes what is measured.
var engineModules = map[string]bool{
	"go.etcd.io/raft/v3":               true,
	"go.etcd.io/etcd/server/v3":        true,
	"go.etcd.io/bbolt":                 true,
	"github.com/dgraph-io/badger/v4":   true,
	"github.com/cockroachdb/pebble/v2": true,
	"github.com/hashicorp/raft-wal":    true,
}

// version is the module's version, with the commit where the build knows it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "devel"
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				v += "-" + s.Value[:12]
			}
		}
	}
	return v
}
