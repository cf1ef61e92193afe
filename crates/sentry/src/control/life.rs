//! Further containers: made, paused, destroyed.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;

use moat_abi::PollEvents;
use moat_abi::signal::Signal;
use moat_control::start::BootErrorKind;
use moat_control::{BootError, ContainerSpec, ContainerStatus, ControlError, SignalTarget};
use moat_jail::DonatedFiles;
use moat_platform::Stock;

use super::signal;
use crate::container::GuestContainer;
use crate::registry::{Registry, Reservation};

/// A container that is about to be made: its id, and where its processes will come from.
pub(crate) struct Reserved {
    reservation: Reservation,
    stock: Arc<dyn Stock>,
}

/// Keeps an id for a container that is about to be made.
pub(super) async fn reserve(registry: &Arc<Registry>, id: &str) -> Result<Reserved, ControlError> {
    let reservation = registry.reserve(id)?;
    let stock = registry.root().member.processes.kernel().platform.new_stock().await;
    let stock = stock.map_err(|errno| ControlError::errno("making the container's first host process", errno))?;
    Ok(Reserved { reservation, stock })
}

impl Reserved {
    /// The process that all of the container's will descend from.
    pub(super) fn template(&self) -> Result<OwnedFd, ControlError> {
        let template = self.stock.template();
        template.map_err(|errno| ControlError::errno("looking at the container's host process", errno))
    }
}

/// Makes a container other than the root container, by what was reserved if that is for it; its init is ready to run.
pub(super) async fn create(
    registry: &Arc<Registry>,
    reserved: Option<Reserved>,
    spec: ContainerSpec,
    fds: Vec<OwnedFd>,
) -> Result<(), ControlError> {
    let reserved = reserved.filter(|reserved| reserved.reservation.id() == spec.id);
    let Reserved { reservation, stock } = match reserved {
        Some(reserved) => reserved,
        None => reserve(registry, &spec.id).await?,
    };
    // The sandbox is about to end.
    if registry.root().status() == ContainerStatus::Stopped {
        return Err(registry.root().wrong_state("no container can be made in its sandbox"));
    }
    match (spec.restore.is_some(), registry.awaits_containers()) {
        (true, false) => {
            return Err(ControlError::Invalid("its sandbox is not one that waits for containers of an image".into()));
        }
        // Its processes would have numbers that others are to have again.
        (false, true) => return Err(ControlError::Invalid("its sandbox waits for the containers of its image".into())),
        _ => {}
    }
    let command = spec.process.args.first().cloned().unwrap_or_default();
    let kernel = registry.root().member.processes.kernel();
    let (container, waits) =
        GuestContainer::create(kernel, stock, spec, DonatedFiles::new(0, fds), Some(registry.root()))
            .await
            .map_err(|error| control_error(error, command.clone()))?;
    let complete = match waits {
        Some((image, arrived)) => registry.arrive(&container, &image, arrived)?,
        None => None,
    };
    reservation.fill(container.clone());
    moat_sync::spawn(end_with_init(container));
    match complete {
        Some(arrivals) => arrivals.restore(kernel).await.map_err(|error| control_error(error, command)),
        None => Ok(()),
    }
}

/// When a container's init has ended its other processes end too, also where the init's pid namespace is not theirs.
async fn end_with_init(container: Arc<GuestContainer>) {
    container.ended().await;
    kill_all(&container).await;
    container.member.processes.stock().close();
}

fn control_error(error: BootError, command: String) -> ControlError {
    match (error.kind, error.errno) {
        (BootErrorKind::CommandNotFound | BootErrorKind::CannotExecute, Some(errno)) => {
            ControlError::Command { command, errno }
        }
        (_, Some(errno)) => ControlError::Errno { what: error.what, errno },
        (_, None) => ControlError::Invalid(error.what),
    }
}

/// Ends all processes of a container; done when they are gone.
pub(super) async fn kill_all(container: &GuestContainer) {
    let look = || {
        // Again and again: what was being made when the others were killed has not got the signal. No error: everybody
        // may be sent SIGKILL.
        let _ = signal::send(container, Signal::SIGKILL.number(), SignalTarget::All);
        if container.member.processes.has_living() { Poll::Pending } else { Poll::Ready(()) }
    };
    container.member.processes.kernel().exits.until(PollEvents::all(), look).await;
}

/// Ends and forgets a container other than the root container.
pub(super) async fn destroy(registry: &Registry, id: &str) -> Result<(), ControlError> {
    let container = registry.get(id)?;
    if Arc::ptr_eq(&container, registry.root()) {
        return Err(container.wrong_state("the root container ends with its sandbox only"));
    }
    kill_all(&container).await;
    container.ended().await;
    registry.remove(id);
    Ok(())
}

/// Freezes a container.
pub(super) async fn pause(container: &GuestContainer) -> Result<(), ControlError> {
    let _turn = container.turn.lock().await;
    match container.status() {
        // There is nothing to stop, and its start would be lost.
        _ if container.init().is_none() => Err(container.wrong_state("it cannot be paused")),
        ContainerStatus::Running | ContainerStatus::Created => {
            let frozen = container.member.processes.freeze().await;
            frozen.map_err(|errno| ControlError::errno("stopping the container's processes", errno))
        }
        ContainerStatus::Paused | ContainerStatus::Stopped => Err(container.wrong_state("it cannot be paused")),
    }
}

/// Lets a frozen container go on.
pub(super) async fn resume(container: &GuestContainer) -> Result<(), ControlError> {
    let _turn = container.turn.lock().await;
    if container.status() != ContainerStatus::Paused {
        return Err(container.wrong_state("it cannot be resumed"));
    }
    container.member.processes.thaw();
    Ok(())
}
