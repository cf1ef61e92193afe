//! The machine: CPUs and the auxiliary vector.

/// The CPU that the calling thread runs on, by `rdpid` or the vDSO; no system call.
#[must_use]
pub fn current() -> usize {
    rustix::thread::sched_getcpu()
}

/// How many CPUs the calling thread may run on; at least 1.
#[must_use]
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The value of `tag` (`AT_*` of moat_abi::elf) in this process's auxiliary vector; 0 if it has none.
#[must_use]
pub fn auxv(tag: u64) -> u64 {
    // SAFETY: looks the tag up in the C library's copy of the vector.
    unsafe { libc::getauxval(tag) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::elf::{AT_PAGESZ, AT_SYSINFO_EHDR};

    #[test]
    fn the_machine_is_sane() {
        assert!(available() >= 1);
        assert_eq!(auxv(AT_PAGESZ), 4096);
        assert_ne!(auxv(AT_SYSINFO_EHDR), 0);
        assert_eq!(auxv(0x7777), 0);
    }
}
