//! From names to numbers, in both tables that a 64-bit program reaches.

/// Marks a number of the x32 table (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// A table of system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    /// 64-bit programs with 32-bit pointers.
    X32,
}

/// Calls with numbers of their own in the x32 table, from 512 on.
const X32_ONLY: &[&str] = &[
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];

/// The number of `name`; `None` if the table has no such call.
pub(super) fn number(name: &str, abi: Abi) -> Option<u32> {
    let native = moat_abi::nr::number(name)?;
    match abi {
        Abi::X86_64 => Some(native),
        Abi::X32 => {
            let own = (512..).zip(X32_ONLY).find(|(_, n)| **n == name).map(|(nr, _)| nr);
            Some(own.unwrap_or(native) | X32_BIT)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables() {
        assert_eq!(number("read", Abi::X86_64), Some(0));
        assert_eq!(number("read", Abi::X32), Some(X32_BIT));
        assert_eq!(number("pwritev2", Abi::X32), Some(X32_BIT + 547));
        assert_eq!(number("chown32", Abi::X86_64), None);
    }
}
