//! Processor exceptions, as `sigcontext.trapno` and `sigcontext.err` show them to guests.
//!
//! Sources: Intel SDM volume 3 chapter 6, `arch/x86/include/asm/trap{nr,_pf}.h`.

consts! { "Exception vectors.", u64; TRAP_DE = 0, TRAP_DB = 1, TRAP_NMI = 2, TRAP_BP = 3, TRAP_OF = 4, TRAP_BR = 5,
TRAP_UD = 6, TRAP_NM = 7, TRAP_DF = 8,
TRAP_TS = 10, TRAP_NP = 11, TRAP_SS = 12, TRAP_GP = 13, TRAP_PF = 14, TRAP_MF = 16, TRAP_AC = 17, TRAP_MC = 18,
TRAP_XF = 19 }
consts! { "Bits of a page fault's error code: present, write, user mode, reserved bit, fetch, protection key.", u64;
PF_PROT = 1, PF_WRITE = 2, PF_USER = 4, PF_RSVD = 8, PF_INSTR = 16, PF_PK = 32 }
