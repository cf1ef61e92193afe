//! Network mode `sandbox`: the links that the sandbox's creator has taken over become those of the guest's network.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_control::ControlError;
use moat_kernel::Kernel;
use moat_net_link::PacketLink;
use moat_net_stack::NetworkConfig;

/// Gives the guest's first network namespace its links. `fds` are their packet sockets in order, and then a socket to a
/// resolver if there is one.
///
/// # Errors
/// Other descriptors than those.
pub(crate) fn set_up(
    kernel: &Arc<Kernel>,
    config: NetworkConfig,
    mut fds: Vec<OwnedFd>,
    resolver: bool,
) -> Result<(), ControlError> {
    let expected = config.devices().count() + usize::from(resolver);
    if fds.len() != expected {
        return Err(ControlError::Invalid(format!("{} descriptors for a network of {expected}", fds.len())));
    }
    let resolver = if resolver { fds.pop() } else { None };
    let links: Vec<PacketLink> = fds.into_iter().map(|fd| PacketLink::new(Arc::new(fd))).collect();
    attach(kernel, config, links, resolver)
}

/// Nothing speaks over the links yet.
fn attach(
    _kernel: &Arc<Kernel>,
    config: NetworkConfig,
    _links: Vec<PacketLink>,
    _resolver: Option<OwnedFd>,
) -> Result<(), ControlError> {
    let name = config.devices().next().map_or("", |link| &link.name);
    Err(ControlError::Unsupported(format!("network interface {name} (use --network=none or host)")))
}
