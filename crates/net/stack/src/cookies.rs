//! SYNs that are answered by cookies, and connections that come of them: a flood of SYNs fills a queue, and keeps nobody out.

use std::net::SocketAddr;

use crate::connections::{ConnectionId, ListenerId, TcpOptions};
use crate::counters::count;
use crate::num::Narrow;
use crate::route::Path;
use crate::stack::Stack;
use crate::tcp::cookie::{self, Secrets};
use crate::tcp::{Connection, EcnRule, Flags, Options, START_RECEIVE_BUFFER, Segment, SegmentOut};
use crate::time::{SECOND, Time};

/// How long after the last cookie an acknowledgement may have one (`tcp_synq_no_recent_overflow`).
const RECENT_US: u64 = 120 * SECOND;

impl Stack {
    /// Answers a SYN without keeping anything of it.
    pub(crate) fn answer_by_cookie(
        &mut self,
        listener: ListenerId,
        (local, remote): (SocketAddr, SocketAddr),
        (path, options): (&Path, &TcpOptions),
        s: &Segment<'_>,
    ) {
        let now = self.now;
        let Some(l) = self.tcp.listeners.get_mut(&listener) else { return };
        l.overflowed = Some(now);
        let settings = l.settings.clone();
        let Ok(parameters) = self.parameters(local, remote, path, settings) else { return };
        // What the peer can say of itself without being asked again.
        let offered = s.options.mss.unwrap_or(536);
        let number =
            self.with_secrets(local, remote, |secrets| cookie::number(secrets, s.seq, offered, local.is_ipv4(), now));
        let agreed = cookie::agree(&s.options, &self.rules);
        let scratch = Connection::accept(parameters, s, now);
        let ecn = agreed.timestamp.is_some() && self.rules.ecn != EcnRule::Never && scratch.accepts_ecn(s);
        let clock = scratch.timestamp(now);
        let segment = SegmentOut {
            seq: number,
            ack: Some(s.seq.wrapping_add(1)),
            flags: Flags { syn: true, ece: ecn, ..Flags::default() },
            window: (START_RECEIVE_BUFFER / 2).min(65535).narrow(),
            options: Options {
                mss: Some(scratch.path_mss),
                window_scale: cookie::own_scale(&agreed),
                sack_permitted: agreed.sack_permitted,
                timestamp: agreed.timestamp.map(|(value, _)| (cookie::stamp(clock, &agreed, ecn), value)),
                sack: Vec::new(),
            },
            ..SegmentOut::default()
        };
        count(&mut self.counted.tcp_cookies_sent);
        self.send_segment(path, local, remote, options, segment);
    }

    /// Makes the connection that an acknowledgement with a cookie asks for; it is handed the acknowledgement next.
    pub(crate) fn accept_cookie(
        &mut self,
        listener: ListenerId,
        link: u32,
        (local, remote): (SocketAddr, SocketAddr),
        s: &Segment<'_>,
    ) -> Option<ConnectionId> {
        let now = self.now;
        let l = self.tcp.listeners.get(&listener)?;
        // Guesses have no chance where no cookies are given.
        if s.flags.syn || l.overflowed.is_none_or(|at: Time| now.since(at) > RECENT_US) {
            return None;
        }
        let number = s.ack?.wrapping_sub(1);
        let peer = s.seq.wrapping_sub(1);
        let mss = self.with_secrets(local, remote, |secrets| cookie::size(secrets, number, peer, local.is_ipv4(), now));
        let Some(mss) = mss else {
            count(&mut self.counted.tcp_cookies_failed);
            return None;
        };
        let l = self.tcp.listeners.get(&listener)?;
        let (settings, options) = (l.settings.clone(), l.options.on_link_of(remote, link));
        let path = self.path(remote.ip(), options.device, Some(local.ip())).ok()?;
        let parameters = self.parameters(local, remote, &path, settings).ok()?;
        let connection =
            Connection::from_cookie(crate::tcp::Parameters { iss: number, ..parameters }, &cookie::syn(s, mss), now);
        count(&mut self.counted.tcp_cookies_received);
        if let Some(l) = self.tcp.listeners.get_mut(&listener) {
            l.embryos = l.embryos.saturating_add(1);
        }
        Some(self.add(connection, local, remote, options, None, Some(listener)))
    }

    fn with_secrets<R>(&self, local: SocketAddr, remote: SocketAddr, f: impl FnOnce(&Secrets<'_>) -> R) -> R {
        let minute = |count: u32| self.secret(("cookie", count, local, remote));
        f(&Secrets { addresses: self.secret(("cookie", local, remote)), minute: &minute })
    }
}
