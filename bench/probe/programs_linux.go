//go:build amd64 || arm64

package probe

import (
	"fmt"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// syncs and writes are the system calls that are observed; writes only to files
// that were opened with O_DSYNC or O_SYNC, which contains it.
var (
	syncs = map[uint32]string{
		syscall.SYS_FSYNC:           "fsync",
		syscall.SYS_FDATASYNC:       "fdatasync",
		syscall.SYS_MSYNC:           "msync",
		syscall.SYS_SYNC_FILE_RANGE: "sync_file_range",
	}
	writes = map[uint32]string{
		syscall.SYS_WRITE:    "write+dsync",
		syscall.SYS_PWRITE64: "write+dsync",
		syscall.SYS_WRITEV:   "write+dsync",
		syscall.SYS_PWRITEV:  "write+dsync",
	}
)

// callName is what a report calls a system call.
func callName(nr uint32) string {
	if name, ok := syncs[nr]; ok {
		return name
	}
	return writes[nr]
}

// An event is one call. These are the offsets of its parts, in the machine's byte
// order.
const (
	evStart    = 0  // u64, CLOCK_MONOTONIC
	evDuration = 8  // u64
	evThread   = 16 // u32
	evCall     = 20 // u32, the number of the system call
	evNode     = 24 // i32
	evReturn   = 28 // i32
	evName     = 32 // of the file, ends with a zero

	nameBytes  = 48
	eventBytes = evName + nameBytes

	noNode = -1

	// maxDepth is how many folders below its node's a file may lie.
	maxDepth = 32

	noWakeup = 1 // BPF_RB_NO_WAKEUP
)

// offsets of the members that the programs follow, of the running kernel.
type offsets struct {
	taskFiles, filesTable, tableMax, tableFiles int32
	fileDentry, fileFlags, vmaFile              int32
	dentryParent, dentryInode, dentryName       int32
}

func kernelOffsets() (offsets, error) {
	spec, err := btf.LoadKernelSpec()
	if err != nil {
		return offsets{}, fmt.Errorf("load the kernel's type information: %w", err)
	}
	var o offsets
	for _, m := range []struct {
		into *int32
		typ  string
		path []string
	}{
		{&o.taskFiles, "task_struct", []string{"files"}},
		{&o.filesTable, "files_struct", []string{"fdt"}},
		{&o.tableMax, "fdtable", []string{"max_fds"}},
		{&o.tableFiles, "fdtable", []string{"fd"}},
		{&o.fileDentry, "file", []string{"f_path", "dentry"}},
		{&o.fileFlags, "file", []string{"f_flags"}},
		{&o.vmaFile, "vm_area_struct", []string{"vm_file"}},
		{&o.dentryParent, "dentry", []string{"d_parent"}},
		{&o.dentryInode, "dentry", []string{"d_inode"}},
		{&o.dentryName, "dentry", []string{"d_name", "name"}},
	} {
		var s *btf.Struct
		if err := spec.TypeByName(m.typ, &s); err != nil {
			return offsets{}, fmt.Errorf("the kernel's struct %s: %w", m.typ, err)
		}
		offset, ok := memberOffset(s, m.path)
		if !ok {
			return offsets{}, fmt.Errorf("the kernel's struct %s has no member %v", m.typ, m.path)
		}
		*m.into = int32(offset)
	}
	return o, nil
}

// memberOffset follows path from t and returns the offset in bytes. Members of
// nameless structs and unions count as t's own, as in C.
func memberOffset(t btf.Type, path []string) (uint32, bool) {
	if len(path) == 0 {
		return 0, true
	}
	var members []btf.Member
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		members = t.Members
	case *btf.Union:
		members = t.Members
	}
	for _, m := range members {
		rest := path
		switch m.Name {
		case path[0]:
			rest = path[1:]
		case "":
		default:
			continue
		}
		if inner, ok := memberOffset(m.Type, rest); ok {
			return m.Offset.Bytes() + inner, true
		}
	}
	return 0, false
}

// kernelMaps are shared by the programs.
type kernelMaps struct {
	// nodes: address of a directory's inode → node.
	nodes *ebpf.Map
	// inFlight: thread → event of the call that it is in.
	inFlight *ebpf.Map
	events   *ebpf.Map // ring buffer
	dropped  *ebpf.Map // one counter
}

// Stack slots of the programs, below the event where there is one.
const (
	stEvent   = -eventBytes
	stPointer = stEvent - 8  // what was last read from the kernel
	stFile    = stEvent - 16 // msync: the file of the mapping
	stKey     = stEvent - 24
)

// readKernel reads size bytes at src+offset to the stack slot.
func readKernel(slot int16, size int32, src asm.Register, offset int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R3, src),
		asm.Add.Imm(asm.R3, offset),
		asm.Mov.Imm(asm.R2, size),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, int32(slot)),
		asm.FnProbeReadKernel.Call(),
	}
}

// readPointer reads the pointer at src+offset to dst, and leaves it in stPointer.
// A read that fails gives 0: the kernel clears the slot.
func readPointer(dst, src asm.Register, offset int32) asm.Instructions {
	return append(readKernel(stPointer, 8, src, offset),
		asm.LoadMem(dst, asm.RFP, stPointer, asm.DWord))
}

// fileOfFD turns the descriptor in R7 into the address of the file in R6, 0 if
// there is none. It does what the kernel's files_lookup_fd_raw does; the tables
// are freed by RCU, and programs run inside a read-side section.
func fileOfFD(o offsets) asm.Instructions {
	code := asm.Instructions{
		asm.FnGetCurrentTask.Call(),
		asm.Mov.Reg(asm.R6, asm.R0),
	}
	code = append(code, readPointer(asm.R6, asm.R6, o.taskFiles)...)
	code = append(code, readPointer(asm.R6, asm.R6, o.filesTable)...)
	code = append(code, readKernel(stPointer, 4, asm.R6, o.tableMax)...)
	code = append(code,
		asm.LoadMem(asm.R1, asm.RFP, stPointer, asm.Word),
		asm.JLT.Reg(asm.R7, asm.R1, "fd_in_table"),
		asm.Mov.Imm(asm.R6, 0),
		asm.Ja.Label("fd_done"),
	)
	table := readPointer(asm.R6, asm.R6, o.tableFiles)
	table[0] = table[0].WithSymbol("fd_in_table")
	code = append(code, table...)
	code = append(code,
		asm.LSh.Imm(asm.R7, 3),
		asm.Add.Reg(asm.R6, asm.R7),
	)
	code = append(code, readPointer(asm.R6, asm.R6, 0)...)
	return append(code, asm.Mov.Reg(asm.R6, asm.R6).WithSymbol("fd_done"))
}

// enterProgram notes the sync calls of process tgid: which call on which file of
// which node, and when it begins. The clock is read last, so that the walk is not
// part of what is measured.
func enterProgram(m kernelMaps, o offsets, tgid uint32) *ebpf.ProgramSpec {
	code := asm.Instructions{
		btf.WithFuncMetadata(asm.Mov.Reg(asm.R6, asm.R1), function("sync_enter")),
		asm.LoadMem(asm.R7, asm.R6, 8, asm.DWord), // the call's number
	}
	for nr := range syncs {
		code = append(code, asm.JEq.Imm(asm.R7, int32(nr), "observed"))
	}
	for nr := range writes {
		code = append(code, asm.JEq.Imm(asm.R7, int32(nr), "observed"))
	}
	code = append(code,
		asm.Ja.Label("out"),
		asm.FnGetCurrentPidTgid.Call().WithSymbol("observed"),
		asm.Mov.Reg(asm.R8, asm.R0),
		asm.RSh.Imm(asm.R0, 32),
		asm.JNE.Imm(asm.R0, int32(tgid), "out"),
	)
	code = append(code, emptyEvent()...)
	code = append(code, // pt_regs → first argument, in R9
		asm.LoadMem(asm.R6, asm.R6, 0, asm.DWord),
	)
	code = append(code, readPointer(asm.R9, asm.R6, firstArgument)...)
	code = append(code,
		asm.JEq.Imm(asm.R7, int32(syscall.SYS_MSYNC), "msync"),
		asm.Mov.Reg32(asm.R7, asm.R9), // descriptors are ints: the upper half is noise
	)
	code = append(code, fileOfFD(o)...)
	code = append(code, ignoreCachedWrites(o)...)
	code = append(code,
		asm.Ja.Label("have_file"),
		asm.FnGetCurrentTaskBtf.Call().WithSymbol("msync"),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.Mov.Reg(asm.R2, asm.R9),
		loadFunction(asm.R3, "mapped_file"),
		asm.Mov.Reg(asm.R4, asm.RFP),
		asm.Add.Imm(asm.R4, stFile),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnFindVma.Call(),
		asm.LoadMem(asm.R6, asm.RFP, stFile, asm.DWord),
		asm.JEq.Imm(asm.R6, 0, "attributed").WithSymbol("have_file"),
	)
	code = append(code, readPointer(asm.R6, asm.R6, o.fileDentry)...)
	code = append(code, fileName(o)...)
	code = append(code, findNode(m, o)...)
	code = append(code,
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.StoreMem(asm.RFP, stEvent+evNode, asm.R1, asm.Word),
		asm.FnKtimeGetNs.Call().WithSymbol("attributed"),
		asm.StoreMem(asm.RFP, stEvent+evStart, asm.R0, asm.DWord),
		asm.StoreMem(asm.RFP, stKey, asm.R8, asm.Word), // the thread
		asm.LoadMapPtr(asm.R1, m.inFlight.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stKey),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stEvent),
		asm.Mov.Imm(asm.R4, 0), // BPF_ANY: a call whose exit was missed is replaced
		asm.FnMapUpdateElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
	)
	code = append(code, countDrop(m)...)
	code = append(code,
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	)
	return &ebpf.ProgramSpec{
		Name: "sync_enter", Type: ebpf.RawTracepoint, License: license,
		Instructions: append(code, mappedFile(o)...),
	}
}

// ignoreCachedWrites jumps to "out" where the event is a write to a file, in R6,
// that does not sync by itself.
func ignoreCachedWrites(o offsets) asm.Instructions {
	code := asm.Instructions{asm.LoadMem(asm.R1, asm.RFP, stEvent+evCall, asm.Word)}
	for nr := range syncs {
		code = append(code, asm.JEq.Imm(asm.R1, int32(nr), "have_file"))
	}
	code = append(code, readKernel(stPointer, 4, asm.R6, o.fileFlags)...)
	return append(code,
		asm.LoadMem(asm.R1, asm.RFP, stPointer, asm.Word),
		asm.And.Imm(asm.R1, syscall.O_DSYNC),
		asm.JEq.Imm(asm.R1, 0, "out"),
	)
}

// emptyEvent clears the stack slots, and sets what is known at entry: call R7,
// thread R8, no node.
func emptyEvent() asm.Instructions {
	code := asm.Instructions{asm.Mov.Imm(asm.R0, 0)}
	for slot := stKey; slot < 0; slot += 8 {
		code = append(code, asm.StoreMem(asm.RFP, int16(slot), asm.R0, asm.DWord))
	}
	return append(code,
		asm.StoreMem(asm.RFP, stEvent+evCall, asm.R7, asm.Word),
		asm.StoreMem(asm.RFP, stEvent+evThread, asm.R8, asm.Word),
		asm.StoreImm(asm.RFP, stEvent+evNode, noNode, asm.Word),
	)
}

// fileName copies the last element of the path of dentry R6 to the event.
func fileName(o offsets) asm.Instructions {
	return append(readPointer(asm.R3, asm.R6, o.dentryName),
		asm.Mov.Imm(asm.R2, nameBytes),
		asm.Mov.Reg(asm.R1, asm.RFP),
		asm.Add.Imm(asm.R1, stEvent+evName),
		asm.FnProbeReadKernelStr.Call(),
	)
}

// findNode goes from dentry R6 up to the first directory that is a node's, and
// falls through with its map value in R0; if there is none it jumps to
// "attributed".
func findNode(m kernelMaps, o offsets) asm.Instructions {
	code := asm.Instructions{asm.Mov.Imm(asm.R9, 0)}
	loop := readPointer(asm.R1, asm.R6, o.dentryInode)
	loop[0] = loop[0].WithSymbol("parent")
	code = append(code, loop...)
	code = append(code,
		asm.LoadMapPtr(asm.R1, m.nodes.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stPointer),
		asm.FnMapLookupElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "found"),
	)
	code = append(code, readPointer(asm.R1, asm.R6, o.dentryParent)...)
	return append(code,
		asm.JEq.Reg(asm.R1, asm.R6, "attributed"), // a root is its own parent
		asm.JEq.Imm(asm.R1, 0, "attributed"),
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.Add.Imm(asm.R9, 1),
		asm.JLT.Imm(asm.R9, maxDepth, "parent"),
		asm.Ja.Label("attributed"),
		asm.Mov.Reg(asm.R0, asm.R0).WithSymbol("found"),
	)
}

// mappedFile is the callback of bpf_find_vma: (task, vma, *file). It stores the
// address of the mapping's file, 0 for memory without one.
func mappedFile(o offsets) asm.Instructions {
	return asm.Instructions{
		btf.WithFuncMetadata(asm.LoadMem(asm.R1, asm.R2, int16(o.vmaFile), asm.DWord).WithSymbol("mapped_file"), function("mapped_file")),
		asm.StoreMem(asm.R3, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	}
}

// exitProgram completes the event of the thread's call and sends it.
func exitProgram(m kernelMaps, tgid uint32) *ebpf.ProgramSpec {
	const key = -8
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.FnGetCurrentPidTgid.Call(),
		asm.StoreMem(asm.RFP, key, asm.R0, asm.Word),
		asm.RSh.Imm(asm.R0, 32),
		asm.JNE.Imm(asm.R0, int32(tgid), "out"),
		asm.LoadMapPtr(asm.R1, m.inFlight.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Reg(asm.R7, asm.R0),
		asm.FnKtimeGetNs.Call(),
		asm.LoadMem(asm.R1, asm.R7, evStart, asm.DWord),
		asm.Sub.Reg(asm.R0, asm.R1),
		asm.StoreMem(asm.R7, evDuration, asm.R0, asm.DWord),
		asm.LoadMem(asm.R1, asm.R6, 8, asm.DWord), // what the call returned
		asm.StoreMem(asm.R7, evReturn, asm.R1, asm.Word),
		asm.LoadMapPtr(asm.R1, m.events.FD()),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Mov.Imm(asm.R3, eventBytes),
		asm.Mov.Imm(asm.R4, noWakeup),
		asm.FnRingbufOutput.Call(),
		asm.JEq.Imm(asm.R0, 0, "sent"),
	}
	code = append(code, countDrop(m)...)
	return &ebpf.ProgramSpec{
		Name: "sync_exit", Type: ebpf.RawTracepoint, License: license,
		Instructions: append(code,
			asm.LoadMapPtr(asm.R1, m.inFlight.FD()).WithSymbol("sent"),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, key),
			asm.FnMapDeleteElem.Call(),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
			asm.Return(),
		),
	}
}

func countDrop(m kernelMaps) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapValue(asm.R1, m.dropped.FD(), 0),
		asm.Mov.Imm(asm.R2, 1),
		asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
	}
}

// learnProgram is run once for each node, in the probe's own process, with a
// descriptor of the node's directory and the node as its two arguments. It
// returns 0 where it could store the directory's inode.
func learnProgram(m kernelMaps, o offsets) *ebpf.ProgramSpec {
	code := asm.Instructions{
		asm.Mov.Reg(asm.R9, asm.R1),
		asm.LoadMem(asm.R7, asm.R9, 0, asm.DWord),
	}
	code = append(code, fileOfFD(o)...)
	code = append(code, asm.JEq.Imm(asm.R6, 0, "failed"))
	code = append(code, readPointer(asm.R6, asm.R6, o.fileDentry)...)
	code = append(code, readPointer(asm.R6, asm.R6, o.dentryInode)...)
	code = append(code,
		asm.JEq.Imm(asm.R6, 0, "failed"),
		asm.LoadMem(asm.R1, asm.R9, 8, asm.DWord),
		asm.StoreMem(asm.RFP, stKey, asm.R1, asm.Word),
		asm.LoadMapPtr(asm.R1, m.nodes.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stPointer), // the inode, which was read last
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stKey),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
		asm.JNE.Imm(asm.R0, 0, "failed"),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("failed"),
		asm.Return(),
	)
	return &ebpf.ProgramSpec{Name: "learn_node", Type: ebpf.RawTracepoint, License: license, Instructions: code}
}

// whoamiProgram returns the number of the calling process in the initial PID
// namespace, which is what the other programs see; getpid gives that of its own.
func whoamiProgram() *ebpf.ProgramSpec {
	return &ebpf.ProgramSpec{Name: "whoami", Type: ebpf.RawTracepoint, License: license, Instructions: asm.Instructions{
		asm.FnGetCurrentPidTgid.Call(),
		asm.RSh.Imm(asm.R0, 32),
		asm.Return(),
	}}
}

// license is what the programs declare to the kernel, whose helpers for reading its
// memory refuse any that is not compatible with its own.
const license = "GPL"

// function describes a subprogram to the verifier, which wants a type for each
// where one is passed as a callback.
func function(name string) *btf.Func {
	return &btf.Func{Name: name, Linkage: btf.StaticFunc, Type: &btf.FuncProto{
		Return: &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed},
	}}
}

// loadFunction loads the address of a subprogram.
func loadFunction(dst asm.Register, name string) asm.Instruction {
	ins := asm.LoadImm(dst, -1, asm.DWord).WithReference(name) // the assembler puts the offset for −1
	ins.Src = asm.PseudoFunc
	return ins
}
