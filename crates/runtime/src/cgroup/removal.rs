//! Removing cgroups, whose last processes may not be gone yet.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fs, io};

use super::{children, collect_processes};

/// How long all of a container's cgroups are given together to become empty: their last process is about to be gone.
const REMOVE_PATIENCE: Duration = Duration::from_secs(2);

/// After which time it is said who is waited for.
const SAID_AFTER: Duration = Duration::from_millis(300);

/// What is left of the patience of one deletion.
pub(super) struct Waiting {
    since: Instant,
    next: Duration,
    said: bool,
}

impl Waiting {
    pub(super) fn new() -> Waiting {
        Waiting { since: Instant::now(), next: Duration::from_millis(1), said: false }
    }

    /// Waits for `dir` to become empty, a little longer each time; false if it has been long enough.
    fn wait(&mut self, dir: &Path) -> bool {
        let waited = self.since.elapsed();
        if waited > REMOVE_PATIENCE {
            return false;
        }
        if waited > SAID_AFTER && !self.said {
            tracing::warn!("waiting for the cgroup {} to become empty{}", dir.display(), occupants(dir));
            self.said = true;
        }
        sleep(self.next);
        // A process that was just killed is gone within milliseconds; one in a host call may take long.
        self.next = self.next.saturating_mul(2).min(Duration::from_millis(200));
        true
    }
}

/// Removes a cgroup and those below it, as soon as they are empty.
///
/// # Errors
/// EBUSY after [`REMOVE_PATIENCE`]; the host's.
pub(super) fn remove(dir: &Path, waiting: &mut Waiting) -> io::Result<()> {
    loop {
        // rmdir(2) takes a cgroup without children only. Guests with a writable cgroup mount may have made some, and
        // make more meanwhile.
        for child in children(dir) {
            remove(&child, waiting)?;
        }
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && waiting.wait(dir) => {}
            result => return result,
        }
    }
}

/// The processes in a cgroup and below it, for a message: " (in it: 7 sleep Z, 8 sh S)".
pub(super) fn occupants(dir: &Path) -> String {
    const SHOWN: usize = 5;
    let mut all = BTreeSet::new();
    collect_processes(dir, &mut all);
    if all.is_empty() {
        return String::new();
    }
    let name = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name is in parentheses and may have any others in it.
        let (name, rest) = stat.rsplit_once(')').unwrap_or_default();
        let name = name.split_once('(').map_or("?", |(_, name)| name);
        let state = rest.split_whitespace().next().unwrap_or("gone");
        format!("{pid} {name} {state}")
    };
    let more = if all.len() > SHOWN { ", ..." } else { "" };
    format!(" (in it: {}{more})", all.iter().take(SHOWN).map(name).collect::<Vec<_>>().join(", "))
}
