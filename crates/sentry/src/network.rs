//! Network mode `sandbox`: the links that the sandbox's creator has taken over become those of the guest's network.

mod resolver;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_control::ControlError;
use moat_kernel::Kernel;
use moat_net_link::PacketLink;
use moat_net_stack::NetworkConfig;

use resolver::Resolver;

/// Gives the guest's first network namespace its links. `fds` are their packet sockets in order, and then a socket to a
/// resolver if there is one; `resolver` are then the nameservers that stand behind it.
///
/// # Errors
/// Other descriptors than those.
pub(crate) fn set_up(
    kernel: &Arc<Kernel>,
    config: NetworkConfig,
    mut fds: Vec<OwnedFd>,
    resolver: Option<Vec<IpAddr>>,
) -> Result<(), ControlError> {
    let expected = config.devices().count() + usize::from(resolver.is_some());
    if fds.len() != expected {
        return Err(ControlError::Invalid(format!("{} descriptors for a network of {expected}", fds.len())));
    }
    let engine = if resolver.is_some() { fds.pop() } else { None };
    let links: Vec<PacketLink> = fds.into_iter().map(|fd| PacketLink::new(Arc::new(fd))).collect();
    attach(kernel, config, links)?;
    if let (Some(engine), Some(nameservers)) = (engine, resolver) {
        let resolver = Resolver::new(kernel, engine, &nameservers)
            .map_err(|errno| ControlError::Errno { what: "making the resolver".into(), errno: errno.raw() })?;
        moat_sync::spawn(resolver.run());
    }
    Ok(())
}

/// Nothing speaks over the links yet.
fn attach(_kernel: &Arc<Kernel>, config: NetworkConfig, _links: Vec<PacketLink>) -> Result<(), ControlError> {
    let name = config.devices().next().map_or("", |link| &link.name);
    Err(ControlError::Unsupported(format!("network interface {name} (use --network=none or host)")))
}
