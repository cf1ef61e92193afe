//! Events, registers, extended state and kicks of a single thread.

use std::time::Duration;

use super::{CODE, DATA, Rig, STACK, fault_of, syscall_of};
use crate::regs::RFLAGS_TF;
use crate::{Event, ForeignAbi, GUEST_TOP, Regs};

/// `syscall; syscall; ...; ud2`
const SYSCALLS: &[u8] = &[0x0f, 0x05, 0x0f, 0x05, 0x0f, 0x05, 0x0f, 0x0b];
const SIGILL: i32 = 4;
const SIGTRAP: i32 = 5;
const SIGFPE: i32 = 8;
const SIGSEGV: i32 = 11;

/// The number, the six arguments and the result pass unchanged.
pub fn syscalls_carry_number_and_arguments(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(SYSCALLS).await;
        let event = guest
            .go_with(|r| (r.rax, r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9) = (39, 1, 2, 3, 4, u64::MAX, 1 << 63))
            .await;
        assert_eq!(syscall_of(&event), (39, [1, 2, 3, 4, u64::MAX, 1 << 63]));
        let regs = guest.thread.regs();
        assert_eq!((regs.rip, regs.orig_rax, regs.rsp), (CODE + 2, 39, STACK));
        guest.thread.set_ret(0x1234_5678_9abc_def0);
        // The result is the number of the next call.
        assert_eq!(syscall_of(&guest.go().await).0, 0x1234_5678_9abc_def0);
        guest.thread.set_ret(u64::MAX);
        assert_eq!(syscall_of(&guest.go().await).0, u64::MAX);
        guest.thread.set_ret(7);
        assert_eq!(fault_of(guest.go().await).signal, SIGILL);
        assert_eq!(guest.thread.regs().rax, 7);
        assert_eq!(guest.thread.regs().orig_rax, u64::MAX, "not in a syscall");
    });
}

/// Every general register that is set arrives, and is read back at the next stop.
pub fn all_registers_round_trip(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(&[0x0f, 0x0b]).await;
        let want = Regs {
            r15: 15,
            r14: 14,
            r13: 13,
            r12: 12,
            rbp: 0xb9,
            rbx: 0xbb,
            r11: 11,
            r10: 10,
            r9: 9,
            r8: 8,
            rax: 0xaa,
            rcx: 0xcc,
            rdx: 0xdd,
            rsi: 0x51,
            rdi: 0xd1,
            orig_rax: u64::MAX,
            rip: CODE,
            rflags: 0x202 | 0x8d5,
            rsp: 0x1234,
            fs_base: 0x1111_0000,
            gs_base: 0x2222_0000,
        };
        guest.thread.set_regs(&want);
        assert_eq!(fault_of(guest.go().await).signal, SIGILL);
        let mut got = guest.thread.regs();
        got.rflags &= !(1 << 16); // RF may be set by the exception
        assert_eq!(got, want);
    });
}

/// Page faults, divisions, illegal instructions and breakpoints.
pub fn faults_are_told_apart(rig: &Rig) {
    rig.run(async {
        // +0 mov rax,[rdi]; +3 mov [rdi],rax; +6 div rcx; +9 int3; +10 ud2; +12 jmp *rdi
        let code = [0x48, 0x8b, 0x07, 0x48, 0x89, 0x07, 0x48, 0xf7, 0xf1, 0xcc, 0x0f, 0x0b, 0xff, 0xe7];
        let mut guest = rig.guest(&code).await;
        let fault = fault_of(guest.go_with(|r| r.rdi = 0x3000_0123).await);
        assert_eq!((fault.signal, fault.code, fault.addr, fault.trapno), (SIGSEGV, 1, 0x3000_0123, 14));
        assert_eq!(fault.err & 0x17, 4, "a read by user code");
        assert_eq!(guest.thread.regs().rip, CODE);
        let fault = fault_of(guest.go_with(|r| (r.rip, r.rdi) = (CODE + 3, CODE)).await);
        assert_eq!((fault.signal, fault.code, fault.addr), (SIGSEGV, 2, CODE));
        assert_eq!(fault.err & 0x17, 7, "a write to a present page");
        let fault = fault_of(guest.go_with(|r| (r.rip, r.rcx) = (CODE + 6, 0)).await);
        assert_eq!((fault.signal, fault.code, fault.addr, fault.trapno), (SIGFPE, 1, CODE + 6, 0));
        let fault = fault_of(guest.go_with(|r| r.rip = CODE + 9).await);
        assert_eq!((fault.signal, fault.trapno), (SIGTRAP, 3));
        assert_eq!(guest.thread.regs().rip, CODE + 10);
        let fault = fault_of(guest.go().await);
        assert_eq!((fault.signal, fault.trapno), (SIGILL, 6));
        let fault = fault_of(guest.go_with(|r| (r.rip, r.rdi) = (CODE + 12, DATA)).await);
        assert_eq!((fault.signal, fault.addr, fault.err & 0x15), (SIGSEGV, DATA, 0x15), "an instruction fetch");
        // The page that was missing is put there: the access is repeated.
        guest.map_anon(0x3000_0000, 0x1000, super::RW).await;
        guest.write_u64(0x3000_0100, 77);
        let _ = fault_of(guest.go_with(|r| (r.rip, r.rdi, r.rcx) = (CODE, 0x3000_0100, 0)).await);
        assert_eq!(guest.thread.regs().rax, 77);
    });
}

/// A bad instruction pointer or base ends in a SIGSEGV, and the thread lives on.
pub fn non_canonical_state_is_a_fault(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(SYSCALLS).await;
        for rip in [0x8000_0000_0000, 1 << 63, 0xffff_8000_0000_0000, 0, GUEST_TOP] {
            let fault = fault_of(guest.go_with(|r| r.rip = rip).await);
            assert_eq!(fault.signal, SIGSEGV, "rip {rip:#x}");
        }
        let fault = fault_of(guest.go_with(|r| (r.rip, r.fs_base) = (CODE, 1 << 62)).await);
        assert_eq!(fault.signal, SIGSEGV);
        let fault = fault_of(guest.go_with(|r| (r.rip, r.fs_base, r.gs_base) = (CODE, 0, 1 << 62)).await);
        assert_eq!(fault.signal, SIGSEGV);
        let event = guest.go_with(|r| (r.rip, r.rax, r.gs_base) = (CODE, 5, 0)).await;
        assert_eq!(syscall_of(&event).0, 5);
    });
}

/// Trap flag, direction flag and alignment check of the guest do not disturb the platform.
pub fn single_step_and_odd_flags_work(rig: &Rig) {
    rig.run(async {
        // nop; nop; syscall; nop; syscall
        let mut guest = rig.guest(&[0x90, 0x90, 0x0f, 0x05, 0x90, 0x0f, 0x05]).await;
        for step in 1..=2 {
            let fault = fault_of(guest.go_with(|r| r.rflags |= RFLAGS_TF).await);
            assert_eq!((fault.signal, fault.trapno), (SIGTRAP, 1));
            assert_eq!(guest.thread.regs().rip, CODE + step);
        }
        assert_eq!(syscall_of(&guest.go_with(|r| (r.rflags, r.rax) = (r.rflags | RFLAGS_TF, 3)).await).0, 3);
        let event = guest.go_with(|r| (r.rflags, r.rax) = (0x202 | 1 << 10 | 1 << 18, 9)).await;
        assert_eq!(syscall_of(&event).0, 9, "DF and AC");
        assert_eq!(guest.thread.regs().rflags & (1 << 10 | 1 << 18), 1 << 10 | 1 << 18);
    });
}

/// The guest's stack pointer may be anything at a stop.
pub fn any_stack_pointer_will_do(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(SYSCALLS).await;
        for rsp in [0, 1, CODE, u64::MAX, 1 << 63, GUEST_TOP, 0x7fff_ffff_f000] {
            let event = guest.go_with(|r| (r.rip, r.rsp, r.rax) = (CODE, rsp, 11)).await;
            assert_eq!(syscall_of(&event).0, 11, "rsp {rsp:#x}");
            assert_eq!(guest.thread.regs().rsp, rsp);
        }
    });
}

/// A loop without syscalls is interrupted and can go on.
pub fn kick_interrupts_a_loop(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(&[0xeb, 0xfe]).await; // jmp .
        for _ in 0..20 {
            let kicker = guest.thread.kicker();
            let other = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(2));
                kicker.kick();
                kicker.kick();
            });
            let event = guest.go().await;
            assert!(matches!(event, Event::Interrupted), "{event:?}");
            assert_eq!(guest.thread.regs().rip, CODE);
            other.join().expect("kicker");
        }
    });
}

/// A kick before the switch ends the switch.
pub fn kick_of_a_parked_thread_is_not_lost(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(&[0xeb, 0xfe]).await;
        for _ in 0..20 {
            guest.thread.kicker().kick();
            let event = guest.go().await;
            assert!(matches!(event, Event::Interrupted), "{event:?}");
        }
    });
}

/// int 0x80, x32 numbers and the vsyscall page.
pub fn foreign_entries_are_told_apart(rig: &Rig) {
    rig.run(async {
        // int 0x80; syscall; call r11; ud2
        let mut guest = rig.guest(&[0xcd, 0x80, 0x0f, 0x05, 0x41, 0xff, 0xd3, 0x0f, 0x0b]).await;
        let event = guest.go_with(|r| r.rax = 20).await;
        match event {
            Event::ForeignSyscall(ForeignAbi::I386) => {}
            // A host without the 32-bit entry.
            Event::Fault(fault) => assert_eq!(fault.signal, SIGSEGV),
            other => panic!("int 0x80 gave {other:?}"),
        }
        let event = guest.go_with(|r| (r.rip, r.rax) = (CODE + 2, 0x4000_0027)).await;
        assert_eq!(syscall_of(&event).0, 0x4000_0027);
        let event = guest.go_with(|r| (r.rip, r.r11, r.rdi, r.rsi) = (CODE + 4, 0xffff_ffff_ff60_0000, DATA, 0)).await;
        match event {
            Event::ForeignSyscall(ForeignAbi::Vsyscall) => {
                let mut regs = guest.thread.regs();
                assert_eq!(regs.rip, 0xffff_ffff_ff60_0000);
                assert_eq!(guest.read_u64(regs.rsp), CODE + 7, "the return address is on the stack");
                (regs.rip, regs.rsp, regs.rax) = (CODE + 7, regs.rsp + 8, 1);
                guest.thread.set_regs(&regs);
                assert_eq!(fault_of(guest.go().await).signal, SIGILL);
            }
            // A host with vsyscall=none.
            Event::Fault(fault) => assert_eq!(fault.signal, SIGSEGV),
            other => panic!("the vsyscall page gave {other:?}"),
        }
    });
}

/// The extended state is the guest's own, can be read, replaced and reset.
pub fn fpu_state_round_trips(rig: &Rig) {
    rig.run(async {
        // movdqu xmm7,[rdi]; syscall; movdqu [rsi],xmm7; syscall; stmxcsr [rsi]; ldmxcsr [rdi]; syscall
        let code = [
            0xf3, 0x0f, 0x6f, 0x3f, 0x0f, 0x05, 0xf3, 0x0f, 0x7f, 0x3e, 0x0f, 0x05, 0x0f, 0xae, 0x1e, 0x0f, 0xae, 0x17,
            0x0f, 0x05,
        ];
        let mut guest = rig.guest(&code).await;
        guest.write_u64(DATA, 0x1111_2222_3333_4444);
        guest.write_u64(DATA + 8, 0x5555_6666_7777_8888);
        let _ = syscall_of(&guest.go_with(|r| (r.rdi, r.rsi, r.rax) = (DATA, DATA + 64, 1)).await);
        let mut image = guest.thread.fpu().expect("fpu");
        // xmm7 is at 160 + 7 * 16 in the legacy area.
        assert_eq!(image[272..280], 0x1111_2222_3333_4444u64.to_ne_bytes());
        assert_eq!(image[464..468], 0x4650_5853u32.to_ne_bytes(), "FP_XSTATE_MAGIC1");
        guest.thread.set_ret(2);
        let _ = syscall_of(&guest.go().await);
        assert_eq!(guest.read_u64(DATA + 64), 0x1111_2222_3333_4444, "kept over the stop");
        image[272] = 0xee;
        guest.thread.set_fpu(&image).expect("set_fpu");
        assert_eq!(guest.thread.set_fpu(&image[1..]), Err(moat_abi::Errno::EINVAL));
        let _ = syscall_of(&guest.go_with(|r| (r.rip, r.rax) = (CODE + 6, 3)).await);
        assert_eq!(guest.read_u64(DATA + 64), 0x1111_2222_3333_44ee);
        guest.thread.reset_fpu();
        let _ = syscall_of(&guest.go_with(|r| (r.rip, r.rax) = (CODE + 6, 3)).await);
        assert_eq!(guest.read_u64(DATA + 64), 0);
        guest.write_u64(DATA, 0x1fa0);
        let _ = syscall_of(&guest.go_with(|r| (r.rip, r.rax) = (CODE + 12, 3)).await);
        assert_eq!(guest.read_u64(DATA + 64) & 0xffff_ffff, 0x1f80, "MXCSR of a fresh program");
        // Reserved bits of MXCSR: the host refuses the image.
        let mut bad = guest.thread.fpu().expect("fpu");
        bad[24..28].copy_from_slice(&0xffff_ffffu32.to_ne_bytes());
        guest.thread.set_fpu(&bad).expect("set_fpu takes any bytes");
        assert_eq!(fault_of(guest.go_with(|r| r.rip = CODE + 4).await).signal, SIGSEGV);
        guest.thread.reset_fpu();
        let _ = syscall_of(&guest.go_with(|r| (r.rip, r.rax) = (CODE + 4, 3)).await);
    });
}

/// The bases set are those that segment-relative accesses use.
pub fn fs_and_gs_bases_round_trip(rig: &Rig) {
    rig.run(async {
        // mov rax,fs:[0]; mov rbx,gs:[0]; ud2
        let code = [0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0, 0x65, 0x48, 0x8b, 0x1c, 0x25, 0, 0, 0, 0, 0x0f, 0x0b];
        let mut guest = rig.guest(&code).await;
        guest.write_u64(DATA, 5);
        guest.write_u64(DATA + 8, 6);
        let _ = fault_of(guest.go_with(|r| (r.fs_base, r.gs_base) = (DATA, DATA + 8)).await);
        let regs = guest.thread.regs();
        assert_eq!((regs.rax, regs.rbx, regs.fs_base, regs.gs_base), (5, 6, DATA, DATA + 8));
        let _ = fault_of(guest.go_with(|r| (r.rip, r.gs_base) = (CODE, DATA)).await);
        assert_eq!((guest.thread.regs().rax, guest.thread.regs().rbx), (5, 5));
    });
}

/// The vDSO is an ELF image at the place promised.
pub fn vdso_is_mapped(rig: &Rig) {
    rig.run(async {
        let guest = rig.guest(SYSCALLS).await;
        let layout = rig.platform.vdso();
        if layout.vdso.is_empty() {
            return; // a host without one
        }
        assert!(layout.vdso.end <= GUEST_TOP && layout.vvar.end <= GUEST_TOP);
        let mut magic = [0; 4];
        assert_eq!(guest.space.read(layout.vdso.start, &mut magic), Ok(4));
        assert_eq!(&magic, b"\x7fELF");
    });
}

/// A long run of syscalls loses and mixes nothing.
///
/// The numbers begin above those of Linux: newer hosts let uretprobe(2) and uprobe(2) past every filter.
pub fn many_syscalls_in_a_row(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(&[0x0f, 0x05, 0xeb, 0xfc]).await; // 1: syscall; jmp 1b
        guest.thread.set_ret(1000);
        for i in 1000..4000 {
            assert_eq!(syscall_of(&guest.go().await).0, i);
            guest.thread.set_ret(i + 1);
        }
    });
}
