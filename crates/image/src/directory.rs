//! The directory of an image: made beside its place and renamed, so that it is complete or not there.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use crate::clocks::ClockState;
use crate::error::ImageError;
use crate::header::{self, Header, KERNEL};
use crate::length;
use crate::pages::Pages;
use crate::state::SandboxState;

pub use crate::error::{PAGES, STATE};

/// A link to the image that this one is based on.
const BASE: &str = "base";

/// A link to `state`: Podman takes a directory for an image only if it has a file of this name, in which CRIU writes what it is.
const CRIU_INVENTORY: &str = "inventory.img";

/// Bytes of the largest `state` that is read.
const MAX_STATE: u64 = 2 << 30;

/// An image that is being written; without [`NewImage::commit`] nothing is left of it.
pub struct NewImage {
    place: PathBuf,
    beside: PathBuf,
    committed: bool,
    /// `state`.
    pub state: File,
    /// `pages`.
    pub pages: File,
}

impl NewImage {
    /// Begins an image that is to be at `place`, which must not exist or be an empty directory; `base` is that of one that it is based on.
    ///
    /// # Errors
    /// EEXIST if there is something; those of the directory above, and of `base`.
    pub fn create(place: &Path, base: Option<&Path>) -> Result<NewImage, ImageError> {
        let host = |what: &str, error| ImageError::host(format!("{what} {}", place.display()), error);
        match fs::read_dir(place).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return Err(host("making the image", ErrorKind::AlreadyExists.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(host("looking at", error)),
        }
        let name = place.file_name().ok_or_else(|| host("making the image", ErrorKind::InvalidInput.into()))?;
        let above = above(place);
        fs::create_dir_all(above).map_err(|e| host("making the directory above", e))?;
        let beside = above.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
        // Left by a process of that number that was killed.
        let _ = fs::remove_dir_all(&beside);
        fs::DirBuilder::new().mode(0o700).create(&beside).map_err(|e| host("making the image", e))?;
        let file =
            |name| OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(beside.join(name));
        let link = || base.map_or(Ok(()), |base| symlink(relative(above, base)?, beside.join(BASE)));
        let links = || link().and_then(|()| symlink(STATE, beside.join(CRIU_INVENTORY)));
        let files = links().and_then(|()| Ok((file(STATE)?, file(PAGES)?)));
        match files {
            Ok((state, pages)) => Ok(NewImage { place: place.to_owned(), beside, committed: false, state, pages }),
            Err(error) => {
                let _ = fs::remove_dir_all(&beside);
                Err(host("making the image", error))
            }
        }
    }

    /// Puts the finished image in its place, once all of it is on its medium.
    ///
    /// # Errors
    /// Of fsync(2) and rename(2).
    pub fn commit(mut self) -> Result<(), ImageError> {
        let steps = || {
            // In this order: a name that survives a crash of the host leads to contents that have.
            self.state.sync_all()?;
            self.pages.sync_all()?;
            File::open(&self.beside)?.sync_all()?;
            fs::rename(&self.beside, &self.place)?;
            File::open(above(&self.place))?.sync_all()
        };
        steps().map_err(|e| ImageError::host(format!("putting the image at {}", self.place.display()), e))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for NewImage {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_dir_all(&self.beside);
        }
    }
}

/// The directory that `place` is in.
fn above(place: &Path) -> &Path {
    place.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// How an image that is in `above` finds the directory `base`, wherever both are moved to together.
fn relative(above: &Path, base: &Path) -> std::io::Result<PathBuf> {
    let (above, base) = (above.canonicalize()?, base.canonicalize()?);
    let common = above.components().zip(base.components()).take_while(|(a, b)| a == b).count();
    let up = above.components().skip(common).map(|_| Component::ParentDir);
    // Out of the image's own directory first.
    Ok([Component::ParentDir].into_iter().chain(up).chain(base.components().skip(common)).collect())
}

/// The files of an image, open for reading.
#[derive(Debug)]
pub struct ImageFiles {
    /// What it is, and the kernel's state.
    pub state: File,
    /// Its own pages.
    pub pages: File,
    /// Those of the images that it is based on, the nearest first.
    pub bases: Vec<File>,
}

/// Opens the files of the image at `place`.
///
/// # Errors
/// Those of open(2); a header that can't be read.
pub fn open(place: &Path) -> Result<ImageFiles, ImageError> {
    let file =
        |path: PathBuf| File::open(&path).map_err(|e| ImageError::host(format!("opening {}", path.display()), e));
    let (state, pages) = (file(place.join(STATE))?, file(place.join(PAGES))?);
    let mut directory = place.to_owned();
    let mut bases = Vec::new();
    for _ in header_of(&state)?.bases {
        directory.push(BASE);
        bases.push(file(directory.join(PAGES))?);
    }
    Ok(ImageFiles { state, pages, bases })
}

/// What its clocks were when the image in this `state` was made: what a restore has to know before the rest is read.
///
/// # Errors
/// A header that can't be read.
pub fn clocks(state: &File) -> Result<Option<ClockState>, ImageError> {
    Ok(header_of(state)?.clocks)
}

fn header_of(state: &File) -> Result<Header, ImageError> {
    let failed = |e| ImageError::host("reading state", e);
    let len = state.metadata().map_err(failed)?.len().min(length(header::MAX_START));
    let mut start = vec![0; usize::try_from(len).unwrap_or(0)];
    // By position, as in [`Image::read`].
    state.read_exact_at(&mut start, 0).map_err(failed)?;
    Ok(header::begin(&start)?.0)
}

/// An image that has been read.
pub struct Image {
    /// What it is.
    pub header: Header,
    /// The kernel's state.
    pub state: SandboxState,
    /// Guest memory.
    pub pages: Pages,
}

impl Image {
    /// Reads an image. Its pages are looked at only as far as that they belong to it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(files: ImageFiles) -> Result<Image, ImageError> {
        let ImageFiles { state, pages, bases } = files;
        let len = state.metadata().map_err(|e| ImageError::host("looking at state", e))?.len();
        if len > MAX_STATE {
            return Err(ImageError::state(format!("it has {len} bytes, more than any image")));
        }
        // By position: images that are not in a directory are read by several, through one description.
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        state.read_exact_at(&mut bytes, 0).map_err(|e| ImageError::host("reading state", e))?;
        Image::decode(&bytes, pages, bases)
    }

    /// The image with these bytes as its `state`.
    ///
    /// # Errors
    /// As [`Image::read`].
    pub fn decode(bytes: &[u8], pages: File, bases: Vec<File>) -> Result<Image, ImageError> {
        let (header, sections) = header::decode(bytes)?;
        let kernel = sections.iter().find(|(name, _)| name == KERNEL);
        let (_, kernel) = kernel.ok_or_else(|| ImageError::state("it has no kernel state"))?;
        let state = SandboxState::decode(kernel)?;
        let pages = Pages::open(pages, &header, bases)?;
        Ok(Image { header, state, pages })
    }

    /// Looks whether all pages are those that were written.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn verify_pages(&self) -> Result<(), ImageError> {
        self.state.stored().try_for_each(|stored| self.pages.verify(&stored))
    }
}

/// Writes `state`.
///
/// # Errors
/// What can't be encoded or written.
pub fn write_state(mut file: &File, header: Header, state: &SandboxState) -> Result<(), ImageError> {
    let bytes = header::encode(header, &[(KERNEL, state.encode()?)])?;
    file.write_all(&bytes).map_err(|e| ImageError::host("writing state", e))
}
