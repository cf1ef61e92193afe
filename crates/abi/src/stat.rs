//! stat(2), statx(2), statfs(2): their structs, and device numbers.
//!
//! Sources: `arch/x86/include/uapi/asm/stat.h`, `linux/stat.h`, `asm-generic/statfs.h`, `linux/magic.h`,
//! `linux/kdev_t.h`.

/// A device number: a 12-bit major and a 20-bit minor.
///
/// Inside the kernel it is `major << 20 | minor`; guests see two other encodings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    /// Major number, below 4096.
    pub major: u32,
    /// Minor number, below 2^20.
    pub minor: u32,
}

impl DeviceId {
    /// No device.
    pub const NONE: DeviceId = DeviceId { major: 0, minor: 0 };

    /// The device `major`:`minor`, cut to 12 and 20 bits.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> DeviceId {
        DeviceId { major: major & 0xfff, minor: minor & 0xf_ffff }
    }

    /// `st_dev` and `st_rdev` of stat(2), and the argument of mknod(2) (`new_encode_dev`).
    #[must_use]
    pub const fn to_raw(self) -> u64 {
        ((self.minor & 0xff) | (self.major << 8) | ((self.minor & !0xff) << 12)) as u64
    }

    /// The device of a mknod(2) argument (`new_decode_dev`, of which only 32 bits count).
    #[must_use]
    pub const fn from_raw(raw: u64) -> DeviceId {
        let raw = raw as u32;
        DeviceId { major: (raw & 0xf_ff00) >> 8, minor: (raw & 0xff) | ((raw >> 12) & 0xf_ff00) }
    }

    /// The device of a glibc `dev_t` of 64 bits, as makedev(3) packs it (larger majors are cut).
    #[must_use]
    pub const fn from_glibc(dev: u64) -> DeviceId {
        let major = ((dev >> 8) & 0xfff) | ((dev >> 32) & 0xffff_f000);
        let minor = (dev & 0xff) | ((dev >> 12) & 0xffff_ff00);
        DeviceId::new(major as u32, minor as u32)
    }
}

consts! { "Major device numbers, `Documentation/admin-guide/devices.txt`.", u32; UNNAMED_MAJOR = 0, MEM_MAJOR = 1,
PTY_MASTER_MAJOR = 2,
PTY_SLAVE_MAJOR = 3, TTY_MAJOR = 4, TTYAUX_MAJOR = 5, MISC_MAJOR = 10, UNIX98_PTY_MASTER_MAJOR = 128,
UNIX98_PTY_SLAVE_MAJOR = 136 }

guest_struct! {
    /// `struct stat` of x86-64.
    Stat: 144 {
        st_dev: u64, st_ino: u64, st_nlink: u64, st_mode: u32, st_uid: u32, st_gid: u32, pad0: u32, st_rdev: u64,
        st_size: i64, st_blksize: i64, st_blocks: i64,
        st_atime: i64, st_atime_nsec: u64, st_mtime: i64, st_mtime_nsec: u64, st_ctime: i64, st_ctime_nsec: u64,
        unused: [i64; 3],
    }
}

guest_struct! {
    /// `struct statx_timestamp`.
    StatxTimestamp: 16 { tv_sec: i64, tv_nsec: u32, reserved: i32 }
}

guest_struct! {
    /// `struct statx`.
    Statx: 256 {
        stx_mask: u32, stx_blksize: u32, stx_attributes: u64,
        stx_nlink: u32, stx_uid: u32, stx_gid: u32, stx_mode: u16, spare0: u16,
        stx_ino: u64, stx_size: u64, stx_blocks: u64, stx_attributes_mask: u64,
        stx_atime: StatxTimestamp, stx_btime: StatxTimestamp, stx_ctime: StatxTimestamp, stx_mtime: StatxTimestamp,
        stx_rdev_major: u32, stx_rdev_minor: u32, stx_dev_major: u32, stx_dev_minor: u32,
        stx_mnt_id: u64, stx_dio_mem_align: u32, stx_dio_offset_align: u32, stx_subvol: u64,
        stx_atomic_write_unit_min: u32, stx_atomic_write_unit_max: u32, stx_atomic_write_segments_max: u32,
        stx_dio_read_offset_align: u32, stx_atomic_write_unit_max_opt: u32, spare2: u32, spare3: [u64; 8],
    }
}

flag_set! {
    /// `stx_mask` of statx(2).
    StatxMask: u32, "STATX_" {
        TYPE = 0x1, MODE = 0x2, NLINK = 0x4, UID = 0x8, GID = 0x10, ATIME = 0x20, MTIME = 0x40, CTIME = 0x80,
        INO = 0x100,
        SIZE = 0x200, BLOCKS = 0x400, BASIC_STATS = 0x7ff, BTIME = 0x800, MNT_ID = 0x1000, DIOALIGN = 0x2000,
        MNT_ID_UNIQUE = 0x4000, SUBVOL = 0x8000, WRITE_ATOMIC = 0x10000, DIO_READ_ALIGN = 0x20000,
        RESERVED = 0x8000_0000,
    }
}
consts! { "`stx_attributes` of statx(2).", u64; STATX_ATTR_COMPRESSED = 0x4, STATX_ATTR_IMMUTABLE = 0x10,
STATX_ATTR_APPEND = 0x20,
STATX_ATTR_NODUMP = 0x40, STATX_ATTR_ENCRYPTED = 0x800, STATX_ATTR_AUTOMOUNT = 0x1000,
STATX_ATTR_MOUNT_ROOT = 0x2000,
STATX_ATTR_VERITY = 0x10_0000, STATX_ATTR_DAX = 0x20_0000 }

guest_struct! {
    /// `struct statfs` (and `statfs64`) of x86-64.
    Statfs: 120 {
        f_type: i64, f_bsize: i64, f_blocks: u64, f_bfree: u64, f_bavail: u64, f_files: u64, f_ffree: u64,
        f_fsid: [i32; 2], f_namelen: i64, f_frsize: i64, f_flags: i64, f_spare: [i64; 4],
    }
}

consts! { "`f_flags` of statfs(2).", i64; ST_RDONLY = 1, ST_NOSUID = 2, ST_NODEV = 4, ST_NOEXEC = 8,
ST_SYNCHRONOUS = 16, ST_VALID = 32,
ST_MANDLOCK = 64, ST_NOATIME = 1024, ST_NODIRATIME = 2048, ST_RELATIME = 4096, ST_NOSYMFOLLOW = 8192 }

consts! { "`f_type` of statfs(2), `linux/magic.h`.", i64; TMPFS_MAGIC = 0x0102_1994, PROC_SUPER_MAGIC = 0x9fa0,
SYSFS_MAGIC = 0x6265_6572,
DEVPTS_SUPER_MAGIC = 0x1cd1, OVERLAYFS_SUPER_MAGIC = 0x794c_7630, EXT4_SUPER_MAGIC = 0xef53,
XFS_SUPER_MAGIC = 0x5846_5342,
BTRFS_SUPER_MAGIC = 0x9123_683e, PIPEFS_MAGIC = 0x5049_5045, SOCKFS_MAGIC = 0x534f_434b,
ANON_INODE_FS_MAGIC = 0x0904_1934,
CGROUP_SUPER_MAGIC = 0x27_e0eb, CGROUP2_SUPER_MAGIC = 0x6367_7270, NSFS_MAGIC = 0x6e73_6673,
PID_FS_MAGIC = 0x5049_4446,
MQUEUE_MAGIC = 0x1980_0202, RAMFS_MAGIC = 0x8584_58f6, HUGETLBFS_MAGIC = 0x9584_58f6,
FUSE_SUPER_MAGIC = 0x6573_5546,
DEBUGFS_MAGIC = 0x6462_6720, TRACEFS_MAGIC = 0x7472_6163, SECURITYFS_MAGIC = 0x7363_6673,
BPF_FS_MAGIC = 0xcafe_4a11,
NFS_SUPER_MAGIC = 0x6969, V9FS_MAGIC = 0x0102_1997, SQUASHFS_MAGIC = 0x7371_7368, MSDOS_SUPER_MAGIC = 0x4d44,
BINFMTFS_MAGIC = 0x4249_4e4d, EROFS_SUPER_MAGIC_V1 = 0xe0f5_e1e2, SELINUX_MAGIC = 0xf97c_ff8c }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_round_trip() {
        for (major, minor) in [(0, 0), (1, 3), (5, 2), (136, 7), (4095, 0xf_ffff), (8, 0x12345)] {
            let dev = DeviceId::new(major, minor);
            assert_eq!(DeviceId::from_raw(dev.to_raw()), dev);
            assert_eq!(DeviceId::from_glibc(dev.to_raw()), dev);
        }
        assert_eq!(DeviceId::new(136, 7).to_raw(), 0x8807);
        assert_eq!(DeviceId::new(259, 0x12345).to_raw(), 0x1231_0345);
    }
}
