// Package env records on what machine, and with what build, figures were made,
// and what the process that made them consumed.
//
// Everything is read from where the system publishes it (/proc, /sys, the cgroup
// tree, the build information of the binary); nothing is guessed. What cannot be
// read is absent from the result, on other systems than Linux most of it.
package env

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/host"
	"github.com/shirou/gopsutil/v4/mem"

	"github.com/raftbench/raftbench/bench/result"
)

// Collect describes this machine and this binary. dir is where the data will go;
// it need not exist, the nearest folder above it that does is described. Before is
// the pressure now, and Warnings are those of [Warnings].
func Collect(dir string) result.Env {
	e := result.Env{
		OS: runtime.GOOS, Arch: runtime.GOARCH, Cores: runtime.NumCPU(),
		Go: runtime.Version(), GOMAXPROCS: runtime.GOMAXPROCS(0), GOGC: gogc(),
		CPUScheduling: cpuScheduling(),
	}
	e.Hostname, _ = os.Hostname()
	guest := false
	if infos, err := cpu.Info(); err == nil && len(infos) > 0 {
		e.CPU = infos[0].ModelName
		guest = slices.Contains(infos[0].Flags, "hypervisor")
	}
	if kernel, err := host.KernelVersion(); err == nil {
		e.Kernel = kernel
	}
	if system, role, err := host.Virtualization(); err == nil && role == "guest" {
		e.Virtualization = system
	}
	e.Virtualization = virtualization(e.Virtualization, guest)
	if m, err := mem.VirtualMemory(); err == nil {
		e.MemoryBytes = int64(m.Total)
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		describeBuild(&e, info)
	}
	if e.Dirty || e.Commit == "" && e.Version == "(devel)" {
		e.Build = fingerprint()
	}
	if existing, err := nearest(dir); err == nil {
		e.Dir = dir
		if abs, err := filepath.Abs(dir); err == nil {
			e.Dir = abs
		}
		machine.describe(&e, existing)
	}
	before := Pressure(Ticks{})
	e.Before = &before
	e.Warnings = Warnings(e)
	return e
}

// containers are the systems that share a kernel: the CPU may be a guest's beside.
var containers = []string{"docker", "lxc", "podman", "rkt", "systemd-nspawn", "linux-vserver"}

// virtualization adds to the system found what the CPU says of itself.
func virtualization(system string, guestCPU bool) string {
	switch {
	case !guestCPU:
		return system
	case system == "":
		return "virtual machine"
	case slices.Contains(containers, system):
		return system + " in a virtual machine"
	}
	return system
}

// nearest is dir, or the closest folder above it that exists, without symbolic
// links.
func nearest(dir string) (string, error) {
	at, err := filepath.Abs(dir)
	for err == nil {
		var real string
		if real, err = filepath.EvalSymlinks(at); err == nil {
			return real, nil
		}
		if !os.IsNotExist(err) || at == filepath.Dir(at) {
			return "", err
		}
		at, err = filepath.Dir(at), nil
	}
	return "", err
}

// gogc is what the garbage collector is set to, by GOGC or debug.SetGCPercent.
func gogc() string {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return os.Getenv("GOGC")
	}
	if v := sample[0].Value.Uint64(); v <= 1<<31 {
		return strconv.FormatUint(v, 10)
	}
	return "off"
}

// fingerprint tells builds from changed sources apart; "" where the program's file cannot
// be read. The same sources make the same file, also by `go run`.
func fingerprint() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// describeBuild takes the version, the commit and the modules from the binary.
func describeBuild(e *result.Env, info *debug.BuildInfo) {
	e.Version = info.Main.Version
	if e.Version == "" {
		e.Version = "(devel)"
	}
	e.Modules = map[string]string{}
	for _, m := range info.Deps {
		version := m.Version
		if m.Replace != nil {
			version = fmt.Sprintf("%s => %s %s", m.Version, m.Replace.Path, m.Replace.Version)
		}
		e.Modules[m.Path] = version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			e.Commit = s.Value
		case "vcs.modified":
			e.Dirty = s.Value == "true"
		}
	}
	// `go run` and `go test` do not stamp the commit. What they compile is the
	// checkout that they are called in.
	if e.Commit == "" && e.Version == "(devel)" {
		e.Commit, e.Dirty = checkout(".", info.Main.Path)
	}
}
