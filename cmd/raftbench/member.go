package main

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/raftbench/raftbench/bench/remote"
	"github.com/raftbench/raftbench/node/transport/grpc"
	"github.com/raftbench/raftbench/node/transport/rafthttp"
)

// memberCommand is this program as one node of a run.
func (a *app) memberCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "member",
		Short:  "Be one node of a run for a parent process (requests on standard input)",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return remote.Serve(cmd.Context(), a.stdin, a.stdout, remote.Program{Backend: lookup, Network: memberNetwork})
		},
	}
}

// memberProcess prepares the command of a member.
func memberProcess() (func() *exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program to run it again: %w", err)
	}
	return func() *exec.Cmd { return exec.Command(self, "member") }, nil
}

// memberNetwork makes the transport of a member.
func memberNetwork(transport string, e remote.Endpoint) (remote.Network, error) {
	listen := e.Listen
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	switch transport {
	case "grpc":
		return grpc.New(grpc.Options{Listen: listen, Cluster: e.Cluster, Token: e.Token}), nil
	case "rafthttp":
		return rafthttp.New(rafthttp.Options{Listen: listen, Cluster: e.Cluster, Dir: e.Dir}), nil
	}
	return nil, usageErrorf("transport %q does not leave its process; use grpc or rafthttp", transport)
}
