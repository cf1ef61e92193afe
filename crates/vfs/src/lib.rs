//! The virtual file system: names, mounts, open files and what a file system must provide.
//!
//! - [`inode`]: [`Inode`], what a file system gives for each file, and [`FileSystem`]; [`mod@file`]: [`File`], what an open file does.
//! - [`vfs`]: [`Vfs`], what exists once per kernel, and [`tables`], what mounts refer to; [`registry`]: what types, devices and
//!   families there are. [`filesystem`]: what mount(2) asks for.
//! - [`dentry`], [`mount`], [`path`], [`walk`]: the tree of names as processes see it, and path resolution.
//! - [`ops`]: the operations on names (open, mkdir, rename, ...): the one implementation of their rules.
//! - [`open_file`], [`fd_table`], [`fs_context`]: what a process holds.
//! - [`epoll`], [`inotify`], [`locks`]: readiness lists; watches of files; record locks and flock.
//! - [`cred`], [`caller`]: on whose behalf something is done.
//! - [`persist`]: what of all this an image has, and how it comes out of it.
//! - [`socket`]: what is the same in all socket families.
//!
//! The order of the modules is in the crate's README.
//!
//! # Invariants
//! - Nothing here blocks: what would wait gives EAGAIN and has a wait queue.
//! - A file system is the authority on its names; dentries are a cache of them, changed only after the file system
//!   has agreed, under the directory's own lock ([`dentry::Dentry::lock_entries`]).
//! - Lock order: fd table, epoll, mounts, rename, directory entries, dentry, open file, inode, data (see `moat_sync::LockClass`).
#![forbid(unsafe_code)]

pub mod acl;
pub mod aio_limits;
pub mod anon;
pub mod atime;
pub mod caller;
pub mod clock;
pub mod cred;
pub mod dentry;
pub mod device_rules;
pub mod epoll;
pub mod fd;
pub mod fd_table;
pub mod file;
pub mod filesystem;
pub mod fs_context;
pub mod generated;
pub mod inode;
pub mod inotify;
pub mod leases;
pub mod locks;
pub mod metadata;
pub mod mount;
pub mod open_file;
pub mod ops;
pub mod outside;
pub mod owner;
pub mod path;
pub mod permission;
pub mod persist;
pub mod registry;
mod saved_namespaces;
pub mod socket;
pub mod tables;
pub mod text_busy;
pub mod vfs;
pub mod walk;

pub use aio_limits::AioLimits;
pub use caller::{Caller, KernelCaller};
pub use cred::{Credentials, UserNamespace};
pub use dentry::Dentry;
pub use fd_table::{Fd, FdTable};
pub use file::{DirEntry, File, Seekable, SyncKind};
pub use filesystem::MountRequest;
pub use fs_context::FsContext;
pub use inode::{
    Access, Cache, FileSystem, Inode, Metadata, NewNode, NodeKind, OpenContext, RenameFlags, SetAttr, SetTime,
};
pub use moat_abi::cap::{Cap, CapSet};
pub use mount::{Mount, MountFlags, MountNamespace};
pub use open_file::OpenFile;
pub use path::Path;
pub use registry::Registry;
pub use tables::Tables;
pub use vfs::Vfs;
pub use walk::{LookupFlags, View};
