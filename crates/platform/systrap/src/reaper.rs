//! [`Reaper`]: a thread that waits for the ends of guest processes, and counts them when [`crate::births`] says so.
//!
//! Processes are watched by pidfd, not by SIGCHLD: they have no exit signal, and unexpected deaths (the host's
//! out-of-memory killer, a SIGKILL from outside) are noticed like the expected ones. The thread sleeps in
//! epoll_wait and is off the path of every syscall.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::Result;
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};

use crate::core::SystrapCore;
use crate::space::Space;

/// What is watched.
pub struct Reaper {
    epoll: OwnedFd,
    closing: OwnedFd,
}

/// No process has this id.
const CLOSING: u64 = u64::MAX;
/// A census is due.
const CENSUS: u64 = u64::MAX - 1;

impl Reaper {
    /// Watches nothing yet.
    pub fn new() -> Result<Reaper> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let closing = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &closing, epoll::EventData::new_u64(CLOSING), epoll::EventFlags::IN)?;
        Ok(Reaper { epoll, closing })
    }

    /// Waits for the end of a process from here on.
    pub fn watch(&self, space: &Space) -> Result<()> {
        let data = epoll::EventData::new_u64(u64::from(space.pid.unsigned_abs()));
        // Once: a dead process stays readable until it is reaped.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        Ok(epoll::add(&self.epoll, space.pidfd(), data, flags)?)
    }

    /// Has the thread make a census whenever the clock runs out.
    pub fn follow(&self, clock: &OwnedFd) -> Result<()> {
        Ok(epoll::add(&self.epoll, clock, epoll::EventData::new_u64(CENSUS), epoll::EventFlags::IN)?)
    }

    /// Makes the thread end once the last process has.
    pub fn close(&self) {
        let _ = rustix::io::write(&self.closing, &1u64.to_ne_bytes());
    }
}

/// Starts the thread; it holds the core until [`Reaper::close`] and the end of all processes.
pub fn start(core: Arc<SystrapCore>) -> Result<()> {
    if let Some(clock) = core.births.clock() {
        core.reaper.follow(clock)?;
    }
    let thread = std::thread::Builder::new().name("reaper".into()).stack_size(128 * 1024).spawn(move || run(&core));
    thread.map(drop).map_err(|_| moat_abi::Errno::EAGAIN)
}

fn run(core: &SystrapCore) {
    let mut events = Vec::with_capacity(32);
    let mut closing = false;
    while !(closing && core.is_empty()) {
        events.clear();
        // Interrupted: look again.
        let _ = epoll::wait(&core.reaper.epoll, spare_capacity(&mut events), None);
        for event in &events {
            let id = event.data.u64();
            if id == CLOSING {
                closing = true;
                let _ = rustix::io::read(&core.reaper.closing, &mut [0; 8]);
            } else if id == CENSUS {
                if let Some(clock) = core.births.clock() {
                    let _ = rustix::io::read(clock, &mut [0; 8]);
                    core.look_for_strangers();
                }
            } else if let Some(space) = i32::try_from(id).ok().and_then(|pid| core.space(pid)) {
                space.exited();
                core.exited(space.pid);
            }
        }
        core.pump();
    }
}
