//! Opening host directories and files to donate them.

mod file_directory;
mod layers;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use moat_control::spec::Trees;
use moat_host::mounts::{IdMapped, MountAttributes, map_ids, with_attributes};
use moat_host::spawn::{IdMap, IdMaps, MapWriter, new_user_namespace};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::OpenTreeFlags;

use crate::error::{Context, Error, Result};

pub(crate) use file_directory::{FILE_NAME, directory_of_file};
pub use layers::Layers;

/// How much of a tree of mounts is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submounts {
    /// The mount itself: "bind".
    Hide,
    /// Those below it too: "rbind".
    Show,
}

/// Whether the sandbox may write to a tree; the host enforces it, whatever the sentry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

/// How a tree's ids are shown: those on the disk are the ones inside, those that the mount has are the ones outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountIds {
    /// User ids.
    pub uid: Vec<IdMap>,
    /// Group ids.
    pub gid: Vec<IdMap>,
    /// Whether mounts below it are mapped, too.
    pub how_far: IdMapped,
}

impl MountIds {
    fn apply(&self, tree: &OwnedFd, path: &Path) -> Result<()> {
        let maps = IdMaps { uid: self.uid.clone(), gid: self.gid.clone(), writer: MapWriter::Privileged };
        let what = || format!("mapping the ids of the mount of {} (the host may not be able to)", path.display());
        let namespace = new_user_namespace(&maps).context(what)?;
        map_ids(tree, namespace, self.how_far).context(what)
    }
}

/// Opens host trees in the one way that this process is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opener {
    /// Detached copies of mounts: `..` at their root stays there, device nodes in them do not work.
    Detached,
    /// O_PATH descriptors, which the sandbox process makes into detached copies itself.
    Attached,
}

/// An opened tree.
#[derive(Debug)]
pub(crate) struct HostTree {
    /// To donate.
    pub(crate) fd: OwnedFd,
    /// What it is.
    pub(crate) file_type: FileType,
}

impl Opener {
    /// The way that works for a process with these privileges.
    pub(crate) fn choose() -> Self {
        let effective = rustix::thread::capabilities(None).map(|sets| sets.effective);
        match effective {
            Ok(caps) if caps.contains(rustix::thread::CapabilitySet::SYS_ADMIN) => Opener::Detached,
            _ => Opener::Attached,
        }
    }

    /// What the process that gets the trees is told of them.
    pub(crate) fn trees(self) -> Trees {
        match self {
            Opener::Detached => Trees::Detached,
            Opener::Attached => Trees::Attached,
        }
    }

    /// Opens the tree at `path`, following symbolic links.
    pub(crate) fn open(self, path: &Path, submounts: Submounts, access: Access) -> Result<HostTree> {
        self.try_open(path, submounts, access).context(|| format!("opening {}", path.display()))
    }

    /// As [`Opener::open`], with ids shown as `ids` says.
    pub(crate) fn open_mapped(
        self,
        path: &Path,
        submounts: Submounts,
        access: Access,
        ids: Option<&MountIds>,
    ) -> Result<HostTree> {
        let tree = self.open(path, submounts, access)?;
        match (ids, self) {
            (None, _) => Ok(tree),
            (Some(ids), Opener::Detached) => ids.apply(&tree.fd, path).map(|()| tree),
            // Ids are mapped by an attribute of a mount, and there is no mount of its own without the privilege.
            (Some(_), Opener::Attached) => Err(Error::unsupported(
                format!("the id-mapped mount of {}", path.display()),
                "it can't be made without CAP_SYS_ADMIN",
            )),
        }
    }

    /// Has the host put `layers` together, as a tree of its own.
    pub(crate) fn open_layers(self, layers: &Layers, access: Access) -> Result<HostTree> {
        match self {
            Opener::Detached => {
                let what = || format!("the overlay over {}", layers.top().display());
                describe(with_attributes(layers.mount()?, attributes(access)).context(what)?).context(what)
            }
            Opener::Attached => Err(layers::refused(layers)),
        }
    }

    fn try_open(self, path: &Path, submounts: Submounts, access: Access) -> io::Result<HostTree> {
        let fd = match self {
            Opener::Attached => rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?,
            Opener::Detached => {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let all = flags | OpenTreeFlags::AT_RECURSIVE;
                let tree = match submounts {
                    Submounts::Show => rustix::mount::open_tree(CWD, path, all)?,
                    // EINVAL: submounts that came with a mount namespace of less privilege must not be uncovered.
                    Submounts::Hide => match rustix::mount::open_tree(CWD, path, flags) {
                        Err(rustix::io::Errno::INVAL) => rustix::mount::open_tree(CWD, path, all)?,
                        other => other?,
                    },
                };
                with_attributes(tree, attributes(access))?
            }
        };
        describe(fd)
    }
}

/// What every mount that is donated has.
fn attributes(access: Access) -> MountAttributes {
    let mut attributes = MountAttributes::NOSUID | MountAttributes::NODEV;
    attributes.set(MountAttributes::RDONLY, access == Access::ReadOnly);
    attributes
}

fn describe(fd: OwnedFd) -> io::Result<HostTree> {
    let file_type = FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
    Ok(HostTree { fd, file_type })
}
