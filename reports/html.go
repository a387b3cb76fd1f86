package reports

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/raftbench/raftbench/bench/result"
	"github.com/raftbench/raftbench/reports/chart"
)

var (
	//go:embed report.gohtml
	pageSource string
	//go:embed report.css
	pageCSS string
	//go:embed report.js
	pageJS string
)

var page = template.Must(template.New("report").Funcs(template.FuncMap{"nb": unbroken}).Parse(pageSource))

// unbroken is running text in which a number and its unit, and a flag of the
// command line, stay on one line.
func unbroken(s string) template.HTML {
	s = strings.ReplaceAll(s, "× floor", "×\u00a0floor")
	text := template.HTMLEscapeString(numberUnit.ReplaceAllString(s, "$1\u00a0$2"))
	return template.HTML(flagName.ReplaceAllString(text, `$1<span class="nw">$2</span>`)) //nolint:gosec // escaped above
}

// flagName is a flag of the command line at the beginning of a word.
var flagName = regexp.MustCompile(`(^|[\s(])(--[a-z][a-z-]*)`)

var numberUnit = regexp.MustCompile(`(\d) (%|(?:ns|µs|ms|s|B|[KMGTPE]iB|ops/s)\b)`)

// pageStyle is the style of every page, drawings included.
var pageStyle = pageCSS + chart.CSS

// policy is the content security policy of a page: nothing may be loaded, sent
// or run but the style and the script that it carries.
func policy() string {
	hash := func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return "default-src 'none'; style-src " + hash(pageStyle) + "; script-src " + hash(pageJS) +
		"; img-src data:; base-uri 'none'; form-action 'none'"
}

// HTML writes one self-contained page about results; those of one machine and
// build are shown together, others apart.
func HTML(w io.Writer, rs ...*result.Result) error {
	v, err := newPageView(rs)
	if err != nil {
		return err
	}
	return execute(w, "report", v)
}

// execute renders a page whole before any of it is written.
func execute(w io.Writer, name string, v any) error {
	var buf bytes.Buffer
	if err := page.ExecuteTemplate(&buf, name, v); err != nil {
		return fmt.Errorf("render page: %w", err)
	}
	_, err := w.Write(buf.Bytes())
	return err
}

// frameView is what every page has.
type frameView struct {
	Title  string
	Policy string
	Style  template.CSS
	Script template.JS
	Data   template.JS // for the script
}

func newFrame(title string) frameView {
	return frameView{
		Title: title, Policy: policy(),
		Style:  template.CSS(pageStyle), //nolint:gosec // embedded in the program
		Script: template.JS(pageJS),     //nolint:gosec // embedded in the program
		Data:   "{}",
	}
}

type pageView struct {
	frameView
	Sites    []*siteView
	Across   *figureView // what several machines have in common
	Backends []backendView
}

// backendView is one backend in the page's controls.
type backendView struct {
	Style  chart.Style
	Label  string
	Swatch template.HTML
}

type siteView struct {
	Prefix   string // of ids, "" where the page has one site
	Name     string
	Machine  string
	When     string
	Verdict  verdictView
	Sections []sectionView
	About    aboutView
}

// sectionView is one of the numbered sections of a site.
type sectionView struct {
	ID, Title string
	Intro     string
	Empty     string // why there is nothing, in one line
	Blocks    []blockView
}

// blockView is what a section says about one scenario.
type blockView struct {
	Scenario string // heading, where a site has several
	Board    *boardView
	Figures  []figureView
}

// figureView is one figure: the finding, what it is made of, the drawing for
// wide and narrow pages, and the same as a table.
type figureView struct {
	Finding  string
	Note     string // units and n
	Drawings []drawingView
	Table    *tableView
	More     *tableView // what belongs to the drawing and is not in it
	Base     string     // style number of the baseline, where there is one figure for each
	Shown    bool       // the figure of the default baseline
}

// drawingView is one drawing; Class says when it is shown.
type drawingView struct {
	Class string
	SVG   template.HTML
}

// tableView is a table of figures.
type tableView struct {
	Caption string
	Head    []string
	Rows    []tableRow
}

type tableRow struct {
	Style string // number, for the filter; "" if the row is no backend's
	Cells []string
}

// Widths of the two drawings of each figure in CSS pixels: what a page on a desk
// and on a phone has room for.
const (
	wideWidth   = 1120
	narrowWidth = 328
)

// drawing is any figure of package chart.
type drawing interface{ SVG(width int) string }

// drawn renders a figure for both widths.
func drawn(d drawing) []drawingView { return drawnAs("", d) }

func drawnAs(class string, d drawing) []drawingView {
	return []drawingView{
		{"wide " + class, template.HTML(d.SVG(wideWidth))},     //nolint:gosec // package chart escapes all text
		{"narrow " + class, template.HTML(d.SVG(narrowWidth))}, //nolint:gosec // package chart escapes all text
	}
}

// bothScales renders a figure with a logarithmic and with a linear axis; the
// reader chooses.
func bothScales(log, linear drawing) []drawingView {
	return slices.Concat(drawnAs("log", log), drawnAs("lin", linear))
}

func newPageView(rs []*result.Result) (*pageView, error) {
	v := &pageView{frameView: newFrame("raftbench report")}
	groups := Merge(rs)
	var sites []*site
	p := newPalette()
	for _, g := range groups {
		s := newSite(g.Results)
		p.learn(s)
		sites = append(sites, s)
	}
	data := map[string]map[string]map[string][]string{}
	for i, s := range sites {
		prefix := ""
		if len(sites) > 1 {
			prefix = "m" + strconv.Itoa(i+1) + "-"
		}
		b := &builder{site: s, palette: p, prefix: prefix, contrasts: data}
		sv, err := b.view()
		if err != nil {
			return nil, err
		}
		v.Sites = append(v.Sites, sv)
	}
	v.Backends = p.views()
	if len(sites) > 1 {
		v.Across = across(sites, p)
	}
	if len(v.Sites) > 0 {
		v.Title = v.Sites[0].Verdict.Sentence + " – raftbench"
	}
	encoded, err := json.Marshal(data) // escapes <, > and &
	if err != nil {
		return nil, fmt.Errorf("encode comparisons: %w", err)
	}
	v.Data = template.JS(encoded) //nolint:gosec // JSON
	return v, nil
}

// palette gives every backend of a page its style.
type palette struct {
	styles map[string]chart.Style
	labels []string
	next   chart.Style
}

// fixedStyles are the styles of the built-in backends without parameters: the
// same in every report, so that reports can be laid side by side.
var fixedStyles = map[string]chart.Style{
	"etcd-wal": 0, "bbolt": 1, "badger": 2, "pebble": 3, "hashicorp-wal": 4, "raw": chart.Floor, "mem": chart.Ceiling,
}

// freeStyle is the first style that no built-in backend has.
const freeStyle chart.Style = 5

func newPalette() *palette { return &palette{styles: map[string]chart.Style{}, next: freeStyle} }

// learn gives the backends of a site that have none yet a style, in the order of
// appearance.
func (p *palette) learn(s *site) {
	for _, sc := range s.scenarios {
		for _, rw := range sc.ranked() {
			if _, ok := p.styles[rw.label]; ok {
				continue
			}
			p.labels = append(p.labels, rw.label)
			style, ok := fixedStyles[rw.label]
			if !ok {
				style = p.next
				p.next++
			}
			p.styles[rw.label] = style
		}
	}
}

func (p *palette) of(rw *row) chart.Style { return p.styles[rw.label] }

// number is a style as it stands in data attributes.
func (p *palette) number(rw *row) string { return strconv.Itoa(int(p.of(rw))) }

func (p *palette) views() []backendView {
	var out []backendView
	for _, l := range p.labels {
		s := p.styles[l]
		out = append(out, backendView{s, l, template.HTML(chart.Swatch(s))}) //nolint:gosec // no text in it
	}
	return out
}

// builder makes the view of one site.
type builder struct {
	*palette
	site   *site
	prefix string
	// contrasts are the texts of comparisons for the script: scenario →
	// baseline → backend → text and class.
	contrasts map[string]map[string]map[string][]string
}

// section titles, in the order of the page. The first is the verdict, the last
// what the figures stand on.
var sectionTitles = []struct{ id, title string }{
	{"scoreboard", "Scoreboard"},
	{"curve", "Latency against throughput"},
	{"effects", "Effect sizes"},
	{"percentiles", "Percentiles"},
	{"stages", "Where the time goes"},
	{"time", "Over time"},
	{"snapshots", "Snapshots and restarts"},
	{"repeats", "Repeats"},
}

func (b *builder) view() (*siteView, error) {
	s := b.site
	for _, sc := range s.scenarios {
		sc.compareAll()
	}
	v := &siteView{Prefix: b.prefix, Name: clean(firstOf(s.env.Hostname, "this machine")), Machine: machineText(s.env), When: s.when()}
	v.Verdict = b.verdict()
	build := []func(*scenario) blockView{b.scoreboard, b.curve, b.effects, b.percentiles, b.stages, b.overTime, b.snapshots, b.repeats}
	for i, t := range sectionTitles {
		sec := sectionView{ID: b.prefix + t.id, Title: t.title, Intro: sectionIntro[t.id]}
		for _, sc := range s.scenarios {
			block := build[i](sc)
			if block.Board == nil && len(block.Figures) == 0 {
				continue
			}
			if len(s.scenarios) > 1 {
				block.Scenario = capital(sc.title())
			}
			sec.Blocks = append(sec.Blocks, block)
		}
		if t.id == "scoreboard" {
			for _, j := range s.joined() {
				if j.several() {
					sec.Blocks = append(sec.Blocks, b.sideBySide(j))
				}
			}
		}
		if len(sec.Blocks) == 0 {
			sec.Empty = sectionEmpty[t.id]
		}
		v.Sections = append(v.Sections, sec)
	}
	about, err := b.about()
	v.About = about
	return v, err
}

// when says when the results of a site were made.
func (s *site) when() string {
	first := s.results[0].Started
	text := stamp(first)
	if n := len(s.results); n > 1 {
		text += fmt.Sprintf(" and %s more", plural(n-1, "suite"))
	}
	return text
}

// scenarioID names a scenario in the page's data.
func (b *builder) scenarioID(sc *scenario) string {
	return b.prefix + strconv.Itoa(slices.Index(b.site.scenarios, sc))
}
