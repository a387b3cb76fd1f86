package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/bench"
)

// A suite file holds the settings of `raftbench run` under the names of its flags:
//
//	backends: [etcd-wal, {name: bbolt, params: {freelist: [array, map]}}]
//	load: [closed:1, closed:64, curve]
//	nodes: [1, 3]
//	duration: 5s
//
// Each of varying may be a list; the suite is the product of all lists.

// varying are the settings that may be lists, in the order in which they stand in
// the names of runs: those by which results are told apart (stats.Config).
var varying = []string{"workload", "load", "value-size", "read-ratio", "slow-disk", "nodes", "groups", "placement", "transport", "loop", "raft", "batch", "snapshot", "gomaxprocs"}

// listed are the settings that are lists by themselves, without a product.
var listed = map[string]bool{"backends": true, "state-size": true, "threshold": true}

// notInFile are flags that say what to do with a file, or with this process.
var notInFile = map[string]bool{"hosts": true, "tls": true, "token-file": true, "file": true, "resume": true, "in-process": true, "help": true}

// flagLists are the settings of varying that are lists as flags too.
var flagLists = []string{"transport", "loop", "raft", "placement"}

// maxConfigs bounds the product: a block would take days.
const maxConfigs = 1000

// suiteFile is a decoded file: the values of each setting.
type suiteFile map[string][]string

// readSuite reads a suite file. Errors name the file and the setting.
func readSuite(path string, flags *pflag.FlagSet) (suiteFile, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the suite: %w", err)
	}
	file, err := decodeSuite(data, flags)
	if err != nil {
		return nil, usageErrorf("--file %s: %v", path, err)
	}
	return file, nil
}

// decodeSuite reads YAML: unknown settings, repeated ones and values that no flag
// would take are errors.
func decodeSuite(data []byte, flags *pflag.FlagSet) (suiteFile, error) {
	var raw map[string]json.RawMessage
	if err := yaml.UnmarshalStrict(data, &raw); err != nil {
		return nil, fmt.Errorf("not a suite: %w", err)
	}
	file := suiteFile{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		flag := flags.Lookup(name)
		if flag == nil || notInFile[name] {
			errs = append(errs, fmt.Errorf("unknown setting %q; known: %s", name, strings.Join(settings(flags), ", ")))
			continue
		}
		values, err := valuesOf(name, raw[name])
		if err == nil && len(values) > 1 && !listed[name] && !slices.Contains(varying, name) {
			err = fmt.Errorf("want one value, not %d; lists are possible for: %s, %s", len(values),
				strings.Join(varying, ", "), strings.Join(slices.Sorted(maps.Keys(listed)), ", "))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		file[name] = values
	}
	return file, errors.Join(errs...)
}

// settings are the names that a file may hold.
func settings(flags *pflag.FlagSet) []string {
	var names []string
	flags.VisitAll(func(f *pflag.Flag) {
		if !notInFile[f.Name] {
			names = append(names, f.Name)
		}
	})
	return names
}

// valuesOf takes a value, or a list of values.
func valuesOf(name string, raw json.RawMessage) ([]string, error) {
	items := []json.RawMessage{raw}
	if strings.HasPrefix(string(raw), "[") {
		if err := json.Unmarshal(raw, &items); err != nil {
			return nil, err
		}
	}
	var out []string
	for _, item := range items {
		values, err := valueOf(name, item)
		if err != nil {
			return nil, err
		}
		for _, v := range values {
			if slices.Contains(out, v) {
				return nil, fmt.Errorf("%s is given twice", v)
			}
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the list is empty")
	}
	return out, nil
}

// valueOf is the text of one value; a backend may be several.
func valueOf(name string, raw json.RawMessage) ([]string, error) {
	var text string
	switch {
	case name == "backends" && strings.HasPrefix(string(raw), "{"):
		return backendLabels(raw)
	case strings.HasPrefix(string(raw), `"`):
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, err
		}
	case strings.HasPrefix(string(raw), "{"), strings.HasPrefix(string(raw), "["):
		return nil, fmt.Errorf("%s is neither a value nor a list of values", raw)
	case string(raw) == "null":
		return nil, errors.New("the value is missing")
	default: // a number, true, false
		text = string(raw)
	}
	if name == "backends" {
		return backends.SplitNames(text), nil
	}
	return []string{text}, nil
}

// backendLabels expands {name: bbolt, params: {freelist: [array, map]}} to the
// product of its parameters.
func backendLabels(raw json.RawMessage) ([]string, error) {
	var b struct {
		Name   string                     `json:"name"`
		Params map[string]json.RawMessage `json:"params"`
	}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return nil, err
	}
	if b.Name == "" {
		return nil, errors.New("a backend has no name")
	}
	params := []map[string]string{{}}
	for _, key := range slices.Sorted(maps.Keys(b.Params)) {
		values, err := valuesOf(key, b.Params[key])
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", b.Name, key, err)
		}
		var next []map[string]string
		for _, p := range params {
			for _, v := range values {
				with := maps.Clone(p)
				with[key] = v
				next = append(next, with)
			}
		}
		if params = next; len(params) > maxConfigs {
			return nil, fmt.Errorf("%s: more than %d combinations of parameters", b.Name, maxConfigs)
		}
	}
	labels := make([]string, len(params))
	for i, p := range params {
		labels[i] = backends.FormatName(b.Name, p)
	}
	return labels, nil
}

// combination is one element of the product: the value of each setting that
// varies, and the name that tells it apart.
type combination struct {
	name   string
	values map[string]string
}

// combinations is the product of the lists, in the order of the file's values.
func (file suiteFile) combinations() ([]combination, error) {
	out := []combination{{values: map[string]string{}}}
	for _, name := range varying {
		values := file[name]
		if len(values) == 0 {
			continue
		}
		var next []combination
		for _, c := range out {
			for _, v := range values {
				with := combination{c.name, maps.Clone(c.values)}
				with.values[name] = v
				if len(values) > 1 {
					with.name = strings.TrimPrefix(c.name+","+name+"="+v, ",")
				}
				next = append(next, with)
			}
		}
		if out = next; len(out) > maxConfigs {
			return nil, usageErrorf("the suite has more than %d configurations", maxConfigs)
		}
	}
	return out, nil
}

// suite turns flags, and the file that they name, into what is to be run. flags
// are those that f was filled from; what was given there wins over the file.
func (f *runFlags) suite(flags *pflag.FlagSet) (bench.Spec, error) {
	file, err := f.chosen(flags)
	if err != nil {
		return bench.Spec{}, err
	}
	if f.file == "" && len(file) == 0 {
		return f.spec()
	}
	if err := file.setCommon(flags, f.file); err != nil {
		return bench.Spec{}, err
	}
	combinations, err := file.combinations()
	if err != nil {
		return bench.Spec{}, err
	}
	specs := make([]bench.Spec, len(combinations))
	var errs []error
	for i, c := range combinations {
		var each runFlags
		specs[i], err = each.with(flags, c, f.file)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return bench.Spec{}, err
	}
	if len(specs) == 1 {
		return specs[0], nil
	}
	frame := specs[0]
	frame.Variant, frame.Matrix = "", specs
	return frame, frame.Fill()
}

// chosen is what the file holds, where there is one, without what flags win over,
// and the flags that are lists.
func (f *runFlags) chosen(flags *pflag.FlagSet) (suiteFile, error) {
	file := suiteFile{}
	if f.file != "" {
		var err error
		if file, err = readSuite(f.file, flags); err != nil {
			return nil, err
		}
	}
	for name := range file {
		if flags.Changed(name) {
			delete(file, name)
		}
	}
	for _, name := range flagLists {
		if !flags.Changed(name) {
			continue
		}
		values := strings.Split(flags.Lookup(name).Value.String(), ",")
		for i, v := range values {
			if v == "" {
				return nil, usageErrorf("--%s: a value is missing", name)
			}
			if slices.Contains(values[:i], v) {
				return nil, usageErrorf("--%s: %s is given twice", name, v)
			}
		}
		if len(values) > 1 {
			file[name] = values
		}
	}
	return file, nil
}

// setCommon sets the flags that do not vary.
func (file suiteFile) setCommon(flags *pflag.FlagSet, path string) error {
	for name, values := range file {
		switch {
		case slices.Contains(varying, name):
			continue
		case name == "threshold":
		case listed[name]:
			values = []string{strings.Join(values, ",")}
		}
		for _, v := range values {
			if err := flags.Set(name, v); err != nil {
				return usageErrorf("--file %s: %s: %v", path, name, err)
			}
		}
	}
	return nil
}

// with fills f from flags and one combination, and makes a configuration of it.
func (f *runFlags) with(flags *pflag.FlagSet, c combination, path string) (bench.Spec, error) {
	cmd := &cobra.Command{}
	f.register(cmd)
	if err := copyFlags(cmd.Flags(), flags); err != nil {
		return bench.Spec{}, err
	}
	for name, v := range c.values {
		if err := cmd.Flags().Set(name, v); err != nil {
			return bench.Spec{}, usageErrorf("--file %s: %s: %v", path, name, err)
		}
	}
	spec, err := f.spec()
	if err != nil && c.name != "" {
		err = fmt.Errorf("%s: %w", c.name, err)
	}
	if err != nil && path != "" {
		err = fmt.Errorf("--file %s: %w", path, err)
	}
	spec.Variant = c.name
	return spec, err
}

// copyFlags sets in one set what was set in another.
func copyFlags(to, from *pflag.FlagSet) error {
	var errs []error
	eachGiven(from, func(name, value string) {
		if to.Lookup(name) != nil { // not one of a command around it
			errs = append(errs, to.Set(name, value))
		}
	})
	return errors.Join(errs...)
}
