//! [`kernel_main`]: assembles the guest's kernel and runs it until the container's init has ended.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use moat_abi::Errno;
use moat_control::spec::{self, PlatformKind};
use moat_control::start::STEPS;
use moat_control::{BootError, ExitStatus, Listener};
use moat_identity::namespaces::UtsNames;
use moat_identity::user_ns::{IdMaps, IdRange, UserNamespace};
use moat_kernel::kernel::{Config, Kernel};
use moat_platform::{Platform, PlatformEvents};
use moat_platform_ptrace::Ptrace;
use moat_platform_systrap::{CallSites, StartError, Systrap};
use moat_sync::timer::sleep_until;
use moat_sync::{executor, watchdog};

use crate::arrivals::Arrivals;
use crate::assembly;
use crate::boot::{BootArgs, seccomp};
use crate::container::GuestContainer;
use crate::control::{self, Server};
use crate::host_signals::HostSignals;
use crate::registry::Registry;
use crate::unless::unless;

/// How long files of security events have to take the last ones.
const LAST_EVENTS: Duration = Duration::from_millis(500);

/// Builds the guest's kernel and the root container, and serves it until its init has ended.
///
/// Says [`BootArgs::start_sync`]`.booted()` when the init is ready to run, and installs [`crate::boot::seccomp`] when
/// the platform has made its first process.
///
/// # Errors
/// Why the guest could not be started; it is passed on to the user.
pub fn kernel_main(args: BootArgs) -> Result<ExitStatus, BootError> {
    let spec = &args.spec;
    // Before there are other threads, which take the mask over.
    let signals = HostSignals::claim(spec, &args.files)?;
    executor::init().map_err(|e| failed("starting the executor", e))?;
    let platform = start_platform(spec.platform, spec.call_sites)?;
    tracing::info!(target: STEPS, "the platform has its template");
    watchdog::tell(|held| {
        let ((process, thread), seconds) = (held.task, held.time.as_secs());
        tracing::error!(process, thread, worker = held.worker, seconds, "a task holds a thread of the executor");
    });
    let source = Box::new(PlatformEvents(platform.clone()));
    executor::set_source(source).map_err(|e| failed("starting the executor", e))?;
    let network = spec.network;
    let config = Config {
        platform,
        cpu_count: usize::try_from(spec.container.shares.cpu_count).unwrap_or(1),
        total_memory: spec.container.shares.total_memory_bytes,
        names: UtsNames {
            host: spec.container.hostname.clone().into_bytes(),
            domain: spec.container.domainname.clone().into_bytes(),
        },
        user_ns: first_user_namespace(&spec.ids),
        booted_ns: spec.container.restore.as_ref().and_then(|image| image.clocks).map(|clocks| clocks.booted_ns),
        strace: control::strace(&spec.logging).map_err(BootError::new)?,
        assemble: Box::new(move |kernel| assembly::registry(network, kernel)),
    };
    let kernel = Kernel::boot(config).map_err(|e| failed("booting the kernel", e))?;
    tracing::info!(target: STEPS, "the kernel is assembled");
    // The template of guest processes is there, and nothing of the guest has run.
    seccomp::install(&args.spec)?;
    tracing::info!(target: STEPS, "under its filter of host calls");

    assembly::add_devices(network, &kernel.root_namespaces.net);
    run(kernel, args, signals)
}

/// The guest's ids: all that there are, or those of a user namespace of the host.
fn first_user_namespace(ids: &spec::IdView) -> Arc<UserNamespace> {
    let own = |file| {
        let maps = moat_host::procfs::own_id_map(file)?;
        Some(maps.iter().map(|m| IdRange { inside: m.inside, outside: m.outside, count: m.count }).collect())
    };
    let told = |lines: &[[u32; 3]]| {
        Some(lines.iter().map(|&[inside, outside, count]| IdRange { inside, outside, count }).collect())
    };
    let (uid, gid) = match ids {
        spec::IdView::All => (None, None),
        spec::IdView::Namespace => (own("uid_map"), own("gid_map")),
        spec::IdView::Creator(uid, gid) => (told(uid), told(gid)),
    };
    // Without a procfs nobody can say: the guest is shown more ids than files can have.
    if uid.is_none() || gid.is_none() {
        return UserNamespace::root();
    }
    UserNamespace::root_mapped(IdMaps { uid, gid, setgroups_denied: false })
}

fn failed(what: &str, errno: Errno) -> BootError {
    BootError { errno: Some(errno.raw()), ..BootError::new(what) }
}

/// The command has advice for some errors of the host's; how a template has ended is told in words.
fn not_started(what: &str, error: StartError) -> BootError {
    match error.ended {
        Some(_) => BootError::new(format!("{what}: {error}")),
        None => failed(what, error.errno),
    }
}

/// Runs the executor until the root container's init has ended.
fn run(kernel: Arc<Kernel>, args: BootArgs, signals: Option<HostSignals>) -> Result<ExitStatus, BootError> {
    let outcome = Arc::new(OnceLock::new());
    let told = outcome.clone();
    let cpus = usize::try_from(args.spec.container.shares.cpu_count).unwrap_or(1);
    moat_sync::spawn(async move {
        let _ = told.set(serve(&kernel, args, signals).await);
        executor::stop();
    });
    // This thread is one of the workers.
    executor::run(cpus.saturating_sub(1).min(executor::host_cpus().saturating_sub(1)));
    outcome.get().cloned().unwrap_or_else(|| Err(BootError::new("the executor stopped before the init had ended")))
}

/// Prepares the root container and does what is asked over control connections until its init has ended.
async fn serve(kernel: &Arc<Kernel>, args: BootArgs, signals: Option<HostSignals>) -> Result<ExitStatus, BootError> {
    let BootArgs { spec, mut files, control, listener, start_sync, .. } = args;
    if let Some(session) = &spec.session {
        control::begin_session(kernel, session, &mut files)?;
    }
    // No thread of the executor may block in them.
    for socket in [Some(control.socket()), listener.as_ref().map(Listener::socket)].into_iter().flatten() {
        set_nonblocking(socket).map_err(|e| BootError::host("preparing a control socket", &e))?;
    }
    // Whoever made the pair.
    let (_, creator, _) = moat_host::socket::peer_credentials(control.socket())
        .map_err(|e| BootError::host("looking who created the sandbox", &e))?;
    let (root, waits) = GuestContainer::create(kernel, kernel.platform.stock(), spec.container, files, None).await?;
    tracing::info!(target: STEPS, "the init's program is loaded");
    let arrivals = waits.map(|(image, arrived)| Arrivals::new(image, root.clone(), arrived));
    let registry = Registry::new(root.clone(), arrivals);
    let server = Server::new(registry.clone());
    // Where nobody can be told, the creator is gone; an attached sandbox is about to be killed.
    let _ = start_sync.booted();
    server.serve(control);
    if let Some(listener) = listener {
        moat_sync::spawn(control::accept(server.clone(), listener, creator));
    }
    if let Some(signals) = signals {
        moat_sync::spawn(signals.serve(root.clone()));
    }
    let status = root.ended().await;
    server.finish().await;
    // A disk that takes its time is not waited for.
    let latest = Instant::now().checked_add(LAST_EVENTS).unwrap_or_else(Instant::now);
    unless(kernel.monitor.finish(), sleep_until(latest)).await;
    Ok(control::exit_status(status))
}

fn set_nonblocking(socket: &OwnedFd) -> std::io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(socket)?;
    Ok(rustix::fs::fcntl_setfl(socket, flags | rustix::fs::OFlags::NONBLOCK)?)
}

fn start_platform(kind: PlatformKind, sites: spec::CallSites) -> Result<Arc<dyn Platform>, BootError> {
    match kind {
        PlatformKind::Systrap => {
            let sites = match sites {
                spec::CallSites::Rewritten => CallSites::Rewritten,
                spec::CallSites::Trapped => CallSites::Trapped,
            };
            match Systrap::with_call_sites(sites) {
                Ok(p) => Ok(Arc::new(p)),
                // What an older filter refuses never reaches the platform, whose template then goes on without an answer, and
                // is gone or waited for in vain.
                Err(e) if moat_host::seccomp::is_filtered() => Err(not_started(
                    "starting platform systrap (a filter of system calls around moat may answer first: --platform=ptrace, \
                     or in a container --security-opt seccomp=unconfined)",
                    e,
                )),
                Err(e) => Err(not_started("starting platform systrap", e)),
            }
        }
        PlatformKind::Ptrace => match Ptrace::new() {
            Ok(p) => Ok(Arc::new(p)),
            Err(e) => Err(BootError::new(format!("starting platform ptrace: {e}"))),
        },
    }
}
