//! [`CorePattern`]: what core files are called, `/proc/sys/kernel/core_pattern` of core(5).

use moat_abi::{Errno, Result};
use moat_identity::Setting;
use moat_sync::{LockClass, Mutex};

/// Bytes of the longest pattern, with its end (`CORENAME_MAX_SIZE`).
const LONGEST: usize = 128;

/// The settings of a kernel.
pub struct CorePattern {
    pattern: Mutex<String>,
    /// `core_uses_pid`.
    pub uses_pid: Setting,
}

impl Default for CorePattern {
    fn default() -> CorePattern {
        CorePattern {
            pattern: Mutex::new(LockClass::Leaf, "core".to_owned()),
            uses_pid: Setting::new(0, 0, i32::MAX.unsigned_abs().into()),
        }
    }
}

/// What a pattern may name.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct CoreNames {
    pub pid: i32,
    pub tid: i32,
    pub uid: u32,
    pub gid: u32,
    pub signal: i32,
    pub time_s: i64,
    pub host: Vec<u8>,
    pub comm: Vec<u8>,
    pub exe: Vec<u8>,
    pub limit: u64,
}

impl CorePattern {
    /// The pattern.
    #[must_use]
    pub fn get(&self) -> String {
        self.pattern.lock().clone()
    }

    /// Sets the pattern.
    ///
    /// # Errors
    /// EINVAL for one that is too long, or names a program or socket to take the core: a sandbox has no helpers of its kernel.
    pub fn set(&self, pattern: &str) -> Result<()> {
        let pattern = pattern.trim_end_matches('\n');
        if pattern.len() >= LONGEST || pattern.starts_with(['|', '@']) {
            return Err(Errno::EINVAL);
        }
        pattern.clone_into(&mut self.pattern.lock());
        Ok(())
    }

    /// The path of a core file (`format_corename`); `None` where the pattern is empty.
    #[must_use]
    pub fn path(&self, names: &CoreNames) -> Option<Vec<u8>> {
        let pattern = self.get();
        let (mut path, mut has_pid) = (Vec::new(), false);
        let mut rest = pattern.bytes();
        while let Some(byte) = rest.next() {
            if byte != b'%' {
                path.push(byte);
                continue;
            }
            match rest.next() {
                // As on Linux, a lone % and unknown letters vanish.
                None => break,
                Some(b'%') => path.push(b'%'),
                Some(b'p' | b'P') => {
                    has_pid = true;
                    path.extend(names.pid.to_string().bytes());
                }
                Some(b'i' | b'I') => path.extend(names.tid.to_string().bytes()),
                Some(b'u') => path.extend(names.uid.to_string().bytes()),
                Some(b'g') => path.extend(names.gid.to_string().bytes()),
                // Whether set-id programs are dumped: they are not.
                Some(b'd') => path.push(b'1'),
                Some(b's') => path.extend(names.signal.to_string().bytes()),
                Some(b't') => path.extend(names.time_s.to_string().bytes()),
                Some(b'h') => path.extend(one_name(&names.host)),
                Some(b'e') => path.extend(one_name(&names.comm)),
                Some(b'f') => path.extend(one_name(names.exe.rsplit(|b| *b == b'/').next().unwrap_or_default())),
                Some(b'E') => path.extend(one_name(&names.exe)),
                Some(b'c') => path.extend(names.limit.to_string().bytes()),
                Some(_) => {}
            }
        }
        if path.is_empty() {
            return None;
        }
        if !has_pid && self.uses_pid.get() != 0 {
            path.extend(format!(".{}", names.pid).bytes());
        }
        Some(path)
    }
}

/// Text that stays one component of a path (`cn_esc_printf`).
fn one_name(text: &[u8]) -> Vec<u8> {
    let mut name: Vec<u8> = text.iter().map(|b| if *b == b'/' { b'!' } else { *b }).collect();
    if matches!(&name[..], b"." | b"..") {
        name.fill(b'!');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_the_process() {
        let core = CorePattern::default();
        let names = CoreNames {
            pid: 7,
            tid: 8,
            uid: 1,
            gid: 2,
            signal: 11,
            time_s: 5,
            host: b"box".to_vec(),
            comm: b"a/b".to_vec(),
            exe: b"/bin/a".to_vec(),
            limit: 9,
        };
        let path = |core: &CorePattern| String::from_utf8(core.path(&names).unwrap_or_default()).unwrap();
        assert_eq!(path(&core), "core");
        core.uses_pid.set(1).unwrap();
        assert_eq!(path(&core), "core.7");
        core.set("/tmp/%e.%p.%s.%h.%E%%%z%").unwrap();
        assert_eq!(path(&core), "/tmp/a!b.7.11.box.!bin!a%");
        assert_eq!(core.set("|/bin/x"), Err(Errno::EINVAL));
        core.set("\n").unwrap();
        assert_eq!(core.path(&names), None);
    }
}
