//! Connections out of cookies: when too many are half open, what a SYN says is kept by the peer in the numbers of the answer.
//!
//! The first number of the own stream is a hash of the addresses, the peer's number and the minute, with the size of segments in
//! it; the lowest bits of the timestamp hold what else was offered, which is agreed on only with timestamps (`syncookies.c`).

use super::connection::{Connection, ConnectionState, WINDOW_SCALE};
use super::segment::{Flags, Options, Segment};
use super::settings::{Parameters, Rules};
use crate::time::{SECOND, Time};

/// How long a minute of cookies is, and how many of them one holds.
const PERIOD_US: u64 = 60 * SECOND;
const MOST_AGE: u32 = 2;
/// Bits of the first number that the hash has; the minute has the others.
const HASH_BITS: u32 = 24;
const HASH: u32 = 0xff_ffff;
/// Sizes that a cookie can say (`msstab`), of IPv4 and IPv6.
const SIZES: [[u16; 4]; 2] = [[536, 1300, 1440, 1460], [1220, 1420, 1440, 8940]];
/// What the low bits of a timestamp say: the shift of windows, with this for none; SACK; ECN.
const NO_SCALE: u32 = 0xf;
const SACK: u32 = 1 << 4;
const ECN: u32 = 1 << 5;
const OPTIONS: u32 = 0x3f;

/// Hashes with a key of the stack's: of the addresses, and of the addresses with a minute.
pub(crate) struct Secrets<'a> {
    pub(crate) addresses: u32,
    pub(crate) minute: &'a dyn Fn(u32) -> u32,
}

fn minute(now: Time) -> u32 {
    // The low half is enough: a cookie holds 8 bits of it.
    u32::try_from((now.us() / PERIOD_US) & 0xffff_ffff).unwrap_or(0)
}

/// The first number of an answer to a SYN with number `peer` that offers segments of `mss`.
pub(crate) fn number(secrets: &Secrets<'_>, peer: u32, mss: u16, v4: bool, now: Time) -> u32 {
    let count = minute(now);
    let sizes = SIZES[usize::from(!v4)];
    // The largest that is not above it.
    let index = sizes.iter().rposition(|size| *size <= mss).unwrap_or(0);
    let low = (secrets.minute)(count).wrapping_add(u32::try_from(index).unwrap_or(0)) & HASH;
    secrets.addresses.wrapping_add(peer).wrapping_add(count << HASH_BITS).wrapping_add(low)
}

/// The size that a cookie of the last minutes says; `None` for what is none.
pub(crate) fn size(secrets: &Secrets<'_>, cookie: u32, peer: u32, v4: bool, now: Time) -> Option<u16> {
    let bare = cookie.wrapping_sub(secrets.addresses).wrapping_sub(peer);
    let count = minute(now);
    // How many minutes ago, of the last 256.
    let age = count.wrapping_sub(bare >> HASH_BITS) & 0xff;
    if age >= MOST_AGE {
        return None;
    }
    let index = bare.wrapping_sub((secrets.minute)(count.wrapping_sub(age))) & HASH;
    SIZES[usize::from(!v4)].get(usize::try_from(index).ok()?).copied()
}

/// A timestamp not later than `clock` that says what was agreed on.
pub(crate) fn stamp(clock: u32, agreed: &Options, ecn: bool) -> u32 {
    let mut options = agreed.window_scale.map_or(NO_SCALE, |shift| u32::from(shift).min(14));
    if agreed.sack_permitted {
        options |= SACK;
    }
    if ecn {
        options |= ECN;
    }
    let stamp = (clock & !OPTIONS) | options;
    // Never ahead of the clock: the next segment's must not seem older.
    if stamp.wrapping_sub(clock).cast_signed() > 0 { stamp.wrapping_sub(OPTIONS.wrapping_add(1)) } else { stamp }
}

/// What is agreed on with who offers `offered`: nothing without timestamps, in which it is kept.
pub(crate) fn agree(offered: &Options, rules: &Rules) -> Options {
    if offered.timestamp.is_none() || !rules.timestamps {
        return Options::default();
    }
    Options {
        window_scale: offered.window_scale.filter(|_| rules.window_scaling),
        sack_permitted: offered.sack_permitted && rules.sack,
        timestamp: offered.timestamp,
        ..Options::default()
    }
}

/// The SYN that an acknowledgement with a cookie stands for.
pub(crate) fn syn(s: &Segment<'_>, mss: u16) -> Segment<'static> {
    let mut options = Options { mss: Some(mss), ..Options::default() };
    let mut ecn = false;
    if let Some((value, echo)) = s.options.timestamp {
        let scale = echo & NO_SCALE;
        options.timestamp = Some((value, 0));
        options.window_scale = u8::try_from(scale).ok().filter(|_| scale != NO_SCALE);
        options.sack_permitted = echo & SACK != 0;
        ecn = echo & ECN != 0;
    }
    Segment {
        seq: s.seq.wrapping_sub(1),
        flags: Flags { syn: true, ece: ecn, cwr: ecn, ..Flags::default() },
        window: s.window,
        options,
        ..Segment::default()
    }
}

impl Connection {
    /// A connection whose SYN, which `syn` stands for, was answered by a cookie: the acknowledgement of that comes next.
    pub(crate) fn from_cookie(p: Parameters, syn: &Segment<'_>, now: Time) -> Connection {
        let mut c = Connection::accept(p, syn, now);
        debug_assert_eq!(c.state, ConnectionState::SynReceived);
        // As if the answer had gone out, though nobody knows when.
        c.nxt = 1;
        c.send_syn = false;
        c.unmeasured = true;
        c.ack.edge = c.rcv_nxt.saturating_add(c.offered_window());
        c
    }
}

/// The shift that the own windows have in an answer.
pub(crate) fn own_scale(agreed: &Options) -> Option<u8> {
    agreed.window_scale.map(|_| WINDOW_SCALE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_says_the_size_for_two_minutes_to_whom_it_was_given() {
        let keyed = |m: u32| m.wrapping_mul(0x9e37_79b9) ^ 77;
        let secrets = Secrets { addresses: 0xfedc_ba98, minute: &keyed };
        let now = Time::from_us(59 * SECOND);
        for (mss, v4, said) in [(1460, true, 1460), (1459, true, 1440), (100, true, 536), (9000, false, 8940)] {
            let cookie = number(&secrets, 4_000_000_000, mss, v4, now);
            for later in [0, 2, 60] {
                assert_eq!(size(&secrets, cookie, 4_000_000_000, v4, now.after(later * SECOND)), Some(said), "{later}");
            }
            assert_eq!(size(&secrets, cookie, 4_000_000_000, v4, now.after(122 * SECOND)), None, "too old");
            assert_eq!(size(&secrets, cookie, 4_000_000_001 + 8, v4, now), None, "another number");
            assert_eq!(size(&Secrets { addresses: 5, ..secrets_of(&keyed) }, cookie, 4_000_000_000, v4, now), None);
        }
    }

    fn secrets_of(minute: &dyn Fn(u32) -> u32) -> Secrets<'_> {
        Secrets { addresses: 0, minute }
    }

    #[test]
    fn timestamps_keep_what_was_offered_and_are_never_ahead() {
        for clock in [0u32, 63, 64, 1000, u32::MAX] {
            for (shift, sack, ecn) in [(None, false, false), (Some(7), true, false), (Some(14), false, true)] {
                let agreed = Options { window_scale: shift, sack_permitted: sack, ..Options::default() };
                let stamp = stamp(clock, &agreed, ecn);
                assert!(stamp.wrapping_sub(clock).cast_signed() <= 0 && clock.wrapping_sub(stamp) < 128);
                let ack = Segment {
                    seq: 10,
                    options: Options { timestamp: Some((5, stamp)), ..Options::default() },
                    ..Segment::default()
                };
                let syn = syn(&ack, 1460);
                let o = &syn.options;
                assert_eq!((o.window_scale, o.sack_permitted, syn.flags.ece, syn.seq), (shift, sack, ecn, 9));
            }
        }
    }
}
