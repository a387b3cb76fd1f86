package powercut

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/raftbench/raftbench/backends/powercut/fusefs"
)

// RemoteDisk is a disk that dies, mounted where every process sees it and served
// by a process of its own: the engines on it may run in this one, whatever they
// map. Its methods may be called by one goroutine at a time.
type RemoteDisk struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	output strings.Builder // what the process prints on stderr
}

// StartDisk mounts an empty disk at dir, which must exist. Root only; main or
// TestMain must call [MaybeChild]. The mount goes away with this process, however
// it ends, or with Close.
func StartDisk(dir string, opts DiskOptions) (*RemoteDisk, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	key := opts.Child.Key
	if key == "" {
		key = mainChild
	}
	d := &RemoteDisk{cmd: exec.Command(self, opts.Child.Args...)}
	d.cmd.Env = append(os.Environ(), childEnv+"="+diskChild+key)
	d.cmd.Stderr = &d.output
	// A signal for the group of this process must not take the disk away from
	// under engines that are still being closed.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.out = bufio.NewReader(out)
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the process that serves the disk: %w", err)
	}
	if err := d.ask(diskRequest{Cmd: "mount", Dir: dir, Mode: opts.Mode}); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *RemoteDisk) ask(r diskRequest) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := d.in.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("the process that serves the disk is gone: %w", err)
	}
	text, err := d.out.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("the process that serves the disk is gone: %w", err)
	}
	var a diskAnswer
	if err := json.Unmarshal(text, &a); err != nil {
		return fmt.Errorf("the process that serves the disk says %q: %w", text, err)
	}
	if a.Error != "" {
		return errors.New(a.Error)
	}
	return nil
}

// Inject makes operations go wrong from now on.
func (d *RemoteDisk) Inject(f DiskFault) error { return d.ask(diskRequest{Cmd: "inject", Fault: &f}) }

// Heal ends every fault, a full disk too.
func (d *RemoteDisk) Heal() error { return d.ask(diskRequest{Cmd: "heal"}) }

// Fill leaves free bytes of space.
func (d *RemoteDisk) Fill(free int64) error { return d.ask(diskRequest{Cmd: "fill", Free: free}) }

// Die makes every operation fail with EIO from now on: the power of the device is
// gone.
func (d *RemoteDisk) Die() error { return d.ask(diskRequest{Cmd: "die"}) }

// Cut is Die, and then a fresh mount of what seed lets survive. Whoever has files
// open keeps the dead device.
func (d *RemoteDisk) Cut(seed int64) error { return d.ask(diskRequest{Cmd: "cut", Seed: seed}) }

// Close unmounts the disk and ends its process.
func (d *RemoteDisk) Close() error {
	closeErr := d.in.Close()
	if err := d.cmd.Wait(); err != nil {
		return fmt.Errorf("the process that served the disk: %w: %s", err, d.output.String())
	}
	return closeErr
}

// diskMain serves one disk until stdin ends.
func diskMain() {
	s := &diskServer{}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var r diskRequest
		if err := in.Decode(&r); err != nil {
			break
		}
		var a diskAnswer
		if err := s.serve(r); err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			break
		}
	}
	if err := s.unmount(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// diskServer is the other side of a RemoteDisk.
type diskServer struct{ fs *fusefs.FS }

func (s *diskServer) serve(r diskRequest) (err error) {
	if s.fs == nil && r.Cmd != "mount" {
		return errors.New("the disk is not mounted")
	}
	switch r.Cmd {
	case "mount":
		s.fs, err = fusefs.Mount(r.Dir, fusefs.Options{Mode: r.Mode})
	case "inject":
		return s.inject(*r.Fault)
	case "heal":
		s.fs.Heal()
		s.fs.Fill(1 << 40)
	case "fill":
		s.fs.Fill(r.Free)
	case "die":
		s.fs.Kill()
		s.fs.Release()
	case "cut":
		return s.cut(r.Seed)
	default:
		return fmt.Errorf("unknown command %q", r.Cmd)
	}
	return err
}

func (s *diskServer) inject(f DiskFault) error {
	op, err := fusefs.ParseOp(f.Op)
	if err != nil {
		return err
	}
	s.fs.Inject(fusefs.Fault{
		Op: op, Skip: f.Skip, Times: f.Times, Err: syscall.Errno(f.Errno), Short: f.Short, Delay: f.Delay,
		Match: func(path string) bool { return strings.Contains(path, f.Path) },
	})
	return nil
}

// cut detaches the dead mount without waiting for those who have files open, and
// mounts the survivors in its place.
func (s *diskServer) cut(seed int64) error {
	next, dir := s.fs.Cut(seed), s.fs.Dir()
	if err := s.fs.Detach(); err != nil {
		return err
	}
	fs, err := fusefs.Mount(dir, fusefs.Options{Disk: next})
	s.fs = fs
	return err
}

func (s *diskServer) unmount() error {
	if s.fs == nil {
		return nil
	}
	return s.fs.Detach()
}
