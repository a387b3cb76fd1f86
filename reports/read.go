package reports

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/reports/internal/quantity"
)

// The names of the files that [Write] makes.
const (
	ResultFile = "result.json"
	BenchFile  = "bench.txt"
	RunsFile   = "runs.csv"
	ReportFile = "report.html"
)

// longest is the largest result that Read accepts, uncompressed: a suite of
// 1000 runs with every histogram takes under 100 MiB.
const longest = 1 << 30

// ErrSchema is wrapped by the error of [Read] for a file that is no result, or
// one of a schema that this version does not know.
var ErrSchema = errors.New("not a readable raftbench result")

// Read reads a result: path is a result.json, a gzip-compressed one, or a
// directory that holds either. Names that the schema does not have are ignored;
// a newer schema version is an error that says so. Errors wrap [ErrSchema], or
// what the system said.
func Read(path string) (*result.Result, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read result: %w", err)
	}
	if info.IsDir() {
		dir := path
		path = filepath.Join(dir, ResultFile)
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read result: %s holds no %s: %w", dir, ResultFile, ErrSchema)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read result: %w", err)
	}
	defer f.Close()
	r, err := decode(f)
	if err != nil {
		return nil, fmt.Errorf("read result %s: %w", path, err)
	}
	return r, nil
}

// decode reads one result, compressed or not.
func decode(from io.Reader) (*result.Result, error) {
	data, err := readAll(from)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSchema, err)
		}
		if data, err = readAll(z); err != nil {
			return nil, err
		}
	}
	if err := checkSchema(data); err != nil {
		return nil, err
	}
	r := new(result.Result)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSchema, err)
	}
	return r, nil
}

func readAll(from io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(from, longest+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSchema, err)
	}
	if len(data) > longest {
		return nil, fmt.Errorf("%w: larger than %s", ErrSchema, quantity.FormatBytes(longest))
	}
	return data, nil
}

// checkSchema reads the version alone, so that a file of another version fails
// with a sentence about versions and not about the first field that changed.
func checkSchema(data []byte) error {
	var head struct {
		Schema json.RawMessage `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("%w: %w", ErrSchema, err)
	}
	var schema string
	if err := json.Unmarshal(head.Schema, &schema); err != nil || schema == "" {
		return fmt.Errorf("%w: it has no schema version (want %q)", ErrSchema, result.Schema)
	}
	if schema == result.Schema {
		return nil
	}
	want, _ := strconv.Atoi(strings.TrimPrefix(result.Schema, "raftbench/v"))
	if v, ok := strings.CutPrefix(schema, "raftbench/v"); ok {
		if n, err := strconv.Atoi(v); err == nil && n > want {
			return fmt.Errorf("%w: it was written by a newer raftbench (schema %q, this one reads %q); update raftbench",
				ErrSchema, clean(schema), result.Schema)
		}
	}
	return fmt.Errorf("%w: its schema is %q, this raftbench reads %q", ErrSchema, clean(shorten(schema, 64)), result.Schema)
}
