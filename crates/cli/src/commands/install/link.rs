//! [`Link`]: the name of this program as containerd's shim, beside it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// What precedes a link's path in the file that it was made for; one that was there before is not noted.
pub(super) const NOTE: &str = "# The link was made for it: ";

/// A symbolic link to this program.
pub(super) struct Link {
    pub(super) path: PathBuf,
    /// The name of the program beside it.
    target: PathBuf,
}

impl Link {
    /// That beside a program.
    pub(super) fn beside(program: &Path) -> Self {
        let target = program.file_name().unwrap_or_default().into();
        Link { path: program.with_file_name(moat_shim::PROGRAM), target }
    }

    /// The one that a file says was made for it.
    pub(super) fn noted(text: &str) -> Option<Self> {
        let path = text.lines().find_map(|line| line.strip_prefix(NOTE))?;
        Some(Link { path: path.into(), target: PathBuf::new() })
    }

    /// What the file that needs it is to say of it, and, if it has to be made, what is said to the user. `before` is the file's text from
    /// an earlier installation.
    ///
    /// # Errors
    /// There is something else of that name.
    pub(super) fn plan(&self, before: Option<&str>) -> anyhow::Result<(String, Option<String>)> {
        let shown = self.path.display();
        let is_ours = before.and_then(Link::noted).is_some_and(|link| link.path == self.path);
        let note = format!("{NOTE}{shown}\n");
        match fs::canonicalize(&self.path) {
            Ok(found) if fs::canonicalize(self.program()).is_ok_and(|program| program == found) => {
                // A package's, unless it was noted.
                Ok((if is_ours { note } else { String::new() }, None))
            }
            Err(error) if error.kind() == ErrorKind::NotFound && fs::symlink_metadata(&self.path).is_err() => {
                Ok((note, Some(format!("the link {shown} to {}", self.target.display()))))
            }
            _ => bail!("{shown} is there already, and is not this program"),
        }
    }

    fn program(&self) -> PathBuf {
        self.path.with_file_name(&self.target)
    }

    /// Makes it.
    ///
    /// # Errors
    /// Of symlink(2).
    pub(super) fn make(&self) -> anyhow::Result<()> {
        symlink(&self.target, &self.path).with_context(|| format!("making the link {}", self.path.display()))
    }

    /// Removes it, if it is one; says so.
    ///
    /// # Errors
    /// Of unlink(2).
    pub(super) fn remove(&self) -> anyhow::Result<String> {
        let shown = self.path.display();
        // Somebody may have put a program there since.
        if !fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.is_symlink()) {
            return Ok(String::new());
        }
        fs::remove_file(&self.path).with_context(|| format!("removing {shown}"))?;
        Ok(format!("Removed {shown}.\n"))
    }
}
