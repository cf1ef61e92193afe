//! Ways into the kernel that programs of today do not take: `int 0x80`, and the page of vsyscalls.

use moat_abi::Errno;
use moat_abi::nr::{GETCPU, GETTIMEOFDAY, TIME};
use moat_mm::UserAddr;

use crate::seccomp::{self, Call};
use crate::task::CurrentTask;

/// Where the vsyscalls are.
const VSYSCALLS: u64 = 0xffff_ffff_ff60_0000;

impl CurrentTask {
    /// A call of the i386 table, which has none here; filters see it nevertheless.
    pub(super) async fn i386_syscall(&mut self) {
        let call = Call::i386(&self.thread().regs());
        let made = seccomp::check_call(self, call).await;
        self.i386_checked(made);
    }

    /// Answers what filters have left of an i386 call.
    pub(crate) fn i386_checked(&mut self, made: Option<Call>) {
        if made.is_some() {
            self.thread().set_ret(Errno::ENOSYS.to_ret());
        }
    }

    /// A call into the legacy vsyscall page: gettimeofday, time or getcpu, then a return to the caller.
    pub(super) async fn vsyscall(&mut self) {
        let Some(nr) = self.vsyscall_number() else {
            self.force_segv(None);
            return;
        };
        let regs = self.thread().regs();
        // A stack that can't be returned to is a fault before filters see the call.
        let mut ret = [0; 8];
        if self.mm().read_bytes(UserAddr::new(regs.rsp), &mut ret).is_err() {
            self.force_segv(None);
            return;
        }
        let call = Call::x86_64(nr.into(), [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9]);
        let made = seccomp::check_call(self, call).await;
        self.vsyscall_checked(made).await;
    }

    /// Whether the thread is at one of the vsyscalls.
    pub(crate) fn in_vsyscall(&mut self) -> bool {
        self.vsyscall_number().is_some()
    }

    fn vsyscall_number(&mut self) -> Option<u32> {
        match self.thread().regs().rip.wrapping_sub(VSYSCALLS) {
            0 => Some(GETTIMEOFDAY),
            0x400 => Some(TIME),
            0x800 => Some(GETCPU),
            _ => None,
        }
    }

    /// Makes the vsyscall that the thread is at, if filters have left it, and returns to the caller.
    pub(crate) async fn vsyscall_checked(&mut self, made: Option<Call>) {
        let Some(nr) = self.vsyscall_number() else { return };
        // Read anew: a tracer may have been there.
        let mut regs = self.thread().regs();
        let mut ret = [0; 8];
        if self.mm().read_bytes(UserAddr::new(regs.rsp), &mut ret).is_err() {
            self.force_segv(None);
            return;
        }
        // A call that a filter answers returns to the caller like any other.
        if made.is_some() {
            regs.rax = match self.dispatch(nr.into(), [regs.rdi, regs.rsi, 0, 0, 0, 0]).await {
                Ok(value) => value,
                // A bad address is a fault of the caller, as on Linux.
                Err(_) => {
                    self.force_segv(None);
                    return;
                }
            };
        }
        regs.rip = u64::from_le_bytes(ret);
        regs.rsp = regs.rsp.wrapping_add(8);
        self.thread().set_regs(&regs);
    }
}
