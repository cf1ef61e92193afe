//! What processes hold, into an image: descriptor tables, root and working directory.

use std::sync::Arc;

use moat_image::state::{DescriptorState, FdTableState, FsContextState};
use moat_image::{Met, Ref, Refusal};
use moat_sync::Mutex;

use super::save::{Saver, address};
use crate::fd_table::{FdTable, OnExec};
use crate::file::SaveFiles;
use crate::fs_context::FsContext;

impl Saver {
    /// A descriptor table.
    ///
    /// # Errors
    /// The descriptor that can't be saved.
    pub fn fd_table(&mut self, table: &Arc<FdTable>) -> Result<Ref<FdTableState>, Refusal> {
        let name = match self.fd_tables.meet(address(table)) {
            Met::Before(name) => return Ok(name),
            Met::First(name) => name,
        };
        let mut descriptors = Vec::new();
        let mut files = Vec::new();
        for (fd, file, on_exec) in table.snapshot() {
            let saved = self.open_file(&file).and_then(|saved| self.rest().map(|()| saved));
            let saved = saved.map_err(|refusal| refusal.at(format!("descriptor {}", fd.0)))?;
            files.push((fd, file));
            descriptors.push(DescriptorState { fd: fd.0, file: saved, close_on_exec: on_exec == OnExec::Close });
        }
        let locks = super::locks::held_by_table(table, &files)?;
        self.locks = self.locks.saturating_add(locks.len());
        self.fd_tables.fill(name, FdTableState { descriptors, locks });
        Ok(name)
    }

    /// Root, working directory and umask.
    ///
    /// # Errors
    /// A mount namespace of the guest's own; a directory whose name is gone.
    pub fn fs_context(&mut self, fs: &Arc<Mutex<FsContext>>) -> Result<Ref<FsContextState>, Refusal> {
        let context = fs.lock().clone();
        if !self.is_own(&context.namespace) {
            return Err(Refusal::new("a mount namespace of the guest's own"));
        }
        let name = match self.fs_contexts.meet(address(fs)) {
            Met::Before(name) => return Ok(name),
            Met::First(name) => name,
        };
        let root = self.path(&context.root).map_err(|refusal| refusal.at("the root directory"))?;
        let cwd = self.path(&context.cwd).map_err(|refusal| refusal.at("the working directory"))?;
        self.fs_contexts.fill(name, FsContextState { root, cwd, umask: context.umask });
        Ok(name)
    }
}
