package result

import "fmt"

// Condition is something about a machine or a build that figures depend on.
type Condition struct {
	Name  string
	Value any // comparable
}

// Conditions are what must be equal in results whose runs are pooled or compared, of every
// host, in an order of their own. What changes by itself (free space, load) is left out,
// and so is what is asked for and stands with each run.
func (r *Result) Conditions() []Condition {
	all := r.Env.conditions("")
	for i := 1; i < len(r.Hosts); i++ { // the first one's is the result's
		all = append(all, r.Hosts[i].Env.conditions(fmt.Sprintf("host %d: ", i+1))...)
	}
	return all
}

func (e *Env) conditions(of string) []Condition {
	var all []Condition
	add := func(name string, value any) { all = append(all, Condition{of + name, value}) }
	add("host", e.Hostname)
	add("OS", e.OS)
	add("architecture", e.Arch)
	add("kernel", e.Kernel)
	add("CPU", e.CPU)
	add("cores", e.Cores)
	add("CPU quota", e.CPUQuota)
	add("CPU scheduling", e.CPUScheduling)
	add("memory", e.MemoryBytes)
	add("memory limit", e.MemoryLimit)
	add("virtualization", e.Virtualization)
	add("file system", e.FileSystem)
	add("mount options", e.MountOptions)
	add("device", e.Device)
	add("model", e.Model)
	add("I/O scheduler", e.Scheduler)
	add("write cache", e.WriteCache)
	add("Go", e.Go)
	add("GOMAXPROCS", e.GOMAXPROCS)
	add("GOGC", e.GOGC)
	add("commit", e.Commit)
	add("uncommitted changes", e.Dirty)
	add("build", e.Build)
	return all
}
