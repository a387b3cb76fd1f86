package probe

// firstArgument is the offset of the register with a system call's first argument
// (x0) in struct pt_regs.
const firstArgument = 0
