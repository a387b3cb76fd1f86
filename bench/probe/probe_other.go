//go:build !linux || !(amd64 || arm64)

package probe

import (
	"fmt"
	"runtime"
)

// Probe is a running probe, which there is none of on this system.
type Probe struct{}

// Start returns an error that wraps [ErrUnavailable].
func Start(Options) (*Probe, error) {
	return nil, fmt.Errorf("%w: there is no probe for %s on %s", ErrUnavailable, runtime.GOOS, runtime.GOARCH)
}

// Reset does nothing.
func (*Probe) Reset() {}

// Report is empty.
func (*Probe) Report() (Report, error) { return Report{}, ErrUnavailable }

// Stop does nothing.
func (*Probe) Stop() (Report, error) { return Report{}, ErrUnavailable }
