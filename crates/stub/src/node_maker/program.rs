//! The program of the node maker.
#![no_std]
#![no_main]

#[path = "../node_maker.rs"]
mod protocol;

mod filter;
#[path = "../raw.rs"]
mod raw;
mod sys;

use core::arch::global_asm;
use core::mem::MaybeUninit;

use protocol::Request;
use sys::{call, exit};

/// The only descriptor besides that of the directory in hand.
const SOCKET: u64 = 0;

const EINVAL: i32 = 22;
const EPERM: i32 = 1;
const S_IFMT: u32 = 0o170_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFBLK: u32 = 0o060_000;

global_asm!(".globl node_maker_start", "node_maker_start:", "xor ebp, ebp", "and rsp, -16", "call {main}", main = sym main);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit()
}

extern "C" fn main() -> ! {
    if sys::shut_in().is_none() || filter::install().is_none() {
        exit()
    }
    loop {
        let mut request = MaybeUninit::<Request>::uninit();
        let Some(directory) = sys::receive(SOCKET, request.as_mut_ptr().cast(), size_of::<Request>()) else { exit() };
        // SAFETY: `receive` has filled all of it, and any bytes are a request.
        let errno = make(directory, unsafe { request.assume_init_ref() });
        call(sys::CLOSE, [directory, 0, 0, 0, 0, 0]);
        let answered = call(sys::SENDTO, [SOCKET, sys::address(&raw const errno), 4, sys::MSG_NOSIGNAL, 0, 0]);
        if answered != 4 {
            exit()
        }
    }
}

/// Makes the node; an errno.
fn make(directory: u64, request: &Request) -> i32 {
    let kind = request.mode & S_IFMT;
    if (kind != S_IFCHR && kind != S_IFBLK) || request.mode & !(S_IFMT | 0o777) != 0 || !is_component(&request.name) {
        return EINVAL;
    }
    if !sys::is_nodev(directory) {
        return EPERM;
    }
    let (major, minor) = (u64::from(request.major), u64::from(request.minor));
    if major > 0xfff || minor > 0xf_ffff {
        return EINVAL;
    }
    let device = (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12);
    let name = sys::address(request.name.as_ptr());
    sys::errno(call(sys::MKNODAT, [directory, name, u64::from(request.mode), device, 0, 0]))
}

/// Whether it is one component of a path, ended by a zero byte: nothing that leads elsewhere.
fn is_component(name: &[u8]) -> bool {
    let mut length = 0;
    let mut only_dots = true;
    for &byte in name {
        match byte {
            0 => return length > 0 && !(only_dots && length <= 2),
            b'/' => return false,
            byte => only_dots = only_dots && byte == b'.',
        }
        length += 1;
    }
    false
}
