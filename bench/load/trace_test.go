package load

import (
	"context"
	"math"
	"slices"
	"sync"
	"testing"
	"time"
)

// bimodal is a trace of n entries, small ones and a quarter of large ones, so that
// no decile falls between the two, in batches of 1 to 7.
func bimodal(n int) *Trace {
	t := &Trace{}
	for i := range n {
		size := 20 + i*37%300
		if i%4 == 0 {
			size = 1000 + i*7919%8000
		}
		t.Sizes = append(t.Sizes, size)
	}
	for at := 0; at < n; {
		b := min(1+at%7, n-at)
		t.Batches = append(t.Batches, b)
		at += b
	}
	return t
}

func TestTraceCheck(t *testing.T) {
	for name, trace := range map[string]*Trace{
		"empty":      {},
		"no batches": {Sizes: []int{1}},
		"too many":   {Sizes: []int{1}, Batches: []int{2}},
		"too few":    {Sizes: []int{1, 2}, Batches: []int{1}},
		"empty one":  {Sizes: []int{1}, Batches: []int{0, 1}},
	} {
		if trace.Check() == nil {
			t.Errorf("%s is accepted", name)
		}
		if _, err := NewTracePayloads(1, trace, true, 1, 0); err == nil {
			t.Errorf("%s makes payloads", name)
		}
	}
	if err := bimodal(100).Check(); err != nil {
		t.Error(err)
	}
}

func TestDeciles(t *testing.T) {
	sizes := make([]int, 101)
	for i := range sizes {
		sizes[i] = 100 - i
	}
	if got := Deciles(sizes); !slices.Equal(got, []int64{0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100}) {
		t.Errorf("deciles %v", got)
	}
	if got := Deciles([]int{7}); got[0] != 7 || got[10] != 7 {
		t.Errorf("deciles of one %v", got)
	}
}

// TestBatchOrder: every batch once before any again, whatever the number of them,
// and even a tenth of them is spread over the whole trace.
func TestBatchOrder(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 6, 10, 55, 89, 100, 1000, 4096, 30030} {
		trace := &Trace{}
		for range n {
			trace.Sizes, trace.Batches = append(trace.Sizes, 16), append(trace.Batches, 1)
		}
		p, err := NewTracePayloads(3, trace, true, 1, 0)
		if err != nil {
			t.Fatal(err)
		}
		seen := make([]int, n)
		var halves [10]int
		for i := range 2 * n {
			first, size := p.trace.batch(uint64(i))
			seen[first]++
			if size != 1 {
				t.Fatalf("%d batches: batch %d has %d entries", n, i, size)
			}
			if i < n && seen[first] != 1 {
				t.Fatalf("%d batches: batch %d is repeated as number %d", n, first, i)
			}
			if i < n/10 {
				halves[first*10/n]++
			}
		}
		if n >= 1000 {
			if lo, hi := slices.Min(halves[:]), slices.Max(halves[:]); hi-lo > max(5, n/100/2) {
				t.Errorf("%d batches: the first tenth is spread as %v", n, halves)
			}
		}
	}
}

// TestTraceSizes: a few thousand operations of one worker have the deciles of the
// trace, and a payload is what Check wants.
func TestTraceSizes(t *testing.T) {
	trace := bimodal(20_000)
	p, err := NewTracePayloads(1, trace, false, 16, 0)
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	for generation := range uint64(3000) {
		id := generation + 1 | generation%7<<slotShift
		sizes = append(sizes, p.Size(id))
		if data := p.Make(id); len(data) != p.Size(id) || !p.Check(id, data) {
			t.Fatalf("payload %d has %d bytes, want %d", id, len(data), p.Size(id))
		}
	}
	got, want := Deciles(sizes), Deciles(trace.Sizes)
	for i := 1; i < 10; i++ {
		if math.Abs(float64(got[i])/float64(want[i])-1) > 0.02 {
			t.Errorf("decile %d is %d, want %d", i, got[i], want[i])
		}
	}
	if p.Mean() != p.trace.mean() || p.Mean() < 900 || p.Mean() > 1400 {
		t.Errorf("mean %d", p.Mean())
	}
	small, err := NewTracePayloads(1, &Trace{Sizes: []int{1, 2}, Batches: []int{2}}, false, 1, 0)
	if err != nil || small.Size(1) != HeaderSize {
		t.Errorf("an entry smaller than the header has %d bytes, %v", small.Size(1), err)
	}
}

// TestReplay: the generator sends whole batches, one after the other, with the
// very sizes of the trace.
func TestReplay(t *testing.T) {
	trace := bimodal(500)
	p, err := NewTracePayloads(5, trace, true, 16, 0)
	if err != nil {
		t.Fatal(err)
	}
	batches := &batchLog{immediate: &immediate{}}
	run := driveUntil(t, Config{Batches: true, Payloads: p, Seed: 1}, batches, batches.immediate, func() bool {
		return batches.len() >= 2*len(trace.Batches)
	})
	if run.Ops == 0 || run.Errors != 0 || run.Response.Count < run.Ops || run.Response.Count > run.Ops+int64(p.trace.largestBatch()) || run.Lag.Count != 0 {
		t.Errorf("%d operations, %d errors, %d recorded, lag %+v", run.Ops, run.Errors, run.Response.Count, run.Lag)
	}
	starts := map[int]int{} // start of a batch in the trace → its number
	at := 0
	for i, n := range trace.Batches {
		starts[at] = i
		at += n
	}
	for i, sizes := range batches.sizes[:len(trace.Batches)] {
		first, n := p.trace.batch(uint64(i))
		if _, ok := starts[first]; !ok || n != trace.Batches[starts[first]] {
			t.Fatalf("batch %d begins at entry %d with %d", i, first, n)
		}
		var want []int
		for _, s := range trace.Sizes[first : first+n] {
			want = append(want, max(s, HeaderSize))
		}
		if !slices.Equal(sizes, want) {
			t.Fatalf("batch %d has sizes %v, want %v", i, sizes, want)
		}
	}
}

func TestReplayTimeout(t *testing.T) {
	p, err := NewTracePayloads(5, bimodal(50), true, 16, 0)
	if err != nil {
		t.Fatal(err)
	}
	target := &immediate{}
	target.drop = func(n int) bool { return n == 5 }
	run := drive(t, Config{Batches: true, Payloads: p, Seed: 1, Timeout: 200 * time.Millisecond}, target, 500*time.Millisecond)
	if run.Errors != 1 || run.Response.Max < 200*time.Millisecond || run.Ops == 0 {
		t.Errorf("%d errors of %d operations, maximum %v: want the dropped one, at its timeout", run.Errors, run.Ops, run.Response.Max)
	}
}

func TestReplayNeedsTrace(t *testing.T) {
	batched, err := NewTracePayloads(5, bimodal(50), true, 16, 0)
	if err != nil {
		t.Fatal(err)
	}
	walk, err := NewTracePayloads(5, bimodal(50), false, 16, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"no trace":    {Batches: true, Payloads: payloads(t, 64, 64)},
		"no batches":  {Batches: true, Payloads: walk},
		"and clients": {Batches: true, Payloads: batched, Clients: 3},
		"and a rate":  {Batches: true, Payloads: batched, Rate: 3},
	} {
		if _, err := NewGenerator(cfg, failing{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// batchLog notes the sizes of what is proposed together.
type batchLog struct {
	*immediate
	mu    sync.Mutex
	sizes [][]int
}

func (b *batchLog) Propose(ctx context.Context, ps [][]byte) error {
	var sizes []int
	for _, p := range ps {
		sizes = append(sizes, len(p))
	}
	b.mu.Lock()
	b.sizes = append(b.sizes, sizes)
	b.mu.Unlock()
	return b.immediate.Propose(ctx, ps)
}

func (b *batchLog) len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.sizes)
}
