//! [`SigInfo`]: `siginfo_t`, 128 bytes, with a constructor for each of its layouts.
//!
//! Source: sigaction(2), `asm-generic/siginfo.h`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::signal::Signal;

consts! { "`si_code` of signals from users and kernel, sigaction(2).", i32; SI_USER = 0, SI_KERNEL = 0x80,
SI_QUEUE = -1, SI_TIMER = -2,
SI_MESGQ = -3, SI_ASYNCIO = -4, SI_SIGIO = -5, SI_TKILL = -6, SI_DETHREAD = -7, SI_ASYNCNL = -60 }
consts! { "`si_code` of SIGCHLD.", i32; CLD_EXITED = 1, CLD_KILLED = 2, CLD_DUMPED = 3, CLD_TRAPPED = 4,
CLD_STOPPED = 5, CLD_CONTINUED = 6 }
consts! { "`si_code` of SIGSEGV.", i32; SEGV_MAPERR = 1, SEGV_ACCERR = 2, SEGV_BNDERR = 3, SEGV_PKUERR = 4 }
consts! { "`si_code` of SIGBUS.", i32; BUS_ADRALN = 1, BUS_ADRERR = 2, BUS_OBJERR = 3, BUS_MCEERR_AR = 4,
BUS_MCEERR_AO = 5 }
consts! { "`si_code` of SIGFPE.", i32; FPE_INTDIV = 1, FPE_INTOVF = 2, FPE_FLTDIV = 3, FPE_FLTOVF = 4, FPE_FLTUND = 5,
FPE_FLTRES = 6,
FPE_FLTINV = 7, FPE_FLTSUB = 8 }
consts! { "`si_code` of SIGILL.", i32; ILL_ILLOPC = 1, ILL_ILLOPN = 2, ILL_ILLADR = 3, ILL_ILLTRP = 4, ILL_PRVOPC = 5,
ILL_PRVREG = 6,
ILL_COPROC = 7, ILL_BADSTK = 8 }
consts! { "`si_code` of SIGTRAP.", i32; TRAP_BRKPT = 1, TRAP_TRACE = 2, TRAP_BRANCH = 3, TRAP_HWBKPT = 4,
TRAP_UNK = 5, TRAP_PERF = 6 }
consts! { "`si_code` of SIGIO.", i32; POLL_IN = 1, POLL_OUT = 2, POLL_MSG = 3, POLL_ERR = 4, POLL_PRI = 5,
POLL_HUP = 6 }
consts! { "`si_code` of SIGSYS.", i32; SYS_SECCOMP = 1, SYS_USER_DISPATCH = 2 }
consts! { "`si_arch` of SIGSYS and `arch` of seccomp data.", u32; AUDIT_ARCH_X86_64 = 0xc000_003e,
AUDIT_ARCH_I386 = 0x4000_0003 }
consts! { "`sigev_notify` of `struct sigevent`, sigevent(7).", i32; SIGEV_SIGNAL = 0, SIGEV_NONE = 1,
SIGEV_THREAD = 2, SIGEV_THREAD_ID = 4 }

/// `siginfo_t` of x86-64: three words, padding, and a union of 112 bytes from offset 16.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct SigInfo {
    /// The signal.
    pub si_signo: i32,
    /// An errno, nearly always 0.
    pub si_errno: i32,
    /// Where the signal comes from; positive ones are the kernel's and guests may not forge them.
    pub si_code: i32,
    /// Alignment.
    pub pad: u32,
    /// The union `_sifields`, see the constructors.
    pub fields: [u8; 112],
}
const _: () = assert!(size_of::<SigInfo>() == 128);

impl Default for SigInfo {
    fn default() -> SigInfo {
        SigInfo { si_signo: 0, si_errno: 0, si_code: 0, pad: 0, fields: [0; 112] }
    }
}

/// How a child ended or changed, for SIGCHLD and waitid(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildInfo {
    /// The child, in the reader's pid namespace.
    pub pid: i32,
    /// Its real user id, in the reader's user namespace.
    pub uid: u32,
    /// Exit status or signal number.
    pub status: i32,
    /// User time in `USER_HZ` ticks.
    pub utime_ticks: i64,
    /// System time in `USER_HZ` ticks.
    pub stime_ticks: i64,
}

impl SigInfo {
    /// A signal without further fields.
    #[must_use]
    pub fn new(signal: Signal, code: i32) -> SigInfo {
        SigInfo { si_signo: signal.number(), si_code: code, ..SigInfo::default() }
    }

    /// kill(2) (`SI_USER`), tgkill(2) (`SI_TKILL`): sender's pid and uid.
    #[must_use]
    pub fn kill(signal: Signal, code: i32, pid: i32, uid: u32) -> SigInfo {
        SigInfo::new(signal, code).with_i32(0, pid).with_u32(4, uid)
    }

    /// rt_sigqueueinfo(2) and message queues: as kill, and a value.
    #[must_use]
    pub fn queue(signal: Signal, code: i32, pid: i32, uid: u32, value: u64) -> SigInfo {
        SigInfo::kill(signal, code, pid, uid).with_u64(8, value)
    }

    /// A POSIX timer (`SI_TIMER`).
    #[must_use]
    pub fn timer(signal: Signal, timer_id: i32, overrun: i32, value: u64) -> SigInfo {
        SigInfo::new(signal, SI_TIMER).with_i32(0, timer_id).with_i32(4, overrun).with_u64(8, value)
    }

    /// SIGCHLD.
    #[must_use]
    pub fn child(code: i32, child: ChildInfo) -> SigInfo {
        SigInfo::new(Signal::SIGCHLD, code)
            .with_i32(0, child.pid)
            .with_u32(4, child.uid)
            .with_i32(8, child.status)
            .with_u64(16, child.utime_ticks as u64)
            .with_u64(24, child.stime_ticks as u64)
    }

    /// SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP: the address.
    #[must_use]
    pub fn fault(signal: Signal, code: i32, addr: u64) -> SigInfo {
        SigInfo::new(signal, code).with_u64(0, addr)
    }

    /// SIGIO of fcntl(F_SETSIG): the ready events and the descriptor.
    #[must_use]
    pub fn poll(signal: Signal, code: i32, band: i64, fd: i32) -> SigInfo {
        SigInfo::new(signal, code).with_u64(0, band as u64).with_i32(8, fd)
    }

    /// SIGSYS of seccomp (`SYS_SECCOMP`); `data` is the filter's return data.
    #[must_use]
    pub fn seccomp(data: u16, call_addr: u64, arch: u32, syscall: i32) -> SigInfo {
        let mut info =
            SigInfo::new(Signal::SIGSYS, SYS_SECCOMP).with_u64(0, call_addr).with_i32(8, syscall).with_u32(12, arch);
        info.si_errno = i32::from(data);
        info
    }

    /// The signal, if `si_signo` is one.
    #[must_use]
    pub const fn signal(&self) -> Option<Signal> {
        Signal::new(self.si_signo)
    }

    /// `si_pid` of kill, queue and child.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.u32_at(0) as i32
    }

    /// `si_uid` of kill, queue and child.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.u32_at(4)
    }

    /// `si_status` of child.
    #[must_use]
    pub fn status(&self) -> i32 {
        self.u32_at(8) as i32
    }

    /// `si_value` of queue and timer.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.u64_at(8)
    }

    /// `si_timerid` of timer.
    #[must_use]
    pub fn timer_id(&self) -> i32 {
        self.u32_at(0) as i32
    }

    /// `si_overrun` of timer.
    #[must_use]
    pub fn overrun(&self) -> i32 {
        self.u32_at(4) as i32
    }

    /// Sets `si_overrun` of timer, known only at delivery.
    pub fn set_overrun(&mut self, overrun: i32) {
        *self = self.with_i32(4, overrun);
    }

    /// Sets `si_pid` and `si_uid`, when they are translated for another namespace.
    pub fn set_sender(&mut self, pid: i32, uid: u32) {
        *self = self.with_i32(0, pid).with_u32(4, uid);
    }

    /// `si_addr` of fault.
    #[must_use]
    pub fn addr(&self) -> u64 {
        self.u64_at(0)
    }

    /// Whether the kernel is the sender (`si_code` > 0): rt_sigqueueinfo(2) may not forge these, nor `SI_TKILL`.
    #[must_use]
    pub const fn is_from_kernel(&self) -> bool {
        self.si_code > 0
    }

    fn u32_at(&self, at: usize) -> u32 {
        self.fields[at..].first_chunk().map_or(0, |b| u32::from_ne_bytes(*b))
    }

    fn u64_at(&self, at: usize) -> u64 {
        self.fields[at..].first_chunk().map_or(0, |b| u64::from_ne_bytes(*b))
    }

    fn with_u32(mut self, at: usize, value: u32) -> SigInfo {
        self.fields[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn with_i32(self, at: usize, value: i32) -> SigInfo {
        self.with_u32(at, value as u32)
    }

    fn with_u64(mut self, at: usize, value: u64) -> SigInfo {
        self.fields[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }
}

impl core::fmt::Debug for SigInfo {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SigInfo")
            .field("si_signo", &self.si_signo)
            .field("si_errno", &self.si_errno)
            .field("si_code", &self.si_code)
            .field("pid", &self.pid())
            .field("uid", &self.uid())
            .field("addr", &format_args!("{:#x}", self.addr()))
            .finish_non_exhaustive()
    }
}

guest_struct! {
    /// `struct sigevent`, timer_create(2); only the thread id member of its union is the kernel's.
    Sigevent: 64 { sigev_value: u64, sigev_signo: i32, sigev_notify: i32, sigev_notify_thread_id: i32, pad: [u32; 11] }
}

guest_struct! {
    /// `struct signalfd_siginfo`, signalfd(2).
    SignalfdSiginfo: 128 {
        ssi_signo: u32, ssi_errno: i32, ssi_code: i32, ssi_pid: u32, ssi_uid: u32, ssi_fd: i32, ssi_tid: u32,
        ssi_band: u32,
        ssi_overrun: u32, ssi_trapno: u32, ssi_status: i32, ssi_int: i32, ssi_ptr: u64, ssi_utime: u64, ssi_stime: u64,
        ssi_addr: u64, ssi_addr_lsb: u16, pad2: u16, ssi_syscall: i32, ssi_call_addr: u64, ssi_arch: u32, pad: [u8; 28],
    }
}

/// The layouts of the union in `siginfo_t` (`enum siginfo_layout`, `siginfo_layout()` in `kernel/signal.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "one for each constructor of SigInfo")]
pub enum SigInfoLayout {
    Kill,
    Timer,
    Poll,
    Fault,
    Child,
    Queue,
    Sys,
}

impl SigInfo {
    /// Which member of the union is in use.
    #[must_use]
    pub fn layout(&self) -> SigInfoLayout {
        if self.si_code > SI_USER && self.si_code < SI_KERNEL {
            match (self.signal(), self.si_code) {
                (Some(Signal::SIGILL), ..=8)
                | (Some(Signal::SIGFPE), ..=15)
                | (Some(Signal::SIGSEGV), ..=10)
                | (Some(Signal::SIGBUS), ..=5)
                | (Some(Signal::SIGTRAP), ..=6) => SigInfoLayout::Fault,
                (Some(Signal::SIGCHLD), ..=6) => SigInfoLayout::Child,
                (Some(Signal::SIGSYS), ..=2) => SigInfoLayout::Sys,
                (_, ..=6) => SigInfoLayout::Poll,
                _ => SigInfoLayout::Kill,
            }
        } else {
            match self.si_code {
                SI_TIMER => SigInfoLayout::Timer,
                SI_SIGIO => SigInfoLayout::Poll,
                code if code < 0 && code != SI_TKILL => SigInfoLayout::Queue,
                _ => SigInfoLayout::Kill,
            }
        }
    }

    /// The record that a signalfd gives for this signal (`signalfd_copyinfo`).
    #[must_use]
    pub fn to_signalfd(&self) -> SignalfdSiginfo {
        let mut out = SignalfdSiginfo {
            ssi_signo: self.si_signo as u32,
            ssi_errno: self.si_errno,
            ssi_code: self.si_code,
            ..SignalfdSiginfo::default()
        };
        match self.layout() {
            SigInfoLayout::Kill => (out.ssi_pid, out.ssi_uid) = (self.pid() as u32, self.uid()),
            SigInfoLayout::Timer => {
                (out.ssi_tid, out.ssi_overrun) = (self.timer_id() as u32, self.overrun() as u32);
                (out.ssi_ptr, out.ssi_int) = (self.value(), self.value() as i32);
            }
            SigInfoLayout::Poll => (out.ssi_band, out.ssi_fd) = (self.u64_at(0) as u32, self.u32_at(8) as i32),
            SigInfoLayout::Fault => out.ssi_addr = self.addr(),
            SigInfoLayout::Child => {
                (out.ssi_pid, out.ssi_uid, out.ssi_status) = (self.pid() as u32, self.uid(), self.status());
                (out.ssi_utime, out.ssi_stime) = (self.u64_at(16), self.u64_at(24));
            }
            SigInfoLayout::Queue => {
                (out.ssi_pid, out.ssi_uid) = (self.pid() as u32, self.uid());
                (out.ssi_ptr, out.ssi_int) = (self.value(), self.value() as i32);
            }
            SigInfoLayout::Sys => {
                (out.ssi_call_addr, out.ssi_syscall, out.ssi_arch) =
                    (self.addr(), self.u32_at(8) as i32, self.u32_at(12));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        let child = ChildInfo { pid: 7, uid: 8, status: 9, utime_ticks: 10, stime_ticks: 11 };
        let info = SigInfo::child(CLD_EXITED, child);
        assert_eq!(info.layout(), SigInfoLayout::Child);
        let out = info.to_signalfd();
        assert_eq!((out.ssi_pid, out.ssi_uid, out.ssi_status, out.ssi_utime, out.ssi_stime), (7, 8, 9, 10, 11));
        assert_eq!(SigInfo::kill(Signal::SIGHUP, SI_TKILL, 1, 2).layout(), SigInfoLayout::Kill);
        assert_eq!(SigInfo::queue(Signal::SIGHUP, SI_QUEUE, 1, 2, 3).to_signalfd().ssi_ptr, 3);
        assert_eq!(SigInfo::timer(Signal::SIGHUP, 1, 2, 3).to_signalfd().ssi_overrun, 2);
        assert_eq!(SigInfo::fault(Signal::SIGSEGV, SEGV_MAPERR, 16).layout(), SigInfoLayout::Fault);
        assert_eq!(SigInfo::new(Signal::SIGSEGV, SI_KERNEL).layout(), SigInfoLayout::Kill);
        assert_eq!(SigInfo::default().layout(), SigInfoLayout::Kill);
    }
}
