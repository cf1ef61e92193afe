//! Reading what is used from the files of version 2, in the terms of version 1.

use std::path::Path;

use super::super::files::{parse_keyed, parse_number, read, read_if_there, read_number};
use super::v1::pids;
use super::{BlockIo, BlockIoEntry, Cpu, HugePages, Memory, MemoryEntry, Stats, huge_page_sizes};
use crate::error::Result;

/// What a cgroup uses; a controller that is not enabled counts nothing.
pub(in super::super) fn stats(dir: &Path) -> Result<Stats> {
    let mut stats = Stats { cpu: cpu(&read(dir, "cpu.stat")?), ..Stats::default() };
    if dir.join("memory.current").exists() {
        stats.memory = memory(dir)?;
    }
    if dir.join("pids.current").exists() {
        stats.pids = pids(dir)?;
    }
    stats.blkio = block_io(&read_if_there(dir, "io.stat").unwrap_or_default());
    for size in huge_page_sizes(dir, "current") {
        let events = read_if_there(dir, &format!("hugetlb.{size}.events")).unwrap_or_default();
        let pages = HugePages {
            usage: read_number(dir, &format!("hugetlb.{size}.current")).unwrap_or(0),
            max: 0,
            failcnt: parse_keyed(&events).find(|(key, _)| *key == "max").map_or(0, |(_, value)| value),
        };
        stats.hugetlb.insert(size, pages);
    }
    Ok(stats)
}

/// cpu.stat, whose times are microseconds.
fn cpu(text: &str) -> Cpu {
    let mut cpu = Cpu::default();
    for (key, value) in parse_keyed(text) {
        let ns = value.saturating_mul(1000);
        match key {
            "usage_usec" => cpu.usage.total = ns,
            "user_usec" => cpu.usage.user = ns,
            "system_usec" => cpu.usage.kernel = ns,
            "nr_periods" => cpu.throttling.periods = value,
            "nr_throttled" => cpu.throttling.throttled_periods = value,
            "throttled_usec" => cpu.throttling.throttled_time = ns,
            _ => {}
        }
    }
    cpu
}

fn memory(dir: &Path) -> Result<Memory> {
    let raw: std::collections::BTreeMap<String, u64> =
        parse_keyed(&read(dir, "memory.stat")?).map(|(key, value)| (key.to_owned(), value)).collect();
    let usage = MemoryEntry {
        limit: read_number(dir, "memory.max")?,
        usage: read_number(dir, "memory.current")?,
        max: read_number(dir, "memory.peak").unwrap_or(0),
        failcnt: 0,
    };
    let number = |file| read_if_there(dir, file).and_then(|text| parse_number(&text));
    // Version 1 counts memory and swap together, and so do those who read this.
    let swap = match (number("memory.swap.current"), number("memory.swap.max")) {
        (Some(current), Some(limit)) => MemoryEntry {
            limit: if limit == u64::MAX { limit } else { limit.saturating_add(usage.limit) },
            usage: current.saturating_add(usage.usage),
            ..MemoryEntry::default()
        },
        _ => MemoryEntry::default(),
    };
    Ok(Memory { cache: raw.get("file").copied().unwrap_or(0), usage, swap, raw, ..Memory::default() })
}

/// io.stat: lines of "MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N ...".
fn block_io(text: &str) -> BlockIo {
    let mut io = BlockIo::default();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let Some((major, minor)) = fields.next().and_then(|device| device.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse(), minor.parse()) else { continue };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (op, table) = match key {
                "rbytes" => ("Read", &mut io.io_service_bytes_recursive),
                "wbytes" => ("Write", &mut io.io_service_bytes_recursive),
                "rios" => ("Read", &mut io.io_serviced_recursive),
                "wios" => ("Write", &mut io.io_serviced_recursive),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                table.push(BlockIoEntry { major, minor, op: op.to_owned(), value });
            }
        }
    }
    io
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn texts_are_understood() {
        let io = block_io("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:0\n");
        assert_eq!((io.io_service_bytes_recursive.len(), io.io_serviced_recursive[1].value), (2, 4));
        let cpu = cpu("usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 1\nthrottled_usec 9\n");
        assert_eq!((cpu.usage.total, cpu.usage.kernel, cpu.throttling.throttled_time), (5000, 2000, 9000));
    }

    #[test]
    fn swap_is_memory_and_swap() {
        let dir = std::env::temp_dir().join(format!("moat-stats-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        for (file, text) in [
            ("cpu.stat", "usage_usec 5\n"),
            ("memory.stat", "anon 7\nfile 11\n"),
            ("memory.max", "100\n"),
            ("memory.current", "40\n"),
            ("memory.swap.max", "10\n"),
            ("memory.swap.current", "5\n"),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("hugetlb.2MB.current", "0\n"),
            ("hugetlb.2MB.rsvd.current", "0\n"),
            ("hugetlb.2MB.events", "max 6\n"),
        ] {
            fs::write(dir.join(file), text).unwrap();
        }
        let stats = stats(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let memory = &stats.memory;
        assert_eq!((memory.usage.limit, memory.swap.limit, memory.swap.usage, memory.cache), (100, 110, 45, 11));
        assert_eq!((stats.pids.current, stats.pids.limit), (3, 0));
        assert_eq!(stats.hugetlb.keys().collect::<Vec<_>>(), ["2MB"]);
        assert_eq!(stats.hugetlb["2MB"].failcnt, 6);
    }
}
