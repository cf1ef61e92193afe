//! System calls of the table with any arguments, one after the other: what remains of them meets the next.

use moat_abi::fs::OpenFlags;
use moat_abi::nr;

use crate::input::{Input, pick};
use crate::world::{AREA, AREA_LEN, World, address};

/// Calls that need a host process, or end this one: memory of the guest's is this process's here, and children are never run.
const LEFT_OUT: [&str; 26] = [
    "mmap",
    "mremap",
    "brk",
    "munmap",
    "mprotect",
    "madvise",
    "mlock",
    "mlock2",
    "mlockall",
    "munlock",
    "munlockall",
    "shmat",
    "shmdt",
    "remap_file_pages",
    "pkey_mprotect",
    "execve",
    "execveat",
    "fork",
    "vfork",
    "clone",
    "clone3",
    "exit",
    "exit_group",
    "rt_sigreturn",
    "io_setup",
    "sched_setaffinity",
];

/// Numbers of the calls that are made.
fn numbers() -> Vec<u32> {
    let all = moat_syscalls::table::declarations();
    all.into_iter().filter(|d| !LEFT_OUT.contains(&d.name)).map(|d| d.nr).collect()
}

/// One byte says what an argument is.
fn argument(input: &mut Input<'_>) -> u64 {
    let what = input.byte().unwrap_or_default();
    let n = u64::from(what >> 4);
    match what & 15 {
        // A descriptor, or a small number.
        0..=4 => n,
        // Memory: paths at its beginning, structures, its end.
        5..=8 => AREA.saturating_add(n.wrapping_mul(0x400)),
        9 => address(AREA_LEN).saturating_sub(n),
        10 => 1u64.wrapping_shl(n.wrapping_mul(4).try_into().unwrap_or_default()),
        11 => u64::MAX.wrapping_sub(n),
        12 => u64::from(u32::MAX).wrapping_sub(n),
        13 => 1u64 << 63 | n,
        14 => u64::from(input.short()),
        _ => input.take(8).first_chunk().map_or(0, |b| u64::from_le_bytes(*b)),
    }
}

/// One byte fills memory or picks a call, others its arguments.
pub fn calls(data: &[u8]) {
    let (mut input, mut world) = (Input(data), World::new());
    let numbers = numbers();
    for (n, name) in ["/", "/proc", "/file", ".", "/proc/self/fd/4", "/dev/ptmx", "/dir/a"].iter().enumerate() {
        world.path(n.wrapping_mul(0x400), name);
    }
    world.open("/", OpenFlags::DIRECTORY);
    world.open("/file", OpenFlags::CREAT | OpenFlags::RDWR);
    while let Some(what) = input.byte() {
        if what < 32 {
            let n = usize::from(input.byte().unwrap_or_default());
            let at = usize::from(what).wrapping_mul(0x400);
            world.put(at, input.take(n));
            continue;
        }
        let which = pick(input.short(), numbers.len());
        let Some(&number) = numbers.get(which) else { return };
        let args = std::array::from_fn(|_| argument(&mut input));
        let _ = world.call(number, args);
        // A pile of open files says nothing new.
        let _ = world.call(nr::CLOSE_RANGE, [24, u64::from(u32::MAX), 0, 0, 0, 0]);
    }
}
