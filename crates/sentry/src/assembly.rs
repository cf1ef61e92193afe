//! [`registry`]: what a guest's kernel is made of. Whoever adds a file system, a device, an address family or a file of
//! /proc/net adds it here.

use std::sync::{Arc, Weak};

use moat_control::spec::NetworkMode;
use moat_identity::NetNamespace;
use moat_identity::net::NetView;
use moat_kernel::Kernel;
use moat_net_inet::links::LinkState;
use moat_vfs::Registry;

/// File system types, devices, FIFOs, address families and texts. `kernel` is for those that show or use it.
#[must_use]
pub fn registry(network: NetworkMode, kernel: &Weak<Kernel>) -> Registry {
    let mut registry = Registry::default();
    // File systems: tmpfs and ramfs; proc; sysfs and cgroup2; devpts with the devices tty, console, ptmx; mqueue.
    moat_fs_tmpfs::register(&mut registry);
    moat_fs_proc::register(&mut registry, kernel);
    moat_fs_sys::register(&mut registry, kernel);
    moat_fs_devpts::register(&mut registry, kernel);
    moat_fs_mqueue::register(&mut registry, kernel);
    // Devices: null, zero, full, random, urandom.
    moat_fs_dev::register(&mut registry);
    // FIFOs, on whatever file system they are.
    moat_fs_anon::register(&mut registry);
    // Address families, with their files of /proc/net and the ioctls about devices.
    moat_net_unix::register(&mut registry);
    match network {
        NetworkMode::None | NetworkMode::Sandbox => {
            moat_net_inet::register(&mut registry);
            moat_net_netlink::register(&mut registry);
            moat_net_packet::register(&mut registry);
            registry.network_namespaces(|net| moat_net_inet::links::add_loopback(net, LinkState::Down));
        }
        // The host's network is the only one: the sandbox can't make others there.
        NetworkMode::Host => moat_net_host::register(&mut registry),
    }
    registry
}

/// Gives the first network namespace its devices.
pub fn add_devices(network: NetworkMode, net: &Arc<NetNamespace>) {
    match network {
        NetworkMode::None | NetworkMode::Sandbox => moat_net_inet::links::add_loopback(net, LinkState::Up),
        NetworkMode::Host => {
            net.show(NetView { devices: moat_net_host::device::list_all(), routes: Vec::new() }, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use moat_abi::fs::OpenFlags;
    use moat_abi::ipc::{IPC_CREAT, IPC_EXCL};
    use moat_abi::socket::{AF_INET, AF_UNIX, IPPROTO_TCP, SOCK_STREAM};
    use moat_abi::{Errno, Result};
    use moat_fs_proc::sysctl;
    use moat_identity::Pid;
    use moat_identity::namespaces::UtsNames;
    use moat_ipc::SystemV;
    use moat_kernel::kernel::Config;
    use moat_kernel::strace::Strace;
    use moat_platform_ptrace::Ptrace;
    use moat_vfs::caller::KernelCaller;
    use moat_vfs::filesystem::MountRequest;
    use moat_vfs::inode::NodeKind;
    use moat_vfs::locks::{LockKind, locks_of};
    use moat_vfs::mount::{Mount, MountFlags, MountNamespace};
    use moat_vfs::ops::{self, OpenHow};
    use moat_vfs::socket::{Socket, SocketKind, SocketMaker};
    use moat_vfs::walk::View;
    use moat_vfs::{Caller, OpenFile};

    /// A kernel with a tmpfs as its root, and nobody in it.
    struct World {
        kernel: Arc<Kernel>,
        mounts: Arc<MountNamespace>,
        caller: KernelCaller,
    }

    impl World {
        fn new(host: &str) -> World {
            let network = NetworkMode::None;
            let kernel = Kernel::boot(Config {
                platform: Arc::new(Ptrace::new().expect("a platform")),
                cpu_count: 1,
                total_memory: 1 << 30,
                names: UtsNames { host: host.into(), domain: Vec::new() },
                user_ns: moat_identity::UserNamespace::root(),
                booted_ns: None,
                strace: Strace::Off,
                assemble: Box::new(move |kernel| registry(network, kernel)),
            })
            .expect("a kernel");
            add_devices(network, &kernel.root_namespaces.net);
            let tables = kernel.vfs.tables();
            let caller = tables.kernel_caller();
            let request = MountRequest { tables, source: b"", source_path: None, options: b"", caller: &caller };
            let root = kernel.vfs.registry.make_filesystem(b"tmpfs", &request).expect("a tmpfs");
            let root = Mount::new(tables, root, MountFlags::empty(), b"none");
            let mounts = MountNamespace::new(root, kernel.root_user_ns.clone());
            World { kernel, mounts, caller }
        }

        fn view<R>(&self, f: impl FnOnce(&View<'_>) -> R) -> R {
            let root = self.mounts.root();
            f(&View { caller: &self.caller, root: &root, base: &root, umask: 0 })
        }

        fn open(&self, path: &[u8], flags: OpenFlags) -> Result<Arc<OpenFile>> {
            self.view(|view| ops::open(view, path, &OpenHow::new(flags, 0o600)))
        }

        fn socket(&self, family: u16, protocol: u32) -> Arc<dyn Socket> {
            let kind = SocketKind { family, socket_type: SOCK_STREAM, protocol };
            let net = &self.kernel.root_namespaces.net;
            let maker = SocketMaker {
                caller: &self.caller,
                net,
                inodes: &self.kernel.vfs.ids.inodes,
                memory: &moat_vfs::socket::SocketMemory::unlimited(),
            };
            self.kernel.vfs.registry.family(family).unwrap().new_socket(&maker, kind).unwrap()
        }

        fn bind(&self, family: u16, protocol: u32, address: &[u8]) -> Result<Arc<dyn Socket>> {
            let socket = self.socket(family, protocol);
            socket.bind(&self.caller, address).map(|()| socket)
        }
    }

    #[test]
    fn two_kernels_in_one_process_share_nothing() {
        let (a, b) = (World::new("a"), World::new("b"));
        let create = OpenFlags::CREAT | OpenFlags::RDWR;

        // Files: the same device and inode number, but locks, FIFOs and counters of their own.
        let (f, g) = (a.open(b"/f", create).unwrap(), b.open(b"/f", create).unwrap());
        assert_eq!(f.inode().metadata().unwrap().key(), g.inode().metadata().unwrap().key());
        locks_of(&f).unwrap().flock(&f, LockKind::Write, 1).unwrap();
        let again = a.open(b"/f", create).unwrap();
        assert_eq!(locks_of(&again).unwrap().flock(&again, LockKind::Write, 1), Err(Errno::EAGAIN));
        assert_eq!(locks_of(&g).unwrap().flock(&g, LockKind::Write, 1), Ok(()));
        for w in [&a, &b] {
            w.view(|view| ops::mknod(view, b"/fifo", 0o600, NodeKind::Fifo)).unwrap();
        }
        let _reader = a.open(b"/fifo", OpenFlags::NONBLOCK).unwrap();
        let writing = OpenFlags::WRONLY | OpenFlags::NONBLOCK;
        assert!(a.open(b"/fifo", writing).is_ok());
        assert_eq!(b.open(b"/fifo", writing).err(), Some(Errno::ENXIO), "the reader is in the other kernel");

        // Names and ports of sockets.
        let name = [&AF_UNIX.to_ne_bytes()[..], b"\0name"].concat();
        let port = [&AF_INET.to_ne_bytes()[..], &5000u16.to_be_bytes(), &[127, 0, 0, 1], &[0; 8]].concat();
        for (family, protocol, address) in [(AF_UNIX, 0, &name), (AF_INET, IPPROTO_TCP, &port)] {
            let _one = a.bind(family, protocol, address).unwrap();
            assert_eq!(a.bind(family, protocol, address).err(), Some(Errno::EADDRINUSE));
            assert!(b.bind(family, protocol, address).is_ok());
        }

        // System V IPC and settings.
        let ipc = |w: &World| SystemV::of(&w.kernel.root_namespaces.ipc);
        let get = |w: &World| ipc(w).msg.get(7, IPC_CREAT | IPC_EXCL | 0o600, w.caller.creds());
        assert!(get(&a).is_ok() && get(&a).is_err() && get(&b).is_ok());
        let scope = |w: &World| sysctl::Scope::new(&w.kernel, &Arc::new(w.kernel.root_namespaces.clone()));
        sysctl::configure("kernel.hostname", "changed", &scope(&a)).unwrap();
        sysctl::configure("net.ipv4.ip_unprivileged_port_start", "80", &scope(&a)).unwrap();
        assert_eq!(b.kernel.root_namespaces.uts.host_name(), b"b");
        assert_eq!(b.kernel.root_namespaces.net.settings.first_unprivileged_port.get(), 1024);

        // Pids and ids.
        let pid = |w: &World| Pid::allocate(&w.kernel.root_pid_ns, &[]).unwrap();
        let (p, q) = (pid(&a), pid(&b));
        assert_eq!((p.number(), q.number(), p.id), (1, 1, q.id));
        assert_eq!(a.kernel.next_namespace_id(), b.kernel.next_namespace_id());
    }

    #[test]
    fn a_kernel_goes_when_nobody_holds_it() {
        let World { kernel, mounts, .. } = World::new("gone");
        let weak = Arc::downgrade(&kernel);
        drop((kernel, mounts));
        assert!(weak.upgrade().is_none());
    }
}
