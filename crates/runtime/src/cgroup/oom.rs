//! [`OomWatch`]: hearing of it when the host's kernel runs out of a container's memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use super::files::{parse_keyed, read_if_there, write};
use crate::error::{Context, Result};

/// A source of events of one cgroup.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    dir: PathBuf,
    source: Source,
}

#[derive(Debug)]
enum Source {
    /// The descriptor is an eventfd; the file that it was registered with stays open.
    V1 { _control: File },
    /// The descriptor is an inotify of memory.events and cgroup.events.
    V2 { kills: u64 },
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomEvent {
    /// Memory ran out.
    Oom,
    /// The cgroup is gone, or has no processes any more; nothing will come.
    Gone,
    /// Nothing of interest.
    Nothing,
}

impl OomWatch {
    pub(super) fn v1(dir: &Path) -> Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).context(|| "creating an eventfd".into())?;
        let path = dir.join("memory.oom_control");
        let control = File::open(&path).context(|| format!("opening {}", path.display()))?;
        write(dir, "cgroup.event_control", format!("{} {}", fd.as_raw_fd(), control.as_raw_fd()))?;
        Ok(OomWatch { fd, dir: dir.to_owned(), source: Source::V1 { _control: control } })
    }

    pub(super) fn v2(dir: &Path) -> Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let fd = inotify::init(flags).context(|| "creating an inotify".into())?;
        for file in ["memory.events", "cgroup.events"] {
            let path = dir.join(file);
            inotify::add_watch(&fd, &path, inotify::WatchFlags::MODIFY)
                .context(|| format!("watching {}", path.display()))?;
        }
        let kills = kills(dir).unwrap_or(0);
        Ok(OomWatch { fd, dir: dir.to_owned(), source: Source::V2 { kills } })
    }

    /// A descriptor that is readable when there is something for [`Self::read`].
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Takes what has come. Does not wait.
    pub fn read(&mut self) -> OomEvent {
        let mut buf = [0; 4096];
        let come = matches!(rustix::io::read(&self.fd, &mut buf), Ok(1..));
        match &mut self.source {
            // The kernel signals the eventfd when the cgroup is removed, too.
            Source::V1 { .. } if !self.dir.exists() => OomEvent::Gone,
            Source::V1 { .. } if come => OomEvent::Oom,
            Source::V1 { .. } => OomEvent::Nothing,
            Source::V2 { kills: before } => match kills(&self.dir) {
                None => OomEvent::Gone,
                Some(now) if now > *before => {
                    *before = now;
                    OomEvent::Oom
                }
                Some(_) if is_empty(&self.dir) => OomEvent::Gone,
                Some(_) => OomEvent::Nothing,
            },
        }
    }
}

pub(super) fn kills(dir: &Path) -> Option<u64> {
    keyed(dir, "memory.events", "oom_kill")
}

pub(super) fn kills_v1(dir: &Path) -> Option<u64> {
    keyed(dir, "memory.oom_control", "oom_kill")
}

/// Each line of memory.events.
pub(super) fn all(dir: &Path) -> Option<BTreeMap<String, u64>> {
    lines(dir, "memory.events")
}

/// Each line of memory.oom_control.
pub(super) fn all_v1(dir: &Path) -> Option<BTreeMap<String, u64>> {
    lines(dir, "memory.oom_control")
}

fn lines(dir: &Path, file: &str) -> Option<BTreeMap<String, u64>> {
    let text = read_if_there(dir, file)?;
    Some(parse_keyed(&text).map(|(key, value)| (key.to_owned(), value)).collect())
}

fn is_empty(dir: &Path) -> bool {
    keyed(dir, "cgroup.events", "populated") == Some(0)
}

fn keyed(dir: &Path, file: &str, key: &str) -> Option<u64> {
    let text = read_if_there(dir, file)?;
    parse_keyed(&text).find(|(name, _)| *name == key).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn version_2_counts_kills_and_sees_the_end() {
        let dir = std::env::temp_dir().join(format!("moat-oom-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("memory.events"), "low 0\noom 0\noom_kill 2\n").unwrap();
        fs::write(dir.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        let mut watch = OomWatch::v2(&dir).unwrap();
        assert_eq!(watch.read(), OomEvent::Nothing);
        fs::write(dir.join("memory.events"), "low 0\noom 1\noom_kill 3\n").unwrap();
        assert_eq!((watch.read(), watch.read()), (OomEvent::Oom, OomEvent::Nothing));
        assert_eq!(all(&dir).unwrap()["oom"], 1);
        fs::write(dir.join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
        assert_eq!(watch.read(), OomEvent::Gone);
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(watch.read(), OomEvent::Gone);
    }
}
