//! From a [`ProcessSpec`] to what the kernel starts: a container's init, or a process that joins it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::cap::CapSet;
use moat_abi::tty::Winsize;
use moat_abi::{Errno, Result};
use moat_control::spec::{ProcessSpec, RlimitSpec};
use moat_control::{BootError, ControlError};
use moat_fs_host::stdio;
use moat_identity::{Limit, Limits, Resource};
use moat_kernel::Kernel;
use moat_kernel::spawn::SpawnRequest;
use moat_tty::Terminal;
use moat_vfs::cred::{Credentials, UserNamespace};
use moat_vfs::fd_table::{FdTable, OnExec};
use moat_vfs::open_file::OpenFile;
use moat_vfs::walk::{LookupFlags, View, resolve};
use moat_vfs::{FsContext, KernelCaller};

use crate::container::Membership;

/// Why a process could not be made.
pub(crate) enum StartError {
    /// The command itself: errno of execve(2).
    Command(Errno),
    /// Something else that was tried.
    Other(String, Errno),
    /// The description makes no sense.
    Invalid(String),
}

impl StartError {
    /// As the start pipe says it.
    pub(crate) fn into_boot(self, process: &ProcessSpec) -> BootError {
        match self {
            StartError::Command(errno) => BootError::command(command(process), errno),
            StartError::Other(what, errno) => BootError { errno: Some(errno.raw()), ..BootError::new(what) },
            StartError::Invalid(what) => BootError::new(what),
        }
    }

    /// As the control connection says it.
    pub(crate) fn into_control(self, process: &ProcessSpec) -> ControlError {
        match self {
            StartError::Command(errno) => {
                ControlError::Command { command: command(process).to_owned(), errno: errno.raw() }
            }
            StartError::Other(what, errno) => ControlError::errno(what, errno),
            StartError::Invalid(what) => ControlError::Invalid(what),
        }
    }
}

fn command(process: &ProcessSpec) -> &str {
    process.args.first().map_or("", |a| a)
}

/// Makes a request to the kernel. `fds` are the process's descriptors from 0 on, of which `set_up_files` makes what is special
/// about them: the console.
///
/// # Errors
/// ENOENT, ENOTDIR, EACCES for the working directory; those of descriptors that can't be used.
pub(crate) fn request(
    spec: &ProcessSpec,
    member: &Membership,
    fds: Vec<OwnedFd>,
    set_up_files: impl FnOnce(&mut [Arc<OpenFile>], &Credentials),
) -> std::result::Result<SpawnRequest, StartError> {
    let kernel = member.processes.kernel();
    let creds = credentials(spec, kernel.root_user_ns.clone());
    let other = |what: &str| {
        let what = what.to_owned();
        move |errno| StartError::Other(what, errno)
    };
    let mut files = import(kernel, fds, &creds)?;
    // A terminal that stdin happens to be controls nobody, as with runc.
    let stdin = files.first().filter(|_| spec.terminal);
    let host_terminal = stdin.and_then(|f| f.downcast::<stdio::HostStream>()?.terminal().cloned());
    let terminal = host_terminal.map(|t| t as Arc<dyn Terminal>);
    if let (Some(terminal), Some((rows, columns))) = (&terminal, spec.console_size) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        terminal.set_winsize(size).map_err(other("setting the size of the terminal"))?;
    }
    set_up_files(&mut files, &creds);
    let table = FdTable::new(kernel.vfs.tables());
    // What it starts with is not under its own limit.
    let count = u64::try_from(files.len()).unwrap_or(u64::MAX);
    for file in files {
        table.install(file, count, OnExec::Keep).map_err(other("installing descriptors"))?;
    }
    let mut fs = member.fs.clone();
    fs.umask = spec.umask.unwrap_or(0o022);
    fs.cwd = working_directory(&fs, &spec.cwd, kernel.root_user_ns.clone())
        .map_err(|errno| StartError::Other(format!("entering the working directory {:?}", spec.cwd), errno))?;
    let bytes = |words: &[String]| words.iter().map(|w| w.clone().into_bytes()).collect();
    Ok(SpawnRequest {
        syscalls: moat_syscalls::table(),
        container: member.processes.clone(),
        place: member.place.clone(),
        creds,
        fs,
        fds: Arc::new(table),
        limits: spec.rlimits.iter().map(limit).collect::<std::result::Result<_, _>>()?,
        program: None,
        argv: bytes(&spec.args),
        envp: bytes(&spec.env),
        terminal,
        oom_score_adj: spec.oom_score_adj.unwrap_or(0),
        seccomp: member.profile.clone(),
    })
}

/// Makes open files of a process's descriptors.
///
/// # Errors
/// Those of descriptors that can't be used.
pub(crate) fn import(
    kernel: &Kernel,
    fds: Vec<OwnedFd>,
    creds: &Credentials,
) -> std::result::Result<Vec<Arc<OpenFile>>, StartError> {
    let other = |errno| StartError::Other("taking over descriptors".into(), errno);
    stdio::import(&kernel.vfs, fds, &Arc::new(creds.clone())).map_err(other)
}

/// Who a process is, and its limits, by the configuration alone.
///
/// # Errors
/// A limit that does not exist.
pub(crate) fn bounds(spec: &ProcessSpec, kernel: &Kernel) -> std::result::Result<(Credentials, Limits), StartError> {
    let limits = Limits::default();
    for saved in &spec.rlimits {
        let (resource, value) = limit(saved)?;
        limits.set(resource, value);
    }
    Ok((credentials(spec, kernel.root_user_ns.clone()), limits))
}

fn working_directory(fs: &FsContext, cwd: &str, user_ns: Arc<UserNamespace>) -> Result<moat_vfs::Path> {
    let caller = KernelCaller::root(user_ns);
    let view = View { caller: &caller, root: &fs.root, base: &fs.root, umask: 0 };
    resolve(&view, cwd.as_bytes(), LookupFlags::FOLLOW | LookupFlags::DIRECTORY)
}

fn limit(r: &RlimitSpec) -> std::result::Result<(Resource, Limit), StartError> {
    let resource = Resource::from_number(r.resource)
        .ok_or_else(|| StartError::Invalid(format!("resource limit {} does not exist", r.resource)))?;
    Ok((resource, Limit { soft: r.soft, hard: r.hard }))
}

fn credentials(p: &ProcessSpec, user_ns: Arc<UserNamespace>) -> Credentials {
    let mut groups = p.additional_gids.clone();
    // `Credentials` has them in order.
    groups.sort_unstable();
    groups.dedup();
    let c = &p.capabilities;
    // Bits of capabilities that the guest's kernel does not have mean nothing.
    let known = |bits: u64| CapSet(bits & CapSet::FULL.0);
    Credentials {
        effective: known(c.effective),
        permitted: known(c.permitted),
        inheritable: known(c.inheritable),
        bounding: known(c.bounding),
        ambient: known(c.ambient),
        no_new_privs: p.no_new_privs,
        ..Credentials::user(p.uid, p.gid, groups.into(), CapSet::EMPTY, user_ns)
    }
}
