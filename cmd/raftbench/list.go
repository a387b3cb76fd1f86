package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/all"
)

func (a *app) listCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the backends, what they promise, and their parameters",
		Example: "  raftbench list\n  raftbench run --backends 'bbolt,bbolt[freelist=array]'",
		Args:    noArgs,
		RunE: func(*cobra.Command, []string) error {
			for _, b := range all.Backends {
				if err := describe(a.stdout, b); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func describe(w io.Writer, b backends.Backend) error {
	promise := "synced: what it acknowledged survives a power cut"
	if b.Durability == backends.None {
		promise = "keeps nothing: a control, ranked apart"
	}
	fmt.Fprintf(w, "%s\n  %s\n  %s\n", b.Name, b.Doc, promise)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range b.Params {
		fmt.Fprintf(tw, "    %s\t%s\t%s\n", p.Name, p.Default, p.Meaning)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}
