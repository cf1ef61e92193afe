//! Sizes and offsets of the guest structs against what a C compiler gave for Linux's headers (linux-libc-dev 6.1,
//! glibc 2.36).
//!
//! Fields that the headers of that age do not have are not listed. Regenerate with `sizeof` and `offsetof` when a
//! struct grows.

use std::mem::offset_of;

use moat_abi::*;

/// Asserts the size and the listed offsets of one struct.
macro_rules! layout {
    ($t:path, $size:literal, $($field:ident @ $offset:literal),+ $(,)?) => {
        assert_eq!(size_of::<$t>(), $size, concat!("size of ", stringify!($t)));
        $(assert_eq!(offset_of!($t, $field), $offset, concat!(stringify!($t), ".", stringify!($field)));)+
    };
}

#[test]
fn cap_structs() {
    layout!(cap::CapHeader, 8, version @ 0, pid @ 4);
    layout!(cap::CapData, 12, effective @ 0, permitted @ 4, inheritable @ 8);
    layout!(cap::VfsNsCapData, 24, magic_etc @ 0, rootid @ 20);
}

#[test]
fn clone_structs() {
    layout!(
        clone::CloneArgs, 88,
        flags @ 0, pidfd @ 8, child_tid @ 16, parent_tid @ 24, exit_signal @ 32, stack @ 40, stack_size @ 48, tls @ 56,
        set_tid @ 64, set_tid_size @ 72, cgroup @ 80,
    );
    layout!(
        clone::Rusage, 144,
        ru_utime @ 0, ru_stime @ 16, ru_maxrss @ 32, ru_ixrss @ 40, ru_idrss @ 48, ru_isrss @ 56, ru_minflt @ 64, ru_majflt @ 72,
        ru_nswap @ 80, ru_inblock @ 88, ru_oublock @ 96, ru_msgsnd @ 104, ru_msgrcv @ 112, ru_nsignals @ 120, ru_nvcsw @ 128,
        ru_nivcsw @ 136,
    );
}

#[test]
fn elf_structs() {
    layout!(
        elf::Elf64Ehdr, 64,
        e_ident @ 0, e_type @ 16, e_machine @ 18, e_version @ 20, e_entry @ 24, e_phoff @ 32, e_shoff @ 40, e_flags @ 48,
        e_ehsize @ 52, e_phentsize @ 54, e_phnum @ 56, e_shentsize @ 58, e_shnum @ 60, e_shstrndx @ 62,
    );
    layout!(
        elf::Elf64Phdr, 56,
        p_type @ 0, p_flags @ 4, p_offset @ 8, p_vaddr @ 16, p_paddr @ 24, p_filesz @ 32, p_memsz @ 40, p_align @ 48,
    );
    layout!(
        elf::Elf64Shdr, 64,
        sh_name @ 0, sh_type @ 4, sh_flags @ 8, sh_addr @ 16, sh_offset @ 24, sh_size @ 32, sh_link @ 40, sh_info @ 44,
        sh_addralign @ 48, sh_entsize @ 56,
    );
    layout!(elf::Elf64Sym, 24, st_name @ 0, st_info @ 4, st_other @ 5, st_shndx @ 6, st_value @ 8, st_size @ 16);
    layout!(elf::Elf64Dyn, 16, d_tag @ 0, d_val @ 8);
    layout!(elf::Elf64Nhdr, 12, n_namesz @ 0, n_descsz @ 4, n_type @ 8);
}

#[test]
fn fs_structs() {
    layout!(fs::Flock, 32, l_type @ 0, l_whence @ 2, l_start @ 8, l_len @ 16, l_pid @ 24);
    layout!(fs::FOwnerEx, 8, r#type @ 0, pid @ 4);
    layout!(fs::OpenHow, 24, flags @ 0, mode @ 8, resolve @ 16);
    layout!(fs::Iovec, 16, iov_base @ 0, iov_len @ 8);
    layout!(fs::FileHandle, 8, handle_bytes @ 0, handle_type @ 4);
    layout!(fs::InotifyEvent, 16, wd @ 0, mask @ 4, cookie @ 8, len @ 12);
}

#[test]
fn futex_structs() {
    layout!(futex::FutexWaitv, 24, val @ 0, uaddr @ 8, flags @ 16);
    layout!(futex::RobustListHead, 24, futex_offset @ 8, list_op_pending @ 16);
    layout!(futex::Rseq, 32, cpu_id_start @ 0, cpu_id @ 4, rseq_cs @ 8, flags @ 16);
    layout!(futex::RseqCs, 32, version @ 0, flags @ 4, start_ip @ 8, post_commit_offset @ 16, abort_ip @ 24);
}

#[test]
fn ipc_structs() {
    layout!(ipc::Ipc64Perm, 48, key @ 0, uid @ 4, gid @ 8, cuid @ 12, cgid @ 16, mode @ 20, seq @ 24);
    layout!(
        ipc::Shmid64Ds, 112,
        shm_perm @ 0, shm_segsz @ 48, shm_atime @ 56, shm_dtime @ 64, shm_ctime @ 72, shm_cpid @ 80, shm_lpid @ 84,
        shm_nattch @ 88,
    );
    layout!(ipc::Shminfo64, 72, shmmax @ 0, shmmin @ 8, shmmni @ 16, shmseg @ 24, shmall @ 32);
    layout!(ipc::ShmInfo, 48, used_ids @ 0, shm_tot @ 8, shm_rss @ 16, shm_swp @ 24, swap_attempts @ 32, swap_successes @ 40);
    layout!(ipc::Semid64Ds, 104, sem_perm @ 0, sem_otime @ 48, sem_ctime @ 64, sem_nsems @ 80);
    layout!(ipc::Sembuf, 6, sem_num @ 0, sem_op @ 2, sem_flg @ 4);
    layout!(
        ipc::Seminfo, 40,
        semmap @ 0, semmni @ 4, semmns @ 8, semmnu @ 12, semmsl @ 16, semopm @ 20, semume @ 24, semusz @ 28, semvmx @ 32,
        semaem @ 36,
    );
    layout!(
        ipc::Msqid64Ds, 120,
        msg_perm @ 0, msg_stime @ 48, msg_rtime @ 56, msg_ctime @ 64, msg_cbytes @ 72, msg_qnum @ 80, msg_qbytes @ 88,
        msg_lspid @ 96, msg_lrpid @ 100,
    );
    layout!(
        ipc::Msginfo, 32,
        msgpool @ 0, msgmap @ 4, msgmax @ 8, msgmnb @ 12, msgmni @ 16, msgssz @ 20, msgtql @ 24, msgseg @ 28,
    );
    layout!(ipc::MqAttr, 64, mq_flags @ 0, mq_maxmsg @ 8, mq_msgsize @ 16, mq_curmsgs @ 24);
}

#[test]
fn mount_structs() {
    layout!(mount::MountAttr, 32, attr_set @ 0, attr_clr @ 8, propagation @ 16, userns_fd @ 24);
}

#[test]
fn poll_structs() {
    layout!(poll::Pollfd, 8, fd @ 0, events @ 4, revents @ 6);
}

#[test]
fn prctl_structs() {
    layout!(prctl::Rlimit, 16, rlim_cur @ 0, rlim_max @ 8);
    layout!(prctl::SchedParam, 4, sched_priority @ 0);
    layout!(
        prctl::SchedAttr, 56,
        size @ 0, sched_policy @ 4, sched_flags @ 8, sched_nice @ 16, sched_priority @ 20, sched_runtime @ 24,
        sched_deadline @ 32, sched_period @ 40, sched_util_min @ 48, sched_util_max @ 52,
    );
    layout!(prctl::Utsname, 390, sysname @ 0, nodename @ 65, release @ 130, version @ 195, machine @ 260, domainname @ 325);
    layout!(
        prctl::Sysinfo, 112,
        uptime @ 0, loads @ 8, totalram @ 32, freeram @ 40, sharedram @ 48, bufferram @ 56, totalswap @ 64, freeswap @ 72,
        procs @ 80, totalhigh @ 88, freehigh @ 96, mem_unit @ 104,
    );
}

#[test]
fn ptrace_structs() {
    layout!(
        ptrace::UserRegs, 216,
        r15 @ 0, r14 @ 8, r13 @ 16, r12 @ 24, rbp @ 32, rbx @ 40, r11 @ 48, r10 @ 56, r9 @ 64, r8 @ 72, rax @ 80, rcx @ 88,
        rdx @ 96, rsi @ 104, rdi @ 112, orig_rax @ 120, rip @ 128, cs @ 136, eflags @ 144, rsp @ 152, ss @ 160, fs_base @ 168,
        gs_base @ 176, ds @ 184, es @ 192, fs @ 200, gs @ 208,
    );
    layout!(ptrace::PtraceSyscallInfo, 88, op @ 0, arch @ 4, instruction_pointer @ 8, stack_pointer @ 16);
    layout!(ptrace::PtracePeeksiginfoArgs, 16, off @ 0, flags @ 8, nr @ 12);
    layout!(ptrace::PtraceRseqConfiguration, 24, rseq_abi_pointer @ 0, rseq_abi_size @ 8, signature @ 12, flags @ 16);
    layout!(ptrace::SeccompData, 64, nr @ 0, arch @ 4, instruction_pointer @ 8, args @ 16);
    layout!(ptrace::SockFilter, 8, code @ 0, jt @ 2, jf @ 3, k @ 4);
    layout!(ptrace::SockFprog, 16, len @ 0, filter @ 8);
}

#[test]
fn sigframe_structs() {
    layout!(
        sigframe::Sigcontext, 256,
        r8 @ 0, r9 @ 8, r10 @ 16, r11 @ 24, r12 @ 32, r13 @ 40, r14 @ 48, r15 @ 56, rdi @ 64, rsi @ 72, rbp @ 80, rbx @ 88,
        rdx @ 96, rax @ 104, rcx @ 112, rsp @ 120, rip @ 128, eflags @ 136, cs @ 144, gs @ 146, fs @ 148, ss @ 150, err @ 152,
        trapno @ 160, oldmask @ 168, cr2 @ 176, fpstate @ 184,
    );
    layout!(sigframe::FpxSwBytes, 48, magic1 @ 0, extended_size @ 4, xfeatures @ 8, xstate_size @ 16);
    layout!(
        sigframe::FpState, 512,
        cwd @ 0, swd @ 2, twd @ 4, fop @ 6, rip @ 8, rdp @ 16, mxcsr @ 24, st_space @ 32, xmm_space @ 160, sw_reserved @ 464,
    );
    layout!(sigframe::XsaveHeader, 64, xfeatures @ 0);
}

#[test]
fn siginfo_structs() {
    layout!(siginfo::Sigevent, 64, sigev_value @ 0, sigev_signo @ 8, sigev_notify @ 12, sigev_notify_thread_id @ 16);
    layout!(
        siginfo::SignalfdSiginfo, 128,
        ssi_signo @ 0, ssi_errno @ 4, ssi_code @ 8, ssi_pid @ 12, ssi_uid @ 16, ssi_fd @ 20, ssi_tid @ 24, ssi_band @ 28,
        ssi_overrun @ 32, ssi_trapno @ 36, ssi_status @ 40, ssi_int @ 44, ssi_ptr @ 48, ssi_utime @ 56, ssi_stime @ 64,
        ssi_addr @ 72, ssi_addr_lsb @ 80, ssi_syscall @ 84, ssi_call_addr @ 88, ssi_arch @ 96,
    );
}

#[test]
fn signal_structs() {
    layout!(signal::SigAction, 32, sa_handler @ 0, sa_flags @ 8, sa_restorer @ 16, sa_mask @ 24);
    layout!(signal::StackT, 24, ss_sp @ 0, ss_flags @ 8, ss_size @ 16);
}

#[test]
fn socket_structs() {
    layout!(socket::SockaddrUn, 110, sun_family @ 0, sun_path @ 2);
    layout!(socket::SockaddrIn, 16, sin_family @ 0, sin_port @ 2, sin_addr @ 4, sin_zero @ 8);
    layout!(socket::SockaddrIn6, 28, sin6_family @ 0, sin6_port @ 2, sin6_flowinfo @ 4, sin6_addr @ 8, sin6_scope_id @ 24);
    layout!(socket::SockaddrNl, 12, nl_family @ 0, nl_pid @ 4, nl_groups @ 8);
    layout!(
        socket::SockaddrLl, 20,
        sll_family @ 0, sll_protocol @ 2, sll_ifindex @ 4, sll_hatype @ 8, sll_pkttype @ 10, sll_halen @ 11, sll_addr @ 12,
    );
    layout!(
        socket::Msghdr, 56,
        msg_name @ 0, msg_namelen @ 8, msg_iov @ 16, msg_iovlen @ 24, msg_control @ 32, msg_controllen @ 40, msg_flags @ 48,
    );
    layout!(socket::Mmsghdr, 64, msg_hdr @ 0, msg_len @ 56);
    layout!(socket::Cmsghdr, 16, cmsg_len @ 0, cmsg_level @ 8, cmsg_type @ 12);
    layout!(socket::Ucred, 12, pid @ 0, uid @ 4, gid @ 8);
    layout!(socket::Linger, 8, l_onoff @ 0, l_linger @ 4);
    layout!(socket::IpMreq, 8, imr_multiaddr @ 0, imr_interface @ 4);
    layout!(socket::IpMreqn, 12, imr_multiaddr @ 0, imr_address @ 4, imr_ifindex @ 8);
    layout!(socket::Ipv6Mreq, 20, ipv6mr_multiaddr @ 0, ipv6mr_ifindex @ 16);
    layout!(socket::InPktinfo, 12, ipi_ifindex @ 0, ipi_spec_dst @ 4, ipi_addr @ 8);
    layout!(socket::In6Pktinfo, 20, ipi6_addr @ 0, ipi6_ifindex @ 16);
    layout!(socket::Ifreq, 40, ifr_name @ 0, ifr_data @ 16);
    layout!(socket::Ifconf, 16, ifc_len @ 0, ifc_buf @ 8);
}

#[test]
fn stat_structs() {
    layout!(
        stat::Stat, 144,
        st_dev @ 0, st_ino @ 8, st_nlink @ 16, st_mode @ 24, st_uid @ 28, st_gid @ 32, st_rdev @ 40, st_size @ 48,
        st_blksize @ 56, st_blocks @ 64, st_atime @ 72, st_atime_nsec @ 80, st_mtime @ 88, st_mtime_nsec @ 96, st_ctime @ 104,
        st_ctime_nsec @ 112,
    );
    layout!(stat::StatxTimestamp, 16, tv_sec @ 0, tv_nsec @ 8);
    layout!(
        stat::Statx, 256,
        stx_mask @ 0, stx_blksize @ 4, stx_attributes @ 8, stx_nlink @ 16, stx_uid @ 20, stx_gid @ 24, stx_mode @ 28,
        stx_ino @ 32, stx_size @ 40, stx_blocks @ 48, stx_attributes_mask @ 56, stx_atime @ 64, stx_btime @ 80, stx_ctime @ 96,
        stx_mtime @ 112, stx_rdev_major @ 128, stx_rdev_minor @ 132, stx_dev_major @ 136, stx_dev_minor @ 140, stx_mnt_id @ 144,
        stx_dio_mem_align @ 152, stx_dio_offset_align @ 156,
    );
    layout!(
        stat::Statfs, 120,
        f_type @ 0, f_bsize @ 8, f_blocks @ 16, f_bfree @ 24, f_bavail @ 32, f_files @ 40, f_ffree @ 48, f_fsid @ 56,
        f_namelen @ 64, f_frsize @ 72, f_flags @ 80, f_spare @ 88,
    );
}

#[test]
fn time_structs() {
    layout!(time::Timespec, 16, tv_sec @ 0, tv_nsec @ 8);
    layout!(time::Timeval, 16, tv_sec @ 0, tv_usec @ 8);
    layout!(time::Itimerval, 32, it_interval @ 0, it_value @ 16);
    layout!(time::Itimerspec, 32, it_interval @ 0, it_value @ 16);
    layout!(time::Timezone, 8, tz_minuteswest @ 0, tz_dsttime @ 4);
    layout!(time::Utimbuf, 16, actime @ 0, modtime @ 8);
    layout!(time::Tms, 32, tms_utime @ 0, tms_stime @ 8, tms_cutime @ 16, tms_cstime @ 24);
    layout!(
        time::Timex, 208,
        modes @ 0, offset @ 8, freq @ 16, maxerror @ 24, esterror @ 32, status @ 40, constant @ 48, precision @ 56,
        tolerance @ 64, time @ 72, tick @ 88, ppsfreq @ 96, jitter @ 104, shift @ 112, stabil @ 120, jitcnt @ 128, calcnt @ 136,
        errcnt @ 144, stbcnt @ 152, tai @ 160,
    );
}

#[test]
fn tty_structs() {
    layout!(tty::Termios, 36, c_iflag @ 0, c_oflag @ 4, c_cflag @ 8, c_lflag @ 12, c_line @ 16, c_cc @ 17);
    layout!(
        tty::Termios2, 44,
        c_iflag @ 0, c_oflag @ 4, c_cflag @ 8, c_lflag @ 12, c_line @ 16, c_cc @ 17, c_ispeed @ 36, c_ospeed @ 40,
    );
    layout!(tty::Termio, 18, c_iflag @ 0, c_oflag @ 2, c_cflag @ 4, c_lflag @ 6, c_line @ 8, c_cc @ 9);
    layout!(tty::Winsize, 8, ws_row @ 0, ws_col @ 2, ws_xpixel @ 4, ws_ypixel @ 6);
}

#[test]
fn netlink_structs() {
    layout!(
        netlink::Nlmsghdr, 16,
        nlmsg_len @ 0, nlmsg_type @ 4, nlmsg_flags @ 6, nlmsg_seq @ 8, nlmsg_pid @ 12,
    );
    layout!(
        netlink::Nlmsgerr, 20,
        error @ 0, msg @ 4,
    );
    layout!(
        netlink::Rtattr, 4,
        rta_len @ 0, rta_type @ 2,
    );
    layout!(
        netlink::Rtgenmsg, 1,
        rtgen_family @ 0,
    );
    layout!(
        netlink::Ifinfomsg, 16,
        ifi_family @ 0, ifi_type @ 2, ifi_index @ 4, ifi_flags @ 8, ifi_change @ 12,
    );
    layout!(
        netlink::Ifaddrmsg, 8,
        ifa_family @ 0, ifa_prefixlen @ 1, ifa_flags @ 2, ifa_scope @ 3, ifa_index @ 4,
    );
    layout!(
        netlink::Rtmsg, 12,
        rtm_family @ 0, rtm_dst_len @ 1, rtm_src_len @ 2, rtm_tos @ 3, rtm_table @ 4, rtm_protocol @ 5,
        rtm_scope @ 6, rtm_type @ 7, rtm_flags @ 8,
    );
}

#[test]
fn aio_structs() {
    layout!(
        aio::Iocb, 64,
        aio_data @ 0, aio_key @ 8, aio_rw_flags @ 12, aio_lio_opcode @ 16, aio_reqprio @ 18, aio_fildes @ 20,
        aio_buf @ 24, aio_nbytes @ 32, aio_offset @ 40, aio_reserved2 @ 48, aio_flags @ 56, aio_resfd @ 60,
    );
    layout!(
        aio::IoEvent, 32,
        data @ 0, obj @ 8, res @ 16, res2 @ 24,
    );
}

#[test]
fn signal_frame() {
    layout!(sigframe::RtSigframe, 440, pretcode @ 0, uc @ 8, info @ 312);
    layout!(sigframe::Ucontext, 304, uc_flags @ 0, uc_link @ 8, uc_stack @ 16, uc_mcontext @ 40, uc_sigmask @ 296);
    layout!(siginfo::SigInfo, 128, si_signo @ 0, si_errno @ 4, si_code @ 8, fields @ 16);
}
