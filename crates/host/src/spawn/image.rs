//! [`run_image`]: starts a freestanding program that is part of this one, from memory.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::fs::MemfdFlags;

use super::close_from;
use super::joining::fork;
use crate::features::{Feature, has};

/// MFD_EXEC of linux/memfd.h.
pub(crate) const MFD_EXEC: u32 = 0x10;

/// Runs the ELF file `image` in a process of its own, whose only descriptor is `socket`, as 0; gives the process's pidfd.
///
/// The caller should have one thread: the child runs a few system calls before it executes. Whether it could be executed shows by the socket
/// alone, which is closed if not.
///
/// # Errors
/// Of memfd_create(2), EACCES where none may be executed; of clone3(2).
pub fn run_image(image: &[u8], name: &CStr, socket: &OwnedFd) -> io::Result<OwnedFd> {
    let program = executable_memfd(name)?;
    let mut rest = image;
    while !rest.is_empty() {
        let written = rustix::io::write(&program, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    // Above 0, which the child puts something else at.
    let socket = rustix::io::fcntl_dupfd_cloexec(socket, 1)?;
    let program = rustix::io::fcntl_dupfd_cloexec(&program, 1)?;
    let (socket_fd, program_fd) = (socket.as_fd().as_raw_fd(), program.as_fd().as_raw_fd());
    fork(|| execute(program_fd, name, socket_fd)).map(|(_, pidfd)| pidfd)
}

fn executable_memfd(name: &CStr) -> io::Result<OwnedFd> {
    let mut flags = MemfdFlags::CLOEXEC;
    if has(Feature::MemfdExec) {
        flags |= MemfdFlags::from_bits_retain(MFD_EXEC);
    }
    Ok(rustix::fs::memfd_create(name, flags)?)
}

/// Async-signal-safe; returns only if it has failed.
fn execute(program: RawFd, name: &CStr, socket: RawFd) {
    let (argv, envp) = ([name.as_ptr(), ptr::null()], [ptr::null::<libc::c_char>()]);
    // SAFETY: sigset_t is plain data that sigemptyset initialises; argv and envp are null-terminated arrays of C strings that
    // live through the call, and the path is an empty C string.
    unsafe {
        let mut empty: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut empty);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, ptr::null_mut());
        libc::setsid();
        // The program's descriptor stays for execveat(2), which closes it.
        if libc::dup2(socket, 0) != 0 || close_from(1, program).is_err() {
            return;
        }
        libc::syscall(libc::SYS_execveat, program, c"".as_ptr(), argv.as_ptr(), envp.as_ptr(), libc::AT_EMPTY_PATH);
    }
}
