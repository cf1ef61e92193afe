//! [`Filter`]: a chain of programs, and what all of it allows by number alone.

use std::sync::Arc;

use moat_abi::ptrace::*;
use moat_abi::{Errno, Result};

use super::program::Program;

/// Instructions of all filters of a task together (`MAX_INSNS_PER_PATH`), each filter counting 4 more.
const MAX_PER_PATH: usize = 32_768;

/// What a task's calls are checked by.
#[derive(Clone)]
pub enum Mode {
    /// read, write, exit and rt_sigreturn only.
    Strict,
    /// Filters, the newest first.
    Filter(Arc<Filter>),
}

/// Which results are logged, besides those that always are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logged {
    /// `SECCOMP_RET_LOG` and those that kill.
    Default,
    /// All but `SECCOMP_RET_ALLOW` (`SECCOMP_FILTER_FLAG_LOG`).
    All,
}

/// A checked program, and those installed before it.
pub struct Filter {
    program: Program,
    logged: Logged,
    previous: Option<Arc<Filter>>,
    /// Filters of the chain, this one included.
    count: u32,
    /// Instructions of the chain, as [`MAX_PER_PATH`] counts them.
    length: usize,
    /// Calls that the chain allows whatever their arguments.
    allowed: NumberSet,
}

impl Filter {
    /// Puts a program before those of `previous`.
    ///
    /// # Errors
    /// EINVAL for a bad program; ENOMEM if the chain gets too long.
    pub fn new(program: Vec<SockFilter>, logged: Logged, previous: Option<Arc<Filter>>) -> Result<Arc<Filter>> {
        let program = Program::new(program)?;
        let (count, length) = previous.as_ref().map_or((0, 0), |p| (p.count, p.length));
        let length = length + program.len() + 4;
        if length > MAX_PER_PATH {
            return Err(Errno::ENOMEM);
        }
        let before = |nr| previous.as_ref().is_none_or(|p| p.allowed.contains(nr));
        // Allowed by all filters from its number alone: such a call needs no run.
        let allowed = NumberSet::of(|nr| before(nr) && program.result_by_number(nr) == Some(SECCOMP_RET_ALLOW));
        Ok(Arc::new(Filter { program, logged, count: count + 1, length, allowed, previous }))
    }

    /// Its instructions, without those of the filters before it.
    pub(crate) fn instructions(&self) -> &[SockFilter] {
        self.program.instructions()
    }

    /// Which results are logged.
    pub(crate) fn logged(&self) -> Logged {
        self.logged
    }

    /// The filter that was installed before it.
    pub(crate) fn previous(&self) -> Option<&Arc<Filter>> {
        self.previous.as_ref()
    }

    /// How many filters the chain has.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether a call of the x86-64 table is allowed whatever its arguments.
    pub(super) fn allows(&self, nr: u32) -> bool {
        self.allowed.contains(nr)
    }

    /// The errno that a call gets whatever its arguments.
    pub(crate) fn errno_of(&self, nr: u32) -> Option<Errno> {
        let result = self.program.result_by_number(nr)?;
        let errno = i32::try_from(result & SECCOMP_RET_DATA).ok().filter(|errno| *errno != 0)?;
        (result & SECCOMP_RET_ACTION_FULL == SECCOMP_RET_ERRNO).then_some(Errno::from_raw(errno))
    }

    pub(super) fn is_ancestor_of(self: &Arc<Filter>, other: &Arc<Filter>) -> bool {
        let mut at = Some(other);
        while let Some(f) = at {
            if Arc::ptr_eq(f, self) {
                return true;
            }
            at = f.previous.as_ref();
        }
        false
    }

    /// Whether the call is let through.
    pub(crate) fn lets_through(&self, data: &SeccompData) -> bool {
        matches!(self.run(data).0 & SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ALLOW | SECCOMP_RET_LOG)
    }

    /// The result of highest precedence of all filters, and what its filter wants logged (`seccomp_run_filters`).
    pub(super) fn run(&self, data: &SeccompData) -> (u32, Logged) {
        // As signed numbers actions are in order, from KILL_PROCESS up to ALLOW.
        let precedence = |r: u32| (r & SECCOMP_RET_ACTION_FULL).cast_signed();
        let mut strictest = (self.program.run(data), self.logged);
        let mut at = self.previous.as_ref();
        while let Some(f) = at {
            let other = f.program.run(data);
            // Of equal actions the newest filter's data counts.
            if precedence(other) < precedence(strictest.0) {
                strictest = (other, f.logged);
            }
            at = f.previous.as_ref();
        }
        strictest
    }
}

impl Drop for Filter {
    /// Takes the chain apart in a loop: it may be thousands of filters long.
    fn drop(&mut self) {
        let mut next = self.previous.take();
        while let Some(mut filter) = next.and_then(Arc::into_inner) {
            next = filter.previous.take();
        }
    }
}

/// A set of system call numbers. Those that no table has are never in it.
struct NumberSet([u64; NumberSet::WORDS]);

impl NumberSet {
    const WORDS: usize = 8;

    fn of(contains: impl Fn(u32) -> bool) -> NumberSet {
        const { assert!(moat_abi::nr::COUNT <= 8 * u64::BITS) };
        let mut set = NumberSet([0; NumberSet::WORDS]);
        for nr in (0..moat_abi::nr::COUNT).filter(|nr| contains(*nr)) {
            let (word, bit) = NumberSet::place(nr);
            if let Some(word) = set.0.get_mut(word) {
                *word |= bit;
            }
        }
        set
    }

    fn contains(&self, nr: u32) -> bool {
        let (word, bit) = NumberSet::place(nr);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    fn place(nr: u32) -> (usize, u64) {
        (usize::try_from(nr / u64::BITS).unwrap_or(usize::MAX), 1 << (nr % u64::BITS))
    }
}

/// The mode as the task's own future remembers it, so that a call takes no lock.
#[derive(Default)]
pub(crate) struct Remembered {
    pub(super) version: u32,
    pub(super) mode: Option<Mode>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(code: u16, jt: u8, jf: u8, k: u32) -> SockFilter {
        SockFilter { code, jt, jf, k }
    }

    fn with(result: u32, previous: Option<Arc<Filter>>) -> Arc<Filter> {
        Filter::new(vec![op(BPF_RET, 0, 0, result)], Logged::Default, previous).unwrap()
    }

    #[test]
    fn the_strictest_of_several_filters_wins() {
        let chain = with(SECCOMP_RET_ALLOW, Some(with(SECCOMP_RET_KILL_PROCESS, Some(with(SECCOMP_RET_ERRNO, None)))));
        assert_eq!(chain.run(&SeccompData::default()).0, SECCOMP_RET_KILL_PROCESS);
        assert_eq!(chain.count(), 3);
    }

    #[test]
    fn what_all_filters_allow_by_number_is_known_beforehand() {
        let only_39_and_not_1 = |previous| {
            let program = vec![
                op(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0),
                op(BPF_JMP | BPF_JEQ, 0, 1, 1),
                op(BPF_RET, 0, 0, SECCOMP_RET_ERRNO | 2),
                op(BPF_JMP | BPF_JEQ, 2, 0, 39),
                // Others depend on an argument.
                op(BPF_LD | BPF_W | BPF_ABS, 0, 0, 16),
                op(BPF_JMP | BPF_JEQ, 0, 1, 7),
                op(BPF_RET, 0, 0, SECCOMP_RET_ALLOW),
                op(BPF_RET, 0, 0, SECCOMP_RET_KILL_THREAD),
            ];
            Filter::new(program, Logged::Default, previous).unwrap()
        };
        let filter = only_39_and_not_1(None);
        let known: Vec<u32> = (0..600).filter(|nr| filter.allowed.contains(*nr)).collect();
        assert_eq!(known, [39]);
        assert_eq!(filter.errno_of(1), Some(Errno::ENOENT));
        assert_eq!(filter.errno_of(39), None);
        let chain = only_39_and_not_1(Some(with(SECCOMP_RET_LOG, None)));
        assert!(!chain.allowed.contains(39), "a call that is logged has to be seen");
    }

    #[test]
    fn a_chain_has_a_limit_and_comes_apart() {
        let mut chain = None;
        let refused = loop {
            match Filter::new(vec![op(BPF_RET, 0, 0, SECCOMP_RET_ALLOW)], Logged::Default, chain.clone()) {
                Ok(filter) => chain = Some(filter),
                Err(errno) => break errno,
            }
        };
        assert_eq!(refused, Errno::ENOMEM);
        assert_eq!(chain.map(|c| c.count()), Some(32_768 / 5));
    }
}
