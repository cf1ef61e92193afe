//! The VMA tree against a real process of the ptrace platform: `/proc/PID/maps` must show what the tree says.

use std::sync::Arc;

use moat_abi::Errno;
use moat_abi::mman::{MADV_DONTFORK, MapFlags, ProtFlags};
use moat_host::userfault::Fate;
use moat_mm::{MapBacking, MemoryManager, MmLimits, MmapRequest, MremapRequest, PAGE_SIZE, UserPtr};
use moat_platform::conformance::Rig;
use moat_platform::{Atomic32, GUEST_TOP, GuestThread, Order, execute};
use moat_platform_ptrace::Ptrace;
use proptest::prelude::*;

const RW: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);
const AREA: u64 = 0x4000_0000;

struct Guest {
    mm: MemoryManager,
    thread: Box<dyn GuestThread>,
}

fn rig() -> Rig {
    Rig::new(Arc::new(Ptrace::new().expect("the ptrace platform")))
}

async fn guest(rig: &Rig) -> Guest {
    let new = rig.platform.stock().new_process().await.expect("a blank process");
    let mm = MemoryManager::new(new.space, &rig.platform.vdso(), MmLimits::default(), &Default::default());
    mm.set_mmap_base(AREA + 64 * PAGE_SIZE);
    mm.set_brk_start(AREA + 128 * PAGE_SIZE);
    Guest { mm, thread: new.thread }
}

/// What a read of a page of protection `prot` needs on x86, as the platform tells the host.
fn effective(prot: ProtFlags) -> ProtFlags {
    if prot.is_empty() { prot } else { prot | ProtFlags::READ }
}

type Stretch = (u64, u64, ProtFlags);

fn push(stretches: &mut Vec<Stretch>, (start, end, prot): Stretch) {
    match stretches.last_mut() {
        Some(last) if last.1 == start && last.2 == prot => last.1 = end,
        _ => stretches.push((start, end, prot)),
    }
}

/// The host's view below the stub.
fn host_maps(mm: &MemoryManager) -> Vec<Stretch> {
    let text = std::fs::read_to_string(format!("/proc/{}/maps", mm.space().host_pid())).expect("maps");
    let mut stretches = Vec::new();
    for line in text.lines() {
        let (range, rest) = line.split_once(' ').expect("a maps line");
        let (start, end) = range.split_once('-').expect("a range");
        let number = |s| u64::from_str_radix(s, 16).expect("an address");
        let mut prot = ProtFlags::empty();
        prot.set(ProtFlags::READ, &rest[..1] == "r");
        prot.set(ProtFlags::WRITE, &rest[1..2] == "w");
        prot.set(ProtFlags::EXEC, &rest[2..3] == "x");
        if number(end) <= GUEST_TOP {
            push(&mut stretches, (number(start), number(end), prot));
        }
    }
    stretches
}

impl Guest {
    async fn flush(&mut self) {
        execute(&mut *self.thread, Order::SetName(*b"mm-test\0\0\0\0\0\0\0\0\0")).await.expect("deferred orders");
    }

    async fn check(&mut self) {
        self.flush().await;
        let mut stretches = Vec::new();
        for v in self.mm.vmas_snapshot() {
            push(&mut stretches, (v.start, v.end, effective(v.prot)));
        }
        assert_eq!(stretches, host_maps(&self.mm));
    }

    async fn map(&mut self, addr: u64, len: u64, prot: ProtFlags, flags: MapFlags) -> moat_abi::Result<u64> {
        let flags = flags | MapFlags::ANONYMOUS;
        self.mm.mmap(&mut *self.thread, MmapRequest { addr, len, prot, flags, backing: MapBacking::Anonymous }).await
    }
}

#[derive(Clone, Debug)]
enum Op {
    Map(u64, u64, u32, bool),
    Anywhere(u64),
    Unmap(u64, u64),
    Protect(u64, u64, u32),
    Remap(u64, u64, u64, u32, u64),
    Brk(u64),
    Touch(u64),
}

fn ops() -> impl Strategy<Value = Op> {
    let (at, len, prot) = (0..40u64, 1..9u64, 0..8u32);
    prop_oneof![
        (at.clone(), len.clone(), prot.clone(), any::<bool>()).prop_map(|(a, l, p, s)| Op::Map(a, l, p, s)),
        len.clone().prop_map(Op::Anywhere),
        (at.clone(), len.clone()).prop_map(|(a, l)| Op::Unmap(a, l)),
        (at.clone(), len.clone(), prot).prop_map(|(a, l, p)| Op::Protect(a, l, p)),
        (at.clone(), len.clone(), len, 0..4u32, at.clone()).prop_map(|(a, o, n, f, to)| Op::Remap(a, o, n, f, to)),
        (0..20u64).prop_map(Op::Brk),
        at.prop_map(Op::Touch),
    ]
}

async fn apply(g: &mut Guest, op: Op) {
    let at = |page: u64| AREA + page * PAGE_SIZE;
    let thread = &mut *g.thread;
    // Errors are as good as successes, as long as both sides agree afterwards.
    match op {
        Op::Map(a, l, p, shared) => {
            let kind = if shared { MapFlags::SHARED } else { MapFlags::PRIVATE };
            let _ = g.map(at(a), l * PAGE_SIZE, ProtFlags::from_bits_truncate(p), kind | MapFlags::FIXED).await;
        }
        Op::Anywhere(l) => {
            let _ = g.map(0, l * PAGE_SIZE, RW, MapFlags::PRIVATE).await;
        }
        Op::Unmap(a, l) => {
            let _ = g.mm.munmap(thread, at(a), l * PAGE_SIZE).await;
        }
        Op::Protect(a, l, p) => {
            let _ = g.mm.mprotect(thread, at(a), l * PAGE_SIZE, ProtFlags::from_bits_truncate(p)).await;
        }
        Op::Remap(a, o, n, flags, to) => {
            let request =
                MremapRequest { addr: at(a), old_len: o * PAGE_SIZE, new_len: n * PAGE_SIZE, flags, new_addr: at(to) };
            let _ = g.mm.mremap(thread, request).await;
        }
        Op::Brk(pages) => drop(g.mm.brk(thread, at(128 + pages)).await),
        // Pages that exist keep the host from joining areas as it likes.
        Op::Touch(page) => drop(g.mm.write_partial(at(page).into(), &[1])),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_host_s_maps_are_the_tree(ops in proptest::collection::vec(ops(), 1..40), many in any::<bool>()) {
        let rig = rig();
        rig.run(async {
            let mut g = guest(&rig).await;
            g.check().await;
            if many {
                g.mm.add_user();
            }
            for op in ops {
                apply(&mut g, op).await;
                g.check().await;
            }
        });
    }
}

#[test]
fn a_forked_space_is_a_copy_without_dontfork_areas() {
    let rig = rig();
    rig.run(async {
        let mut g = guest(&rig).await;
        let private = g.map(AREA, PAGE_SIZE, RW, MapFlags::PRIVATE | MapFlags::FIXED).await.expect("mmap");
        let shared = g.map(0, PAGE_SIZE, RW, MapFlags::SHARED).await.expect("mmap");
        let gone = g.map(AREA + 4 * PAGE_SIZE, PAGE_SIZE, RW, MapFlags::PRIVATE | MapFlags::FIXED).await.expect("mmap");
        g.mm.madvise(&mut *g.thread, gone, PAGE_SIZE, MADV_DONTFORK).await.expect("madvise");
        g.flush().await;
        let word = |addr: u64| UserPtr::<u32>::new(addr.into());
        g.mm.write(word(private), &1).expect("write");
        let (child, thread) = g.mm.fork(&mut *g.thread).await.expect("fork");
        g.mm.write(word(private), &2).expect("write");
        g.mm.write(word(shared), &3).expect("write");
        assert_eq!((child.read(word(private)), child.read(word(shared))), (Ok(1), Ok(3)));
        let Ok(mm) = Arc::try_unwrap(child) else { panic!("the child has one owner") };
        Guest { mm, thread }.check().await;
    });
}

#[test]
fn what_sentry_and_guest_write_is_seen() {
    let rig = rig();
    rig.run(async {
        let mut g = guest(&rig).await;
        let start = g.map(AREA, 8 * PAGE_SIZE, RW, MapFlags::PRIVATE | MapFlags::FIXED).await.expect("mmap");
        g.flush().await;
        let word = |page: u64| UserPtr::<u32>::new((start + page * PAGE_SIZE).into());
        for page in 0..6 {
            g.mm.write(word(page), &1).expect("write");
        }
        let watch = match g.mm.watch_writes(&mut *g.thread).await {
            Err(errno @ (Errno::ENOSYS | Errno::EPERM | Errno::EINVAL)) => return eprintln!("skipped: {errno}"),
            watch => watch.expect("a watch"),
        };
        watch.register(start, start + 8 * PAGE_SIZE).expect("register");
        watch.protect(start, start + 6 * PAGE_SIZE).expect("protect");
        g.mm.write(word(1), &2).expect("write");
        let add = Order::Atomic32 { addr: start + 3 * PAGE_SIZE, op: Atomic32::Add(1) };
        execute(&mut *g.thread, add).await.expect("an atomic operation");
        // Somewhere else, and there again: the watch knows neither.
        let anew = MapFlags::PRIVATE | MapFlags::FIXED;
        g.map(start + 5 * PAGE_SIZE, PAGE_SIZE, RW, anew).await.expect("mmap");
        g.flush().await;
        g.mm.write(word(5), &1).expect("write");
        let mut told = Vec::new();
        let tell = |from: u64, to: u64, fate| told.push(((from - start) / PAGE_SIZE, (to - start) / PAGE_SIZE, fate));
        watch.scan(start, start + 8 * PAGE_SIZE, tell).expect("a scan");
        let want = [(1, 2, Fate::Written), (3, 4, Fate::Written), (5, 6, Fate::Written), (6, 8, Fate::Absent)];
        assert_eq!(told, want);
    });
}
