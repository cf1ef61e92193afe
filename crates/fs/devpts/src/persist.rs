//! Pseudo-terminals in an image, and out of it.
//!
//! A devpts saves those that have an index in it; their openings say which one they are of, and sessions, whose terminal they are.

use std::sync::Arc;

use moat_abi::fs::OpenFlags;
use moat_image::state::{FileSystemState, OpenFileKind, PtyMasterState, PtySlaveState, PtyState};
use moat_image::{ImageError, Ref, Refusal, Table, refs::find};
use moat_tty::Terminal;
use moat_vfs::persist::{Restorer, SaveFiles};
use moat_vfs::{Credentials, Dentry, OpenFile, Path};

use crate::fs::restore_pty;
use crate::master::Master;
use crate::pty::Pty;
use crate::slave::Slave;

fn name_of(pty: &Arc<Pty>, saver: &mut dyn SaveFiles) -> Result<Ref<PtyState>, Refusal> {
    // All devpts of the container were saved before any file.
    let name = saver.ptys().name_of(Arc::as_ptr(pty).addr());
    name.ok_or_else(|| Refusal::new("a pseudo-terminal outside of the container's mounts"))
}

impl Master {
    pub(crate) fn save_file(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> Result<OpenFileKind, Refusal> {
        let pty = name_of(&self.pty, saver)?;
        Ok(OpenFileKind::PtyMaster(PtyMasterState { pty, path: saver.path(f.path())?, root: saver.path(&self.root)? }))
    }
}

impl Slave {
    pub(crate) fn save_file(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> Result<OpenFileKind, Refusal> {
        let pty = name_of(&self.pty, saver)?;
        let path = match saver.path(f.path()) {
            Ok(path) => Some(path),
            // The name goes with the master.
            Err(_) if !self.pty.has_master() => None,
            Err(refusal) => return Err(refusal),
        };
        let shown = f.path().dentry.name().to_vec();
        Ok(OpenFileKind::PtySlave(PtySlaveState { pty, path, shown, hang_ups: self.hang_ups() }))
    }
}

/// The pseudo-terminals of an image.
pub struct RestoredPtys {
    /// Each with the root of its devpts.
    ptys: Vec<(Arc<Pty>, Path)>,
}

impl RestoredPtys {
    /// Makes them in the devpts of the mounts, in which there are none yet.
    ///
    /// # Errors
    /// What is wrong with one; a mount that is no devpts; too many.
    pub fn make(restorer: &Restorer<'_>) -> Result<RestoredPtys, ImageError> {
        let state = restorer.state();
        let mut made: Vec<Option<(Arc<Pty>, Path)>> = state.ptys.iter().map(|_| None).collect();
        for (saved, root) in restorer.file_systems() {
            let FileSystemState::Terminals(names) = saved else { continue };
            for name in names {
                let pty = restore_pty(&root, state.ptys.get(*name)?)?;
                let slot = usize::try_from(name.index()).ok().and_then(|at| made.get_mut(at));
                match slot {
                    Some(slot @ None) => *slot = Some((pty, root.clone())),
                    _ => return Err(ImageError::state("a pseudo-terminal in two places")),
                }
            }
        }
        let ptys: Option<Vec<_>> = made.into_iter().collect();
        Ok(RestoredPtys { ptys: ptys.ok_or_else(|| ImageError::state("a pseudo-terminal in no devpts"))? })
    }

    /// The terminals, by their numbers in the image.
    #[must_use]
    pub fn terminals(&self) -> Vec<Arc<dyn Terminal>> {
        self.ptys.iter().map(|(pty, _)| pty.clone() as Arc<dyn Terminal>).collect()
    }

    /// Opens a master as it was.
    ///
    /// # Errors
    /// A second one of its pty; paths that are not there.
    pub fn open_master(
        &self,
        saved: &PtyMasterState,
        restorer: &Restorer<'_>,
        flags: OpenFlags,
        creds: &Arc<Credentials>,
    ) -> Result<Arc<OpenFile>, ImageError> {
        let (pty, _) = find(&self.ptys, saved.pty)?;
        let (root, path) = (restorer.path(&saved.root)?, restorer.path(&saved.path)?);
        // Of one that is closed the name is gone, too.
        if !restorer.state().ptys.get(saved.pty)?.master_open || pty.has_master() {
            return Err(ImageError::state("a second master of a pseudo-terminal"));
        }
        pty.master_opened();
        let master = Arc::new(Master { pty: pty.clone(), root });
        Ok(OpenFile::new(master, path, flags, creds.clone()))
    }

    /// Opens a slave as it was, without the rules of an opening.
    ///
    /// # Errors
    /// A path that is not there; hang-ups that have not been.
    pub fn open_slave(
        &self,
        saved: &PtySlaveState,
        restorer: &Restorer<'_>,
        flags: OpenFlags,
        creds: &Arc<Credentials>,
    ) -> Result<Arc<OpenFile>, ImageError> {
        let (pty, root) = find(&self.ptys, saved.pty)?;
        let path = match &saved.path {
            Some(path) => restorer.path(path)?,
            None => {
                let inode = root.inode().clone();
                Path { mount: root.mount.clone(), dentry: Dentry::removed(&root.dentry, &saved.shown, inode) }
            }
        };
        let slave =
            pty.open_again(saved.hang_ups).ok_or_else(|| ImageError::state("a slave that was hung up later"))?;
        Ok(OpenFile::new(Arc::new(slave), path, flags, creds.clone()))
    }

    /// Whether every master that was open is. At the end.
    ///
    /// # Errors
    /// One that nobody has.
    pub fn all_opened(&self, saved: &Table<PtyState>) -> Result<(), ImageError> {
        // Its name would stay for ever.
        match saved.iter().zip(&self.ptys).all(|(saved, (pty, _))| saved.master_open == pty.has_master()) {
            true => Ok(()),
            false => Err(ImageError::state("a pseudo-terminal whose master nobody has open")),
        }
    }
}
