package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/bench/remote"
)

// agentFlags are the flags of `raftbench agent` as they were given.
type agentFlags struct {
	listen, peerListen, dir string
	tls, tokenFile          string
	init                    string
	hosts                   []string
}

func (a *app) agentCommand() *cobra.Command {
	var f agentFlags
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Let a coordinator on another machine run nodes here",
		Long: strings.TrimSpace(`
Wait for 'raftbench run --hosts', and run one node of its cluster on this machine.

The agent talks only to a coordinator that proves who it is, by a certificate (--tls)
or a token (--token-file); it writes only below --dir, runs one bench at a time, and
removes what a coordinator left that was lost. See docs/hosts.md.`),
		Example: `  raftbench agent --init certs                       # once: a CA and certificates
  raftbench agent --listen 10.0.0.1:7400 --dir /mnt/nvme/raftbench --tls certs
  raftbench run --hosts 10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400 --tls certs`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.init != "" {
				return a.initAuthority(&f)
			}
			return a.agent(cmd, &f)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.listen, "listen", "127.0.0.1:7400", "host:port for coordinators")
	fl.StringVar(&f.peerListen, "peer-listen", "", "host:port for the other nodes (default: the host of --listen, the port after)")
	fl.StringVar(&f.dir, "dir", "", "where the data goes: a new or empty directory on the disk to measure")
	fl.StringVar(&f.tls, "tls", "", "directory with ca.crt, agent.crt and agent.key")
	fl.StringVar(&f.tokenFile, "token-file", "", "file with a random secret of 32 characters or more that all machines share")
	fl.StringVar(&f.init, "init", "", "make a CA and the certificates of agents and coordinator in this directory, and end")
	fl.StringSliceVar(&f.hosts, "host", nil, "with --init: further names and addresses for the agents' certificate")
	return cmd
}

// initAuthority is `raftbench agent --init`.
func (a *app) initAuthority(f *agentFlags) error {
	if err := remote.InitAuthority(f.init, f.hosts); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s holds ca.crt, ca.key, agent.crt, agent.key, coordinator.crt and coordinator.key.\n"+
		"Agents need ca.crt and agent.*, 'raftbench run' needs ca.crt and coordinator.*; keep ca.key to yourself.\n", f.init)
	return nil
}

// agent is `raftbench agent`.
func (a *app) agent(cmd *cobra.Command, f *agentFlags) error {
	if f.dir == "" {
		return usageErrorf("agent: name a directory for the data with --dir")
	}
	if len(f.hosts) > 0 {
		return usageErrorf("agent: --host belongs to --init")
	}
	peerListen, err := f.peerAddress()
	if err != nil {
		return err
	}
	id, err := identity(f.tls, f.tokenFile, remote.RoleAgent)
	if err != nil {
		return err
	}
	member, err := memberProcess()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", f.listen)
	if err != nil {
		return fmt.Errorf("listen for coordinators: %w", err)
	}
	logf := func(format string, args ...any) { fmt.Fprintf(a.stderr, "raftbench agent: "+format+"\n", args...) }
	logf("listening on %s, nodes on %s, data below %s", l.Addr(), peerListen, f.dir)
	ag := &remote.Agent{Dir: f.dir, PeerListen: peerListen, Identity: id, Version: version(), Member: member, Log: logf}
	return ag.Run(cmd.Context(), l)
}

// peerAddress is where the node listens for its peers.
func (f *agentFlags) peerAddress() (string, error) {
	host, port, err := net.SplitHostPort(f.listen)
	if err != nil {
		return "", usageErrorf("--listen %s: want host:port", f.listen)
	}
	if f.peerListen != "" {
		if _, _, err := net.SplitHostPort(f.peerListen); err != nil {
			return "", usageErrorf("--peer-listen %s: want host:port", f.peerListen)
		}
		return f.peerListen, nil
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65534 {
		return "", usageErrorf("--listen %s: want a port from 1 to 65534, or name another for nodes with --peer-listen", f.listen)
	}
	return net.JoinHostPort(host, strconv.Itoa(n+1)), nil
}

// place takes from --hosts where the nodes are, and how many unless that was given.
func (f *runFlags) place(flags *pflag.FlagSet) error {
	if f.hosts == "" {
		if f.tls != "" || f.tokenFile != "" {
			return usageErrorf("--tls and --token-file belong to --hosts")
		}
		if f.placement == string(bench.PlacementHosts) {
			return usageErrorf("--placement hosts: name the agents with --hosts")
		}
		return nil
	}
	switch {
	case flags.Changed("placement") && f.placement != string(bench.PlacementHosts):
		return usageErrorf("--hosts and --placement %s exclude each other", f.placement)
	case f.keep || f.dir != "":
		return usageErrorf("--dir and --keep are for data on this machine; agents have it below their own --dir, and remove it")
	case f.powercut > 0:
		return usageErrorf("--powercut cuts the power of this machine's disk only; leave --hosts away")
	}
	if err := flags.Set("placement", string(bench.PlacementHosts)); err != nil {
		return err
	}
	if flags.Changed("nodes") || f.file != "" {
		return nil
	}
	return flags.Set("nodes", strconv.Itoa(len(strings.Split(f.hosts, ","))))
}

// dial opens the sessions with the agents of --hosts.
func (f *runFlags) dial(ctx context.Context) error {
	if f.hosts == "" {
		return nil
	}
	id, err := identity(f.tls, f.tokenFile, remote.RoleCoordinator)
	if err != nil {
		return err
	}
	addrs := strings.Split(f.hosts, ",")
	for _, addr := range addrs {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return usageErrorf("--hosts %s: want host:port,host:port,…", f.hosts)
		}
	}
	f.links, err = remote.Dial(ctx, addrs, id, version())
	return err
}

// hangUp ends the sessions; the agents remove what they have of them.
func (f *runFlags) hangUp() {
	if f.links != nil {
		f.links.Close()
	}
}

// identity reads the credentials, without which no command talks to another machine.
func identity(tlsDir, tokenFile string, role remote.Role) (*remote.Identity, error) {
	switch {
	case tlsDir != "" && tokenFile != "":
		return nil, usageErrorf("--tls and --token-file exclude each other")
	case tlsDir != "":
		return remote.LoadIdentity(tlsDir, role)
	case tokenFile != "":
		return remote.TokenIdentity(tokenFile, role)
	}
	return nil, usageErrorf("name credentials with --tls DIR ('raftbench agent --init DIR' makes them) or --token-file FILE; nothing is answered without")
}
