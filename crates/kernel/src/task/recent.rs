//! The last system calls of each worker, for the report of a panic: [`note`] costs a few stores to memory of the thread's own.

use std::cell::RefCell;
use std::fmt::Write as _;

use moat_abi::nr;
use moat_sync::watchdog;

/// How many are kept.
const CALLS: usize = 100;

#[derive(Clone, Copy)]
struct Call {
    process: i32,
    thread: i32,
    number: u64,
    args: [u64; 6],
}

struct Calls {
    calls: [Call; CALLS],
    /// Where the next one goes.
    next: usize,
    /// How many there are.
    length: usize,
}

const NONE: Call = Call { process: 0, thread: 0, number: 0, args: [0; 6] };

thread_local! {
    static RECENT: RefCell<Calls> = const { RefCell::new(Calls { calls: [NONE; CALLS], next: 0, length: 0 }) };
}

/// The task that the worker is busy with makes a call.
pub(crate) fn note(number: u64, args: &[u64; 6]) {
    // Numbers only: whatever else a report needs, a panic may have made unusable.
    let (process, thread) = watchdog::task();
    RECENT.with_borrow_mut(|recent| {
        let Calls { calls, next, length } = recent;
        if let Some(call) = calls.get_mut(*next) {
            *call = Call { process, thread, number, args: *args };
        }
        *next = next.wrapping_add(1) % CALLS;
        *length = length.saturating_add(1).min(CALLS);
    });
}

/// What the calling thread was busy with, and the calls that it looked at before, for people; the newest last.
#[must_use]
pub fn report() -> String {
    let mut text = String::new();
    match watchdog::task() {
        (0, _) => text.push_str("busy with no task\n"),
        (process, thread) => {
            let _ = writeln!(text, "busy with thread {thread} of process {process}");
        }
    }
    let _ = RECENT.try_with(|recent| {
        // It panicked in here: then there is nothing to say.
        let Ok(recent) = recent.try_borrow() else { return };
        let _ = writeln!(text, "its last {} system calls, the newest last:", recent.length);
        let oldest = recent.next.wrapping_add(CALLS).wrapping_sub(recent.length) % CALLS;
        let in_order = recent.calls.iter().cycle().skip(oldest).take(recent.length);
        for Call { process, thread, number, args } in in_order {
            let name = u32::try_from(*number).ok().and_then(nr::name).unwrap_or("?");
            let args: Vec<String> = args.iter().map(|arg| format!("{arg:#x}")).collect();
            let _ = writeln!(text, "  [{process}/{thread}] {name}({})", args.join(", "));
        }
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hundred_are_kept_in_order() {
        for n in 0..250 {
            note(nr::READ.into(), &[n, 0, 0, 0, 0, 0]);
        }
        let text = report();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "busy with no task");
        assert_eq!(lines.len(), 102);
        assert_eq!(lines[2], "  [0/0] read(0x96, 0x0, 0x0, 0x0, 0x0, 0x0)");
        assert_eq!(lines[101], "  [0/0] read(0xf9, 0x0, 0x0, 0x0, 0x0, 0x0)");
    }
}
