package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/raftbench/raftbench/reports"
)

// takeUp takes over the settings of the result of --resume where they were not given
// anew. It returns the command that makes the whole suite.
func (f *runFlags) takeUp(flags *pflag.FlagSet) (command []string, err error) {
	if f.resume == "" {
		return append([]string{"raftbench"}, os.Args[1:]...), nil
	}
	if flags.Changed("out") {
		return nil, usageErrorf("--resume writes to the directory that it names; leave --out away")
	}
	old, err := reports.Read(f.resume)
	if err != nil {
		return nil, err
	}
	if len(old.Command) < 2 || old.Command[1] != "run" {
		return nil, usageErrorf("--resume %s: the result does not say how it was made", f.resume)
	}
	var before runFlags
	cmd := &cobra.Command{}
	before.register(cmd)
	if err := cmd.Flags().Parse(old.Command[2:]); err != nil {
		return nil, usageErrorf("--resume %s: the command that made it: %v", f.resume, err)
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
	return command, errors.Join(errs...)
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
