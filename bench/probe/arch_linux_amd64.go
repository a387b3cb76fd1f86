package probe

// firstArgument is the offset of the register with a system call's first argument
// (rdi) in struct pt_regs.
const firstArgument = 112
