package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"runtime/trace"
	"strings"
)

// startProfiles begins to record what the run was asked for. What it returns ends
// the recording and closes the files; it must be called once. The runtime records
// the whole process, so two runs of one process cannot be profiled at a time.
func (o One) startProfiles() (stop func() error, err error) {
	var stops []func() error
	stop = func() error {
		var errs []error
		for _, s := range stops {
			errs = append(errs, s())
		}
		return errors.Join(errs...)
	}
	for _, kind := range []struct {
		what, path string
		start      func(*os.File) error
		stop       func()
	}{
		{"CPU profile", o.CPUProfile, func(f *os.File) error { return pprof.StartCPUProfile(f) }, pprof.StopCPUProfile},
		{"execution trace", o.ExecTrace, func(f *os.File) error { return trace.Start(f) }, trace.Stop},
	} {
		if kind.path == "" {
			continue
		}
		path := profilePath(kind.path, o.ID())
		f, err := os.Create(path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make the %s: %w", kind.what, err), stop())
		}
		if err := kind.start(f); err != nil {
			return nil, errors.Join(fmt.Errorf("record the %s %s: %w", kind.what, path, err), f.Close(), stop())
		}
		stops = append(stops, func() error {
			kind.stop()
			if err := f.Close(); err != nil {
				return fmt.Errorf("write the %s %s: %w", kind.what, path, err)
			}
			return nil
		})
	}
	return stop, nil
}

// profiled does the part of a run that is measured with the recorders on.
func (o One) profiled(part func() error) error {
	stop, err := o.startProfiles()
	if err != nil {
		return err
	}
	return errors.Join(part(), stop())
}

// profilePath puts the id of a run in front of the extension: cpu.pprof becomes
// cpu-001-bbolt.pprof.
func profilePath(path, id string) string {
	ext := filepath.Ext(path)
	return strings.TrimSuffix(path, ext) + "-" + fileName(id) + ext
}

// checkProfiles looks for the directories of the files, so that a suite does not
// find out after its first warm-up that they are not there.
func (s *Spec) checkProfiles(check func(ok bool, format string, args ...any)) {
	for _, path := range []string{s.CPUProfile, s.ExecTrace} {
		if path == "" {
			continue
		}
		info, err := os.Stat(filepath.Dir(path))
		check(err == nil && info.IsDir(), "profile %s: there is no directory %s", path, filepath.Dir(path))
	}
}
