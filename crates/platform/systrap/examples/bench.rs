//! Costs of the platform's operations against the host's own, in one run: `cargo run --release --example bench`.
//!
//! Each row is the minimum and the median of nine repetitions, in nanoseconds an operation. The sentry does no
//! work of its own; it runs on the real executor, with as many further workers as the first argument says. The second
//! argument, if there is one, picks rows.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moat_platform::conformance::{CODE, DATA, Guest, RW, Rig, both, fork, spawn, syscall_of};
use moat_platform::{MapSource, Order, Platform, PlatformEvents};
use moat_platform_systrap::Systrap;
use moat_sync::executor;

/// `syscall; jmp back`, for calls whose result is the next number; then a fork loop at 0x40:
/// `1: mov eax,57; syscall; test eax,eax; jz 2f; mov eax,61; syscall; jmp 1b; 2: mov eax,60; syscall`
fn code() -> Vec<u8> {
    let mut code = vec![0x0f, 0x05, 0xeb, 0xfc];
    code.resize(0x40, 0xcc);
    code.extend([0xb8, 57, 0, 0, 0, 0x0f, 0x05, 0x85, 0xc0, 0x74, 9, 0xb8, 61, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xec]);
    code.extend([0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    code
}

const REPETITIONS: usize = 9;

fn report(name: &str, mut ns: Vec<u64>) {
    ns.sort_unstable();
    println!("{name:<44} {:>9} {:>9}", ns[0], ns[ns.len() / 2]);
}

fn native(name: &str, count: u32, mut f: impl FnMut()) {
    if is_left_out(name) {
        return;
    }
    let mut results = Vec::new();
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        (0..count).for_each(|_| f());
        results.push(per_op(start.elapsed(), count));
    }
    report(name, results);
}

/// Whether the second argument leaves a row out.
fn is_left_out(name: &str) -> bool {
    std::env::args().nth(2).is_some_and(|only| !name.contains(&only))
}

async fn guest_op(name: &str, count: u32, guest: &mut Guest, mut f: impl AsyncFnMut(&mut Guest)) {
    if is_left_out(name) {
        return;
    }
    let mut results = Vec::new();
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        for _ in 0..count {
            f(guest).await;
        }
        results.push(per_op(start.elapsed(), count));
    }
    report(name, results);
}

fn per_op(time: Duration, count: u32) -> u64 {
    u64::try_from(time.as_nanos() / u128::from(count)).unwrap_or(u64::MAX)
}

/// The compiler cannot see that futures with asynchronous closures are Send.
struct AssertSend<F>(std::pin::Pin<Box<F>>);

// SAFETY: everything that the rows hold over an await is Send: guests, descriptors, plain data.
unsafe impl<F> Send for AssertSend<F> {}

impl<F: Future> Future for AssertSend<F> {
    type Output = F::Output;
    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<F::Output> {
        self.0.as_mut().poll(cx)
    }
}

fn run(workers: usize, future: impl Future<Output = ()> + 'static) {
    let future = AssertSend(Box::pin(future));
    executor::spawn(async move {
        future.await;
        executor::stop();
    });
    executor::run(workers);
}

fn native_rows() {
    native("native getppid", 100_000, || {
        // SAFETY: takes no arguments.
        unsafe { libc::syscall(libc::SYS_getppid) };
    });
    native("native fork + exit + wait", 200, || {
        // SAFETY: the child exits at once.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::_exit(0);
            }
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
    });
    native("native thread + join", 500, || drop(std::thread::spawn(|| ()).join()));
    native("native mmap + munmap", 20_000, || {
        // SAFETY: a fresh mapping, unmapped at once.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let p = libc::mmap(std::ptr::null_mut(), 0x4000, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            libc::munmap(p, 0x4000);
        }
    });
}

async fn guest_rows(platform: Arc<Systrap>) {
    let rig = Rig::new(platform.clone());
    let mut guest = rig.guest(&code()).await;
    guest.thread.set_ret(110);
    guest_op("getppid", 20_000, &mut guest, async |g| {
        assert_eq!(syscall_of(&g.go().await).0, 110);
        g.thread.set_ret(110);
    })
    .await;
    // `mov eax, 110; syscall; jmp` back, rewritten before the first call.
    let mut fast = rig.guest(&[0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]).await;
    fast.space.rewrite(CODE + 7);
    guest_op("getppid from a rewritten site", 20_000, &mut fast, async |g| {
        assert_eq!(syscall_of(&g.go().await).0, 110);
        g.thread.set_ret(1);
    })
    .await;
    drop(fast);
    let map = || Order::Mmap {
        addr: 0x4000_0000,
        len: 0x4000,
        prot: RW,
        source: MapSource::AnonPrivate { noreserve: false },
    };
    let unmap = || Order::Munmap { addr: 0x4000_0000, len: 0x4000 };
    guest_op("mmap + munmap, two calls, deferred", 5_000, &mut guest, async |g| {
        g.thread.defer(map());
        let _ = g.go().await;
        g.thread.set_ret(110);
        g.thread.defer(unmap());
        let _ = g.go().await;
        g.thread.set_ret(110);
    })
    .await;
    guest_op("mmap + munmap, two calls, awaited", 5_000, &mut guest, async |g| {
        for order in [map(), unmap()] {
            g.order(order).await;
            let _ = g.go().await;
            g.thread.set_ret(110);
        }
    })
    .await;
    let file = {
        let fd = rustix::fs::memfd_create("bench", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
        rustix::fs::ftruncate(&fd, 0x4000).expect("ftruncate");
        Arc::new(fd)
    };
    guest_op("file mmap, one call, deferred", 5_000, &mut guest, async |g| {
        let source = MapSource::File { fd: file.clone(), offset: 0, shared: false };
        g.thread.defer(Order::Mmap { addr: 0x4000_0000, len: 0x4000, prot: 5, source });
        let _ = g.go().await;
        g.thread.set_ret(110);
    })
    .await;
    let mut word = [0; 64];
    guest_op("read of 64 bytes", 20_000, &mut guest, async |g| {
        g.space.read(DATA, &mut word).expect("read");
    })
    .await;
    guest_op("kick + interrupted", 2_000, &mut guest, async |g| {
        g.thread.kicker().kick();
        let _ = g.go().await;
    })
    .await;
    guest_op("thread + exit", 500, &mut guest, async |g| {
        let mut side = spawn(g).await;
        side.thread.set_ret(60);
        let _ = side.go().await;
    })
    .await;
    guest_op("call + fork, child not run", 300, &mut guest, async |g| {
        let _ = g.go().await;
        let child = fork(g).await;
        g.thread.set_ret(110);
        drop(child);
    })
    .await;
    let mut parent = rig.guest(&code()).await;
    let mut regs = parent.thread.regs();
    regs.rip = CODE + 0x40;
    parent.thread.set_regs(&regs);
    guest_op("fork + exit + wait, three calls", 300, &mut parent, async |g| {
        assert_eq!(syscall_of(&g.go().await).0, 57);
        let mut child = fork(g).await;
        child.thread.set_ret(0);
        g.thread.set_ret(1234);
        let child_runs = async move {
            assert_eq!(syscall_of(&child.go().await).0, 60);
        };
        let parent_waits = async {
            assert_eq!(syscall_of(&g.go().await).0, 61);
        };
        both(parent_waits, child_runs).await;
        g.thread.set_ret(1234);
    })
    .await;
    let mut blanks = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        let new = platform.stock().new_process().await.expect("a blank process");
        blanks.push(per_op(start.elapsed(), 1));
        drop(new);
    }
    report("blank process, one after the other", blanks);
}

fn main() {
    let workers = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    let platform = Arc::new(Systrap::new().expect("systrap starts"));
    println!("{:<44} {:>9} {:>9}   (ns)", "", "min", "median");
    native_rows();
    executor::init().expect("executor");
    executor::set_source(Box::new(PlatformEvents(platform.clone()))).expect("source");
    run(workers, guest_rows(platform));
}
