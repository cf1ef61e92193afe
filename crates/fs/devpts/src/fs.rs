//! [`DevptsFs`]: a directory with `ptmx` and one node for each pty of the instance, devpts of mount(8).
//!
//! Each mount is an instance of its own, as on Linux since 4.7. The inodes of slaves live in their [`Pty`].

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use moat_abi::fs::{FileType, S_IALLUGO};
use moat_abi::stat::{DEVPTS_SUPER_MAGIC, DeviceId, Statfs};
use moat_abi::{Errno, Result};
use moat_image::state::{FileSystemState, PtyState};
use moat_image::{ImageError, Refusal};
use moat_sync::{LockClass, Mutex};
use moat_tty::Terminal;
use moat_vfs::Path;
use moat_vfs::caller::Caller;
use moat_vfs::file::File;
use moat_vfs::filesystem::{FileSystem, MountRequest, options};
use moat_vfs::generated::{Attributes, Entry, ListedDir, Listing, downcast};
use moat_vfs::inode::{Cache, Inode, Metadata, OpenContext, SetAttr};
use moat_vfs::persist::SaveFiles;

use crate::adopted::Adopted;
use crate::master::Master;
use crate::node::{Node, NodeAttributes};
use crate::pty::{self, Indices, Pty, PtyCount, SLAVE_MAJOR};

/// `NR_UNIX98_PTY_MAX`: indices of one instance, at most.
const MAX_INDEX: u32 = 1 << 20;
const ROOT_INO: u64 = 1;
const PTMX_INO: u64 = 2;
/// Number of the inode of pts/0.
const FIRST_PTS_INO: u64 = 3;

/// Device number of ptmx.
pub(crate) const PTMX: DeviceId = DeviceId::new(5, 2);

/// The options of devpts.
#[derive(Clone, Copy, Debug)]
struct Options {
    /// Permission bits of a new slave, and its owner if not the opener.
    mode: u32,
    uid: Option<u32>,
    gid: Option<u32>,
    /// Permission bits of ptmx.
    ptmx_mode: u32,
    /// How many ptys there may be.
    max: u32,
}

impl Options {
    /// # Errors
    /// EINVAL for an unknown option or a bad value.
    fn parse(text: &[u8]) -> Result<Options> {
        // As on Linux, ptmx can't be opened before it is given a mode.
        let mut o = Options { mode: 0o600, uid: None, gid: None, ptmx_mode: 0, max: MAX_INDEX };
        for (key, value) in options(text) {
            let value = value.map(|v| std::str::from_utf8(v).map_err(|_| Errno::EINVAL)).transpose()?;
            let number = || value.and_then(|v| v.parse::<u32>().ok()).ok_or(Errno::EINVAL);
            let bits =
                || value.and_then(|v| u32::from_str_radix(v, 8).ok()).map(|m| m & S_IALLUGO).ok_or(Errno::EINVAL);
            match key {
                b"mode" => o.mode = bits()?,
                b"ptmxmode" => o.ptmx_mode = bits()?,
                b"uid" => o.uid = Some(number()?),
                b"gid" => o.gid = Some(number()?),
                b"max" => o.max = Some(number()?).filter(|m| *m <= MAX_INDEX).ok_or(Errno::EINVAL)?,
                // Every instance is new; the others are flags that runtimes pass in the option string.
                b"newinstance" | b"rw" | b"ro" | b"defaults" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(o)
    }
}

/// What all inodes of one devpts share.
struct Instance {
    this: Weak<Instance>,
    dev: DeviceId,
    /// How many ptys there are in all instances of the kernel.
    count: Arc<PtyCount>,
    /// The node `ptmx`.
    ptmx: Node,
    options: Mutex<Options>,
    /// What has each index in use.
    ptys: Mutex<BTreeMap<u32, Slave>>,
}

/// What has an index.
#[derive(Clone)]
enum Slave {
    Pty(Arc<Pty>),
    /// A pty whose name is gone; its slaves hold it.
    Unlinked(Weak<Pty>),
    Adopted(Arc<Adopted>),
}

impl Slave {
    /// The node, if there is one to be seen.
    fn node(&self) -> Option<&Node> {
        match self {
            Slave::Pty(pty) => Some(&pty.node),
            Slave::Unlinked(_) => None,
            Slave::Adopted(a) => a.is_alive().then_some(&a.node),
        }
    }
}

impl Instance {
    /// Makes a pty under the lowest free index.
    ///
    /// # Errors
    /// ENOSPC.
    fn new_pty(self: &Arc<Self>, caller: &dyn Caller) -> Result<Arc<Pty>> {
        let (fsuid, fsgid) = (caller.creds().fsuid, caller.creds().fsgid);
        let mut ptys = self.ptys.lock();
        let (index, node) = self.new_node(&mut ptys, fsuid, fsgid)?;
        let pty = Pty::new(index, &self.count, self.this.clone(), node)?;
        ptys.insert(index, Slave::Pty(pty.clone()));
        Ok(pty)
    }

    /// Gives a terminal that is no pty the lowest free index.
    ///
    /// # Errors
    /// ENOSPC.
    fn adopt(&self, terminal: Weak<dyn Terminal>, uid: u32) -> Result<u32> {
        let mut ptys = self.ptys.lock();
        let (index, node) = self.new_node(&mut ptys, uid, 0)?;
        ptys.insert(index, Slave::Adopted(Arc::new(Adopted { node, terminal })));
        Ok(index)
    }

    /// The lowest free index and a node for it.
    fn new_node(&self, ptys: &mut BTreeMap<u32, Slave>, uid: u32, gid: u32) -> Result<(u32, Node)> {
        let o = *self.options.lock();
        // Names of terminals that are gone are free again.
        ptys.retain(|_, slave| !matches!(slave, Slave::Adopted(a) if !a.is_alive()));
        // Indices in use are in order: the first place that is not its own index is free.
        let free = (0..o.max).zip(ptys.keys().copied().map(Some).chain(std::iter::repeat(None)));
        let (index, _) = { free }.find(|(n, used)| *used != Some(*n)).ok_or(Errno::ENOSPC)?;
        let attributes = NodeAttributes { mode: o.mode, uid: o.uid.unwrap_or(uid), gid: o.gid.unwrap_or(gid) };
        let ino = FIRST_PTS_INO + u64::from(index);
        Ok((index, Node::new(self.dev, ino, DeviceId::new(SLAVE_MAJOR, index), attributes)))
    }

    /// Puts a pty out of an image under its index, neither end of which is open.
    fn restore_pty(&self, saved: &PtyState) -> std::result::Result<Arc<Pty>, ImageError> {
        let wrong = || ImageError::Unfit(format!("the name of pts/{} is taken", saved.index));
        if saved.index >= MAX_INDEX {
            return Err(ImageError::state("the number of a pseudo-terminal"));
        }
        let attributes = NodeAttributes { mode: saved.mode & S_IALLUGO, uid: saved.uid, gid: saved.gid };
        let ino = FIRST_PTS_INO.saturating_add(u64::from(saved.index));
        let node = Node::new(self.dev, ino, DeviceId::new(SLAVE_MAJOR, saved.index), attributes);
        node.set_times(saved.times);
        let pty = Pty::restored(saved, &self.count, self.this.clone(), node)?;
        let mut ptys = self.ptys.lock();
        // The console that the container has here may stand where a pty stood.
        if ptys.contains_key(&saved.index) {
            return Err(wrong());
        }
        let slave = if saved.master_open { Slave::Pty(pty.clone()) } else { Slave::Unlinked(Arc::downgrade(&pty)) };
        ptys.insert(saved.index, slave);
        Ok(pty)
    }

    fn slave(&self, index: u32) -> Option<Slave> {
        self.ptys.lock().get(&index).filter(|slave| slave.node().is_some()).cloned()
    }

    fn shared(&self) -> Result<Arc<Instance>> {
        self.this.upgrade().ok_or(Errno::EIO)
    }
}

impl Indices for Instance {
    fn unlink(&self, index: u32) {
        // The index stays taken while the slave is open. Dropped unlocked.
        let unlinked = |slave: &mut Slave| {
            let Slave::Pty(pty) = slave else { return None };
            let weak = Slave::Unlinked(Arc::downgrade(pty));
            Some(std::mem::replace(slave, weak))
        };
        let gone = self.ptys.lock().get_mut(&index).and_then(unlinked);
        drop(gone);
    }

    fn free(&self, index: u32) {
        // Dropped unlocked: the last reference takes the pty down.
        let gone = self.ptys.lock().remove(&index);
        drop(gone);
    }
}

/// The names in a devpts.
struct Names(Weak<Instance>);

impl Listing for Names {
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let instance = self.0.upgrade().ok_or(Errno::ENOENT)?;
        if name == b"ptmx" {
            return Ok(Arc::new(Ptmx { instance }));
        }
        let index = std::str::from_utf8(name).ok().and_then(|n| n.parse::<u32>().ok()).ok_or(Errno::ENOENT)?;
        // "+1" and "01" parse too.
        if index.to_string().as_bytes() != name {
            return Err(Errno::ENOENT);
        }
        let found = match instance.slave(index).ok_or(Errno::ENOENT)? {
            Slave::Pty(pty) => Arc::downgrade(&pty),
            // An adopted terminal is found by its index alone.
            Slave::Unlinked(_) | Slave::Adopted(_) => Weak::new(),
        };
        Ok(Arc::new(Pts { instance, index, found }))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let instance = self.0.upgrade().ok_or(Errno::ENOENT)?;
        let device = |name: Vec<u8>, ino| Entry { name, ino, file_type: FileType::CharDevice };
        let mut all = vec![device(b"ptmx".to_vec(), PTMX_INO)];
        let ptys = instance.ptys.lock();
        let named = ptys.iter().filter(|(_, slave)| slave.node().is_some());
        all.extend(named.map(|(n, _)| device(n.to_string().into_bytes(), FIRST_PTS_INO + u64::from(*n))));
        Ok(all)
    }
}

/// The root directory.
struct Root {
    instance: Arc<Instance>,
    listed: Arc<ListedDir<Names>>,
}

impl Root {
    fn instance(&self) -> Result<Arc<Instance>> {
        self.instance.shared()
    }
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

    fn cache_policy(&self) -> Cache {
        // Names come and go with ptys, which the dentry cache does not see.
        Cache::None
    }

    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        self.listed.clone().open(ctx)
    }
}

/// The node `ptmx`.
struct Ptmx {
    instance: Arc<Instance>,
}

impl Inode for Ptmx {
    fn metadata(&self) -> Result<Metadata> {
        Ok(self.instance.ptmx.metadata())
    }

    fn file_type(&self) -> FileType {
        FileType::CharDevice
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        self.instance.ptmx.set_attr(change)
    }

    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        // The dentry's parent is the root also where ptmx alone is mounted somewhere.
        let dentry = ctx.path.dentry.parent().ok_or(Errno::EIO)?;
        open_master(Path { mount: ctx.path.mount.clone(), dentry }, ctx)
    }
}

/// The node of a slave.
///
/// The dentry cache knows inodes by number, and the numbers follow the indices: this one stands for each pty that comes to
/// have the index.
struct Pts {
    instance: Arc<Instance>,
    index: u32,
    /// What it was made for, which may be in use without having the name any more.
    found: Weak<Pty>,
}

impl Pts {
    fn slave(&self) -> Result<Slave> {
        let found = || self.found.upgrade().map(Slave::Pty);
        self.instance.slave(self.index).or_else(found).ok_or(Errno::EIO)
    }
}

impl Inode for Pts {
    fn metadata(&self) -> Result<Metadata> {
        Ok(self.slave()?.node().ok_or(Errno::EIO)?.metadata())
    }

    fn file_type(&self) -> FileType {
        FileType::CharDevice
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        self.slave()?.node().ok_or(Errno::EIO)?.set_attr(change)
    }

    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        match self.slave()? {
            Slave::Pty(pty) => pty.open_slave(ctx.flags, ctx.caller),
            Slave::Adopted(adopted) => adopted.open(ctx),
            Slave::Unlinked(_) => Err(Errno::EIO),
        }
    }
}

/// Makes a pty in the devpts whose root is `root`.
///
/// # Errors
/// ENODEV if that is no devpts; ENOSPC.
pub(crate) fn open_master(root: Path, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
    let instance = downcast::<Root>(root.inode().clone()).ok_or(Errno::ENODEV)?.instance()?;
    let pty = instance.new_pty(ctx.caller)?;
    Ok(Arc::new(Master { pty, root }))
}

/// Puts a pty out of an image into the devpts whose root is `root`.
///
/// # Errors
/// What is wrong with it; a root that is none of a devpts.
pub(crate) fn restore_pty(root: &Path, saved: &PtyState) -> std::result::Result<Arc<Pty>, ImageError> {
    let none = || ImageError::Unfit(format!("{root:?} is no devpts"));
    let instance = downcast::<Root>(root.inode().clone()).and_then(|root| root.instance().ok()).ok_or_else(none)?;
    instance.restore_pty(saved)
}

/// Gives `terminal` the lowest free index of the devpts whose root is `root`, with a node that belongs to `uid`.
///
/// # Errors
/// ENODEV if that is no devpts; ENOSPC.
pub fn adopt(root: &Path, terminal: &Arc<dyn Terminal>, uid: u32) -> Result<u32> {
    let root = downcast::<Root>(root.inode().clone()).ok_or(Errno::ENODEV)?;
    root.instance()?.adopt(Arc::downgrade(terminal), uid)
}

/// A devpts.
struct DevptsFs {
    instance: Arc<Instance>,
    root: Arc<Root>,
}

/// The constructor for mount(2).
pub(crate) fn construct(request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    let mut options = Options::parse(request.options)?;
    // Ids of the caller's user namespace.
    let ns = &request.caller.creds().user_ns;
    options.uid = options.uid.map(|id| ns.kernel_uid(id).ok_or(Errno::EINVAL)).transpose()?;
    options.gid = options.gid.map(|id| ns.kernel_gid(id).ok_or(Errno::EINVAL)).transpose()?;
    let dev = request.tables.new_device();
    let ptmx = NodeAttributes { mode: options.ptmx_mode, uid: 0, gid: 0 };
    let instance = Arc::new_cyclic(|this| Instance {
        this: this.clone(),
        dev,
        count: request.tables.extensions.get_or_init(PtyCount::default),
        ptmx: Node::new(dev, PTMX_INO, PTMX, ptmx),
        options: Mutex::new(LockClass::Inode, options),
        ptys: Mutex::new(LockClass::Inode, BTreeMap::new()),
    });
    let attributes = Attributes { dev, ino: ROOT_INO, mode: 0o755, uid: 0, gid: 0 };
    let listed = ListedDir::new(attributes, Names(Arc::downgrade(&instance)));
    let root = Arc::new(Root { instance: instance.clone(), listed });
    Ok(Arc::new(DevptsFs { instance, root }))
}

impl FileSystem for DevptsFs {
    fn save(&self, saver: &mut dyn SaveFiles) -> std::result::Result<FileSystemState, Refusal> {
        let ptys: Vec<Arc<Pty>> = {
            let ptys = self.instance.ptys.lock();
            // A terminal of the host is given anew.
            let ptys = ptys.values().filter_map(|slave| match slave {
                Slave::Pty(pty) => Some(pty.clone()),
                Slave::Unlinked(pty) => pty.upgrade(),
                Slave::Adopted(_) => None,
            });
            ptys.collect()
        };
        Ok(if ptys.is_empty() { FileSystemState::Made } else { pty::save_all(&ptys, saver) })
    }

    fn name(&self) -> &'static str {
        "devpts"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn dev(&self) -> DeviceId {
        self.instance.dev
    }

    fn statfs(&self) -> Result<Statfs> {
        Ok(Statfs { f_type: DEVPTS_SUPER_MAGIC, f_bsize: 4096, f_frsize: 4096, f_namelen: 255, ..Statfs::default() })
    }

    fn remount(&self, text: &[u8]) -> Result<()> {
        let new = Options::parse(text)?;
        *self.instance.options.lock() = new;
        // Slaves keep their modes; ptmx follows at once.
        self.instance.ptmx.set_attr(&SetAttr { mode: Some(new.ptmx_mode), ..SetAttr::default() })
    }

    fn show_options(&self) -> String {
        let o = *self.instance.options.lock();
        let mut text = String::new();
        if let Some(uid) = o.uid {
            text += &format!(",uid={uid}");
        }
        if let Some(gid) = o.gid {
            text += &format!(",gid={gid}");
        }
        text += &format!(",mode={:03o},ptmxmode={:03o}", o.mode, o.ptmx_mode);
        // As Linux shows it: limits that are the default are not.
        if o.max < MAX_INDEX {
            text += &format!(",max={}", o.max);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let o = Options::parse(b"newinstance,mode=620,ptmxmode=0666,gid=5,max=3").expect("valid");
        assert_eq!((o.mode, o.ptmx_mode, o.gid, o.uid, o.max), (0o620, 0o666, Some(5), None, 3));
        for bad in ["mode=8", "gid=", "gid=-1", "what", "max=99999999"] {
            assert_eq!(Options::parse(bad.as_bytes()).err(), Some(Errno::EINVAL), "{bad}");
        }
    }
}
