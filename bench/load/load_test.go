package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/raftbench/raftbench/bench/result"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func payloads(t testing.TB, lo, hi int) *Payloads {
	t.Helper()
	p, err := NewPayloads(1, lo, hi, 64, 0)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPayloads(t *testing.T) {
	p, again := payloads(t, 16, 300), payloads(t, 16, 300)
	seen := map[int]bool{}
	for id := uint64(1); id < 5000; id++ {
		data := p.Make(id)
		if len(data) < 16 || len(data) > 300 || len(data) != p.Size(id) || ID(data) != id {
			t.Fatalf("payload %d has %d bytes and id %d", id, len(data), ID(data))
		}
		if !p.Check(id, data) || string(data) != string(again.Make(id)) {
			t.Fatalf("payload %d is not what it is made of", id)
		}
		for _, at := range []int{0, 8, len(data) - 1} {
			data[at] ^= 1
			if p.Check(id, data) {
				t.Fatalf("payload %d passes with byte %d changed", id, at)
			}
			data[at] ^= 1
		}
		if p.Check(id, data[:len(data)-1]) || p.Check(id+1, data) {
			t.Fatalf("payload %d passes cut short, or as another", id)
		}
		seen[len(data)] = true
	}
	if len(seen) < 280 {
		t.Errorf("%d sizes of 285 in 5000 payloads", len(seen))
	}
}

func TestPayloadErrors(t *testing.T) {
	for _, tc := range []struct {
		lo, hi, keys int
		comp         float64
	}{{0, 0, 1, 0}, {15, 15, 1, 0}, {32, 16, 1, 0}, {16, 1 << 30, 1, 0}, {16, 16, 0, 0}, {16, 16, 1, 1.5}, {16, 16, 1, -1}} {
		if _, err := NewPayloads(1, tc.lo, tc.hi, tc.keys, tc.comp); err == nil {
			t.Errorf("%+v is accepted", tc)
		}
	}
}

// serviceTime is what immediate takes for what waits. Where the clock is the test's
// own, a target that took none would let no time pass.
const serviceTime = 100 * time.Microsecond

// immediate answers every operation from another goroutine, and may stall once.
type immediate struct {
	g       *Generator
	mu      sync.Mutex
	n       int
	stallAt time.Duration // since the start; 0: never
	stall   time.Duration
	drop    func(n int) bool
	queue   chan []Done
	wg      sync.WaitGroup
}

// start begins to answer what g proposes.
func (i *immediate) start(g *Generator) {
	i.g, i.queue = g, make(chan []Done, 1<<16)
	i.wg.Add(1)
	go i.answer()
}

func (i *immediate) answer() {
	defer i.wg.Done()
	for batch := range i.queue {
		time.Sleep(serviceTime)
		if i.stall > 0 && i.stallAt > 0 && i.g.Now() > i.stallAt {
			time.Sleep(i.stall) // the thing under test: a storage that stalls
			i.stallAt = 0
		}
		for range len(i.queue) { // all that waits takes no longer than one
			batch = append(batch, <-i.queue...)
		}
		for j := range batch {
			batch[j].Applied = i.g.Now()
		}
		i.g.Done(batch)
	}
}

func (i *immediate) Propose(_ context.Context, ps [][]byte) error {
	batch := make([]Done, 0, len(ps))
	i.mu.Lock()
	for _, p := range ps {
		i.n++
		if i.drop == nil || !i.drop(i.n) {
			batch = append(batch, Done{ID: ID(p)})
		}
	}
	i.mu.Unlock()
	i.queue <- batch
	return nil
}

func (i *immediate) Enqueue(ctx context.Context, ps [][]byte) error { return i.Propose(ctx, ps) }

func (i *immediate) Read(_ context.Context, ids []uint64) error {
	batch := make([]Done, len(ids))
	for j, id := range ids {
		batch[j].ID = id
	}
	i.queue <- batch
	return nil
}

func (i *immediate) close() { close(i.queue); i.wg.Wait() }

// drive runs a load for d, and returns what was recorded.
func drive(t *testing.T, cfg Config, target *immediate, d time.Duration) result.Run {
	t.Helper()
	if cfg.Payloads == nil {
		cfg.Payloads = payloads(t, 64, 64)
	}
	return driveUntil(t, cfg, target, target, func() bool { return target.g.Now() >= d })
}

// driveUntil runs a load on a target, which answers answers, by a clock that no
// machine slows, and returns what was recorded.
func driveUntil(t *testing.T, cfg Config, target Target, answers *immediate, enough func() bool) (run result.Run) {
	t.Helper()
	cfg.TimersOnly = true
	synctest.Test(t, func(t *testing.T) {
		g, err := NewGenerator(cfg, target)
		if err != nil {
			t.Fatal(err)
		}
		answers.start(g)
		g.Start(context.Background(), time.Now())
		time.Sleep(serviceTime)
		g.Measure()
		wait(t, enough)
		g.EndMeasure()
		wait(t, func() bool { return g.Pending() == 0 })
		if err := g.Stop(); err != nil {
			t.Fatal(err)
		}
		answers.close()
		g.Fill(&run)
	})
	return run
}

func wait(t testing.TB, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatal("not within a minute")
		}
		time.Sleep(time.Millisecond)
	}
}

// TestOverTheEnd: what is under way when the measured time ends counts, when it is done
// or given up, in a closed loop too.
func TestOverTheEnd(t *testing.T) {
	for name, cfg := range map[string]Config{"closed": {Clients: 64}, "open": {Rate: 1000}} {
		const stall = 4 * time.Second
		run := drive(t, cfg, &immediate{stallAt: 2 * time.Second, stall: stall}, 5*time.Second)
		if run.Response.Max < stall*9/10 || run.Errors != 0 {
			t.Errorf("%s: response max %v, %d errors; the stall is %v", name, run.Response.Max, run.Errors, stall)
		}
	}
	run := drive(t, Config{Clients: 64, Timeout: 10 * time.Second}, &immediate{drop: func(n int) bool { return n > 2000 }}, 5*time.Second)
	if run.Errors != 64 || run.Response.Max < 10*time.Second {
		t.Errorf("%d errors, response max %v; each of 64 clients has waited for 10 s", run.Errors, run.Response.Max)
	}
}

// TestMeasured: what counts, by when it was intended and done; from 10 to 20 is measured.
func TestMeasured(t *testing.T) {
	for _, c := range []struct {
		intended, done time.Duration
		closed, open   bool
	}{
		{5, 9, false, false}, {5, 10, true, false}, {5, 25, true, false}, {10, 15, true, true},
		{19, 20, true, true}, {19, 25, true, true}, {20, 21, false, false},
	} {
		for clients, want := range []bool{c.open, c.closed} {
			g := &Generator{cfg: Config{Clients: clients}}
			if g.measured(c.intended, c.done) {
				t.Errorf("%+v counts before anything is measured", c)
			}
			g.from.Store(10)
			if got, want := g.measured(c.intended, c.done), want || clients == 0 && c.intended >= 10 || clients == 1 && c.done >= 10; got != want {
				t.Errorf("%d clients, %+v: %v while it is measured", clients, c, got)
			}
			g.to.Store(20)
			if got := g.measured(c.intended, c.done); got != want {
				t.Errorf("%d clients, %+v: %v", clients, c, got)
			}
		}
	}
}

// TestSeriesOfNothing: seconds in which nothing is done are seconds of the series.
func TestSeriesOfNothing(t *testing.T) {
	for name, cfg := range map[string]Config{"closed": {Clients: 64}, "open": {Rate: 5000, Timeout: 2 * time.Second}} {
		run := drive(t, cfg, &immediate{drop: func(n int) bool { return n > 7500 }}, 5*time.Second)
		if len(run.Series) != 5 || run.Series[0].Ops == 0 || run.Series[4].Ops != 0 || run.Series[4].T != 4*time.Second {
			t.Errorf("%s: %+v", name, run.Series)
		}
		cfg.Off = true
		if run := drive(t, cfg, &immediate{}, 2*time.Second); len(run.Series) != 0 {
			t.Errorf("%s: nothing is recorded, and a series of %d seconds", name, len(run.Series))
		}
	}
}

func TestClosed(t *testing.T) {
	for _, clients := range []int{1, 3, 200} {
		run := drive(t, Config{Clients: clients, Seed: 1}, &immediate{}, 100*time.Millisecond)
		if run.Ops == 0 || run.Response.Count < run.Ops || run.Response.Count > run.Ops+int64(clients) || run.Errors != 0 { // each may have one under way at the end
			t.Errorf("%d clients: %d operations, %d recorded, %d errors", clients, run.Ops, run.Response.Count, run.Errors)
		}
		if run.Service != (result.Latency{Count: run.Service.Count, Mean: run.Response.Mean, P50: run.Response.P50, P90: run.Response.P90, P99: run.Response.P99, P999: run.Response.P999, Max: run.Response.Max}) {
			t.Errorf("%d clients: service is not response in a closed loop", clients)
		}
		if run.Lag.Count != 0 {
			t.Errorf("%d clients: a closed loop has a lag of %v", clients, run.Lag)
		}
	}
}

// TestStall is the arithmetic of coordinated omission. An open loop of rate R for
// T seconds meets one stall of S: the operations intended during the stall wait
// for its end, so a share of S/T of all responses is spread evenly over 0 to S.
// Hence the percentile q is S·(1 − (1−q)·T/S) for 1−q < S/T, and the maximum is S.
// In a closed loop of one client only one operation waits at all.
func TestStall(t *testing.T) {
	const (
		T, S = 2 * time.Second, time.Second
		rate = 2000.0
	)
	stalling := func() *immediate {
		return &immediate{stallAt: 500 * time.Millisecond, stall: S}
	}
	near := func(name string, got, want time.Duration) {
		t.Helper()
		if got < want-S/100 || got > want+S/100 {
			t.Errorf("%s is %v, want about %v", name, got, want)
		}
	}
	open := drive(t, Config{Rate: rate, Seed: 1}, stalling(), T)
	quantile := func(q float64) time.Duration {
		return time.Duration(float64(S) * (1 - (1-q)*float64(T)/float64(S)))
	}
	near("p90 of the open loop", open.Response.P90, quantile(0.90))
	near("p99 of the open loop", open.Response.P99, quantile(0.99))
	near("p99.9 of the open loop", open.Response.P999, quantile(0.999))
	near("maximum of the open loop", open.Response.Max, S)
	if want := int64(rate * T.Seconds()); math.Abs(float64(open.Response.Count-want)) > float64(want)/100 {
		t.Errorf("%d operations were recorded of %d intended", open.Response.Count, want)
	}

	closed := drive(t, Config{Clients: 1, Seed: 1}, stalling(), T)
	near("maximum of the closed loop", closed.Response.Max, S)
	if closed.Response.P999 > S/2 {
		t.Errorf("p99.9 of the closed loop is %v: the stall should hide in one operation of %d", closed.Response.P999, closed.Ops)
	}
}

// TestSchedules: both open loops send at the rate that was asked, and the gaps of
// the random one vary as an exponential distribution does.
func TestSchedules(t *testing.T) {
	for _, poisson := range []bool{false, true} {
		w := &worker{g: &Generator{cfg: Config{Rate: 1000, Poisson: poisson}}, rng: newRand(7, 0)}
		var sum, squares float64
		const n = 100_000
		for range n {
			gap := w.gap().Seconds()
			sum += gap
			squares += gap * gap
		}
		mean := sum / n
		sd := math.Sqrt(squares/n - mean*mean)
		if math.Abs(mean-0.001) > 0.00002 {
			t.Errorf("poisson=%v: mean gap %v s, want 0.001", poisson, mean)
		}
		if want := map[bool]float64{false: 0, true: 0.001}[poisson]; math.Abs(sd-want) > 0.00002 {
			t.Errorf("poisson=%v: deviation %v s, want %v", poisson, sd, want)
		}
	}
}

func TestTimeout(t *testing.T) {
	target := &immediate{}
	target.drop = func(n int) bool { return n == 3 }
	run := drive(t, Config{Clients: 2, Seed: 1, Timeout: 200 * time.Millisecond}, target, 500*time.Millisecond)
	if run.Errors != 1 || run.Response.Max < 200*time.Millisecond {
		t.Errorf("%d errors, maximum %v: want the dropped one, recorded at its timeout", run.Errors, run.Response.Max)
	}
}

// keeping is a target that remembers the payloads it was given.
type keeping struct {
	*immediate
	last map[*byte]uint64 // by memory: the operation that was in it last
	ids  []uint64
}

func (k *keeping) Propose(ctx context.Context, ps [][]byte) error {
	for _, p := range ps { // one worker calls
		k.last[&p[0]] = ID(p)
		k.ids = append(k.ids, ID(p))
	}
	return k.immediate.Propose(ctx, ps)
}

// TestPayloadsAreFilledAgain: an operation that is done gives its memory to the next
// one of its client, and one that timed out does not, because it may still be on its way.
func TestPayloadsAreFilledAgain(t *testing.T) {
	const clients, lost = 3, 20
	target := &keeping{immediate: &immediate{}, last: map[*byte]uint64{}}
	target.drop = func(n int) bool { return n == lost }
	cfg := Config{Clients: clients, Seed: 1, Timeout: 50 * time.Millisecond, Payloads: payloads(t, 64, 64)}
	run := driveUntil(t, cfg, target, target.immediate, func() bool { return target.g.Failed() > 0 && target.g.Now() > 200*time.Millisecond })
	if run.Errors != 1 || run.Ops < 2*lost {
		t.Fatalf("%d operations, %d of them timed out", run.Ops, run.Errors)
	}
	if len(target.last) != clients+1 {
		t.Errorf("%d operations of %d clients were in %d pieces of memory, want %d: one each, and one for what timed out",
			len(target.ids), clients, len(target.last), clients+1)
	}
	if !slices.Contains(slices.Collect(maps.Values(target.last)), target.ids[lost-1]) {
		t.Error("the memory of the operation that timed out was filled again")
	}
}

func TestReads(t *testing.T) {
	run := drive(t, Config{Clients: 8, Seed: 1, ReadRatio: 0.5}, &immediate{}, 200*time.Millisecond)
	share := float64(run.Reads.Count) / float64(run.Response.Count)
	if run.Reads.Count == 0 || math.Abs(share-0.5) > 0.2 {
		t.Errorf("%d of %d operations are reads", run.Reads.Count, run.Response.Count)
	}
}

type failing struct{}

func (failing) Propose(context.Context, [][]byte) error { return errors.New("no leader") }
func (failing) Enqueue(context.Context, [][]byte) error { return errors.New("no leader") }
func (failing) Read(context.Context, []uint64) error    { return nil }

func TestTargetFails(t *testing.T) {
	g, err := NewGenerator(Config{Clients: 1, Payloads: payloads(t, 64, 64)}, failing{})
	if err != nil {
		t.Fatal(err)
	}
	g.Start(context.Background(), time.Now())
	wait(t, func() bool { return g.err.Load() != nil })
	if err := g.Stop(); err == nil || err.Error() != "no leader" {
		t.Errorf("error is %v", err)
	}
}

// TestStages: the parts add up to the service time, whatever overtook what.
func TestStages(t *testing.T) {
	ms := time.Millisecond
	for name, d := range map[string]Done{
		"in order":            {SaveStart: 2 * ms, SaveEnd: 5 * ms, Handed: 7 * ms, Applied: 8 * ms},
		"commit before save":  {SaveStart: 2 * ms, SaveEnd: 9 * ms, Handed: 7 * ms, Applied: 8 * ms},
		"save still running":  {SaveStart: 2 * ms, Handed: 7 * ms, Applied: 8 * ms},
		"save after handover": {SaveStart: 7500 * time.Microsecond, SaveEnd: 9 * ms, Handed: 7 * ms, Applied: 8 * ms},
	} {
		var s stageSums
		s.add(ms, d)
		if sum := s.queue + s.save + s.replicate + s.apply_; s.n != 1 || sum != 7*ms || min(s.queue, s.save, s.replicate, s.apply_) < 0 {
			t.Errorf("%s: %+v add up to %v, want 7ms", name, s, sum)
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	g := &Generator{cfg: Config{Clients: 1}}
	g.from.Store(1)
	w := &worker{g: g, rec: newRecorder()}
	f := &finish{intended: time.Millisecond, sent: time.Millisecond,
		Done: Done{SaveStart: 2 * time.Millisecond, SaveEnd: 3 * time.Millisecond, Handed: 4 * time.Millisecond, Applied: 5 * time.Millisecond}}
	b.ReportAllocs()
	for b.Loop() {
		w.record(f)
	}
}

func BenchmarkMakePayload(b *testing.B) {
	p := payloads(b, 1024, 1024)
	for name, buf := range map[string][]byte{"fresh": nil, "again": make([]byte, 1024)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(1024)
			var id uint64
			for b.Loop() {
				id++
				_ = p.Fill(buf, id)
			}
		})
	}
}

// echo answers at once, on a goroutine of its own, and says when it has answered
// enough.
type echo struct {
	g      *Generator
	asked  chan []Done
	left   int
	enough chan struct{}
}

func (e *echo) Propose(_ context.Context, ps [][]byte) error {
	batch := make([]Done, len(ps))
	for i, p := range ps {
		batch[i] = Done{ID: ID(p), SaveStart: 1, SaveEnd: 1, Handed: 1}
	}
	e.asked <- batch
	return nil
}

func (e *echo) Enqueue(ctx context.Context, ps [][]byte) error { return e.Propose(ctx, ps) }

func (e *echo) Read(context.Context, []uint64) error { return nil }

func (e *echo) answer() {
	for batch := range e.asked {
		now := e.g.Now()
		for i := range batch {
			batch[i].Applied = now
		}
		if e.left > 0 && e.left <= len(batch) {
			close(e.enough)
		}
		e.left -= len(batch)
		e.g.Done(batch)
	}
}

// BenchmarkGenerator is what making, sending, ending and recording an operation costs
// in all, payload included, where the target costs next to nothing.
func BenchmarkGenerator(b *testing.B) {
	for _, clients := range []int{1, 256} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			e := &echo{asked: make(chan []Done, 1024), left: b.N, enough: make(chan struct{})}
			g, err := NewGenerator(Config{Clients: clients, Payloads: payloads(b, 1024, 1024)}, e)
			if err != nil {
				b.Fatal(err)
			}
			e.g = g
			go e.answer()
			b.ReportAllocs()
			b.ResetTimer()
			g.Start(context.Background(), time.Now())
			g.Measure()
			<-e.enough
			b.StopTimer()
			g.EndMeasure()
			if err := g.Stop(); err != nil {
				b.Fatal(err)
			}
			close(e.asked)
		})
	}
}

// TestLate: whoever finds a fast open loop late has another goroutine take its turn, once
// for each; one that is not late, not awaited or not fast takes its own.
func TestLate(t *testing.T) {
	const behind = 5 * time.Millisecond
	for _, tc := range []struct {
		name string
		rate float64
		due  time.Duration // since now; 0: not awaited
		late bool
	}{
		{"late", 2 * fastRate, -time.Second, true},
		{"a little late", 2 * fastRate, -lateBy / 2, false},
		{"not due", 2 * fastRate, time.Hour, false},
		{"not awaited", 2 * fastRate, 0, false},
		{"not fast", fastRate / 2, -time.Second, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Minute) // so that no time is before the start
			target := &counting{}
			g, err := NewGenerator(Config{Rate: tc.rate, Payloads: payloads(t, 64, 64), TimersOnly: true}, target)
			if err != nil {
				t.Fatal(err)
			}
			g.base = time.Now().Add(-time.Minute)
			w := &worker{g: g, rec: newRecorder(), rng: newRand(1, 0), standIn: make(chan struct{}, 1)}
			w.next = g.Now() - behind
			if tc.due != 0 {
				w.due.Store(int64(g.Now() + tc.due))
			}
			g.workers = []*worker{w}
			g.started.Store(true)
			if got := g.Late(); got != tc.late {
				t.Errorf("%s: late is %v", tc.name, got)
			}
			if g.Late() {
				t.Errorf("%s: somebody is asked for a second time", tc.name)
			}
			var ctx context.Context
			ctx, g.cancel = context.WithCancel(context.Background())
			g.run(ctx, w.openLate)
			synctest.Wait()
			want := int64(0)
			if tc.late {
				want = int64(behind.Seconds()*tc.rate) + 1
			}
			if got := target.enqueued.Load(); got != want {
				t.Errorf("%s: %d operations are sent, want %d", tc.name, got, want)
			}
			if due := time.Duration(w.due.Load()) - g.Now(); tc.late && (due <= 0 || due > fastPause) {
				t.Errorf("%s: the next turn is due in %v", tc.name, due)
			}
			if err := g.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLateTurnsAreTaken: a fast open loop that was started has somebody who takes a turn
// while its own goroutine waits for its time.
func TestLateTurnsAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := &counting{}
		g, err := NewGenerator(Config{Rate: 2 * fastRate, Payloads: payloads(t, 64, 64), TimersOnly: true}, target)
		if err != nil {
			t.Fatal(err)
		}
		g.Start(t.Context(), time.Now())
		time.Sleep(time.Second)
		synctest.Wait()
		sent := target.enqueued.Load()
		w := g.workers[0]
		w.turn.Lock()
		const behind = time.Millisecond
		w.next -= behind
		w.turn.Unlock()
		w.due.Store(int64(g.Now() - behind))
		if !g.Late() {
			t.Error("not late")
		}
		synctest.Wait() // no time passes
		if got, want := float64(target.enqueued.Load()-sent), 2*fastRate*behind.Seconds(); got < 0.9*want {
			t.Errorf("%v operations are sent, want about %v", got, want)
		}
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkLate is what it costs to ask a fast open loop whether it is late.
func BenchmarkLate(b *testing.B) {
	g, err := NewGenerator(Config{Rate: 2 * fastRate, Payloads: payloads(b, 64, 64)}, &counting{})
	if err != nil {
		b.Fatal(err)
	}
	g.base = time.Now()
	w := &worker{g: g}
	w.due.Store(int64(time.Hour))
	g.workers = []*worker{w}
	g.started.Store(true)
	for b.Loop() {
		if g.Late() {
			b.Fatal("late")
		}
	}
}
