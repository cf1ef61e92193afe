//! The systrap platform: guest code in host processes under a seccomp filter.
//!
//! Every guest process descends from one template ([`template`]), and those of a container from one of its own ([`pool`]), and has the stub ([`moat_stub`]) mapped above the
//! application. A syscall of the application traps (SIGSYS); the stub's handler rings: a call with a number of
//! its own that the filter passes to the one listener, on which the sentry waits. The reply lies in the thread's
//! area ([`area`]), memory of a memfd that the thread and the sentry share, and so does the signal frame itself: the
//! sentry reads and writes the registers and the extended state of a parked thread right there.
//!
//! - [`filter`]: what guest processes may ask of the host, the boundary.
//! - [`state`]: one host thread: parked, running, carrying out orders or dead. [`stop`]: why it stopped. [`call`]: what it
//!   is expected to ask of the host. [`thread`]: its owner's side.
//! - [`space`]: one host process. [`birth`]: how processes and threads are made. [`births`]: what has been, and what has not.
//!   [`pool`]: blank ones.
//! - [`core`]: tables and dispatch. [`spin`]: waiting awake. [`sleepers`]: waiting for long. [`placement`]: on which CPU. [`reaper`]: deaths.
//!
//! # Invariants
//! - The kernel says which thread rings; everything else that a guest process says is hostile, and is read once.
//! - A call that the filter leaves to the sentry is allowed only if this very thread was told to make it, with
//!   these very arguments; anything else kills the process.
//! - No lock is held while another is taken, nor while a waker is woken.
#![allow(clippy::cast_possible_truncation)]

mod area;
mod begins;
mod birth;
mod births;
mod call;
mod core;
mod cpu_time;
mod entry;
mod error;
pub mod filter;
mod frame;
mod order;
mod pace;
mod padding;
mod parcel;
mod placement;
mod pool;
mod reaper;
mod room;
mod sites;
mod sleepers;
mod space;
mod spin;
mod state;
mod stop;
mod template;
mod thread;
mod vdso;

pub use crate::error::StartError;

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use moat_abi::Result;
use moat_platform::{Made, Platform, Stock, VdsoLayout};

use crate::area::AreaPool;
use crate::births::Births;
use crate::core::{Parts, SystrapCore};
use crate::filter::SegmentBases;
use crate::frame::fresh_fpu;
use crate::reaper::Reaper;
use crate::space::{FreeSlot, Space, SpaceHandle, Stage};
use crate::state::{HostThread, Wait};
use crate::thread::Thread;

/// How application code enters the sentry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallSites {
    /// Call sites that trap often are rewritten, where the host and the processor allow it.
    Rewritten,
    /// Each call traps.
    Trapped,
}

/// The platform.
pub struct Systrap {
    core: Arc<SystrapCore>,
}

impl Systrap {
    /// Makes the template process. Call it while /proc is mounted, and before the sentry installs a filter of its own,
    /// which guest processes would inherit.
    ///
    /// # Errors
    /// ENOSYS if the host lacks seccomp notifications or XSAVE; EBUSY if a filter with a listener is in force already;
    /// those of clone(2) and seccomp(2).
    pub fn new() -> Result<Systrap, StartError> {
        Systrap::with_call_sites(CallSites::Rewritten)
    }

    /// As [`Systrap::new`], with a choice of how calls enter.
    ///
    /// # Errors
    /// As there.
    pub fn with_call_sites(sites: CallSites) -> Result<Systrap, StartError> {
        const HWCAP2_FSGSBASE: u64 = 2;
        // SAFETY: takes no pointers.
        let fsgsbase = unsafe { libc::getauxval(libc::AT_HWCAP2) } & HWCAP2_FSGSBASE != 0;
        let bases = if fsgsbase { SegmentBases::Instructions } else { SegmentBases::Syscalls };
        let areas = Arc::new(AreaPool::new()?);
        let reaper = Reaper::new()?;
        let started = template::start(&areas, bases)?;
        let fresh_fpu = fresh_fpu(&started.area.read_bytes(started.frame.fpstate, started.frame.fp_len));
        started.area.write_bytes(started.frame.fpstate, &fresh_fpu);
        let areas_number = std::os::fd::AsRawFd::as_raw_fd(&areas.fd()).cast_unsigned();
        let core = SystrapCore::new(Parts {
            listener: started.listener,
            areas: areas.clone(),
            areas_number,
            frame: started.frame,
            fresh_fpu,
            bases,
            vdso: started.vdso,
            rewrites: started.rewrites && sites == CallSites::Rewritten,
            barriers: started.barriers,
            reaper,
            births: Births::new()?,
        });
        let first = FreeSlot { slot: 0, area: started.area, stage: Stage::Mapped };
        let space = Space::new(&core, started.pid, areas, first, None)?;
        let handle = SpaceHandle(space.clone());
        core.add_space(&space)?;
        reaper::start(core.clone())?;
        let id = started.notification.id;
        let host = HostThread::new(&core, &space, started.pid, started.area, 0, id, Wait::Doorbell);
        core.add_thread(&host);
        core.first.start(Thread::new(host), handle);
        core.first.refill();
        core.pump();
        Ok(Systrap { core })
    }
}

impl Drop for Systrap {
    fn drop(&mut self) {
        self.core.first.close();
        self.core.reaper.close();
    }
}

impl Platform for Systrap {
    fn name(&self) -> &'static str {
        "systrap"
    }

    fn stock(&self) -> Arc<dyn Stock> {
        self.core.first.clone()
    }

    fn new_stock(&self) -> Made<'_, Arc<dyn Stock>> {
        Box::pin(async { Ok(self.core.new_pool().await? as Arc<dyn Stock>) })
    }

    fn vdso(&self) -> VdsoLayout {
        self.core.vdso.clone()
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        // The template's death (the host's out-of-memory killer) and then that of the last guest process would leave it
        // hung up, which poll(2) reports again and again.
        (!self.core.first.is_broken() || !self.core.is_empty()).then(|| self.core.listener.as_fd())
    }

    fn dispatch(&self) {
        self.core.dispatch();
    }

    fn spin(&self) -> bool {
        self.core.spin()
    }

    fn hand_offs(&self) -> Vec<(&'static str, u64)> {
        self.core.hand_offs()
    }
}
