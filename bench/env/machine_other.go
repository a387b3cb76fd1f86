//go:build !linux

package env

// ResetPeakRSS makes the peak of [RSS] start from now.
func ResetPeakRSS() error { return ErrUnsupported }

func cpuScheduling() string { return "" }

func freeBytes(string) int64 { return 0 }

func deviceNumber(string) string { return "" }
