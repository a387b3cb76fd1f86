package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/reports"
)

// takeUp reads the result of --resume and takes over its settings where they were
// not given anew. It returns nil without --resume, and the command that makes the
// whole suite.
func (f *runFlags) takeUp(flags *pflag.FlagSet) (old *result.Result, command []string, err error) {
	if f.resume == "" {
		return nil, append([]string{"raftbench"}, os.Args[1:]...), nil
	}
	if flags.Changed("out") {
		return nil, nil, usageErrorf("--resume writes to the directory that it names; leave --out away")
	}
	old, err = reports.Read(f.resume)
	if err != nil {
		return nil, nil, err
	}
	if len(old.Command) < 2 || old.Command[1] != "run" {
		return nil, nil, usageErrorf("--resume %s: the result does not say how it was made", f.resume)
	}
	var before runFlags
	cmd := &cobra.Command{}
	before.register(cmd)
	if err := cmd.Flags().Parse(old.Command[2:]); err != nil {
		return nil, nil, usageErrorf("--resume %s: the command that made it: %v", f.resume, err)
	}
	command = slices.Clone(old.Command)
	eachGiven(flags, func(name, value string) {
		if name != "resume" {
			command = append(command, "--"+name+"="+value)
		}
	})
	given := map[string]bool{"out": true}
	flags.Visit(func(fl *pflag.Flag) { given[fl.Name] = true })
	var errs []error
	eachGiven(cmd.Flags(), func(name, value string) {
		if !given[name] {
			errs = append(errs, flags.Set(name, value))
		}
	})
	f.out = f.resume
	if info, err := os.Stat(f.resume); err == nil && !info.IsDir() {
		f.out = filepath.Dir(f.resume)
	}
	return old, command, errors.Join(errs...)
}

// eachGiven calls what with every flag that was set, once for each value.
func eachGiven(flags *pflag.FlagSet, what func(name, value string)) {
	flags.Visit(func(f *pflag.Flag) {
		if list, ok := f.Value.(pflag.SliceValue); ok {
			for _, v := range list.GetSlice() {
				what(f.Name, v)
			}
			return
		}
		what(f.Name, f.Value.String())
	})
}

// unfinished is the interrupted result in a directory, nil if there is none.
func unfinished(dir string) (*result.Result, error) {
	if dir == "" {
		return nil, nil
	}
	if _, err := os.Stat(filepath.Join(dir, reports.ResultFile)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	old, err := reports.Read(dir)
	if err != nil {
		if info, statErr := os.Stat(dir); statErr == nil && !info.IsDir() {
			return nil, nil // prepareOut tells
		}
		return nil, fmt.Errorf("--out %s holds something else: %w", dir, err)
	}
	if !old.Interrupted {
		return nil, nil
	}
	return old, nil
}
