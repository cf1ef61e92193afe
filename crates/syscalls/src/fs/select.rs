//! select(2) and pselect6(2).

use std::time::Duration;

use moat_abi::poll::SigsetArg;
use moat_abi::time::{Timespec, Timeval};
use moat_abi::{Errno, PollEvents, Result};
use moat_kernel::{CurrentTask, Deadline, Restart, SyscallError, SyscallResult, Wait};
use moat_mm::{UserAddr, UserPtr};
use moat_vfs::Fd;

use super::poll::{Watched, WatchedFiles, deadline, left, set_mask, unset_mask, wait_for_files};

syscalls! { pub static TABLE;
    23 select(count: i32, read: UserAddr, write: UserAddr, except: UserAddr, timeout: UserPtr<Timeval>) async sys_select, full;
    270 pselect6(count: i32, read: UserAddr, write: UserAddr, except: UserAddr, timeout: UserPtr<Timespec>, mask: UserPtr<SigsetArg>) async sys_pselect6, full;
}

/// The three sets: in, out, exceptional; each with the events it stands for.
const KINDS: [(PollEvents, PollEvents); 3] = [
    (PollEvents::SELECT_IN, PollEvents::READABLE),
    (PollEvents::SELECT_OUT, PollEvents::WRITABLE),
    (PollEvents::SELECT_EX, PollEvents::PRI),
];

type Sets = [Vec<u64>; 3];

fn has(set: &[u64], fd: usize) -> bool {
    set.get(fd / 64).is_some_and(|w| w & (1 << (fd % 64)) != 0)
}

fn put(set: &mut [u64], fd: usize) {
    if let Some(w) = set.get_mut(fd / 64) {
        *w |= 1 << (fd % 64);
    }
}

fn read_sets(t: &CurrentTask, at: &[UserAddr; 3], words: usize) -> Result<Sets> {
    let one = |a: UserAddr| if a.is_null() { Ok(Vec::new()) } else { t.mm().read_array(a, words, words) };
    Ok([one(at[0])?, one(at[1])?, one(at[2])?])
}

async fn run(t: &mut CurrentTask, count: i32, at: [UserAddr; 3], until: Option<Deadline>) -> Result<u64, SyscallError> {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    // Numbers beyond the table can't be open, and are not looked at.
    let count = count.min(t.fds().size());
    let words = count.div_ceil(64);
    let asked = read_sets(t, &at, words)?;
    let mut files = WatchedFiles::default();
    let mut numbers = Vec::new();
    for fd in 0..count {
        let wanted =
            KINDS.iter().zip(&asked).filter(|(_, set)| has(set, fd)).fold(PollEvents::empty(), |all, (k, _)| all | k.1);
        if wanted.is_empty() {
            continue;
        }
        // Any bad descriptor fails the call: there is no place to say which (select(2)).
        let file = t.fds().get(Fd(i32::try_from(fd).unwrap_or(-1)))?;
        files.0.push(Watched { file, events: wanted | PollEvents::ALWAYS });
        numbers.push(fd);
    }
    let mut found: Sets = [vec![0; words], vec![0; words], vec![0; words]];
    let n = {
        let found = &mut found;
        let look = || {
            let mut n = 0;
            for (w, &fd) in files.0.iter().zip(&numbers) {
                let ready = w.file.poll();
                for ((kind, asked), found) in KINDS.iter().zip(&asked).zip(found.iter_mut()) {
                    if has(asked, fd) && ready.intersects(kind.0) {
                        put(found, fd);
                        n += 1;
                    }
                }
            }
            n
        };
        // The time that is left is written back, so the call can't be made again with it.
        let wait = Wait::restarting("select", Restart::NoHand).until(until);
        wait_for_files(t, &files, &wait, look).await?
    };
    // Only with an answer: after an error the sets are as they were.
    for (to, set) in at.iter().zip(&found).filter(|(to, _)| !to.is_null()) {
        t.mm().write_array(*to, set)?;
    }
    Ok(n)
}

async fn sys_select(
    t: &mut CurrentTask,
    count: i32,
    read: UserAddr,
    write: UserAddr,
    except: UserAddr,
    timeout: UserPtr<Timeval>,
) -> SyscallResult {
    let span = match timeout.non_null() {
        None => None,
        Some(p) => Some(span(t.mm().read(p)?)?),
    };
    let until = t.deadline_or(|| deadline(span));
    let result = run(t, count, [read, write, except], until).await;
    if let (Some(p), Some(rest)) = (timeout.non_null(), left(until)) {
        let _ = t.mm().write(p, &Timeval::from_duration(rest));
    }
    result
}

/// select(2) carries whole seconds of microseconds over, also negative ones, and checks then; the sum of seconds wraps
/// (`kern_select`).
fn span(v: Timeval) -> Result<Duration> {
    let (carry, rest) = (v.tv_usec / 1_000_000, v.tv_usec % 1_000_000);
    Timespec { tv_sec: v.tv_sec.wrapping_add(carry), tv_nsec: rest * 1000 }.to_duration()
}

async fn sys_pselect6(
    t: &mut CurrentTask,
    count: i32,
    read: UserAddr,
    write: UserAddr,
    except: UserAddr,
    timeout: UserPtr<Timespec>,
    mask: UserPtr<SigsetArg>,
) -> SyscallResult {
    let span = match timeout.non_null() {
        None => None,
        Some(p) => Some(t.mm().read(p)?.to_duration()?),
    };
    if let Some(p) = mask.non_null() {
        let arg = t.mm().read(p)?;
        set_mask(t, UserPtr::new(UserAddr::new(arg.addr)), usize::try_from(arg.size).unwrap_or(usize::MAX))?;
    }
    let until = t.deadline_or(|| deadline(span));
    let result = run(t, count, [read, write, except], until).await;
    unset_mask(t, &result);
    if let (Some(p), Some(rest)) = (timeout.non_null(), left(until)) {
        let _ = t.mm().write(p, &Timespec::from_duration(rest));
    }
    result
}
