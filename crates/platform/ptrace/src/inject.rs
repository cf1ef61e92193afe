//! Running the stub in a stopped thread, and passing descriptors to its process.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::pid_t;
use moat_abi::{Errno, Result};
use moat_host::last_errno;
use moat_host::ptrace::{self, Status, Wait};

use crate::command::Id;
use crate::layout::TASK_TOP;
use crate::regs::{FIXED_RFLAGS, USER_CS, USER_SS};
use crate::stub;
use crate::tracer::{TraceeState, Tracer};

/// The descriptor that a guest process finds a passed file at: the lowest one free, as 0 is the socket.
pub(crate) const PASSED_FD: u64 = 1;

impl Tracer {
    /// Executes a system call in a parked thread.
    ///
    /// # Errors
    /// The call's errno; ESRCH if the thread died.
    pub fn call(&mut self, id: Id, nr: i64, args: [u64; 6]) -> Result<u64> {
        Errno::from_ret(self.run_stub(id, stub::SYSCALL, nr.cast_unsigned(), args)?)
    }

    /// Runs the stub from `entry` to its `int3` in a parked thread; gives rax.
    ///
    /// # Errors
    /// EFAULT if it faulted, EAGAIN if it gave up, ESRCH if the thread died.
    pub fn run_stub(&mut self, id: Id, entry: u64, rax: u64, args: [u64; 6]) -> Result<u64> {
        let stub = self.shared.layout.stub;
        let tid = self.point_at(id, entry, rax, args)?;
        loop {
            self.resumed(ptrace::cont(tid), tid)?;
            let fault = match self.wait_for(tid)? {
                Status::Signal(libc::SIGTRAP) => {
                    let regs = self.resumed(ptrace::regs(tid), tid)?;
                    if regs.rip == stub + stub::done() {
                        return Ok(regs.rax);
                    }
                    continue;
                }
                Status::Signal(libc::SIGSEGV | libc::SIGBUS) => Errno::EFAULT,
                Status::Signal(libc::SIGILL) => Errno::EAGAIN,
                // A signal from outside, or a kick that came too late: dropped.
                _ => continue,
            };
            if self.resumed(ptrace::siginfo(tid), tid)?.code > 0 {
                return Err(fault);
            }
        }
    }

    /// Points a parked thread at the stub.
    fn point_at(&mut self, id: Id, entry: u64, rax: u64, args: [u64; 6]) -> Result<pid_t> {
        let stub = self.shared.layout.stub;
        let tracee = self.parked(id)?;
        let mut regs = tracee.regs;
        (regs.rip, regs.rax, regs.rsp, regs.eflags) = (stub + entry, rax, 0, FIXED_RFLAGS);
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args;
        (regs.cs, regs.ss, regs.orig_rax) = (USER_CS, USER_SS, u64::MAX);
        // The host refuses bases that user mode can set by itself all the same.
        for base in [&mut regs.fs_base, &mut regs.gs_base] {
            *base = if *base < TASK_TOP { *base } else { 0 };
        }
        tracee.dirty = true;
        let tid = tracee.tid;
        let set = ptrace::set_regs(tid, &regs);
        self.resumed(set, tid)?;
        Ok(tid)
    }

    /// Passes on the result of a ptrace call; one that failed means that the thread is dying, and is waited for.
    fn resumed<T>(&mut self, result: Result<T>, tid: pid_t) -> Result<T> {
        result.map_err(|_| {
            crate::tracer::kill(tid);
            while self.wait_for(tid).is_ok() {}
            Errno::ESRCH
        })
    }

    /// Waits for the next stop of a stopped thread that was resumed, taking in those of others.
    ///
    /// # Errors
    /// ESRCH if it died; it is forgotten then.
    pub fn wait_for(&mut self, tid: pid_t) -> Result<Status> {
        if let Some(status) = self.early.remove(&tid) {
            return Ok(status);
        }
        loop {
            match ptrace::wait_any(Wait::Block) {
                Ok(Some((other, status))) if other == tid && status != Status::Gone => return Ok(status),
                Ok(Some((other, status))) => {
                    self.status(other, status);
                    if other == tid {
                        return Err(Errno::ESRCH);
                    }
                }
                Ok(None) => {}
                Err(_) => return Err(Errno::ESRCH),
            }
        }
    }

    /// Sends a parked thread through exit(2), which is not waited for.
    pub fn start_exit(&mut self, id: Id) {
        let Ok(tid) = self.point_at(id, stub::SYSCALL, libc::SYS_exit.cast_unsigned(), [0; 6]) else { return };
        if let Some(tracee) = self.tracees.get_mut(&id) {
            tracee.state = TraceeState::Exiting;
            // Fails only if it is dead already.
            let _ = ptrace::cont(tid);
        }
    }

    /// Gives the process of a parked thread a descriptor, at [`PASSED_FD`].
    ///
    /// # Errors
    /// The host's; ESRCH.
    pub fn pass_fd(&mut self, id: Id, fd: BorrowedFd<'_>) -> Result<()> {
        let data = self.shared.layout.data();
        let process = std::sync::Arc::clone(&self.parked(id)?.process);
        process.write_all(data, &message_header(data))?;
        send_fd(self.outgoing.as_raw_fd(), fd.as_raw_fd())?;
        let flags = u64::from((libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC).cast_unsigned());
        let received = self.call(id, libc::SYS_recvmsg, [0, data, flags, 0, 0, 0]);
        // Whatever happened, the next receiver must not find this message.
        drain(self.incoming.as_raw_fd());
        received.map(drop)
    }
}

/// A struct msghdr at `data` that takes one byte and one descriptor, with all that it points to.
///
/// The guest may change it at any time, and so send what recvmsg(2) writes to other memory of its own; nothing of it is read back.
fn message_header(data: u64) -> [u8; 128] {
    let words: [u64; 16] = [
        0,
        0, // no name
        data + 64,
        1, // msg_iov
        data + 96,
        24, // msg_control: CMSG_SPACE(one int)
        0,
        0, // msg_flags, unused
        data + 80,
        1,
        0,
        0, // the iovec: one byte
        0,
        0,
        0,
        0,
    ];
    let mut bytes = [0; 128];
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// A pair of sockets that keep messages apart, and that can never be connected to anything else.
pub(crate) fn socket_pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for the two descriptors.
    if unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) } != 0 {
        return Err(last_errno());
    }
    // SAFETY: both are open, and nobody else's.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Sends one byte with `fd`, never blocking.
fn send_fd(socket: i32, fd: i32) -> Result<()> {
    let mut byte = 0u8;
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // u64s, for the alignment of a cmsghdr.
    let mut control = [0u64; 3];
    // SAFETY: the message header points at live memory of the sizes given; CMSG_FIRSTHDR stays inside `control`,
    // which has CMSG_SPACE(4) = 24 bytes.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
        libc::sendmsg(socket, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if sent == 1 { Ok(()) } else { Err(last_errno()) }
}

/// Throws away the messages that wait at `socket`.
fn drain(socket: i32) {
    let mut byte = 0u8;
    // Every message has a byte; 0 would be the other end's end.
    // SAFETY: `byte` has room for the one byte asked for. Descriptors in a message are closed, for want of a control buffer.
    while unsafe { libc::recv(socket, (&raw mut byte).cast(), 1, libc::MSG_DONTWAIT) } > 0 {}
}
