//! Which container something is of.

use crate::error::ImageError;

/// A container's place in [`super::SandboxState::containers`]; 0 is the root container, and the only one outside of pods.
pub type ContainerIndex = u32;

/// The element of `list`, which has one for each container.
///
/// # Errors
/// [`ImageError::Dangling`].
pub fn of_container<T>(list: &[T], index: ContainerIndex) -> Result<&T, ImageError> {
    let found = usize::try_from(index).ok().and_then(|at| list.get(at));
    found.ok_or(ImageError::Dangling { what: "container", index })
}
