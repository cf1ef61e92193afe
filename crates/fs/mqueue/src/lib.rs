//! mqueue: the file system of POSIX message queues, mq_overview(7).
#![forbid(unsafe_code)]

mod fs;

/// Registers the file system type.
pub fn register() {
    moat_vfs::filesystem::register_filesystem("mqueue", fs::construct);
}
