//! [`World`]: a guest's kernel in this process, with one task whose system calls a target makes itself.
//!
//! It is the kernel of a sandbox, file systems, devices and sockets included, on a platform without host processes ([`nowhere`]). A
//! call that would wait is given up.

mod nowhere;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use moat_abi::fs::OpenFlags;
use moat_abi::nr;
use moat_control::spec::NetworkMode;
use moat_identity::UserNamespace;
use moat_identity::namespaces::UtsNames;
use moat_kernel::kernel::Config;
use moat_kernel::process::allowance::{Allowance, Shares};
use moat_kernel::process::container::ContainerGroup;
use moat_kernel::spawn::{ContainerPlace, Shared, SpawnRequest, prepare_process};
use moat_kernel::strace::Strace;
use moat_kernel::{CurrentTask, Kernel, SyscallError};
use moat_mm::UserAddr;
use moat_platform::Platform;
use moat_vfs::fd_table::{FdTable, OnExec};
use moat_vfs::filesystem::MountRequest;
use moat_vfs::mount::{Mount, MountFlags, MountNamespace};
use moat_vfs::ops::{self, OpenHow};
use moat_vfs::walk::View;
use moat_vfs::{Credentials, FsContext};

use nowhere::Nowhere;

/// Guest memory for arguments: its address and length.
pub(crate) const AREA: u64 = 0x10_0000;
pub(crate) const AREA_LEN: usize = 64 << 10;
/// The directory of paths that begin at the working directory.
pub(crate) const AT_FDCWD: u64 = 0xffff_ff9c;
/// Memory that guests see: what files in memory may take is half of it.
const MEMORY: u64 = 64 << 20;
/// Turns of a call, of a millisecond each, that are more than any may take.
const MOST_TURNS: usize = 20_000;

/// A kernel with one process, which is root at first.
pub(crate) struct World(Option<CurrentTask>);

impl World {
    /// With a tmpfs as its root, /proc, /dev/pts and some devices.
    pub(crate) fn new() -> World {
        let mut world = World(Some(first_task()));
        let mapped = world.call(nr::MMAP, [AREA, 64 << 10, 3, 0x32, u64::MAX, 0]);
        assert_eq!(mapped, Some(Ok(AREA)), "memory for arguments");
        for name in ["/proc", "/dev", "/dev/pts"] {
            world.make_directory(name);
        }
        world.mount("proc", "/proc");
        world.mount("devpts", "/dev/pts");
        for (name, major, minor) in
            [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("urandom", 1, 9), ("tty", 5, 0), ("ptmx", 5, 2)]
        {
            let path = world.path(0, format!("/dev/{name}"));
            let made = world.call(nr::MKNOD, [path, 0o020_666, major << 8 | minor, 0, 0, 0]);
            assert_eq!(made, Some(Ok(0)), "{name}");
        }
        world
    }

    /// Makes a directory that is missing.
    pub(crate) fn make_directory(&mut self, name: &str) {
        let path = self.path(0, name);
        assert_eq!(self.call(nr::MKDIR, [path, 0o755, 0, 0, 0, 0]), Some(Ok(0)), "{name}");
    }

    /// Mounts a file system of this type.
    pub(crate) fn mount(&mut self, kind: &str, at: &str) {
        let (kind, path) = (self.path(0, kind), self.path(512, at));
        assert_eq!(self.call(nr::MOUNT, [kind, path, kind, 0, 0, 0]), Some(Ok(0)), "{at}");
    }

    /// Opens a file that is there, or says that it can't be.
    pub(crate) fn open(&mut self, name: &str, flags: OpenFlags) -> Option<u64> {
        let path = self.path(0, name);
        self.call(nr::OPENAT, [AT_FDCWD, path, u64::from(flags.bits()), 0o600, 0, 0])?.ok()
    }

    /// Makes a call; `None` if it would wait.
    ///
    /// # Panics
    /// If it neither ends nor waits.
    pub(crate) fn call(&mut self, nr: u32, args: [u64; 6]) -> Option<Result<u64, SyscallError>> {
        let task = self.task();
        let result = to_its_end(task.dispatch(nr.into(), args));
        // Back to the guest: what is left of the call's work with its memory is done there.
        let _ = to_its_end(moat_platform::switch(task.thread()));
        result
    }

    /// Writes bytes so far into [`AREA`], as many as there is room for; gives their address.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) -> u64 {
        let room = AREA_LEN.saturating_sub(at);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        let addr = address(at);
        assert!(self.task().mm().write_bytes(UserAddr::new(addr), bytes).is_ok(), "arguments have memory");
        addr
    }

    /// Reads bytes of [`AREA`].
    pub(crate) fn get(&mut self, at: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        assert!(self.task().mm().read_bytes(UserAddr::new(address(at)), &mut bytes).is_ok(), "results have memory");
        bytes
    }

    /// Writes a name with its end.
    pub(crate) fn path(&mut self, at: usize, name: impl AsRef<[u8]>) -> u64 {
        let mut bytes = name.as_ref().to_vec();
        bytes.push(0);
        self.put(at, &bytes)
    }

    /// The device and inode number of what is behind a descriptor.
    pub(crate) fn identity(&mut self, fd: u64) -> Option<(u64, u64)> {
        let at = 0x8000;
        self.call(nr::FSTAT, [fd, address(at), 0, 0, 0, 0])?.ok()?;
        let bytes = self.get(at, 16);
        let (dev, ino) = bytes.split_first_chunk::<8>()?;
        Some((u64::from_le_bytes(*dev), u64::from_le_bytes(ino.try_into().ok()?)))
    }

    /// Becomes an ordinary user, for good; who is one stays what he is.
    pub(crate) fn become_user(&mut self, id: u64) {
        if self.call(nr::GETUID, [0; 6]) != Some(Ok(0)) {
            return;
        }
        for (nr, args) in [
            (nr::SETGROUPS, [0, 0, 0, 0, 0, 0]),
            (nr::SETRESGID, [id, id, id, 0, 0, 0]),
            (nr::SETRESUID, [id, id, id, 0, 0, 0]),
        ] {
            assert_eq!(self.call(nr, args), Some(Ok(0)));
        }
    }

    pub(crate) fn task(&mut self) -> &mut CurrentTask {
        self.0.as_mut().expect("the task is there until the world is dropped")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abandon();
        }
    }
}

/// The address of a place in [`AREA`].
pub(crate) fn address(at: usize) -> u64 {
    AREA.saturating_add(u64::try_from(at).unwrap_or_default())
}

/// Says that a future can go on.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a future until it is over, or waits for somebody else.
fn to_its_end<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    for _ in 0..MOST_TURNS {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return Some(value),
            // Its turn was over, or it is to look again.
            Poll::Pending if woken.0.swap(false, Ordering::Relaxed) => {}
            Poll::Pending => return None,
        }
    }
    panic!("a call does not come to its end");
}

fn names() -> UtsNames {
    UtsNames { host: b"fuzz".to_vec(), domain: Vec::new() }
}

/// A process of root's over an empty tmpfs, with a container of its own.
fn first_task() -> CurrentTask {
    let platform = Arc::new(Nowhere);
    let kernel = Kernel::boot(Config {
        platform: platform.clone(),
        cpu_count: 1,
        total_memory: MEMORY,
        names: names(),
        user_ns: UserNamespace::root(),
        booted_ns: None,
        strace: Strace::Off,
        assemble: Box::new(|kernel| moat_sentry::registry(NetworkMode::None, kernel)),
    })
    .expect("a kernel");
    moat_sentry::add_devices(NetworkMode::None, &kernel.root_namespaces.net);
    let tables = kernel.vfs.tables();
    let caller = tables.kernel_caller();
    let request = MountRequest { tables, source: b"", source_path: None, options: b"", caller: &caller };
    let root = kernel.vfs.registry.make_filesystem(b"tmpfs", &request).expect("a tmpfs");
    let root = Mount::new(tables, root, MountFlags::empty(), b"none");
    let fs = FsContext::new(MountNamespace::new(root, kernel.root_user_ns.clone()));
    let view = View { caller: &caller, root: &fs.root, base: &fs.cwd, umask: 0 };
    let open = |flags| ops::open(&view, b"/program", &OpenHow::new(flags, 0o755)).expect("the program's file");
    let program = nowhere::program();
    let file = open(OpenFlags::CREAT | OpenFlags::WRONLY);
    assert_eq!(file.write(&program).ok(), Some(program.len()));
    drop(file);
    let fds = FdTable::new(tables);
    for _ in 0..3 {
        fds.install(open(OpenFlags::empty()), 3, OnExec::Keep).expect("a descriptor");
    }
    let shares = Shares { cpu_count: 1, total_memory: MEMORY, cpu_max: None, memory_max: Some(MEMORY) };
    let request = SpawnRequest {
        syscalls: moat_syscalls::table(),
        container: ContainerGroup::new("fuzz".into(), kernel.clone(), platform.stock(), Allowance::new(shares)),
        place: ContainerPlace::new_container(&kernel, names(), &Shared::default()).expect("namespaces"),
        creds: Credentials::root(kernel.root_user_ns.clone()),
        fs: fs.clone(),
        fds: Arc::new(fds),
        limits: Vec::new(),
        program: None,
        argv: vec![b"/program".to_vec()],
        envp: Vec::new(),
        terminal: None,
        oom_score_adj: 0,
        seccomp: None,
    };
    let prepared = to_its_end(prepare_process(request)).expect("nothing to wait for").expect("a process");
    prepared.into_current().expect("a task")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_makes_calls_and_leaves_nothing() {
        let mut world = World::new();
        assert_eq!(world.call(nr::GETPID, [0; 6]), Some(Ok(1)));
        // A call that would wait for ever.
        assert_eq!(world.call(nr::PAUSE, [0; 6]), None);
        let fd = world.open("/proc/self/status", OpenFlags::empty()).expect("a file of its own");
        let n = world.call(nr::READ, [fd, AREA, 4096, 0, 0, 0]).and_then(Result::ok).expect("its text");
        let text = String::from_utf8(world.get(0, usize::try_from(n).unwrap())).unwrap();
        assert!(text.starts_with("Name:\tprogram\n"), "{text}");
        let kernel = Arc::downgrade(world.task().kernel());
        drop(world);
        assert!(kernel.upgrade().is_none(), "the kernel stays");
    }
}
