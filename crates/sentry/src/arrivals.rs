//! [`Arrivals`]: the containers of an image that have been made, until all are there and their processes can be restored.
//!
//! What is in an image refers across containers (connections, shared memory, pid namespaces), so all of it is made at once. A container
//! that has come has mounts and namespaces, and no processes.

use std::sync::Arc;

use moat_abi::signal::Signal;
use moat_control::{BootError, ControlError};
use moat_kernel::Kernel;

use crate::container::GuestContainer;
use crate::restore::{self, Arrived, OpenImage};

/// Those that have come.
pub(crate) struct Arrivals {
    image: OpenImage,
    /// By their places in the image.
    there: Vec<Option<(Arc<GuestContainer>, Arrived)>>,
}

impl Arrivals {
    /// With the root container, which is the first of every image.
    pub(crate) fn new(image: OpenImage, root: Arc<GuestContainer>, arrived: Arrived) -> Arrivals {
        // As many as the image has, which has been read: a number in it would be anybody's.
        let mut there: Vec<_> = image.containers().iter().map(|_| None).collect();
        if let Some(first) = there.first_mut() {
            *first = Some((root, arrived));
        }
        Arrivals { image, there }
    }

    /// Takes one more, out of the image `image`.
    ///
    /// # Errors
    /// Another image; a container that is not one of those that are missing.
    pub(crate) fn add(
        &mut self,
        image: &OpenImage,
        container: Arc<GuestContainer>,
        arrived: Arrived,
    ) -> Result<(), ControlError> {
        // Two checkpoints of one pod are alike but for this, and half of each would be no state that ever was.
        if image.id() != self.image.id() {
            return Err(ControlError::Invalid("the sandbox is being restored from another image".into()));
        }
        let place = self.place_of(&container)?;
        if let Some(place) = self.there.get_mut(place) {
            *place = Some((container, arrived));
        }
        Ok(())
    }

    /// The places whose containers are missing, or were given up.
    fn missing(&self) -> impl Iterator<Item = usize> {
        // A client that has ended one tries again, with the same name or another id.
        let gone = |(_, there): &(usize, &Option<(Arc<GuestContainer>, Arrived)>)| {
            there.as_ref().is_none_or(|(container, _)| !container.is_awaiting())
        };
        self.there.iter().enumerate().filter(gone).map(|(place, _)| place)
    }

    /// By what the pod calls it, which stays when it is made anew, or by its id; one that has no name here may be the only one that is missing.
    fn place_of(&self, container: &GuestContainer) -> Result<usize, ControlError> {
        let saved = |place: usize| self.image.containers().get(place);
        let same_id = |place: &usize| saved(*place).is_some_and(|saved| saved.id == container.id);
        let same_name =
            |place: &usize| saved(*place).is_some_and(|saved| !saved.name.is_empty() && saved.name == container.name);
        let found = self.missing().find(same_name).or_else(|| self.missing().find(same_id));
        // By `moat` alone, without a client that names containers.
        let alone = || {
            let only = self.missing().next().filter(|_| self.missing().count() == 1)?;
            let unnamed = container.name.is_empty() || saved(only).is_some_and(|saved| saved.name.is_empty());
            unnamed.then_some(only)
        };
        found.or_else(alone).ok_or_else(|| {
            // Names out of the image: no longer than a message has room for.
            let short = |text: &str| text.chars().take(64).collect::<String>();
            let name =
                |place| saved(place).map(|saved| short(if saved.name.is_empty() { &saved.id } else { &saved.name }));
            let missing: Vec<String> = self.missing().take(16).filter_map(name).collect();
            let id = &container.id;
            ControlError::Invalid(format!(
                "{id} is none of the containers of the image that are missing: {}",
                missing.join(", ")
            ))
        })
    }

    /// Gives back what is kept of the container `id`.
    pub(crate) fn forget(&mut self, id: &str) -> Option<(Arc<GuestContainer>, Arrived)> {
        let kept = |there: &Option<(Arc<GuestContainer>, Arrived)>| there.as_ref().is_some_and(|(c, _)| c.id == id);
        self.there.iter_mut().find(|there| kept(there)).and_then(Option::take)
    }

    /// Whether all are there.
    pub(crate) fn are_complete(&self) -> bool {
        self.missing().next().is_none()
    }

    /// Restores the processes of all of them, and starts those that were to be started. If that fails all end, and the sandbox with them.
    ///
    /// # Errors
    /// What is wrong with the image, or does not fit a configuration.
    pub(crate) async fn restore(self, kernel: &Arc<Kernel>) -> Result<(), BootError> {
        let (containers, arrived): (Vec<_>, Vec<_>) = self.there.into_iter().flatten().unzip();
        match restore::containers(kernel, &self.image, arrived).await {
            Ok(restored) => {
                // One that was given up meanwhile ends at once.
                containers.iter().zip(restored).for_each(|(container, restored)| container.begin(restored));
                Ok(())
            }
            Err(error) => {
                // The last one is told why; the root container ends the sandbox.
                for container in containers.iter().rev() {
                    container.give_up(Signal::SIGKILL);
                }
                Err(error)
            }
        }
    }
}
