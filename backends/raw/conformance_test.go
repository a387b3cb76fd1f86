package raw_test

import (
	"maps"
	"os"
	"strings"
	"testing"

	"github.com/raftbench/raftbench/backends"
	"github.com/raftbench/raftbench/backends/backendtest"
	"github.com/raftbench/raftbench/backends/raw"
)

func TestConformance(t *testing.T) { backendtest.Run(t, raw.Backend) }

// The tricks are switches; the contract holds with each of them. What they do to
// recovery is tested on the disk in memory, so these are asked for by
// RAFTBENCH_RAW_CUTS only.
func TestConformanceWithParams(t *testing.T) {
	if os.Getenv("RAFTBENCH_RAW_CUTS") == "" {
		t.Skip("RAFTBENCH_RAW_CUTS is not set")
	}
	for _, setting := range []string{
		"raw[segment=64KiB,recycle=off,io=direct,sync=dsync]",
		"raw[segment=256KiB,prealloc=fallocate,io=direct,sync=fdatasync]",
		"raw[segment=64KiB,prealloc=none,io=buffered,sync=fsync]",
	} {
		_, params, err := backends.ParseName(setting)
		if err != nil {
			t.Fatal(err)
		}
		b := raw.Backend
		b.Name = setting
		b.Open = func(opts backends.Options) (backends.Storage, backends.State, error) {
			given := maps.Clone(params)
			maps.Copy(given, opts.Params)
			opts.Params = given
			return raw.Backend.Open(opts)
		}
		t.Run(strings.NewReplacer("[", ":", "]", "").Replace(setting), func(t *testing.T) { backendtest.Run(t, b) })
	}
}
