//! A container's processes out of an image, in place of its init's program.

mod files;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::tty::Winsize;
use moat_control::BootError;
use moat_control::spec::{ContainerSpec, PageLoading, RestoreSpec};
use moat_fs_host::terminal::{HostTerminal, Window};
use moat_fs_proc::sysctl::{self, Scope};
use moat_identity::{Namespaces, UserNamespace};
use moat_image::directory::{Image, ImageFiles};
use moat_image::state::SettingState;
use moat_image::{ImageError, SandboxState};
use moat_kernel::Kernel;
use moat_kernel::checkpoint::{KnownProcesses, MadeNamespaces, MostLimits, RestoreRequest, restore};
use moat_kernel::spawn::PreparedProcess;
use moat_mm::PageSource;
use moat_net_inet::configuration::change;
use moat_net_inet::device::LO_INDEX;
use moat_tty::Terminal;
use moat_vfs::cred::Credentials;
use moat_vfs::persist::{Bounds, Contents, Restorer};
use moat_vfs::{Cap, OpenFile};

use crate::container::Membership;
use crate::{console, process};
use moat_jail::DonatedFiles;

/// What came out of an image.
pub(crate) struct RestoredContainer {
    /// Its tasks, ready to go on.
    pub(crate) prepared: PreparedProcess,
    /// Who is known outside.
    pub(crate) known: KnownProcesses,
    /// The descriptors that the init was given anew.
    pub(crate) donated: Vec<Arc<OpenFile>>,
}

/// Restores the processes of a container that has been made from its configuration.
///
/// # Errors
/// What is wrong with the image, or does not fit this host or the configuration.
pub(crate) async fn container(
    kernel: &Arc<Kernel>,
    spec: &ContainerSpec,
    image: RestoreSpec,
    member: &Membership,
    fds: Vec<OwnedFd>,
    files: &mut DonatedFiles,
) -> Result<RestoredContainer, BootError> {
    let mut take = |number| files.take(number).map(File::from);
    let bases = image.bases.into_iter().map(&mut take).collect::<Result<_, _>>()?;
    let given = ImageFiles { state: take(image.state)?, pages: take(image.pages)?, bases };
    let failed = |e: ImageError| BootError::new(format!("restoring: {e}"));
    // All of it is checked for its form here, and what it refers to where that is looked up.
    let Image { header, state, pages } = Image::read(given).map_err(failed)?;
    fits(&header.cpu_features, &state).map_err(failed)?;
    let (creds, limits) = process::bounds(&spec.process, kernel).map_err(|e| e.into_boot(&spec.process))?;
    let mut donated = process::import(kernel, fds, &creds).map_err(|e| e.into_boot(&spec.process))?;
    // Whoever may raise hard limits is not held by those of the configuration.
    let raises = creds.permitted.contains(Cap::SYS_RESOURCE);
    set_again(kernel, &state, member, &creds).map_err(failed)?;
    // What the configuration gives is the most that anything in the image can have.
    let number = || moat_kernel::quotas::number(&kernel.ids.namespaces, &kernel.quotas.user);
    let bounds = Bounds { init: creds, number: &number };
    let memfds = moat_fs_tmpfs::memfd::shmem(kernel.vfs.tables());
    let memfds = memfds.map_err(|errno| BootError::new(format!("restoring: {errno}")))?;
    // What comes out of the image is the guest's doing, and goes into the next one.
    member.fs.namespace.mounts().iter().for_each(|mount| mount.fs().made());
    let contents = Contents { pages: &pages, memfds };
    let namespace = member.fs.namespace.clone();
    let restorer = Restorer::new(&state, &kernel.vfs, namespace.clone(), &bounds, &contents).map_err(failed)?;
    // In the trees of the image: before its pseudo-terminals, so that it has the name that it had.
    let console = console::set_up(&mut donated, &namespace, &member.processes, &bounds.init);
    let console = console.map(|terminal| Console::settle(terminal, spec.process.console_size, &state)).transpose();
    let given = files::Given { donated: &donated, console: console.map_err(failed)?, most: &bounds.init };
    let open_files = |namespaces: &MadeNamespaces| {
        settle_namespaces(kernel, &state, member, namespaces, &bounds.init)?;
        files::open_all(&restorer, kernel, member, namespaces, &given)
    };
    let pages = match image.loading {
        PageLoading::Mapped => PageSource::mapped(pages).map_err(failed)?,
        PageLoading::Copied => PageSource::copied(pages),
    };
    let configured = member.configured();
    let request = RestoreRequest {
        syscalls: moat_syscalls::table(),
        container: &configured,
        files: &restorer,
        open_files: &open_files,
        pages: &pages,
        aio: moat_syscalls::fs::aio::restore,
        aio_polls: moat_syscalls::fs::aio::restore_polls,
        limits: MostLimits((!raises).then_some(limits)),
    };
    let (prepared, known) = restore(&request).await.map_err(failed)?;
    Ok(RestoredContainer { prepared, known, donated })
}

/// The console that a container is given anew.
struct Console {
    terminal: Arc<HostTerminal>,
    /// Compared with that of the image.
    window: Window,
}

impl Console {
    fn settle(
        terminal: Arc<HostTerminal>,
        size: Option<(u16, u16)>,
        state: &SandboxState,
    ) -> Result<Console, ImageError> {
        // What the configuration says counts for this container, whatever size the image's had.
        if let Some((ws_row, ws_col)) = size {
            let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
            let failed = |errno| ImageError::Unfit(format!("setting the size of the terminal: {errno}"));
            terminal.set_winsize(size).map_err(failed)?;
        }
        // One that was made without a terminal leaves this one as it is.
        let window = match state.host_terminals.iter().find(|saved| saved.console) {
            Some(saved) => terminal.settle(saved)?,
            None => Window::Same,
        };
        Ok(Console { terminal, window })
    }
}

/// Whether programs that ran where the image was made can go on here.
fn fits(cpu_features: &[String], state: &SandboxState) -> Result<(), ImageError> {
    // Programs have looked for these once, at their start.
    let missing = moat_host::cpu_features::missing(cpu_features);
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(ImageError::Unfit(format!("the processor lacks what the image's programs may use: {missing}")));
    }
    if moat_host::clock::monotonic_ns() < state.clocks.monotonic_ns {
        let what = "the host's monotonic clock is behind that of the checkpoint: programs would see it go back";
        return Err(ImageError::Unfit(what.into()));
    }
    Ok(())
}

/// Sets what the container's processes had set below /proc/sys, as far as they could do it here.
fn set_again(
    kernel: &Kernel,
    state: &SandboxState,
    member: &Membership,
    creds: &Credentials,
) -> Result<(), ImageError> {
    let scope = Scope::new(kernel, &member.place.namespaces);
    state.containers.iter().try_for_each(|container| set_all_again(&container.settings, &scope, creds))
}

/// Sets what processes had set in namespaces of their own, as far as their owners could.
fn settle_namespaces(
    kernel: &Kernel,
    state: &SandboxState,
    member: &Membership,
    made: &MadeNamespaces,
    init: &Credentials,
) -> Result<(), ImageError> {
    let set = |settings: &[SettingState], namespaces: Namespaces, user_ns: &Arc<UserNamespace>| {
        // Whoever made a user namespace has all capabilities there, whatever the configuration gives the init.
        let owner = Credentials::root(user_ns.clone());
        let creds = if user_ns.is_root() { init } else { &owner };
        set_all_again(settings, &Scope::new(kernel, &Arc::new(namespaces)), creds)
    };
    let own = &*member.place.namespaces;
    for (ipc, saved) in made.ipcs().iter().zip(state.ipc_namespaces.iter()) {
        set(&saved.settings, Namespaces { ipc: ipc.clone(), ..own.clone() }, &ipc.user_ns)?;
    }
    for (net, saved) in made.nets().iter().zip(state.net_namespaces.iter()) {
        // A new one is down.
        if saved.loopback_up {
            let up = change(net, |stack| stack.change(|s| s.set_link_up(LO_INDEX)));
            up.map_err(|errno| ImageError::Unfit(format!("a network namespace: {errno}")))?;
        }
        set(&saved.settings, Namespaces { net: net.clone(), ..own.clone() }, &net.user_ns)?;
    }
    Ok(())
}

fn set_all_again(settings: &[SettingState], scope: &Scope, creds: &Credentials) -> Result<(), ImageError> {
    for SettingState { path, value } in settings {
        sysctl::set_again(path, value, scope, creds).map_err(|errno| {
            let (path, value) = (shortened(path), shortened(value));
            ImageError::Unfit(format!("setting {path:?} of /proc/sys to {value:?}: {errno}"))
        })?;
    }
    Ok(())
}

/// As much of a text as a message has room for.
fn shortened(text: &str) -> &str {
    text.char_indices().nth(64).map_or(text, |(end, _)| &text[..end])
}
