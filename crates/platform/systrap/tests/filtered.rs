//! A filter around the platform that answers its calls before the platform does: an error, whatever the answer.

use moat_abi::Errno;
use moat_platform_systrap::Systrap;

/// The doorbell's number, which no kernel knows (`moat_stub::layout::DOORBELL`).
const DOORBELL: u32 = 0x004d_4f41;

/// Answers that call with an errno, in this thread and those that it makes from now on.
fn answer(errno: u16) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let number = statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0);
    let is_it = libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, DOORBELL) };
    let refuse = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | u32::from(errno));
    let allow = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
    let mut filter = [number, is_it, refuse, allow];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the program outlives the call, which reads it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program), 0);
    }
}

fn outcome(errno: u16) -> Option<Errno> {
    let thread = std::thread::spawn(move || {
        answer(errno);
        Systrap::new().err().map(|e| e.errno)
    });
    thread.join().expect("no panic")
}

#[test]
fn an_errno_is_an_error() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        assert_eq!(outcome(errno as u16), Some(Errno::ENOENT));
    }
}

/// As if the platform had answered: nothing that it does would reach it, and it would be waited for in vain.
#[test]
fn success_is_an_error_at_once() {
    assert_eq!(outcome(0), Some(Errno::ECHILD));
}
