package main

import (
	"os"
	"testing"

	"golang.org/x/tools/go/packages"
)

// TestPortable: the program can be built on a laptop with macOS, where fewer figures are
// known. Types are checked only, which takes a tenth of the time of a build.
func TestPortable(t *testing.T) {
	t.Parallel()
	roots, err := packages.Load(&packages.Config{
		Mode: packages.LoadAllSyntax,
		Dir:  "../..",
		Env:  append(os.Environ(), "GOOS=darwin", "GOARCH=arm64", "CGO_ENABLED=0"),
	}, "./...")
	if err != nil {
		t.Fatal(err)
	}
	if len(roots) < 20 {
		t.Errorf("%d packages were looked at", len(roots))
	}
	packages.Visit(roots, nil, func(p *packages.Package) {
		for _, err := range p.Errors {
			t.Error(err)
		}
	})
}
