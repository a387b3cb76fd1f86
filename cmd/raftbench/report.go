package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

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
	cmd.Flags().StringVarP(&out, "output", "o", "", "write an HTML report to this file, which may not be one of the results")
	cmd.Flags().BoolVar(&markdown, "markdown", false, "print Markdown instead of a table")
	return cmd
}

func (a *app) report(paths []string, out string, markdown bool) error {
	if out != "" && markdown {
		return usageErrorf("report: --markdown is printed, --output is an HTML file; leave one away")
	}
	if err := checkPage("--output", out, paths); err != nil {
		return err
	}
	var rs []*result.Result
	for _, path := range paths {
		r, err := reports.Read(path)
		if err != nil {
			return err
		}
		rs = append(rs, r)
	}
	if out != "" {
		return writePage(out, func(w io.Writer) error { return reports.HTML(w, rs...) })
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

// checkPage refuses a page that would be written over one of the results that it is made
// from. flag named it; there is none where path is empty.
func checkPage(flag, path string, results []string) error {
	info, err := os.Stat(path)
	if err != nil {
		return nil // a new file, or one of which the system tells when it is written
	}
	if info.IsDir() {
		return usageErrorf("%s %s is a directory; name a file", flag, path)
	}
	for _, r := range results {
		for _, file := range []string{r, filepath.Join(r, reports.ResultFile)} {
			if from, err := os.Stat(file); err == nil && os.SameFile(info, from) {
				return usageErrorf("%s %s is the result %s that is read; name another file", flag, path, file)
			}
		}
	}
	return nil
}

// writePage makes or replaces a file. What is none, such as /dev/stdout, is written to.
func writePage(path string, write func(io.Writer) error) (err error) {
	info, err := os.Stat(path)
	if err != nil || info.Mode().IsRegular() {
		return reports.WriteFile(path, write)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("write a page: %w", err)
	}
	return errors.Join(write(f), f.Close())
}
