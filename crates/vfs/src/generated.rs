//! Files whose contents are made when they are read: the stuff of proc and sysfs.
//!
//! - [`Text`] makes the contents of a file, and [`TextFile`] is the inode around it.
//! - [`Listing`] gives the entries of a directory, and [`ListedDir`] is the inode around it.
//!
//! A reader sees one snapshot from the read at position 0 on, as Linux's seq_file gives one buffer at a time.

use std::any::Any;
use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::stat::DeviceId;
use moat_abi::{Errno, Result};
use moat_image::Refusal;
use moat_image::state::OpenFileKind;
use moat_sync::{LockClass, Mutex};

use crate::caller::Caller;
use crate::clock::now;
use crate::cred::Credentials;
use crate::file::{DirEntry, DirSink, FIRST_ENTRY, File, Seekable};
use crate::inode::{Access, Cache, Inode, InodeKey, Metadata, OpenContext, SetAttr};
use crate::open_file::OpenFile;
use crate::persist::{Compare, SaveFiles};

/// What stat(2) says of a generated file.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    /// Device of the file system.
    pub dev: DeviceId,
    /// Inode number.
    pub ino: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Attributes {
    /// What names the file.
    #[must_use]
    pub fn key(&self) -> InodeKey {
        InodeKey { dev: self.dev, ino: self.ino }
    }

    /// The metadata of a file of `file_type`; its times are the present.
    #[must_use]
    pub fn metadata(&self, file_type: FileType) -> Metadata {
        let now = now();
        Metadata {
            dev: self.dev,
            ino: self.ino,
            mode: file_type.mode_bits() | self.mode,
            nlink: if file_type == FileType::Directory { 2 } else { 1 },
            uid: self.uid,
            gid: self.gid,
            blksize: 4096,
            atime: now,
            mtime: now,
            ctime: now,
            ..Metadata::default()
        }
    }
}

/// Makes the contents of a file, and takes what is written to it.
pub trait Text: Send + Sync + 'static {
    /// The contents for `caller`, who reads through a description opened with `opener`'s credentials.
    ///
    /// # Errors
    /// ESRCH for a process that is gone; EACCES; those of the file.
    fn read(&self, caller: &Credentials) -> Result<Vec<u8>>;

    /// Takes one write.
    ///
    /// # Errors
    /// EINVAL for what is not understood; EIO by default.
    fn write(&self, _caller: &Credentials, _data: &[u8]) -> Result<()> {
        Err(Errno::EIO)
    }

    /// Whether `creds` may open it, beyond the permission bits.
    ///
    /// # Errors
    /// EACCES, EPERM, ESRCH.
    fn may_open(&self, _caller: &dyn Caller) -> Result<()> {
        Ok(())
    }

    /// Whether `caller` may open it for writing.
    ///
    /// # Errors
    /// EACCES.
    fn may_open_to_write(&self, _caller: &dyn Caller) -> Result<()> {
        Ok(())
    }

    /// The file that `caller` opens, where not all see the same in it: settings of the caller's namespaces.
    fn opened_by(self: Arc<Self>, _caller: &dyn Caller) -> Arc<Self>
    where
        Self: Sized,
    {
        self
    }

    /// Whether it takes writes through a description that was opened by the thread with this id, or by none.
    ///
    /// # Errors
    /// EPERM.
    fn may_write(&self, _opener: Option<u64>) -> Result<()> {
        Ok(())
    }
}

/// The inode of a generated file.
pub struct TextFile<T> {
    attributes: Attributes,
    text: Arc<T>,
}

impl<T: Text> TextFile<T> {
    /// An inode that shows `text`.
    pub fn new(attributes: Attributes, text: T) -> Arc<TextFile<T>> {
        Arc::new(TextFile { attributes, text: Arc::new(text) })
    }
}

impl<T: Text> Inode for TextFile<T> {
    fn metadata(&self) -> Result<Metadata> {
        Ok(self.attributes.metadata(FileType::Regular))
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn fleeting_key(&self) -> Option<InodeKey> {
        Some(self.attributes.key())
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        // O_TRUNC and ftruncate have no effect, as for any file of proc.
        if change.size.is_some() && change.mode.is_none() && change.uid.is_none() && change.gid.is_none() {
            return Ok(());
        }
        Err(Errno::EPERM)
    }

    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        self.text.may_open(ctx.caller)?;
        if ctx.flags.access_mode().can_write() {
            self.text.may_open_to_write(ctx.caller)?;
        }
        let opener = ctx.caller.task().map(|t| t.thread_pid().id);
        let snapshot = Mutex::new(LockClass::FileData, None);
        Ok(Arc::new(OpenText { text: self.text.clone().opened_by(ctx.caller), opener, snapshot }))
    }
}

struct OpenText<T> {
    text: Arc<T>,
    opener: Option<u64>,
    snapshot: Mutex<Option<Arc<Vec<u8>>>>,
}

impl<T: Text> File for OpenText<T> {
    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        saver.by_path(f, Compare::Type)
    }

    fn read(&self, f: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        // From the start again: the contents are made anew, as lseek to 0 does on Linux.
        let known = if pos == 0 { None } else { self.snapshot.lock().clone() };
        let text = match known {
            Some(t) => t,
            None => {
                let fresh = Arc::new(self.text.read(f.creds())?);
                *self.snapshot.lock() = Some(fresh.clone());
                fresh
            }
        };
        // A position past the end reads nothing.
        let rest = usize::try_from(pos).ok().and_then(|at| text.get(at..)).unwrap_or(&[]);
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write(&self, f: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        self.text.may_write(self.opener)?;
        self.text.write(f.creds(), buf)?;
        Ok(buf.len())
    }

    fn append(&self, f: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        self.write(f, buf, 0).map(|n| (n, n as u64))
    }

    fn seekable(&self) -> Seekable {
        Seekable::NoEnd
    }
}

/// Gives the entries of a directory.
pub trait Listing: Send + Sync + 'static {
    /// The entry `name`.
    ///
    /// # Errors
    /// ENOENT.
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>>;

    /// Name, inode number and type of all entries, in a stable order.
    ///
    /// # Errors
    /// ENOENT for a process that is gone.
    fn entries(&self) -> Result<Vec<Entry>>;

    /// How far the entries may be cached.
    fn cache_policy(&self) -> Cache {
        Cache::None
    }

    /// The link count that stat(2) gives.
    fn links(&self) -> u32 {
        2
    }

    /// Owner and group, where they change while the directory is known.
    fn owner(&self) -> Option<(u32, u32)> {
        None
    }

    /// Whether `caller` may list it and search it, whatever the permission bits say.
    fn grants(&self, _caller: &dyn Caller) -> bool {
        false
    }

    /// Whether `creds` may list it or search it, beyond the permission bits.
    ///
    /// # Errors
    /// EACCES, EPERM.
    fn may_open(&self, _caller: &dyn Caller) -> Result<()> {
        Ok(())
    }
}

/// An entry of a [`Listing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// Inode number, not 0.
    pub ino: u64,
    /// The type.
    pub file_type: FileType,
}

/// The inode of a generated directory.
pub struct ListedDir<L> {
    attributes: Attributes,
    listing: Arc<L>,
}

impl<L: Listing> ListedDir<L> {
    /// An inode that shows `listing`.
    pub fn new(attributes: Attributes, listing: L) -> Arc<ListedDir<L>> {
        Arc::new(ListedDir { attributes, listing: Arc::new(listing) })
    }

    /// What it shows.
    #[must_use]
    pub fn listing(&self) -> &L {
        &self.listing
    }
}

impl<L: Listing> Inode for ListedDir<L> {
    fn metadata(&self) -> Result<Metadata> {
        let mut meta = self.attributes.metadata(FileType::Directory);
        meta.nlink = self.listing.links();
        if let Some((uid, gid)) = self.listing.owner() {
            (meta.uid, meta.gid) = (uid, gid);
        }
        Ok(meta)
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn fleeting_key(&self) -> Option<InodeKey> {
        Some(self.attributes.key())
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.listing.lookup(name)
    }

    fn cache_policy(&self) -> Cache {
        self.listing.cache_policy()
    }

    fn permission_for(&self, caller: &dyn Caller, access: Access) -> Result<()> {
        // Writing stays a matter of the permission bits.
        if self.listing.grants(caller) && !access.contains(Access::WRITE) {
            return Ok(());
        }
        self.permission(caller.creds(), access)
    }

    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        self.listing.may_open(ctx.caller)?;
        Ok(Arc::new(OpenListing { listing: self.listing.clone(), snapshot: Mutex::new(LockClass::FileData, None) }))
    }
}

struct OpenListing<L> {
    listing: Arc<L>,
    snapshot: Mutex<Option<Arc<Vec<Entry>>>>,
}

impl<L: Listing> File for OpenListing<L> {
    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        saver.by_path(f, Compare::Type)
    }

    fn read(&self, _f: &OpenFile, _buf: &mut [u8], _pos: u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn seekable(&self) -> Seekable {
        Seekable::Yes
    }

    fn readdir(&self, _f: &OpenFile, pos: u64, sink: &mut DirSink<'_>) -> Result<u64> {
        // A directory that is read from its start again shows what is there then.
        let known = if pos == FIRST_ENTRY { None } else { self.snapshot.lock().clone() };
        let entries = match known {
            Some(e) => e,
            None => {
                let fresh = Arc::new(self.listing.entries()?);
                *self.snapshot.lock() = Some(fresh.clone());
                fresh
            }
        };
        let mut pos = pos;
        // Positions count entries of the snapshot, whose order is stable.
        let start = usize::try_from(pos - FIRST_ENTRY).unwrap_or(usize::MAX);
        for e in entries.iter().skip(start) {
            let entry = DirEntry { name: &e.name, ino: e.ino, file_type: Some(e.file_type), next: pos + 1 };
            // What did not fit is given again from `pos`.
            if sink(entry).is_break() {
                break;
            }
            pos += 1;
        }
        Ok(pos)
    }
}

/// The inode of a generated symbolic link whose text is fixed.
pub struct FixedLink {
    attributes: Attributes,
    target: Vec<u8>,
}

impl FixedLink {
    /// A link to `target`.
    #[must_use]
    pub fn new(attributes: Attributes, target: &[u8]) -> Arc<FixedLink> {
        Arc::new(FixedLink { attributes, target: target.to_vec() })
    }
}

impl Inode for FixedLink {
    fn metadata(&self) -> Result<Metadata> {
        Ok(Metadata { size: self.target.len() as u64, ..self.attributes.metadata(FileType::Symlink) })
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn fleeting_key(&self) -> Option<InodeKey> {
        Some(self.attributes.key())
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        Ok(self.target.clone())
    }
}

/// A file with contents that a plain function makes.
pub struct Made<F>(pub F);

impl<F: Fn() -> Vec<u8> + Send + Sync + 'static> Text for Made<F> {
    fn read(&self, _caller: &Credentials) -> Result<Vec<u8>> {
        Ok((self.0)())
    }
}

/// `inode` as its concrete type.
#[must_use]
pub fn downcast<T: Inode>(inode: Arc<dyn Inode>) -> Option<Arc<T>> {
    let any: Arc<dyn Any + Send + Sync> = inode;
    any.downcast().ok()
}

/// A tree of generated files given by their paths; the directories follow from them.
pub trait Table: Send + Sync + 'static {
    /// The paths of all files, without a leading slash, and of directories that are empty, with a trailing one.
    fn paths(&self) -> Vec<String>;
    /// The file at a path of [`Table::paths`].
    fn file(&self, path: &str) -> Arc<dyn Inode>;
    /// Attributes of the directory at `path`, "" being the root.
    fn dir_attributes(&self, path: &str) -> Attributes;
}

/// A directory of a [`Table`].
pub struct TableDir<T> {
    table: Arc<T>,
    /// "" or ending in a slash.
    prefix: String,
}

impl<T: Table> TableDir<T> {
    /// The root of the tree.
    pub fn root(table: T) -> Arc<dyn Inode> {
        let table = Arc::new(table);
        let attributes = table.dir_attributes("");
        ListedDir::new(attributes, TableDir { table, prefix: String::new() })
    }

    fn inode_number(&self, name: &str, file_type: FileType) -> u64 {
        let path = format!("{}{name}", self.prefix);
        match file_type {
            FileType::Directory => self.table.dir_attributes(&path).ino,
            _ => self.table.file(&path).metadata().map_or(1, |m| m.ino),
        }
    }
}

impl<T: Table> Listing for TableDir<T> {
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        // No file of these trees has such a name.
        let name = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let path = format!("{}{name}", self.prefix);
        let below = format!("{path}/");
        let paths = self.table.paths();
        if paths.contains(&path) {
            return Ok(self.table.file(&path));
        }
        if paths.iter().any(|p| p.starts_with(&below)) {
            let attributes = self.table.dir_attributes(&path);
            return Ok(ListedDir::new(attributes, TableDir { table: self.table.clone(), prefix: below }));
        }
        Err(Errno::ENOENT)
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        // A directory appears once for each file below it.
        let mut seen = std::collections::BTreeMap::new();
        for path in self.table.paths() {
            let Some(rest) = path.strip_prefix(self.prefix.as_str()).filter(|r| !r.is_empty()) else { continue };
            match rest.split_once('/') {
                Some((name, _)) => seen.insert(name.to_owned(), FileType::Directory),
                None => {
                    let file_type = self.table.file(&path).file_type();
                    seen.insert(rest.to_owned(), file_type)
                }
            };
        }
        let entry = |(name, file_type): (String, FileType)| {
            let ino = self.inode_number(&name, file_type);
            Entry { name: name.into_bytes(), ino, file_type }
        };
        Ok(seen.into_iter().map(entry).collect())
    }
}
