//! Overlays over trees of the host (`--overlay2`): which trees have one, and where the changes go.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use moat_control::spec::OverlayLimits;

use crate::ContainerId;
use crate::error::{Context, Result};

/// The value of `--overlay2`, other than `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayFlag {
    /// Which trees have one.
    pub scope: Scope,
    /// Where their files are.
    pub medium: Medium,
    /// What each of them may take.
    pub limits: OverlayLimits,
}

/// Which trees of the host are below an overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The root file system.
    Root,
    /// Bind mounts, too, but for those that the guest can't write to.
    All,
}

/// Where the files of an overlay are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Medium {
    /// In the sandbox's memory.
    Memory,
    /// In the tree itself; in memory for the mount of a single file.
    Tree,
    /// In this directory of the host.
    Directory(PathBuf),
}

impl fmt::Display for OverlayFlag {
    /// As `--overlay2` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.scope {
            Scope::Root => "root:",
            Scope::All => "all:",
        })?;
        match &self.medium {
            Medium::Memory => f.write_str("memory"),
            Medium::Tree => f.write_str("self"),
            Medium::Directory(path) => write!(f, "dir={}", path.display()),
        }?;
        self.limits.size_bytes.map_or(Ok(()), |n| write!(f, ",size={n}"))?;
        self.limits.inodes.map_or(Ok(()), |n| write!(f, ",nr_inodes={n}"))
    }
}

/// Where changes to a tree of the host go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Changes {
    /// Into it.
    #[default]
    Reach,
    /// Into the sandbox's memory.
    Memory(OverlayLimits),
    /// Into files without a name in a directory of the host that is made for it.
    Files(OverlayDirectory, OverlayLimits),
}

/// The directory in which overlays have their files: the sandbox may do there what it likes, and leaves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayDirectory {
    /// Where it is made.
    pub(crate) path: PathBuf,
    /// The tree whose owner gets it.
    pub(crate) tree: PathBuf,
    /// Its name, if it is in the root of that tree.
    pub(crate) hidden: Option<String>,
}

impl OverlayFlag {
    /// Where changes go to `tree`, of container `id`.
    pub(crate) fn changes(&self, tree: &Path, id: &ContainerId) -> Changes {
        let parent = match &self.medium {
            Medium::Tree if tree.is_dir() => tree,
            Medium::Directory(path) => path,
            Medium::Memory | Medium::Tree => return Changes::Memory(self.limits),
        };
        // Whoever else has the same tree and id has another directory.
        let mut unique = [0; 8];
        moat_host::random::fill(&mut unique);
        let name = format!(".moat.overlay.{id}.{:016x}", u64::from_ne_bytes(unique));
        let (path, tree) = (parent.join(&name), tree.to_owned());
        let hidden = (self.medium == Medium::Tree).then_some(name);
        Changes::Files(OverlayDirectory { path, tree, hidden }, self.limits)
    }
}

impl OverlayDirectory {
    /// Makes it, for the owner of the tree.
    pub(crate) fn make(&self) -> Result<()> {
        let what = || format!("making the overlay's directory {}", self.path.display());
        DirBuilder::new().mode(0o700).create(&self.path).context(what)?;
        let [tree, made] = [&self.tree, &self.path].map(fs::metadata);
        let (tree, made) = (tree.context(what)?, made.context(what)?);
        // An ordinary user can't chown(2), and is the owner already.
        if (tree.uid(), tree.gid()) != (made.uid(), made.gid()) {
            chown(&self.path, Some(tree.uid()), Some(tree.gid())).context(what)?;
        }
        Ok(())
    }
}

/// Removes a directory that was made for overlays, if it is there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        // An earlier attempt to delete may have come so far.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.context(|| format!("removing the overlay's directory {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(medium: Medium) -> OverlayFlag {
        OverlayFlag { scope: Scope::All, medium, limits: OverlayLimits { size_bytes: Some(4096), inodes: Some(7) } }
    }

    #[test]
    fn shown_as_the_flag_is_written() {
        assert_eq!(flag(Medium::Tree).to_string(), "all:self,size=4096,nr_inodes=7");
        assert_eq!(flag(Medium::Directory("/x".into())).to_string(), "all:dir=/x,size=4096,nr_inodes=7");
    }

    #[test]
    fn a_single_file_has_its_changes_in_memory() {
        let id: ContainerId = "c".parse().unwrap();
        assert!(matches!(flag(Medium::Tree).changes(Path::new("/proc/self/exe"), &id), Changes::Memory(_)));
        let Changes::Files(dir, _) = flag(Medium::Tree).changes(Path::new("/usr"), &id) else { panic!("no directory") };
        assert_eq!(dir.path.parent(), Some(Path::new("/usr")));
        assert_eq!(dir.path.file_name().and_then(|name| name.to_str()), dir.hidden.as_deref());
        let Changes::Files(other, _) = flag(Medium::Directory("/tmp".into())).changes(Path::new("/usr"), &id) else {
            panic!("no directory")
        };
        assert_eq!((other.path.parent(), other.hidden), (Some(Path::new("/tmp")), None));
    }

    #[test]
    fn removed_with_what_is_in_it() {
        let id: ContainerId = "removed".parse().unwrap();
        let changes = flag(Medium::Directory(std::env::temp_dir())).changes(Path::new("/usr"), &id);
        let Changes::Files(dir, _) = changes else { panic!("no directory") };
        dir.make().unwrap();
        fs::write(dir.path.join("left"), "x").unwrap();
        remove(&dir.path).unwrap();
        assert!(!dir.path.exists());
        remove(&dir.path).unwrap();
    }
}
