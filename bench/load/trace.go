package load

import (
	"context"
	"fmt"
	"math/bits"
	"slices"
	"time"
)

// Trace is the entries of a recorded log: how large they were, and how many of
// them were saved together.
type Trace struct {
	Sizes   []int // bytes of each entry, in order
	Batches []int // entries of each batch, in order; they add up to len(Sizes)
}

// Check reports what makes a trace unusable.
func (t *Trace) Check() error {
	if len(t.Sizes) == 0 {
		return fmt.Errorf("the trace holds no entry")
	}
	sum := 0
	for i, n := range t.Batches {
		if n < 1 || n > maxSlots {
			return fmt.Errorf("batch %d of the trace has %d entries: want 1 to %d", i, n, maxSlots)
		}
		sum += n
	}
	if sum != len(t.Sizes) {
		return fmt.Errorf("the batches of the trace have %d entries, and there are %d sizes", sum, len(t.Sizes))
	}
	return nil
}

// Deciles are the smallest size, nine that divide the sizes into ten equal parts,
// and the largest. sizes is not changed; there must be one at least.
func Deciles(sizes []int) []int64 {
	sorted := slices.Sorted(slices.Values(sizes))
	out := make([]int64, 11)
	for i := range out {
		out[i] = int64(sorted[i*(len(sorted)-1)/10])
	}
	return out
}

// NewTracePayloads makes payloads of the sizes of a trace, 16 bytes at least, as
// [NewPayloads] does otherwise. A size follows from the operation's id alone:
//
//   - with batches, for a generator that replays them (Config.Batches), the
//     position in the batch and the number of the batch lead to the very entry of
//     the trace. Batches are taken in an order that visits each once before any is
//     repeated, and after any number of them has been all over the trace about
//     evenly: a run of seconds shows the whole of a log of days.
//   - else the operations of a worker walk over the sorted sizes by an irrational
//     step (a Weyl sequence), which keeps much closer to the distribution than
//     random draws do.
func NewTracePayloads(seed int64, t *Trace, batches bool, keys int, compressible float64) (*Payloads, error) {
	if err := t.Check(); err != nil {
		return nil, err
	}
	sizes := make([]int, len(t.Sizes))
	for i, n := range t.Sizes {
		sizes[i] = max(n, HeaderSize)
	}
	p, err := NewPayloads(seed, slices.Min(sizes), slices.Max(sizes), keys, compressible)
	if err != nil {
		return nil, err
	}
	p.trace = &traced{sizes: sizes, seed: p.seed}
	if !batches {
		slices.Sort(sizes)
		return p, nil
	}
	starts := make([]int, 0, len(t.Batches)+1)
	at := 0
	for _, n := range t.Batches {
		starts = append(starts, at)
		at += n
	}
	p.trace.starts = append(starts, at)
	p.trace.stride = goldenStride(len(t.Batches))
	return p, nil
}

// traced finds sizes by id.
type traced struct {
	sizes  []int
	seed   uint64
	starts []int // of the batches, and the end; nil: they are not replayed
	stride int
}

// Steps of the walk: 2^64 ÷ the golden ratio from operation to operation, and
// 2^64 × (√2 − 1) from worker to worker.
const (
	golden     = 0x9E3779B97F4A7C15
	weylWorker = 0x6A09E667F3BCC908
)

// goldenStride is the number nearest to n ÷ golden ratio that has no divisor in
// common with n, so that its multiples visit every residue once.
func goldenStride(n int) int {
	hi, _ := bits.Mul64(golden, uint64(n))
	for d := 0; ; d++ {
		for _, s := range []int{int(hi) + d, int(hi) - d} {
			if s > 0 && gcd(s, n) == 1 {
				return s
			}
		}
	}
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func (t *traced) size(id uint64) int {
	generation := id & (1<<slotShift - 1)
	if t.starts == nil {
		hi, _ := bits.Mul64(mix(t.seed)+id>>workerShift*weylWorker+generation*golden, uint64(len(t.sizes)))
		return t.sizes[hi]
	}
	first, n := t.batch(generation - 1)
	at := int(id >> slotShift & slotMask)
	if at >= n {
		return HeaderSize // no operation of a replay has this id
	}
	return t.sizes[first+at]
}

// batch is where the nth batch begins, and how many entries it has.
func (t *traced) batch(nth uint64) (first, n int) {
	batches := uint64(len(t.starts) - 1)
	at := (t.seed%batches + nth%batches*uint64(t.stride)) % batches
	return t.starts[at], t.starts[at+1] - t.starts[at]
}

// largestBatch is the number of slots that a replay needs.
func (t *traced) largestBatch() int {
	n := 0
	for i := range len(t.starts) - 1 {
		n = max(n, t.starts[i+1]-t.starts[i])
	}
	return n
}

func (t *traced) mean() int {
	sum := 0
	for _, n := range t.sizes {
		sum += n
	}
	return sum / len(t.sizes)
}

// batched proposes the batches of a trace, each when all of the one before are
// done.
func (w *worker) batched(ctx context.Context) error {
	trace := w.g.cfg.Payloads.trace
	w.slots = make([]slot, w.g.cfg.Clients)
	timeouts := time.NewTicker(w.g.cfg.Timeout / 4)
	defer timeouts.Stop()
	defer w.recordAll()
	w.busy.Add(1) // the replay itself: between two batches there is more to come
	for nth := uint32(0); ; nth++ {
		now := w.g.Now()
		if !w.g.sending(now) {
			w.busy.Add(-1)
			<-ctx.Done()
			return nil
		}
		_, n := trace.batch(uint64(nth))
		w.generation = nth + 1
		for s := range n {
			w.begin(uint32(s), now, now)
		}
		if err := w.flush(ctx); err != nil {
			return err
		}
		w.recordAll() // the batch before
		if err := w.await(ctx, n, timeouts.C); err != nil {
			return nil // the load was stopped
		}
	}
}

// await returns when n operations are done or timed out.
func (w *worker) await(ctx context.Context, n int, timeouts <-chan time.Time) error {
	for n > 0 {
		select {
		case <-w.wake:
			for _, d := range w.take() {
				if _, ok := w.complete(d); ok {
					w.busy.Add(-1)
					n--
				}
			}
		case <-timeouts:
			w.expire(w.g.Now(), func(uint32) { n-- })
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
