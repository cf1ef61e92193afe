//! Saving containers.

use std::os::fd::OwnedFd;
use std::path::Path;

use moat_control::protocol::AfterCheckpoint;
use moat_image::directory::NewImage;

use super::{Container, Force, not_running};
use crate::Error;
use crate::error::{Context, Result};
use crate::namespaces::Role;
use crate::store::Status;

/// What becomes of a container that has been saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It goes on as it did.
    Runs,
    /// It is ended and removed, as runc does.
    Gone,
}

impl Container {
    /// Saves the container's sandbox into an image at `place`, which is there complete when this returns, or not at all.
    ///
    /// # Errors
    /// What can't be saved, by name; [`Error::State`] unless the container runs or is paused. It then goes on as it did.
    pub fn checkpoint(mut self, place: &Path, afterwards: Afterwards) -> Result<()> {
        let entry = self.lock()?;
        let was = self.status();
        if !matches!(was, Status::Running | Status::Paused) {
            return Err(not_running());
        }
        if self.state.role != Role::Root {
            return Err(Error::unsupported("checkpoint", "of a container in the sandbox of another one"));
        }
        let image = NewImage::create(place)?;
        let copy = |file: &std::fs::File| -> Result<OwnedFd> {
            file.try_clone().map(OwnedFd::from).context(|| "duplicating a descriptor".into())
        };
        let (state, pages) = (copy(&image.state)?, copy(&image.pages)?);
        let sandbox = self.sandbox()?.clone();
        let then = match afterwards {
            Afterwards::Runs => AfterCheckpoint::GoOn,
            // Until the image is in its place the container is all that there is.
            Afterwards::Gone => AfterCheckpoint::Pause,
        };
        sandbox.checkpoint(self.id.as_str(), then, state, pages)?;
        let committed = image.commit();
        if afterwards == Afterwards::Runs {
            return Ok(committed?);
        }
        if let Err(error) = committed {
            if was == Status::Running {
                sandbox.resume(self.id.as_str())?;
            }
            return Err(error.into());
        }
        let Container { store, id, .. } = self;
        drop(entry);
        Container::delete(&store, &id, Force::Yes)
    }
}
