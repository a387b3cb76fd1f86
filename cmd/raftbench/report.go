package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/reports"
)

func (a *app) reportCommand() *cobra.Command {
	var out string
	var markdown bool
	cmd := &cobra.Command{
		Use:   "report DIR…",
		Short: "Make a report of one or several results",
		Long: `Make one HTML report of several results, kept apart by environment, or print a
result again as a table or as Markdown. DIR is the directory of a run, or its
result.json.`,
		Example: `  raftbench report raftbench-out/20260102T150405Z
  raftbench report laptop/ server/ -o both.html
  raftbench report --markdown raftbench-out/20260102T150405Z`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageErrorf("report: name the directory of a run")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			return a.report(args, out, markdown)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "write an HTML report to this file")
	cmd.Flags().BoolVar(&markdown, "markdown", false, "print Markdown instead of a table")
	return cmd
}

func (a *app) report(paths []string, out string, markdown bool) error {
	var rs []*result.Result
	for _, path := range paths {
		r, err := reports.Read(path)
		if err != nil {
			return err
		}
		rs = append(rs, r)
	}
	if out != "" {
		return reports.WriteFile(out, func(w io.Writer) error { return reports.HTML(w, rs...) })
	}
	for _, r := range rs {
		write := func(w io.Writer) error { return reports.Table(w, r, a.tableOptions()) }
		if markdown {
			write = func(w io.Writer) error { return reports.Markdown(w, r) }
		}
		if err := write(a.stdout); err != nil {
			return err
		}
	}
	return nil
}
