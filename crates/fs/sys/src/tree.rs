//! [`TreeFs`]: a read-only file system of generated files.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use moat_abi::Result;
use moat_abi::stat::{DeviceId, Statfs};
use moat_image::Refusal;
use moat_image::state::FileSystemState;
use moat_sync::{LockClass, RwLock};
use moat_vfs::cred::Credentials;
use moat_vfs::filesystem::FileSystem;
use moat_vfs::generated::{Attributes, Table, TableDir, Text, TextFile};
use moat_vfs::inode::Inode;
use moat_vfs::persist::SaveFiles;

/// Path and contents of a file; a path with a trailing slash is an empty directory.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) make: Box<dyn Fn() -> String + Send + Sync>,
}

/// A file whose contents `make` makes, a newline added.
pub(crate) fn file(path: impl Into<String>, make: impl Fn() -> String + Send + Sync + 'static) -> File {
    File { path: path.into(), make: Box::new(make) }
}

/// An empty directory.
pub(crate) fn empty_dir(path: &str) -> File {
    file(format!("{path}/"), String::new)
}

/// Makes the files anew, with a number for their state, unless that is still the given one.
type Source = Box<dyn Fn(usize) -> Option<(usize, Vec<File>)> + Send + Sync>;

struct Files {
    dev: DeviceId,
    /// The files with the number of their state.
    made: RwLock<(usize, Arc<Vec<File>>)>,
    source: Option<Source>,
}

impl Files {
    fn files(&self) -> Arc<Vec<File>> {
        let (state, files) = {
            let made = self.made.read();
            (made.0, made.1.clone())
        };
        match self.source.as_ref().and_then(|source| source(state)) {
            Some((state, files)) => {
                let files = Arc::new(files);
                // A slower reader may put an older state back: the next one finds that it is not the current one.
                *self.made.write() = (state, files.clone());
                files
            }
            None => files,
        }
    }

    fn attributes(&self, path: &str, mode: u32) -> Attributes {
        // From the path alone: the number stays, however often the files are made.
        let mut h = DefaultHasher::new();
        path.hash(&mut h);
        Attributes { dev: self.dev, ino: (h.finish() & 0x7fff_ffff) | 0x100, mode, uid: 0, gid: 0 }
    }
}

struct Contents {
    files: Arc<Vec<File>>,
    at: usize,
}

impl Text for Contents {
    fn read(&self, _caller: &Credentials) -> Result<Vec<u8>> {
        let mut text = (self.files[self.at].make)();
        if !text.is_empty() {
            text.push('\n');
        }
        Ok(text.into_bytes())
    }
}

impl Table for Files {
    fn paths(&self) -> Vec<String> {
        self.files().iter().map(|f| f.path.clone()).collect()
    }

    fn file(&self, path: &str) -> Arc<dyn Inode> {
        let files = self.files();
        let at = files.iter().position(|f| f.path == path).unwrap_or(0);
        TextFile::new(self.attributes(path, 0o444), Contents { files, at })
    }

    fn dir_attributes(&self, path: &str) -> Attributes {
        self.attributes(path, 0o555)
    }
}

/// A mounted tree.
pub(crate) struct TreeFs {
    name: &'static str,
    magic: i64,
    dev: DeviceId,
    root: Arc<dyn Inode>,
}

impl TreeFs {
    pub(crate) fn new(dev: DeviceId, name: &'static str, magic: i64, files: Vec<File>) -> Arc<TreeFs> {
        TreeFs::make(dev, name, magic, files, None)
    }

    /// A tree that `source` makes, and makes again when its state has another number.
    pub(crate) fn changing(
        dev: DeviceId,
        name: &'static str,
        magic: i64,
        source: impl Fn(usize) -> Option<(usize, Vec<File>)> + Send + Sync + 'static,
    ) -> Arc<TreeFs> {
        TreeFs::make(dev, name, magic, Vec::new(), Some(Box::new(source)))
    }

    fn make(dev: DeviceId, name: &'static str, magic: i64, files: Vec<File>, source: Option<Source>) -> Arc<TreeFs> {
        let made = RwLock::new(LockClass::Leaf, (0, Arc::new(files)));
        let root = TableDir::root(Files { dev, made, source });
        Arc::new(TreeFs { name, magic, dev, root })
    }
}

impl FileSystem for TreeFs {
    fn save(&self, _saver: &mut dyn SaveFiles) -> std::result::Result<FileSystemState, Refusal> {
        Ok(FileSystemState::Made)
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn dev(&self) -> DeviceId {
        self.dev
    }

    fn statfs(&self) -> Result<Statfs> {
        Ok(Statfs { f_type: self.magic, f_bsize: 4096, f_frsize: 4096, f_namelen: 255, ..Statfs::default() })
    }
}
