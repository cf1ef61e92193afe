//! Host calls of the node maker, and how it gives up everything else.

use core::mem::MaybeUninit;

pub use crate::raw::address;

pub const CLOSE: u64 = 3;
pub const SENDTO: u64 = 44;
pub const RECVMSG: u64 = 47;
pub const FSTATFS: u64 = 138;
pub const EXIT_GROUP: u64 = 231;
pub const MKNODAT: u64 = 259;
pub const SECCOMP: u64 = 317;
const CHDIR: u64 = 80;
const UMASK: u64 = 95;
const SETGROUPS: u64 = 116;
const SETRESUID: u64 = 117;
const SETRESGID: u64 = 119;
const CAPSET: u64 = 126;
const PRCTL: u64 = 157;
const CHROOT: u64 = 161;

pub const MSG_NOSIGNAL: u64 = 0x4000;
const MSG_CMSG_CLOEXEC: u64 = 0x4000_0000;

const PR_SET_DUMPABLE: u64 = 4;
const PR_SET_KEEPCAPS: u64 = 8;
const PR_SET_NAME: u64 = 15;
const PR_CAPBSET_DROP: u64 = 24;
const PR_SET_NO_NEW_PRIVS: u64 = 38;

/// The highest capability that a kernel could know; unknown ones give EINVAL.
const MAX_CAPABILITY: u64 = 63;
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_MKNOD: u32 = 27;
const NOBODY: u64 = 65534;

/// Any system call; a negative errno if it fails.
#[inline(always)]
pub fn call(nr: u64, args: [u64; 6]) -> i64 {
    crate::raw::call(nr, args).cast_signed()
}

/// The errno of a result, 0 for success.
pub fn errno(result: i64) -> i32 {
    if result < 0 { i32::try_from(result.wrapping_neg()).unwrap_or(i32::MAX) } else { 0 }
}

/// `None` if the call has failed.
fn done(nr: u64, args: [u64; 6]) -> Option<()> {
    if call(nr, args) < 0 { None } else { Some(()) }
}

/// Ends the process.
pub fn exit() -> ! {
    loop {
        call(EXIT_GROUP, [1, 0, 0, 0, 0, 0]);
    }
}

/// Gives up the root, all ids and all capabilities but two, for good.
pub fn shut_in() -> Option<()> {
    done(PRCTL, [PR_SET_NAME, address(c"moat-nodes".as_ptr()), 0, 0, 0, 0])?;
    // A directory in which nothing can be made and from which no path leads.
    done(CHROOT, [address(c"/proc/self/fdinfo".as_ptr()), 0, 0, 0, 0, 0])?;
    done(CHDIR, [address(c"/".as_ptr()), 0, 0, 0, 0, 0])?;
    call(UMASK, [0; 6]);
    for capability in 0..=MAX_CAPABILITY {
        call(PRCTL, [PR_CAPBSET_DROP, capability, 0, 0, 0, 0]);
    }
    done(PRCTL, [PR_SET_KEEPCAPS, 1, 0, 0, 0, 0])?;
    done(SETGROUPS, [0; 6])?;
    done(SETRESGID, [NOBODY, NOBODY, NOBODY, 0, 0, 0])?;
    done(SETRESUID, [NOBODY, NOBODY, NOBODY, 0, 0, 0])?;
    let keep = (1 << CAP_MKNOD) | (1 << CAP_DAC_OVERRIDE);
    // struct __user_cap_header_struct of version 3; effective, permitted and inheritable, low words and high ones.
    let (header, data) = ([0x2008_0522u32, 0], [keep, keep, 0u32, 0, 0, 0]);
    done(CAPSET, [address(header.as_ptr()), address(data.as_ptr()), 0, 0, 0, 0])?;
    done(PRCTL, [PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0])?;
    done(PRCTL, [PR_SET_DUMPABLE, 0, 0, 0, 0, 0])
}

/// struct iovec.
#[repr(C)]
struct IoVec {
    base: *mut u8,
    length: usize,
}

/// struct msghdr.
#[repr(C)]
struct Message {
    name: u64,
    name_length: u64,
    vectors: *const IoVec,
    vector_count: u64,
    control: *mut Control,
    control_length: usize,
    flags: u32,
    padding: u32,
}

/// struct cmsghdr and one descriptor.
#[repr(C)]
struct Control {
    length: u64,
    level: u32,
    kind: u32,
    descriptor: i32,
    padding: i32,
}

const SOL_SOCKET: u32 = 1;
const SCM_RIGHTS: u32 = 1;
/// MSG_TRUNC and MSG_CTRUNC.
const TRUNCATED: u32 = 0x20 | 0x8;

/// Waits for a message of exactly `length` bytes with one descriptor, which it gives. `None` for anything else, and at the end.
pub fn receive(socket: u64, buffer: *mut u8, length: usize) -> Option<u64> {
    let mut control = MaybeUninit::<Control>::uninit();
    let vector = IoVec { base: buffer, length };
    let mut message = Message {
        name: 0,
        name_length: 0,
        vectors: &raw const vector,
        vector_count: 1,
        control: control.as_mut_ptr(),
        control_length: size_of::<Control>(),
        flags: 0,
        padding: 0,
    };
    let got = call(RECVMSG, [socket, address(&raw mut message), MSG_CMSG_CLOEXEC, 0, 0, 0]);
    // Without room for another descriptor in the table the one that was sent is missing: the lengths say so.
    let has_control = message.control_length == size_of::<Control>();
    if usize::try_from(got) != Ok(length) || message.flags & TRUNCATED != 0 || !has_control {
        return None;
    }
    // SAFETY: the kernel has written as many bytes as `control_length` says, but for the padding, which nothing reads.
    let (kind, level, descriptor) = unsafe {
        let control = control.as_ptr();
        ((*control).kind, (*control).level, (*control).descriptor)
    };
    if level == SOL_SOCKET && kind == SCM_RIGHTS { u64::try_from(descriptor).ok() } else { None }
}

/// Words of struct statfs, and that of its `f_flags`.
const STATFS_WORDS: usize = 15;
const STATFS_FLAGS: usize = 10;
const ST_NODEV: u64 = 4;

/// Whether devices on the mount that a descriptor belongs to can't be opened by it.
pub fn is_nodev(descriptor: u64) -> bool {
    let mut words = MaybeUninit::<[u64; STATFS_WORDS]>::uninit();
    if call(FSTATFS, [descriptor, address(words.as_mut_ptr()), 0, 0, 0, 0]) != 0 {
        return false;
    }
    // SAFETY: the call has succeeded and written the whole struct.
    let words = unsafe { words.assume_init_ref() };
    words[STATFS_FLAGS] & ST_NODEV != 0
}
