//! Network mode `sandbox`: the links that the sandbox's creator has taken over become those of the guest's network.

mod resolver;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;

use moat_abi::PollEvents;
use moat_control::ControlError;
use moat_kernel::Kernel;
use moat_net_inet::links;
use moat_net_inet::stack::NetStack;
use moat_net_link::PacketLink;
use moat_net_stack::{LinkDevice, NetworkConfig};
use moat_sync::WaitQueue;
use moat_sync::reactor::Watch;

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
    let expected = config.devices().count().saturating_add(usize::from(resolver.is_some()));
    if fds.len() != expected {
        return Err(ControlError::Invalid(format!("{} descriptors for a network of {expected}", fds.len())));
    }
    // The resolver's socket comes last.
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

/// Makes the links the guest's, and serves them from now on.
fn attach(kernel: &Arc<Kernel>, config: NetworkConfig, links: Vec<PacketLink>) -> Result<(), ControlError> {
    let links: Vec<(u32, Arc<PacketLink>)> =
        config.devices().map(|l| l.index).zip(links.into_iter().map(Arc::new)).collect();
    let devices = links.iter().map(|(index, link)| (*index, link.clone() as Arc<dyn LinkDevice>)).collect();
    let stack = links::add_links(&kernel.root_namespaces.net, &config, devices);
    for (index, link) in links {
        let queue = Arc::new(WaitQueue::new());
        let watch = Watch::on_demand(link.socket().clone(), queue.clone())
            .map_err(|errno| ControlError::Errno { what: "watching a link".into(), errno: errno.raw() })?;
        moat_sync::spawn(serve(stack.clone(), index, queue, watch));
    }
    Ok(())
}

/// Takes in what comes over a link, for as long as the sandbox lives.
async fn serve(stack: Arc<NetStack>, index: u32, queue: Arc<WaitQueue>, _watch: Watch) {
    let mut frames = queue.listen(PollEvents::IN);
    loop {
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
