//! Descriptors that the caller passes on to a container.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{OwnedFd, RawFd};

use anyhow::{Context, bail};
use moat_host::spawn::Donation;

use crate::args::{Command, Create};

/// As many as a control message can carry, less what a container needs itself.
const MAX_DESCRIPTORS: usize = 240;

/// Descriptors that a container gets besides stdio.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// Its descriptors 3, 4, ...
    pub(crate) fds: Vec<OwnedFd>,
    /// How many of them, from the first on, are listening sockets by the protocol of sd_listen_fds(3).
    pub(crate) listening: usize,
}

/// Takes over those that a command says are meant for its container.
pub(crate) fn claim(command: &Command) -> anyhow::Result<Inherited> {
    match command {
        Command::Create(create) => from_flags(create),
        Command::Run(run) => from_flags(&run.create),
        Command::Restore(restore) => from_flags(&restore.run.create),
        Command::Exec(exec) => take(0, exec.preserve_fds, &exec.pass_fd),
        _ => Ok(Inherited::default()),
    }
}

fn from_flags(create: &Create) -> anyhow::Result<Inherited> {
    take(listening_sockets(), create.preserve_fds, &create.pass_fd)
}

fn take(listening: usize, preserved: usize, passed: &[String]) -> anyhow::Result<Inherited> {
    if !passed.is_empty() {
        // Both would number the descriptors from 3 on.
        if preserved > 0 || listening > 0 {
            bail!("--pass-fd and --preserve-fds do not go together");
        }
        return take_passed(passed);
    }
    let count = listening + preserved;
    if count > MAX_DESCRIPTORS {
        bail!("--preserve-fds: more than {MAX_DESCRIPTORS} descriptors");
    }
    let fds = if count == 0 { Vec::new() } else { claim_all(count)? };
    Ok(Inherited { fds, listening })
}

fn claim_all(count: usize) -> anyhow::Result<Vec<OwnedFd>> {
    let last = count + 2;
    moat_host::inherited::claim(Donation::FIRST, count)
        .with_context(|| format!("descriptors 3 to {last} were to be passed on, but are not all open"))
}

/// `M:N`, where the N are 3, 4, ...
fn take_passed(passed: &[String]) -> anyhow::Result<Inherited> {
    let mut numbers = Vec::with_capacity(passed.len());
    // Copies are numbered in order: in the container they are 3, 4 and so on.
    for (text, expected) in passed.iter().zip(Donation::FIRST..) {
        let parsed = text.split_once(':').and_then(|(m, n)| Some((m.parse::<RawFd>().ok()?, n.parse::<RawFd>().ok()?)));
        match parsed {
            Some((from, to)) if from >= Donation::FIRST && to == expected => numbers.push(from),
            _ => bail!("--pass-fd {text:?} is not M:{expected} with M from 3 on"),
        }
    }
    // One descriptor may be passed on under several numbers.
    let distinct: BTreeSet<RawFd> = numbers.iter().copied().collect();
    let fds = moat_host::inherited::claim_some(&distinct).context("--pass-fd: the descriptors are not all open")?;
    let by_number: BTreeMap<RawFd, OwnedFd> = distinct.into_iter().zip(fds).collect();
    let copy = |number| by_number.get(number).context("--pass-fd")?.try_clone().context("--pass-fd");
    Ok(Inherited { fds: numbers.iter().map(copy).collect::<anyhow::Result<_>>()?, listening: 0 })
}

fn listening_sockets() -> usize {
    let number = |name| std::env::var(name).ok()?.parse::<usize>().ok();
    // sd_listen_fds(3): the variables may be meant for another process.
    let own = usize::try_from(std::process::id()).ok();
    if own.is_some() && number("LISTEN_PID") == own { number("LISTEN_FDS").unwrap_or(0) } else { 0 }
}
