//! What TCP's options mean for a connection.

use std::net::IpAddr;
use std::time::Duration;

use moat_abi::socket as abi;
use moat_abi::socket::SOL_TCP;
use moat_identity::TcpSettings;
use moat_net_stack::tcp::Settings;
use moat_net_stack::time::{MS, SECOND};
use moat_net_stack::{SendOptions, TcpOptions};
use moat_vfs::socket::{BufferSide, CoreFlags, SocketCore};

use super::InetOptions;

/// The seconds after which a SYN has been answered again as often as fits into `seconds` (`secs_to_retrans`, `retrans_to_secs`).
pub(super) fn whole_tries(seconds: i32) -> i32 {
    const FIRST: i32 = 1;
    const LONGEST: i32 = 120;
    if seconds <= 0 {
        return 0;
    }
    let (mut period, mut wait) = (FIRST, FIRST);
    // Linux counts tries in a byte.
    for _ in 1..u8::MAX {
        if seconds <= period {
            break;
        }
        wait = wait.saturating_mul(2).min(LONGEST);
        period = period.saturating_add(wait);
    }
    period
}

impl InetOptions {
    /// The options of a new socket of TCP, where they are the namespace's to say.
    #[must_use]
    pub(crate) fn of_tcp(family: u16, t: &TcpSettings) -> InetOptions {
        let options = InetOptions::new(family);
        // As if they had been set: getsockopt(2) shows them.
        for (name, setting) in [
            (abi::TCP_KEEPIDLE, &t.keepalive_time),
            (abi::TCP_KEEPINTVL, &t.keepalive_intvl),
            (abi::TCP_KEEPCNT, &t.keepalive_probes),
            (abi::TCP_SYNCNT, &t.syn_retries),
            (abi::TCP_LINGER2, &t.fin_timeout),
        ] {
            options.values.lock().numbers.insert((SOL_TCP, name), setting.get_i32());
        }
        options
    }

    /// How long a connection waits for its first bytes before accept(2) gives it (TCP_DEFER_ACCEPT).
    #[must_use]
    pub fn defer_accept(&self) -> Option<Duration> {
        let seconds = u64::try_from(self.number(SOL_TCP, abi::TCP_DEFER_ACCEPT)).ok().filter(|s| *s != 0);
        seconds.map(Duration::from_secs)
    }

    /// Whether only whole segments are sent (TCP_CORK).
    #[must_use]
    pub fn corked(&self) -> bool {
        self.number(SOL_TCP, abi::TCP_CORK) != 0
    }

    /// What a TCP connection is to do (`tcp_sock`'s settings).
    #[must_use]
    pub fn tcp_settings(&self, core: &SocketCore) -> Settings {
        let number = |name| u64::try_from(self.number(SOL_TCP, name)).unwrap_or(0);
        // Only a size that the guest has set; else the stack tunes buffers itself.
        let buffer = |side, flag| core.has(flag).then(|| core.buffer(side));
        // Each lock on its own.
        let (pacing_rate, max_segment) = (core.pacing_rate(), self.values.lock().max_segment);
        Settings {
            no_delay: number(abi::TCP_NODELAY) != 0,
            cork: number(abi::TCP_CORK) != 0,
            keep_alive: core.has(CoreFlags::KEEPALIVE),
            keep_idle_us: number(abi::TCP_KEEPIDLE).saturating_mul(SECOND),
            keep_interval_us: number(abi::TCP_KEEPINTVL).saturating_mul(SECOND),
            keep_count: u32::try_from(number(abi::TCP_KEEPCNT)).unwrap_or(9),
            user_timeout_us: number(abi::TCP_USER_TIMEOUT).saturating_mul(MS),
            syn_retries: u32::try_from(number(abi::TCP_SYNCNT)).unwrap_or(6),
            // Zero stands for none.
            max_segment: u16::try_from(max_segment).ok().filter(|m| *m != 0),
            send_buffer: buffer(BufferSide::Send, CoreFlags::SNDBUF_SET),
            receive_buffer: buffer(BufferSide::Receive, CoreFlags::RCVBUF_SET),
            pacing_rate,
        }
    }

    /// How a connection's packets are sent.
    #[must_use]
    pub fn tcp_options(&self, to: IpAddr) -> TcpOptions {
        let mut options = SendOptions::default();
        self.packet_options(to, &mut options);
        TcpOptions { device: self.device(), ttl: options.ttl, tos: options.tos }
    }
}
