//! [`Store`]: what is known of containers between commands, on disk.
//!
//! Each container has a directory with its state file and, if it is a sandbox's first one, the control socket. The
//! directory itself is the lock (flock(2)): there is no lock file that could be left behind, or be removed while
//! another command is about to take it.
//!
//! # Invariants
//! - A state file is replaced as a whole, so that it can be read without the lock.
//! - What a command makes for a container it notes in the state file first: what is found there is all that has to be
//!   cleaned up, wherever the command was killed.

mod entry;
mod state;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};
use crate::{ContainerId, Error};

pub use entry::Entry;
pub(crate) use entry::write_pid_file;
pub use state::{ContainerState, STATE_VERSION, Status};

/// Name of the state file.
const STATE_FILE: &str = "state.json";

/// Bytes of the largest state file that is read.
const MAX_STATE_BYTES: u64 = 16 << 20;

/// The directory of all containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The store in `root`, which need not exist.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Store { root }
    }

    /// Its directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the entry of a new container and locks it.
    ///
    /// # Errors
    /// [`Error::Exists`].
    pub fn create(&self, id: &ContainerId) -> Result<Entry> {
        let private = |path: &Path, recursive| DirBuilder::new().mode(0o700).recursive(recursive).create(path);
        private(&self.root, true).context(|| format!("creating {}", self.root.display()))?;
        // An absolute path: it is written into the state, for commands in other directories.
        let root = fs::canonicalize(&self.root).context(|| format!("finding {}", self.root.display()))?;
        let path = root.join(id.as_str());
        match private(&path, false) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Error::Exists(id.to_string())),
            other => other.context(|| format!("creating {}", path.display()))?,
        }
        // Until it is locked somebody may remove the new directory, and a third one make and use another.
        let entry = Entry::lock(id.clone(), path)?;
        if entry.path().join(STATE_FILE).exists() { Err(Error::Exists(id.to_string())) } else { Ok(entry) }
    }

    /// Locks a container's entry; waits while another command has it.
    ///
    /// # Errors
    /// [`Error::NoContainer`].
    pub fn lock(&self, id: &ContainerId) -> Result<Entry> {
        let path = self.path(id);
        // If there is none, locking it says so.
        let path = fs::canonicalize(&path).unwrap_or(path);
        Entry::lock(id.clone(), path)
    }

    /// Reads a container's state without locking it.
    ///
    /// # Errors
    /// [`Error::NoContainer`]; a malformed file.
    pub fn read(&self, id: &ContainerId) -> Result<ContainerState> {
        ContainerState::read(id, &self.path(id).join(STATE_FILE))
    }

    /// The ids of all containers, sorted.
    ///
    /// # Errors
    /// Of readdir(3); a store that does not exist is empty.
    pub fn ids(&self) -> Result<Vec<ContainerId>> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.context(|| format!("reading {}", self.root.display()))?,
        };
        let mut ids: Vec<ContainerId> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            // An entry that is still being made is no container yet.
            .filter(|id| self.path(id).join(STATE_FILE).exists())
            .collect();
        ids.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        Ok(ids)
    }

    fn path(&self, id: &ContainerId) -> PathBuf {
        self.root.join(id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::SystemTime;

    struct Temporary(Store);

    impl Temporary {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("moat-store-{name}-{}", std::process::id()));
            Temporary(Store::new(root))
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0.root);
        }
    }

    fn id(text: &str) -> ContainerId {
        text.parse().unwrap()
    }

    fn state(name: &str) -> ContainerState {
        ContainerState::new(&id(name), Path::new("/bundle"), Path::new("/bundle/rootfs"), SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn an_entry_comes_and_goes() {
        let temporary = Temporary::new("life");
        let store = &temporary.0;
        assert!(store.ids().unwrap().is_empty());
        assert!(matches!(store.lock(&id("a")), Err(Error::NoContainer(_))));
        let entry = store.create(&id("a")).unwrap();
        assert!(store.ids().unwrap().is_empty(), "an entry without state is none yet");
        entry.save(&state("a")).unwrap();
        assert!(matches!(store.create(&id("a")), Err(Error::Exists(_))));
        assert_eq!(store.ids().unwrap(), [id("a")]);
        assert_eq!(store.read(&id("a")).unwrap(), state("a"));
        entry.remove().unwrap();
        assert!(matches!(store.read(&id("a")), Err(Error::NoContainer(_))));
        assert_eq!(fs::read_dir(&store.root).unwrap().count(), 0);
    }

    #[test]
    fn one_at_a_time_and_never_in_a_removed_entry() {
        let temporary = Temporary::new("lock");
        let store = &temporary.0;
        let inside = AtomicU32::new(0);
        let made = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (inside, made) = (&inside, &made);
                scope.spawn(move || {
                    for round in 0..200 {
                        let entry =
                            if (thread + round) % 2 == 0 { store.create(&id("x")) } else { store.lock(&id("x")) };
                        let Ok(entry) = entry else { continue };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two have the lock");
                        entry.save(&state("x")).unwrap();
                        assert_eq!(store.read(&id("x")).unwrap(), state("x"), "the entry is gone");
                        made.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        if round % 3 == 0 {
                            entry.remove().unwrap();
                        }
                    }
                });
            }
        });
        assert!(made.load(Ordering::SeqCst) > 100);
    }

    #[test]
    fn a_malformed_state_is_an_error() {
        let temporary = Temporary::new("malformed");
        let store = &temporary.0;
        let entry = store.create(&id("a")).unwrap();
        for bad in ["", "{", "{\"version\": 99}"] {
            fs::write(entry.path().join(STATE_FILE), bad).unwrap();
            assert!(matches!(store.read(&id("a")), Err(Error::Invalid(_))), "{bad}");
        }
    }
}
