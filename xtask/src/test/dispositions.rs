//! Tests start with no signal ignored, whatever the shell or service that started them has done: what is ignored
//! stays so across execve(2), and a program that expects ^C to end it would wait for ever.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

/// SIGPIPE, which every Rust program ignores and does not pass on.
const SIGPIPE: u32 = 13;

/// Executes this program again, if signals are ignored, with all of them at their defaults.
pub fn reset() -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").context("reading /proc/self/status")?;
    if ignored(&status) == 0 {
        return Ok(());
    }
    let error = Command::new("env")
        .arg("--default-signal")
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .exec();
    Err(error).context("cannot execute env --default-signal")
}

/// The mask of ignored signals other than SIGPIPE: bit N - 1 is signal N.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    mask & !(1 << (SIGPIPE - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sigpipe_does_not_count() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001000\n"), 0);
        assert_eq!(ignored("SigIgn:\t0000000000001006\n"), 6);
        assert_eq!(ignored(""), 0);
    }
}
