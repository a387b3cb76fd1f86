package reports

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

var (
	shotsOf = flag.String("screenshots-of", "", "a report.html to take pictures of (absolute path)")
	shotsTo = flag.String("screenshots-to", "", "directory for the pictures")
)

// TestScreenshots takes pictures of a report: the top of the page in light and
// dark, the whole of it on a phone, and the printed pages. It runs only when it
// is asked to:
//
//	go test ./reports -run Screenshots -screenshots-of $PWD/report.html -screenshots-to docs
func TestScreenshots(t *testing.T) {
	if *shotsOf == "" || *shotsTo == "" {
		t.Skip("no -screenshots-of and -screenshots-to")
	}
	ctx := browser(t)
	save := func(name string, data []byte, err error) {
		t.Helper()
		if err == nil {
			err = os.WriteFile(filepath.Join(*shotsTo, name), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, theme string
		width       int64
		whole       bool
	}{
		{"report-light.png", "light", 1280, false},
		{"report-dark.png", "dark", 1280, false},
		{"report-light-whole.png", "light", 1280, true},
		{"report-dark-whole.png", "dark", 1280, true},
		{"report-phone.png", "light", 390, true},
	} {
		p := openTab(t, ctx, "file://"+*shotsOf, c.width, true)
		call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: c.theme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		}})
		var data []byte
		var err error
		if c.whole {
			data, err = chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
		} else {
			p.run(chromedp.EmulateViewport(c.width, 1400))
			data, err = chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
		}
		save(c.name, data, err)
	}
	p := openTab(t, ctx, "file://"+*shotsOf, 1280, true)
	pdf, err := chromedp.Run(p.ctx, chromedp.PrintToPDF())
	save("report.pdf", pdf, err)
}
