//! Files: the system calls on descriptors and names, by family.

pub mod at;
mod direct;
pub mod io;
pub(crate) mod pauses;

pub mod access;
pub mod aio;
pub mod attr;
pub mod counters;
pub mod descriptors;
pub mod dir;
pub mod epoll;
pub mod fcntl;
pub mod inotify;
pub mod ioctl;
pub mod leases;
pub mod locks;
pub mod mount;
pub mod names;
pub mod open;
pub mod pipe;
pub mod poll;
pub mod rw;
pub mod select;
pub mod size;
pub mod splice;
pub mod stat;
pub mod sync;
pub mod transfer;
pub mod xattr;

/// The tables of all families.
pub(crate) static TABLES: &[&[crate::SyscallDecl]] = &[
    access::TABLE,
    aio::TABLE,
    attr::TABLE,
    counters::TABLE,
    descriptors::TABLE,
    dir::TABLE,
    epoll::TABLE,
    fcntl::TABLE,
    inotify::TABLE,
    ioctl::TABLE,
    locks::TABLE,
    mount::TABLE,
    names::TABLE,
    open::TABLE,
    pipe::TABLE,
    poll::TABLE,
    rw::TABLE,
    select::TABLE,
    size::TABLE,
    splice::TABLE,
    stat::TABLE,
    sync::TABLE,
    transfer::TABLE,
    xattr::TABLE,
];
