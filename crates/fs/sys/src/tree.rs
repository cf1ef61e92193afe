//! [`TreeFs`]: a read-only file system of generated files.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use moat_abi::Result;
use moat_abi::stat::{DeviceId, Statfs};
use moat_vfs::cred::Credentials;
use moat_vfs::filesystem::FileSystem;
use moat_vfs::generated::{Attributes, Table, TableDir, Text, TextFile};
use moat_vfs::inode::Inode;

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

struct Files {
    dev: DeviceId,
    files: Arc<Vec<File>>,
}

impl Files {
    fn attributes(&self, path: &str, mode: u32) -> Attributes {
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
        self.files.iter().map(|f| f.path.clone()).collect()
    }

    fn file(&self, path: &str) -> Arc<dyn Inode> {
        let at = self.files.iter().position(|f| f.path == path).unwrap_or(0);
        TextFile::new(self.attributes(path, 0o444), Contents { files: self.files.clone(), at })
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
        let root = TableDir::root(Files { dev, files: Arc::new(files) });
        Arc::new(TreeFs { name, magic, dev, root })
    }
}

impl FileSystem for TreeFs {
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
