//! Files without a file system: pipes and FIFOs, eventfd, timerfd, signalfd.
//!
//! - [`pipe`]: [`pipe::Pipe`], the buffer and its ends.
//! - [`fifo`]: the pipes of FIFO nodes.
//! - [`eventfd`], [`timerfd`], [`signalfd`]: counters, timers and signals as files.
#![forbid(unsafe_code)]

pub mod eventfd;
pub mod fifo;
pub mod pipe;
pub mod signalfd;
pub mod timerfd;

pub use eventfd::EventFd;
pub use pipe::new_pipe;
pub use signalfd::SignalFd;
pub use timerfd::TimerFd;

/// Registers what opens FIFOs.
pub fn register(registry: &mut moat_vfs::Registry) {
    let fifos = fifo::Fifos::default();
    registry.fifo(move |key, ctx| fifos.open(key, ctx));
}
