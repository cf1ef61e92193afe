//! The x86-64 signal frame: pushing it for a handler and taking it back in rt_sigreturn(2).
//!
//! Source: `arch/x86/kernel/signal_64.c` (`x64_setup_rt_frame`, `restore_sigcontext`), `arch/x86/kernel/signal.c`
//! (`get_sigframe`), `kernel/signal.c` (sigaltstack).

use std::sync::atomic::Ordering;

use moat_abi::Errno;
use moat_abi::Result;
use moat_abi::sigframe::{
    REDZONE, RtSigframe, Sigcontext, UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS, USER_CS, USER_DS, Ucontext,
};
use moat_abi::siginfo::SigInfo;
use moat_abi::signal::{SS_AUTODISARM, SS_DISABLE, SS_ONSTACK, SaFlags, SigAction, SigSet, Signal, StackT};
use moat_mm::{FaultAction, UserAddr};
use moat_platform::{Fault, HandlerEntry, Regs};
use zerocopy::{FromBytes, IntoBytes};

use crate::signal::fpu::{complete, complete_len, show_legacy};
use crate::task::CurrentTask;
use crate::task::current::{LastFault, NO_ALTSTACK};

// DF, RF and TF, which a handler starts without.
const DIRECTION_RESUME_TRAP: u64 = (1 << 10) | (1 << 16) | (1 << 8);
/// Flags that rt_sigreturn(2) restores (`FIX_EFLAGS`): AC OF DF TF SF ZF AF PF CF RF.
const RESTORED_FLAGS: u64 =
    (1 << 18) | (1 << 11) | (1 << 10) | (1 << 8) | (1 << 7) | (1 << 6) | (1 << 4) | (1 << 2) | 1 | (1 << 16);
/// What most frames are shorter than with their extended state (AVX-512: 3 KiB).
const MOST_FRAMES: usize = 4 << 10;

/// Whether `sp` is on the alternate stack (`on_sig_stack`).
#[must_use]
pub fn on_altstack(stack: &StackT, sp: u64) -> bool {
    // With SS_AUTODISARM the stack is off while it is in use.
    stack.ss_flags.cast_unsigned() & SS_AUTODISARM == 0 && within(stack, sp)
}

fn within(stack: &StackT, sp: u64) -> bool {
    sp > stack.ss_sp && sp.saturating_sub(stack.ss_sp) <= stack.ss_size
}

/// `SS_DISABLE`, `SS_ONSTACK` or 0 (`sas_ss_flags`).
#[must_use]
pub fn altstack_flags(stack: &StackT, sp: u64) -> u32 {
    if stack.ss_size == 0 {
        SS_DISABLE
    } else if on_altstack(stack, sp) {
        SS_ONSTACK
    } else {
        0
    }
}

impl CurrentTask {
    /// Writes a frame for `signal` and points the registers at its handler.
    ///
    /// # Errors
    /// EFAULT if the stack can't take the frame.
    pub async fn push_frame(
        &mut self,
        signal: Signal,
        info: &SigInfo,
        action: &SigAction,
        saved_mask: SigSet,
    ) -> Result<()> {
        let mut regs = self.thread().regs();
        let (sp, bounds) = self.frame_stack(&regs, action);
        let fpu_len = complete_len(self.thread().fresh_fpu())?;
        // From the top down: the extended state, aligned for xsave; then the frame, aligned as the ABI has the stack at a function's
        // entry, where `call` has just pushed the return address.
        let fpstate = sp.checked_sub(fpu_len).ok_or(Errno::EFAULT)? & !63;
        let frame_len = size_of::<RtSigframe>() as u64;
        let at = (fpstate.checked_sub(frame_len).ok_or(Errno::EFAULT)? & !15).checked_sub(8).ok_or(Errno::EFAULT)?;
        if bounds.is_some_and(|s| !within(&s, at)) {
            // The alternate stack is full: writing on would overwrite what lies below it.
            return Err(Errno::EFAULT);
        }
        let fault = self.last_fault;
        let frame = RtSigframe {
            pretcode: action.sa_restorer,
            uc: Ucontext {
                uc_flags: UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
                uc_link: 0,
                uc_stack: self.altstack,
                uc_mcontext: to_sigcontext(&regs, fault, saved_mask, fpstate),
                uc_sigmask: saved_mask,
            },
            info: *info,
        };
        // x86-64 has no default trampoline: without a restorer the handler could not return.
        if !action.flags().contains(SaFlags::RESTORER) {
            return Err(Errno::EFAULT);
        }
        regs.rdi = u64::from(signal.number().unsigned_abs());
        // Handlers with variable arguments read the number of vector registers from al.
        regs.rax = 0;
        regs.rsi = at.saturating_add(core::mem::offset_of!(RtSigframe, info) as u64);
        regs.rdx = at.saturating_add(core::mem::offset_of!(RtSigframe, uc) as u64);
        regs.rip = action.sa_handler;
        regs.rsp = at;
        regs.rflags &= !DIRECTION_RESUME_TRAP;
        // No system call: what is interrupted from here on has nothing to restart.
        regs.orig_rax = u64::MAX;
        let entry = HandlerEntry { regs: &regs, at, frame: frame.as_bytes(), fpstate };
        self.enter_handler(&entry, fpstate.saturating_add(fpu_len)).await?;
        // So that the handler may switch to another context and be interrupted there; the frame has the old setting.
        if self.altstack.ss_flags.cast_unsigned() & SS_AUTODISARM != 0 {
            self.altstack = NO_ALTSTACK;
        }
        Ok(())
    }

    /// Has what the handler finds on its stack written, up to `end`, by the thread when it goes on if that is possible, and sets the registers.
    async fn enter_handler(&mut self, entry: &HandlerEntry<'_>, end: u64) -> Result<()> {
        let len = usize::try_from(end.saturating_sub(entry.at)).map_err(|_| Errno::EFAULT)?;
        // A tracer looks at the stack before anything of the handler runs.
        let unseen = !self.task().traced.load(Ordering::Relaxed);
        if unseen
            && self.mm().writable_prefix(UserAddr::new(entry.at), len) == len
            && self.thread().enter_handler(entry)
        {
            return Ok(());
        }
        self.whole().await;
        let mut fpu = self.thread().fpu()?;
        complete(&mut fpu);
        show_legacy(&mut fpu);
        // In one piece, with what lies between the two, which nobody uses.
        let mut image = entry.frame.to_vec();
        image.resize(usize::try_from(entry.fpstate.saturating_sub(entry.at)).map_err(|_| Errno::EFAULT)?, 0);
        image.extend_from_slice(&fpu);
        self.write_stack(entry.at, &image).await?;
        // A handler begins with the state of a new program (`handle_signal`).
        self.thread().reset_fpu();
        self.thread().set_regs(entry.regs);
        Ok(())
    }

    /// Where the frame ends, and the alternate stack if it must stay inside it.
    fn frame_stack(&self, regs: &Regs, action: &SigAction) -> (u64, Option<StackT>) {
        let below_redzone = regs.rsp.wrapping_sub(REDZONE);
        let stack = self.altstack;
        // A nested handler goes on below the other on the same stack, and must stay on it.
        if within(&stack, regs.rsp) && stack.ss_flags.cast_unsigned() & SS_AUTODISARM == 0 {
            return (below_redzone, Some(stack));
        }
        if action.flags().contains(SaFlags::ONSTACK) && altstack_flags(&stack, regs.rsp) == 0 {
            return (stack.ss_sp.wrapping_add(stack.ss_size), Some(stack));
        }
        (below_redzone, None)
    }

    /// Writes to the stack, growing it as a fault would.
    async fn write_stack(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        loop {
            let done = match self.mm().write_partial(UserAddr::new(at), bytes) {
                Ok(n) if n == bytes.len() => return Ok(()),
                Ok(n) => n as u64,
                Err(_) => 0,
            };
            let addr = at.checked_add(done).ok_or(Errno::EFAULT)?;
            // A page fault by a write from user mode, as a push would cause.
            let fault = Fault { signal: Signal::SIGSEGV.number(), code: 1, addr, trapno: 14, err: 6 };
            let (mm, thread) = self.mm_and_thread();
            if mm.handle_fault(thread, &fault).await != FaultAction::Retry {
                return Err(Errno::EFAULT);
            }
        }
    }

    /// rt_sigreturn(2): takes the frame at the stack pointer back; gives `rax`.
    ///
    /// # Errors
    /// EFAULT for a frame that can't be read or is no frame: the caller forces SIGSEGV.
    pub fn sigreturn(&mut self) -> Result<u64> {
        let mut regs = self.thread().regs();
        // The handler's `ret` has popped the return address.
        let at = regs.rsp.wrapping_sub(8);
        let seen = self.read_frame(at)?;
        let uc_at = core::mem::offset_of!(RtSigframe, uc);
        let (uc, _) = Ucontext::read_from_prefix(seen.get(uc_at..).unwrap_or_default()).map_err(|_| Errno::EFAULT)?;
        self.set_blocked(uc.uc_sigmask);
        from_sigcontext(&uc.uc_mcontext, &mut regs);
        let extended = match uc.uc_mcontext.fpstate {
            0 => Ok(None),
            fpstate => self.read_fpu(fpstate, at, &seen).map(Some),
        };
        match &extended {
            Ok(Some(image)) => self.thread().set_fpu(image).map_err(|_| Errno::EFAULT)?,
            // What a frame without an image gives, and one whose image is bad (`fpu__restore_sig`).
            Ok(None) | Err(_) => self.thread().reset_fpu(),
        }
        extended?;
        self.thread().set_regs(&regs);
        // Errors other than a bad address do not matter (`restore_altstack`).
        let _ = self.set_altstack(uc.uc_stack, regs.rsp);
        Ok(regs.rax)
    }

    /// The frame at `at`, with its extended state, if that lies next to it as in frames that nobody has changed; less if the stack
    /// ends before.
    fn read_frame(&mut self, at: u64) -> Result<Vec<u8>> {
        let mut seen = vec![0; MOST_FRAMES];
        let n = self.mm().read_known(UserAddr::new(at), &mut seen, size_of::<RtSigframe>())?;
        seen.truncate(n);
        Ok(seen)
    }

    /// sigaltstack(2) with the stack pointer `sp`.
    ///
    /// # Errors
    /// EPERM while on it, EINVAL for unknown flags, ENOMEM for one that is too small.
    pub fn set_altstack(&mut self, new: StackT, sp: u64) -> Result<()> {
        // It must not be moved from under a handler that runs on it.
        if on_altstack(&self.altstack, sp) {
            return Err(Errno::EPERM);
        }
        let flags = new.ss_flags.cast_unsigned();
        let mode = flags & !SS_AUTODISARM;
        if mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0 {
            return Err(Errno::EINVAL);
        }
        if mode == SS_DISABLE {
            self.altstack = StackT { ss_flags: new.ss_flags, ..NO_ALTSTACK };
            return Ok(());
        }
        if new.ss_size < moat_abi::signal::MINSIGSTKSZ {
            return Err(Errno::ENOMEM);
        }
        self.altstack = StackT { pad: 0, ss_flags: (flags & SS_AUTODISARM).cast_signed(), ..new };
        Ok(())
    }
}

fn to_sigcontext(r: &Regs, fault: LastFault, mask: SigSet, fpstate: u64) -> Sigcontext {
    Sigcontext {
        r8: r.r8,
        r9: r.r9,
        r10: r.r10,
        r11: r.r11,
        r12: r.r12,
        r13: r.r13,
        r14: r.r14,
        r15: r.r15,
        rdi: r.rdi,
        rsi: r.rsi,
        rbp: r.rbp,
        rbx: r.rbx,
        rdx: r.rdx,
        rax: r.rax,
        rcx: r.rcx,
        rsp: r.rsp,
        rip: r.rip,
        eflags: r.rflags,
        cs: USER_CS,
        gs: 0,
        fs: 0,
        ss: USER_DS,
        err: fault.err,
        trapno: fault.trapno,
        oldmask: mask.0,
        cr2: fault.cr2,
        fpstate,
        reserved: [0; 8],
    }
}

fn from_sigcontext(c: &Sigcontext, r: &mut Regs) {
    r.r8 = c.r8;
    r.r9 = c.r9;
    r.r10 = c.r10;
    r.r11 = c.r11;
    r.r12 = c.r12;
    r.r13 = c.r13;
    r.r14 = c.r14;
    r.r15 = c.r15;
    r.rdi = c.rdi;
    r.rsi = c.rsi;
    r.rbp = c.rbp;
    r.rbx = c.rbx;
    r.rdx = c.rdx;
    r.rax = c.rax;
    r.rcx = c.rcx;
    r.rsp = c.rsp;
    r.rip = c.rip;
    // Privileged flags stay as they are.
    r.rflags = (r.rflags & !RESTORED_FLAGS) | (c.eflags & RESTORED_FLAGS);
    // What the frame interrupted is no call that could be restarted.
    r.orig_rax = u64::MAX;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alternate_stack_is_recognised() {
        let s = StackT { ss_sp: 0x1000, ss_flags: 0, pad: 0, ss_size: 0x1000 };
        assert!(
            !on_altstack(&s, 0x1000) && on_altstack(&s, 0x1001) && on_altstack(&s, 0x2000) && !on_altstack(&s, 0x2001)
        );
        assert_eq!(altstack_flags(&s, 0x5000), 0);
        assert_eq!(altstack_flags(&NO_ALTSTACK, 0x5000), SS_DISABLE);
    }

    #[test]
    fn registers_survive_a_round_trip() {
        let r = Regs { r8: 1, r15: 2, rax: 3, rip: 4, rflags: 0x246, orig_rax: u64::MAX, ..Regs::default() };
        let mut back = Regs { rflags: 0x202, ..Regs::default() };
        from_sigcontext(&to_sigcontext(&r, LastFault::default(), SigSet::EMPTY, 0), &mut back);
        assert_eq!(back, r);
    }
}
