//! [`kernel_main`]: assembles the guest's kernel and runs it until the container's init has ended.

use std::sync::{Arc, OnceLock};

use moat_abi::cap::CapSet;
use moat_abi::clone::{CoreDump, WaitStatus};
use moat_abi::{Errno, nr};
use moat_control::spec::{InitSignals, NetworkMode, PlatformKind, ProcessSpec, SandboxSpec};
use moat_control::{BootError, ExitStatus};
use moat_fs_host::stdio;
use moat_kernel::kernel::{Config, Kernel, Strace};
use moat_kernel::process::limits::{Limit, Resource};
use moat_kernel::process::session::Terminal;
use moat_kernel::spawn::{Place, SpawnRequest, spawn};
use moat_platform::{Platform, PlatformEvents};
use moat_platform_ptrace::Ptrace;
use moat_platform_systrap::Systrap;
use moat_sync::executor;
use moat_vfs::cred::Credentials;
use moat_vfs::fd_table::{FdTable, OnExec};
use moat_vfs::open_file::OpenFile;
use moat_vfs::walk::{LookupFlags, View, resolve};
use moat_vfs::{FsContext, KernelCaller};

use moat_jail::DonatedFiles;

use crate::boot::{BootArgs, seccomp};
use crate::{control, mounts};

/// Builds the guest's kernel, starts its init and serves it until that ends.
///
/// Says [`BootArgs::start_sync`]`.booted()` when the init is about to run, and installs [`crate::boot::seccomp`] when
/// the platform has made its first process.
///
/// # Errors
/// Why the guest could not be started; it is passed on to the user.
pub fn kernel_main(mut args: BootArgs) -> Result<ExitStatus, BootError> {
    let spec = &args.spec;
    if spec.network == NetworkMode::Host {
        return Err(BootError::new("network mode \"host\" is not supported yet"));
    }
    executor::init().map_err(|e| failed("starting the executor", e))?;
    let platform = start_platform(spec.platform)?;
    let source = Box::new(PlatformEvents(platform.clone()));
    executor::set_source(source).map_err(|e| failed("starting the executor", e))?;
    let config = Config {
        platform,
        syscalls: moat_syscalls::table(),
        cpu_count: usize::try_from(spec.cpu_count).unwrap_or(1),
        total_memory: spec.total_memory_bytes,
        hostname: spec.container.hostname.clone().into_bytes(),
        strace: strace(spec)?,
    };
    let kernel = Kernel::boot(config).map_err(|e| failed("booting the kernel", e))?;
    kernel.root_namespaces.uts.set_domain_name(spec.container.domainname.clone().into_bytes());
    seccomp::install(&args.spec)?;

    mounts::register();
    let place = Place::new_container(spec.container.hostname.clone().into_bytes())
        .map_err(|e| failed("making a pid namespace", e))?;
    place.namespaces.uts.set_domain_name(spec.container.domainname.clone().into_bytes());
    let namespace = mounts::build(&args.spec.container, &place.pid_ns, &mut args.files)?;
    let creds = credentials(&args.spec.container.process);
    let mut files = stdio_files(&args.spec, &mut args.files, &creds)?;
    crate::console::set_up(&mut files, &namespace, &creds);
    let request = init_request(&args.spec, place, FsContext::new(namespace), &files, creds)?;
    run(args, request)
}

fn failed(what: &str, errno: Errno) -> BootError {
    BootError { errno: Some(errno.raw()), ..BootError::new(what) }
}

/// Runs the executor until the init has ended.
fn run(args: BootArgs, request: SpawnRequest) -> Result<ExitStatus, BootError> {
    static OUTCOME: OnceLock<Result<ExitStatus, BootError>> = OnceLock::new();
    let BootArgs { spec, control, start_sync, .. } = args;
    let cpus = usize::try_from(spec.cpu_count).unwrap_or(1);
    moat_sync::spawn(async move {
        let outcome = match spawn(request).await {
            Err(errno) => Err(BootError::command(spec.container.process.args.first().map_or("", |a| a), errno)),
            Ok(process) => {
                if spec.container.process.init == InitSignals::Ordinary {
                    process.group().signals.lock().unkillable = false;
                }
                // Without anybody to hear it the creator is gone; an attached sandbox is about to be killed.
                let _ = start_sync.booted();
                control::serve(control, spec.container.id.clone(), process.clone());
                Ok(exit_status(process.wait().await))
            }
        };
        let _ = OUTCOME.set(outcome);
        executor::stop();
    });
    executor::run(cpus.saturating_sub(1).min(executor::host_cpus().saturating_sub(1)));
    OUTCOME.get().cloned().unwrap_or_else(|| Err(BootError::new("the executor stopped before the init had ended")))
}

pub(crate) fn exit_status(status: WaitStatus) -> ExitStatus {
    match status {
        WaitStatus::Exited(code) => ExitStatus::Exited(code),
        WaitStatus::Signaled { signal, core } => ExitStatus::Signaled { signal, core_dumped: core == CoreDump::Dumped },
        // Only the two above end a process.
        WaitStatus::Stopped(_) | WaitStatus::Continued => ExitStatus::Exited(0),
    }
}

fn start_platform(kind: PlatformKind) -> Result<Arc<dyn Platform>, BootError> {
    match kind {
        PlatformKind::Systrap => match Systrap::new() {
            Ok(p) => Ok(Arc::new(p)),
            Err(e) => Err(failed("starting platform systrap", e)),
        },
        PlatformKind::Ptrace => match Ptrace::new() {
            Ok(p) => Ok(Arc::new(p)),
            Err(e) => Err(BootError::new(format!("starting platform ptrace: {e}"))),
        },
    }
}

fn strace(spec: &SandboxSpec) -> Result<Strace, BootError> {
    if !spec.logging.strace {
        return Ok(Strace::Off);
    }
    if spec.logging.strace_syscalls.is_empty() {
        return Ok(Strace::All);
    }
    let number = |name: &String| {
        (0..1024)
            .find(|n| nr::name(*n) == Some(name.as_str()))
            .ok_or_else(|| BootError::new(format!("--strace-syscalls: no system call is named {name:?}")))
    };
    spec.logging.strace_syscalls.iter().map(number).collect::<Result<_, _>>().map(Strace::Only)
}

fn credentials(p: &ProcessSpec) -> Credentials {
    let mut groups = p.additional_gids.clone();
    groups.sort_unstable();
    groups.dedup();
    let c = &p.capabilities;
    let known = |bits: u64| CapSet(bits & CapSet::FULL.0);
    Credentials {
        effective: known(c.effective),
        permitted: known(c.permitted),
        inheritable: known(c.inheritable),
        bounding: known(c.bounding),
        ambient: known(c.ambient),
        no_new_privs: p.no_new_privs,
        ..Credentials::user(p.uid, p.gid, groups.into(), CapSet::EMPTY)
    }
}

fn stdio_files(
    spec: &SandboxSpec,
    files: &mut DonatedFiles,
    creds: &Credentials,
) -> Result<Vec<Arc<OpenFile>>, BootError> {
    let fds = spec.container.stdio.iter().map(|fd| files.take(*fd)).collect::<Result<Vec<_>, _>>()?;
    stdio::import(fds, &Arc::new(creds.clone())).map_err(|e| failed("taking over stdin, stdout and stderr", e))
}

fn init_request(
    spec: &SandboxSpec,
    place: Place,
    mut fs: FsContext,
    files: &[Arc<OpenFile>],
    creds: Credentials,
) -> Result<SpawnRequest, BootError> {
    let p = &spec.container.process;
    fs.umask = p.umask.unwrap_or(0o022);
    let caller = KernelCaller::root();
    let cwd = {
        let view = View { caller: &caller, root: &fs.root, base: &fs.root, umask: 0 };
        resolve(&view, p.cwd.as_bytes(), LookupFlags::FOLLOW | LookupFlags::DIRECTORY)
    };
    fs.cwd = cwd.map_err(|e| failed(&format!("entering the working directory {:?}", p.cwd), e))?;
    let fds = FdTable::new();
    for file in files {
        fds.install(file.clone(), 3, OnExec::Keep).map_err(|e| failed("installing stdin, stdout and stderr", e))?;
    }
    let limit = |r: &moat_control::spec::RlimitSpec| {
        let resource = Resource::from_number(r.resource);
        let resource =
            resource.ok_or_else(|| BootError::new(format!("resource limit {} does not exist", r.resource)))?;
        Ok((resource, Limit { soft: r.soft, hard: r.hard }))
    };
    let limits = p.rlimits.iter().map(limit).collect::<Result<Vec<_>, BootError>>()?;
    let host_terminal = files.first().and_then(|f| f.downcast::<stdio::HostStream>()?.terminal().cloned());
    let terminal = host_terminal.map(|t| t as Arc<dyn Terminal>);
    let bytes = |words: &[String]| words.iter().map(|w| w.clone().into_bytes()).collect();
    Ok(SpawnRequest {
        place,
        creds,
        fs,
        fds: Arc::new(fds),
        limits,
        program: None,
        argv: bytes(&p.args),
        envp: bytes(&p.env),
        terminal,
        oom_score_adj: p.oom_score_adj.unwrap_or(0),
    })
}
