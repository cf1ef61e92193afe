//! Any host call with any arguments: a sentry in the hands of an attacker, for tests of what surrounds it.
//!
//! Only built with the feature `host-calls`, which no shipped program has.

use moat_abi::Errno;

/// An argument of a call.
#[derive(Debug)]
pub enum Argument {
    /// As it is.
    Number(u64),
    /// The address of a copy of these bytes, which the call may overwrite.
    Bytes(Vec<u8>),
}

/// Makes host call `number`; gives its result, negative for an error number.
///
/// Whatever harm the call does to this process is what it is for.
pub fn call(number: i64, mut arguments: Vec<Argument>) -> i64 {
    let mut raw = [0u64; 6];
    for (argument, place) in arguments.iter_mut().zip(&mut raw) {
        *place = match argument {
            Argument::Number(number) => *number,
            Argument::Bytes(bytes) => bytes.as_mut_ptr() as u64,
        };
    }
    let [a, b, c, d, e, f] = raw;
    // SAFETY: there is none: the caller wants the process to do what it was not written to do. Bytes live till after the
    // call, which is all that a harmless call needs.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { -i64::from(Errno::from(std::io::Error::last_os_error()).raw()) } else { result }
}
