//! [`NetStack`]: the TCP/IP stack of a network namespace, with its links' devices, the clock and the sockets around it.
//!
//! The stack itself ([`moat_net_stack`]) knows neither locks nor time. Here it is behind one lock; after each change
//! [`NetStack::settle`] sends what it has to send, hands on what has come, and sets the timer, with the lock given up.
//!
//! # Invariants
//! - No frame is sent or received with the stack's lock held, but for taking in one that lies in the device's buffer.
//! - Frames of a link go out in the order in which the stack made them: one thread at a time sends them.
//! - [`NetStack::settle`] may call any socket: nobody calls it with a socket's state locked. What it calls changes the stack by
//!   [`NetStack::change`] alone, and leaves the rest to it.

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use moat_abi::{Errno, PollEvents, Result};
use moat_identity::NetNamespace;
use moat_net_stack::{
    Datagram, Delivery, Frame, IpHeader, LinkConfig, LinkDevice, NetworkConfig, Offload, Packet, SendError, Stack,
    Time, TransmitError,
};
use moat_sync::timer::Timer;
use moat_sync::wait::Notify;
use moat_sync::{LockClass, Mutex, MutexGuard, RwLock, WeakList};

/// Frames that are taken from a device, or given to it, at once.
const BATCH: usize = 32;
/// When a device that had no room is tried again.
const RETRY: Duration = Duration::from_millis(1);
/// Batches after which others have their turn.
const ROUNDS: usize = 8;

/// The sockets of a namespace, as the stack knows them. Called without any lock of the stack.
pub(crate) trait Sockets: Send + Sync {
    /// Takes a datagram; gives whether anybody has its port.
    fn datagram(&self, namespace: &NetNamespace, datagram: &Datagram) -> bool;
    /// Takes a packet that a raw socket may want, from its IP header.
    fn packet(&self, namespace: &NetNamespace, link: u32, header: &IpHeader, packet: &[u8], payload_at: usize);
    /// Takes what ICMP says of a packet that was sent.
    fn error(&self, namespace: &NetNamespace, error: &SendError);
}

struct StackState {
    stack: Stack,
    /// The timer that is set, with its time.
    timer: Option<(Time, Timer)>,
}

/// A link's device, as seen by who sends.
struct Link {
    device: Arc<dyn LinkDevice>,
    /// A thread is sending its frames.
    sending: AtomicBool,
}

/// The stack of a network namespace.
pub struct NetStack {
    me: Weak<NetStack>,
    namespace: Weak<NetNamespace>,
    began: Instant,
    links: RwLock<HashMap<u32, Arc<Link>>>,
    sockets: &'static dyn Sockets,
    /// Who looks on in the namespace.
    taps: WeakList<dyn Tap>,
    state: Mutex<StackState>,
}

/// Where a namespace keeps its stack.
struct StackSlot(RwLock<Option<Arc<NetStack>>>);

impl Default for StackSlot {
    fn default() -> StackSlot {
        StackSlot(RwLock::new(LockClass::Table, None))
    }
}

/// A frame of a link, as who looks on sees it.
#[derive(Clone, Copy, Debug)]
pub struct Tapped<'a> {
    /// The link.
    pub link: u32,
    /// The frame, from its link header; it may be larger than the MTU and lack its checksum where the device makes these.
    pub bytes: &'a [u8],
    /// It is being sent.
    pub outgoing: bool,
}

/// Who looks on: packet sockets, and captures from outside.
pub trait Tap: Send + Sync {
    /// Takes a frame. Called with no lock of the network.
    fn frame(&self, frame: &Tapped<'_>);
}

/// What the timer tells: time has come for the stack.
struct Alarm(Weak<NetStack>);

impl Notify for Alarm {
    fn notify(&self, _: PollEvents) {
        if let Some(stack) = self.0.upgrade() {
            // Not here: whoever tells of timers may hold locks.
            moat_sync::spawn(async move { stack.poll() });
        }
    }
}

/// The stack of a namespace, if it has one.
#[must_use]
pub fn stack_of(namespace: &NetNamespace) -> Option<Arc<NetStack>> {
    namespace.extensions.get::<StackSlot>()?.0.read().clone()
}

impl NetStack {
    /// Gives a namespace its stack, with the devices of its links by their numbers, in place of the one that it has: before there
    /// are sockets, but for those out of an image.
    pub(crate) fn install(
        namespace: &Arc<NetNamespace>,
        config: &NetworkConfig,
        devices: HashMap<u32, Arc<dyn LinkDevice>>,
        sockets: &'static dyn Sockets,
    ) -> Arc<NetStack> {
        let began = Instant::now();
        let stack = Stack::new(config, |link| devices.get(&link).map(|d| d.features()), Time::default());
        let links = devices
            .into_iter()
            .map(|(index, device)| (index, Arc::new(Link { device, sending: AtomicBool::new(false) })))
            .collect();
        // Weak to the namespace, which owns the stack.
        let new = Arc::new_cyclic(|me| NetStack {
            me: me.clone(),
            namespace: Arc::downgrade(namespace),
            began,
            links: RwLock::new(LockClass::Table, links),
            sockets,
            taps: WeakList::default(),
            state: Mutex::new(LockClass::NetStack, StackState { stack, timer: None }),
        });
        let place = namespace.extensions.get_or_init(StackSlot::default);
        // Sockets out of an image are there before the links are.
        if let Some(old) = stack_of(namespace) {
            old.taps.alive().iter().for_each(|tap| new.taps.add(Arc::downgrade(tap)));
            let old = old.state.lock().stack.sockets();
            new.state.lock().stack.take_over(&old);
        }
        *place.0.write() = Some(new.clone());
        // Sends what the stack has for its links from the start, and sets its timer.
        new.settle();
        new
    }

    fn time(&self, at: Instant) -> Time {
        let us = at.saturating_duration_since(self.began).as_micros();
        Time::from_us(u64::try_from(us).unwrap_or(u64::MAX))
    }

    fn lock(&self) -> MutexGuard<'_, StackState> {
        let mut state = self.state.lock();
        // Time moves only here: all that happens under one lock is of one moment.
        state.stack.set_time(self.time(Instant::now()));
        state
    }

    fn link(&self, index: u32) -> Option<Arc<Link>> {
        self.links.read().get(&index).cloned()
    }

    /// Whether frames of a link go through a device.
    #[must_use]
    pub fn has_device(&self, index: u32) -> bool {
        self.links.read().contains_key(&index)
    }

    /// Adds a link with its device; gives its number. For [`crate::configuration::change`].
    ///
    /// # Errors
    /// As [`Stack::add_link`].
    pub fn add_link(&self, config: LinkConfig, device: Option<Arc<dyn LinkDevice>>) -> Result<u32> {
        let index = self.change(|s| s.add_link(config, device.as_ref().map(|d| d.features())))?;
        if let Some(device) = device {
            self.links.write().insert(index, Arc::new(Link { device, sending: AtomicBool::new(false) }));
        }
        Ok(index)
    }

    /// Removes a link and its device. For [`crate::configuration::change`].
    ///
    /// # Errors
    /// As [`Stack::remove_link`].
    pub fn remove_link(&self, index: u32) -> Result<()> {
        self.change(|s| s.remove_link(index))?;
        let link = self.links.write().remove(&index);
        // Told with no lock held.
        if let Some(link) = link {
            link.device.removed();
        }
        Ok(())
    }

    /// Shows `tap` the frames of all links from here on.
    pub fn add_tap(&self, tap: Weak<dyn Tap>) {
        self.taps.add(tap);
    }

    /// Shows it no more of them.
    pub fn remove_tap(&self, tap: &Weak<dyn Tap>) {
        self.taps.remove(tap);
    }

    fn show(&self, frame: &Tapped<'_>) {
        self.taps.alive().iter().for_each(|tap| tap.frame(frame));
    }

    /// Sends a frame as it is; over a link without a device it is lost.
    ///
    /// # Errors
    /// ENOBUFS where the device has no room; ENETDOWN; EINVAL for what it refuses.
    pub fn send_frame(&self, index: u32, frame: &[u8]) -> Result<()> {
        if !self.taps.is_empty() {
            self.show(&Tapped { link: index, bytes: frame, outgoing: true });
        }
        let Some(link) = self.link(index) else { return Ok(()) };
        let frames = [Frame { parts: &[IoSlice::new(frame)], offload: Offload::default() }];
        match link.device.transmit(&frames) {
            Ok(_) => Ok(()),
            Err(TransmitError::Full) => Err(Errno::ENOBUFS),
            Err(TransmitError::Down) => Err(Errno::ENETDOWN),
            Err(TransmitError::Refused) => Err(Errno::EINVAL),
        }
    }

    /// Lets the stack know the namespace's settings: before a connection may begin.
    pub(crate) fn refresh_rules(&self) {
        if let Some(namespace) = self.namespace.upgrade() {
            // Read anew each time: nobody tells of a setting that changes.
            let rules = crate::rules::of(&namespace.settings.tcp);
            self.state.lock().stack.set_rules(rules);
        }
    }

    /// Does something with the stack; what follows from it waits for [`NetStack::settle`].
    pub fn change<R>(&self, f: impl FnOnce(&mut Stack) -> R) -> R {
        f(&mut self.lock().stack)
    }

    /// Does something with the stack, and what follows from it. Not with a socket's state locked.
    pub fn with<R>(&self, f: impl FnOnce(&mut Stack) -> R) -> R {
        let mut state = self.lock();
        let result = f(&mut state.stack);
        self.settle_from(state);
        result
    }

    /// Does what is due.
    fn poll(&self) {
        let mut state = self.state.lock();
        state.timer = None;
        let now = self.time(Instant::now());
        state.stack.poll(now);
        self.settle_from(state);
    }

    /// Takes frames from a link's device; gives whether there may be more.
    pub fn link_readable(&self, index: u32) -> bool {
        let Some(link) = self.link(index) else { return false };
        self.refresh_rules();
        for _ in 0..ROUNDS {
            let now = self.time(Instant::now());
            let tapped = !self.taps.is_empty();
            let mut seen: Vec<Vec<u8>> = Vec::new();
            let taken = link.device.receive(BATCH, &mut |frame, offload| {
                if tapped {
                    // Shown when the device's buffers are not locked.
                    seen.push(frame.to_vec());
                }
                let mut state = self.state.lock();
                state.stack.set_time(now);
                state.stack.receive(index, frame, offload);
            });
            // After each batch, so that acknowledgements go out while more comes in.
            seen.iter().for_each(|frame| self.show(&Tapped { link: index, bytes: frame, outgoing: false }));
            self.settle();
            if taken < BATCH {
                return false;
            }
        }
        true
    }

    /// A link's device has room again.
    pub fn link_writable(&self, index: u32) {
        self.with(|s| {
            s.link_writable(index);
            s.resume_tcp();
        });
    }

    /// Sends, hands on and tells what there is, until there is nothing more.
    pub fn settle(&self) {
        self.settle_from(self.state.lock());
    }

    fn settle_from<'a>(&'a self, mut state: MutexGuard<'a, StackState>) {
        loop {
            let s = &mut state.stack;
            // Taken under the lock, done without it: each of these may come back to the stack.
            let (links, deliveries, notices) = (s.links_with_output(), s.take_deliveries(), s.take_notices());
            if links.is_empty() && deliveries.is_empty() && notices.is_empty() {
                break;
            }
            drop(state);
            let last = deliveries.is_empty() && notices.is_empty();
            links.into_iter().for_each(|link| self.send(link));
            deliveries.into_iter().for_each(|delivery| self.hand_on(delivery));
            notices.into_iter().for_each(|notice| notice.observer.changed(notice.changes));
            state = self.state.lock();
            if last {
                // What is left of frames is another thread's to send, or waits for room.
                break;
            }
        }
        self.set_timer(&mut state);
    }

    /// Sends a link's frames, unless another thread does.
    fn send(&self, index: u32) {
        let Some(link) = self.link(index) else { return };
        if link.sending.swap(true, Ordering::AcqRel) {
            return;
        }
        loop {
            // By one thread, in the order of the stack; frames of others wait for it.
            let packets = self.state.lock().stack.take_output(index);
            if packets.is_empty() {
                link.sending.store(false, Ordering::Release);
                // A frame that came after the look and before the flag fell is this thread's to send.
                let left = self.state.lock().stack.links_with_output().contains(&index);
                if !left || link.sending.swap(true, Ordering::AcqRel) {
                    return;
                }
                continue;
            }
            if !self.taps.is_empty() {
                packets.iter().for_each(|p| self.show(&Tapped { link: index, bytes: &p.flat_frame(), outgoing: true }));
            }
            let rest = transmit(&*link.device, packets);
            let mut state = self.state.lock();
            if rest.is_empty() {
                // A connection may have stopped at a full queue, which has room again.
                state.stack.resume_tcp();
            } else {
                // Back to the front, so that order is kept.
                state.stack.untake_output(index, rest);
                link.sending.store(false, Ordering::Release);
                drop(state);
                self.retry_later(index);
                return;
            }
        }
    }

    /// A device that has no room is tried again soon.
    fn retry_later(&self, index: u32) {
        let me = self.me.clone();
        moat_sync::spawn(async move {
            let now = Instant::now();
            moat_sync::timer::sleep_until(now.checked_add(RETRY).unwrap_or(now)).await;
            if let Some(stack) = me.upgrade() {
                stack.link_writable(index);
            }
        });
    }

    fn hand_on(&self, delivery: Delivery) {
        let Some(namespace) = self.namespace.upgrade() else { return };
        match delivery {
            Delivery::Datagram(datagram) => {
                if !self.sockets.datagram(&namespace, &datagram) {
                    // The stack answers with "port unreachable".
                    self.change(|s| s.refuse_datagram(&datagram));
                }
            }
            Delivery::Raw { link, header, packet, payload_at } => {
                self.sockets.packet(&namespace, link, &header, &packet, payload_at);
            }
            Delivery::Error(error) => self.sockets.error(&namespace, &error),
        }
    }

    /// Sets the timer for what is due next, unless it is set for an earlier time already.
    fn set_timer(&self, state: &mut StackState) {
        let Some(at) = state.stack.deadline() else { return };
        // A later timer would be late; an earlier one only looks, and sets the next.
        if state.timer.as_ref().is_some_and(|(set, _)| *set <= at) {
            return;
        }
        let instant = self.began.checked_add(Duration::from_micros(at.us())).unwrap_or_else(Instant::now);
        let timer = Timer::set(instant, Arc::new(Alarm(self.me.clone())));
        state.timer = Some((at, timer));
    }
}

/// Gives frames to a device; gives back those that it had no room for. What it refuses is lost.
fn transmit(device: &dyn LinkDevice, packets: Vec<Packet>) -> Vec<Packet> {
    let mut rest = packets;
    while !rest.is_empty() {
        let gone = match transmit_batch(device, &rest) {
            Ok(0) | Err(TransmitError::Full) => return rest,
            Ok(n) => n,
            // One frame is lost, as on a wire, and the others go on.
            Err(TransmitError::Refused) => 1,
            Err(TransmitError::Down) => return Vec::new(),
        };
        rest.drain(..gone.min(rest.len()));
    }
    rest
}

fn transmit_batch(device: &dyn LinkDevice, packets: &[Packet]) -> std::result::Result<usize, TransmitError> {
    let batch = packets.get(..BATCH.min(packets.len())).unwrap_or_default();
    // Header and payload stay apart: the device gathers them.
    let parts: Vec<_> = batch.iter().map(Packet::parts).collect();
    let frames: Vec<_> = parts.iter().zip(batch).map(|(parts, p)| Frame { parts, offload: p.offload() }).collect();
    device.transmit(&frames)
}
