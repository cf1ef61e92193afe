//! Path resolution: path_resolution(7), and the restrictions of openat2(2).
//!
//! A [`Walker`] holds the place reached and the text still to go; a symbolic link replaces its own component by its
//! target in that text, so nothing recurses.

use std::borrow::Cow;
use std::sync::Arc;

use bitflags::bitflags;
use moat_abi::fs::{FileType, MAXSYMLINKS, PATH_MAX};
use moat_abi::{Errno, Result};

use crate::caller::Caller;
use crate::cred::Credentials;
use crate::inode::Access;
use crate::mount::MountFlags;
use crate::path::Path;

bitflags! {
    /// How a path is resolved.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct LookupFlags: u32 {
        /// A symbolic link as last component is followed.
        const FOLLOW = 1;
        /// ENOTDIR unless the result is a directory.
        const DIRECTORY = 2;
        /// An empty path is the base itself (AT_EMPTY_PATH).
        const EMPTY_PATH = 4;
        /// EXDEV at the edge of a mount.
        const NO_XDEV = 8;
        /// ELOOP at a magic link.
        const NO_MAGICLINKS = 16;
        /// ELOOP at any link.
        const NO_SYMLINKS = 32;
        /// EXDEV for what leads out of the base.
        const BENEATH = 64;
        /// The base is the root.
        const IN_ROOT = 128;
    }
}

/// From where, and for whom, a path is resolved.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// On whose behalf.
    pub caller: &'a dyn Caller,
    /// What `/` means.
    pub root: &'a Path,
    /// Where relative paths begin: the working directory or that of a descriptor.
    pub base: &'a Path,
    /// Permission bits that new files do not get.
    pub umask: u32,
}

impl View<'_> {
    /// The caller's credentials.
    #[must_use]
    pub fn creds(&self) -> &Arc<Credentials> {
        self.caller.creds()
    }
}

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Last {
    /// An ordinary name.
    Name(Vec<u8>),
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// There is none: the path is `/`.
    Root,
}

/// What follows the last component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trailing {
    /// Nothing.
    None,
    /// Slashes: it must be a directory.
    Slash,
}

/// A path up to its last component.
pub struct Parent {
    /// The directory.
    pub dir: Path,
    /// The component.
    pub last: Last,
    /// What follows it.
    pub trailing: Trailing,
}

/// A walk under way.
pub struct Walker<'a> {
    view: View<'a>,
    root: Path,
    flags: LookupFlags,
    at: Path,
    rest: Cow<'a, [u8]>,
    offset: usize,
    links: u32,
}

impl<'a> Walker<'a> {
    /// Begins a walk.
    ///
    /// # Errors
    /// ENOENT for an empty path, ENAMETOOLONG, EXDEV (an absolute path under BENEATH or NO_XDEV).
    pub fn new(view: View<'a>, path: &'a [u8], flags: LookupFlags) -> Result<Walker<'a>> {
        if path.is_empty() && !flags.contains(LookupFlags::EMPTY_PATH) {
            return Err(Errno::ENOENT);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let root =
            // The start is as high as `..` gets under these flags.
            if flags.intersects(LookupFlags::BENEATH | LookupFlags::IN_ROOT) { view.base } else { view.root }.clone();
        let mut w = Walker { view, root, flags, at: view.base.clone(), rest: Cow::Borrowed(path), offset: 0, links: 0 };
        if path.first() == Some(&b'/') {
            w.restart_at_root()?;
        }
        Ok(w)
    }

    fn restart_at_root(&mut self) -> Result<()> {
        if self.flags.contains(LookupFlags::BENEATH) {
            // An absolute path leaves the start by definition.
            return Err(Errno::EXDEV);
        }
        let root = self.root.clone();
        self.jump(root)
    }

    fn jump(&mut self, to: Path) -> Result<()> {
        if self.flags.contains(LookupFlags::NO_XDEV) && !Arc::ptr_eq(&to.mount, &self.at.mount) {
            return Err(Errno::EXDEV);
        }
        self.at = to;
        Ok(())
    }

    /// The next component's place in the text; `None` at the end.
    fn next(&mut self) -> Option<(usize, usize)> {
        let rest = &self.rest;
        let start = self.offset + rest[self.offset..].iter().position(|&b| b != b'/')?;
        let len = rest[start..].iter().position(|&b| b == b'/').unwrap_or(rest.len() - start);
        self.offset = start + len;
        Some((start, start + len))
    }

    fn at_end(&self) -> bool {
        self.rest[self.offset..].iter().all(|&b| b == b'/')
    }

    /// Checks that entries of the place reached may be looked up.
    fn check_search(&self) -> Result<()> {
        let inode = self.at.inode();
        if inode.file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        inode.permission_for(self.view.caller, Access::EXEC)
    }

    fn go_up(&mut self) -> Result<()> {
        // BENEATH says so; under IN_ROOT the root is its own parent.
        if self.at == self.root && self.flags.contains(LookupFlags::BENEATH) {
            return Err(Errno::EXDEV);
        }
        // What is mounted on the parent covers it.
        let up = self.at.parent(&self.root).topmost();
        self.jump(up)
    }

    /// Walks up to the last component, following links on the way.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, EACCES, ELOOP, ENAMETOOLONG, EXDEV.
    pub fn to_last(&mut self) -> Result<(Last, Trailing)> {
        loop {
            let Some((start, end)) = self.next() else {
                return Ok((Last::Root, Trailing::None));
            };
            // Before each component, also before `.` and `..`: who may not search the directory learns nothing of it.
            self.check_search()?;
            // What is last is the caller's to deal with: it may not exist.
            let at_end = self.at_end();
            let name = &self.rest[start..end];
            let (dot, dotdot) = (name == b".", name == b"..");
            if at_end {
                let trailing = if self.offset < self.rest.len() { Trailing::Slash } else { Trailing::None };
                let last = match (dot, dotdot) {
                    (true, _) => Last::Dot,
                    (_, true) => Last::DotDot,
                    _ => Last::Name(name.to_vec()),
                };
                return Ok((last, trailing));
            }
            if dot {
                continue;
            }
            if dotdot {
                self.go_up()?;
                continue;
            }
            let found = self.entry(&self.rest[start..end])?;
            if found.inode().file_type() == FileType::Symlink {
                self.follow(&found)?;
            } else {
                self.jump(found)?;
            }
        }
    }

    /// The entry `name` of the place reached, with what is mounted on it; links are not followed.
    ///
    /// # Errors
    /// ENOENT and those of the file system.
    pub fn entry(&self, name: &[u8]) -> Result<Path> {
        let dentry = self.at.dentry.lookup(name)?;
        Ok(Path { mount: self.at.mount.clone(), dentry }.topmost())
    }

    /// Whether no text is left.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.at_end()
    }

    /// The place reached.
    #[must_use]
    pub fn place(&self) -> &Path {
        &self.at
    }

    /// Puts a link's target in front of the text still to go, or jumps where a magic link leads.
    ///
    /// # Errors
    /// ELOOP, ENOENT, EXDEV, EACCES.
    pub fn follow(&mut self, link: &Path) -> Result<()> {
        // Counted over the whole walk, so that two links that lead to each other end.
        self.links += 1;
        let forbidden =
            self.flags.contains(LookupFlags::NO_SYMLINKS) || link.mount.flags().contains(MountFlags::NOSYMFOLLOW);
        if self.links > MAXSYMLINKS || forbidden {
            return Err(Errno::ELOOP);
        }
        // A magic link leads to an object, whatever its text says.
        if let Some(to) = link.inode().follow(self.view.caller)? {
            if self.flags.contains(LookupFlags::NO_MAGICLINKS) {
                return Err(Errno::ELOOP);
            }
            // It may lead anywhere, and nothing tells whether that is below the start.
            if self.flags.intersects(LookupFlags::BENEATH | LookupFlags::IN_ROOT) {
                return Err(Errno::EXDEV);
            }
            return self.jump(to);
        }
        let mut text = link.inode().read_link_for(self.view.caller)?;
        if text.is_empty() {
            return Err(Errno::ENOENT);
        }
        if text.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        // A relative target begins where the link is, which is the place reached.
        if text.first() == Some(&b'/') {
            self.restart_at_root()?;
        }
        // The target takes the link's place in the text: no recursion, whatever links a guest nests.
        text.extend_from_slice(&self.rest[self.offset..]);
        self.rest = Cow::Owned(text);
        self.offset = 0;
        Ok(())
    }

    /// Finishes the walk after [`Walker::to_last`]; `None` if a link was followed and the walk goes on.
    fn finish(&mut self, last: &Last, trailing: Trailing) -> Result<Option<Path>> {
        let name = match last {
            Last::Root | Last::Dot => return Ok(Some(self.at.clone())),
            Last::DotDot => {
                self.go_up()?;
                return Ok(Some(self.at.clone()));
            }
            Last::Name(name) => name,
        };
        let found = self.entry(name)?;
        if found.inode().file_type() == FileType::Symlink
            // With a slash after it the link stands for its directory, whatever the flags.
            && (self.flags.contains(LookupFlags::FOLLOW) || trailing == Trailing::Slash)
        {
            self.follow(&found)?;
            return Ok(None);
        }
        self.jump(found)?;
        // The slash asks for a directory.
        if trailing == Trailing::Slash && self.at.inode().file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        Ok(Some(self.at.clone()))
    }

    /// Walks to the end.
    ///
    /// # Errors
    /// As [`resolve`].
    pub fn run(mut self) -> Result<Path> {
        let path = loop {
            let (last, trailing) = self.to_last()?;
            if let Some(p) = self.finish(&last, trailing)? {
                break p;
            }
        };
        if self.flags.contains(LookupFlags::DIRECTORY) && path.inode().file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        Ok(path)
    }
}

/// Resolves a path to a file that exists.
///
/// # Errors
/// ENOENT, ENOTDIR, EACCES, ELOOP, ENAMETOOLONG, EXDEV; those of the file system.
pub fn resolve(view: &View<'_>, path: &[u8], flags: LookupFlags) -> Result<Path> {
    Walker::new(*view, path, flags)?.run()
}

/// How often a name is looked up anew that others keep giving to other files. Linux does so once, and holds what it finds.
const STALE_RETRIES: usize = 100;

/// Makes an attempt, and again where a name led to a file that is not there any more.
pub fn again_while_stale<R>(mut attempt: impl FnMut() -> R, is_stale: impl Fn(&R) -> bool) -> R {
    let mut done = attempt();
    for _ in 0..STALE_RETRIES {
        // Others are at it right now: the next attempt sees what they have made.
        if !is_stale(&done) {
            break;
        }
        done = attempt();
    }
    done
}

/// Resolves all but the last component of a path.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_parent(view: &View<'_>, path: &[u8], flags: LookupFlags) -> Result<Parent> {
    let mut w = Walker::new(*view, path, flags)?;
    let (last, trailing) = w.to_last()?;
    Ok(Parent { dir: w.at, last, trailing })
}
