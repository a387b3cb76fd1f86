package disk

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

var update = flag.Bool("update", false, "write the golden files anew")

// quick is the shortest calibration that does all there is to do.
func quick() Options {
	return Options{Budget: 100 * time.Millisecond, Rounds: 2, Sizes: []int{RecipeBytes, 1 << 20}, At: "before", Block: 3}
}

func TestCalibrate(t *testing.T) {
	dir := t.TempDir()
	rows, err := Calibrate(t.Context(), dir, quick())
	if err != nil {
		t.Fatal(err)
	}
	type cell struct {
		kind  string
		bytes int
	}
	var want []cell
	for _, kind := range kinds {
		for _, size := range quick().Sizes {
			if kind != Direct || size == 1<<20 && takesDirect(t) { // whole blocks
				want = append(want, cell{kind, size})
			}
		}
	}
	if len(rows) != len(want) {
		t.Fatalf("%d rows, want %v", len(rows), want)
	}
	for i, r := range rows {
		if r.Kind != want[i].kind || r.Bytes != want[i].bytes || r.At != "before" || r.Block != 3 {
			t.Errorf("row %d is %s at %d bytes (%s %d)", i, r.Kind, r.Bytes, r.At, r.Block)
		}
		if r.Count < 2 || r.P50 <= 0 || r.P50 > r.P90 || r.P90 > r.P99 || r.P99 > r.P999 || r.P999 > r.Max {
			t.Errorf("%s %d: %+v", r.Kind, r.Bytes, r.Latency)
		}
		if (r.Sync == nil) != (r.Kind == Dsync || r.Kind == Direct) {
			t.Errorf("%s has sync %+v", r.Kind, r.Sync)
		}
		if r.Sync != nil && (r.Sync.P50 <= 0 || r.Sync.Mean > r.Mean || r.Sync.Count != r.Count) {
			t.Errorf("%s %d: sync %+v within %+v", r.Kind, r.Bytes, *r.Sync, r.Latency)
		}
		if perSecond := float64(time.Second) / float64(r.Mean); r.IOPS < perSecond*0.99 || r.IOPS > perSecond*1.01 {
			t.Errorf("%s %d: %.0f a second at a mean of %v", r.Kind, r.Bytes, r.IOPS, r.Mean)
		}
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// takesDirect: the file system here can be written past the page cache.
func takesDirect(t *testing.T) bool {
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	direct, err := openDirect(file.Name())
	if err != nil {
		return false
	}
	defer direct.Close()
	page, err := newPages(directBlock)
	if err != nil {
		t.Fatal(err)
	}
	defer freePages(page)
	_, err = direct.Write(page)
	return err == nil
}

func TestCanceled(t *testing.T) {
	dir := t.TempDir()
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	if _, err := Calibrate(ctx, dir, quick()); !errors.Is(err, stop) {
		t.Errorf("canceled: %v", err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	if _, err := Calibrate(t.Context(), missing, quick()); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("no directory: %v", err)
	}
	bad := quick()
	bad.Kinds = []string{"magic"}
	if _, err := Calibrate(t.Context(), t.TempDir(), bad); err == nil || !strings.Contains(err.Error(), "magic") {
		t.Errorf("unknown kind: %v", err)
	}
	bad = quick()
	bad.Sizes = []int{0}
	if _, err := Calibrate(t.Context(), t.TempDir(), bad); err == nil {
		t.Error("a write of nothing is measured")
	}
}

// TestTargetsTurn: overwriting starts again within the file, and a growing file
// is cut.
func TestTargetsTurn(t *testing.T) {
	f, err := newFiles(t.TempDir(), quick())
	if err != nil {
		t.Fatal(err)
	}
	defer f.remove()
	for _, kind := range kinds {
		if kind == Direct && !takesDirect(t) {
			continue
		}
		target, err := f.target(t.Context(), kind, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if err := target.Truncate(target.limit); err != nil {
			t.Fatal(err)
		}
		target.next = target.limit - 1<<19
		if err := target.makeRoom(1 << 20); err != nil {
			t.Fatal(err)
		}
		if _, err := target.write(f.payload(1<<20, target.align)); err != nil {
			t.Fatal(err)
		}
		info, err := target.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int64{true: 1 << 20, false: writtenBytes}[target.grows]; info.Size() != want || target.next != 1<<20 {
			t.Errorf("%s: %d bytes, next %d", kind, info.Size(), target.next)
		}
		if again, _ := f.target(t.Context(), kind, 1<<20); again != target {
			t.Errorf("%s forgets where it was", kind)
		}
	}
}

// TestPayload: a write is not that of before, and begins where it may.
func TestPayload(t *testing.T) {
	f, err := newFiles(t.TempDir(), quick())
	if err != nil {
		t.Fatal(err)
	}
	defer f.remove()
	for _, c := range []struct{ size, align int }{{RecipeBytes, 1}, {directBlock, directBlock}, {1 << 20, directBlock}, {1 << 20, 1}} {
		var before []byte
		for range 3000 {
			b := f.payload(c.size, c.align)
			if len(b) != c.size || bytes.Equal(b, before) {
				t.Fatalf("%d bytes for %+v, equal to those before: %v", len(b), c, bytes.Equal(b, before))
			}
			if at := cap(f.bytes) - cap(b); at%c.align != 0 {
				t.Fatalf("a payload begins at %d, want a multiple of %d", at, c.align)
			}
			before = b
		}
	}
}

func TestSummarize(t *testing.T) {
	var ds []time.Duration
	for i := 1000; i >= 1; i-- {
		ds = append(ds, time.Duration(i))
	}
	got := summarize(ds)
	want := result.Latency{Count: 1000, Mean: 500, P50: 500, P90: 900, P99: 990, P999: 999, Max: 1000}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := summarize([]time.Duration{3, 1, 2}); got.P50 != 2 || got.P90 != 3 {
		t.Errorf("three samples: %+v", got)
	}
	if got := summarize([]time.Duration{7}); got.P50 != 7 || got.P999 != 7 {
		t.Errorf("one sample: %+v", got)
	}
}

// rows makes floor rows from size and median pairs.
func rows(pairs ...int) []result.Calibration {
	var out []result.Calibration
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, result.Calibration{Kind: Overwrite, Bytes: pairs[i],
			Latency: result.Latency{Count: 1000, P50: time.Duration(pairs[i+1])}})
	}
	return out
}

func TestFloor(t *testing.T) {
	cals := append(rows(2000, 100, 4000, 300, 8000, 400, 2000, 120, 2000, 110), result.Calibration{
		Kind: Append, Bytes: 2000, Latency: result.Latency{Count: 9, P50: 1},
	})
	for bytes, want := range map[int]time.Duration{1: 110, 2000: 110, 3000: 205, 4000: 300, 6000: 350, 8000: 400, 12000: 500} {
		if got, ok := Floor(cals, bytes); !ok || got != want {
			t.Errorf("Floor(%d) = %v, %v, want %v", bytes, got, ok, want)
		}
	}
	if got, ok := Floor(rows(2300, 100), 2300); !ok || got != 100 {
		t.Errorf("one size, fitting: %v, %v", got, ok)
	}
	if got, ok := Floor(rows(2300, 100), 2301); ok {
		t.Errorf("one size, too large: %v", got)
	}
	if _, ok := Floor(nil, 1); ok {
		t.Error("a floor of nothing")
	}
}

func TestDrift(t *testing.T) {
	if share, ok := Drift(rows(2300, 100, 2300, 125, 2300, 110, 4096, 1, 4096, 1000)); !ok || share < 0.22 || share > 0.23 || !Drifted(share) {
		t.Errorf("25 of 110: %v, %v", share, ok)
	}
	if _, ok := Drift(rows(2300, 100, 4096, 200)); ok {
		t.Error("drift from one calibration")
	}
}

// sample rows for the texts: a healthy disk.
func healthy() []result.Calibration {
	row := func(kind string, bytes int, p50 time.Duration) result.Calibration {
		l := result.Latency{Count: 5000, Mean: p50 * 11 / 10, P50: p50, P90: p50 * 2, P99: p50 * 3, P999: p50 * 7, Max: p50 * 40}
		c := result.Calibration{Kind: kind, Bytes: bytes, Latency: l, IOPS: float64(time.Second) / float64(l.Mean), Drift: 0.034}
		c.BytesPerSecond = c.IOPS * float64(bytes)
		if kind != Dsync && kind != Direct {
			s := l
			s.P50, s.P99 = s.P50-5000, s.P99-5000
			c.Sync = &s
		}
		return c
	}
	return []result.Calibration{
		row(Overwrite, 2300, 131_234), row(Overwrite, 1<<20, 1_700_000),
		row(Append, 2300, 212_345), row(AppendFsync, 65536, 412_345), row(Dsync, 4096, 134_000), row(Direct, 4096, 94_000),
	}
}

func TestReportGolden(t *testing.T) {
	var b bytes.Buffer
	verdict := func(title string, change func(*result.Calibration)) {
		cals := healthy()
		change(&cals[0])
		b.WriteString(title + ":\n  " + Verdict(cals) + "\n\n")
	}
	verdict("healthy", func(*result.Calibration) {})
	verdict("near the limit", func(c *result.Calibration) { c.Sync.P99 = 7 * time.Millisecond })
	verdict("too slow", func(c *result.Calibration) { c.Sync.P99 = 10 * time.Millisecond })
	verdict("few writes", func(c *result.Calibration) { c.Count = 999 })
	verdict("drifting", func(c *result.Calibration) { c.Drift = 0.31 })
	verdict("not persisting", func(c *result.Calibration) { c.P50 = 9 * time.Microsecond })
	verdict("not measured", func(c *result.Calibration) { c.Count = 0 })
	cals := healthy()
	cals[3].Count = 500
	if err := WriteTable(&b, cals); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "report.txt")
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
