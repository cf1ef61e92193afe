//! Bindings in an image, and out of it.

use std::sync::Weak;

use moat_image::state::BindingState;

use super::{Binding, BindingPlace, Ports, Sharing};

impl<S> Ports<S> {
    /// The binding of a socket on `port`.
    pub(crate) fn save(&self, id: u64, port: u16) -> Option<BindingState> {
        let b = self.by_port.get(&port)?.get(&id)?;
        let Sharing { reuse_address, reuse_port, uid } = b.sharing;
        Some(BindingState { ip: b.place.ip, port, dual: b.place.dual, reuse_address, reuse_port, uid, peer: b.peer })
    }

    /// Enters the binding that a socket had. What it stands beside was there before, too.
    pub(crate) fn restore(&mut self, id: u64, socket: &Weak<S>, saved: &BindingState) {
        let binding = Binding {
            place: BindingPlace { ip: saved.ip, dual: saved.dual },
            sharing: Sharing { reuse_address: saved.reuse_address, reuse_port: saved.reuse_port, uid: saved.uid },
            // A listener says so when it listens again.
            listening: false,
            peer: saved.peer,
            socket: socket.clone(),
        };
        self.by_port.entry(saved.port).or_default().insert(id, binding);
    }

    /// Marks a socket as listening that did; false if it is not bound.
    pub(crate) fn listen_again(&mut self, id: u64, port: u16) -> bool {
        let Some(binding) = self.by_port.get_mut(&port).and_then(|b| b.get_mut(&id)) else { return false };
        // Not by `listen`: connections that it has taken stand at its port already.
        binding.listening = true;
        self.listeners.entry(port).or_default().push(id);
        true
    }
}
