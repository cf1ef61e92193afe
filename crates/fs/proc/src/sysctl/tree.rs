//! The files of /proc/sys: each is a setting of the namespaces of who opened it.

use std::sync::Arc;

use moat_abi::{Errno, Result};
use moat_vfs::caller::Caller;
use moat_vfs::cred::Credentials;
use moat_vfs::generated::{Attributes, Table, TableDir, Text, TextFile};
use moat_vfs::inode::Inode;

use super::{Scope, Value, Which, all, conf, find};
use crate::mount::ProcMount;

struct SettingText {
    path: String,
    proc: ProcMount,
    scope: Scope,
}

impl SettingText {
    /// A device may have gone since its file was opened.
    fn setting(&self) -> Result<Which> {
        find(&self.path, &self.scope.namespaces).ok_or(Errno::ENOENT)
    }
}

impl Text for SettingText {
    fn read(&self, _caller: &Credentials) -> Result<Vec<u8>> {
        Ok(format!("{}\n", self.setting()?.get(&self.scope)).into_bytes())
    }

    fn write(&self, caller: &Credentials, data: &[u8]) -> Result<()> {
        let setting = self.setting()?;
        if !setting.can_be_set() || !self.scope.may_set(&self.path, caller) {
            return Err(Errno::EPERM);
        }
        setting.set(&self.scope, std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?)
    }

    /// Nobody's capabilities count where the mode says that a setting is not written.
    fn may_open_to_write(&self, _caller: &dyn Caller) -> Result<()> {
        if self.setting()?.can_be_set() { Ok(()) } else { Err(Errno::EACCES) }
    }

    fn opened_by(self: Arc<Self>, caller: &dyn Caller) -> Arc<SettingText> {
        let Some(task) = caller.task() else { return self };
        let scope = Scope::new(&self.proc.kernel, &task.namespaces());
        Arc::new(SettingText { path: self.path.clone(), proc: self.proc.clone(), scope })
    }
}

struct Settings {
    proc: ProcMount,
}

pub(crate) fn root(proc: &ProcMount) -> Arc<dyn Inode> {
    TableDir::root(Settings { proc: proc.clone() })
}

impl Table for Settings {
    fn paths(&self) -> Vec<String> {
        all().map(|(path, _)| (*path).to_owned()).chain(conf::paths(&self.proc.namespaces.net)).collect()
    }

    fn file(&self, path: &str) -> Arc<dyn Inode> {
        // The mode is the same for everybody; who may write is asked when it is written.
        let mode = match find(path, &self.proc.namespaces) {
            Some(Which::Entry((_, Value::Made(_)))) => 0o444,
            Some(Which::Device(place)) if !place.can_be_set() => 0o444,
            _ => 0o644,
        };
        let scope = Scope::new(&self.proc.kernel, &self.proc.namespaces);
        let text = SettingText { path: path.to_owned(), proc: self.proc.clone(), scope };
        TextFile::new(self.proc.attributes(("sys", path), mode), text)
    }

    fn dir_attributes(&self, path: &str) -> Attributes {
        self.proc.attributes(("sys", path), 0o555)
    }
}
