//! Stocks: whom their processes descend from, and their ends.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use moat_abi::Errno;
use rustix::process::{Pid, getpriority_process, setpriority_process};

use super::{CODE, DATA, Guest, Rig, fork, host_process_exists, spawn, syscall_of, vanishes};
use crate::Stock;

/// `1: mov rax,[rdi]; syscall; jmp 1b`
const LOAD: &[u8] = &[0x48, 0x8b, 0x07, 0x0f, 0x05, 0xeb, 0xf9];
/// What a template gets, and passes on by fork.
const NICE: i32 = 7;

async fn load(guest: &mut Guest) -> u64 {
    syscall_of(&guest.go_with(|r| (r.rip, r.rdi) = (CODE, DATA)).await).0
}

async fn new_stock(rig: &Rig) -> (Arc<dyn Stock>, Pid) {
    let stock = rig.platform.new_stock().await.expect("a stock");
    let pid = pid_of(&stock.template().expect("a template"));
    (stock, pid)
}

/// The process of a pidfd, as /proc/self/fdinfo has it.
fn pid_of(pidfd: &OwnedFd) -> Pid {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).expect("fdinfo");
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")).expect("a pid");
    Pid::from_raw(pid.trim().parse().expect("a number")).expect("a process")
}

fn nice(pid: i32) -> i32 {
    getpriority_process(Pid::from_raw(pid)).expect("a priority")
}

/// What a template's host process has, the processes of its stock have, and no others.
pub fn a_stock_descends_from_its_template(rig: &Rig) {
    rig.run(async {
        let (stock, template) = new_stock(rig).await;
        setpriority_process(Some(template), NICE).expect("setpriority");
        let mut other = rig.guest(LOAD).await;
        for round in 0..4 {
            let mut guest = rig.guest_of(&*stock, LOAD).await;
            guest.write_u64(DATA, round);
            let mut side = spawn(&mut guest).await;
            let mut child = fork(&mut side).await;
            child.write_u64(DATA, round + 100);
            assert_eq!((load(&mut side).await, load(&mut child).await), (round, round + 100));
            assert_eq!(load(&mut guest).await, round);
            assert_eq!((nice(guest.space.host_pid()), nice(child.space.host_pid())), (NICE, NICE));
        }
        other.write_u64(DATA, 9);
        assert_eq!(load(&mut other).await, 9);
        assert_eq!(nice(other.space.host_pid()), 0);
    });
}

/// A stock is made at whatever moment it is asked for, also while the last process of another's is just being made ahead.
pub fn a_stock_is_made_at_any_moment(rig: &Rig) {
    for events in 0..24 {
        let _first = rig.run(rig.guest(LOAD));
        rig.dispatch_some(events);
        let _stock = rig.run(new_stock(rig));
    }
}

/// A closed stock has no process but those that it gave, which go on; a dropped one is closed.
pub fn a_closed_stock_leaves_what_it_gave(rig: &Rig) {
    let (mut guest, stock, template) = rig.run(async {
        let (stock, template) = new_stock(rig).await;
        let guest = rig.guest_of(&*stock, LOAD).await;
        (guest, stock, template)
    });
    let before = template.as_raw_nonzero().get();
    assert!(host_process_exists(before));
    stock.close();
    assert!(vanishes(rig, before));
    assert_eq!(stock.template().err(), Some(Errno::ESRCH));
    rig.run(async {
        assert_eq!(stock.new_process().await.err(), Some(Errno::ESRCH));
        guest.write_u64(DATA, 3);
        let mut child = fork(&mut guest).await;
        assert_eq!((load(&mut guest).await, load(&mut child).await), (3, 3));
    });
    let (dropped, template) = rig.run(new_stock(rig));
    drop(dropped);
    assert!(vanishes(rig, template.as_raw_nonzero().get()));
    // Others are made as before.
    let (stock, _) = rig.run(new_stock(rig));
    rig.run(async {
        let mut guest = rig.guest_of(&*stock, LOAD).await;
        guest.write_u64(DATA, 4);
        assert_eq!(load(&mut guest).await, 4);
    });
}
