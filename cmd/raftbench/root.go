package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench"
)

// Exit codes, fixed by the contract of the command.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitLost        = 3  // an acknowledged entry was lost or wrong
	exitInvalid     = 4  // the measurement is invalid, with --strict
	exitRegression  = 5  // compare
	exitThreshold   = 99 // a threshold was missed
	exitInterrupted = 130
)

// exitError ends the command with a code of its own. A nil error was already
// told.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// app is what every command needs.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	terminal       *os.File // standard output, if it is one
}

// output is standard output, which remembers that it could not be written: a table
// that a full disk swallowed must not look like success.
type output struct {
	to  io.Writer
	err error // the first
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if err != nil && o.err == nil {
		o.err = fmt.Errorf("write the output: %w", err)
	}
	return n, err
}

// run is the whole command, from arguments to exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, stops()...)
	defer stop()
	out := &output{to: stdout}
	a := &app{stdin: stdin, stdout: out, stderr: stderr}
	if f, ok := stdout.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		a.terminal = f
	}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(out)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = out.err
	}
	code := exitCode(err)
	if err != nil && !told(err) {
		fmt.Fprintf(stderr, "raftbench: %v\n", err)
		if code == exitUsage {
			fmt.Fprintln(stderr, "See 'raftbench --help', or 'raftbench run --help' for examples.")
		}
	}
	return code
}

// stops are the signals after which a command ends in order. A terminal that was closed is
// one, unless the command was to outlive it (nohup).
func stops() []os.Signal {
	all := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		all = append(all, syscall.SIGHUP)
	}
	return all
}

func told(err error) bool {
	var e *exitError
	return errors.As(err, &e) && e.err == nil
}

func exitCode(err error) int {
	var (
		exit  *exitError
		usage *bench.UsageError
		param *backends.ParamError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage), errors.As(err, &param):
		return exitUsage
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitFailure
}

func usageErrorf(format string, args ...any) error {
	return &bench.UsageError{Reason: fmt.Sprintf(format, args...)}
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "raftbench",
		Short: "Which storage should sit under my raft log, on this disk, under this load, and how sure am I?",
		Long: strings.TrimSpace(`
raftbench drives one raft loop over interchangeable storage and compares them:
throughput, response time, fsync latency, snapshot install, with the proof that
what was acknowledged is there, and an interval around every figure.`),
		Example: `  raftbench run                                    # the four engines and two controls, two minutes
  raftbench run --backends etcd-wal,pebble --load closed:256 --repeats 10
  raftbench disk --dir /var/lib/etcd               # is this disk fast enough?
  raftbench list                                   # backends and their parameters`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuchCommand,

		SuggestionsMinimumDistance: mistyped,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageErrorf("%v", err) })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(a.runCommand(), a.workerCommand(), a.memberCommand(), a.agentCommand(), a.diskCommand(), a.powercutCommand(), a.faultsCommand(), a.compareCommand(), a.reportCommand(), a.listCommand(), a.versionCommand())
	strictHelp(root)
	return root
}

// mistyped is how many letters of a command may be wrong for it to be recognised.
const mistyped = 2

// strictHelp makes cobra's own commands refuse what they do not know; as they come,
// they show the general help instead, and end well.
func strictHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Args = func(_ *cobra.Command, args []string) error {
				about, rest, err := root.Find(args)
				if err != nil || len(rest) == 0 {
					return err
				}
				return noSuchCommand(about, rest)
			}
		case "completion":
			c.Args, c.RunE, c.SuggestionsMinimumDistance = noSuchCommand, root.RunE, mistyped
			for _, shell := range c.Commands() {
				shell.Args = noArgs
			}
		}
	}
}

// noSuchCommand refuses what is no command, and names those that are meant, or all.
func noSuchCommand(parent *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !parent.HasSubCommands() {
		return usageErrorf("%s has no command %q", parent.CommandPath(), args[0])
	}
	if meant := parent.SuggestionsFor(args[0]); len(meant) > 0 {
		return usageErrorf("unknown command %q: is %s meant?", args[0], strings.Join(meant, " or "))
	}
	var known []string
	for _, c := range parent.Commands() {
		if !c.Hidden {
			known = append(known, c.Name())
		}
	}
	return usageErrorf("unknown command %q: want one of %s", args[0], strings.Join(known, ", "))
}

// noArgs is cobra.NoArgs as a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageErrorf("%s takes no argument %q", cmd.CommandPath(), args[0])
	}
	return nil
}
