//! [`Pool`]: the connections of one tree, one for each thread that is in a call.

use std::io;
use std::os::fd::OwnedFd;

use moat_sync::{Condvar, LockClass, Mutex};

use super::channel::Channel;
use super::protocol::MAX_CONNECTIONS;

/// Connections to the gofer. There is one until two threads want one at a time; then more are made, up to a limit.
pub(super) struct Pool {
    state: Mutex<PoolState>,
    given_back: Condvar,
}

struct PoolState {
    idle: Vec<Channel>,
    /// Connections, idle or in use, that work.
    alive: usize,
    /// Threads that wait for one.
    waiting: usize,
}

impl Pool {
    pub(super) fn new(first: OwnedFd) -> Pool {
        let state = PoolState { idle: vec![Channel::new(first)], alive: 1, waiting: 0 };
        Pool { state: Mutex::new(LockClass::Leaf, state), given_back: Condvar::new() }
    }

    /// Takes a connection; waits until one is given back if all are in use.
    ///
    /// # Errors
    /// ConnectionReset when none works any more.
    pub(super) fn take(&self) -> io::Result<Channel> {
        let mut state = self.state.lock();
        loop {
            if let Some(channel) = state.idle.pop() {
                return Ok(channel);
            }
            // The gofer has ended: no channel will be given back.
            if state.alive == 0 {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            state.waiting += 1;
            self.given_back.wait(&mut state);
            state.waiting -= 1;
        }
    }

    /// Gives a connection back that has carried its answer.
    pub(super) fn give_back(&self, channel: Channel) {
        self.state.lock().idle.push(channel);
        self.given_back.notify_one();
    }

    /// A connection of those taken has broken.
    pub(super) fn lost(&self) {
        self.state.lock().alive -= 1;
        // All must see whether any connection is left.
        self.given_back.notify_all();
    }

    /// Whether somebody waits and there may be more connections.
    pub(super) fn is_short(&self) -> bool {
        let state = self.state.lock();
        state.waiting > 0 && state.alive < MAX_CONNECTIONS
    }

    /// Adds a connection.
    pub(super) fn add(&self, socket: OwnedFd) {
        self.state.lock().alive += 1;
        self.give_back(Channel::new(socket));
    }
}
