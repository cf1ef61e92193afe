//! The flags of `moat boot` and `moat gofer`, internal commands: only `moat-runtime` makes their command lines.

use std::ffi::OsString;

use moat_control::BootError;
use moat_control::spec::FdNumber;
use rustix::thread::CapabilitySet;

use crate::privileges::{Identity, NETWORK};
use crate::root::Trees;

/// Where a process's network namespace is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkNamespace {
    /// It was there before.
    #[default]
    Existing,
    /// It was made for this process: its loopback device is still down.
    New,
}

/// Parsed flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFlags {
    /// How many descriptors are donated, from 3 on.
    pub donated: usize,
    /// The encoded spec of what to do.
    pub spec_fd: FdNumber,
    /// Write end of the start pipe.
    pub start_sync_fd: FdNumber,
    /// Where the last words go.
    pub panic_log_fd: FdNumber,
    /// Whom to run as.
    pub identity: Identity,
    /// Capabilities to keep besides those for file access, as a mask.
    pub capabilities: u64,
    /// Where its network namespace is from.
    pub network_namespace: NetworkNamespace,
    /// What the donated host trees are.
    pub trees: Trees,
}

impl StartFlags {
    /// Parses argv after the command's name; the last argument is the container's id and is there for ps(1) only.
    ///
    /// # Errors
    /// An unknown flag, a missing one or a malformed number.
    pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Self, BootError> {
        let mut flags = StartFlags {
            donated: 0,
            spec_fd: -1,
            start_sync_fd: -1,
            panic_log_fd: -1,
            identity: Identity::default(),
            capabilities: 0,
            network_namespace: NetworkNamespace::default(),
            trees: Trees::default(),
        };
        for arg in args {
            let arg = arg.into_string().map_err(|_| BootError::new("a flag is not UTF-8"))?;
            let Some((name, value)) = arg.strip_prefix("--").and_then(|flag| flag.split_once('=')) else { continue };
            match (name, value) {
                ("donated", _) => flags.donated = number(name, value)?,
                ("spec-fd", _) => flags.spec_fd = number(name, value)?,
                ("start-sync-fd", _) => flags.start_sync_fd = number(name, value)?,
                ("panic-log-fd", _) => flags.panic_log_fd = number(name, value)?,
                ("identity", _) => flags.identity = Identity::parse(value).ok_or_else(|| unknown(&arg))?,
                ("apply-caps", _) => flags.capabilities = number(name, value)?,
                ("network-namespace", "new") => flags.network_namespace = NetworkNamespace::New,
                ("trees", _) => flags.trees = Trees::parse(value).ok_or_else(|| unknown(&arg))?,
                _ => return Err(unknown(&arg)),
            }
        }
        if flags.spec_fd < 0 || flags.start_sync_fd < 0 || flags.panic_log_fd < 0 {
            return Err(BootError::new("this is an internal command: it is started by the others"));
        }
        Ok(flags)
    }
}

impl StartFlags {
    /// The capabilities to keep, as a set; none that is not over a network namespace, whoever asks.
    #[must_use]
    pub fn network_capabilities(&self) -> CapabilitySet {
        CapabilitySet::from_bits_retain(self.capabilities) & NETWORK
    }
}

fn unknown(arg: &str) -> BootError {
    BootError::new(format!("unknown flag {arg:?}"))
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, BootError> {
    value.parse().map_err(|_| BootError::new(format!("--{name}={value} is not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<StartFlags, BootError> {
        StartFlags::parse(args.iter().map(OsString::from))
    }

    #[test]
    fn all_flags() {
        let flags = parse(&[
            "--donated=4",
            "--spec-fd=3",
            "--start-sync-fd=4",
            "--panic-log-fd=5",
            "--identity=nobody",
            "--network-namespace=new",
            "--trees=detached",
            "some-id",
        ])
        .unwrap();
        assert_eq!((flags.donated, flags.spec_fd, flags.start_sync_fd, flags.panic_log_fd), (4, 3, 4, 5));
        assert_eq!((flags.identity, flags.trees), (Identity::Nobody, Trees::Detached));
        assert_eq!(flags.network_namespace, NetworkNamespace::New);
    }

    #[test]
    fn refusals() {
        assert!(parse(&[]).is_err());
        assert!(parse(&["--spec-fd=3", "--start-sync-fd=4", "--panic-log-fd=5", "--frob=1"]).is_err());
        assert!(parse(&["--spec-fd=three", "--start-sync-fd=4", "--panic-log-fd=5"]).is_err());
    }
}
