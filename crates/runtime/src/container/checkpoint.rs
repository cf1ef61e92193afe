//! Saving containers.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use moat_control::protocol::AfterCheckpoint;
use moat_image::directory::{self, ImageFiles, NewImage};
use rustix::fs::{MemfdFlags, memfd_create};

use super::create::SANDBOX_ID;
use super::{Container, Force, not_running};
use crate::Error;
use crate::blueprint::ImageSource;
use crate::error::{Context, Result};
use crate::namespaces::Role;
use crate::store::Status;

pub use moat_control::protocol::PageCompression;

/// How a container is saved.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointOptions<'a> {
    /// What becomes of it.
    pub afterwards: Afterwards,
    /// How pages are written.
    pub compression: PageCompression,
    /// The image that has the pages which need not be written again.
    pub base: Option<&'a Path>,
}

/// What becomes of a container that has been saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// It goes on as it did.
    Runs,
    /// It is ended and removed, as runc does.
    Gone,
}

/// Whether a container's annotations name the sandbox that it is in, as those of a pod's do.
fn names_sandbox(container: &Container) -> bool {
    SANDBOX_ID.iter().any(|key| container.state.annotations.contains_key(*key))
}

fn copy(file: &File) -> Result<OwnedFd> {
    file.try_clone().map(OwnedFd::from).context(|| "duplicating a descriptor".into())
}

impl Container {
    /// Saves the container's sandbox in memory, and lets it go on.
    ///
    /// # Errors
    /// As [`Container::checkpoint`].
    pub fn snapshot(&mut self) -> Result<ImageSource> {
        // Held meanwhile, so that nobody ends it half way.
        let _entry = self.lock()?;
        if !matches!(self.status(), Status::Running | Status::Paused) {
            return Err(not_running());
        }
        if self.state.role != Role::Root {
            return Err(Error::unsupported("clone", "of a container in the sandbox of another one"));
        }
        if !self.later_containers()?.is_empty() {
            // A clone has one bundle and one id.
            return Err(Error::unsupported("clone", "of a pod: its containers are saved and restored with an image"));
        }
        let memory = |name| memfd_create(name, MemfdFlags::CLOEXEC).map(File::from).context(|| "making a memfd".into());
        let (state, pages) = (memory("moat-image-state")?, memory("moat-image-pages")?);
        let sandbox = self.sandbox()?;
        let files = [copy(&state)?, copy(&pages)?];
        sandbox.checkpoint(self.id.as_str(), AfterCheckpoint::GoOn, PageCompression::None, &files)?;
        Ok(ImageSource::Memory(Arc::new(state), Arc::new(pages)))
    }

    /// The other containers in its sandbox that have not ended.
    fn later_containers(&self) -> Result<Vec<Container>> {
        let sandbox = self.sandbox()?;
        let mut all = Container::all(&self.store)?;
        all.retain(|other| {
            let shares =
                other.state.sandbox.as_ref().is_some_and(|of| of.id == sandbox.id && of.process == sandbox.process);
            shares && other.id != self.id && other.status() != Status::Stopped
        });
        Ok(all)
    }

    /// Saves the container's sandbox into an image at `place`, which is there complete when this returns, or not at all.
    ///
    /// # Errors
    /// What can't be saved, by name; [`Error::State`] unless the container runs or is paused. It then goes on as it did.
    pub fn checkpoint(mut self, place: &Path, options: CheckpointOptions<'_>) -> Result<()> {
        let CheckpointOptions { afterwards, compression, base } = options;
        let entry = self.lock()?;
        let was = self.status();
        if !matches!(was, Status::Running | Status::Paused) {
            return Err(not_running());
        }
        if self.state.role != Role::Root {
            // An image is of a whole sandbox.
            return Err(Error::unsupported("checkpoint", "of a container in the sandbox of another one"));
        }
        let later = self.later_containers()?;
        if let Some(neighbour) = later.iter().find(|container| !names_sandbox(container)) {
            // Its client does not know that it would be restored, or end, with this one.
            let what = format!("of a container whose network another one has joined ({})", neighbour.id);
            return Err(Error::unsupported("checkpoint", what));
        }
        let image = NewImage::create(place, base)?;
        // The sandbox writes by itself; this process keeps the files to give them their names.
        let mut files = vec![copy(&image.state)?, copy(&image.pages)?];
        if let Some(base) = base {
            let ImageFiles { state, pages, bases } = directory::open(base)?;
            files.extend([state, pages].into_iter().chain(bases).map(OwnedFd::from));
        }
        let sandbox = self.sandbox()?.clone();
        let then = match afterwards {
            Afterwards::Runs => AfterCheckpoint::GoOn,
            // Until the image is in its place the container is all that there is.
            Afterwards::Gone => AfterCheckpoint::Pause,
        };
        sandbox.checkpoint(self.id.as_str(), then, compression, &files)?;
        let committed = image.commit();
        if afterwards == Afterwards::Runs {
            return Ok(committed?);
        }
        if let Err(error) = committed {
            // It was paused for the image alone.
            if was == Status::Running {
                sandbox.resume(self.id.as_str())?;
            }
            for container in later.iter().filter(|container| container.state.status == Status::Running) {
                sandbox.resume(container.id.as_str())?;
            }
            return Err(error.into());
        }
        sandbox.end_saved();
        let Container { store, id, .. } = self;
        // `delete` takes the lock itself.
        drop(entry);
        Container::delete(&store, &id, Force::Yes)
    }
}
