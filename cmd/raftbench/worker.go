package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/all"
	"github.com/raftbench/raftbench/bench"
	"github.com/raftbench/raftbench/bench/metrics"
	"github.com/raftbench/raftbench/bench/remote"
	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/bench/trace"
)

// job is one run as it travels to a worker process: the command runs itself for
// every run, so that one backend's heap, goroutines and page tables do not count
// for the next.
type job struct {
	Backend string // as in --backends
	One     bench.One
	Write   bool   // write the log of a restart instead
	Serve   string `json:",omitempty"` // socket on which to answer for metrics and profiles
}

// answer is one line of a worker's standard output.
type answer struct {
	Progress *bench.Progress `json:",omitempty"`
	Run      *result.Run     `json:",omitempty"`
	Written  bool            `json:",omitempty"`
	Error    string          `json:",omitempty"`
	Usage    bool            `json:",omitempty"`
}

// workerGrace is how long a worker has to stop its nodes and unlock what it holds
// after it was asked to.
const workerGrace = 20 * time.Second

func (a *app) workerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "worker",
		Short:  "Make one run for a parent process (job on standard input)",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.work(cmd.Context())
		},
	}
}

// work makes the run that standard input describes. When that ends, the parent
// is gone, and the run stops.
func (a *app) work(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := json.NewDecoder(a.stdin)
	var j job
	if err := in.Decode(&j); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, a.stdin) // ends when the parent does
		cancel()
	}()
	var mu sync.Mutex
	out := json.NewEncoder(a.stdout)
	send := func(ans answer) {
		mu.Lock()
		defer mu.Unlock()
		_ = out.Encode(ans) // a parent that is gone ends the run through stdin
	}
	b, err := lookup(j.Backend)
	if err != nil {
		return err
	}
	j.One.Backend, j.One.Networks, j.One.ReadTrace = b, networks(), trace.Read
	if j.Write {
		send(answerWrite(ctx, j.One))
		if j.One.Killed {
			<-ctx.Done() // with the storage open, until the parent kills this process
		}
		return nil
	}
	progress := func(p bench.Progress) { send(answer{Progress: &p}) }
	if j.Serve != "" {
		live := metrics.New()
		stop, err := serveRun(j.Serve, live)
		if err != nil {
			return err
		}
		defer stop()
		j.One.Watch, progress = live, func(p bench.Progress) {
			live.Phase(p.Phase)
			send(answer{Progress: &p})
		}
	}
	run, err := bench.RunOne(ctx, j.One, progress)
	ans := answer{Run: &run}
	if err != nil {
		var usage *bench.UsageError
		ans.Error, ans.Usage = err.Error(), errors.As(err, &usage)
	}
	send(ans)
	return nil
}

// lookup finds a backend by the name and settings of --backends.
func lookup(label string) (backends.Backend, error) {
	name, params, err := backends.ParseName(label)
	if err != nil {
		return backends.Backend{}, usageErrorf("backend %v", err)
	}
	b, err := all.Lookup(name)
	if err != nil {
		return backends.Backend{}, usageErrorf("%v", err)
	}
	storage, given := params[backends.GroupStorage]
	delete(params, backends.GroupStorage) // for the harness, not for the engine
	b = b.With(params)
	switch {
	case !given:
		return b, nil
	case storage == "separate":
		return b.ForGroups(true), nil
	case storage == "shared" && b.OpenShared != nil:
		return b.ForGroups(false), nil
	case storage == "shared":
		return b, usageErrorf("%s keeps no groups in one store; want %s=separate", name, backends.GroupStorage)
	}
	return b, usageErrorf("%s: %s=%q: want shared or separate", name, backends.GroupStorage, storage)
}

// answerWrite writes the log of a restart, and closes it unless this process is to
// be killed.
func answerWrite(ctx context.Context, one bench.One) answer {
	storage, err := bench.WriteLog(ctx, one)
	if err == nil && !one.Killed {
		err = storage.Close()
	}
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Written: true}
}

// runInProcess makes one run in a process of its own.
func runInProcess(ctx context.Context, one bench.One, progress func(bench.Progress)) (result.Run, error) {
	return runJob(ctx, job{Backend: one.Backend.Label(), One: one}, progress)
}

func runJob(ctx context.Context, j job, progress func(bench.Progress)) (result.Run, error) {
	final, err := ask(ctx, j, progress)
	switch {
	case err != nil:
		return result.Run{}, err
	case final.Run == nil:
		return result.Run{}, fmt.Errorf("worker for %s: %s", j.One.ID(), final.Error)
	case final.Error != "" && final.Usage:
		return *final.Run, &bench.UsageError{Reason: final.Error}
	case final.Error != "":
		return *final.Run, errors.New(final.Error)
	}
	return *final.Run, nil
}

// writeInProcess writes the log of a restart in a process of its own, and kills
// that with the log open where the run asks for it.
func writeInProcess(ctx context.Context, one bench.One) error {
	final, err := ask(ctx, job{Backend: one.Backend.Label(), One: one, Write: true}, func(bench.Progress) {})
	if err == nil && !final.Written {
		err = errors.New(final.Error)
	}
	return err
}

// ask gives a job to a new process and returns its final answer.
func ask(ctx context.Context, j job, progress func(bench.Progress)) (*answer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program to run it again: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, "worker")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the parent, which asks the worker to stop
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = workerGrace
	var last remote.LastWords
	cmd.Stderr = &last
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	final, readErr := converse(stdin, stdout, j, progress)
	if j.Write && j.One.Killed && final != nil {
		readErr = errors.Join(readErr, cmd.Process.Kill()) // as kill -9 does
	}
	_ = stdin.Close()
	waitErr := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case final == nil:
		return nil, fmt.Errorf("worker for %s died: %w\n%s", j.One.ID(), errors.Join(waitErr, readErr), last.String())
	}
	return final, readErr
}

// converse sends the job and reads answers up to the final one.
func converse(stdin io.Writer, stdout io.Reader, j job, progress func(bench.Progress)) (*answer, error) {
	if err := json.NewEncoder(stdin).Encode(j); err != nil {
		return nil, fmt.Errorf("send the job: %w", err)
	}
	dec := json.NewDecoder(bufio.NewReaderSize(stdout, 1<<16))
	for {
		var ans answer
		if err := dec.Decode(&ans); err != nil {
			if errors.Is(err, io.EOF) {
				return nil, nil
			}
			return nil, fmt.Errorf("read the worker's answer: %w", err)
		}
		if ans.Progress != nil {
			progress(*ans.Progress)
			continue
		}
		if ans.Run == nil && !ans.Written && ans.Error == "" {
			return nil, errors.New("read the worker's answer: neither progress nor an outcome")
		}
		return &ans, nil
	}
}
