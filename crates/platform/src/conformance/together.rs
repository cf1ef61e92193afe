//! Many guests at once, and the vDSO at work.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use super::{CODE, DATA, Guest, Rig, fork, spawn, syscall_of};
use crate::Event;

/// Polls all futures side by side until all have ended.
async fn all<T>(futures: Vec<impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<Pin<Box<_>>> = futures.into_iter().map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(move |cx| {
        running.retain_mut(|future| match future.as_mut().poll(cx) {
            Poll::Ready(value) => {
                done.push(value);
                false
            }
            Poll::Pending => true,
        });
        if running.is_empty() { Poll::Ready(std::mem::take(&mut done)) } else { Poll::Pending }
    })
    .await
}

/// Makes 200 syscalls, each with the result of the one before.
async fn count(mut guest: Guest, first: u64) {
    let mut result = first;
    guest.thread.set_ret(result);
    for _ in 0..200 {
        let event = loop {
            match guest.go().await {
                Event::Interrupted => {}
                event => break event,
            }
        };
        assert_eq!(syscall_of(&event).0, result);
        result += 1;
        guest.thread.set_ret(result);
    }
}

/// Processes, forks and threads that all run at once get each their own results.
pub fn many_guests_run_at_once(rig: &Rig) {
    rig.run(async {
        let mut guests = Vec::new();
        for _ in 0..8 {
            let mut guest = rig.guest(&[0x0f, 0x05, 0xeb, 0xfc]).await; // 1: syscall; jmp 1b
            for _ in 0..4 {
                guests.push(spawn(&mut guest).await);
                let mut copy = fork(&mut guest).await;
                guests.push(spawn(&mut copy).await);
                guests.push(copy);
            }
            guests.push(guest);
        }
        all((1u64..).zip(guests).map(|(i, guest)| count(guest, i << 32)).collect()).await;
    });
}

fn number(image: &[u8], at: usize, len: usize) -> usize {
    let mut bytes = [0; 8];
    bytes[..len].copy_from_slice(&image[at..at + len]);
    usize::try_from(u64::from_le_bytes(bytes)).expect("an offset")
}

/// The offset of a function in a vDSO image (elf(5); sections SHT_DYNSYM and the string table that it names).
fn find_symbol(image: &[u8], name: &str) -> Option<usize> {
    let (table, size, count) = (number(image, 0x28, 8), number(image, 0x3a, 2), number(image, 0x3c, 2));
    let section = |index: usize| table + index * size;
    let dynsym = (0..count).map(section).find(|&s| number(image, s + 4, 4) == 11)?;
    let strings = number(image, section(number(image, dynsym + 0x28, 4)) + 0x18, 8);
    let (start, len) = (number(image, dynsym + 0x18, 8), number(image, dynsym + 0x20, 8));
    (start..start + len).step_by(24).find_map(|symbol| {
        let at = strings + number(image, symbol, 4);
        image[at..].starts_with(format!("{name}\0").as_bytes()).then(|| number(image, symbol + 8, 8))
    })
}

/// The guest reads the clock through the vDSO, whose data is where its code expects it; so does a copy of it.
pub fn vdso_tells_the_time(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(&[0xff, 0xd0, 0x0f, 0x05]).await; // call rax; syscall
        let range = rig.platform.vdso().vdso;
        if range.is_empty() {
            return; // a host without one
        }
        let mut image = vec![0; usize::try_from(range.end - range.start).expect("a length")];
        assert_eq!(guest.space.read(range.start, &mut image), Ok(image.len()));
        let Some(offset) = find_symbol(&image, "__vdso_clock_gettime") else { return };
        for mut guest in [fork(&mut guest).await, guest] {
            let (monotonic, entry) = (1, range.start + offset as u64);
            let event = guest.go_with(|r| (r.rip, r.rax, r.rdi, r.rsi) = (CODE, entry, monotonic, DATA)).await;
            let (nr, _) = syscall_of(&event);
            if nr == 228 {
                return; // a clock that the host's vDSO cannot read: it calls clock_gettime
            }
            assert_eq!(nr, 0, "the result of the vDSO's function");
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let seconds = now.tv_sec - i64::try_from(guest.read_u64(DATA)).expect("seconds");
            assert!((0..30).contains(&seconds), "{seconds} s off");
        }
    });
}
