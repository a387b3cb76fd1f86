package reports

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/raftbench/raftbench/bench/result"
)

// browser starts headless Chromium once for a test. In CI it must be there, on a
// laptop the test is skipped without it.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("chromium is not installed (apt-get install chromium): the page cannot be tested")
		}
		t.Skip("chromium is not installed: the page is not tested")
	}
	opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(patience))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return ctx
}

// tab is one open page and what it did behind the reader's back.
type tab struct {
	*testing.T
	ctx context.Context
	url string

	mu       sync.Mutex
	requests []string
	errors   []string
}

// openTab shows a page of the given width. Every request but that for the file
// itself, and every message on the console, is a failure.
func openTab(t *testing.T, ctx context.Context, url string, width int64, scripts bool) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	p := &tab{T: t, ctx: ctx, url: url}
	p.run()
	if err := chromedp.Listen(ctx, p.listen); err != nil {
		t.Fatal(err)
	}
	call(p, network.Enable, network.EnableParams{})
	call(p, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !scripts})
	// A page that scrolls smoothly would be clicked where it no longer is.
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-reduced-motion", Value: "reduce"}}})
	// Tabs are open side by side, and only one window can have the focus.
	call(p, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	p.run(chromedp.EmulateViewport(width, 900), chromedp.Navigate(url))
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if len(p.requests) > 0 {
			t.Errorf("the page asked for %q", p.requests)
		}
		if len(p.errors) > 0 {
			t.Errorf("the console says %q", p.errors)
		}
	})
	return p
}

func (p *tab) listen(ev any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		own, _, _ := strings.Cut(ev.Request.URL, "#")
		if file, _, _ := strings.Cut(p.url, "#"); own != file && !strings.HasPrefix(own, "data:,") {
			p.requests = append(p.requests, shorten(ev.Request.URL, 200))
		}
	case *runtime.EventConsoleAPICalled:
		p.errors = append(p.errors, fmt.Sprint(ev.Type, ev.Args))
	case *runtime.EventExceptionThrown:
		p.errors = append(p.errors, fmt.Sprintf("%+v", ev.ExceptionDetails))
	case *log.EventEntryAdded:
		p.errors = append(p.errors, ev.Entry.Text)
	}
}

// patience bounds every single step; the machine may be busy.
const patience = 2 * time.Minute

func (p *tab) run(steps ...chromedp.Action[chromedp.Void]) {
	p.Helper()
	for i, step := range steps {
		ctx, cancel := context.WithTimeout(p.ctx, patience)
		_, err := chromedp.Run(ctx, step)
		cancel()
		if err != nil {
			p.Fatalf("step %d: %v", i+1, err)
		}
	}
	if len(steps) == 0 {
		if err := chromedp.Do(p.ctx); err != nil { // opens the tab
			p.Fatal(err)
		}
	}
}

func call[P, R any](p *tab, cmd cdp.Command[P, R], params P) R {
	p.Helper()
	out, err := chromedp.Call(p.ctx, cmd, params)
	if err != nil {
		p.Fatalf("%s: %v", cmd.Method, err)
	}
	return out
}

// eval runs a function in the page and decodes what it returns.
func eval[T any](p *tab, js string) T {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	out, err := chromedp.Run(ctx, chromedp.Evaluate[T]("("+js+")()", chromedp.EvalAwaitPromise))
	if err != nil {
		p.Fatalf("evaluate %.60s…: %v", js, err)
	}
	return out
}

// do runs a function in the page for what it does.
func (p *tab) do(js string) {
	p.Helper()
	eval[chromedp.Void](p, js)
}

// at runs a part of a test with the page that is open, at another width: to load a
// page takes longer than most of what is looked at on it.
func (p *tab) at(width int64, name string, check func()) {
	p.Helper()
	whole := p.T
	defer func() { p.T = whole }()
	whole.Run(name, func(t *testing.T) {
		p.T = t
		p.run(chromedp.EmulateViewport(width, 900))
		for deadline := time.Now().Add(patience); eval[int64](p, `() => innerWidth`) != width; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the window does not become %d px wide", width)
			}
		}
		check()
	})
}

// click presses the mouse on the first element that a CSS selector finds.
func (p *tab) click(selector string) {
	p.Helper()
	p.run(chromedp.Click(chromedp.CSS(selector)))
}

// head presses the head of a column of the scoreboard.
func (p *tab) head(name string) {
	p.Helper()
	p.run(chromedp.Click(fmt.Sprintf(`//div[contains(@class,"board")]//th[.//span[@class="hd" and text()=%q]]//button`, name)))
}

// texts is the text of what a selector finds, in order.
func (p *tab) texts(selector string) []string {
	p.Helper()
	return eval[[]string](p, fmt.Sprintf(`() => [...document.querySelectorAll(%q)].map(e => e.textContent.trim())`, selector))
}

// savePage writes results as a page and returns its address.
func savePage(t *testing.T, rs ...*result.Result) string {
	t.Helper()
	return saveHTML(t, htmlOf(t, rs...))
}

func htmlOf(t *testing.T, rs ...*result.Result) []byte {
	t.Helper()
	var page bytes.Buffer
	if err := HTML(&page, rs...); err != nil {
		t.Fatal(err)
	}
	return page.Bytes()
}

func saveHTML(t *testing.T, page []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), ReportFile)
	if err := os.WriteFile(path, page, 0o644); err != nil {
		t.Fatal(err)
	}
	return "file://" + path
}

// pages are those that several tests open.
var pages kept[[]byte]

// keptPage is like savePage for results that more than one test shows, unchanged:
// the name says which.
func keptPage(t *testing.T, name string, of func() []*result.Result) string {
	t.Helper()
	return saveHTML(t, pages.get(name, func() []byte { return htmlOf(t, of()...) }))
}

func samplePage(t *testing.T) string {
	t.Helper()
	return keptPage(t, "sample", func() []*result.Result { return []*result.Result{sample(t, defaultSample())} })
}

func fullPage(t *testing.T, n int) string {
	t.Helper()
	return keptPage(t, fmt.Sprintf("full %d", n), func() []*result.Result { return []*result.Result{fullSample(t, n, 7)} })
}

func realPage(t *testing.T, pattern string) string {
	t.Helper()
	return keptPage(t, "real "+pattern, func() []*result.Result { return realResults(t, pattern) })
}

// fullSample is a suite that has something to show in every section.
func fullSample(t testing.TB, n, blocks int) *result.Result {
	t.Helper()
	return keptResult(fmt.Sprintf("full %d %d", n, blocks), func() *result.Result { return makeFullSample(t, n, blocks) })
}

func makeFullSample(t testing.TB, n, blocks int) *result.Result {
	t.Helper()
	spec := defaultSample()
	spec.engines, spec.blocks = engines[:n], blocks
	r := sample(t, spec)
	addCurve(t, r)
	addSnapshots(r)
	addRestarts(r)
	addSearches(r)
	addAge(t, r)
	addTrace(r)
	r.Runs[0].Flags = []string{"not_steady", "phase_of_the_moon"}
	value := 1.2e6
	r.Thresholds = []result.Threshold{{Expr: "etcd-wal:save.p99<5ms", Backend: "etcd-wal", Value: &value, OK: true}}
	r.PowerCuts = []result.PowerCut{{Backend: "etcd-wal", Mode: "strict", Cuts: 200, Acked: 91234}}
	return r
}

// TestPage opens pages in a real browser: one for all of them, each page in a window
// of its own, and as many at a time as tests may run.
func TestPage(t *testing.T) {
	t.Parallel()
	ctx := browser(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, context.Context)
	}{
		{"layout", testPageLayout}, {"board", testPageBoard}, {"without scripts", testPageWithoutScripts}, {"sorting", testPageSorting}, {"filter", testPageFilter},
		{"baseline", testPageBaseline}, {"hash", testPageHash}, {"hover", testPageHover}, {"download", testPageDownload},
		{"print", testPagePrint}, {"real results", testPageReal}, {"real controls", testPageRealControls}, {"several machines", testPageMachines}, {"compare", testPageCompare}, {"hostile", testPageHostile}, {"accessibility", testPageAccessibility},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, ctx)
		})
	}
}

// layout is what the page says about its own geometry.
type layout struct {
	Overflow int      // pixels that the page is wider than the window
	Overlaps []string // texts in drawings that touch
	Outside  []string // texts that leave the window
	Drawings int
}

const layoutJS = `() => {
	const out = { Overflow: document.documentElement.scrollWidth - innerWidth, Overlaps: [], Outside: [], Drawings: 0 };
	for (const svg of document.querySelectorAll("svg.chart:not(.sw)")) {
		if (!svg.getClientRects().length) continue;
		out.Drawings++;
		const boxes = [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]).filter(b => b[1].width);
		boxes.forEach(([s, a], i) => {
			if (a.left < -1 || a.right > innerWidth + 1) out.Outside.push(s);
			for (const [u, b] of boxes.slice(i + 1)) {
				const w = Math.min(a.right, b.right) - Math.max(a.left, b.left), h = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
				if (w > 1 && h > 3) out.Overlaps.push(s + " / " + u); // line boxes are taller than letters
			}
		});
	}
	return out;
}`

func (p *tab) checkLayout() {
	p.Helper()
	l := eval[layout](p, layoutJS)
	if l.Overflow > 0 {
		p.Errorf("the page is %d px wider than the window", l.Overflow)
	}
	if len(l.Overlaps) > 0 {
		p.Errorf("texts overlap: %q", l.Overlaps[:min(len(l.Overlaps), 8)])
	}
	if len(l.Outside) > 0 {
		p.Errorf("texts lie outside of the window: %q", l.Outside[:min(len(l.Outside), 8)])
	}
	if l.Drawings == 0 {
		p.Error("no drawing can be seen")
	}
}

// widths are those of a phone, of a laptop and of a desk, in CSS pixels.
var widths = []int64{360, 1280, 1920}

func testPageLayout(t *testing.T, ctx context.Context) {
	for _, n := range []int{1, 2, 7, 14} {
		for _, scripts := range []bool{true, false} {
			if n != 7 && !scripts {
				continue // the drawings are the same
			}
			t.Run(fmt.Sprintf("%d backends scripts %v", n, scripts), func(t *testing.T) {
				t.Parallel()
				p := openTab(t, ctx, fullPage(t, n), widths[0], scripts)
				for _, width := range widths {
					p.at(width, fmt.Sprintf("%d px", width), func() {
						p.checkLayout()
						p.checkSections()
						p.checkFigures()
						scale := eval[string](p, `() => { const was = document.documentElement.dataset.scale || ""; document.documentElement.dataset.scale = "lin"; return was }`)
						p.checkLayout()
						p.do(fmt.Sprintf(`() => { document.documentElement.dataset.scale = %q }`, scale))
					})
				}
			})
		}
	}
}

// testPageBoard: on a laptop the scoreboard of the default backends is seen as a whole.
func testPageBoard(t *testing.T, ctx context.Context) {
	url := keptPage(t, "default backends", func() []*result.Result {
		spec := defaultSample()
		spec.blocks = 20
		r := sample(t, spec)
		addSnapshots(r)
		addRestarts(r)
		return []*result.Result{r}
	})
	p := openTab(t, ctx, url, 1280, true)
	boards := eval[[]struct{ Hidden, Columns int }](p, `() => [...document.querySelectorAll("#scoreboard .board")].map(b => ({ Hidden: b.scrollWidth - b.clientWidth, Columns: b.querySelectorAll("thead th").length }))`)
	if len(boards) == 0 || boards[0].Columns < 14 || boards[0].Hidden > 0 {
		t.Errorf("the scoreboards hide so many pixels of their columns: %+v", boards)
	}
}

// sections are the ids of the page's sections: all ten, also when the page has lost one.
func sections() []string {
	return []string{"verdict", "scoreboard", "curve", "effects", "percentiles", "stages", "time", "snapshots", "repeats", "about"}
}

// checkSections demands that every section is there, in order, with a heading
// and something to read.
func (p *tab) checkSections() {
	p.Helper()
	got := eval[[]struct{ ID, Heading, Text string }](p, `() => [...document.querySelectorAll("section")].map(s => ({ ID: s.id, Heading: (s.querySelector("h1,h2") || {}).textContent || "", Text: s.innerText }))`)
	var ids []string
	for _, s := range got {
		ids = append(ids, s.ID)
		if s.Heading == "" || len(s.Text) < len(s.Heading)+20 {
			p.Errorf("section %s says only %q", s.ID, s.Text)
		}
	}
	if !slices.Equal(ids, sections()) {
		p.Errorf("sections %q, want %q", ids, sections())
	}
}

// figuresJS finds figures that are broken across lines: a number, or a number and
// its unit, of which not all lies on one line.
const figuresJS = `() => {
	const figure = /(?<![\w.,=[\-])\d[\d.,]*(?:×|[ \u00a0](?:%|ns|µs|ms|s|B|[KMGT]iB|ops\/s)(?!\w))?/g;
	const out = { Seen: 0, Broken: [] };
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), r = document.createRange();
	for (let n; n = walk.nextNode();) {
		const e = n.parentElement;
		if (!/\d/.test(n.data) || !e.getClientRects().length || e.closest("script,style,svg,pre,code,dd,option,.tip")) continue;
		for (const m of n.textContent.matchAll(figure)) {
			r.setStart(n, m.index);
			r.setEnd(n, m.index + m[0].length);
			const tops = [...r.getClientRects()].filter(b => b.width).map(b => b.bottom);
			out.Seen++;
			if (Math.max(...tops) - Math.min(...tops) > 4) out.Broken.push(m[0] + " in " + n.textContent.trim().slice(0, 40));
		}
	}
	return out;
}`

// checkFigures demands that no figure is broken across lines.
func (p *tab) checkFigures() {
	p.Helper()
	got := eval[struct {
		Seen   int
		Broken []string
	}](p, figuresJS)
	if got.Seen < 50 {
		p.Errorf("only %d figures were looked at", got.Seen)
	}
	if len(got.Broken) > 0 {
		p.Errorf("%d figures are broken across lines: %q", len(got.Broken), got.Broken[:min(len(got.Broken), 8)])
	}
}

func testPageWithoutScripts(t *testing.T, ctx context.Context) {
	p := openTab(t, ctx, fullPage(t, 6), 1280, false)
	if eval[bool](p, `() => !document.querySelector(".bar-top").hidden`) {
		t.Error("controls that do nothing are shown")
	}
	// A page may ask for nothing even if it tried.
	if policy := eval[string](p, `() => document.querySelector("meta[http-equiv]").content`); !strings.HasPrefix(policy, "default-src 'none';") ||
		strings.Contains(policy, "*") || strings.Contains(policy, "http") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy: %s", policy)
	}
	download := eval[struct{ Href, Name string }](p, `() => { const a = document.querySelector("a.data"); return { Href: a.href.slice(0, 40), Name: a.download } }`)
	if !strings.HasPrefix(download.Href, "data:application/gzip;base64,") || !strings.HasSuffix(download.Name, ".json.gz") {
		t.Errorf("download: %+v", download)
	}
	tables := eval[int](p, `() => [...document.querySelectorAll("figure")].filter(f => f.querySelector("details table")).length`)
	figures := eval[int](p, `() => document.querySelectorAll("figure").length`)
	if tables != figures || figures < 8 {
		t.Errorf("%d figures, %d tables", figures, tables)
	}
}

func testPageSorting(t *testing.T, ctx context.Context) {
	p := openTab(t, ctx, samplePage(t), 1280, true)
	names := func() []string { return p.texts(".board tbody .nm") }
	ranked := names()
	p.head("ops/s")
	if got := names(); got[0] != "mem" || got[1] != "raw" || got[5] != "bbolt" {
		t.Errorf("by throughput: %q", got)
	}
	p.head("ops/s")
	if got := names(); got[0] != "bbolt" || got[5] != "mem" {
		t.Errorf("by throughput, rising: %q", got)
	}
	if got := p.texts(`th[aria-sort="ascending"] .hd`); len(got) != 1 || got[0] != "ops/s" {
		t.Errorf("the sorted column says %q", got)
	}
	p.head("ops/s")
	if got := names(); !slices.Equal(got, ranked) {
		t.Errorf("a third click does not restore the ranking: %q", got)
	}
	p.head("× floor")
	if got := names(); got[5] != "mem" {
		t.Errorf("a figure that was not measured is not last: %q", got)
	}
}

func testPageFilter(t *testing.T, ctx context.Context) {
	p := openTab(t, ctx, samplePage(t), 1280, true)
	visible := `() => [...document.querySelectorAll('main [data-b="1"]')].filter(e => e.getClientRects().length).length`
	before := eval[int](p, visible)
	p.click(".pick summary")
	p.click(`.pick input[value="1"]`)
	if after := eval[int](p, visible); before < 10 || after != 0 {
		t.Errorf("bbolt is drawn %d times, and %d times without it", before, after)
	}
	if got := p.texts("#picked"); got[0] != "5 of 6" {
		t.Errorf("the control says %q", got)
	}
	p.click(`.pick input[value="1"]`)
	if after := eval[int](p, visible); after != before {
		t.Errorf("shown again %d times, want %d", after, before)
	}
	p.run(chromedp.KeyEvent(kb.Escape))
	if eval[bool](p, `() => document.querySelector(".pick").open`) {
		t.Error("Escape does not close the list")
	}
}

// choose sets a select as a reader would.
func (p *tab) choose(id, value string) {
	p.Helper()
	p.do(fmt.Sprintf(`() => { const e = document.querySelector(%q); e.value = %q; e.dispatchEvent(new Event("change", { bubbles: true })) }`, id, value))
}

func testPageBaseline(t *testing.T, ctx context.Context) {
	r := sample(t, defaultSample())
	p := openTab(t, ctx, samplePage(t), 1280, true)
	if got := p.texts(".board tbody .against .v"); got[0] != "baseline" {
		t.Fatalf("against etcd-wal: %q", got)
	}
	p.choose("#baseline", "1") // bbolt
	got := p.texts(".board tbody tr")
	names, against := p.texts(".board tbody .nm"), p.texts(".board tbody .against .v")
	s := newSite([]*result.Result{r})
	sc := s.headline()
	var base *row
	for _, rw := range sc.rows {
		if rw.label == "bbolt" {
			base = rw
		}
	}
	for i, name := range names {
		for _, rw := range sc.rows {
			if want := sc.against1(base, rw).Text; rw.label == name && against[i] != want {
				t.Errorf("%s against bbolt: %q, want %q (%q)", name, against[i], want, got[i])
			}
		}
	}
	if got := p.texts(".board thead .basename"); got[0] != "bbolt" {
		t.Errorf("the column is headed %q", got)
	}
	shown := p.texts("#effects figure:not([hidden]) figcaption strong")
	if len(shown) != 3 || !strings.Contains(shown[0], "against bbolt") {
		t.Errorf("effect sizes: %q", shown)
	}
	p.choose("#baseline", "-2") // mem, the only one of its class
	if got := p.texts("#effects figure:not([hidden]) figcaption strong"); len(got) != 3 {
		t.Errorf("effect sizes against mem: %q", got)
	}
}

func testPageHash(t *testing.T, ctx context.Context) {
	url := fullPage(t, 6)
	p := openTab(t, ctx, url, 1280, true)
	p.choose("#theme", "dark")
	p.choose("#scale", "lin")
	p.choose("#baseline", "3")
	p.click(".pick summary")
	p.click(`.pick input[value="2"]`)
	p.run(chromedp.KeyEvent(kb.Escape))
	p.click(`nav a[href="#repeats"]`)
	p.head("ops/s")
	hash := eval[string](p, `() => location.hash`)
	if want := "#repeats&base=3&hide=2&scale=lin&theme=dark&sort=0.2.descending"; hash != want {
		t.Fatalf("hash %q, want %q", hash, want)
	}
	q := openTab(t, ctx, url+hash, 1280, true)
	type shown struct {
		Theme, Scale, Base, Sort, Paper string
		Hidden                          bool
		Top                             float64
	}
	js := `() => ({ Theme: document.documentElement.dataset.theme, Scale: document.querySelector("#scale").value, Base: document.querySelector("#baseline").value,
		Sort: document.querySelector('th[aria-sort="descending"] .hd').textContent, Hidden: !document.querySelector('.board tr[data-b="2"]').getClientRects().length,
		Paper: getComputedStyle(document.body).backgroundColor, Top: document.querySelector("#repeats").getBoundingClientRect().top })`
	state := eval[shown](q, js)
	if state.Theme != "dark" || state.Scale != "lin" || state.Base != "3" || state.Sort != "ops/s" || !state.Hidden || state.Paper != "rgb(20, 23, 27)" || math.Abs(state.Top) >= 400 {
		t.Errorf("the page of %s: %+v", hash, state)
	}
	// What is no state of ours is ignored.
	url = samplePage(t)
	for _, bad := range []string{"#nowhere&base=99&hide=x.1e9&scale=cube&theme=neon&sort=9.9.descending", "#<script>&base=%00", "#%E0%A4%A"} {
		p := openTab(t, ctx, url+bad, 1280, true)
		if got := p.texts(".board thead .basename"); got[0] != "etcd-wal" {
			t.Errorf("%s: baseline %q", bad, got)
		}
	}
}

func testPageHover(t *testing.T, ctx context.Context) {
	p := openTab(t, ctx, samplePage(t), 1280, true)
	at := eval[struct{ X, Y float64 }](p, `async () => {
		const l = [...document.querySelectorAll("#percentiles .wide.log g[data-n=bbolt] .l")][0];
		l.scrollIntoView({ block: "center", behavior: "instant" });
		await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))); // the scroll event hides the value
		const p = l.getPointAtLength(0), m = l.getScreenCTM(), q = new DOMPoint(p.x, p.y).matrixTransform(m);
		return { X: q.x, Y: q.y };
	}`)
	p.run(chromedp.MouseEvent(chromedp.MouseMoved, at.X+2, at.Y-2))
	tip := eval[string](p, `() => { const t = document.querySelector(".tip"); return t.hidden ? "" : t.textContent }`)
	if !strings.HasPrefix(tip, "bbolt · p50 · 6.") || !strings.HasSuffix(tip, " ms") {
		t.Errorf("the value under the pointer: %q", tip)
	}
}

func testPageDownload(t *testing.T, ctx context.Context) {
	r := sample(t, defaultSample())
	p := openTab(t, ctx, samplePage(t), 1280, true)
	text := eval[string](p, `async () => {
		const a = document.querySelector("a.data");
		const bytes = Uint8Array.from(atob(a.href.slice(a.href.indexOf(",") + 1)), c => c.charCodeAt(0));
		return await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
	}`)
	var got result.Result
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if got.ID != r.ID || len(got.Runs) != len(r.Runs) || got.Runs[5].Save.P99 != r.Runs[5].Save.P99 {
		t.Error("the data in the page is not the result")
	}
}

// testPagePrint looks at the page as it is printed on A4, which is as wide as a
// small window: the drawings for a wide page are there, the controls are not.
func testPagePrint(t *testing.T, ctx context.Context) {
	p := openTab(t, ctx, fullPage(t, 6), 718, true)
	p.choose("#theme", "dark")
	p.choose("#scale", "log")
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"})
	p.checkLayout()
	p.checkFigures()
	p.checkContrast()
	if wide := eval[[]string](p, `() => [...document.querySelectorAll("table")].filter(t => t.getClientRects().length && t.getBoundingClientRect().right > innerWidth + 1).map(t => t.caption.textContent)`); len(wide) > 0 {
		t.Errorf("tables are cut off by the edge of the paper: %q", wide)
	}
	if alone := eval[[]string](p, `() => [...document.querySelectorAll("h2,h3,figcaption,.intro")].filter(e => e.getClientRects().length && getComputedStyle(e).breakAfter !== "avoid").map(e => e.textContent.slice(0, 40))`); len(alone) > 0 {
		t.Errorf("may stand alone at the foot of a page: %q", alone)
	}
	got := eval[struct {
		Figures, Drawn, Controls int
		Paper                    string
	}](p, `() => {
		const seen = e => e.getClientRects().length > 0;
		const figures = [...document.querySelectorAll("figure:not([hidden])")];
		return { Figures: figures.length, Drawn: figures.filter(f => [...f.querySelectorAll(".drawing.wide")].filter(seen).length === 1).length,
			Controls: [...document.querySelectorAll(".bar-top, nav, summary")].filter(seen).length, Paper: getComputedStyle(document.documentElement).getPropertyValue("--paper").trim() };
	}`)
	if got.Figures < 8 || got.Drawn != got.Figures || got.Controls != 0 || got.Paper != "#fff" {
		t.Errorf("%+v", got)
	}
}

// testPageMachines shows two environments on one page.
func testPageMachines(t *testing.T, ctx context.Context) {
	laptop, server := fullSample(t, 6, 7), sample(t, defaultSample())
	server.ID, server.Env.Hostname, server.Env.Device = "server", "server", "sda"
	p := openTab(t, ctx, savePage(t, laptop, server), 360, true)
	for _, width := range []int64{360, 1280} {
		p.at(width, fmt.Sprintf("%d px", width), func() {
			p.checkLayout()
			if got := p.texts("article h2.big"); len(got) != 2 {
				p.Errorf("%d verdicts: %q", len(got), got)
			}
			p.choose("#baseline", "1")
			if got := p.texts(".board thead .basename"); len(got) < 2 || got[0] != "bbolt" {
				p.Errorf("baselines %q", got)
			}
			p.checkHeadings()
			p.choose("#baseline", "0")
			if got := p.texts(".board thead .basename"); len(got) < 2 || got[0] != "etcd-wal" {
				p.Errorf("baselines, back at the first: %q", got)
			}
		})
	}
}

// testPageCompare shows the page of the command compare.
func testPageCompare(t *testing.T, ctx context.Context) {
	r := sample(t, defaultSample())
	path := filepath.Join(t.TempDir(), "compare.html")
	if err := WriteFile(path, func(w io.Writer) error { return CompareHTML(w, []*result.Result{r}, r.Comparisons) }); err != nil {
		t.Fatal(err)
	}
	for _, width := range []int64{360, 1280} {
		p := openTab(t, ctx, "file://"+path, width, true)
		p.checkLayout()
		p.checkHeadings()
	}
}

// hostilePage is the page of hostile.
func hostilePage(t *testing.T) []byte {
	t.Helper()
	return pages.get("hostile", func() []byte { return htmlOf(t, hostile(t)) })
}

// testPageHostile opens a page whose every text attacks: it stays a page.
func testPageHostile(t *testing.T, ctx context.Context) {
	p := openTab(t, ctx, saveHTML(t, hostilePage(t)), 1280, true)
	got := eval[struct {
		Title         string
		Scripts, Imgs int
	}](p, `() => ({ Title: document.title, Scripts: document.scripts.length, Imgs: document.images.length })`)
	if got.Title == "pwned" || got.Scripts != 2 || got.Imgs != 0 {
		t.Errorf("%+v", got)
	}
	if l := eval[layout](p, layoutJS); l.Overflow > 0 {
		t.Errorf("the page is %d px wider than the window", l.Overflow)
	}
}

// testPageAccessibility reads what a screen reader would, and measures contrast.
func testPageAccessibility(t *testing.T, ctx context.Context) {
	t.Run("themes", func(t *testing.T) {
		t.Parallel()
		p := openTab(t, ctx, fullPage(t, 14), 1280, true)
		p.do(`() => { for (const d of document.querySelectorAll("details")) d.open = true }`)
		for _, theme := range []string{"dark", "light"} { // a page whose tree was read is slow to change
			p.at(1280, theme, func() {
				p.choose("#theme", theme)
				p.checkContrast()
				if theme == "light" {
					p.checkTree()
					p.checkHeadings()
					p.checkTables()
				}
			})
		}
	})
	t.Run("focus", func(t *testing.T) {
		t.Parallel()
		openTab(t, ctx, fullPage(t, 2), 1280, true).checkFocus()
	})
}

// axNode is the part of a node of the accessibility tree that is looked at: there
// are a hundred thousand of them, most of which is of no use here.
type axNode struct {
	NodeID     string  `json:"nodeId"`
	Ignored    bool    `json:"ignored"`
	Role       axValue `json:"role"`
	Name       axValue `json:"name"`
	Properties []struct {
		Name  accessibility.PropertyName `json:"name"`
		Value axValue                    `json:"value"`
	} `json:"properties"`
}

type axValue struct {
	Value any `json:"value"`
}

func (v axValue) String() string {
	if v.Value == nil {
		return ""
	}
	return fmt.Sprint(v.Value)
}

var axTree = cdp.Command[accessibility.GetFullAXTreeParams, struct {
	Nodes []axNode `json:"nodes"`
}]{Method: accessibility.CommandGetFullAXTree}

// checkTree demands a name of everything that a reader meets or uses.
func (p *tab) checkTree() {
	p.Helper()
	nodes := call(p, axTree, accessibility.GetFullAXTreeParams{}).Nodes
	named := []string{"button", "link", "combobox", "checkbox", "image", "img", "region", "table", "navigation", "group", "heading", "columnheader", "rowheader", "DisclosureTriangle"}
	count := map[string]int{}
	focusable := func(n *axNode) bool {
		for i := range n.Properties {
			if p := &n.Properties[i]; p.Name == accessibility.PropertyNameFocusable {
				return p.Value.String() == "true"
			}
		}
		return false
	}
	reached := 0
	for i := range nodes {
		n := &nodes[i]
		if n.Ignored {
			continue
		}
		role := n.Role.String()
		count[role]++
		interactive := focusable(n) && role != "RootWebArea"
		if interactive {
			reached++
		}
		if (interactive || slices.Contains(named, role)) && n.Name.String() == "" && role != "group" {
			p.Errorf("a %s has no name (node %s)", role, n.NodeID)
		}
	}
	if want := eval[int](p, "() => ("+stopsJS+")().length"); reached < want || want < 50 {
		p.Errorf("%d things that can have the focus are announced, the page has %d", reached, want)
	}
	for role, want := range map[string]int{"banner": 1, "main": 1, "navigation": 1, "contentinfo": 1} {
		if count[role] != want {
			p.Errorf("%d × %s, want %d", count[role], role, want)
		}
	}
	if count["image"]+count["img"] < 10 || count["table"] < 10 {
		p.Errorf("only %d drawings and %d tables are announced", count["image"]+count["img"], count["table"])
	}
}

// checkHeadings demands one first-level heading and no level left out.
func (p *tab) checkHeadings() {
	p.Helper()
	levels := eval[[]int](p, `() => [...document.querySelectorAll("h1,h2,h3,h4,h5,h6")].map(h => +h.tagName[1])`)
	for i, l := range levels {
		if i == 0 && l != 1 || i > 0 && (l == 1 || l > levels[i-1]+1) {
			p.Errorf("heading %d is of level %d: %v", i, l, levels)
		}
	}
	if lang := eval[string](p, `() => document.documentElement.lang`); lang != "en" {
		p.Errorf("language %q", lang)
	}
}

// checkTables demands that every table has a name, and every head a scope: that
// of its column in the first row, that of its row in the others.
func (p *tab) checkTables() {
	p.Helper()
	bad := eval[[]string](p, `() => {
		const bad = [];
		for (const t of document.querySelectorAll("table")) {
			const name = t.caption ? t.caption.textContent.trim() : "";
			if (!name) bad.push("a table has no caption");
			for (const h of t.tHead.querySelectorAll("th,td")) if (h.tagName !== "TH" || h.scope !== "col" || !h.textContent.trim()) bad.push(name + ": head " + h.outerHTML.slice(0, 80));
			for (const r of t.tBodies[0].rows) if (r.cells[0].tagName !== "TH" || r.cells[0].scope !== "row") bad.push(name + ": row " + r.cells[0].outerHTML.slice(0, 80));
		}
		return bad;
	}`)
	for _, b := range bad[:min(len(bad), 8)] {
		p.Error(b)
	}
}

// stopsJS is a function that lists what Tab should stop at, in the order of the
// document.
const stopsJS = `() => [...document.querySelectorAll("a[href],button,select,input,summary,[tabindex='0']")].filter(e => e.getClientRects().length && e.checkVisibility() && !e.disabled)`

// checkFocus walks the page with Tab, to its end: the stops are everything that can
// be used, in the order of the document; each can be seen and has a ring, and none
// is a trap.
func (p *tab) checkFocus() {
	p.Helper()
	want := eval[int](p, "() => { window.stops = ("+stopsJS+")(); return stops.length }")
	if want < 30 {
		p.Fatalf("only %d stops", want)
	}
	for i := range want {
		p.run(chromedp.KeyEvent(kb.Tab))
		stop := eval[struct {
			Name       string
			At         int
			Seen, Ring bool
		}](p, `() => {
			const e = document.activeElement, r = e.getBoundingClientRect(), s = getComputedStyle(e);
			return { Name: e.tagName + "." + e.className + " " + (e.textContent || e.value || "").trim().slice(0, 30), At: stops.indexOf(e),
				Seen: r.width > 0 && r.bottom > 0 && r.top < innerHeight, Ring: s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2 };
		}`)
		if stop.At != i || !stop.Seen || !stop.Ring {
			p.Errorf("stop %d of Tab: %+v", i, stop)
			return
		}
	}
	p.run(chromedp.KeyEvent(kb.Tab))
	if after := eval[string](p, `() => document.activeElement.tagName`); after != "BODY" {
		p.Errorf("Tab does not leave the page after its last stop: it is at a %s", after)
	}
}

// contrastJS finds text with too little contrast against what is behind it (4.5,
// or 3 for large text), and marks in drawings under 3.
const contrastJS = `() => {
	const rgb = s => (s.match(/[\d.]+/g) || []).map(Number);
	const lum = c => { const f = c.slice(0, 3).map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4 }); return .2126 * f[0] + .7152 * f[1] + .0722 * f[2] };
	const ratio = (a, b) => { const x = lum(a), y = lum(b); return (Math.max(x, y) + .05) / (Math.min(x, y) + .05) };
	const seenBehind = new Map([[null, [255, 255, 255]]]); // texts stand before what their neighbours stand before
	const behind = e => {
		if (!seenBehind.has(e)) {
			const c = rgb(getComputedStyle(e).backgroundColor);
			seenBehind.set(e, c.length && (c.length < 4 || c[3] > 0) ? c : behind(e.parentElement));
		}
		return seenBehind.get(e);
	};
	const bad = new Set();
	let seen = 0;
	const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let n; n = walk.nextNode();) {
		const e = n.parentElement;
		if (!n.textContent.trim() || !e.getClientRects().length || e.closest("script,style,.tip,option,.skip")) continue;
		seen++;
		const s = getComputedStyle(e), svg = e.closest("svg"), color = rgb(svg ? s.fill : s.color);
		const size = parseFloat(s.fontSize), large = size >= 24 || size >= 18.66 && s.fontWeight >= 700;
		const r = ratio(color, behind(svg || e));
		if (r < (large ? 3 : 4.5)) bad.add(e.tagName + "." + (e.getAttribute("class") || "") + " " + r.toFixed(2) + " " + n.textContent.trim().slice(0, 20));
	}
	for (const e of document.querySelectorAll(".chart .l, .chart .m, .chart .o, .chart .f, .bar rect")) {
		if (!e.getClientRects().length) continue;
		const s = getComputedStyle(e), filled = e.matches(".m, .f, rect");
		const r = ratio(rgb(filled ? s.fill : s.stroke), behind(e.closest("div, li, td, th, label")));
		if (r < 3) bad.add("mark " + e.parentElement.getAttribute("class") + " " + r.toFixed(2));
	}
	return { Seen: seen, Bad: [...bad] };
}`

func (p *tab) checkContrast() {
	p.Helper()
	got := eval[struct {
		Seen int
		Bad  []string
	}](p, contrastJS)
	if got.Seen < 500 {
		p.Errorf("only %d texts were looked at", got.Seen)
	}
	for _, b := range got.Bad {
		p.Errorf("contrast: %s", b)
	}
}

// testPageReal looks at results that raftbench has measured, not at ones that this
// package has made up: every engine, and every workload and load beside propose.
// testdata/real/README.md says how they were made.
func testPageReal(t *testing.T, ctx context.Context) {
	for _, c := range []struct{ name, pattern string }{{"engines", "engines.json.gz"}, {"all", "*.json.gz"}} {
		for _, scripts := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s scripts %v", c.name, scripts), func(t *testing.T) {
				t.Parallel()
				p := openTab(t, ctx, realPage(t, c.pattern), widths[0], scripts)
				for _, width := range widths {
					p.at(width, fmt.Sprintf("%d px", width), func() {
						p.checkLayout()
						p.checkSections()
						p.checkFigures()
						if empty := p.texts("section > .empty"); c.name == "all" && len(empty) > 0 {
							p.Errorf("sections that have nothing to show: %q", empty)
						}
					})
				}
			})
		}
	}
}

// testPageRealControls uses every control of the page of a measured result.
func testPageRealControls(t *testing.T, ctx context.Context) {
	p := openTab(t, ctx, realPage(t, "engines.json.gz"), 1280, true)
	column := func() []float64 {
		return eval[[]float64](p, `() => [...document.querySelectorAll(".board tbody tr")].map(r => +r.cells[2].dataset.v)`)
	}
	falling := func(a, b float64) int { return cmp.Compare(b, a) }
	p.head("ops/s")
	if got := column(); len(got) != 7 || !slices.IsSortedFunc(got, falling) {
		t.Errorf("by throughput: %v", got)
	}
	p.head("ops/s")
	if got := column(); !slices.IsSorted(got) {
		t.Errorf("by throughput, rising: %v", got)
	}
	p.click(".pick summary")
	p.click(`.pick input[value="4"]`)
	p.choose("#baseline", "1")
	p.choose("#scale", "lin")
	p.choose("#theme", "dark")
	got := eval[struct {
		Hash, Base, Picked, Paper string
		Hidden                    bool
	}](p, `() => ({ Hash: location.hash, Base: document.querySelector(".board thead .basename").textContent, Picked: document.querySelector("#picked").textContent,
		Paper: getComputedStyle(document.body).backgroundColor, Hidden: !document.querySelector('.board tr[data-b="4"]').getClientRects().length })`)
	if got.Hash != "#&base=1&hide=4&scale=lin&theme=dark&sort=0.2.ascending" || got.Base != "bbolt" || got.Picked != "6 of 7" || got.Paper != "rgb(20, 23, 27)" || !got.Hidden {
		t.Errorf("%+v", got)
	}
	p.checkLayout()
	p.checkContrast()
}
