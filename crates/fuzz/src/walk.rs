//! Paths: calls that name files, in a kernel of their own. An ordinary user below a changed root must never get hold of what is
//! outside of it, however files are moved, linked and mounted.

use moat_abi::fs::OpenFlags;
use moat_abi::nr;

use crate::input::{Input, pick};
use crate::world::{AT_FDCWD, World, address};

/// What paths are made of.
const COMPONENTS: [&[u8]; 16] = [
    b"a",
    b"b",
    b"c",
    b"..",
    b".",
    b"",
    b"link",
    b"d/e",
    b"proc/self/cwd",
    b"proc/self/root",
    b"proc/self/fd/4",
    b"proc/1/task/1/fd",
    b"proc/thread-self",
    b"tmp",
    &[b'n'; 255],
    &[b'n'; 256],
];
/// Components of a path.
const MOST: usize = 12;
/// Descriptors that are kept open: 3 and the next ones.
const KEPT: u64 = 6;
/// Where the first and the second path of a call are.
const FIRST: usize = 0;
const SECOND: usize = 0x2000;
const RESULT: usize = 0x4000;

fn path(input: &mut Input<'_>) -> Vec<u8> {
    let head = input.byte().unwrap_or_default();
    let mut path = if head & 0x80 != 0 { vec![b'/'] } else { Vec::new() };
    for n in 0..usize::from(head & 0x7f) % MOST {
        if n > 0 {
            path.push(b'/');
        }
        let which = input.byte().unwrap_or_default();
        path.extend_from_slice(COMPONENTS.get(usize::from(which % 16)).copied().unwrap_or_default());
    }
    if head & 0x40 != 0 {
        path.push(b'/');
    }
    path
}

/// Who walks, and what must not be reached.
struct Walker {
    world: World,
    /// Device and inode numbers outside of the changed root.
    outside: Vec<(u64, u64)>,
    directory: u64,
}

impl Walker {
    /// A user below `/jail`, or root at the real root.
    fn new(jailed: bool) -> Walker {
        let mut world = World::new();
        let mut outside = Vec::new();
        if jailed {
            for name in ["/jail", "/jail/proc", "/outside"] {
                world.make_directory(name);
            }
            world.mount("proc", "/jail/proc");
            let owned = world.path(0, "/jail");
            assert_eq!(world.call(nr::CHOWN, [owned, 1000, 1000, 0, 0, 0]), Some(Ok(0)));
            for name in ["/", "/outside", "/outside/secret"] {
                let flags = if name.ends_with('t') { OpenFlags::CREAT } else { OpenFlags::DIRECTORY };
                let fd = world.open(name, flags);
                outside.extend(fd.and_then(|fd| world.identity(fd)));
                let _ = fd.map(|fd| world.call(nr::CLOSE, [fd, 0, 0, 0, 0, 0]));
            }
            assert_eq!(outside.len(), 3);
            let jail = world.path(0, "/jail");
            assert_eq!(world.call(nr::CHROOT, [jail, 0, 0, 0, 0, 0]), Some(Ok(0)));
            let root = world.path(0, "/");
            assert_eq!(world.call(nr::CHDIR, [root, 0, 0, 0, 0, 0]), Some(Ok(0)));
            world.become_user(1000);
        }
        Walker { world, outside, directory: AT_FDCWD }
    }

    fn call(&mut self, nr: u32, args: [u64; 6]) -> Option<u64> {
        self.world.call(nr, args)?.ok()
    }

    /// Keeps what has been opened, and looks what it is.
    fn keep(&mut self, fd: Option<u64>) {
        let Some(fd) = fd else { return };
        let is = self.world.identity(fd);
        assert!(!is.is_some_and(|is| self.outside.contains(&is)), "a file outside of the changed root is open");
        self.directory = fd;
        if fd >= 3 + KEPT {
            self.call(nr::CLOSE, [3, 0, 0, 0, 0, 0]);
        }
    }

    fn step(&mut self, what: u8, input: &mut Input<'_>) {
        let (one, two) = (path(input), path(input));
        let (one, two) = (self.world.path(FIRST, one), self.world.path(SECOND, two));
        let number = u64::from(input.short());
        let dir = if what & 0x80 != 0 { AT_FDCWD } else { self.directory };
        let result = address(RESULT);
        match (what & 0x7f) % 24 {
            0..=2 => {
                let flags = OpenFlags::from_bits_truncate(u32::from(input.short()) << 6) | OpenFlags::NONBLOCK;
                let fd = self.call(nr::OPENAT, [dir, one, u64::from(flags.bits()) | (number % 4), 0o777, 0, 0]);
                self.keep(fd);
            }
            3 => {
                let how = [number % 4, 0o0, u64::from(input.byte().unwrap_or_default() % 0x40)];
                let how: Vec<u8> = how.iter().flat_map(|n| n.to_le_bytes()).collect();
                let how = self.world.put(RESULT, &how);
                let fd = self.call(nr::OPENAT2, [dir, one, how, 24, 0, 0]);
                self.keep(fd);
            }
            4 => drop(self.call(nr::MKDIRAT, [dir, one, 0o777, 0, 0, 0])),
            5 => drop(self.call(nr::SYMLINKAT, [one, dir, two, 0, 0, 0])),
            6 => drop(self.call(nr::LINKAT, [dir, one, AT_FDCWD, two, number & 0x1400, 0])),
            7 | 8 => drop(self.call(nr::RENAMEAT2, [dir, one, AT_FDCWD, two, number & 7, 0])),
            9 => drop(self.call(nr::UNLINKAT, [dir, one, number & 0x200, 0, 0, 0])),
            10 | 11 => drop(self.call(nr::CHDIR, [one, 0, 0, 0, 0, 0])),
            12 => drop(self.call(nr::FCHDIR, [self.directory, 0, 0, 0, 0, 0])),
            13 => drop(self.call(nr::CHROOT, [one, 0, 0, 0, 0, 0])),
            14 => drop(self.call(nr::READLINKAT, [dir, one, result, number % 5000, 0, 0])),
            15 => drop(self.call(nr::STATX, [dir, one, number, 0xfff, result, 0])),
            16 => drop(self.call(nr::MKNODAT, [dir, one, 0o010_000 | number & 0o777, 0, 0, 0])),
            17 => drop(self.call(nr::TRUNCATE, [one, number, 0, 0, 0, 0])),
            18 => drop(self.call(nr::FCHMODAT, [dir, one, number & 0o7777, 0, 0, 0])),
            19 => drop(self.call(nr::FACCESSAT2, [dir, one, number & 7, number & 0x1300, 0, 0])),
            20 => drop(self.call(nr::GETDENTS64, [self.directory, result, number % 8192, 0, 0, 0])),
            21 => {
                let name = self.name(input);
                self.call(nr::SETXATTR, [one, name, result, number % 256, 0, 0]);
            }
            // A bind, one that is moved, a tmpfs; taken away again.
            22 => {
                let flags = [0x1000, 0x5000, 0x2000, 0, 0x4_0000, 0x10_0000]
                    .into_iter()
                    .nth(usize::try_from(number % 6).unwrap_or_default());
                let kind = self.world.path(RESULT, "tmpfs");
                self.call(nr::MOUNT, [one, two, kind, flags.unwrap_or_default(), 0, 0]);
            }
            _ => drop(self.call(nr::UMOUNT2, [one, number & 0xa, 0, 0, 0, 0])),
        }
        self.look_where_it_is();
    }

    /// The name of an extended attribute.
    fn name(&mut self, input: &mut Input<'_>) -> u64 {
        let names = ["user.a", "security.capability", "trusted.a", "system.posix_acl_access", "user.", "none"];
        let which = pick(input.byte().unwrap_or_default(), names.len());
        self.world.path(RESULT + 0x1000, names.get(which).copied().unwrap_or_default())
    }

    fn look_where_it_is(&mut self) {
        let len = self.call(nr::GETCWD, [address(RESULT), 4096, 0, 0, 0, 0]);
        if let Some(len) = len {
            let bytes = self.world.get(RESULT, usize::try_from(len).unwrap_or_default());
            assert!(bytes.starts_with(b"/") || bytes.starts_with(b"(unreachable)"), "a working directory");
        }
        if !self.outside.is_empty() {
            let here = self.world.open(".", OpenFlags::DIRECTORY);
            let is = here.and_then(|fd| self.world.identity(fd));
            assert!(!is.is_some_and(|is| self.outside.contains(&is)), "it has left the changed root");
            let _ = here.map(|fd| self.call(nr::CLOSE, [fd, 0, 0, 0, 0, 0]));
        }
    }
}

/// The first byte says who walks, one byte what is done next, others with which paths.
pub fn walk(data: &[u8]) {
    let mut input = Input(data);
    let mut walker = Walker::new(input.byte().unwrap_or_default() & 1 == 0);
    while let Some(what) = input.byte() {
        walker.step(what, &mut input);
    }
}
