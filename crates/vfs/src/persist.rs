//! Descriptors, open files and paths in an image, and out of it.
//!
//! - [`Saver`]: gives each object a name when it is first met, and collects what is saved of it.
//! - [`Restorer`]: the same objects in a new kernel, whose mounts have been made from the configuration.
//! - [`MappedFile`]: what a mapping remembers of its file.
//!
//! An open file says what it is to [`SaveFiles`] by [`File::save`](crate::File::save), a file system by
//! [`FileSystem::save`](crate::FileSystem::save). Both refuse unless they say otherwise, so that nothing is lost in silence.

mod locks;
mod mapped;
mod memory;
mod restore;
mod save;
mod tables;
mod trees;
mod users;

pub use crate::file::{Compare, SaveFiles};
pub use locks::{hold_again, owner_of};
pub use mapped::MappedFile;
pub use memory::{restore_memory, save_memory};
pub use restore::{ContainerBounds, Contents, Restorer};
pub use save::{SavedContainer, Saver};
pub use users::Bounds;

pub use crate::saved_namespaces::{OwnNamespaces, SavedNamespaces};
