//! [`MqueueFs`]: the directory of queues.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moat_abi::fs::{FileType, S_IALLUGO};
use moat_abi::ipc::{DFLT_MSG, DFLT_MSGSIZE};
use moat_abi::stat::{DeviceId, MQUEUE_MAGIC, Statfs};
use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_identity::IpcNamespace;
use moat_image::Refusal;
use moat_image::state::FileSystemState;
use moat_kernel::Kernel;
use moat_sync::{LockClass, Mutex};
use moat_vfs::Tables;
use moat_vfs::clock::now;
use moat_vfs::file::File;
use moat_vfs::filesystem::{FileSystem, MountRequest};
use moat_vfs::generated::{self, Entry, ListedDir, Listing};
use moat_vfs::inode::{Cache, Inode, Metadata, NewNode, NodeKind, OpenContext, SetAttr, SetTime};
use moat_vfs::mount::{Mount, MountFlags};
use moat_vfs::persist::SaveFiles;

use crate::queue::{Attributes, Queue, QueueFile, SavedQueue};

/// Queues that may exist (`fs.mqueue.queues_max`).
const QUEUES_MAX: usize = 256;
/// The size that a queue's file has for stat(2) (`FILENT_SIZE`).
const FILE_SIZE: u64 = 80;
const ROOT_INO: u64 = 1;
/// What RLIMIT_MSGQUEUE counts for each message besides its size (`struct msg_msg` and a tree node).
const PER_MESSAGE: u64 = 48 + 48;

/// Who pays for a queue.
#[derive(Clone, Copy, Debug)]
pub struct Payer {
    /// The real uid.
    pub uid: u32,
    /// RLIMIT_MSGQUEUE.
    pub limit: u64,
}

/// What each uid has in queues, in bytes.
pub(crate) struct Accounts {
    bytes: Mutex<HashMap<u32, u64>>,
}

impl Default for Accounts {
    fn default() -> Self {
        Accounts { bytes: Mutex::new(LockClass::Table, HashMap::new()) }
    }
}

/// What one queue costs its maker; given back when dropped.
pub(crate) struct Charge {
    accounts: Arc<Accounts>,
    uid: u32,
    bytes: u64,
}

impl Charge {
    /// # Errors
    /// EMFILE over the limit; EOVERFLOW.
    pub(crate) fn new(accounts: &Arc<Accounts>, payer: &Payer, a: Attributes) -> Result<Charge> {
        let each = (a.message_size as u64).checked_add(PER_MESSAGE).ok_or(Errno::EOVERFLOW)?;
        let bytes = (a.max_messages as u64).checked_mul(each).ok_or(Errno::EOVERFLOW)?;
        let mut all = accounts.bytes.lock();
        let used = all.entry(payer.uid).or_default();
        let sum = used.checked_add(bytes).filter(|s| *s <= payer.limit).ok_or(Errno::EMFILE)?;
        *used = sum;
        Ok(Charge { accounts: accounts.clone(), uid: payer.uid, bytes })
    }
}

impl Charge {
    /// Who pays.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut all = self.accounts.bytes.lock();
        if let Some(used) = all.get_mut(&self.uid) {
            *used = used.saturating_sub(self.bytes);
        }
    }
}

struct Names {
    queues: Mutex<BTreeMap<Vec<u8>, Arc<Node>>>,
    accounts: Arc<Accounts>,
    next_ino: AtomicU64,
    dev: DeviceId,
}

impl Names {
    fn create(&self, name: &[u8], node: &NewNode<'_>, attributes: Attributes, payer: &Payer) -> Result<Arc<Node>> {
        let mut queues = self.queues.lock();
        if queues.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        if queues.len() >= QUEUES_MAX {
            return Err(Errno::ENOSPC);
        }
        let queue = Arc::new(Queue::new(attributes, Charge::new(&self.accounts, payer, attributes)?));
        let t = now();
        let status = Status { mode: node.mode & S_IALLUGO, uid: node.uid, gid: node.gid, atime: t, mtime: t, ctime: t };
        let ino = self.next_ino.fetch_add(1, Ordering::Relaxed);
        let node = Arc::new(Node { queue, dev: self.dev, ino, status: Mutex::new(LockClass::Inode, status) });
        queues.insert(name.to_vec(), node.clone());
        Ok(node)
    }
}

struct Shown(Arc<Names>);

impl Listing for Shown {
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let found = self.0.queues.lock().get(name).cloned();
        found.map(|n| n as Arc<dyn Inode>).ok_or(Errno::ENOENT)
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let queues = self.0.queues.lock();
        Ok(queues
            .iter()
            .map(|(name, n)| Entry { name: name.clone(), ino: n.ino, file_type: FileType::Regular })
            .collect())
    }
}

/// The root directory.
struct Root {
    names: Arc<Names>,
    listed: Arc<ListedDir<Shown>>,
}

impl Inode for Root {
    fn metadata(&self) -> Result<Metadata> {
        self.listed.metadata()
    }

    fn file_type(&self) -> FileType {
        FileType::Directory
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.listed.lookup(name)
    }

    /// Queues come and go by mq_open(2) and mq_unlink(2) too.
    fn cache_policy(&self) -> Cache {
        Cache::Revalidate
    }

    fn revalidate(&self, name: &[u8], child: &Arc<dyn Inode>) -> Result<bool> {
        let found = self.names.queues.lock().get(name).cloned();
        Ok(found.is_some_and(|n| Arc::ptr_eq(&(n as Arc<dyn Inode>), child)))
    }

    fn create(&self, name: &[u8], node: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        if !matches!(node.kind, NodeKind::File) {
            return Err(Errno::EPERM);
        }
        // Who makes one here has the limits of every process by default.
        let payer = Payer { uid: node.uid, limit: 819_200 };
        self.names.create(name, node, Attributes::default(), &payer).map(|n| n as Arc<dyn Inode>)
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let gone = self.names.queues.lock().remove(name);
        // Dropped unlocked: the messages go with the last opening.
        gone.map(drop).ok_or(Errno::ENOENT)
    }

    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        self.listed.clone().open(ctx)
    }
}

impl Default for Attributes {
    /// Those of mq_open(3) without any, `fs.mqueue.msg_default` and `msgsize_default`.
    fn default() -> Self {
        let number = |n: i64| usize::try_from(n).unwrap_or(0);
        Attributes { max_messages: number(DFLT_MSG), message_size: number(DFLT_MSGSIZE) }
    }
}

struct Status {
    mode: u32,
    uid: u32,
    gid: u32,
    atime: Timespec,
    mtime: Timespec,
    ctime: Timespec,
}

/// What an image has of a queue's inode.
pub(crate) struct SavedNode {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds of the last access, modification and change.
    pub(crate) times: [(i64, i64); 3],
}

/// The inode of a queue.
pub struct Node {
    pub(crate) queue: Arc<Queue>,
    dev: DeviceId,
    ino: u64,
    status: Mutex<Status>,
}

impl Inode for Node {
    fn metadata(&self) -> Result<Metadata> {
        let s = self.status.lock();
        Ok(Metadata {
            dev: self.dev,
            ino: self.ino,
            mode: FileType::Regular.mode_bits() | s.mode,
            nlink: 1,
            uid: s.uid,
            gid: s.gid,
            size: FILE_SIZE,
            blksize: 4096,
            atime: s.atime,
            mtime: s.mtime,
            ctime: s.ctime,
            ..Metadata::default()
        })
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        let t = now();
        let time = |wanted| if let SetTime::At(at) = wanted { at } else { t };
        let mut s = self.status.lock();
        s.mode = change.mode.map_or(s.mode, |m| m & S_IALLUGO);
        s.uid = change.uid.unwrap_or(s.uid);
        s.gid = change.gid.unwrap_or(s.gid);
        s.atime = change.atime.map_or(s.atime, time);
        s.mtime = change.mtime.map_or(s.mtime, time);
        s.ctime = t;
        Ok(())
    }

    fn open(self: Arc<Self>, _ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        Ok(self.file())
    }
}

impl Node {
    pub(crate) fn saved(&self) -> SavedNode {
        let s = self.status.lock();
        let times = [s.atime, s.mtime, s.ctime].map(|t| (t.tv_sec, t.tv_nsec));
        SavedNode { mode: s.mode, uid: s.uid, gid: s.gid, times }
    }

    /// What an opening of the queue is served by.
    #[must_use]
    pub fn file(&self) -> Arc<dyn File> {
        Arc::new(QueueFile { queue: self.queue.clone() })
    }
}

/// The file system of an IPC namespace; every mount in it shows the same.
pub struct MqueueFs {
    names: Arc<Names>,
    root: Arc<Root>,
}

/// The queues of an IPC namespace.
pub struct NamespaceQueues {
    /// Their file system.
    pub fs: Arc<MqueueFs>,
    /// The mount that mq_open(2) and mq_unlink(2) work on; it is in no mount namespace.
    pub mount: Arc<Mount>,
}

impl NamespaceQueues {
    /// Those of `namespace`.
    #[must_use]
    pub fn of(tables: &Arc<Tables>, namespace: &IpcNamespace) -> Arc<NamespaceQueues> {
        namespace.extensions.get_or_init(|| {
            let fs = MqueueFs::new(tables);
            let mount = Mount::new(tables, fs.clone(), MountFlags::empty(), b"none");
            NamespaceQueues { fs, mount }
        })
    }
}

impl MqueueFs {
    fn new(tables: &Tables) -> Arc<MqueueFs> {
        let dev = tables.new_device();
        let names = Arc::new(Names {
            queues: Mutex::new(LockClass::Inode, BTreeMap::new()),
            // A user's limit is for all namespaces together.
            accounts: tables.extensions.get_or_init(Accounts::default),
            next_ino: AtomicU64::new(ROOT_INO + 1),
            dev,
        });
        let attributes = generated::Attributes { dev, ino: ROOT_INO, mode: 0o1777, uid: 0, gid: 0 };
        let listed = ListedDir::new(attributes, Shown(names.clone()));
        Arc::new(MqueueFs { names: names.clone(), root: Arc::new(Root { names, listed }) })
    }

    /// Makes a queue.
    ///
    /// # Errors
    /// EEXIST; ENOSPC for too many; EMFILE over RLIMIT_MSGQUEUE.
    pub fn create(&self, name: &[u8], node: &NewNode<'_>, attributes: Attributes, payer: &Payer) -> Result<Arc<Node>> {
        self.names.create(name, node, attributes, payer)
    }

    /// All queues with a name.
    pub(crate) fn all(&self) -> Vec<(Vec<u8>, Arc<Node>)> {
        self.names.queues.lock().iter().map(|(name, node)| (name.clone(), node.clone())).collect()
    }

    /// Makes a queue out of an image; without a name if that is gone.
    ///
    /// # Errors
    /// EEXIST, ENOSPC, EOVERFLOW.
    pub(crate) fn restore_queue(
        &self,
        name: Option<&[u8]>,
        saved: &SavedNode,
        attributes: Attributes,
        payer: u32,
        queue: SavedQueue,
    ) -> Result<Arc<Node>> {
        // Charged, but not refused: so much there was.
        let payer = Payer { uid: payer, limit: u64::MAX };
        let charge = Charge::new(&self.names.accounts, &payer, attributes)?;
        let [atime, mtime, ctime] = saved.times.map(|(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec });
        let status = Status { mode: saved.mode & S_IALLUGO, uid: saved.uid, gid: saved.gid, atime, mtime, ctime };
        let node = Arc::new(Node {
            queue: Arc::new(Queue::restored(attributes, charge, queue)),
            dev: self.names.dev,
            ino: self.names.next_ino.fetch_add(1, Ordering::Relaxed),
            status: Mutex::new(LockClass::Inode, status),
        });
        if let Some(name) = name {
            let mut queues = self.names.queues.lock();
            if queues.len() >= QUEUES_MAX {
                return Err(Errno::ENOSPC);
            }
            // Two of one name: the first would be lost.
            if queues.insert(name.to_vec(), node.clone()).is_some() {
                return Err(Errno::EEXIST);
            }
        }
        Ok(node)
    }

    /// The queue `name`.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Arc<Node>> {
        self.names.queues.lock().get(name).cloned()
    }
}

/// The constructor for mount(2): every mount shows the queues of the mounter's IPC namespace.
pub(crate) fn construct(kernel: &Kernel, request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    let task = request.caller.task();
    let ipc = task.map_or_else(|| kernel.root_namespaces.ipc.clone(), |t| t.namespaces().ipc.clone());
    Ok(NamespaceQueues::of(request.tables, &ipc).fs.clone())
}

impl FileSystem for MqueueFs {
    fn save(&self, saver: &mut dyn SaveFiles) -> std::result::Result<FileSystemState, Refusal> {
        // Those of the container's namespace are saved before its mounts.
        let known = |node: &Arc<Node>| saver.mqueues().name_of(Arc::as_ptr(&node.queue).addr()).is_some();
        if self.names.queues.lock().values().all(known) {
            Ok(FileSystemState::Made)
        } else {
            Err(Refusal::new("a message queue of another IPC namespace"))
        }
    }

    fn name(&self) -> &'static str {
        "mqueue"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn dev(&self) -> DeviceId {
        self.names.dev
    }

    fn statfs(&self) -> Result<Statfs> {
        Ok(Statfs { f_type: MQUEUE_MAGIC, f_bsize: 4096, f_frsize: 4096, f_namelen: 255, ..Statfs::default() })
    }
}
