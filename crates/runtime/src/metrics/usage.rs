//! [`Usage`]: the memory that a container uses by category, in the words of runsc's `usage`.

use moat_control::ContainerMetrics;
use moat_control::metrics::MemoryUse;
use serde::Serialize;

/// Bytes of memory by category. runsc's fields come first and add up to the total.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Usage {
    /// Nothing: each byte has its category.
    pub unknown: u64,
    /// The sentry's heap, and all page tables.
    pub system: u64,
    /// Anonymous memory of the container's processes.
    pub anonymous: u64,
    /// Nothing: pages of files of the host that nobody has mapped are the host's.
    pub page_cache: u64,
    /// Mapped files of the host.
    pub mapped: u64,
    /// Files in memory and shared memory.
    pub tmpfs: u64,
    /// Nothing: there is no such file system.
    pub ramdiskfs: u64,
    /// The sum.
    pub total: u64,
    /// What of it is what.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// What `--full` adds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Details {
    /// The sentry's own anonymous memory, small files of tmpfs among it.
    pub sentry_heap: u64,
    /// The sentry's program.
    pub sentry_file: u64,
    /// Page tables of the container's processes, and the sentry's.
    pub page_tables: u64,
    /// Swapped out; not in the total.
    pub swap: u64,
    /// What the cgroup says, if there is one: pages of files that nobody has mapped and memory of the host's kernel are in it, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<u64>,
}

impl Usage {
    /// By what a container's sandbox and cgroup say; what the sandbox uses for all containers is the first one's.
    #[must_use]
    pub fn of(metrics: &ContainerMetrics, cgroup: Option<u64>) -> Self {
        let none = MemoryUse::default();
        let guest = &metrics.memory;
        let sentry = metrics.sandbox.as_ref().map_or(&none, |sandbox| &sandbox.memory);
        // The files of the whole sandbox; those of a later container are told from others' only where they are mapped.
        let tmpfs = metrics.sandbox.as_ref().map_or(guest.shared, |sandbox| sandbox.shared);
        let sum = |values: &[u64]| values.iter().fold(0u64, |sum, value| sum.saturating_add(*value));
        let page_tables = sum(&[guest.page_tables, sentry.page_tables]);
        let mut usage = Usage {
            system: sum(&[sentry.anonymous, page_tables]),
            anonymous: guest.anonymous,
            mapped: sum(&[guest.file, sentry.file]),
            tmpfs,
            details: Some(Details {
                sentry_heap: sentry.anonymous,
                sentry_file: sentry.file,
                page_tables,
                swap: sum(&[guest.swap, sentry.swap]),
                cgroup,
            }),
            ..Usage::default()
        };
        usage.total = sum(&[usage.system, usage.anonymous, usage.mapped, usage.tmpfs]);
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_control::metrics::SandboxMetrics;

    #[test]
    fn each_byte_is_counted_once() {
        let memory = |n| MemoryUse { anonymous: n, file: 2 * n, shared: 3 * n, swap: n, page_tables: 4 * n };
        let sandbox = SandboxMetrics { memory: memory(100), shared: 5, ..SandboxMetrics::default() };
        let first = ContainerMetrics { memory: memory(1), sandbox: Some(sandbox), ..ContainerMetrics::default() };
        let usage = Usage::of(&first, Some(9));
        assert_eq!((usage.system, usage.anonymous, usage.mapped, usage.tmpfs), (504, 1, 202, 5));
        assert_eq!(usage.total, 504 + 1 + 202 + 5);
        let later = Usage::of(&ContainerMetrics { sandbox: None, ..first }, None);
        assert_eq!((later.system, later.tmpfs, later.total), (4, 3, 4 + 1 + 2 + 3));
        let json = serde_json::to_string(&Usage { details: None, ..later }).unwrap();
        let fields =
            r#"{"Unknown":0,"System":4,"Anonymous":1,"PageCache":0,"Mapped":2,"Tmpfs":3,"Ramdiskfs":0,"Total":10}"#;
        assert_eq!(json, fields);
    }
}
