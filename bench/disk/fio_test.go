package disk

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestAgreesWithFio runs etcd's recipe and the calibration alternately, five
// times each, and compares the medians of the five medians of the sync alone.
// With RAFTBENCH_FIO=1 only: it takes a minute, needs fio, and a quiet disk.
//
// fio's recipe is between two of our kinds. In an empty directory it allocates
// the file (fallocate) and then writes it once: what it syncs was allocated, but
// never written. Run again in the same directory it overwrites the file that it
// left, after dropping it from the page cache, so that each write of 2300 bytes
// first reads the page around it. The sync itself is that of an overwrite in the
// second case; the directory is kept so that all but the first run are that.
func TestAgreesWithFio(t *testing.T) {
	if os.Getenv("RAFTBENCH_FIO") == "" {
		t.Skip("set RAFTBENCH_FIO=1 to compare with fio (a minute)")
	}
	dir := t.TempDir()
	fioDir := t.TempDir()
	ours := map[string][]time.Duration{}
	var theirs []time.Duration
	for i := range 5 {
		p50 := fio(t, fioDir)
		theirs = append(theirs, p50)
		rows, err := Calibrate(t.Context(), dir, Options{Budget: 4 * time.Second, Sizes: []int{RecipeBytes}, Seed: int64(i)})
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("fio %v", p50)
		for _, r := range rows {
			if r.Sync != nil {
				ours[r.Kind] = append(ours[r.Kind], r.Sync.P50)
				line += fmt.Sprintf(", %s %v", r.Kind, r.Sync.P50)
			}
		}
		t.Log(line)
	}
	for _, kind := range kinds {
		if len(ours[kind]) > 0 {
			t.Logf("%s: %.2f of fio", kind, median(ours[kind])/median(theirs))
		}
	}
	if ratio := median(ours[Overwrite]) / median(theirs); math.Abs(ratio-1) > 0.25 {
		t.Errorf("the floor is %.2f of fio's median, want 0.75 to 1.25", ratio)
	}
}

// fio runs the recipe and returns the median fdatasync.
func fio(t *testing.T, dir string) time.Duration {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "fio", "--rw=write", "--ioengine=sync", "--fdatasync=1", "--bs=2300",
		"--size=22m", "--directory="+dir, "--name=recipe", "--output-format=json").Output()
	if err != nil {
		t.Fatalf("fio: %v (apt-get install fio)", err)
	}
	var report struct {
		Jobs []struct {
			Sync struct {
				Lat struct {
					Percentile map[string]float64 `json:"percentile"`
				} `json:"lat_ns"`
			} `json:"sync"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal(out, &report); err != nil || len(report.Jobs) != 1 {
		t.Fatalf("fio's report: %v\n%s", err, out)
	}
	return time.Duration(report.Jobs[0].Sync.Lat.Percentile["50.000000"])
}
