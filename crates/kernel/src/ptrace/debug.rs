//! Hardware breakpoints and watchpoints: the debug registers that PTRACE_POKEUSER writes.
//!
//! The host's debug registers are out of the sentry's reach, so a thread with one enabled runs a step at a time and the sentry
//! looks after each whether the place has been reached, or its contents have changed. That is slow, but faster than a debugger
//! that does the same, and other threads are not slowed down.
//!
//! Source: Intel SDM volume 3, 18.2; `ptrace_set_debugreg` in `arch/x86/kernel/ptrace.c`.

use moat_abi::{Errno, Result};
use moat_mm::{MemoryManager, UserAddr};
use moat_platform::GUEST_TOP;

/// Registers for addresses.
const SLOTS: usize = 4;
const STATUS: usize = 6;
const CONTROL: usize = 7;
/// A step that the tracer asked for, in the status register.
pub(crate) const SINGLE_STEP: u64 = 1 << 14;

/// The bits of all slots there.
pub(crate) const POINTS: u64 = 15;

/// What a slot watches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The instruction at the address is next.
    Execution,
    /// The contents of so many bytes change.
    Write(usize),
}

/// One enabled slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    slot: usize,
    addr: u64,
    kind: Kind,
}

impl Point {
    /// Its bit of the status register.
    fn bit(&self) -> u64 {
        [1, 2, 4, 8].get(self.slot).copied().unwrap_or(0)
    }
}

/// The debug registers of a traced thread, as its tracer sees them.
#[derive(Clone, Copy, Debug, Default)]
pub struct DebugRegs {
    addresses: [u64; SLOTS],
    status: u64,
    control: u64,
}

impl DebugRegs {
    /// The registers that there are.
    pub(crate) const SAVED: [usize; 6] = [0, 1, 2, 3, STATUS, CONTROL];

    /// Reads register `n`.
    #[must_use]
    pub fn get(&self, n: usize) -> u64 {
        match n {
            STATUS => self.status,
            CONTROL => self.control,
            n => self.addresses.get(n).copied().unwrap_or(0),
        }
    }

    /// Writes register `n`.
    ///
    /// # Errors
    /// EINVAL for an address outside of user space, or a kind that there is not: a watch for reads can't be told by contents.
    /// EIO for registers 4 and 5.
    pub fn set(&mut self, n: usize, value: u64) -> Result<()> {
        match n {
            STATUS => self.status = value,
            CONTROL => {
                // Checked as a whole before any of it is stored.
                let new = DebugRegs { control: value, ..*self };
                (0..SLOTS).try_for_each(|slot| new.point(slot).map(drop))?;
                self.control = value;
            }
            n => {
                let place = self.addresses.get_mut(n).ok_or(Errno::EIO)?;
                if value >= GUEST_TOP {
                    return Err(Errno::EINVAL);
                }
                *place = value;
            }
        }
        Ok(())
    }

    /// Says why the thread has stopped.
    pub(crate) fn set_status(&mut self, status: u64) {
        self.status = status;
    }

    /// What a slot stands for, if it is enabled.
    fn point(&self, slot: usize) -> Result<Option<Point>> {
        let field = |at: usize| self.control.wrapping_shr(u32::try_from(at).unwrap_or(0));
        // Two enable bits per slot, local and global, which mean the same here.
        if field(slot.saturating_mul(2)) & 3 == 0 {
            return Ok(None);
        }
        // Four bits per slot from bit 16: two for the kind, two for the length.
        let bits = field(slot.saturating_mul(4).saturating_add(16));
        let len = [1, 2, 8, 4].get(usize::try_from(bits >> 2 & 3).unwrap_or(0)).copied().unwrap_or(1);
        let kind = match bits & 3 {
            0 if len == 1 => Kind::Execution,
            1 => Kind::Write(len),
            _ => return Err(Errno::EINVAL),
        };
        Ok(Some(Point { slot, addr: self.get(slot), kind }))
    }

    fn points(&self) -> Vec<Point> {
        (0..SLOTS).filter_map(|slot| self.point(slot).ok().flatten()).collect()
    }
}

/// The enabled points of a thread that runs, with what their places held before the step.
pub(crate) struct Watching(Vec<(Point, Vec<u8>)>);

fn contents(mm: &MemoryManager, point: &Point) -> Vec<u8> {
    let Kind::Write(len) = point.kind else { return Vec::new() };
    let mut bytes = vec![0; len];
    let got = mm.read_partial(UserAddr::new(point.addr), &mut bytes).unwrap_or(0);
    bytes.truncate(got);
    bytes
}

impl Watching {
    /// What `regs` ask for; `None` if that is nothing.
    pub(crate) fn new(regs: &DebugRegs, mm: &MemoryManager) -> Option<Watching> {
        let points = regs.points();
        (!points.is_empty()).then(|| Watching(points.into_iter().map(|p| (p, contents(mm, &p))).collect()))
    }

    /// Takes what the places hold for known.
    pub(crate) fn look_again(&mut self, mm: &MemoryManager) {
        self.0.iter_mut().for_each(|(point, before)| *before = contents(mm, point));
    }

    /// The bits of the points that a step to `rip` has come to.
    pub(crate) fn reached(&mut self, mm: &MemoryManager, rip: u64) -> u64 {
        let mut status = 0;
        for (point, before) in &mut self.0 {
            let after = contents(mm, point);
            if (point.kind == Kind::Execution && point.addr == rip) || after != *before {
                status |= point.bit();
            }
            *before = after;
        }
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_checked() {
        let mut d = DebugRegs::default();
        assert_eq!((d.set(0, 0x1000), d.set(1, GUEST_TOP)), (Ok(()), Err(Errno::EINVAL)));
        assert_eq!((d.set(4, 0), d.set(5, 0)), (Err(Errno::EIO), Err(Errno::EIO)));
        // Slot 0: eight bytes, written.
        assert_eq!(d.set(CONTROL, 1 | 0b1001 << 16), Ok(()));
        assert_eq!(d.points(), [Point { slot: 0, addr: 0x1000, kind: Kind::Write(8) }]);
        // Slot 3: execution.
        d.set(3, 0x2000).unwrap();
        assert_eq!(d.set(CONTROL, 1 << 6), Ok(()));
        assert_eq!(d.points(), [Point { slot: 3, addr: 0x2000, kind: Kind::Execution }]);
        // Reads and writes; ports.
        for kind in [0b11, 0b10] {
            assert_eq!(d.set(CONTROL, 1 | kind << 16), Err(Errno::EINVAL));
        }
        assert_eq!(d.get(CONTROL), 1 << 6);
    }
}
