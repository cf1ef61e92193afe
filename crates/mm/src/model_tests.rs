//! Operations of [`MemoryManager`] on the fake platform: the tree and the "host" must agree after each.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::mman::{MADV_DONTFORK, MADV_DONTNEED, MREMAP_FIXED, MREMAP_MAYMOVE, MapFlags, ProtFlags};
use moat_abi::{Errno, Result};
use moat_platform::{Fault, GUEST_TOP, MapSource};
use proptest::prelude::*;

use crate::copy::effective_prot;
use crate::fake::{FakeSpace, FakeThread, new_process, run};
use crate::mappable::{FileIdentity, MapFile, MapName, Sharing};
use crate::{
    FaultAction, FileAccess, FutexKey, FutexScope, MapBacking, Mappable, MemoryManager, MmLimits, MmapRequest,
    MremapRequest, PAGE_SIZE, UserAddr, UserPtr, page_up,
};

const RW: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);
const AREA: u64 = 0x4000_0000;

struct Guest {
    space: Arc<FakeSpace>,
    mm: MemoryManager,
    thread: FakeThread,
}

impl Guest {
    fn new() -> Guest {
        let (space, mm, thread) = new_process();
        mm.set_mmap_base(0x7f00_0000_0000);
        Guest { space, mm, thread }
    }

    fn map(&mut self, addr: u64, len: u64, prot: ProtFlags, flags: MapFlags) -> Result<u64> {
        let r = MmapRequest { addr, len, prot, flags: flags | MapFlags::ANONYMOUS, backing: MapBacking::Anonymous };
        run(self.mm.mmap(&mut self.thread, r))
    }

    fn private(&mut self, addr: u64, pages: u64) -> u64 {
        self.map(addr, pages * PAGE_SIZE, RW, MapFlags::PRIVATE | MapFlags::FIXED).expect("mmap")
    }

    fn unmap(&mut self, addr: u64, len: u64) -> Result<()> {
        run(self.mm.munmap(&mut self.thread, addr, len))
    }

    fn protect(&mut self, addr: u64, len: u64, prot: ProtFlags) -> Result<()> {
        run(self.mm.mprotect(&mut self.thread, addr, len, prot))
    }

    fn remap(&mut self, addr: u64, old_len: u64, new_len: u64, flags: u32, new_addr: u64) -> Result<u64> {
        run(self.mm.mremap(&mut self.thread, MremapRequest { addr, old_len, new_len, flags, new_addr }))
    }

    /// The tree's stretches of equal protection, as the host has them; the vDSO is not the fake host's.
    fn check(&mut self) {
        self.thread.flush().expect("orders");
        let mut stretches: Vec<(u64, u64, u32)> = Vec::new();
        for v in self.mm.vmas_snapshot().iter().filter(|v| !v.name.starts_with(b"[v")) {
            let prot = effective_prot(v.prot).bits();
            match stretches.last_mut() {
                Some(last) if last.1 == v.start && last.2 == prot => last.1 = v.end,
                _ => stretches.push((v.start, v.end, prot)),
            }
        }
        assert_eq!(stretches, self.space.mapped());
    }
}

/// A memfd as a file.
struct File(Arc<OwnedFd>);

impl File {
    fn new(contents: &[u8]) -> Arc<File> {
        let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
        rustix::io::pwrite(&fd, contents, 0).expect("pwrite");
        Arc::new(File(Arc::new(fd)))
    }
}

impl Mappable for File {
    fn map_source(&self, what: &MapFile) -> Result<MapSource> {
        Ok(MapSource::File { fd: self.0.clone(), offset: what.offset, shared: what.sharing == Sharing::Shared })
    }
    fn identity(&self) -> FileIdentity {
        FileIdentity { dev: 9, ino: 7 }
    }
    fn describe(&self) -> MapName {
        MapName { identity: self.identity(), path: b"/file".to_vec() }
    }
}

fn file_request(file: &Arc<File>, prot: ProtFlags, flags: MapFlags, access: FileAccess) -> MmapRequest {
    let backing = MapBacking::File { object: file.clone(), offset: 0, access };
    MmapRequest { addr: 0, len: PAGE_SIZE, prot, flags, backing }
}

#[test]
fn mmap_refuses_what_linux_refuses() {
    let mut g = Guest::new();
    let private = MapFlags::PRIVATE;
    assert_eq!(g.map(0, 0, RW, private), Err(Errno::EINVAL));
    assert_eq!(g.map(0, PAGE_SIZE, RW, MapFlags::empty()), Err(Errno::EINVAL));
    assert_eq!(g.map(0, u64::MAX - 4000, RW, private), Err(Errno::ENOMEM));
    assert_eq!(g.map(AREA + 1, PAGE_SIZE, RW, private | MapFlags::FIXED), Err(Errno::EINVAL));
    assert_eq!(g.map(GUEST_TOP - PAGE_SIZE, 2 * PAGE_SIZE, RW, private | MapFlags::FIXED), Err(Errno::ENOMEM));
    assert_eq!(g.map(0, PAGE_SIZE, RW, private | MapFlags::FIXED), Err(Errno::EPERM));
    g.private(AREA, 2);
    assert_eq!(g.map(AREA, PAGE_SIZE, RW, private | MapFlags::FIXED_NOREPLACE), Err(Errno::EEXIST));
    assert_eq!(g.map(0, PAGE_SIZE, RW, private | MapFlags::HUGETLB), Err(Errno::ENOMEM));
    let file = File::new(b"x");
    let shared = |prot, access| file_request(&file, prot, MapFlags::SHARED, access);
    let map = |g: &mut Guest, r| run(g.mm.mmap(&mut g.thread, r));
    assert_eq!(map(&mut g, shared(RW, FileAccess::READ)), Err(Errno::EACCES));
    assert_eq!(map(&mut g, shared(ProtFlags::READ, FileAccess::WRITE)), Err(Errno::EACCES));
    assert_eq!(map(&mut g, shared(ProtFlags::EXEC, FileAccess::READ)), Err(Errno::EPERM));
    let at = map(&mut g, shared(ProtFlags::READ, FileAccess::READ)).expect("mmap");
    assert_eq!(g.protect(at, PAGE_SIZE, RW), Err(Errno::EACCES));
    assert_eq!(g.protect(at, PAGE_SIZE, ProtFlags::empty()), Ok(()));
    g.check();
}

#[test]
fn limits_are_kept() {
    let mut g = Guest::new();
    let used = g.mm.usage().size;
    let limits = MmLimits {
        address_space: used + 8 * PAGE_SIZE,
        data: 4 * PAGE_SIZE,
        memlock: 2 * PAGE_SIZE,
        ..MmLimits::default()
    };
    g.mm.set_limits(limits);
    let pages = |n: u64| n * PAGE_SIZE;
    assert_eq!(g.map(0, pages(5), RW, MapFlags::PRIVATE), Err(Errno::ENOMEM));
    assert!(g.map(AREA, pages(4), RW, MapFlags::PRIVATE).is_ok());
    assert_eq!(g.map(0, pages(5), ProtFlags::READ, MapFlags::PRIVATE), Err(Errno::ENOMEM));
    assert!(g.map(AREA + pages(8), pages(4), ProtFlags::READ, MapFlags::PRIVATE).is_ok());
    // Replacing needs no room; becoming writable is data.
    assert!(g.map(AREA, pages(4), RW, MapFlags::PRIVATE | MapFlags::FIXED).is_ok());
    assert_eq!(g.protect(AREA + pages(8), pages(4), RW), Err(Errno::ENOMEM));
    assert_eq!(run(g.mm.mlock(&mut g.thread, AREA, pages(3), 0)), Err(Errno::ENOMEM));
    assert_eq!(run(g.mm.mlock(&mut g.thread, AREA, pages(2), 0)), Ok(()));
    assert_eq!(run(g.mm.mlock(&mut g.thread, AREA, pages(2), 0)), Ok(()));
    assert_eq!(run(g.mm.madvise(&mut g.thread, AREA, pages(1), MADV_DONTNEED)), Err(Errno::EINVAL));
    assert_eq!(run(g.mm.munlock(&mut g.thread, AREA, pages(5))), Err(Errno::ENOMEM));
    assert_eq!(g.mm.usage().locked, 0);
    g.check();
}

#[test]
fn brk_grows_shrinks_and_stops_at_a_neighbour() {
    let mut g = Guest::new();
    g.mm.set_brk_start(AREA + 100);
    let brk = |g: &mut Guest, to| run(g.mm.brk(&mut g.thread, to));
    assert_eq!(brk(&mut g, 0), AREA + 100);
    assert_eq!(brk(&mut g, AREA + 200), AREA + 200);
    assert_eq!(brk(&mut g, AREA + 3 * PAGE_SIZE), AREA + 3 * PAGE_SIZE);
    g.check();
    assert_eq!(g.mm.vmas_snapshot()[0].name, b"[heap]");
    g.private(AREA + 6 * PAGE_SIZE, 1);
    assert_eq!(brk(&mut g, AREA + 6 * PAGE_SIZE), AREA + 3 * PAGE_SIZE);
    assert_eq!(brk(&mut g, AREA + 5 * PAGE_SIZE), AREA + 5 * PAGE_SIZE);
    assert_eq!(brk(&mut g, AREA + PAGE_SIZE + 1), AREA + PAGE_SIZE + 1);
    assert_eq!(brk(&mut g, AREA), AREA + PAGE_SIZE + 1);
    g.check();
}

#[test]
fn mremap_grows_in_place_moves_and_duplicates() {
    let mut g = Guest::new();
    g.private(AREA, 2);
    g.mm.set_limits(MmLimits::default());
    g.thread.flush().expect("orders");
    g.mm.write(UserPtr::<u64>::new(AREA.into()), &7).expect("write");
    assert_eq!(g.remap(AREA, 2 * PAGE_SIZE, 4 * PAGE_SIZE, 0, 0), Ok(AREA));
    g.private(AREA + 4 * PAGE_SIZE, 1);
    g.protect(AREA + 4 * PAGE_SIZE, PAGE_SIZE, ProtFlags::READ).expect("mprotect");
    assert_eq!(g.remap(AREA, 4 * PAGE_SIZE, 5 * PAGE_SIZE, 0, 0), Err(Errno::ENOMEM));
    let moved = g.remap(AREA, 4 * PAGE_SIZE, 5 * PAGE_SIZE, MREMAP_MAYMOVE, 0).expect("mremap");
    g.check();
    assert_eq!(g.mm.read(UserPtr::<u64>::new(moved.into())), Ok(7));
    assert_eq!(g.mm.read(UserPtr::<u64>::new(AREA.into())), Err(Errno::EFAULT));
    let fixed = AREA + 0x10_0000;
    assert_eq!(g.remap(moved, 5 * PAGE_SIZE, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, fixed), Ok(fixed));
    assert_eq!(g.mm.read(UserPtr::<u64>::new(fixed.into())), Ok(7));
    assert_eq!(g.remap(fixed, 0, PAGE_SIZE, MREMAP_MAYMOVE, 0), Err(Errno::EINVAL));
    assert_eq!(g.remap(fixed, 2 * PAGE_SIZE, 3 * PAGE_SIZE, MREMAP_MAYMOVE, 0), Err(Errno::EFAULT));
    let shared = g.map(0, PAGE_SIZE, RW, MapFlags::SHARED).expect("mmap");
    let twin = g.remap(shared, 0, PAGE_SIZE, MREMAP_MAYMOVE, 0).expect("mremap");
    g.mm.write(UserPtr::<u32>::new(shared.into()), &9).expect("write");
    assert_eq!(g.mm.read(UserPtr::<u32>::new(twin.into())), Ok(9));
    g.check();
}

#[test]
fn fork_copies_what_is_private_and_shares_what_is_shared() {
    let mut g = Guest::new();
    g.private(AREA, 1);
    let gone = g.private(AREA + 2 * PAGE_SIZE, 1);
    run(g.mm.madvise(&mut g.thread, gone, PAGE_SIZE, MADV_DONTFORK)).expect("madvise");
    let shared = g.map(0, PAGE_SIZE, RW, MapFlags::SHARED).expect("mmap");
    let (child, _thread) = run(g.mm.fork(&mut g.thread)).expect("fork");
    assert_ne!(child.id(), g.mm.id());
    let word = |addr: u64| UserPtr::<u32>::new(addr.into());
    g.mm.write(word(AREA), &1).expect("write");
    g.mm.write(word(shared), &2).expect("write");
    assert_eq!((child.read(word(AREA)), child.read(word(shared))), (Ok(0), Ok(2)));
    assert_eq!(child.read(word(gone)), Err(Errno::EFAULT));
    assert!(child.is_free(gone, PAGE_SIZE));
    let key = |mm: &MemoryManager, addr: u64| mm.futex_key(UserAddr::new(addr), FutexScope::Shared).expect("a key");
    assert_eq!(key(&g.mm, shared), key(&child, shared));
    assert!(matches!(key(&g.mm, shared), FutexKey::Shared { offset: 0, .. }));
    assert_ne!(key(&g.mm, AREA), key(&child, AREA));
    assert_ne!(g.mm.futex_key(UserAddr::new(AREA), FutexScope::Private).expect("a key"), key(&g.mm, AREA));
}

#[test]
fn a_stack_grows_to_its_limit_and_no_further() {
    let mut g = Guest::new();
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::GROWSDOWN;
    let top = AREA + 0x100_0000;
    g.map(top - PAGE_SIZE, PAGE_SIZE, RW, flags).expect("mmap");
    g.mm.set_limits(MmLimits { stack: 1 << 20, ..MmLimits::default() });
    let fault = |addr| Fault { signal: 11, code: 1, addr, trapno: 14, err: 6 };
    let handle = |g: &mut Guest, addr| run(g.mm.handle_fault(&mut g.thread, &fault(addr)));
    assert_eq!(handle(&mut g, top - 5 * PAGE_SIZE), FaultAction::Retry);
    assert_eq!(handle(&mut g, top - (1 << 20)), FaultAction::Retry);
    let segv = |code, addr| FaultAction::Signal { signal: 11, code, addr };
    assert_eq!(handle(&mut g, top - (1 << 20) - 1), segv(1, top - (1 << 20) - 1));
    assert_eq!(handle(&mut g, top - 1), segv(2, top - 1), "mapped, so the protection was in the way");
    assert_eq!(handle(&mut g, GUEST_TOP + 8), segv(1, GUEST_TOP + 8));
    g.check();
}

#[test]
fn copies_stop_at_the_first_bad_byte() {
    let mut g = Guest::new();
    g.private(AREA, 2);
    g.protect(AREA + PAGE_SIZE, PAGE_SIZE, ProtFlags::READ).expect("mprotect");
    g.thread.flush().expect("orders");
    let near_end = UserAddr::new(AREA + PAGE_SIZE - 3);
    assert_eq!(g.mm.write_partial(near_end, b"abcdef"), Ok(3));
    assert_eq!(g.mm.write_bytes(near_end, b"abcdef"), Err(Errno::EFAULT));
    assert_eq!((g.mm.writable_prefix(near_end, 6), g.mm.readable_prefix(near_end, 6)), (3, 6));
    assert_eq!(g.mm.read_cstr(near_end, 100), Ok(b"abc".to_vec()));
    assert_eq!(g.mm.read_cstr(near_end, 3), Err(Errno::ENAMETOOLONG));
    assert_eq!(g.mm.read_cstr(UserAddr::new(AREA + 3 * PAGE_SIZE), 3), Err(Errno::EFAULT));
    let mut strings = crate::copy::StringReader::<16>::new(&g.mm);
    let spread = UserAddr::new(AREA + 10);
    assert_eq!(g.mm.write_partial(spread, b"one\0two and more\0"), Ok(17));
    assert_eq!(strings.read(spread, 100), Ok(b"one".to_vec()));
    assert_eq!(strings.read(UserAddr::new(AREA + 14), 100), Ok(b"two and more".to_vec()));
    assert_eq!(strings.read(UserAddr::new(AREA + 14), 12), Err(Errno::ENAMETOOLONG));
    assert_eq!(strings.read(UserAddr::new(AREA + 3 * PAGE_SIZE), 3), Err(Errno::EFAULT));
    assert_eq!(strings.read(spread, 100), Ok(b"one".to_vec()));
    let over_top = UserAddr::new(GUEST_TOP - 1);
    assert_eq!(g.mm.read_partial(over_top, &mut [0; 2]), Err(Errno::EFAULT));
    assert_eq!(g.mm.read_array::<u64>(UserAddr::new(AREA), 2000, 1024), Err(Errno::EINVAL));
    assert_eq!(g.mm.read_bytes(UserAddr::new(1), &mut []), Ok(()));
}

#[test]
fn a_refused_order_leaves_the_tree_as_the_host_is() {
    let mut g = Guest::new();
    g.private(AREA, 4);
    g.thread.flush().expect("orders");
    g.mm.add_user();
    g.space.fail_orders(Some(Errno::ENOMEM));
    assert_eq!(g.unmap(AREA, PAGE_SIZE), Err(Errno::ENOMEM));
    assert_eq!(g.protect(AREA, PAGE_SIZE, ProtFlags::READ), Err(Errno::ENOMEM));
    assert_eq!(g.remap(AREA, PAGE_SIZE, 8 * PAGE_SIZE, MREMAP_MAYMOVE, 0), Err(Errno::ENOMEM));
    g.space.fail_orders(None);
    g.check();
    assert_eq!(g.mm.vmas_snapshot().len(), 3);
}

#[test]
fn one_user_defers_and_many_users_do_not() {
    let mut g = Guest::new();
    g.private(AREA, 4);
    g.unmap(AREA, PAGE_SIZE).expect("munmap");
    assert_eq!(g.space.orders(), 0);
    g.thread.flush().expect("orders");
    assert_eq!(g.space.orders(), 2);
    g.mm.add_user();
    g.unmap(AREA + PAGE_SIZE, PAGE_SIZE).expect("munmap");
    assert_eq!(g.space.orders(), 3);
    g.check();
}

#[derive(Clone, Debug)]
enum Op {
    Map(u64, u64, u32),
    Anywhere(u64),
    Unmap(u64, u64),
    Protect(u64, u64, u32),
    Remap(u64, u64, u64, u32, u64),
    Brk(u64),
}

fn ops() -> impl Strategy<Value = Op> {
    let (at, len, prot) = (0..40u64, 1..9u64, 0..8u32);
    prop_oneof![
        (at.clone(), len.clone(), prot.clone()).prop_map(|(a, l, p)| Op::Map(a, l, p)),
        len.clone().prop_map(Op::Anywhere),
        (at.clone(), len.clone()).prop_map(|(a, l)| Op::Unmap(a, l)),
        (at.clone(), len.clone(), prot).prop_map(|(a, l, p)| Op::Protect(a, l, p)),
        (at.clone(), len.clone(), len, 0..4u32, at).prop_map(|(a, o, n, f, to)| Op::Remap(a, o, n, f, to)),
        (0..20u64).prop_map(Op::Brk),
    ]
}

proptest! {
    #[test]
    fn the_host_has_what_the_tree_says(ops in proptest::collection::vec(ops(), 1..40), many in any::<bool>()) {
        let mut g = Guest::new();
        g.mm.set_mmap_base(AREA + 64 * PAGE_SIZE);
        g.mm.set_brk_start(AREA + 128 * PAGE_SIZE);
        if many {
            g.mm.add_user();
        }
        let at = |page: u64| AREA + page * PAGE_SIZE;
        for op in ops {
            // Errors are as good as successes here, as long as both sides agree afterwards.
            match op {
                Op::Map(a, l, p) => {
                    let _ = g.map(at(a), l * PAGE_SIZE, ProtFlags::from_bits_truncate(p), MapFlags::PRIVATE | MapFlags::FIXED);
                }
                Op::Anywhere(l) => {
                    let _ = g.map(0, l * PAGE_SIZE, RW, MapFlags::PRIVATE);
                }
                Op::Unmap(a, l) => drop(g.unmap(at(a), l * PAGE_SIZE)),
                Op::Protect(a, l, p) => drop(g.protect(at(a), l * PAGE_SIZE, ProtFlags::from_bits_truncate(p))),
                Op::Remap(a, o, n, f, to) => drop(g.remap(at(a), o * PAGE_SIZE, n * PAGE_SIZE, f, at(to))),
                Op::Brk(pages) => {
                    let to = page_up(at(128 + pages)).expect("a small number");
                    run(g.mm.brk(&mut g.thread, to));
                }
            }
            g.check();
        }
    }
}
