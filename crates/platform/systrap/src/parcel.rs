//! The parcel of a thread: what its call brings along and takes back, in its area ([`moat_platform::parcel`]).

use moat_platform::Regs;
use moat_stub::layout::{GIFTS, Gift, PARCEL_LEN, takes};

use crate::area::{Area, call_slot};

const _: () = assert!(moat_platform::parcel::MOST_GIFTS <= GIFTS && std::mem::offset_of!(Gift, addr) == 0);

/// What lies in the parcel of a call that says to have brought `taken` bytes along: the range of guest memory that they are from, as
/// the stub goes by the same table. `None` for anything that it would not have said.
pub fn brought(nr: u64, args: &[u64; 6], taken: u32) -> Option<(u64, usize)> {
    let what = takes::TABLE.get(usize::try_from(nr).ok()?).copied().filter(|what| *what != 0)?;
    let field = |at: u32| usize::from(what >> at & 7);
    let addr = *args.get(field(takes::ADDR))?;
    let taken = u64::from(taken);
    let right = if what & takes::STRING != 0 {
        taken <= takes::STRING_LEN
    } else {
        let len = match u64::from(what >> takes::WORDS & 63) {
            0 => args.get(field(takes::LEN))?.checked_mul(1 << field(takes::SHIFT))?,
            words => words.saturating_mul(4),
        };
        taken == len && len <= PARCEL_LEN
    };
    (right && taken != 0).then_some((addr, usize::try_from(taken).ok()?))
}

/// As [`brought`], of a call that has trapped with these registers.
pub fn brought_by(regs: &Regs, taken: u32) -> Option<(u64, usize)> {
    if regs.rax != takes::RT_SIGRETURN {
        return brought(regs.rax, &regs.syscall_args(), taken);
    }
    let right = (takes::FRAME_LEN..=PARCEL_LEN).contains(&u64::from(taken));
    right.then_some((regs.rsp.wrapping_sub(8), usize::try_from(taken).ok()?))
}

/// Tells the stub what it is to take back: ranges of guest memory, whose bytes lie in the parcel from `start` on.
pub fn write_gifts(area: Area, list: &[(u64, usize)], start: usize) {
    let word = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let mut at = call_slot!(gifts);
    for (addr, len) in list {
        area.write(at, *addr);
        area.write(at.saturating_add(8), word(*len));
        at = at.saturating_add(word(size_of::<Gift>()));
    }
    area.write(call_slot!(gifts_at), word(start));
    area.write32(call_slot!(gift_count), u32::try_from(list.len()).unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_stub_would_say_is_believed() {
        let brought = |nr, args: [u64; 3], taken| brought(nr, &[args[0], args[1], args[2], 0, 0, 0], taken);
        assert_eq!(brought(1, [1, 0x1000, 16], 16), Some((0x1000, 16)));
        assert_eq!(brought(1, [1, 0x1000, 16], 15), None);
        assert_eq!(brought(1, [1, 0x1000, 16], 0), None);
        assert_eq!(brought(1, [1, 0x1000, PARCEL_LEN + 1], u32::try_from(PARCEL_LEN + 1).unwrap()), None);
        assert_eq!(brought(2, [0x2000, 0, 0], 5), Some((0x2000, 5)));
        assert_eq!(brought(2, [0x2000, 0, 0], 257), None);
        assert_eq!(brought(7, [0x3000, 3, 0], 24), Some((0x3000, 24)), "three of poll's eight bytes");
        assert_eq!(brought(7, [0x3000, 1 << 61, 0], 0), None);
        assert_eq!(brought(13, [2, 0x4000, 0], 32), Some((0x4000, 32)));
        assert_eq!(brought(13, [2, 0x4000, 0], 24), None);
        let frame = |taken| brought_by(&Regs { rax: 15, rsp: 0x5008, ..Regs::default() }, taken);
        assert_eq!((frame(439), frame(440), frame(3000)), (None, Some((0x5000, 440)), Some((0x5000, 3000))));
        assert_eq!((frame(0), frame(u32::try_from(PARCEL_LEN + 1).unwrap())), (None, None));
        for nr in [39, 0, 439 + 1, u64::MAX, 1 << 32 | 1] {
            assert_eq!(brought(nr, [1, 0x1000, 16], 16), None, "{nr}");
        }
    }
}
