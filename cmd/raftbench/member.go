package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
	etcdtransport "go.etcd.io/etcd/client/pkg/v3/transport"

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
		opts := grpc.Options{Listen: listen, Cluster: e.Cluster, Token: e.Token}
		if e.Identity != nil {
			var err error
			if opts.TLS, err = e.Identity.TLS(remote.RoleAgent); err != nil {
				return nil, err
			}
		}
		return grpc.New(opts), nil
	case "rafthttp":
		opts := rafthttp.Options{Listen: listen, Cluster: e.Cluster, Dir: e.Dir}
		if e.Identity != nil {
			var err error
			if opts.TLS, err = tlsFiles(e.Dir, e.Identity); err != nil {
				return nil, err
			}
		}
		return rafthttp.New(opts), nil
	}
	return nil, usageErrorf("transport %q does not leave its process; use grpc or rafthttp", transport)
}

// tlsFiles writes an identity to files, as etcd's package wants it. They go with the
// run's directory.
func tlsFiles(dir string, id *remote.Identity) (etcdtransport.TLSInfo, error) {
	info := etcdtransport.TLSInfo{
		TrustedCAFile: filepath.Join(dir, "ca.crt"), CertFile: filepath.Join(dir, "agent.crt"), KeyFile: filepath.Join(dir, "agent.key"),
		ClientCertAuth: true, ServerName: string(remote.RoleAgent), AllowedHostnames: []string{string(remote.RoleAgent)},
	}
	for path, data := range map[string][]byte{info.TrustedCAFile: id.Authority, info.CertFile: id.Certificate, info.KeyFile: id.Key} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return info, fmt.Errorf("write the node's certificate: %w", err)
		}
	}
	return info, nil
}
