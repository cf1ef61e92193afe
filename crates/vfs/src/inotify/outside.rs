//! What processes of the host change in trees that a sandbox shares with them, as events of its watches.
//!
//! - [`Outside`], one per kernel once something of such a tree is watched: a group of the host's fanotify(7), and which watched
//!   file each of its marks is on.
//! - [`Mark`]: a watched file is marked on the host as long as somebody watches it.
//! - `served`: files that a gofer has marked, because it reaches them.
//!
//! The host says of each event whether this process did it: the guest's own changes have been told by the vfs. What is
//! marked by several watches, or as the directory of another, is marked once, for what any of them wants. Where the host can't
//! tell (before Linux 5.13, file systems without handles, too many marks), watches have the guest's own events alone.
//!
//! Where this differs from Linux: of several changes of one file between two readings each kind is told once, in the order of
//! [`ORDER`]; of an entry that is a directory its directory is told only what comes and goes; a file that was open before it was watched is
//! not told the end of reading it.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock, Weak};

use moat_abi::PollEvents;
use moat_abi::fs::{FileType, InotifyMask};
use moat_host::fanotify::{self, FileHandle};
use moat_sync::executor::end_turn;
use moat_sync::reactor::Watch as Readiness;
use moat_sync::{LockClass, Mutex};

use super::events::id_of;
use super::served;
use super::table::{WatchId, Watches};
use crate::dentry::Dentry;
use crate::inode::Inode;
use crate::outside::{AsksHost, ServedEvents};

/// Bytes of events that are read at a time.
const BUFFER: usize = 32 << 10;

/// Files whose opening by others is remembered.
const MOST_OPENED: usize = 4096;

/// What can have happened to one file, first things first.
const ORDER: [InotifyMask; 10] = [
    InotifyMask::CREATE,
    InotifyMask::OPEN,
    InotifyMask::ACCESS,
    InotifyMask::MODIFY,
    InotifyMask::ATTRIB,
    InotifyMask::CLOSE_WRITE,
    InotifyMask::CLOSE_NOWRITE,
    InotifyMask::DELETE,
    InotifyMask::MOVE_SELF,
    InotifyMask::DELETE_SELF,
];

/// Those of them that are about an entry of the directory, not about the file.
const OF_ENTRY: InotifyMask = InotifyMask::CREATE.union(InotifyMask::DELETE);

/// A file that is marked.
struct Marked {
    id: WatchId,
    inode: Weak<dyn Inode>,
    /// How many marks it stands for.
    users: usize,
    /// Watched directories in it, which may be removed: the host does not say so to who holds them.
    directories: HashMap<FileHandle, usize>,
    /// What the host was asked for.
    mask: u64,
}

#[derive(Default)]
struct State {
    marked: HashMap<FileHandle, Marked>,
    /// Files that others have opened: see [`Outside::deliver`].
    opened: HashSet<FileHandle>,
}

/// Who has marked a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// This process.
    Own,
    /// A gofer.
    Gofer,
}

/// The host's word about marked files.
pub(super) struct Outside {
    me: Weak<Outside>,
    watches: Weak<Watches>,
    /// Of the trees that this process reaches itself; `None` where there can be none.
    group: OnceLock<Option<Arc<OwnedFd>>>,
    state: Mutex<State>,
}

/// A watched file's mark, which goes with it.
pub(super) struct Mark {
    outside: Arc<Outside>,
    file: FileHandle,
    inode: Arc<dyn Inode>,
    /// The directory that a directory is in, marked on its account.
    parent: Option<(FileHandle, Arc<dyn Inode>)>,
}

impl Outside {
    fn new(watches: &Arc<Watches>) -> Arc<Outside> {
        Arc::new_cyclic(|me| Outside {
            me: me.clone(),
            watches: Arc::downgrade(watches),
            group: OnceLock::new(),
            state: Mutex::new(LockClass::Table, State::default()),
        })
    }

    fn group(&self) -> Option<&Arc<OwnedFd>> {
        let make = || {
            let group = Arc::new(fanotify::group().ok()?);
            let readiness = Readiness::new(group.clone()).ok()?;
            moat_sync::spawn(serve(self.watches.clone(), self.me.clone(), group.clone(), readiness));
            Some(group)
        };
        // Late: with a gofer alone the filter has no call for it.
        self.group.get_or_init(make).as_ref()
    }

    /// Marks the file of `dentry`, to be told `what`; nothing where nobody else changes it, or where the host can't tell.
    pub(super) fn mark(self: &Arc<Self>, dentry: &Dentry, what: InotifyMask) -> Option<Mark> {
        let inode = dentry.inode();
        let directory = inode.file_type() == FileType::Directory;
        // Its end is told whether asked for or not; and see `deliver`.
        let what = what & InotifyMask::ALL_EVENTS | InotifyMask::DELETE_SELF;
        let file = self.add(inode, bits(what, directory))?;
        let mark = |parent| Mark { outside: self.clone(), file: file.clone(), inode: inode.clone(), parent };
        let (_, Some(parent)) = dentry.name_and_parent() else { return Some(mark(None)) };
        if !directory {
            return Some(mark(None));
        }
        let parent = parent.inode().clone();
        let Some(above) = self.add(&parent, bits(InotifyMask::DELETE | InotifyMask::MOVED_TO, true)) else {
            return Some(mark(None));
        };
        if let Some(marked) = self.state.lock().marked.get_mut(&above) {
            let users = marked.directories.entry(file.clone()).or_default();
            *users = users.saturating_add(1);
        }
        Some(mark(Some((above, parent))))
    }

    fn add(&self, inode: &Arc<dyn Inode>, mask: u64) -> Option<FileHandle> {
        let (file, mask) = inode.watch_outside(self, mask)?;
        let mut state = self.state.lock();
        let new = || Marked {
            id: id_of(inode),
            inode: Arc::downgrade(inode),
            users: 0,
            directories: HashMap::new(),
            mask: 0,
        };
        let marked = state.marked.entry(file.clone()).or_insert_with(new);
        // An inode that has left the memory meanwhile comes back as another object.
        (marked.id, marked.inode) = (id_of(inode), Arc::downgrade(inode));
        marked.users = marked.users.saturating_add(1);
        marked.mask |= mask;
        Some(file)
    }

    /// One mark less; the last one takes the host's along.
    fn remove(&self, file: &FileHandle, inode: &Arc<dyn Inode>) {
        let mask = {
            let mut state = self.state.lock();
            let Some(marked) = state.marked.get_mut(file) else { return };
            marked.users = marked.users.saturating_sub(1);
            if marked.users != 0 {
                return;
            }
            let mask = marked.mask;
            state.marked.remove(file);
            state.opened.remove(file);
            mask
        };
        inode.unwatch_outside(self, mask);
    }

    fn id(&self, file: Option<&FileHandle>) -> Option<WatchId> {
        Some(self.state.lock().marked.get(file?)?.id)
    }

    /// Tells the watches of one event.
    pub(super) fn deliver(&self, watches: &Watches, event: &fanotify::Event, by: By) {
        if event.mask & fanotify::OVERFLOW != 0 {
            return self.lost(watches);
        }
        if event.own {
            return;
        }
        let is_dir = event.mask & fanotify::ONDIR != 0;
        let mut what = u32::try_from(event.mask & u64::from(InotifyMask::ALL_EVENTS.bits()))
            .map_or(InotifyMask::empty(), InotifyMask::from_bits_truncate);
        // A file that a guest process has mapped is closed by that process when it ends, which this sandbox has told already.
        if let Some(file) = &event.file {
            let mut state = self.state.lock();
            if what.contains(InotifyMask::OPEN) && state.opened.len() < MOST_OPENED {
                state.opened.insert(file.clone());
            } else if !what.contains(InotifyMask::OPEN) && !state.opened.contains(file) {
                what.remove(InotifyMask::CLOSE_NOWRITE);
                // Of a file that a gofer has opened, this process may be the last to let it go.
                if by == By::Gofer {
                    what.remove(InotifyMask::CLOSE_WRITE);
                }
            }
        }
        let (entry, renamed, file) = (event.entry.as_ref(), event.renamed.as_ref(), self.id(event.file.as_ref()));
        let kind = if is_dir { InotifyMask::ISDIR } else { InotifyMask::empty() };
        let tell = |entry: Option<&fanotify::Entry>, what: InotifyMask, cookie: u32| {
            let Some((dir, name)) = entry else { return };
            if let Some(id) = self.id(Some(dir)) {
                let name = name.clone().into();
                watches.tell(watches.on(id), what | kind, cookie, Some(&name), false);
            }
        };
        // A directory is told of its own end before the one that it was in.
        if is_dir && (what.contains(InotifyMask::DELETE) || event.mask & fanotify::RENAME != 0) {
            for (dir, _) in [entry, renamed].into_iter().flatten() {
                self.look_for_removed(watches, dir);
            }
        }
        if event.mask & fanotify::RENAME != 0 {
            let cookie = watches.new_cookie();
            tell(entry, InotifyMask::MOVED_FROM, cookie);
            tell(renamed, InotifyMask::MOVED_TO, cookie);
        }
        for moved in [InotifyMask::MOVED_FROM, InotifyMask::MOVED_TO] {
            if what.contains(moved) {
                tell(entry, moved, watches.new_cookie());
            }
        }
        for one in ORDER.into_iter().filter(|one| what.contains(*one)) {
            tell(entry, one, 0);
            let Some(id) = file.filter(|_| !OF_ENTRY.contains(one)) else { continue };
            match one {
                InotifyMask::DELETE_SELF => watches.end(watches.on(id), one),
                // A directory that is moved is not called one in its own events.
                InotifyMask::MOVE_SELF => watches.tell(watches.on(id), one, 0, None, false),
                _ => watches.tell(watches.on(id), one | kind, 0, None, false),
            }
        }
    }

    /// A directory in the marked one `dir` may have been removed.
    fn look_for_removed(&self, watches: &Watches, dir: &FileHandle) {
        let directories: Vec<(WatchId, Arc<dyn Inode>)> = {
            let state = self.state.lock();
            let Some(above) = state.marked.get(dir) else { return };
            let marked = above.directories.keys().filter_map(|file| state.marked.get(file));
            marked.filter_map(|m| Some((m.id, m.inode.upgrade()?))).collect()
        };
        for (id, inode) in directories {
            if inode.metadata().is_ok_and(|meta| meta.nlink == 0) {
                watches.end(watches.on(id), InotifyMask::DELETE_SELF);
            }
        }
    }

    /// The host has lost events: whoever watches something marked is told so.
    fn lost(&self, watches: &Watches) {
        let ids: Vec<WatchId> = self.state.lock().marked.values().map(|marked| marked.id).collect();
        let told: Vec<_> = ids.into_iter().flat_map(|id| watches.on(id)).collect();
        watches.overflow(told);
    }
}

/// What the host is to tell.
fn bits(what: InotifyMask, directory: bool) -> u64 {
    let moved = InotifyMask::MOVED_FROM | InotifyMask::MOVED_TO;
    let mut mask = u64::from(what.difference(moved).bits());
    if what.intersects(InotifyMask::CLOSE_WRITE | InotifyMask::CLOSE_NOWRITE) {
        mask |= u64::from(InotifyMask::OPEN.bits());
    }
    if directory {
        mask |= fanotify::ONDIR | fanotify::EVENT_ON_CHILD;
        // Only a directory has entries to be moved.
        if what.intersects(moved) {
            mask |= fanotify::RENAME;
        }
        return mask;
    }
    mask & !u64::from(OF_ENTRY.bits())
}

impl Outside {
    /// Whether the host tells of entries of this directory.
    fn tells_of(&self, dir: WatchId) -> bool {
        self.state.lock().marked.values().any(|marked| marked.id == dir)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Some((above, parent)) = &self.parent {
            if let Some(marked) = self.outside.state.lock().marked.get_mut(above) {
                let users = marked.directories.get_mut(&self.file).map(|users| {
                    *users = users.saturating_sub(1);
                    *users
                });
                if users == Some(0) {
                    marked.directories.remove(&self.file);
                }
            }
            self.outside.remove(above, parent);
        }
        self.outside.remove(&self.file, &self.inode);
    }
}

impl Watches {
    /// The file of `dentry` is to be watched for `what`: the host is asked to tell of what others do to it.
    pub(super) fn mark_outside(self: &Arc<Self>, dentry: &Dentry, what: InotifyMask) -> Option<Mark> {
        if !dentry.inode().is_changed_outside() {
            return None;
        }
        self.outside()?.mark(dentry, what)
    }

    /// Whether the host tells of this new entry although the guest has made it: nodes of devices are made by another process.
    pub(super) fn is_told_outside(&self, dir: &Dentry, of: &Arc<dyn Inode>) -> bool {
        let device = matches!(of.file_type(), FileType::CharDevice | FileType::BlockDevice);
        if !device || !dir.inode().is_changed_outside() {
            return false;
        }
        let Some(outside) = self.outside.get().cloned().flatten().and_then(|any| any.downcast::<Outside>().ok()) else {
            return false;
        };
        // A whiteout is no device, and takes no capability.
        let whiteout = of.metadata().is_ok_and(|meta| (meta.rdev.major, meta.rdev.minor) == (0, 0));
        !whiteout && outside.tells_of(id_of(dir.inode()))
    }

    /// Who asks the host, made when it is first asked for.
    fn outside(self: &Arc<Self>) -> Option<Arc<Outside>> {
        let make = || {
            let any: Arc<dyn Any + Send + Sync> = Outside::new(self);
            Some(any)
        };
        self.outside.get_or_init(make).clone()?.downcast().ok()
    }
}

impl AsksHost for Outside {
    fn mark(&self, open: BorrowedFd<'_>, what: u64) -> Option<(FileHandle, u64)> {
        let file = fanotify::handle_of(open).ok()?;
        let told = fanotify::mark_as_known(self.group()?, open, what).ok()?;
        Some((file, told))
    }

    fn unmark(&self, open: BorrowedFd<'_>, what: u64) {
        if let Some(group) = self.group() {
            let _ = fanotify::unmark(group, open, what);
        }
    }

    fn listen(&self, source: Arc<dyn ServedEvents>) {
        moat_sync::spawn(served::serve(self.watches.clone(), self.me.clone(), source));
    }
}

/// Reads what the host tells, for as long as there are watches.
async fn serve(watches: Weak<Watches>, outside: Weak<Outside>, group: Arc<OwnedFd>, readiness: Readiness) {
    let mut changes = readiness.wait_queue().listen(PollEvents::IN);
    let mut buf = vec![0; BUFFER];
    loop {
        let (Some(watches), Some(outside)) = (watches.upgrade(), outside.upgrade()) else { return };
        match fanotify::read(&group, &mut buf) {
            Ok(events) if !events.is_empty() => {
                events.iter().for_each(|event| outside.deliver(&watches, event, By::Own));
                // There may be more, but others have their turn.
                end_turn().await;
            }
            Ok(_) => {
                drop((watches, outside));
                (&mut changes).await;
            }
            // Nothing that a later reading would mend.
            Err(_) => return,
        }
    }
}
