//! Instances in an image, and out of it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use moat_abi::fs::{InotifyMask, NAME_MAX, OpenFlags};
use moat_image::state::{InotifyEventState, InotifyState, OpenFileKind, WatchState};
use moat_image::{ImageError, Refusal};

use super::file::Place;
use super::instance::{Event, Inotify};
use super::outside::Mark;
use crate::cred::Credentials;
use crate::file::SaveFiles;
use crate::open_file::OpenFile;
use crate::path::Path;
use crate::vfs::Vfs;

/// Events that may wait at most (`max_queued_events`).
const MOST_EVENTS: u64 = 0x7fff_ffff;

impl Inotify {
    pub(super) fn save_instance(&self, saver: &mut dyn SaveFiles) -> Result<OpenFileKind, Refusal> {
        let mut watches = Vec::new();
        for watch in self.watches() {
            let place = watch.on.held.downcast_ref::<Place>().and_then(Place::path);
            // Nothing but the inode is held: where it is, is known as long as its name is.
            let place = place.ok_or_else(|| {
                Refusal::new(format!("an inotify watch ({}) of a file whose place is not known any more", watch.wd))
            })?;
            let path = saver.path(&place).map_err(|refusal| refusal.at(format!("inotify watch {}", watch.wd)))?;
            watches.push(WatchState { wd: watch.wd, path, mask: watch.mask().bits() });
        }
        let events = self.queued().into_iter().map(|event| InotifyEventState {
            wd: event.wd,
            mask: event.mask.bits(),
            cookie: event.cookie,
            name: event.name.map(|name| name.to_vec().into()),
        });
        let (max_queued, last_wd) = (u64::try_from(self.max_queued()).unwrap_or(u64::MAX), self.last_wd());
        let events = events.collect();
        Ok(OpenFileKind::Inotify(InotifyState { uid: self.uid(), max_queued, last_wd, watches, events }))
    }

    /// An instance out of an image, which watches nothing yet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn restore(
        vfs: &Vfs,
        saved: &InotifyState,
        flags: OpenFlags,
        creds: &Arc<Credentials>,
    ) -> Result<Arc<OpenFile>, ImageError> {
        let mut queue = Vec::new();
        for event in &saved.events {
            let name = event.name.as_ref();
            if name.is_some_and(|name| name.is_empty() || name.len() > NAME_MAX) {
                return Err(ImageError::state("the name in an inotify event"));
            }
            let mask = InotifyMask::from_bits_retain(event.mask);
            let name = name.map(|name| name.as_slice().into());
            queue.push(Event { wd: event.wd, mask, cookie: event.cookie, name });
            // No later rename may be taken for a half of this one.
            vfs.watches.skip_cookie(event.cookie);
        }
        if saved.max_queued > MOST_EVENTS || saved.last_wd < 0 {
            return Err(ImageError::state("an inotify instance"));
        }
        // That of its making: the setting may be another one by now.
        let most = usize::try_from(saved.max_queued).unwrap_or(usize::MAX);
        let instance = Inotify::restored(vfs.watches.clone(), saved.uid, most, saved.last_wd, queue);
        Ok(vfs.open_anon("inotify", instance, flags, creds))
    }

    /// Watches what the instance watched. For the end of a restore: what it does itself is nobody's event.
    ///
    /// # Errors
    /// Numbers that can't be; two watches of one file; those of `find`.
    pub fn watch_again(
        self: &Arc<Self>,
        saved: &InotifyState,
        find: impl Fn(&moat_image::state::PathState) -> Result<Path, ImageError>,
    ) -> Result<(), ImageError> {
        for WatchState { wd, path, mask } in &saved.watches {
            let wrong = |what: &str| ImageError::state(format!("inotify watch {wd} {what}"));
            if !(1..=saved.last_wd).contains(wd) {
                return Err(wrong("has a number that was not given"));
            }
            let path = find(path)?;
            // What it does not keep is dropped there.
            let mask = InotifyMask::from_bits_truncate(*mask);
            let file = self.watched(&path, mask).map_err(|errno| ImageError::Unfit(format!("{path:?}: {errno}")))?;
            self.table().watch_as(self, *wd, file, mask).map_err(|_| wrong("is there twice"))?;
        }
        Ok(())
    }
}

impl Place {
    /// The place of `path`, which holds neither its mount nor its name.
    pub(super) fn of(path: &Path, mark: Option<Mark>) -> Place {
        let mount = Arc::downgrade(&path.mount);
        Place { _inode: path.inode().clone(), mount, dentry: Arc::downgrade(&path.dentry), _mark: mark }
    }

    fn path(&self) -> Option<Path> {
        Some(Path { mount: Weak::upgrade(&self.mount)?, dentry: Weak::upgrade(&self.dentry)? })
    }
}

impl super::Watches {
    /// Gives no cookie up to `last` any more.
    fn skip_cookie(&self, last: u32) {
        self.cookies().fetch_max(last, Ordering::Relaxed);
    }
}
