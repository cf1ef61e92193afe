//! Id maps of user namespaces: user_namespaces(7).

use std::fs;
use std::io;
use std::process::{Command, Stdio};

/// The id maps of a new user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMaps {
    /// User ids.
    pub uid: Vec<IdMap>,
    /// Group ids.
    pub gid: Vec<IdMap>,
    /// Who writes them.
    pub writer: MapWriter,
}

/// A range of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// The first one inside the namespace.
    pub inside: u32,
    /// The first one in the namespace of who writes the map.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// How the maps of a child's namespace are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapWriter {
    /// By this process, which has CAP_SETUID and CAP_SETGID.
    Privileged,
    /// By this process, which has neither: only itself can be mapped, and setgroups(2) is denied.
    Ordinary,
    /// By the programs newuidmap(1) and newgidmap(1), which look at /etc/subuid and /etc/subgid.
    Programs,
}

impl IdMap {
    /// Parses the lines of /proc/PID/uid_map; malformed ones are passed over.
    #[must_use]
    pub fn parse_all(text: &str) -> Vec<Self> {
        text.lines()
            .filter_map(|line| {
                let mut fields = line.split_ascii_whitespace().map(str::parse::<u32>);
                let (inside, outside, count) = (fields.next()?.ok()?, fields.next()?.ok()?, fields.next()?.ok()?);
                Some(IdMap { inside, outside, count })
            })
            .collect()
    }

    /// Whether `id` exists inside the namespace.
    #[must_use]
    pub fn contains(self, id: u32) -> bool {
        id >= self.inside && id - self.inside < self.count
    }

    fn line(self) -> String {
        format!("{} {} {}\n", self.inside, self.outside, self.count)
    }
}

impl IdMaps {
    /// Writes the maps of process `pid`, the first one of its user namespace.
    pub(super) fn write(&self, pid: i32) -> io::Result<()> {
        if self.writer == MapWriter::Programs {
            run_program("newuidmap", pid, &self.uid)?;
            return run_program("newgidmap", pid, &self.gid);
        }
        if self.writer == MapWriter::Ordinary {
            fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
        }
        let text = |maps: &[IdMap]| maps.iter().map(|map| map.line()).collect::<String>();
        fs::write(format!("/proc/{pid}/gid_map"), text(&self.gid))?;
        fs::write(format!("/proc/{pid}/uid_map"), text(&self.uid))
    }
}

fn run_program(program: &str, pid: i32, maps: &[IdMap]) -> io::Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string()).stdin(Stdio::null()).stdout(Stdio::null());
    for map in maps {
        command.args([map.inside, map.outside, map.count].map(|number| number.to_string()));
    }
    let output = command.output().map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{program}: {}: {}", output.status, words.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_parsed() {
        let maps = IdMap::parse_all("         0       1000          1\n1 100000 65535\nx y z\n");
        assert_eq!(maps.len(), 2);
        assert_eq!(maps[1], IdMap { inside: 1, outside: 100_000, count: 65535 });
        assert!(maps[1].contains(65535) && !maps[1].contains(65536) && !maps[1].contains(0));
        assert_eq!(maps[0].line(), "0 1000 1\n");
    }
}
