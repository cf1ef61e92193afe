//! [`Spawn`]: re-executes this program in namespaces of its own, with donated descriptors and nothing else.
//!
//! One clone3 makes all namespaces at once. Namespaces that exist already are joined by a process in between, which
//! makes the child as a sibling of its own ([`joining`]). The child waits until its parent has written its id maps and
//! done what else it has to before the program runs, puts the donated descriptors at 3, 4, ..., closes everything else
//! and executes `/proc/self/exe`.

mod id_maps;
mod image;
mod joining;

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use bitflags::bitflags;
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

bitflags! {
    /// Namespaces to make; namespaces(7).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Namespaces: u64 {
        /// user_namespaces(7).
        const USER = libc::CLONE_NEWUSER as u64;
        /// mount_namespaces(7).
        const MOUNT = libc::CLONE_NEWNS as u64;
        /// pid_namespaces(7).
        const PID = libc::CLONE_NEWPID as u64;
        /// ipc_namespaces(7).
        const IPC = libc::CLONE_NEWIPC as u64;
        /// uts_namespaces(7).
        const UTS = libc::CLONE_NEWUTS as u64;
        /// network_namespaces(7).
        const NET = libc::CLONE_NEWNET as u64;
    }
}

/// CLONE_INTO_CGROUP of linux/sched.h, too large for the type that libc gives such flags.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What happens to the child when the thread that spawned it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentDeath {
    /// SIGKILL.
    Kill,
    /// Nothing.
    Ignore,
}

pub use id_maps::{IdMap, IdMaps, MapWriter};
pub(crate) use image::MFD_EXEC;
pub use image::run_image;
pub use joining::{Joins, new_user_namespace, user_namespace_maps};

/// Whom the child is when it executes the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Its creator.
    #[default]
    Keep,
    /// uid and gid 0 of its user namespace without other groups: what is not mapped there would have no capabilities
    /// after execve(2).
    NamespaceRoot,
}

/// Descriptors given to a child: the first one added becomes 3, the next 4 and so on.
#[derive(Debug, Default)]
pub struct Donation(Vec<OwnedFd>);

impl Donation {
    /// The number of the first donated descriptor.
    pub const FIRST: RawFd = 3;

    /// Gives `fd` to the child; the result is its number there.
    ///
    /// # Panics
    /// After two thousand million descriptors.
    pub fn add(&mut self, fd: OwnedFd) -> RawFd {
        let number = RawFd::try_from(self.0.len()).expect("fewer descriptors than i32::MAX") + Self::FIRST;
        self.0.push(fd);
        number
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A program to start.
#[derive(Debug)]
pub struct Spawn<'a> {
    /// argv.
    pub args: &'a [CString],
    /// The whole environment.
    pub env: &'a [CString],
    /// Namespaces to make.
    pub namespaces: Namespaces,
    /// Existing namespaces to join first.
    pub joins: Joins<'a>,
    /// Id maps, if a user namespace is made.
    pub id_maps: Option<&'a IdMaps>,
    /// Cgroups that it runs in.
    pub cgroups: Cgroups<'a>,
    /// Whom it runs as.
    pub credentials: Credentials,
    /// The number of the donated descriptor of a terminal that becomes the new session's.
    pub controlling_terminal: Option<RawFd>,
    /// What happens when the spawning thread dies.
    pub parent_death: ParentDeath,
}

/// Cgroups that a child gets into by itself.
///
/// To move another process by its pid the host's kernel waits until no CPU is amidst a fork or an exit, which takes some
/// 10 ms; a new process, and a thread that moves itself, need no such wait.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cgroups<'a> {
    /// The directory of one of version 2, into which it is cloned.
    pub directory: Option<BorrowedFd<'a>>,
    /// Files `tasks` of version 1, open for writing, to which it writes before the program runs.
    pub tasks: &'a [OwnedFd],
}

/// A child of [`Spawn::run`].
#[derive(Debug)]
pub struct Child {
    /// Its process id.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
    early: OwnedFd,
}

impl Child {
    /// The error that kept the child from executing the program, if that is why it ended.
    ///
    /// Blocks until the program runs or has failed to.
    #[must_use]
    pub fn early_error(&self) -> Option<io::Error> {
        let mut errno = [0; 4];
        match rustix::io::read(&self.early, &mut errno) {
            Ok(4) => Some(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
            _ => None,
        }
    }
}

/// Why [`Spawn::run_prepared`] made no child.
#[derive(Debug)]
pub enum SpawnError<E> {
    /// The child could not be made, or its id maps not be written.
    Spawn(io::Error),
    /// The caller's own preparation failed.
    Prepare(E),
}

/// What the child needs, prepared before the clone so that it allocates nothing.
struct PreparedExec {
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    /// Sources of descriptors 0, 1, 2, ..., all of them above the last target.
    sources: Vec<RawFd>,
    /// A cgroup's directory.
    cgroup: Option<RawFd>,
    /// Files `tasks` of cgroups.
    tasks: Vec<RawFd>,
    credentials: Credentials,
    controlling_terminal: Option<RawFd>,
    parent_death: ParentDeath,
    early: RawFd,
    /// The parent's end of `early`, of which the child has a copy too.
    parents_end: RawFd,
}

impl PreparedExec {
    fn add_cgroup(&self, args: &mut libc::clone_args) {
        if let Some(directory) = self.cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = u64::from(directory.unsigned_abs());
        }
    }
}

impl Spawn<'_> {
    /// Starts the program.
    ///
    /// The caller should have one thread: the child runs a few system calls before it executes.
    ///
    /// # Errors
    /// Of clone3 (EPERM or ENOSPC where namespaces are restricted), of setns(2), or of writing the id maps.
    pub fn run(&self, donation: Donation) -> io::Result<Child> {
        self.run_prepared(donation, |_| Ok::<(), io::Error>(())).map_err(|error| match error {
            SpawnError::Spawn(error) | SpawnError::Prepare(error) => error,
        })
    }

    /// Starts the program after `prepare` has been called with the child's process id.
    ///
    /// That is the time to put it into a cgroup: it exists, its namespaces do too, but the program does not run yet.
    ///
    /// # Errors
    /// As [`Self::run`], and that of `prepare`. The child is gone then.
    pub fn run_prepared<E>(
        &self,
        donation: Donation,
        prepare: impl FnOnce(i32) -> Result<(), E>,
    ) -> Result<Child, SpawnError<E>> {
        let child = self.start(donation).map_err(SpawnError::Spawn)?;
        match self.release(&child, prepare) {
            Ok(()) => Ok(child),
            Err(error) => {
                // The child sees end-of-file, and exits by itself, when the only copy of `early` is closed.
                let Child { pidfd, early, .. } = child;
                drop(early);
                let _ = rustix::process::waitid(
                    rustix::process::WaitId::PidFd(pidfd.as_fd()),
                    rustix::process::WaitIdOptions::EXITED,
                );
                Err(error)
            }
        }
    }

    /// Does what comes before the program runs, and lets the child go on.
    fn release<E>(&self, child: &Child, prepare: impl FnOnce(i32) -> Result<(), E>) -> Result<(), SpawnError<E>> {
        self.id_maps.map_or(Ok(()), |maps| maps.write(child.pid)).map_err(SpawnError::Spawn)?;
        prepare(child.pid).map_err(SpawnError::Prepare)?;
        rustix::io::write(&child.early, &[1]).map_err(|errno| SpawnError::Spawn(errno.into()))?;
        Ok(())
    }

    /// Makes the child, which waits.
    fn start(&self, donation: Donation) -> io::Result<Child> {
        let above = RawFd::try_from(donation.len()).map_err(|_| io::ErrorKind::InvalidInput)? + Donation::FIRST;
        let null = fs::File::options().read(true).write(true).open("/dev/null")?;
        let null = fcntl_dupfd_cloexec(&null, above)?;
        let mut high = Vec::with_capacity(donation.len());
        for fd in donation.0 {
            high.push(if fd.as_raw_fd() < above { fcntl_dupfd_cloexec(&fd, above)? } else { fd });
        }
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let theirs = fcntl_dupfd_cloexec(&theirs, above)?;
        let mut sources = vec![null.as_raw_fd(); 3];
        sources.extend(high.iter().map(AsRawFd::as_raw_fd));
        let prepared = PreparedExec {
            argv: null_terminated(self.args),
            envp: null_terminated(self.env),
            sources,
            cgroup: self.cgroups.directory.map(|fd| fd.as_raw_fd()),
            tasks: self.cgroups.tasks.iter().map(AsRawFd::as_raw_fd).collect(),
            credentials: self.credentials,
            controlling_terminal: self.controlling_terminal,
            parent_death: self.parent_death,
            early: theirs.as_raw_fd(),
            parents_end: ours.as_raw_fd(),
        };
        let (pid, pidfd) = if self.joins.is_empty() {
            clone_child(self.namespaces, &prepared)?
        } else {
            joining::clone_child(self.joins, self.namespaces, &prepared)?
        };
        Ok(Child { pid, pidfd, early: ours })
    }
}

fn null_terminated(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
}

fn clone_child(namespaces: Namespaces, prepared: &PreparedExec) -> io::Result<(i32, OwnedFd)> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers, for which zero is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces.bits() | libc::CLONE_PIDFD as u64;
    args.pidfd = ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    prepared.add_cgroup(&mut args);
    // SAFETY: a fork without shared memory or a new stack: both sides return here with memory of their own.
    // `args` is a valid clone_args of the size given, and `pidfd` outlives the call.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, ptr::from_mut(&mut args), size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => exec_child(prepared),
        pid => {
            let pid = i32::try_from(pid).map_err(|_| io::ErrorKind::InvalidData)?;
            // SAFETY: clone3 succeeded, so `pidfd` is a new descriptor that nobody else owns.
            Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
        }
    }
}

/// The child's part: only async-signal-safe calls, no allocation, never returns.
fn exec_child(prepared: &PreparedExec) -> ! {
    let errno = match become_program(prepared) {
        Ok(never) => match never {},
        Err(errno) => errno.to_ne_bytes(),
    };
    // SAFETY: writes four bytes of a local array; _exit does not return.
    unsafe {
        libc::write(prepared.early, errno.as_ptr().cast(), errno.len());
        libc::_exit(127)
    }
}

fn become_program(prepared: &PreparedExec) -> Result<std::convert::Infallible, i32> {
    // Held open here it would keep the child waiting for a parent that is gone.
    // SAFETY: the child's own copy of a descriptor, which nothing uses after this.
    unsafe { libc::close(prepared.parents_end) };
    let mut byte = 0u8;
    // SAFETY: reads one byte into a local.
    if unsafe { libc::read(prepared.early, ptr::from_mut(&mut byte).cast(), 1) } != 1 {
        // The parent has given up: there is nobody to report to.
        // SAFETY: does not return.
        unsafe { libc::_exit(127) }
    }
    for &tasks in &prepared.tasks {
        // SAFETY: writes a byte of a literal; "0" is who writes it.
        check(unsafe { libc::write(tasks, c"0".as_ptr().cast(), 1) } as libc::c_int)?;
    }
    // SAFETY: sigset_t is plain data that sigemptyset initialises; the other calls take no pointers, and
    // execve gets null-terminated arrays of C strings that the caller's borrow keeps alive.
    unsafe {
        let mut empty: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut empty);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, ptr::null_mut()))?;
        check(libc::setsid())?;
        if prepared.credentials == Credentials::NamespaceRoot {
            become_namespace_root()?;
        }
        // After the change of ids, which resets it.
        if prepared.parent_death == ParentDeath::Kill {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        }
        let mut target = 0;
        for &source in &prepared.sources {
            check(libc::dup2(source, target))?;
            target += 1;
        }
        if let Some(terminal) = prepared.controlling_terminal {
            check(libc::ioctl(terminal, libc::TIOCSCTTY, 0))?;
        }
        // What is left is close-on-exec or inherited from who knows whom; `early` still has to report, and closes by itself.
        close_from(target, prepared.early)?;
        libc::execve(c"/proc/self/exe".as_ptr(), prepared.argv.as_ptr(), prepared.envp.as_ptr());
    }
    Err(last_errno())
}

fn become_namespace_root() -> Result<(), i32> {
    // SAFETY: no groups are passed, so no memory is read; the raw calls change this process's only thread.
    unsafe {
        // Where setgroups(2) is denied the creator had no say over its groups in the first place.
        libc::syscall(libc::SYS_setgroups, 0, ptr::null::<libc::gid_t>());
        check(libc::syscall(libc::SYS_setresgid, 0, 0, 0) as libc::c_int)?;
        check(libc::syscall(libc::SYS_setresuid, 0, 0, 0) as libc::c_int)
    }
}

/// Closes all descriptors from `first` on, but for `kept`. Async-signal-safe.
fn close_from(first: RawFd, kept: RawFd) -> Result<(), i32> {
    // CLOSE_RANGE_CLOEXEC would do it at once, but came with Linux 5.11.
    for (from, to) in [(first, i64::from(kept).saturating_sub(1)), (kept.saturating_add(1), i64::from(u32::MAX))] {
        if i64::from(from) <= to {
            // SAFETY: takes numbers only; the caller's descriptors from `first` on are not used any more.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) } as libc::c_int)?;
        }
    }
    Ok(())
}

fn check(result: libc::c_int) -> Result<(), i32> {
    if result == -1 { Err(last_errno()) } else { Ok(()) }
}

fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn donated_numbers_count_from_three() {
        let mut donation = Donation::default();
        assert!(donation.is_empty());
        for expected in 3..6 {
            let (fd, _) = rustix::pipe::pipe().unwrap();
            assert_eq!(donation.add(fd), expected);
        }
        assert_eq!(donation.len(), 3);
    }
}
