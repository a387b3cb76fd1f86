package reports

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"

	"github.com/raftbench/raftbench/bench/result"
)

// Write puts result.json, bench.txt, runs.csv and report.html into dir, which is
// made if needed. Each file appears whole or not at all.
func Write(dir string, r *result.Result) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	for _, f := range []struct {
		name  string
		write func(io.Writer, *result.Result) error
	}{
		{ResultFile, JSON},
		{BenchFile, Benchfmt},
		{RunsFile, CSV},
		{ReportFile, func(w io.Writer, r *result.Result) error { return HTML(w, r) }},
	} {
		if err := WriteFile(filepath.Join(dir, f.name), func(w io.Writer) error { return f.write(w, r) }); err != nil {
			return err
		}
	}
	return nil
}

// WriteFile makes or replaces the file at path with what write produces: under
// another name in the same directory first, and renamed when it is complete.
func WriteFile(path string, write func(io.Writer) error) error {
	var buf bytes.Buffer
	if err := write(&buf); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(tmp.Name()) // fails once it is renamed
	_, err = tmp.Write(buf.Bytes())
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// JSON writes r as result.json, indented. Figures that JSON cannot hold (NaN,
// infinities) were not measured, and are left out.
func JSON(w io.Writer, r *result.Result) error {
	data, err := json.MarshalIndent(portable(r), "", " ")
	if err != nil {
		return fmt.Errorf("encode result: %w", err)
	}
	data = append(data, '\n')
	_, err = w.Write(data)
	return err
}

// portable is a copy of r that JSON can hold and the schema accepts: without
// NaN and infinities, and with empty lists where the schema demands a list.
func portable(r *result.Result) *result.Result {
	out := finite(reflect.ValueOf(*r)).Interface().(result.Result)
	if out.Schema == "" {
		out.Schema = result.Schema
	}
	if out.Command == nil {
		out.Command = []string{}
	}
	if out.Runs == nil {
		out.Runs = []result.Run{}
	}
	return &out
}

// finite copies v with every float that is NaN or infinite set to 0, and every
// pointer to one set to nil. Parts without floats are shared with v.
func finite(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.Float64:
		if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return reflect.Zero(v.Type())
		}
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		if e := v.Elem(); e.Kind() == reflect.Float64 {
			if math.IsNaN(e.Float()) || math.IsInf(e.Float(), 0) {
				return reflect.Zero(v.Type())
			}
			return v
		}
		out := reflect.New(v.Type().Elem())
		out.Elem().Set(finite(v.Elem()))
		return out
	case reflect.Struct:
		out := reflect.New(v.Type()).Elem()
		out.Set(v)
		for i := range v.NumField() {
			if f := out.Field(i); f.CanSet() {
				f.Set(finite(v.Field(i)))
			}
		}
		return out
	case reflect.Slice:
		if v.IsNil() || !hasFloats(v.Type().Elem()) {
			return v
		}
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			out.Index(i).Set(finite(v.Index(i)))
		}
		return out
	}
	return v
}

// hasFloats reports whether a value of type t can hold a float.
func hasFloats(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Float64:
		return true
	case reflect.Pointer, reflect.Slice:
		return hasFloats(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if hasFloats(t.Field(i).Type) {
				return true
			}
		}
	}
	return false
}
