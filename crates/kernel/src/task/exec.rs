//! execve(2): a new program in a new host process.
//!
//! The program is loaded into a blank process while the old one still stands, so that every failure is an errno. Then the
//! other threads are killed, the caller takes the leader's identity, and the old memory and host process are given up.
//! Source: `begin_new_exec`, `de_thread` in `fs/exec.c`; execve(2).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::prctl::ADDR_NO_RANDOMIZE;
use moat_abi::signal::Signal;
use moat_abi::{Errno, PollEvents, Result};
use moat_mm::{MemoryManager, MmLimits};
use moat_platform::{GuestThread, NewProcess, Regs};
use moat_vfs::cred::Credentials;
use moat_vfs::inode::Access;
use moat_vfs::mount::MountFlags;
use moat_vfs::ops::Executable;
use moat_vfs::ops::{OpenHow, open_path};
use moat_vfs::walk::{LookupFlags, View, resolve};
use moat_vfs::{FsContext, OpenFile, Path};

use crate::error::{Restart, SyscallError};
use crate::monitor::Executed;
use moat_identity::Resource;

use crate::process::container::ContainerGroup;
use crate::process::group::{Dumpable, ThreadGroup};
use crate::ptrace;
use crate::task::cred::Elevation;
use crate::task::current::NO_ALTSTACK;
use crate::task::wait::Wait;
use crate::task::{CurrentTask, Task};
use moat_loader::stack::SecureMode;
use moat_loader::{Aslr, ExecRequest, Identity, LoadParams, LoadedProgram, Program};

/// Bits of personality(2) that a set-user-ID program loses (`PER_CLEAR_ON_SETID`).
const CLEARED_ON_ELEVATION: u32 = 0x0040_0000 | ADDR_NO_RANDOMIZE | 0x0020_0000 | 0x0010_0000;
/// RFLAGS of a fresh program: the bit that is always set, and interrupts enabled.
const FRESH_RFLAGS: u64 = 0x202;

/// The program to execute.
pub struct ExecArgs {
    /// The file, from [`open_executable`].
    pub file: Arc<OpenFile>,
    /// The name it was asked by.
    pub filename: Vec<u8>,
    /// Arguments.
    pub argv: Vec<Vec<u8>>,
    /// Environment.
    pub envp: Vec<Vec<u8>>,
}

/// Opens a file for execution (`do_open_execat`): a regular file, executable, on a mount without MS_NOEXEC.
///
/// # Errors
/// EACCES; those of path resolution.
pub fn open_executable(view: &View<'_>, path: &[u8], flags: LookupFlags) -> Result<Arc<OpenFile>> {
    let place = resolve(view, path, flags)?;
    open_executable_path(view, place)
}

/// As [`open_executable`], for a file that has been found.
///
/// # Errors
/// EACCES, ELOOP for a symbolic link.
pub fn open_executable_path(view: &View<'_>, place: Path) -> Result<Arc<OpenFile>> {
    match place.inode().file_type() {
        FileType::Regular => {}
        FileType::Symlink => return Err(Errno::ELOOP),
        _ => return Err(Errno::EACCES),
    }
    if place.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    place.inode().permission(view.creds(), Access::EXEC)?;
    // The kernel reads the file whether the caller may or not.
    let root = moat_vfs::KernelCaller::root(view.creds().user_ns.first());
    let kernel_view = View { caller: &root, ..*view };
    open_path(&kernel_view, place, &OpenHow::new(OpenFlags::empty(), 0))
}

/// The limits that an address space needs to know.
#[must_use]
pub fn mm_limits(group: &ThreadGroup) -> MmLimits {
    MmLimits {
        address_space: group.limits.get(Resource::AddressSpace).soft,
        data: group.limits.get(Resource::Data).soft,
        stack: group.limits.get(Resource::Stack).soft,
        memlock: group.limits.get(Resource::Memlock).soft,
    }
}

/// `comm` of a program: the last component of its name.
#[must_use]
pub fn comm_of(filename: &[u8]) -> Vec<u8> {
    let base = filename.rsplit(|b| *b == b'/').next().unwrap_or(filename);
    base.iter().copied().take(15).collect()
}

/// A program in a process of its own that has not run yet.
pub struct Image {
    /// Its memory.
    pub mm: Arc<MemoryManager>,
    /// Its only thread, ready to run.
    pub thread: Box<dyn GuestThread>,
    /// Its file.
    pub exe: Arc<Executable>,
}

/// What [`load_image`] works with besides the program.
pub struct Loading<'a> {
    /// Who executes, before any elevation.
    pub caller: &'a dyn moat_vfs::Caller,
    /// Where names begin.
    pub fs: &'a FsContext,
    /// Limits of the process.
    pub limits: MmLimits,
    /// Whether addresses are random.
    pub aslr: Aslr,
}

/// Prepares `args`: follows scripts, checks formats; gives the program.
///
/// # Errors
/// Those of [`Program::read`].
pub fn prepare_program(args: ExecArgs, with: &Loading<'_>) -> Result<Program> {
    let view = View { caller: with.caller, root: &with.fs.root, base: &with.fs.cwd, umask: with.fs.umask };
    let request = ExecRequest {
        file: args.file,
        filename: args.filename,
        argv: args.argv,
        envp: args.envp,
        stack_limit: with.limits.stack,
    };
    Program::read(request, &mut |path| open_executable(&view, path, LookupFlags::FOLLOW))
}

/// Loads `program` into a blank process of a container.
///
/// # Errors
/// Those of [`Program::load`] and of the platform.
pub async fn load_image(
    container: &ContainerGroup,
    program: &Program,
    creds: &Credentials,
    secure: SecureMode,
    limits: MmLimits,
    aslr: Aslr,
    comm: Vec<u8>,
) -> Result<Image> {
    // Held from here on, so that nobody writes to the file between its check and its mapping.
    let exe = Executable::new(program.file().path().clone())?;
    let kernel = container.kernel();
    // A blank process of the platform: the old memory stays whole until nothing can fail any more.
    let NewProcess { space, mut thread } = container.stock().new_process().await?;
    let vdso = kernel.platform.vdso();
    let mm = MemoryManager::new(space, &vdso, limits, &kernel.ids.mm);
    let ns = &creds.user_ns;
    let identity = Identity {
        uid: ns.show_uid(creds.uid),
        euid: ns.show_uid(creds.euid),
        gid: ns.show_gid(creds.gid),
        egid: ns.show_gid(creds.egid),
        secure,
    };
    let params = LoadParams { identity, limits, aslr, vdso, comm };
    let LoadedProgram { entry, stack_pointer } = program.load(&params, &mut *thread, &mm).await?;
    thread.set_regs(&Regs {
        rip: entry,
        rsp: stack_pointer,
        rflags: FRESH_RFLAGS,
        // The new program is in no system call.
        orig_rax: u64::MAX,
        ..Regs::default()
    });
    Ok(Image { mm: Arc::new(mm), thread, exe })
}

/// execve(2); on success the task runs the new program when it next enters the guest.
///
/// # Errors
/// Those of execve(2).
pub async fn exec(t: &mut CurrentTask, args: ExecArgs) -> Result<(), SyscallError> {
    let filename = args.filename.clone();
    let told = Executed::keep(&t.kernel().monitor, &filename, &args.argv, &args.envp);
    let limits = mm_limits(&t.group);
    let personality = t.state().personality;
    let aslr = if personality & ADDR_NO_RANDOMIZE != 0 { Aslr::Off } else { Aslr::On };
    let program = {
        // Copied: looking for interpreters must not hold the lock.
        let fs = t.fs().lock().clone();
        prepare_program(args, &Loading { caller: &*t, fs: &fs, limits, aslr })?
    };
    let traced_by_lesser = t.traced.load(Ordering::Relaxed);
    let mounts = t.fs().lock().namespace.clone();
    let elevation = Elevation::compute(t.creds(), program.file(), &mounts, traced_by_lesser)?;
    let comm = comm_of(&filename);
    let secure = if elevation.secure { SecureMode::Secure } else { SecureMode::Ordinary };
    let container = t.group.container.clone();
    let image = load_image(&container, &program, &elevation.creds, secure, limits, aslr, comm.clone()).await?;
    // A tracer is told by which number it knew the thread.
    let old_tid = t.tid();
    de_thread(t).await?;
    commit(t, image, elevation, comm).await;
    // Only of what has happened, and with the credentials that it has brought.
    if let Some(told) = told {
        told.tell(t, program.file());
    }
    ptrace::stop::exec_event(t, old_tid).await;
    Ok(())
}

/// Kills the other threads and takes the leader's identity.
async fn de_thread(t: &mut CurrentTask) -> Result<(), SyscallError> {
    let group = t.group.clone();
    {
        let mut s = group.signals.lock();
        // Another thread was faster. This one is about to be killed; its restart is never seen.
        if s.exit.is_some() || s.exec.is_some() {
            return Err(Restart::NoIntr.into());
        }
        // The common case: nobody to wait for, no identity to take over.
        if s.threads.len() == 1 && t.is_leader() {
            return Ok(());
        }
        s.exec = Some(t.id);
        for (id, th) in &mut s.threads {
            if *id != t.id {
                th.killed = true;
            }
        }
        s.wake_all();
    }
    // Threads in stops sleep on this queue and look at `killed` when it is woken.
    group.stop_queue.wake_all();
    let look = |_: &mut CurrentTask| if group.thread_count() > 1 { Poll::Pending } else { Poll::Ready(()) };
    let alone = t.wait_for(&(&group.exit_queue, PollEvents::all()), &Wait::killable("de_thread"), look).await;
    if let Err(e) = alone {
        // Only its own death ends the wait early.
        group.signals.lock().exec = None;
        return Err(e.into());
    }
    if !t.is_leader() {
        take_over_leader(t.task(), &group);
    }
    let mut s = group.signals.lock();
    s.exec = None;
    // The leader's end was part of the execve and is no end of the process.
    s.leader_status = None;
    Ok(())
}

fn take_over_leader(task: &Arc<Task>, group: &Arc<ThreadGroup>) {
    let pid = group.pid().clone();
    let own = task.pid();
    let old_leader = {
        let mut family = task.kernel().family.lock();
        family.node_mut(group.id).map(|n| std::mem::replace(&mut n.leader, task.clone()))
    };
    task.kernel().tasks.unbind(&own);
    task.kernel().tasks.rebind(&pid, task);
    if let Some(old) = old_leader {
        // Nobody is told of the dead leader; the caller's own number is free from here on.
        let ended = old.ended_for_tracer.lock().as_ref().and_then(|e| e.tracer.upgrade());
        if let Some(tracer) = ended {
            ptrace::bond::forget_tracee(&old, &tracer);
        }
        // Whoever still holds the dead leader must not hold the number of the process.
        old.set_pid(own);
    }
    task.set_pid(pid);
    group.set_leader(task);
}

/// The point of no return: everything of the old program goes.
async fn commit(t: &mut CurrentTask, image: Image, elevation: Elevation, comm: Vec<u8>) {
    // Robust lists and the word of CLONE_CHILD_CLEARTID are in the memory that is about to go.
    crate::futex::exec_thread(t).await;
    let group = t.group.clone();
    let (old_mm, old_thread) = t.replace_mm(image.mm, image.thread);
    old_mm.remove_user();
    group.note_peak_rss(&old_mm);
    drop(old_thread);
    drop(old_mm);
    // The memory belongs to the vfork(2) parent alone again.
    if let Some(v) = t.vfork.take() {
        v.complete();
    }
    unshare_files(t);
    t.fds().close_on_exec();
    {
        let mut s = group.signals.lock();
        // A copy: whoever shares the handlers by CLONE_SIGHAND keeps them.
        let fresh = s.sighand.without_handlers();
        s.sighand = Arc::new(fresh);
    }
    crate::timer::posix::delete_all(&group);
    t.altstack = NO_ALTSTACK;
    t.restart_block = None;
    t.rseq = None;
    (t.stepping, t.watching) = (false, None);
    group.set_exe(Some(image.exe));
    group.did_exec.store(true, Ordering::Relaxed);
    // The signal that the parent chose in clone(2) was for the old program.
    group.exit_signal.store(Signal::SIGCHLD.number(), Ordering::Relaxed);
    let secure = elevation.secure;
    let dumpable = if secure || elevation.unreadable { Dumpable::No } else { Dumpable::Yes };
    t.set_creds(elevation.creds);
    group.set_exec_user_ns(elevation.exec_user_ns);
    // After `set_creds`, which may have set it otherwise.
    group.set_dumpable(dumpable);
    let mut s = t.state();
    s.comm = comm;
    s.clear_child_tid = 0;
    s.robust_list = 0;
    if secure {
        s.pdeath_signal = None;
        s.personality &= !CLEARED_ON_ELEVATION;
    }
    drop(s);
    t.note_name();
}

/// A descriptor table that another process uses too is copied first (`unshare_files`).
fn unshare_files(t: &mut CurrentTask) {
    // One reference is this handle's, one is in the task's state.
    if Arc::strong_count(t.fds()) > 2 {
        let own = Arc::new(t.fds().copy());
        t.replace_fds(own);
    }
}
