//! This platform's own cases, beside the shared ones. A case panics where the platform does not do what the traits say.

mod cases;
mod driver;
mod programs;

use moat_platform_ptrace::Ptrace;

/// Makes a `#[test]` of every case.
macro_rules! tests {
    ($($case:ident),+ $(,)?) => {
        $(
            #[test]
            fn $case() {
                cases::$case(&Ptrace::new().expect("the ptrace platform"));
            }
        )+
    };
}

tests!(
    blank_process, syscall_arguments, registers_survive, many_syscalls, foreign_syscalls,
    fault_read, fault_write, fault_fetch, fault_divide, fault_opcode, fault_breakpoint, fault_protection, fault_bus,
    fault_in_system_registers, trap_flag,
    kick_running, kick_parked, kick_storm,
    fork_copies, fork_of_fork, spawn_shares, spawn_runs_in_parallel,
    order_anonymous, order_mremap, order_madvise, order_mlock, order_private_file, order_shared_file, order_failures,
    order_atomics, order_deferred, order_names, order_rseq,
    fpu_round_trip, fpu_inherited, fpu_bad_image,
    copies_are_exact, forced_write,
    killed, killed_by_host, killed_while_parked, drop_running, drop_sibling, drop_leader, drop_everything,
);
