//! Processes of two stocks have no memory in common: neither areas nor the way to them.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use moat_platform::Platform;
use moat_platform::conformance::{Guest, Rig, fork, spawn};
use moat_platform_systrap::Systrap;

/// `1: syscall; jmp 1b`
const CALLS: &[u8] = &[0x0f, 0x05, 0xeb, 0xfc];

/// Inode numbers of what a process has mapped writable and shared, and of what it has open.
fn shared_memory(pid: i32) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
    let mapped = maps.lines().filter(|line| line.contains(" rw-s "));
    let mapped = mapped.map(|line| line.split_whitespace().nth(4).expect("an inode").parse().expect("a number"));
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    let open = open.map(|entry| std::fs::metadata(entry.expect("a descriptor").path()).expect("a file").ino());
    (mapped.collect(), open.collect())
}

/// Those of a process with threads and of its child.
async fn family(mut guest: Guest) -> BTreeSet<u64> {
    let mut side = spawn(&mut guest).await;
    let mut child = fork(&mut side).await;
    let grandchild = fork(&mut child).await;
    let mut all = BTreeSet::new();
    for process in [&guest, &side, &child, &grandchild] {
        let (mapped, open) = shared_memory(process.space.host_pid());
        assert_eq!(open.len(), 1, "one descriptor");
        all.extend(mapped.iter().chain(&open));
    }
    all
}

#[test]
fn two_stocks_share_no_areas() {
    let platform: Arc<dyn Platform> = Arc::new(Systrap::new().expect("systrap starts"));
    let rig = Rig::new(platform.clone());
    rig.run(async {
        let mut seen = vec![family(rig.guest(CALLS).await).await];
        for _ in 0..2 {
            let stock = platform.new_stock().await.expect("a stock");
            let guest = rig.guest_of(&*stock, CALLS).await;
            seen.push(family(guest).await);
        }
        assert!(seen.iter().all(|inodes| inodes.len() == 1), "{seen:?}");
        let distinct: BTreeSet<_> = seen.iter().flatten().collect();
        assert_eq!(distinct.len(), seen.len(), "{seen:?}");
    });
}
