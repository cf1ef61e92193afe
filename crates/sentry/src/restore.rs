//! Processes out of an image, in place of the inits' programs: of all its containers at once, when all are there.

mod files;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::tty::Winsize;
use moat_control::BootError;
use moat_control::spec::{PageLoading, ProcessSpec, RestoreSpec};
use moat_fs_host::terminal::{HostTerminal, Window};
use moat_fs_proc::sysctl::{self, Scope};
use moat_identity::{Namespaces, UserNamespace};
use moat_image::directory::{Image, ImageFiles};
use moat_image::header::Header;
use moat_image::state::{ContainerIndex, ContainerState, SettingState, of_container};
use moat_image::{ImageError, SandboxState};
use moat_kernel::Kernel;
use moat_kernel::checkpoint::{KnownProcesses, MadeNamespaces, MostLimits, RestoreRequest, restore};
use moat_kernel::spawn::PreparedProcess;
use moat_mm::PageSource;
use moat_net_inet::configuration::change;
use moat_net_inet::device::LO_INDEX;
use moat_tty::Terminal;
use moat_vfs::cred::Credentials;
use moat_vfs::persist::{Bounds, ContainerBounds, Contents, Restorer};
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

/// An image that has been read.
pub(crate) struct OpenImage {
    header: Header,
    state: SandboxState,
    pages: PageSource,
}

impl OpenImage {
    /// Reads it, and looks whether it fits this host.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(image: RestoreSpec, files: &mut DonatedFiles) -> Result<OpenImage, BootError> {
        let mut take = |number| files.take(number).map(File::from);
        let bases = image.bases.into_iter().map(&mut take).collect::<Result<_, _>>()?;
        let given = ImageFiles { state: take(image.state)?, pages: take(image.pages)?, bases };
        // All of it is checked for its form here, and what it refers to where that is looked up.
        let Image { header, state, pages } = Image::read(given).map_err(failed)?;
        fits(&header.cpu_features, &state).map_err(failed)?;
        let pages = match image.loading {
            PageLoading::Mapped => PageSource::mapped(pages).map_err(failed)?,
            PageLoading::Copied => PageSource::copied(pages),
        };
        Ok(OpenImage { header, state, pages })
    }

    /// What tells it from others.
    pub(crate) fn id(&self) -> [u8; 16] {
        self.header.id
    }

    /// The containers in it.
    pub(crate) fn containers(&self) -> &[ContainerState] {
        &self.state.containers
    }
}

/// A container that has been made from its configuration, and has no processes yet.
pub(crate) struct Arrived {
    /// Its init, by the configuration: the most that any of its processes can be.
    pub(crate) process: ProcessSpec,
    /// Its mounts and namespaces.
    pub(crate) member: Membership,
    /// What its init is given.
    pub(crate) fds: Vec<OwnedFd>,
}

fn failed(error: ImageError) -> BootError {
    BootError::new(format!("restoring: {error}"))
}

/// Restores the processes of the containers of an image, which are given in its order.
///
/// # Errors
/// What is wrong with the image, or does not fit this host or a configuration.
pub(crate) async fn containers(
    kernel: &Arc<Kernel>,
    image: &OpenImage,
    arrived: Vec<Arrived>,
) -> Result<Vec<RestoredContainer>, BootError> {
    let state = &image.state;
    let number = || moat_kernel::quotas::number(&kernel.ids.namespaces, &kernel.quotas.user);
    let (mut bounds, mut limits, mut given) = (Vec::new(), Vec::new(), Vec::new());
    let (mut members, mut configured) = (Vec::new(), Vec::new());
    for (index, Arrived { process, member, fds }) in (0..).zip(arrived) {
        let (creds, most) = process::bounds(&process, kernel).map_err(|e| e.into_boot(&process))?;
        let donated = process::import(kernel, fds, &creds).map_err(|e| e.into_boot(&process))?;
        // Whoever may raise hard limits is not held by those of the configuration.
        let raises = creds.permitted.contains(Cap::SYS_RESOURCE);
        limits.push(MostLimits((!raises).then_some(most)));
        set_again(kernel, state, index, &member, &creds).map_err(failed)?;
        // What comes out of the image is the guest's doing, and goes into the next one.
        let namespace = member.fs.namespace.clone();
        namespace.mounts().iter().for_each(|mount| mount.fs().made());
        given.push((donated, process.console_size));
        configured.push(member.configured());
        members.push(member);
        // What the configuration gives is the most that anything in the image can have.
        bounds.push(ContainerBounds { namespace, bounds: Bounds { init: creds, number: &number } });
    }
    let memfds = moat_fs_tmpfs::memfd::shmem(kernel.vfs.tables());
    let memfds = memfds.map_err(|errno| BootError::new(format!("restoring: {errno}")))?;
    let contents = Contents { pages: image.pages.pages(), memfds };
    let restorer = Restorer::new(state, &kernel.vfs, &bounds, &contents).map_err(failed)?;
    let mut to = Vec::new();
    for (((donated, size), member), (index, bounds)) in given.into_iter().zip(&members).zip((0..).zip(&bounds)) {
        let mut donated = donated;
        // In the trees of the image: before its pseudo-terminals, so that it has the name that it had.
        let console = console::set_up(&mut donated, &bounds.namespace, &member.processes, &bounds.bounds.init);
        let console = console.map(|terminal| Console::settle(terminal, size, index, state)).transpose();
        to.push(files::GivenTo { donated, console: console.map_err(failed)? });
    }
    let inits = || bounds.iter().map(|container| &container.bounds.init);
    // Sockets go from hand to hand, and no container is to have one that none could have made.
    let most = inits().find(|init| init.permitted.contains(Cap::NET_RAW)).or(inits().next());
    let (Some(most), Some(first)) = (most, inits().next()) else { return Err(BootError::new("an empty image")) };
    let given = files::Given { to: &to, most };
    let open_files = |namespaces: &MadeNamespaces| {
        // In a pod there are none.
        if let [member] = members.as_slice() {
            settle_namespaces(kernel, state, member, namespaces, first)?;
        }
        files::open_all(&restorer, kernel, &configured, namespaces, &given)
    };
    let request = RestoreRequest {
        syscalls: moat_syscalls::table(),
        containers: &configured,
        files: &restorer,
        open_files: &open_files,
        pages: &image.pages,
        aio: moat_syscalls::fs::aio::restore,
        aio_polls: moat_syscalls::fs::aio::restore_polls,
        limits: &limits,
    };
    let restored = restore(&request).await.map_err(failed)?;
    let donated = to.into_iter().map(|given| given.donated);
    let each = restored.into_iter().zip(donated);
    Ok(each.map(|((prepared, known), donated)| RestoredContainer { prepared, known, donated }).collect())
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
        container: ContainerIndex,
        state: &SandboxState,
    ) -> Result<Console, ImageError> {
        // What the configuration says counts for this container, whatever size the image's had.
        if let Some((ws_row, ws_col)) = size {
            let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
            let failed = |errno| ImageError::Unfit(format!("setting the size of the terminal: {errno}"));
            terminal.set_winsize(size).map_err(failed)?;
        }
        // One that was made without a terminal leaves this one as it is.
        let window = match state.host_terminals.iter().find(|saved| saved.console && saved.container == container) {
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
        let what = "the host's monotonic clock is behind that of the checkpoint, and there is no time namespace to set it \
                    by: programs would see it go back";
        return Err(ImageError::Unfit(what.into()));
    }
    Ok(())
}

/// Sets what the container's processes had set below /proc/sys, as far as they could do it here.
fn set_again(
    kernel: &Kernel,
    state: &SandboxState,
    container: ContainerIndex,
    member: &Membership,
    creds: &Credentials,
) -> Result<(), ImageError> {
    let scope = Scope::new(kernel, &member.place.namespaces);
    set_all_again(&of_container(&state.containers, container)?.settings, &scope, creds)
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
