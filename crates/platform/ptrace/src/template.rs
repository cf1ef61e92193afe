//! The template: the blank process that all others are clones of.
//!
//! A fork of the tracer that maps the stub and stops; the tracer then strips it by injected calls, so that every step
//! is checked and named. What is left: the stub, the vDSO, descriptor 0 (the socket that files come through), no
//! capabilities, no handlers, no signals blocked, a session of its own, and the [`crate::filter`].

use std::os::fd::AsRawFd;
use std::sync::Arc;

use moat_abi::{Errno, Result};
use moat_host::last_errno;
use moat_host::ptrace::{self, Status};
use moat_platform::PAGE_SIZE;

use crate::cell::Cell;
use crate::command::Id;
use crate::layout::{Layout, TASK_TOP};
use crate::regs::blank;
use crate::space::Process;
use crate::tracer::{Tracee, Tracer, kill};
use crate::{SetupError, filter, fpu, stub};

const OPTIONS: i32 = libc::PTRACE_O_EXITKILL | libc::PTRACE_O_TRACESYSGOOD;
const CLOSE_RANGE_LAST: u64 = u32::MAX as u64;
const ROBUST_LIST_SIZE: u64 = 24;
const SIGSET_SIZE: u64 = 8;
const LAST_SIGNAL: u64 = 64;
const SS_DISABLE: u64 = 2;
const RSEQ_UNREGISTER: u64 = 1;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// Descriptors that a guest process can have: the socket and a passed file, with room to spare.
const DESCRIPTORS: u64 = 8;

impl Tracer {
    /// Makes the template. Done once, before the sentry confines itself.
    ///
    /// # Errors
    /// The step that the host refused.
    pub fn make_template(&mut self) -> Result<(), SetupError> {
        let pid =
            fork_child(&self.shared.layout, self.incoming.as_raw_fd()).map_err(SetupError::at("fork the template"))?;
        let stopped = self.seize_child(pid);
        let mut regs = match stopped.and_then(|()| ptrace::regs(pid)) {
            Ok(regs) => regs,
            Err(errno) => {
                // Whatever it waits for, it must not stay; its end is reaped by the main loop as that of an unknown child.
                kill(pid);
                return Err(SetupError { step: "trace the template", errno });
            }
        };
        blank(&mut regs);
        let id = self.new_id();
        let process = Arc::new(Process::new(id, pid));
        self.insert(id, Tracee::parked(pid, process, regs, Arc::new(Cell::new())));
        if let Err(e) = self.strip(id) {
            kill(pid);
            return Err(e);
        }
        self.template = Some(id);
        Ok(())
    }

    /// Attaches to the child, lets it go on and waits for its `int3`.
    fn seize_child(&mut self, pid: libc::pid_t) -> Result<()> {
        ptrace::seize(pid, OPTIONS)?;
        let byte = 0u8;
        // SAFETY: one byte is read from `byte`.
        if unsafe { libc::send(self.outgoing.as_raw_fd(), (&raw const byte).cast(), 1, libc::MSG_NOSIGNAL) } != 1 {
            return Err(last_errno());
        }
        loop {
            match self.wait_for(pid)? {
                Status::Signal(libc::SIGTRAP) => return Ok(()),
                _ => ptrace::cont(pid)?,
            }
        }
    }

    fn step(&mut self, id: Id, step: &'static str, nr: i64, args: [u64; 6]) -> Result<u64, SetupError> {
        self.call(id, nr, args).map_err(SetupError::at(step))
    }

    /// Writes to the data page.
    fn data(&mut self, id: Id, words: &[u64]) -> Result<u64, SetupError> {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        self.data_bytes(id, 0, &bytes)
    }

    fn data_bytes(&mut self, id: Id, offset: u64, bytes: &[u8]) -> Result<u64, SetupError> {
        let data = self.shared.layout.data();
        let process = self.parked(id).map(|t| Arc::clone(&t.process));
        process.and_then(|p| p.write_all(data + offset, bytes)).map_err(SetupError::at("write to the template"))?;
        Ok(data)
    }

    fn strip(&mut self, id: Id) -> Result<(), SetupError> {
        self.strip_descriptors(id)?;
        self.strip_signals(id)?;
        self.strip_thread(id)?;
        self.strip_memory(id)?;
        self.strip_privileges(id)
    }

    fn strip_descriptors(&mut self, id: Id) -> Result<(), SetupError> {
        let socket = self.incoming.as_raw_fd().unsigned_abs();
        if socket != 0 {
            self.step(id, "dup2", libc::SYS_dup2, [u64::from(socket), 0, 0, 0, 0, 0])?;
        }
        self.step(id, "close_range", libc::SYS_close_range, [1, CLOSE_RANGE_LAST, 0, 0, 0, 0])?;
        for (resource, limit) in [(libc::RLIMIT_NOFILE, DESCRIPTORS), (libc::RLIMIT_CORE, 0)] {
            let data = self.data(id, &[limit, limit])?;
            self.step(id, "prlimit64", libc::SYS_prlimit64, [0, u64::from(resource), data, 0, 0, 0])?;
        }
        Ok(())
    }

    fn strip_signals(&mut self, id: Id) -> Result<(), SetupError> {
        // A struct sigaction of zeroes is SIG_DFL.
        let data = self.data(id, &[0; 4])?;
        for signal in
            (1..=LAST_SIGNAL).filter(|s| ![libc::SIGKILL, libc::SIGSTOP].map(|s| s.unsigned_abs().into()).contains(s))
        {
            self.step(id, "rt_sigaction", libc::SYS_rt_sigaction, [signal, data, 0, SIGSET_SIZE, 0, 0])?;
        }
        let set_mask = u64::from(libc::SIG_SETMASK.unsigned_abs());
        self.step(id, "rt_sigprocmask", libc::SYS_rt_sigprocmask, [set_mask, data, 0, SIGSET_SIZE, 0, 0])?;
        let data = self.data(id, &[0, SS_DISABLE, 0])?;
        self.step(id, "sigaltstack", libc::SYS_sigaltstack, [data, 0, 0, 0, 0, 0])?;
        // Out of the reach of the terminal's signals.
        self.step(id, "setsid", libc::SYS_setsid, [0; 6])?;
        Ok(())
    }

    /// What the C library registered for the tracer's thread: the child is a copy of that one, and dies as soon as the
    /// host finds an rseq area that is not mapped any more.
    fn strip_thread(&mut self, id: Id) -> Result<(), SetupError> {
        let tid = self.parked(id).map_err(SetupError::at("trace the template"))?.tid;
        let registered = ptrace::rseq_configuration(tid).ok().or_else(ptrace::rseq_of_c_library);
        if let Some((addr, len, sig)) = registered
            && addr != 0
        {
            self.step(id, "rseq", libc::SYS_rseq, [addr, u64::from(len), RSEQ_UNREGISTER, u64::from(sig), 0, 0])?;
        }
        self.step(id, "set_robust_list", libc::SYS_set_robust_list, [0, ROBUST_LIST_SIZE, 0, 0, 0, 0])?;
        self.step(id, "set_tid_address", libc::SYS_set_tid_address, [0; 6])?;
        let data = self.data_bytes(id, 0, b"moat-guest\0")?;
        self.step(
            id,
            "prctl(PR_SET_NAME)",
            libc::SYS_prctl,
            [u64::from(libc::PR_SET_NAME.unsigned_abs()), data, 0, 0, 0, 0],
        )?;
        let mut image = vec![0; fpu::MAX_SIZE];
        fpu::learn(ptrace::xstate(tid, &mut image).map_err(SetupError::at("read the extended state"))?);
        ptrace::set_xstate(tid, &fpu::to_host(&fpu::fresh())).map_err(SetupError::at("reset the extended state"))
    }

    /// Unmaps all but the stub and the vDSO, and moves that.
    fn strip_memory(&mut self, id: Id) -> Result<(), SetupError> {
        let layout = self.shared.layout.clone();
        let mut keep = [layout.host_range(), layout.stub_range(), TASK_TOP..TASK_TOP];
        keep.sort_by_key(|r| r.start);
        let mut start = 0;
        for range in keep {
            if start < range.start {
                self.step(id, "munmap", libc::SYS_munmap, [start, range.start - start, 0, 0, 0, 0])?;
            }
            start = range.end;
        }
        let flags = u64::from((libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED).unsigned_abs());
        for range in &layout.host {
            let len = range.end - range.start;
            self.step(
                id,
                "mremap the vDSO",
                libc::SYS_mremap,
                [range.start, len, len, flags, layout.moved(range.start), 0],
            )?;
        }
        Ok(())
    }

    fn strip_privileges(&mut self, id: Id) -> Result<(), SetupError> {
        // struct __user_cap_header_struct { version, pid }, then six words of no capabilities.
        let data = self.data(id, &[u64::from(CAPABILITY_VERSION_3), 0, 0, 0, 0])?;
        self.step(id, "capset", libc::SYS_capset, [data, data + 8, 0, 0, 0, 0])?;
        let no_new_privs = u64::from(libc::PR_SET_NO_NEW_PRIVS.unsigned_abs());
        self.step(id, "prctl(PR_SET_NO_NEW_PRIVS)", libc::SYS_prctl, [no_new_privs, 1, 0, 0, 0, 0])?;
        let program = filter::program().ok_or(SetupError { step: "build the filter", errno: Errno::E2BIG })?;
        let header = 16;
        self.data_bytes(id, header, &filter::bytes(&program))?;
        let data = self.shared.layout.data();
        self.data(id, &[program.len() as u64, data + header])?;
        let args = [u64::from(libc::SECCOMP_SET_MODE_FILTER), libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW, data, 0, 0, 0];
        self.step(id, "seccomp", libc::SYS_seccomp, args)?;
        self.data(id, &[0; 64])?;
        Ok(())
    }
}

/// Forks the tracer; the child waits at `socket` until it is traced, maps the stub and stops.
fn fork_child(layout: &Layout, socket: i32) -> Result<libc::pid_t> {
    let (text, data, code) = (layout.stub, layout.data(), stub::code());
    // SAFETY: a plain fork by the raw call, so that no lock or handler of the C library is touched. The child
    // runs `child_main` only, which makes raw system calls and never returns.
    match unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(libc::SIGCHLD), 0, 0, 0, 0) } {
        0 => child_main(text, data, code, socket),
        pid if pid > 0 => libc::pid_t::try_from(pid).map_err(|_| Errno::EAGAIN),
        _ => Err(last_errno()),
    }
}

/// What the template itself does. Allocates nothing, takes no lock.
fn child_main(text: u64, data: u64, code: &[u8], socket: i32) -> ! {
    let page = PAGE_SIZE as usize;
    let fixed = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let mut byte = 0u8;
    // SAFETY: the pages replaced are above every mapping but the main thread's stack and the vDSO; the layout
    // keeps clear of the latter, and this is a forked copy of another thread, with a stack of its own elsewhere.
    unsafe {
        if libc::read(socket, (&raw mut byte).cast(), 1) != 1
            || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) != 0
            || libc::mmap(text as *mut _, page, rw, fixed, -1, 0) == libc::MAP_FAILED
            || libc::mmap(data as *mut _, page, rw, fixed, -1, 0) == libc::MAP_FAILED
        {
            libc::_exit(1);
        }
        std::ptr::copy_nonoverlapping(code.as_ptr(), text as *mut u8, code.len());
        if libc::mprotect(text as *mut _, page, libc::PROT_READ | libc::PROT_EXEC) != 0 {
            libc::_exit(2);
        }
        // The tracer takes over here, and never comes back.
        std::arch::asm!("int3");
        libc::_exit(3)
    }
}
