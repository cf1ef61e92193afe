//! [`Registry`]: what file system types, devices, address families and texts a kernel has.
//!
//! It is filled before the kernel exists and never changes afterwards. What is registered may keep state of its own (the
//! pipes of FIFOs, the sockets of a family), which then belongs to that one kernel.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::stat::DeviceId;
use moat_abi::{Errno, Result};
use moat_identity::NetNamespace;

use crate::caller::Caller;
use crate::file::File;
use crate::filesystem::MountRequest;
use crate::inode::{FileSystem, InodeKey, Metadata, OpenContext, SpecialFiles};
use crate::socket::AddressFamily;

/// Makes a file system of a type.
pub type Constructor = Box<dyn Fn(&MountRequest<'_>) -> Result<Arc<dyn FileSystem>> + Send + Sync>;
/// Opens a device of a driver.
pub type DeviceOpener = Box<dyn Fn(DeviceId, &OpenContext<'_>) -> Result<Arc<dyn File>> + Send + Sync>;
/// Opens the FIFO of an inode.
pub type FifoOpener = Box<dyn Fn(InodeKey, &OpenContext<'_>) -> Result<Arc<dyn File>> + Send + Sync>;
/// Makes the text of a file of /proc/net for a network namespace.
pub type NetText = fn(&NetNamespace) -> Vec<u8>;
/// Gives a new network namespace what it starts with: its loopback device, which is down.
pub type NetworkMaker = fn(&Arc<NetNamespace>);
/// An ioctl about network devices, which sockets of all families take.
///
/// # Errors
/// ENOTTY for a command that is none of these; ENODEV and the like.
pub type DeviceIoctl = fn(&dyn Caller, &NetNamespace, cmd: u32, arg: u64) -> Result<u64>;

/// What a file system type needs (the first column of /proc/filesystems).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// `nodev`.
    Nothing,
    /// A block device.
    Device,
}

/// Everything by name or number.
#[derive(Default)]
pub struct Registry {
    filesystems: BTreeMap<&'static str, (Backing, Constructor)>,
    /// Character devices by exact number.
    devices: HashMap<DeviceId, DeviceOpener>,
    /// Those that have no number of their own there, by major number.
    majors: HashMap<u32, DeviceOpener>,
    fifo: Option<FifoOpener>,
    families: HashMap<u16, Arc<dyn AddressFamily>>,
    net_texts: BTreeMap<&'static str, NetText>,
    device_ioctl: Option<DeviceIoctl>,
    network_maker: Option<NetworkMaker>,
}

impl Registry {
    /// Adds a file system type.
    pub fn filesystem(
        &mut self,
        name: &'static str,
        constructor: impl Fn(&MountRequest<'_>) -> Result<Arc<dyn FileSystem>> + Send + Sync + 'static,
    ) {
        self.filesystems.insert(name, (Backing::Nothing, Box::new(constructor)));
    }

    /// Adds the driver of one character device.
    pub fn char_device(
        &mut self,
        dev: DeviceId,
        open: impl Fn(DeviceId, &OpenContext<'_>) -> Result<Arc<dyn File>> + Send + Sync + 'static,
    ) {
        self.devices.insert(dev, Box::new(open));
    }

    /// Adds the driver of all character devices of a major number that have none of their own.
    pub fn char_major(
        &mut self,
        major: u32,
        open: impl Fn(DeviceId, &OpenContext<'_>) -> Result<Arc<dyn File>> + Send + Sync + 'static,
    ) {
        self.majors.insert(major, Box::new(open));
    }

    /// Sets what opens FIFOs.
    pub fn fifo(&mut self, open: impl Fn(InodeKey, &OpenContext<'_>) -> Result<Arc<dyn File>> + Send + Sync + 'static) {
        self.fifo = Some(Box::new(open));
    }

    /// Adds an address family, `AF_*`.
    pub fn address_family(&mut self, number: u16, family: Arc<dyn AddressFamily>) {
        self.families.insert(number, family);
    }

    /// Adds a file of /proc/net.
    pub fn net_text(&mut self, name: &'static str, text: NetText) {
        self.net_texts.insert(name, text);
    }

    /// Sets what answers ioctls about network devices.
    pub fn device_ioctl(&mut self, ioctl: DeviceIoctl) {
        self.device_ioctl = Some(ioctl);
    }

    /// Sets what gives a new network namespace its devices; without it there are no others than the first.
    pub fn network_namespaces(&mut self, make: NetworkMaker) {
        self.network_maker = Some(make);
    }

    /// What gives a new network namespace its devices.
    #[must_use]
    pub fn network_maker(&self) -> Option<NetworkMaker> {
        self.network_maker
    }

    /// The names of all file system types, for /proc/filesystems.
    #[must_use]
    pub fn filesystem_types(&self) -> Vec<(&'static str, Backing)> {
        self.filesystems.iter().map(|(name, (backing, _))| (*name, *backing)).collect()
    }

    /// Makes a file system of type `name`.
    ///
    /// # Errors
    /// ENODEV for an unknown type; those of the constructor.
    pub fn make_filesystem(&self, name: &[u8], request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
        let name = std::str::from_utf8(name).map_err(|_| Errno::ENODEV)?;
        let (_, constructor) = self.filesystems.get(name).ok_or(Errno::ENODEV)?;
        constructor(request)
    }

    fn open_device(&self, dev: DeviceId, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        // A driver of the one number goes before one of all with the major number.
        let open = self.devices.get(&dev).or_else(|| self.majors.get(&dev.major)).ok_or(Errno::ENXIO)?;
        open(dev, ctx)
    }

    fn open_fifo(&self, key: InodeKey, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        self.fifo.as_ref().ok_or(Errno::ENXIO)?(key, ctx)
    }

    /// The address family with this number.
    ///
    /// # Errors
    /// EAFNOSUPPORT.
    pub fn family(&self, number: u16) -> Result<&Arc<dyn AddressFamily>> {
        self.families.get(&number).ok_or(Errno::EAFNOSUPPORT)
    }

    /// The files of /proc/net that families have added.
    pub fn net_texts(&self) -> impl Iterator<Item = (&'static str, NetText)> {
        self.net_texts.iter().map(|(name, text)| (*name, *text))
    }

    /// What answers ioctls about network devices.
    pub(crate) fn device_ioctls(&self) -> Option<DeviceIoctl> {
        self.device_ioctl
    }
}

impl SpecialFiles for Registry {
    fn open_special(&self, meta: &Metadata, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        match meta.file_type() {
            FileType::Fifo => self.open_fifo(meta.key(), ctx),
            FileType::CharDevice => self.open_device(meta.rdev, ctx),
            FileType::Socket | FileType::BlockDevice => Err(Errno::ENXIO),
            FileType::Symlink => Err(Errno::ELOOP),
            FileType::Directory | FileType::Regular => Err(Errno::EIO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::fake::vfs;

    #[test]
    fn what_one_kernel_has_another_has_not() {
        let mut registry = Registry::default();
        registry.filesystem("nodevfs", |_| Err(Errno::EIO));
        registry.net_text("tcp", |net| net.id.to_string().into_bytes());
        let (one, other) = (vfs(registry), vfs(Registry::default()));
        let (caller, tables) = (one.kernel_caller(), one.tables());
        let request = MountRequest { tables, source: b"", source_path: None, options: b"", caller: &caller };
        assert_eq!(one.registry.make_filesystem(b"nodevfs", &request).err(), Some(Errno::EIO));
        assert_eq!(other.registry.make_filesystem(b"nodevfs", &request).err(), Some(Errno::ENODEV));
        let net = NetNamespace::new(7, one.root_user_ns.clone());
        let texts: Vec<_> = one.registry.net_texts().map(|(name, text)| (name, text(&net))).collect();
        assert_eq!(texts, [("tcp", b"7".to_vec())]);
        assert_eq!(other.registry.net_texts().count(), 0);
        assert_eq!(one.registry.family(1).err(), Some(Errno::EAFNOSUPPORT));
    }

    #[test]
    fn ids_of_two_kernels_do_not_depend_on_one_another() {
        let (one, other) = (vfs(Registry::default()), vfs(Registry::default()));
        assert_eq!(one.new_device(), other.new_device());
        assert_ne!(one.new_device(), one.new_device());
        assert_eq!(one.ids.inodes.next(), other.ids.inodes.next());
    }
}
