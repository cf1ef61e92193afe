//! Which operation on files a system call is: what people ask about, whatever the call's name.

/// The operation that a call is, if it is one.
pub(super) fn operation(call: &str) -> Option<&'static str> {
    Some(match call {
        "open" | "openat" | "openat2" | "creat" | "open_by_handle_at" => "open",
        "close" | "close_range" => "close",
        "read" | "pread64" | "readv" | "preadv" | "preadv2" => "read",
        "write" | "pwrite64" | "writev" | "pwritev" | "pwritev2" => "write",
        "sendfile" | "copy_file_range" | "splice" | "tee" => "copy",
        "stat" | "lstat" | "fstat" | "newfstatat" | "statx" | "access" | "faccessat" | "faccessat2" | "readlink"
        | "readlinkat" | "statfs" | "fstatfs" => "stat",
        "getdents" | "getdents64" => "list",
        "lseek" => "seek",
        "fsync" | "fdatasync" | "sync_file_range" | "syncfs" | "sync" | "msync" => "sync",
        "mkdir" | "mkdirat" | "mknod" | "mknodat" | "link" | "linkat" | "symlink" | "symlinkat" => "create",
        "unlink" | "unlinkat" | "rmdir" => "remove",
        "rename" | "renameat" | "renameat2" => "rename",
        "truncate" | "ftruncate" | "fallocate" => "resize",
        "chmod" | "fchmod" | "fchmodat" | "fchmodat2" | "chown" | "fchown" | "lchown" | "fchownat" | "utime"
        | "utimes" | "futimesat" | "utimensat" => "attributes",
        "getxattr" | "lgetxattr" | "fgetxattr" | "setxattr" | "lsetxattr" | "fsetxattr" | "listxattr"
        | "llistxattr" | "flistxattr" | "removexattr" | "lremovexattr" | "fremovexattr" => "xattr",
        "flock" => "lock",
        _ => return None,
    })
}
