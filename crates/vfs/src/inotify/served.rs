//! Events of files that a gofer has marked: [`serve`].
//!
//! Two processes work for the guest there, and the host tells each apart from all others only to itself. What each of them does is
//! of other kinds, so each has a group of what it does: the gofer opens, makes, moves and removes, this process reads and
//! writes what it was given. An event that the process of its group has not done is another's change. What is told of one time
//! that the gofer has set looks like a reading or writing, so it says of which files that was.
//!
//! # Invariants
//! - What happened to one file is told in the order of one group: what is read here is put to what the gofer has read of the same
//!   file in the same round, and waits for the next where there is nothing of it yet.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use moat_abi::PollEvents;
use moat_abi::fs::InotifyMask;
use moat_host::fanotify::{self, Event};
use moat_sync::executor::end_turn;
use moat_sync::reactor::Watch as Readiness;
use moat_sync::{WaitQueue, block_in_place};

use super::outside::{By, Outside};
use super::table::Watches;
use crate::outside::{Left, Served, ServedEvents};

/// Bytes of events that are read at a time.
const BUFFER: usize = 32 << 10;
/// Readings of the gofer's group in one round.
const MOST_READINGS: usize = 8;

/// The kinds of events of this process's group, of files; those of directories are the gofer's.
fn kinds_here() -> u64 {
    u64::from((InotifyMask::MODIFY | InotifyMask::ACCESS).bits())
}

fn read_here(group: &OwnedFd, buf: &mut [u8]) -> Option<(Vec<Event>, Left)> {
    let mut all = Vec::new();
    for _ in 0..MOST_READINGS {
        let events = fanotify::read(group, buf).ok()?;
        if events.is_empty() {
            return Some((all, Left::Nothing));
        }
        all.extend(events.into_iter().filter(|event| !event.own));
    }
    Some((all, Left::More))
}

fn read_there(source: &dyn ServedEvents) -> Option<Served> {
    let mut all = Served { events: Vec::new(), left: Left::More, touched: Vec::new() };
    for _ in 0..MOST_READINGS {
        let served = block_in_place(|| source.read_served()).ok()?;
        all.events.extend(served.events);
        all.touched.extend(served.touched);
        if served.left == Left::Nothing {
            all.left = Left::Nothing;
            break;
        }
    }
    for event in &mut all.events {
        if event.mask & fanotify::ONDIR == 0 {
            event.mask &= !kinds_here();
        }
    }
    // What is left of one may be nothing.
    // Readings and writings of files are this process's, or are told by its group.
    all.events.retain(|event| event.mask & !(fanotify::ONDIR | fanotify::EVENT_ON_CHILD) != 0);
    Some(all)
}

/// Puts `event` to the last of `all` that is about the same file; gives it back if there is none.
fn put_to(all: &mut [Event], event: Event) -> Option<Event> {
    let same = |other: &&mut Event| {
        other.mask & (fanotify::ONDIR | fanotify::RENAME) == 0
            && event.file.is_some()
            && (&other.entry, &other.file) == (&event.entry, &event.file)
    };
    match all.iter_mut().rev().find(same) {
        Some(other) => {
            other.mask |= event.mask;
            None
        }
        None => Some(event),
    }
}

/// One round.
struct Round {
    told: Vec<Event>,
    /// What waits for the next one.
    waiting: Vec<Event>,
    left: Left,
}

/// Reads all there is; `waiting` has waited since the last round.
fn round(source: &dyn ServedEvents, waiting: Vec<Event>, buf: &mut [u8]) -> Option<Round> {
    let mut first = waiting;
    let (here, left_first) = read_here(source.own_group(), buf)?;
    first.extend(here);
    let Served { events: mut all, left: left_there, touched } = read_there(source)?;
    let (mut later, left_later) = read_here(source.own_group(), buf)?;
    for here in [&mut first, &mut later] {
        here.retain(|event| event.file.as_ref().is_none_or(|file| !touched.contains(file)));
    }
    // All of the gofer's that came before it has been read by now: it is alone.
    let mut told: Vec<Event> = first.into_iter().filter_map(|event| put_to(&mut all, event)).collect();
    let waiting = later.into_iter().filter_map(|event| put_to(&mut all, event)).collect();
    told.append(&mut all);
    // The host says once that there is something: it is read to its end.
    let more = [left_first, left_there, left_later].contains(&Left::More);
    Some(Round { told, waiting, left: if more { Left::More } else { Left::Nothing } })
}

/// Tells what the host says of one gofer's tree, for as long as there are watches and the gofer.
pub(super) async fn serve(watches: Weak<Watches>, outside: Weak<Outside>, source: Arc<dyn ServedEvents>) {
    let queue = Arc::new(WaitQueue::new());
    let ready = |group: &Arc<OwnedFd>| Readiness::on_demand(group.clone(), queue.clone());
    let (Ok(_own), Ok(_served)) = (ready(source.own_group()), ready(source.served_group())) else { return };
    let mut changes = queue.listen(PollEvents::IN);
    let mut buf = vec![0; BUFFER];
    let mut waiting = Vec::new();
    loop {
        let (Some(watches), Some(outside)) = (watches.upgrade(), outside.upgrade()) else { return };
        // Nothing that a later reading would mend.
        let Some(done) = round(&*source, waiting, &mut buf) else { return };
        waiting = done.waiting;
        done.told.iter().for_each(|event| outside.deliver(&watches, event, By::Gofer));
        drop((watches, outside));
        if done.left == Left::Nothing && waiting.is_empty() {
            (&mut changes).await;
        } else {
            // There may be more, but others have their turn.
            end_turn().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use moat_host::fanotify::FileHandle;

    use super::*;

    fn event(mask: u64, name: &[u8]) -> Event {
        let file = FileHandle::from_parts([0; 8], 1, name);
        let entry = Some((FileHandle::from_parts([0; 8], 1, b"dir"), name.into()));
        Event { mask, own: false, entry, renamed: None, file: Some(file) }
    }

    #[test]
    fn what_two_groups_say_of_one_file_is_one_event() {
        let (open, modify) = (u64::from(InotifyMask::OPEN.bits()), u64::from(InotifyMask::MODIFY.bits()));
        let mut all = vec![event(open, b"a"), event(open, b"b"), event(open, b"a")];
        assert_eq!(put_to(&mut all, event(modify, b"a")), None);
        assert_eq!(all.iter().map(|event| event.mask).collect::<Vec<_>>(), [open, open, open | modify]);
        assert!(put_to(&mut all, event(modify, b"c")).is_some());
        // A renaming has two names, and its own place in the order.
        let mut renamed = vec![event(fanotify::RENAME, b"a")];
        assert!(put_to(&mut renamed, event(modify, b"a")).is_some());
    }
}
