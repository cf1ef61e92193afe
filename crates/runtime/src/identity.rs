//! Whom the sandbox runs as: its user namespace and its ids in there.

use std::fs;

use moat_host::spawn::{IdMaps, Setgroups};

use crate::error::{Context, Result};

/// uid and gid of "nobody".
const NOBODY: u32 = 65534;

/// The sandbox's user namespace.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Its id maps.
    pub(crate) maps: IdMaps,
    /// The `--identity` flag of boot.
    pub(crate) flag: &'static str,
}

impl Identity {
    /// Root maps all ids that it has to themselves and runs the sandbox as nobody; an ordinary user maps itself to root
    /// and nothing else.
    pub(crate) fn choose() -> Result<Self> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if !uid.is_root() {
            let maps = IdMaps {
                uid: format!("0 {} 1\n", uid.as_raw()),
                gid: format!("0 {} 1\n", gid.as_raw()),
                setgroups: Setgroups::Deny,
            };
            return Ok(Identity { maps, flag: "--identity=creator" });
        }
        let uid_map = read_map("/proc/self/uid_map")?;
        let gid_map = read_map("/proc/self/gid_map")?;
        let nobody = contains(&uid_map, NOBODY) && contains(&gid_map, NOBODY);
        let maps = IdMaps { uid: identity(&uid_map), gid: identity(&gid_map), setgroups: Setgroups::Allow };
        Ok(Identity { maps, flag: if nobody { "--identity=nobody" } else { "--identity=creator" } })
    }
}

/// Ranges of ids that exist in this user namespace.
type Ranges = Vec<(u32, u32)>;

fn read_map(path: &str) -> Result<Ranges> {
    let text = fs::read_to_string(path).context(|| format!("reading {path}"))?;
    Ok(parse_map(&text))
}

fn parse_map(text: &str) -> Ranges {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().map(str::parse::<u32>);
            let (inside, _outside, count) = (fields.next()?, fields.next()?, fields.next()?);
            Some((inside.ok()?, count.ok()?))
        })
        .collect()
}

fn contains(ranges: &Ranges, id: u32) -> bool {
    ranges.iter().any(|&(first, count)| id >= first && id - first < count)
}

fn identity(ranges: &Ranges) -> String {
    ranges.iter().map(|(first, count)| format!("{first} {first} {count}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_parsed_and_turned_to_identity() {
        let host = parse_map("         0          0 4294967295\n");
        assert!(contains(&host, NOBODY));
        assert_eq!(identity(&host), "0 0 4294967295\n");
        let nested = parse_map("0 1000 1\n1 100000 65535\n");
        assert!(contains(&nested, NOBODY) && contains(&nested, 65535) && !contains(&nested, 65536));
        assert_eq!(identity(&nested), "0 0 1\n1 1 65535\n");
        assert!(!contains(&parse_map("0 1000 1\n"), NOBODY));
    }
}
