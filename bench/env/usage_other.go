//go:build !unix

package env

import "time"

// CPUTime is the user and system time that this process has used.
func CPUTime() (time.Duration, error) { return 0, ErrUnsupported }

// DiskUsage is what the files under dir occupy.
func DiskUsage(string) (int64, error) { return 0, ErrUnsupported }
