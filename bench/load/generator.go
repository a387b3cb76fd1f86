package load

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/raftbench/raftbench/bench/result"
)

// Target takes operations. Both calls may block while it is overloaded.
type Target interface {
	// Propose hands over the payloads of new operations. Each is the target's until
	// its operation is reported done; then the generator fills it again.
	Propose(ctx context.Context, payloads [][]byte) error
	// Enqueue is Propose for a generator whose schedule leaves it no time for what
	// the target has to compute: that is for another goroutine.
	Enqueue(ctx context.Context, payloads [][]byte) error
	// Read begins a linearizable read for each id.
	Read(ctx context.Context, ids []uint64) error
}

// Done says that one operation is applied. Times count from the generator's
// start; those that are not known are 0.
type Done struct {
	ID                 uint64
	SaveStart, SaveEnd time.Duration // the leader's Save that held the entry
	Handed             time.Duration // handed to the apply side
	Applied            time.Duration
	Err                error // of a read
}

// Config describes the load. Exactly one of Clients, Rate and Batches is set.
type Config struct {
	Clients   int     // closed loop
	Rate      float64 // open loop, operations a second
	Poisson   bool    // exponential gaps instead of constant ones
	Batches   bool    // closed loop of the batches of Payloads' trace, one after the other
	ReadRatio float64 // share of reads, 0 to 1
	Seed      int64
	Payloads  *Payloads
	Timeout   time.Duration // of one operation; it is then counted as an error
	// MaxInFlight bounds the operations of an open loop that wait; beyond it the
	// generator waits, which shows as lag. 0: 1<<20.
	MaxInFlight int
	// FirstWorker is the number of the first worker in operation ids: generators
	// that follow each other on one log must differ in it. Below 200.
	FirstWorker int
	// Off switches every recorder off, to measure what recording costs.
	Off bool
	// TimersOnly has an open loop wait by the runtime's timers alone, which are late
	// where the machine idles, but which a test can set forward (testing/synctest).
	TimersOnly bool
	// Observe, if set, is told the response time of every operation that succeeds,
	// whether measured or not, on several goroutines.
	Observe func(response time.Duration)
}

// Generator drives a target. Start it once; Measure and Stop mark the phases.
type Generator struct {
	cfg     Config
	target  Target
	base    time.Time
	workers []*worker
	wg      sync.WaitGroup
	cancel  context.CancelFunc

	// The measured time, since base; 0 while not known.
	from, to atomic.Int64
	failed   atomic.Int64
	started  atomic.Bool // workers is complete
	err      atomic.Pointer[error]
}

// Ids are worker (8 bits) · slot (24 bits) · generation (32 bits), so that an
// operation is found again without a map, and a late answer to one that timed
// out is told from its successor. The generation is the number of the operation
// among those of its worker, or of its batch where a trace is replayed.
const (
	workerShift = 56
	slotShift   = 32
	slotMask    = 1<<24 - 1
	maxSlots    = 1 << 23
)

type slot struct {
	generation uint32
	inFlight   bool
	read       bool
	intended   time.Duration
	sent       time.Duration
	payload    []byte // of the write before, done: to be filled again
}

type worker struct {
	g     *Generator
	index int
	rng   *rand.Rand
	slots []slot
	free  []uint32 // open loop: slots not in flight
	rec   *recorder

	generation uint32 // of the last operation

	// An open loop's: turn is held by the goroutine that takes its turn, on which all of
	// the above is.
	turn    sync.Mutex
	next    time.Duration // when the next operation is intended
	due     atomic.Int64  // when the next turn is to be taken, since base, ns; 0 while that is not awaited
	standIn chan struct{} // wakes the goroutine that takes a turn which is late; nil without one

	mu    sync.Mutex
	done  []Done
	spare []Done
	wake  chan struct{}
	busy  atomic.Int64 // begun and not done; a client's next one is begun before its last one ends here, so that 0 means that nothing more is sent
	p99   atomic.Int64 // of the last whole second, for progress

	payloads [][]byte
	readIDs  []uint64

	// What is done and not yet recorded: recording waits until what can be sent is
	// sent, so that it delays nobody.
	finished []finish
	recorded int // of finished
}

// finish is an operation that succeeded.
type finish struct {
	Done
	intended, sent time.Duration
	read           bool
}

// NewGenerator checks cfg.
func NewGenerator(cfg Config, target Target) (*Generator, error) {
	if cfg.Batches {
		if t := cfg.Payloads.trace; t == nil || t.starts == nil || cfg.Clients != 0 {
			return nil, fmt.Errorf("load: batches without a trace, or with %d clients", cfg.Clients)
		}
		cfg.Clients = cfg.Payloads.trace.largestBatch()
	}
	switch {
	case (cfg.Clients > 0) == (cfg.Rate > 0):
		return nil, fmt.Errorf("load: %d clients and %v operations a second: want one of them", cfg.Clients, cfg.Rate)
	case cfg.Clients > maxSlots:
		return nil, fmt.Errorf("load: %d clients: want %d at most", cfg.Clients, maxSlots)
	case cfg.ReadRatio < 0 || cfg.ReadRatio > 1:
		return nil, fmt.Errorf("load: read ratio %v: want 0 to 1", cfg.ReadRatio)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.MaxInFlight == 0 {
		cfg.MaxInFlight = 1 << 20
	}
	return &Generator{cfg: cfg, target: target}, nil
}

// workersFor is how many goroutines issue operations: one is enough for more
// than a million a second, a second one hides the first one's wake-up.
func workersFor(cfg Config) int {
	if cfg.Clients > 0 && !cfg.Batches {
		return max(1, min(cfg.Clients/64, runtime.NumCPU(), 8))
	}
	return 1
}

// Start begins to send. base is the origin of all times.
func (g *Generator) Start(ctx context.Context, base time.Time) {
	ctx, g.cancel = context.WithCancel(ctx)
	g.base = base
	n := workersFor(g.cfg)
	for i := range n {
		w := &worker{g: g, index: i + g.cfg.FirstWorker, rec: newRecorder(), wake: make(chan struct{}, 1),
			rng: newRand(g.cfg.Seed, i)}
		if g.fast() {
			w.standIn = make(chan struct{}, 1)
		}
		g.workers = append(g.workers, w)
	}
	g.started.Store(true)
	for i, w := range g.workers {
		clients := g.cfg.Clients / n
		if i < g.cfg.Clients%n {
			clients++
		}
		switch {
		case g.cfg.Batches:
			g.run(ctx, w.batched)
		case g.cfg.Clients > 0:
			g.run(ctx, func(ctx context.Context) error { return w.closed(ctx, clients) })
		default:
			w.next = g.Now()
			g.run(ctx, w.open)
			if w.standIn != nil {
				g.run(ctx, w.openLate)
			}
		}
	}
}

// run runs a goroutine of the generator, whose first error is Stop's.
func (g *Generator) run(ctx context.Context, f func(context.Context) error) {
	g.wg.Go(func() {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			g.err.CompareAndSwap(nil, &err)
		}
	})
}

func newRand(seed int64, worker int) *rand.Rand {
	return rand.New(rand.NewPCG(uint64(seed), uint64(worker)))
}

// Now is the time since the start.
func (g *Generator) Now() time.Duration { return time.Since(g.base) }

// Measure begins the measured time.
func (g *Generator) Measure() { g.from.Store(int64(g.Now())) }

// EndMeasure ends it, and the sending: operations that were sent, and those of an
// open loop that were intended before, go on until they are done.
func (g *Generator) EndMeasure() { g.to.Store(int64(g.Now())) }

// Pending is the number of operations in flight.
func (g *Generator) Pending() int64 {
	var n int64
	if !g.started.Load() {
		return n
	}
	for _, w := range g.workers {
		n += w.busy.Load()
	}
	return n
}

// Failed is the number of operations that failed or timed out, measured or not.
func (g *Generator) Failed() int64 { return g.failed.Load() }

// P99 is the response p99 of about the last second, 0 while unknown.
func (g *Generator) P99() time.Duration {
	var worst int64
	for _, w := range g.workers {
		worst = max(worst, w.p99.Load())
	}
	return time.Duration(worst)
}

// Stop ends the load and returns the first error of the target, if any.
func (g *Generator) Stop() error {
	g.cancel()
	g.wg.Wait()
	if err := g.err.Load(); err != nil {
		return *err
	}
	return nil
}

// Done reports operations that are applied. It does not block; the slice is the
// caller's again when it returns.
func (g *Generator) Done(batch []Done) {
	for start := 0; start < len(batch); {
		at := batch[start].ID >> workerShift
		end := start + 1
		for end < len(batch) && batch[end].ID>>workerShift == at {
			end++
		}
		if i := int(at) - g.cfg.FirstWorker; i >= 0 && i < len(g.workers) {
			g.workers[i].push(batch[start:end]) // others were sent by a generator before
		}
		start = end
	}
}

func (w *worker) push(batch []Done) {
	w.mu.Lock()
	w.done = append(w.done, batch...)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *worker) take() []Done {
	w.mu.Lock()
	defer w.mu.Unlock()
	taken := w.done
	w.done, w.spare = w.spare[:0], taken
	return taken
}

func (w *worker) id(slot uint32) uint64 {
	return uint64(w.index)<<workerShift | uint64(slot)<<slotShift | uint64(w.slots[slot].generation)
}

// begin makes an operation in a slot; flush sends all that were begun.
func (w *worker) begin(s uint32, intended, sent time.Duration) {
	if !w.g.cfg.Batches {
		w.generation++
	}
	sl := &w.slots[s]
	sl.generation = w.generation
	sl.inFlight, sl.intended, sl.sent = true, intended, sent
	w.busy.Add(1)
	sl.read = w.g.cfg.ReadRatio > 0 && w.rng.Float64() < w.g.cfg.ReadRatio
	if sl.read {
		w.readIDs = append(w.readIDs, w.id(s))
	} else {
		sl.payload = w.g.cfg.Payloads.Fill(sl.payload, w.id(s))
		w.payloads = append(w.payloads, sl.payload)
	}
}

func (w *worker) flush(ctx context.Context) error {
	n := len(w.payloads) + len(w.readIDs)
	if n == 0 {
		return nil
	}
	var err error
	if len(w.payloads) > 0 {
		if w.g.fast() {
			err = w.g.target.Enqueue(ctx, w.payloads)
		} else {
			err = w.g.target.Propose(ctx, w.payloads)
		}
		clear(w.payloads)
		w.payloads = w.payloads[:0]
	}
	if len(w.readIDs) > 0 && err == nil {
		err = w.g.target.Read(ctx, w.readIDs)
		w.readIDs = w.readIDs[:0]
	}
	return err
}

// closed runs clients that each wait for their answer.
func (w *worker) closed(ctx context.Context, clients int) error {
	w.slots = make([]slot, clients)
	now := w.g.Now()
	for s := range w.slots {
		w.begin(uint32(s), now, now)
	}
	timeouts := time.NewTicker(w.g.cfg.Timeout / 4)
	defer timeouts.Stop()
	defer w.recordAll()
	for {
		if err := w.flush(ctx); err != nil {
			return err
		}
		w.recordAll()
		select {
		case <-w.wake:
			batch := w.take()
			now = w.g.Now()
			for _, d := range batch {
				s, ok := w.complete(d)
				if !ok {
					continue
				}
				if w.g.sending(now) {
					w.begin(s, now, now)
				}
				w.busy.Add(-1)
			}
		case <-timeouts.C:
			now = w.g.Now()
			w.expire(now, func(s uint32) {
				if w.g.sending(now) {
					w.begin(s, now, now)
				}
			})
		case <-ctx.Done():
			return nil
		}
	}
}

// open sends on a schedule that does not depend on the answers.
func (w *worker) open(ctx context.Context) error {
	alarm := newAlarm(!w.g.cfg.TimersOnly)
	defer alarm.close()
	timeouts := time.NewTicker(w.g.cfg.Timeout / 4)
	defer timeouts.Stop()
	defer func() {
		w.turn.Lock()
		defer w.turn.Unlock()
		w.recordAll()
	}()
	for {
		pause, err := w.takeTurn(ctx)
		if err != nil {
			return err
		}
		var again <-chan struct{}
		switch {
		case pause == 0:
			again = atOnce
		case pause == untilAnswer:
			alarm.stop()
		default:
			alarm.set(pause)
		}
		select {
		case <-again:
		case <-alarm.timer.C:
		case <-alarm.rings():
		case <-w.wake:
		case <-timeouts.C:
			w.turn.Lock()
			w.expire(w.g.Now(), func(s uint32) { w.free = append(w.free, s) })
			w.turn.Unlock()
		case <-ctx.Done():
			return nil
		}
	}
}

// openLate takes the turns of an open loop that are late. Its own goroutine may stand in
// the queue of a P that the garbage collector or a node has for milliseconds, while on
// another P somebody looks whether it is late ([Generator.Late]).
func (w *worker) openLate(ctx context.Context) error {
	for {
		select {
		case <-w.standIn:
			if _, err := w.takeTurn(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// untilAnswer is the pause of an open loop that may have no more operations in flight, or
// sends no more.
const untilAnswer time.Duration = math.MaxInt64

// takeTurn takes the answers that have come, sends what is due, and records some of what
// is done. It returns how long the open loop then waits, unless an answer comes.
func (w *worker) takeTurn(ctx context.Context) (pause time.Duration, err error) {
	w.turn.Lock()
	defer w.turn.Unlock()
	w.due.Store(0)
	w.collect()
	now := w.g.Now()
	for n := 0; n < openStep && w.next <= now && w.maySend(w.next); n++ {
		w.begin(w.slot(), w.next, now)
		w.next += w.gap()
	}
	if err := w.flush(ctx); err != nil {
		return 0, err
	}
	recorded := w.recordSome(openStep)
	may := w.maySend(w.next)
	now = w.g.Now()
	switch {
	case !recorded || may && w.next <= now:
		pause = 0 // first look whether the next one is due, or it is
	case may:
		pause = max(w.next-now, w.g.pause())
	default:
		return untilAnswer, nil
	}
	w.due.Store(int64(now + pause))
	return pause, nil
}

// lateBy is how late an open loop's turn is before somebody else takes it: later than
// timers mostly are.
const lateBy = 100 * time.Microsecond

// Late reports whether a fast open loop is late with its turn, and then has a goroutine
// ready to take it where it was called: the caller should give way (runtime.Gosched). It is
// for those who have a P for long, between two pieces of their work, and takes 40 to 50 ns (BenchmarkLate).
func (g *Generator) Late() bool {
	if !g.fast() || !g.started.Load() {
		return false
	}
	late := false
	for _, w := range g.workers {
		due := w.due.Load()
		if due == 0 || int64(g.Now()) < due+int64(lateBy) || !w.due.CompareAndSwap(due, 0) {
			continue
		}
		select {
		case w.standIn <- struct{}{}:
		default:
		}
		late = true
	}
	return late
}

// collect takes the answers that have come to an open loop.
func (w *worker) collect() {
	for _, d := range w.take() {
		if s, ok := w.complete(d); ok {
			w.free = append(w.free, s)
			w.busy.Add(-1)
		}
	}
}

// openStep is how many operations an open loop that is behind sends together: the node
// works on them while the next are made, which take the memory of those that were
// answered meanwhile, and not fresh memory for all that has fallen due. It records as
// many (some 40 µs) before it looks at its schedule again, so that one that never
// catches up keeps pace.
const openStep = 512

// atOnce is a channel that always has something.
var atOnce = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// maySend reports whether an open loop sends an operation intended at t as soon as that
// has come.
func (w *worker) maySend(t time.Duration) bool { return w.g.sending(t) && w.hasRoom() }

// sending reports whether an operation intended at t is still to be sent.
func (g *Generator) sending(t time.Duration) bool {
	to := g.to.Load()
	return to == 0 || int64(t) <= to
}

// hasRoom reports whether an open loop may have one more operation in flight.
func (w *worker) hasRoom() bool { return int(w.busy.Load()) < w.g.cfg.MaxInFlight }

// An open loop of fastRate operations a second or more, at which one falls due in each
// fastPause, waits for that long, or for an answer, after it has sent something, and then
// sends together what is due: one by one each operation would wake the node, which lacks
// the CPU that this takes, and answers later by more than the pause. And it only enqueues
// them: raft's part of an operation takes longer than its own, and in a slower one less
// than waking another goroutine for it.
const (
	fastPause = 50 * time.Microsecond
	fastRate  = float64(time.Second / fastPause)
)

// fast reports whether this is such a loop.
func (g *Generator) fast() bool { return g.cfg.Rate >= fastRate }

// pause is the shortest time for which an open loop waits for its schedule.
func (g *Generator) pause() time.Duration {
	if g.fast() {
		return fastPause
	}
	return 0
}

func (w *worker) gap() time.Duration {
	if w.g.cfg.Poisson {
		return time.Duration(w.rng.ExpFloat64() * float64(time.Second) / w.g.cfg.Rate)
	}
	return time.Duration(float64(time.Second) / w.g.cfg.Rate)
}

func (w *worker) slot() uint32 {
	if n := len(w.free); n > 0 {
		s := w.free[n-1]
		w.free = w.free[:n-1]
		return s
	}
	w.slots = append(w.slots, slot{})
	return uint32(len(w.slots) - 1)
}

// complete ends one operation, whose slot the caller then frees or uses again
// before it takes it off busy; false where it is not one that waits (it timed out
// before). It is recorded later.
func (w *worker) complete(d Done) (uint32, bool) {
	s := uint32(d.ID >> slotShift & slotMask)
	if int(s) >= len(w.slots) {
		return 0, false
	}
	sl := &w.slots[s]
	if !sl.inFlight || sl.generation != uint32(d.ID) {
		return 0, false
	}
	sl.inFlight = false
	if d.Err != nil {
		w.fail(sl)
		return s, true
	}
	w.finished = append(w.finished, finish{d, sl.intended, sl.sent, sl.read})
	return s, true
}

// recordSome records up to n operations that are done; true where none is left.
func (w *worker) recordSome(n int) bool {
	end := min(w.recorded+n, len(w.finished))
	for i := w.recorded; i < end; i++ {
		w.record(&w.finished[i])
	}
	w.recorded = end
	if end < len(w.finished) {
		return false
	}
	w.finished, w.recorded = w.finished[:0], 0
	return true
}

func (w *worker) recordAll() { w.recordSome(len(w.finished)) }

// inWindow reports whether t lies in the measured time.
func (g *Generator) inWindow(t time.Duration) bool {
	from, to := g.from.Load(), g.to.Load()
	return from != 0 && int64(t) >= from && (to == 0 || int64(t) < to)
}

// measured reports whether an operation counts, in an open loop when it was intended in
// the measured time, in a closed loop when it was under way in it; in both however late
// it was done, or given up: else the slowest would be left out.
func (g *Generator) measured(intended, done time.Duration) bool {
	if g.cfg.Clients == 0 {
		return g.inWindow(intended)
	}
	from, to := g.from.Load(), g.to.Load()
	return from != 0 && int64(done) >= from && (to == 0 || int64(intended) < to)
}

func (w *worker) record(f *finish) {
	if w.g.cfg.Off {
		if w.g.inWindow(f.Applied) {
			w.rec.ops++
		}
		return
	}
	response := f.Applied - f.intended
	if w.g.cfg.Observe != nil {
		w.g.cfg.Observe(response)
	}
	if sec := int(f.Applied / time.Second); sec > 0 && sec == len(w.rec.series) {
		w.p99.Store(w.rec.series[sec-1].hist.ValueAtQuantile(99))
	}
	w.rec.tick(f.Applied, response)
	if w.g.inWindow(f.Applied) {
		w.rec.ops++
	}
	if !w.g.measured(f.intended, f.Applied) {
		return
	}
	Record(w.rec.response, response)
	if f.read {
		Record(w.rec.reads, response)
	} else {
		w.rec.stages.add(f.sent, f.Done)
	}
	if w.g.cfg.Clients == 0 { // in a closed loop service is response and lag is 0
		Record(w.rec.service, f.Applied-f.sent)
		Record(w.rec.lag, f.sent-f.intended)
	}
}

// expire ends operations that are older than the timeout: errors, recorded at
// the timeout.
func (w *worker) expire(now time.Duration, freed func(uint32)) {
	for s := range w.slots {
		sl := &w.slots[s]
		if sl.inFlight && now-sl.sent > w.g.cfg.Timeout {
			sl.inFlight = false
			sl.payload = nil // may still be on its way
			w.fail(sl)
			freed(uint32(s))
			w.busy.Add(-1)
		}
	}
}

func (w *worker) fail(sl *slot) {
	w.g.failed.Add(1)
	now := w.g.Now()
	if !w.g.measured(sl.intended, now) {
		return
	}
	w.rec.errors++
	Record(w.rec.response, max(now-sl.intended, w.g.cfg.Timeout))
}

// Fill writes what was recorded into a run. Call it after Stop.
func (g *Generator) Fill(run *result.Run) {
	total := newRecorder()
	for _, w := range g.workers {
		total.merge(w.rec)
	}
	from, to := time.Duration(g.from.Load()), time.Duration(g.to.Load())
	run.Ops, run.Errors, run.Elapsed = total.ops, total.errors, to-from
	if run.Elapsed > 0 {
		run.Throughput = float64(run.Ops) / run.Elapsed.Seconds()
	}
	run.Response = Summary(total.response, true)
	run.Reads = Summary(total.reads, false)
	if g.cfg.Clients > 0 {
		run.Service = Summary(total.response, false)
	} else {
		run.Service, run.Lag = Summary(total.service, true), Summary(total.lag, true)
	}
	if s := total.stages; s.n > 0 {
		n := time.Duration(s.n)
		run.Stages = &result.Stages{Queue: s.queue / n, Save: s.save / n, Replicate: s.replicate / n, Apply: s.apply_ / n}
	}
	if !g.cfg.Off {
		run.Series = total.points(from, to)
	}
}

func (r *recorder) merge(o *recorder) {
	r.response.Merge(o.response)
	r.service.Merge(o.service)
	r.lag.Merge(o.lag)
	r.reads.Merge(o.reads)
	r.ops += o.ops
	r.errors += o.errors
	r.stages.n += o.stages.n
	r.stages.queue += o.stages.queue
	r.stages.save += o.stages.save
	r.stages.replicate += o.stages.replicate
	r.stages.apply_ += o.stages.apply_
	for i, iv := range o.series {
		mine := r.second(time.Duration(i) * time.Second)
		mine.ops += iv.ops
		mine.hist.Merge(iv.hist)
		for b, n := range iv.buckets {
			mine.buckets[b] += n
		}
	}
}

// points is the series up to the end of the measured time, seconds in which nothing was
// done too; one that the end cuts is left out, because its count would look like a drop.
func (r *recorder) points(from, to time.Duration) []result.Point {
	if to >= time.Second {
		r.second(to - time.Second)
	}
	var out []result.Point
	for i, iv := range r.series {
		t := time.Duration(i) * time.Second
		if to > 0 && t+time.Second > to {
			break
		}
		p := result.Point{T: t, Ops: iv.ops, Warmup: t < from}
		if iv.ops > 0 {
			p.P50, p.P99 = time.Duration(iv.hist.ValueAtQuantile(50)), time.Duration(iv.hist.ValueAtQuantile(99))
			p.Max = time.Duration(iv.hist.Max())
			p.Buckets = trimmed(iv.buckets[:])
		}
		out = append(out, p)
	}
	return out
}

func trimmed(buckets []int64) []int64 {
	n := len(buckets)
	for n > 0 && buckets[n-1] == 0 {
		n--
	}
	return append([]int64(nil), buckets[:n]...)
}
