//! [`Registry`]: the containers of the sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use moat_control::ControlError;
use moat_sync::{LockClass, Mutex};

use crate::arrivals::Arrivals;
use crate::container::GuestContainer;
use crate::restore::{Arrived, OpenImage};

/// All containers that exist, by id.
pub(crate) struct Registry {
    root: Arc<GuestContainer>,
    state: Mutex<RegistryState>,
    /// The containers of an image, while they are not complete.
    arrivals: Mutex<Option<Arrivals>>,
}

#[derive(Default)]
struct RegistryState {
    containers: BTreeMap<String, Arc<GuestContainer>>,
    /// Ids of containers that are being made.
    reserved: BTreeSet<String>,
}

impl Registry {
    /// With the root container in it, whose id is also the sandbox's; it may wait for others.
    pub(crate) fn new(root: Arc<GuestContainer>, arrivals: Option<Arrivals>) -> Arc<Registry> {
        let containers = [(root.id.clone(), root.clone())].into();
        let state = RegistryState { containers, reserved: BTreeSet::new() };
        let arrivals = Mutex::new(LockClass::Control, arrivals);
        Arc::new(Registry { root, state: Mutex::new(LockClass::Control, state), arrivals })
    }

    /// The container that the sandbox lives and dies with.
    pub(crate) fn root(&self) -> &Arc<GuestContainer> {
        &self.root
    }

    /// The container `id`.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<GuestContainer>, ControlError> {
        let found = self.state.lock().containers.get(id).cloned();
        found.ok_or_else(|| ControlError::NoContainer(id.to_owned()))
    }

    /// All containers.
    pub(crate) fn all(&self) -> Vec<Arc<GuestContainer>> {
        self.state.lock().containers.values().cloned().collect()
    }

    /// Whether containers of an image are missing.
    pub(crate) fn awaits_containers(&self) -> bool {
        self.arrivals.lock().is_some()
    }

    /// Takes one of them; gives all when they are complete.
    ///
    /// # Errors
    /// It is none of those that are missing.
    pub(crate) fn arrive(
        &self,
        container: &Arc<GuestContainer>,
        image: &OpenImage,
        arrived: Arrived,
    ) -> Result<Option<Arrivals>, ControlError> {
        let mut arrivals = self.arrivals.lock();
        let none = || ControlError::Invalid("the sandbox waits for no containers of an image".into());
        arrivals.as_mut().ok_or_else(none)?.add(image, container.clone(), arrived)?;
        let complete = arrivals.as_ref().is_some_and(Arrivals::are_complete);
        Ok(if complete { arrivals.take() } else { None })
    }

    /// Keeps `id` for a container that is being made.
    pub(crate) fn reserve(self: &Arc<Self>, id: &str) -> Result<Reservation, ControlError> {
        let mut state = self.state.lock();
        if state.containers.contains_key(id) || !state.reserved.insert(id.to_owned()) {
            return Err(ControlError::Exists(id.to_owned()));
        }
        Ok(Reservation { registry: self.clone(), id: id.to_owned() })
    }

    /// Forgets the container `id`.
    pub(crate) fn remove(&self, id: &str) {
        let gone = self.state.lock().containers.remove(id);
        // Its mounts, and the gofer that serves them, would stay until another one takes its place.
        let awaited = self.arrivals.lock().as_mut().and_then(|arrivals| arrivals.forget(id));
        // Dropped unlocked: processes and mounts may go with it.
        drop((gone, awaited));
    }
}

/// An id that no other container can take; given back when dropped.
pub(crate) struct Reservation {
    registry: Arc<Registry>,
    id: String,
}

impl Reservation {
    /// The id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Enters the container that the id was kept for.
    pub(crate) fn fill(self, container: Arc<GuestContainer>) {
        self.registry.state.lock().containers.insert(self.id.clone(), container);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.registry.state.lock().reserved.remove(&self.id);
    }
}
