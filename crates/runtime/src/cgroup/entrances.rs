//! [`Entrances`]: how a new process gets into a cgroup by itself, which is faster than to be moved.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use moat_host::spawn::Cgroups;
use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};

use super::{Cgroup, Layout, move_process};
use crate::error::{Context, Result};

/// Whether the kernel can make a process in a cgroup of version 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cloning {
    /// It can.
    IntoCgroup,
    /// Who makes it has not the rights, or gives them up first.
    Plain,
}

impl Cloning {
    /// What holds for a child in this process's user namespace: an ordinary user may not have all of a hierarchy.
    pub(crate) fn choose() -> Self {
        if rustix::process::geteuid().is_root() { Cloning::IntoCgroup } else { Cloning::Plain }
    }
}

/// Open files by which a new process gets into a cgroup.
#[derive(Debug, Default)]
pub(crate) struct Entrances {
    directory: Option<OwnedFd>,
    tasks: Vec<OwnedFd>,
}

impl Entrances {
    /// For the process to be made.
    pub(crate) fn for_spawn(&self) -> Cgroups<'_> {
        Cgroups { directory: self.directory.as_ref().map(AsFd::as_fd), tasks: &self.tasks }
    }
}

impl Cgroup {
    /// Opens the ways into a cgroup that is there.
    pub(crate) fn entrances(&self, cloning: Cloning) -> Result<Entrances> {
        // None for a scope, which exists only with a process in it: systemd moves this one there.
        let mut entrances = Entrances::default();
        if self.unit.is_some() {
            return Ok(entrances);
        }
        for (path, unified) in self.places() {
            // clone3(2) knows cgroups of version 2 only: for the others the child writes itself into `tasks` before it
            // executes.
            if !unified {
                let open = OpenOptions::new().write(true).open(path.join("tasks"));
                entrances.tasks.push(open.context(|| format!("opening the cgroup {}", path.display()))?.into());
            } else if cloning == Cloning::IntoCgroup {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let open = rustix::fs::open(path, flags, Mode::empty());
                entrances.directory = Some(open.context(|| format!("opening the cgroup {}", path.display()))?);
            }
        }
        Ok(entrances)
    }

    /// Moves a new process where `entrances` do not lead it.
    pub(crate) fn join_rest(&self, pid: i32, resources: Option<&LinuxResources>, entrances: &Entrances) -> Result<()> {
        if self.unit.is_some() {
            return self.join(pid, resources);
        }
        self.move_rest(pid, entrances)
    }

    /// As [`Self::join_rest`], when another process has joined before.
    pub(crate) fn join_rest_later(&self, pid: i32, entrances: &Entrances) -> Result<()> {
        if self.unit.is_some() { self.adopt(pid) } else { self.move_rest(pid, entrances) }
    }

    fn move_rest(&self, pid: i32, entrances: &Entrances) -> Result<()> {
        let rest = self.places().into_iter().filter(|(_, unified)| *unified && entrances.directory.is_none());
        rest.map(|(path, _)| path).try_for_each(|path| {
            move_process(path, pid).context(|| format!("moving a process into the cgroup {}", path.display()))
        })
    }

    /// Its directories, and whether they are of version 2.
    fn places(&self) -> Vec<(&Path, bool)> {
        match &self.layout {
            Layout::V1(dirs) => {
                dirs.iter().map(|dir| (dir.path.as_path(), dir.controllers == [String::new()])).collect()
            }
            Layout::V2 { path, .. } => vec![(path.as_path(), true)],
        }
    }
}
