//! The resolver of the container's engine, or the host's, as the guest sees it: on its loopback device, port 53.
//!
//! Docker's resolver of a user-defined network serves 127.0.0.11 in the container's network namespace, behind rules that lead
//! the port elsewhere; a host may have one on its own loopback device, which the resolv.conf that the guest of `moat do` reads names. The
//! guest's loopback device is the sentry's own, so the sentry answers there: a question goes on over
//! the donated socket, with a number of its own, and the answer back to who asked.
//!
//! Names of the world outside Docker's resolver asks for from within the namespace, whose addresses are gone. What it says
//! it can't answer (SERVFAIL, REFUSED) is therefore asked again of the host's own nameservers, over the guest's network.
//!
//! # Invariants
//! - At most [`MOST_PENDING`] questions wait, each of [`LONGEST_QUESTION`] bytes at most; the oldest gives way.
//! - An answer from the network counts only with its question's number and text, from the nameserver that was asked.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::socket::{AF_INET, AF_INET6, IPPROTO_UDP, MsgFlags, SOCK_DGRAM};
use moat_abi::{Errno, PollEvents, Result};
use moat_kernel::Kernel;
use moat_net_inet::address::format;
use moat_sync::reactor::Watch;
use moat_sync::wait::Listener;
use moat_vfs::caller::KernelCaller;
use moat_vfs::socket::{Ancillary, Outgoing, SockAddr, Socket, SocketKind, SocketMaker, SocketMemory};

/// The port of resolvers.
const PORT: u16 = 53;

const MOST_PENDING: usize = 256;
const LONGEST_QUESTION: usize = 4096;
/// Bytes of the longest answer: what a datagram can have.
const LONGEST_ANSWER: usize = 64 << 10;
/// Bytes of the header of a message (RFC 1035, 4.1.1).
const HEADER: usize = 12;

const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;

/// A question that has no answer yet.
struct Pending {
    /// Who asked.
    from: SockAddr,
    /// The number that it has there.
    number: u16,
    /// The number under which it was passed on.
    passed_as: u16,
    /// The whole message, with the number under which it was passed on.
    message: Vec<u8>,
    /// Whom of the nameservers it was passed on to; none yet, but to the engine's resolver.
    nameserver: Option<usize>,
}

/// The forwarder.
pub(super) struct Resolver {
    caller: KernelCaller,
    /// Where the guest asks, in its network.
    guest: Arc<dyn Socket>,
    /// The engine's resolver.
    engine: Arc<OwnedFd>,
    watch: Watch,
    /// A socket of the guest's network for each of the host's nameservers, connected to it.
    nameservers: Vec<Arc<dyn Socket>>,
    pending: VecDeque<Pending>,
}

impl Resolver {
    /// Takes the place of the engine's resolver in the guest's first network namespace. Nameservers that the guest's network
    /// has no way to are left out.
    ///
    /// # Errors
    /// Of the sockets.
    pub(super) fn new(kernel: &Kernel, engine: OwnedFd, asked_at: IpAddr, nameservers: &[IpAddr]) -> Result<Self> {
        let caller = kernel.vfs.tables().kernel_caller();
        let open = |family| {
            let net = &kernel.root_namespaces.net;
            let maker = SocketMaker {
                caller: &caller,
                net,
                inodes: &kernel.vfs.ids.inodes,
                memory: &SocketMemory::unlimited(),
            };
            let kind = SocketKind { family, socket_type: SOCK_DGRAM, protocol: IPPROTO_UDP };
            kernel.vfs.registry.family(family)?.new_socket(&maker, kind)
        };
        let family = |ip: &IpAddr| if ip.is_ipv4() { AF_INET } else { AF_INET6 };
        let guest = open(family(&asked_at))?;
        // A socket of the guest's own stack, so that its address rules hold; none of the guest's processes has it.
        guest.bind(&caller, format(family(&asked_at), SocketAddr::new(asked_at, PORT)).as_bytes())?;
        let connected = |ip: &IpAddr| {
            let socket = open(family(ip)).ok()?;
            socket.connect(&caller, format(family(ip), SocketAddr::new(*ip, PORT)).as_bytes()).ok()?;
            Some(socket)
        };
        let nameservers = nameservers.iter().filter_map(connected).collect();
        let engine = Arc::new(engine);
        let watch = Watch::new(engine.clone())?;
        Ok(Resolver { caller, guest, engine, watch, nameservers, pending: VecDeque::new() })
    }

    /// Passes questions and answers on, for as long as the sandbox lives.
    pub(super) async fn run(mut self) {
        let mut changes = Listener::new();
        changes.add(self.watch.wait_queue(), PollEvents::IN);
        for socket in std::iter::once(&self.guest).chain(&self.nameservers) {
            changes.add(socket.core().queue(), PollEvents::IN);
        }
        let mut buffer = vec![0; LONGEST_ANSWER];
        loop {
            let mut idle = true;
            // All sides in turn, so that none is kept from its turn by another that never stops.
            idle &= !self.take_question(&mut buffer);
            idle &= !self.take_answer_of_engine(&mut buffer);
            for index in 0..self.nameservers.len() {
                idle &= !self.take_answer_of_nameserver(index, &mut buffer);
            }
            if idle {
                (&mut changes).await;
            }
        }
    }

    /// Whether there was something to take.
    fn take_question(&mut self, buffer: &mut [u8]) -> bool {
        // With the whole length, so that a question that was cut off is noticed.
        let Ok(received) = self.guest.receive(buffer, MsgFlags::TRUNC) else { return false };
        let message = buffer.get(..received.full_len).filter(|m| m.len() <= LONGEST_QUESTION);
        if let (Some(message), Some(from)) = (message, received.from)
            && let Some(number) = number_of(message)
        {
            let passed_as = self.unused_number();
            let mut message = message.to_vec();
            set_number(&mut message, passed_as);
            // Lost, if the engine's resolver has gone: who asked will ask again, or give up.
            let _ = rustix::io::write(&*self.engine, &message);
            if self.pending.len() == MOST_PENDING {
                self.pending.pop_front();
            }
            self.pending.push_back(Pending { from, number, passed_as, message, nameserver: None });
        }
        true
    }

    fn take_answer_of_engine(&mut self, buffer: &mut [u8]) -> bool {
        let length = match rustix::io::read(&*self.engine, &mut *buffer) {
            Ok(length) => length,
            // Nobody serves it any more, which one answer says.
            Err(rustix::io::Errno::CONNREFUSED | rustix::io::Errno::INTR) => return true,
            Err(_) => return false,
        };
        let Some(answer) = buffer.get_mut(..length) else { return true };
        let found = number_of(answer)
            .and_then(|number| self.pending.iter().position(|p| p.passed_as == number && p.nameserver.is_none()));
        if let Some(index) = found {
            // The response code is the lower half of the fourth byte.
            let failed = answer.get(3).is_some_and(|flags| matches!(flags & 0xf, SERVFAIL | REFUSED));
            if !(failed && self.ask_nameserver(index, 0)) {
                self.answer(index, answer);
            }
        }
        true
    }

    fn take_answer_of_nameserver(&mut self, nameserver: usize, buffer: &mut [u8]) -> bool {
        let Some(socket) = self.nameservers.get(nameserver) else { return false };
        let length = match socket.receive(buffer, MsgFlags::empty()) {
            Ok(received) => received.len,
            Err(Errno::EAGAIN) => return false,
            // It can't be reached: the next one is tried for all that wait for it.
            Err(_) => {
                for index in (0..self.pending.len()).rev() {
                    if self.pending.get(index).is_some_and(|p| p.nameserver == Some(nameserver)) {
                        self.ask_nameserver(index, nameserver.saturating_add(1));
                    }
                }
                return true;
            }
        };
        let Some(answer) = buffer.get_mut(..length) else { return true };
        // To guess the number alone must not do.
        let found = self.pending.iter().position(|p| {
            p.nameserver == Some(nameserver)
                && number_of(answer) == Some(p.passed_as)
                && question_of(answer) == question_of(&p.message)
        });
        if let Some(index) = found {
            self.answer(index, answer);
        }
        true
    }

    /// Whether the question could be passed on to that nameserver or a later one.
    fn ask_nameserver(&mut self, index: usize, first: usize) -> bool {
        let Some(pending) = self.pending.get_mut(index) else { return false };
        for (number, socket) in self.nameservers.iter().enumerate().skip(first) {
            if socket.send(Some(&self.caller), &mut Outgoing::plain(&pending.message)).is_ok() {
                pending.nameserver = Some(number);
                return true;
            }
        }
        false
    }

    /// Gives who asked the answer.
    fn answer(&mut self, index: usize, answer: &mut [u8]) {
        let Some(pending) = self.pending.remove(index) else { return };
        set_number(answer, pending.number);
        let to = Some(pending.from.as_bytes());
        let mut message = Outgoing { data: answer, to, flags: MsgFlags::DONTWAIT, ancillary: Ancillary::default() };
        // Who asked has gone, or takes no more.
        let _ = self.guest.send(Some(&self.caller), &mut message);
    }

    /// A number that no pending question has and that nobody can guess.
    fn unused_number(&self) -> u16 {
        loop {
            let mut bytes = [0; 2];
            moat_host::random::fill(&mut bytes);
            let number = u16::from_ne_bytes(bytes);
            if self.pending.iter().all(|pending| pending.passed_as != number) {
                return number;
            }
        }
    }
}

/// The number of a message that has a whole header.
fn number_of(message: &[u8]) -> Option<u16> {
    let header = message.first_chunk::<HEADER>()?;
    Some(u16::from_be_bytes([header[0], header[1]]))
}

fn set_number(message: &mut [u8], number: u16) {
    if let Some(bytes) = message.first_chunk_mut() {
        *bytes = number.to_be_bytes();
    }
}

/// The first question's name, type and class; `None` for a message without one. In a question the name is never compressed.
fn question_of(message: &[u8]) -> Option<&[u8]> {
    let mut rest = message.get(HEADER..)?;
    let mut length = 0usize;
    while let [label @ 1..=63, tail @ ..] = rest {
        rest = tail.get(usize::from(*label)..)?;
        length = length.saturating_add(usize::from(*label)).saturating_add(1);
    }
    match rest {
        [0, _, _, _, _, ..] => message.get(HEADER..)?.get(..length.saturating_add(5)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(number: u16, name: &str) -> Vec<u8> {
        let mut message = number.to_be_bytes().to_vec();
        message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend(label.bytes());
        }
        message.extend([0, 0, 1, 0, 1]);
        message
    }

    #[test]
    fn an_answer_belongs_to_a_question_by_number_and_text() {
        let mut asked = question(7, "db.example");
        assert_eq!(number_of(&asked), Some(7));
        set_number(&mut asked, 0x1234);
        assert_eq!(number_of(&asked), Some(0x1234));
        let mut answer = asked.clone();
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 0, 0, 1]);
        assert_eq!(question_of(&answer), question_of(&asked));
        assert_ne!(question_of(&question(7, "db.example")), question_of(&question(7, "db.examplf")));
    }

    #[test]
    fn messages_that_are_cut_have_no_question() {
        let whole = question(1, "a.b");
        assert!(question_of(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(question_of(&whole[..length]), None, "{length}");
        }
        assert_eq!(number_of(&whole[..HEADER - 1]), None);
        assert_eq!(question_of(&[0xff; 40]), None);
    }
}
