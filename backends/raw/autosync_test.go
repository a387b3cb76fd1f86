package raw

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func times(n int, d time.Duration) []time.Duration {
	out := make([]time.Duration, n)
	for i := range out {
		out[i] = d
	}
	return out
}

// Only a clear and steady preference is one.
func TestDecide(t *testing.T) {
	const us = time.Microsecond
	half := append(times(probeWrites/2, 50*us), times(probeWrites/2, 200*us)...)
	for _, c := range []struct {
		name             string
		fdatasync, dsync []time.Duration
		want             string
	}{
		{"equal", times(probeWrites, 100*us), times(probeWrites, 100*us), "fdatasync"},
		{"dsync a little faster", times(probeWrites, 100*us), times(probeWrites, 80*us), "fdatasync"},
		{"dsync faster by half, half of the time", times(probeWrites, 100*us), half, "fdatasync"},
		{"dsync faster by half", times(probeWrites, 100*us), times(probeWrites, 50*us), "dsync"},
		{"dsync slower", times(probeWrites, 100*us), times(probeWrites, 150*us), "fdatasync"},
	} {
		if got := decide(c.fdatasync, c.dsync); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// All directories of a device get one answer, which is not asked for twice.
func TestOneSyncPerDevice(t *testing.T) {
	dir := t.TempDir()
	first, err := preferredSync(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, probeName)); !os.IsNotExist(err) {
		t.Errorf("the probe is left: %v", err)
	}
	// Where no probe could be made the answer is still known.
	other := filepath.Join(dir, "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(other, probeName), 0o700); err != nil { // in the way of a probe
		t.Fatal(err)
	}
	second, err := preferredSync(other)
	if err != nil || second != first {
		t.Errorf("another directory of the device: %q, %v; want %q", second, err, first)
	}
}
