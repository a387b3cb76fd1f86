//go:build !linux

package powercut

import (
	"context"
	"errors"

	"github.com/raftbench/raftbench/bench/result"
)

var errLinux = errors.New("cutting the power needs FUSE and mount namespaces, which only Linux has")

// Available says why disks that die cannot be had here; nil if they can.
func Available() error { return errLinux }

// Run cuts the power; on this system it only returns an error.
func Run(context.Context, Config) (result.PowerCut, error) { return result.PowerCut{}, errLinux }

// Faults injects disk faults; on this system it only returns an error.
func Faults(context.Context, FaultConfig) ([]result.Fault, error) { return nil, errLinux }

// FaultNames lists the faults in the order of the table.
func FaultNames() []string { return nil }

// RemoteDisk is a disk that fails under engines of this process.
type RemoteDisk struct{}

// StartDisk mounts a RemoteDisk; on this system it only returns an error.
func StartDisk(string, DiskOptions) (*RemoteDisk, error) { return nil, errLinux }

// Inject only returns an error.
func (*RemoteDisk) Inject(DiskFault) error { return errLinux }

// Heal only returns an error.
func (*RemoteDisk) Heal() error { return errLinux }

// Fill only returns an error.
func (*RemoteDisk) Fill(int64) error { return errLinux }

// Die only returns an error.
func (*RemoteDisk) Die() error { return errLinux }

// Cut only returns an error.
func (*RemoteDisk) Cut(int64) error { return errLinux }

// Close only returns an error.
func (*RemoteDisk) Close() error { return errLinux }

func diskMain() {}
