//! [`Call`]: a host call that a guest thread is expected to make, and the check that it makes no other.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::nr;
use moat_host::seccomp::Notification;

/// A call that the sentry expects of a thread, exactly so.
#[derive(Clone, Debug)]
pub struct Call {
    /// The number.
    pub nr: u32,
    /// All arguments.
    pub args: [u64; 6],
    /// A descriptor to install first, and its number.
    pub fd: Option<(Arc<OwnedFd>, u32)>,
    /// What it means to the platform itself.
    pub effect: Effect,
}

/// What a verified call does to the platform's own areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: an order for the guest's memory.
    None,
    /// Maps the area of this slot.
    Map(u32),
    /// Keeps the area of this slot out of children.
    Protect(u32),
    /// Makes the process of this number: only if every area is kept out of it.
    Fork(u32),
    /// Makes the thread of this number.
    Spawn(u32),
}

/// The expected call that `n` is, dropping those before it, which the filter allows by itself.
pub fn take_expected(expected: &mut VecDeque<Call>, n: &Notification) -> Option<Call> {
    // clone has five arguments; the stub leaves the sixth register as it is.
    let count = if n.nr == nr::CLONE { 5 } else { 6 };
    let at = expected.iter().position(|call| call.nr == n.nr && call.args[..count] == n.args[..count])?;
    expected.drain(..=at).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(nr: u32, first: u64) -> Call {
        Call { nr, args: [first, 0, 0, 0, 0, 0], fd: None, effect: Effect::None }
    }

    fn notification(nr: u32, args: [u64; 6]) -> Notification {
        Notification { id: 1, tid: 1, nr, args }
    }

    #[test]
    fn a_call_must_be_the_expected_one_and_is_so_once() {
        let mut expected = VecDeque::from([call(9, 1), call(9, 2), call(nr::CLONE, 3)]);
        assert!(take_expected(&mut expected, &notification(9, [3, 0, 0, 0, 0, 0])).is_none());
        assert!(take_expected(&mut expected, &notification(10, [1, 0, 0, 0, 0, 0])).is_none());
        assert!(take_expected(&mut expected, &notification(9, [1, 0, 0, 0, 0, 1])).is_none());
        assert!(take_expected(&mut expected, &notification(9, [2, 0, 0, 0, 0, 0])).is_some());
        assert!(take_expected(&mut expected, &notification(9, [2, 0, 0, 0, 0, 0])).is_none(), "twice");
        assert!(take_expected(&mut expected, &notification(9, [1, 0, 0, 0, 0, 0])).is_none(), "out of order");
        assert!(take_expected(&mut expected, &notification(nr::CLONE, [3, 0, 0, 0, 0, 99])).is_some());
        assert!(expected.is_empty());
    }
}
