//! Files: open flags, modes, `AT_*`, directory entries, fcntl(2), locks, xattr, splice, inotify.
//!
//! Sources: `asm-generic/fcntl.h`, `linux/{fcntl,stat,openat2,fs,falloc,xattr,inotify}.h`. Structs of
//! stat(2) and its like are in [`crate::stat`], mount(2) flags in [`crate::mount`].

use bitflags::bitflags;

consts! { "Directory file descriptor that stands for the working directory, openat(2).", i32; AT_FDCWD = -100 }

consts! { "Path limits, `linux/limits.h`.", usize; NAME_MAX = 255, PATH_MAX = 4096, XATTR_NAME_MAX = 255,
XATTR_SIZE_MAX = 65536, XATTR_LIST_MAX = 65536, PIPE_BUF = 4096 }
consts! { "Most elements of a `struct iovec` array, readv(2).", usize; UIO_MAXIOV = 1024 }
consts! { "Most bytes that one read or write moves (`MAX_RW_COUNT`), read(2) NOTES.", usize;
MAX_RW_COUNT = 0x7fff_f000 }
consts! { "Most symbolic links in one path walk (`MAXSYMLINKS`), path_resolution(7).", u32; MAXSYMLINKS = 40 }

bitflags! {
    /// Flags of open(2) and of an open file description.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OpenFlags: u32 {
        /// Open for writing only (access mode 1).
        const WRONLY = 0o1;
        /// Open for reading and writing (access mode 2). Both bits set is access mode 3, for ioctl only.
        const RDWR = 0o2;
        /// Create the file if it does not exist.
        const CREAT = 0o100;
        /// With CREAT: fail with EEXIST if it exists.
        const EXCL = 0o200;
        /// Do not make a terminal the controlling terminal.
        const NOCTTY = 0o400;
        /// Truncate to length 0.
        const TRUNC = 0o1000;
        /// Writes go to the end.
        const APPEND = 0o2000;
        /// Do not wait.
        const NONBLOCK = 0o4000;
        /// Data reaches the disk before write returns.
        const DSYNC = 0o10000;
        /// Send SIGIO when the file becomes ready.
        const ASYNC = 0o20000;
        /// Bypass the page cache.
        const DIRECT = 0o40000;
        /// Allow offsets beyond 2^31; always set on a 64-bit kernel by openat2's rules and open's force.
        const LARGEFILE = 0o100000;
        /// Fail with ENOTDIR unless it is a directory.
        const DIRECTORY = 0o200000;
        /// Fail with ELOOP if the last component is a symbolic link.
        const NOFOLLOW = 0o400000;
        /// Do not update the access time.
        const NOATIME = 0o1000000;
        /// Close on exec: a flag of the descriptor, not of the description.
        const CLOEXEC = 0o2000000;
        /// The bit that SYNC has beyond DSYNC (`__O_SYNC`).
        const SYNC_BIT = 0o4000000;
        /// Data and metadata reach the disk before write returns.
        const SYNC = 0o4010000;
        /// A reference to a place in the tree, not an open file.
        const PATH = 0o10000000;
        /// The bit that TMPFILE has beyond DIRECTORY (`__O_TMPFILE`).
        const TMPFILE_BIT = 0o20000000;
        /// An unnamed file in the directory given.
        const TMPFILE = 0o20200000;
    }
}

/// The access mode of an open file: the low two bits of [`OpenFlags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessMode {
    /// `O_RDONLY`.
    ReadOnly,
    /// `O_WRONLY`.
    WriteOnly,
    /// `O_RDWR`.
    ReadWrite,
    /// Both bits: neither read nor write, but ioctl (Linux's mode 3; it needs read and write permission).
    Neither,
}

impl AccessMode {
    /// Whether read(2) is allowed.
    #[must_use]
    pub const fn can_read(self) -> bool {
        matches!(self, AccessMode::ReadOnly | AccessMode::ReadWrite)
    }

    /// Whether write(2) is allowed.
    #[must_use]
    pub const fn can_write(self) -> bool {
        matches!(self, AccessMode::WriteOnly | AccessMode::ReadWrite)
    }
}

impl OpenFlags {
    /// Everything that open(2) knows (`VALID_OPEN_FLAGS`): open ignores other bits, openat2 refuses them.
    pub const VALID: OpenFlags = OpenFlags::all();
    /// The flags that fcntl(F_SETFL) changes (`SETFL_MASK`).
    pub const SETFL_MASK: OpenFlags =
        Self::APPEND.union(Self::NONBLOCK).union(Self::ASYNC).union(Self::DIRECT).union(Self::NOATIME);
    /// The flags that act at open only and that F_GETFL does not show.
    pub const OPEN_ONLY: OpenFlags =
        Self::CREAT.union(Self::EXCL).union(Self::NOCTTY).union(Self::TRUNC).union(Self::CLOEXEC);
    /// The access mode bits, `O_ACCMODE`.
    pub const ACCMODE: OpenFlags = Self::WRONLY.union(Self::RDWR);
    /// The flags that O_PATH keeps; it drops all the others (`O_PATH_FLAGS`).
    pub const PATH_MASK: OpenFlags = Self::DIRECTORY.union(Self::NOFOLLOW).union(Self::PATH).union(Self::CLOEXEC);

    /// The access mode.
    #[must_use]
    pub const fn access_mode(self) -> AccessMode {
        match self.bits() & 3 {
            0 => AccessMode::ReadOnly,
            1 => AccessMode::WriteOnly,
            2 => AccessMode::ReadWrite,
            _ => AccessMode::Neither,
        }
    }
}

consts! { "File type in `st_mode`, inode(7).", u32; S_IFMT = 0o170_000, S_IFSOCK = 0o140_000, S_IFLNK = 0o120_000,
S_IFREG = 0o100_000, S_IFBLK = 0o060_000, S_IFDIR = 0o040_000, S_IFCHR = 0o020_000, S_IFIFO = 0o010_000 }
consts! { "Permission bits of `st_mode`, inode(7).", u32; S_ISUID = 0o4000, S_ISGID = 0o2000, S_ISVTX = 0o1000,
S_IRWXU = 0o700, S_IRUSR = 0o400, S_IWUSR = 0o200, S_IXUSR = 0o100,
S_IRWXG = 0o070, S_IRGRP = 0o040, S_IWGRP = 0o020, S_IXGRP = 0o010,
S_IRWXO = 0o007, S_IROTH = 0o004, S_IWOTH = 0o002, S_IXOTH = 0o001 }
consts! { "All the bits that chmod(2) sets (`S_IALLUGO`).", u32; S_IALLUGO = 0o7777 }

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// `S_IFIFO`.
    Fifo,
    /// `S_IFCHR`.
    CharDevice,
    /// `S_IFDIR`.
    Directory,
    /// `S_IFBLK`.
    BlockDevice,
    /// `S_IFREG`.
    Regular,
    /// `S_IFLNK`.
    Symlink,
    /// `S_IFSOCK`.
    Socket,
}

impl FileType {
    /// The type in `st_mode`, if it is one.
    #[must_use]
    pub const fn from_mode(mode: u32) -> Option<FileType> {
        Some(match mode & S_IFMT {
            S_IFIFO => FileType::Fifo,
            S_IFCHR => FileType::CharDevice,
            S_IFDIR => FileType::Directory,
            S_IFBLK => FileType::BlockDevice,
            S_IFREG => FileType::Regular,
            S_IFLNK => FileType::Symlink,
            S_IFSOCK => FileType::Socket,
            _ => return None,
        })
    }

    /// The `S_IF*` bits.
    #[must_use]
    pub const fn mode_bits(self) -> u32 {
        match self {
            FileType::Fifo => S_IFIFO,
            FileType::CharDevice => S_IFCHR,
            FileType::Directory => S_IFDIR,
            FileType::BlockDevice => S_IFBLK,
            FileType::Regular => S_IFREG,
            FileType::Symlink => S_IFLNK,
            FileType::Socket => S_IFSOCK,
        }
    }

    /// The `d_type` of getdents64(2).
    #[must_use]
    pub const fn dirent_type(self) -> u8 {
        (self.mode_bits() >> 12) as u8
    }

    /// The type that a `d_type` names; `None` for `DT_UNKNOWN` and numbers without a meaning.
    #[must_use]
    pub const fn from_dirent_type(d_type: u8) -> Option<FileType> {
        if d_type > 15 { None } else { FileType::from_mode((d_type as u32) << 12) }
    }
}

consts! { "`d_type` of getdents64(2).", u8; DT_UNKNOWN = 0, DT_FIFO = 1, DT_CHR = 2, DT_DIR = 4, DT_BLK = 6, DT_REG = 8,
DT_LNK = 10, DT_SOCK = 12, DT_WHT = 14 }
/// Bytes of `struct linux_dirent64` before the name: d_ino u64, d_off i64, d_reclen u16, d_type u8.
pub const DIRENT64_HEADER: usize = 19;
/// Bytes of the old `struct linux_dirent` before the name: d_ino u64, d_off u64, d_reclen u16; d_type is its last byte.
pub const DIRENT_HEADER: usize = 18;

bitflags! {
    /// `AT_*` flags of the *at calls; each call says which it takes.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct AtFlags: u32 {
        /// Do not follow a symbolic link in the last component.
        const SYMLINK_NOFOLLOW = 0x100;
        /// faccessat2(2): check with effective ids. Same bit as REMOVEDIR.
        const EACCESS = 0x200;
        /// unlinkat(2): remove a directory.
        const REMOVEDIR = 0x200;
        /// Follow a symbolic link in the last component.
        const SYMLINK_FOLLOW = 0x400;
        /// Do not trigger an automount.
        const NO_AUTOMOUNT = 0x800;
        /// An empty path means the descriptor itself.
        const EMPTY_PATH = 0x1000;
        /// statx(2): ask the server whatever it costs.
        const STATX_FORCE_SYNC = 0x2000;
        /// statx(2): cached values will do.
        const STATX_DONT_SYNC = 0x4000;
        /// open_tree(2), mount_setattr(2): the whole subtree.
        const RECURSIVE = 0x8000;
        /// execveat(2): only ask whether execution would be allowed (Linux 6.14).
        const EXECVE_CHECK = 0x10000;
    }
}

consts! { "access(2) modes.", u32; F_OK = 0, X_OK = 1, W_OK = 2, R_OK = 4 }
consts! { "lseek(2) whence.", u32; SEEK_SET = 0, SEEK_CUR = 1, SEEK_END = 2, SEEK_DATA = 3, SEEK_HOLE = 4 }
consts! { "renameat2(2) flags.", u32; RENAME_NOREPLACE = 1, RENAME_EXCHANGE = 2, RENAME_WHITEOUT = 4 }
consts! { "Special `tv_nsec` values of utimensat(2).", i64; UTIME_NOW = 0x3fff_ffff, UTIME_OMIT = 0x3fff_fffe }

consts! { "fcntl(2) commands.", u32; F_DUPFD = 0, F_GETFD = 1, F_SETFD = 2, F_GETFL = 3, F_SETFL = 4, F_GETLK = 5,
F_SETLK = 6, F_SETLKW = 7, F_SETOWN = 8, F_GETOWN = 9, F_SETSIG = 10, F_GETSIG = 11, F_SETOWN_EX = 15,
F_GETOWN_EX = 16,
F_GETOWNER_UIDS = 17, F_OFD_GETLK = 36, F_OFD_SETLK = 37, F_OFD_SETLKW = 38, F_SETLEASE = 1024, F_GETLEASE = 1025,
F_NOTIFY = 1026, F_DUPFD_QUERY = 1027, F_CREATED_QUERY = 1028, F_CANCELLK = 1029, F_DUPFD_CLOEXEC = 1030,
F_SETPIPE_SZ = 1031,
F_GETPIPE_SZ = 1032, F_ADD_SEALS = 1033, F_GET_SEALS = 1034, F_GET_RW_HINT = 1035, F_SET_RW_HINT = 1036,
F_GET_FILE_RW_HINT = 1037, F_SET_FILE_RW_HINT = 1038 }
consts! { "Descriptor flag of F_GETFD and F_SETFD.", u32; FD_CLOEXEC = 1 }
consts! { "`type` of `struct f_owner_ex`.", i32; F_OWNER_TID = 0, F_OWNER_PID = 1, F_OWNER_PGRP = 2 }
consts! { "Lock types of fcntl(2) record locks and leases.", i16; F_RDLCK = 0, F_WRLCK = 1, F_UNLCK = 2 }
consts! { "flock(2) operations.", u32; LOCK_SH = 1, LOCK_EX = 2, LOCK_NB = 4, LOCK_UN = 8 }

bitflags! {
    /// Seals of a memfd, F_ADD_SEALS of fcntl(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SealFlags: u32 {
        /// No more seals.
        const SEAL = 1;
        /// The file cannot shrink.
        const SHRINK = 2;
        /// The file cannot grow.
        const GROW = 4;
        /// The file cannot be written.
        const WRITE = 8;
        /// No new writes or writable mappings.
        const FUTURE_WRITE = 16;
        /// The execute bits of the mode are fixed (Linux 6.3).
        const EXEC = 32;
    }
}
consts! { "memfd_create(2) flags.", u32; MFD_CLOEXEC = 1, MFD_ALLOW_SEALING = 2, MFD_HUGETLB = 4, MFD_NOEXEC_SEAL = 8,
MFD_EXEC = 16 }
/// Longest name of a memfd without its terminating NUL (`MFD_NAME_MAX_LEN`).
pub const MFD_NAME_MAX: usize = 249;

consts! { "fallocate(2) modes.", u32; FALLOC_FL_KEEP_SIZE = 1, FALLOC_FL_PUNCH_HOLE = 2, FALLOC_FL_COLLAPSE_RANGE = 8,
FALLOC_FL_ZERO_RANGE = 16, FALLOC_FL_INSERT_RANGE = 32, FALLOC_FL_UNSHARE_RANGE = 64 }
consts! { "posix_fadvise(2) advice.", u32; POSIX_FADV_NORMAL = 0, POSIX_FADV_RANDOM = 1, POSIX_FADV_SEQUENTIAL = 2,
POSIX_FADV_WILLNEED = 3, POSIX_FADV_DONTNEED = 4, POSIX_FADV_NOREUSE = 5 }
consts! { "sync_file_range(2) flags.", u32; SYNC_FILE_RANGE_WAIT_BEFORE = 1, SYNC_FILE_RANGE_WRITE = 2,
SYNC_FILE_RANGE_WAIT_AFTER = 4 }
consts! { "splice(2), tee(2) and vmsplice(2) flags.", u32; SPLICE_F_MOVE = 1, SPLICE_F_NONBLOCK = 2,
SPLICE_F_MORE = 4, SPLICE_F_GIFT = 8 }
consts! { "setxattr(2) flags.", u32; XATTR_CREATE = 1, XATTR_REPLACE = 2 }
consts! { "close_range(2) flags.", u32; CLOSE_RANGE_UNSHARE = 2, CLOSE_RANGE_CLOEXEC = 4 }
consts! { "openat2(2) `resolve` flags.", u64; RESOLVE_NO_XDEV = 1, RESOLVE_NO_MAGICLINKS = 2, RESOLVE_NO_SYMLINKS = 4,
RESOLVE_BENEATH = 8, RESOLVE_IN_ROOT = 16, RESOLVE_CACHED = 32 }
consts! { "name_to_handle_at(2) limit and flag.", u32; MAX_HANDLE_SZ = 128, AT_HANDLE_FID = 0x200 }

bitflags! {
    /// `RWF_*` flags of preadv2(2) and pwritev2(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RwFlags: u32 {
        /// High priority.
        const HIPRI = 1;
        /// As O_DSYNC for this write.
        const DSYNC = 2;
        /// As O_SYNC for this write.
        const SYNC = 4;
        /// EAGAIN instead of waiting.
        const NOWAIT = 8;
        /// As O_APPEND for this write.
        const APPEND = 16;
        /// Ignores O_APPEND for this write.
        const NOAPPEND = 32;
        /// Torn-write protection.
        const ATOMIC = 64;
        /// Drops the pages from the cache afterwards.
        const DONTCACHE = 128;
    }
}

guest_struct! {
    /// `struct flock`, fcntl(2).
    Flock: 32 { l_type: i16, l_whence: i16, pad: u32, l_start: i64, l_len: i64, l_pid: i32, pad2: u32 }
}
guest_struct! {
    /// `struct f_owner_ex`, F_SETOWN_EX of fcntl(2).
    FOwnerEx: 8 { r#type: i32, pid: i32 }
}
guest_struct! {
    /// `struct open_how`, openat2(2). Longer structs must be zero beyond it (E2BIG), shorter ones are EINVAL.
    OpenHow: 24 { flags: u64, mode: u64, resolve: u64 }
}
guest_struct! {
    /// `struct iovec`, readv(2).
    Iovec: 16 { iov_base: u64, iov_len: u64 }
}
guest_struct! {
    /// `struct file_handle` without its bytes, name_to_handle_at(2).
    FileHandle: 8 { handle_bytes: u32, handle_type: i32 }
}
guest_struct! {
    /// `struct inotify_event` without its name, inotify(7).
    InotifyEvent: 16 { wd: i32, mask: u32, cookie: u32, len: u32 }
}

flag_set! {
    /// Event and option bits of inotify(7).
    InotifyMask: u32, "IN_" {
        ACCESS = 0x1, MODIFY = 0x2, ATTRIB = 0x4, CLOSE_WRITE = 0x8, CLOSE_NOWRITE = 0x10, OPEN = 0x20,
        MOVED_FROM = 0x40,
        MOVED_TO = 0x80, CREATE = 0x100, DELETE = 0x200, DELETE_SELF = 0x400, MOVE_SELF = 0x800, ALL_EVENTS = 0xfff,
        UNMOUNT = 0x2000, Q_OVERFLOW = 0x4000, IGNORED = 0x8000, ONLYDIR = 0x0100_0000, DONT_FOLLOW = 0x0200_0000,
        EXCL_UNLINK = 0x0400_0000, MASK_CREATE = 0x1000_0000, MASK_ADD = 0x2000_0000, ISDIR = 0x4000_0000,
        ONESHOT = 0x8000_0000,
    }
}
consts! { "inotify_init1(2) flags.", u32; IN_NONBLOCK = 0o4000, IN_CLOEXEC = 0o2_000_000 }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_types_round_trip() {
        for mode in (0..16).map(|t| t << 12) {
            if let Some(t) = FileType::from_mode(mode | 0o755) {
                assert_eq!(t.mode_bits(), mode);
                assert_eq!(FileType::from_dirent_type(t.dirent_type()), Some(t));
            }
        }
        assert_eq!(FileType::Directory.dirent_type(), DT_DIR);
        assert_eq!(FileType::from_dirent_type(200), None);
        assert_eq!(FileType::from_mode(0o644), None);
    }

    #[test]
    fn access_modes() {
        assert!(OpenFlags::empty().access_mode().can_read());
        assert!(!OpenFlags::empty().access_mode().can_write());
        assert_eq!((OpenFlags::RDWR | OpenFlags::CREAT).access_mode(), AccessMode::ReadWrite);
        assert_eq!(OpenFlags::ACCMODE.access_mode(), AccessMode::Neither);
    }
}
