//! The frames of the links of the sandbox's network: [`moat_net_inet::stack::Tap`].

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Weak};

use moat_control::ControlError;
use moat_control::profile::{Packet, Record};
use moat_identity::NetNamespace;
use moat_net_inet::stack::{NetStack, Tap, Tapped, stack_of};
use moat_sync::{LockClass, Mutex};
use moat_vfs::clock;

use super::Source;
use super::recorder::Output;
use crate::registry::Registry;

/// Bytes of frames that wait to be written; what comes beyond is counted.
const MAX_WAITING_BYTES: usize = 16 << 20;
/// What a frame counts besides its bytes.
const OVERHEAD: usize = size_of::<Packet>();

/// The source.
pub(super) struct Packets {
    namespace: Arc<NetNamespace>,
    stack: Arc<NetStack>,
    waiting: Arc<Waiting>,
    /// Links that have been named.
    named: HashSet<u32>,
}

/// Frames that were seen and not written yet.
struct Waiting(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    packets: VecDeque<Packet>,
    bytes: usize,
    dropped: u64,
}

impl Tap for Waiting {
    fn frame(&self, frame: &Tapped<'_>) {
        let time = clock::now();
        let seconds_ns = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000);
        let time_ns = seconds_ns.saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0));
        let mut queue = self.0.lock();
        let bytes = queue.bytes.saturating_add(frame.bytes.len()).saturating_add(OVERHEAD);
        // Traffic does not wait for who looks on.
        if bytes > MAX_WAITING_BYTES {
            queue.dropped = queue.dropped.saturating_add(1);
            return;
        }
        queue.bytes = bytes;
        let Tapped { link, bytes, outgoing } = *frame;
        queue.packets.push_back(Packet { link, time_ns, outgoing, bytes: bytes.to_vec().into() });
    }
}

impl Packets {
    /// Those of the root container's network namespace.
    ///
    /// # Errors
    /// If the network is not the sandbox's own.
    pub(super) fn new(registry: &Registry) -> Result<Packets, ControlError> {
        let namespace = registry.root().member.place.namespaces.net.clone();
        let Some(stack) = stack_of(&namespace) else {
            return Err(ControlError::Invalid("no packets: the network of this sandbox is the host's".into()));
        };
        let waiting = Arc::new(Waiting(Mutex::new(LockClass::Leaf, Queue::default())));
        Ok(Packets { namespace, stack, waiting, named: HashSet::new() })
    }

    fn tap(&self) -> Weak<dyn Tap> {
        let waiting: Weak<Waiting> = Arc::downgrade(&self.waiting);
        waiting
    }
}

impl Source for Packets {
    fn start(&mut self) -> moat_abi::Result<()> {
        self.stack.add_tap(self.tap());
        Ok(())
    }

    fn collect(&mut self, to: &mut Output) -> io::Result<()> {
        let packets = {
            let mut queue = self.waiting.0.lock();
            queue.bytes = 0;
            std::mem::take(&mut queue.packets)
        };
        for packet in packets {
            if self.named.insert(packet.link) {
                // One that is gone by now has its number for a name.
                let name = self.namespace.device(packet.link).map_or_else(|| packet.link.to_string(), |d| d.name);
                to.write(&Record::Link { link: packet.link, name })?;
            }
            to.write(&Record::Packet(packet))?;
        }
        Ok(())
    }

    fn finish(&mut self, to: &mut Output) -> io::Result<u64> {
        self.stack.remove_tap(&self.tap());
        self.collect(to)?;
        Ok(self.waiting.0.lock().dropped)
    }
}
