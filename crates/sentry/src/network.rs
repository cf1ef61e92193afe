//! Network mode `sandbox`: the links that the sandbox's creator has taken over become those of the guest's network.

mod resolver;

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;

use moat_abi::{Errno, PollEvents};
use moat_control::ControlError;
use moat_kernel::Kernel;
use moat_net_inet::links;
use moat_net_inet::stack::{NetStack, stack_of};
use moat_net_link::PacketLink;
use moat_net_stack::{LinkDevice, NetworkConfig, RouteConfig};
use moat_sync::reactor::Watch;

use resolver::Resolver;

/// Where the guest asks a resolver, and the nameservers that stand behind it.
type Resolving = (IpAddr, Vec<IpAddr>);

/// Gives the guest's first network namespace its links. `fds` are their packet sockets in order, and then a socket to a
/// resolver if there is one, which `resolver` then tells of.
///
/// # Errors
/// Other descriptors than those.
pub(crate) fn set_up(
    kernel: &Arc<Kernel>,
    config: NetworkConfig,
    fds: Vec<OwnedFd>,
    resolver: Option<Resolving>,
) -> Result<(), ControlError> {
    let (links, engine) = sort(&config, fds, resolver.is_some())?;
    let links: HashMap<u32, Arc<PacketLink>> = config.devices().map(|l| l.index).zip(links).collect();
    let devices = links.iter().map(|(index, link)| (*index, link.clone() as Arc<dyn LinkDevice>)).collect();
    let stack = links::add_links(&kernel.root_namespaces.net, &config, devices);
    for (index, link) in links {
        start_serving(&stack, index, link)?;
    }
    resolve(kernel, engine, resolver)
}

/// Gives it one link more while it runs, with descriptors as in [`set_up`]; gives the number that it has inside.
///
/// # Errors
/// As there; EEXIST, ENOBUFS.
pub(crate) fn add(
    kernel: &Arc<Kernel>,
    config: &NetworkConfig,
    fds: Vec<OwnedFd>,
    resolver: Option<Resolving>,
) -> Result<u32, ControlError> {
    let (links, engine) = sort(config, fds, resolver.is_some())?;
    let [link] = <[Arc<PacketLink>; 1]>::try_from(links)
        .map_err(|links| ControlError::Invalid(format!("{} links instead of one", links.len())))?;
    let namespace = &kernel.root_namespaces.net;
    let failed = |errno: Errno| ControlError::Errno { what: "adding a link".into(), errno: errno.raw() };
    let stack = stack_of(namespace).ok_or_else(|| failed(Errno::ENODEV))?;
    let index = links::add_link(namespace, config, Some(link.clone())).map_err(failed)?;
    start_serving(&stack, index, link)?;
    resolve(kernel, engine, resolver)?;
    Ok(index)
}

/// Takes a link with a device away.
///
/// # Errors
/// ENODEV.
pub(crate) fn remove(kernel: &Arc<Kernel>, index: u32) -> Result<(), ControlError> {
    links::remove_link(&kernel.root_namespaces.net, index)
        .map_err(|errno| ControlError::Errno { what: "removing a link".into(), errno: errno.raw() })
}

/// Follows routes by gateways that the engine has changed.
///
/// # Errors
/// EOPNOTSUPP in a namespace whose network is not the sandbox's own.
pub(crate) fn change_routes(
    kernel: &Arc<Kernel>,
    added: Vec<RouteConfig>,
    removed: &[RouteConfig],
) -> Result<(), ControlError> {
    links::change_routes(&kernel.root_namespaces.net, added, removed)
        .map_err(|errno| ControlError::Errno { what: "changing routes".into(), errno: errno.raw() })
}

/// The links of packet sockets, and the resolver's socket, which comes last.
fn sort(
    config: &NetworkConfig,
    mut fds: Vec<OwnedFd>,
    resolver: bool,
) -> Result<(Vec<Arc<PacketLink>>, Option<OwnedFd>), ControlError> {
    let expected = config.devices().count().saturating_add(usize::from(resolver));
    if fds.len() != expected {
        return Err(ControlError::Invalid(format!("{} descriptors for a network of {expected}", fds.len())));
    }
    let engine = if resolver { fds.pop() } else { None };
    Ok((fds.into_iter().map(|fd| Arc::new(PacketLink::new(Arc::new(fd)))).collect(), engine))
}

fn resolve(kernel: &Arc<Kernel>, engine: Option<OwnedFd>, resolver: Option<Resolving>) -> Result<(), ControlError> {
    let (Some(engine), Some((asked_at, nameservers))) = (engine, resolver) else { return Ok(()) };
    let resolver = Resolver::new(kernel, engine, asked_at, &nameservers)
        .map_err(|errno| ControlError::Errno { what: "making the resolver".into(), errno: errno.raw() })?;
    moat_sync::spawn(resolver.run());
    Ok(())
}

/// Serves a link from now on.
fn start_serving(stack: &Arc<NetStack>, index: u32, link: Arc<PacketLink>) -> Result<(), ControlError> {
    let watch = Watch::on_demand(link.socket().clone(), link.queue().clone())
        .map_err(|errno| ControlError::Errno { what: "watching a link".into(), errno: errno.raw() })?;
    moat_sync::spawn(serve(stack.clone(), index, link, watch));
    Ok(())
}

/// Takes in what comes over a link, for as long as it is there.
async fn serve(stack: Arc<NetStack>, index: u32, link: Arc<PacketLink>, _watch: Watch) {
    let mut frames = link.queue().listen(PollEvents::IN);
    while !link.is_removed() {
        if stack.link_readable(index) {
            // There is more, but others have their turn.
            give_way().await;
        } else {
            (&mut frames).await;
        }
    }
}

/// Ends when the executor has looked at what else is runnable.
async fn give_way() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
