//! [`Entry`]: one container's directory, locked.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{ContainerState, STATE_FILE};
use crate::error::{Context, Result};
use crate::{ContainerId, Error};

/// A container's directory, which no other command changes while this lives.
#[derive(Debug)]
pub struct Entry {
    id: ContainerId,
    path: PathBuf,
    /// The open directory, with the lock.
    _lock: File,
}

impl Entry {
    /// Waits for the lock of the directory at `path`.
    pub(super) fn lock(id: ContainerId, path: PathBuf) -> Result<Self> {
        loop {
            let dir = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Error::NoContainer(id.to_string()));
                }
                other => other.context(|| format!("opening {}", path.display()))?,
            };
            rustix::io::retry_on_intr(|| flock(&dir, FlockOperation::LockExclusive))
                .context(|| format!("locking {}", path.display()))?;
            // Who had the lock before may have removed the directory, and another one may have taken its place.
            if is_at(&dir, &path) {
                return Ok(Entry { id, path, _lock: dir });
            }
        }
    }

    /// The container.
    #[must_use]
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads its state.
    ///
    /// # Errors
    /// [`Error::NoContainer`] if whoever made the entry had not come so far.
    pub fn load(&self) -> Result<ContainerState> {
        ContainerState::read(&self.id, &self.path.join(STATE_FILE))
    }

    /// Writes its state, all of it or nothing.
    ///
    /// # Errors
    /// ENOSPC and the like.
    pub fn save(&self, state: &ContainerState) -> Result<()> {
        let json = serde_json::to_vec(state).map_err(|error| Error::Invalid(error.to_string()))?;
        let path = self.path.join(STATE_FILE);
        replace(&path, &json, 0o600).context(|| format!("writing {}", path.display()))
    }

    /// Removes the entry with everything in it.
    ///
    /// # Errors
    /// Of unlink(2), rmdir(2).
    pub fn remove(self) -> Result<()> {
        // The state goes last but one, so that a half-removed entry still says what there is to clean up.
        let remove = || {
            for file in fs::read_dir(&self.path)? {
                let file = file?;
                if file.file_name() != STATE_FILE {
                    fs::remove_file(file.path())?;
                }
            }
            match fs::remove_file(self.path.join(STATE_FILE)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            fs::remove_dir(&self.path)
        };
        remove().context(|| format!("removing {}", self.path.display()))
    }
}

/// Writes a pid file, which clients wait for and then read.
///
/// # Errors
/// A path without a last component; ENOSPC and the like.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    replace(path, pid.to_string().as_bytes(), 0o666).context(|| format!("writing the pid file {}", path.display()))
}

/// Writes a file, which is there as a whole or not at all. Nothing is synced: the store is on a tmpfs, and pids mean nothing after
/// a crash of the host.
fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut hidden = OsString::from(".");
    hidden.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
    // In the same directory: rename(2) replaces a file at once only within a file system.
    let new = path.with_file_name(hidden);
    OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?.write_all(contents)?;
    fs::rename(&new, path)
}

fn is_at(dir: &File, path: &Path) -> bool {
    let (Ok(own), Ok(found)) = (rustix::fs::fstat(dir.as_fd()), fs::metadata(path)) else { return false };
    (own.st_dev, own.st_ino) == (found.dev(), found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_has_a_number_and_nothing_else() {
        let path = std::env::temp_dir().join(format!("moat-pid-{}", std::process::id()));
        for pid in [4200, 42] {
            write_pid_file(&path, pid).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), pid.to_string());
        }
        fs::remove_file(&path).unwrap();
        assert!(write_pid_file(Path::new("/"), 1).is_err());
    }
}
