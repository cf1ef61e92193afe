//! The system as a whole: uname(2), sysinfo(2), host names, getrandom(2), syslog(2), reboot(2).

use moat_abi::cap::Cap;
use moat_abi::prctl::{
    GRND_INSECURE, GRND_NONBLOCK, GRND_RANDOM, SYSLOG_ACTION_CLEAR, SYSLOG_ACTION_CLOSE, SYSLOG_ACTION_CONSOLE_LEVEL,
    SYSLOG_ACTION_CONSOLE_OFF, SYSLOG_ACTION_CONSOLE_ON, SYSLOG_ACTION_OPEN, SYSLOG_ACTION_READ,
    SYSLOG_ACTION_READ_ALL, SYSLOG_ACTION_READ_CLEAR, SYSLOG_ACTION_SIZE_BUFFER, SYSLOG_ACTION_SIZE_UNREAD, Sysinfo,
    UTS_LEN, Utsname,
};
use moat_abi::{Errno, Result};
use moat_host::random;
use moat_kernel::kernel::{RELEASE, VERSION};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::{UserAddr, UserPtr};
use moat_sync::executor::{end_turn, is_turn_over};
use moat_vfs::Fd;

use crate::arg::PathArg;

syscalls! { pub static TABLE;
    63 uname(buffer: UserPtr<Utsname>) sys_uname, full;
    99 sysinfo(buffer: UserPtr<Sysinfo>) sys_sysinfo, partial("loads are 0");
    170 sethostname(name: UserAddr, len: i32) sys_sethostname, full;
    171 setdomainname(name: UserAddr, len: i32) sys_setdomainname, full;
    318 getrandom(buffer: UserAddr, len: usize, flags: u32) async sys_getrandom, full;
    103 syslog(action: i32, buffer: UserAddr, len: i32) sys_syslog, partial("the log is empty");
    163 acct(file: PathArg) sys_refused, stub("EPERM");
    167 swapon(path: PathArg, flags: i32) sys_refused2, stub("EPERM");
    168 swapoff(path: PathArg) sys_refused, stub("EPERM");
    172 iopl(level: i32) sys_refused_level, stub("EPERM");
    173 ioperm(from: u64, count: u64, on: i32) sys_ioperm, stub("EPERM");
    175 init_module(image: UserAddr, len: u64, args: UserAddr) sys_init_module, stub("EPERM");
    176 delete_module(name: UserAddr, flags: u32) sys_delete_module, stub("EPERM");
    246 kexec_load(entry: u64, count: u64, segments: UserAddr, flags: u64) sys_kexec_load, stub("EPERM");
    313 finit_module(fd: Fd, args: UserAddr, flags: i32) sys_finit_module, stub("EPERM");
    321 bpf(command: i32, attr: UserAddr, size: u32) sys_bpf, stub("EPERM");
    298 perf_event_open(attr: UserAddr, pid: i32, cpu: i32, group: i32, flags: u64) sys_perf_event_open, stub("EACCES");
    169 reboot(magic1: u32, magic2: u32, command: u32, arg: u64) sys_reboot, stub("EPERM: the sandbox is stopped from outside");
}

fn put(text: &[u8]) -> [u8; UTS_LEN] {
    let mut field = [0; UTS_LEN];
    field.iter_mut().zip(text).take(UTS_LEN - 1).for_each(|(to, from)| *to = *from);
    field
}

fn sys_uname(t: &mut CurrentTask, buffer: UserPtr<Utsname>) -> SyscallResult {
    let uts = t.namespaces().uts.clone();
    let name = Utsname {
        sysname: put(b"Linux"),
        nodename: put(&uts.host_name()),
        release: put(RELEASE.as_bytes()),
        version: put(VERSION.as_bytes()),
        machine: put(b"x86_64"),
        domainname: put(&uts.domain_name()),
    };
    t.mm().write(buffer, &name)?;
    Ok(0)
}

fn sys_sysinfo(t: &mut CurrentTask, buffer: UserPtr<Sysinfo>) -> SyscallResult {
    let k = t.kernel();
    let procs = k.process_count();
    let total = t.group.container.allowance().shares().total_memory;
    let info = Sysinfo {
        uptime: i64::try_from(k.uptime_ns().div_ceil(1_000_000_000)).unwrap_or(i64::MAX),
        totalram: total,
        freeram: total / 2,
        procs: u16::try_from(procs).unwrap_or(u16::MAX),
        mem_unit: 1,
        ..Sysinfo::default()
    };
    t.mm().write(buffer, &info)?;
    Ok(0)
}

/// Reads a new host or domain name: at most 64 bytes, with CAP_SYS_ADMIN.
fn read_name(t: &CurrentTask, name: UserAddr, len: i32) -> Result<Vec<u8>> {
    if !t.creds().has_cap_in(&t.namespaces().uts.user_ns, Cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let len = usize::try_from(len).ok().filter(|n| *n < UTS_LEN).ok_or(Errno::EINVAL)?;
    let mut bytes = vec![0; len];
    t.mm().read_bytes(name, &mut bytes)?;
    // A name ends at its first zero byte.
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(len);
    bytes.truncate(end);
    Ok(bytes)
}

fn sys_sethostname(t: &mut CurrentTask, name: UserAddr, len: i32) -> SyscallResult {
    let name = read_name(t, name, len)?;
    t.namespaces().uts.set_host_name(name);
    Ok(0)
}

fn sys_setdomainname(t: &mut CurrentTask, name: UserAddr, len: i32) -> SyscallResult {
    let name = read_name(t, name, len)?;
    t.namespaces().uts.set_domain_name(name);
    Ok(0)
}

/// Bytes copied between looks at pending signals, as Linux does for long requests.
const RANDOM_CHUNK: usize = 4096;

async fn sys_getrandom(t: &mut CurrentTask, buffer: UserAddr, len: usize, flags: u32) -> SyscallResult {
    if flags & !(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE) != 0
        || flags & (GRND_RANDOM | GRND_INSECURE) == GRND_RANDOM | GRND_INSECURE
    {
        return Err(Errno::EINVAL.into());
    }
    // MAX_RW_COUNT.
    let len = len.min(0x7fff_f000);
    let mut chunk = [0u8; RANDOM_CHUNK];
    let mut done = 0usize;
    while done < len {
        let n = len.saturating_sub(done).min(RANDOM_CHUNK);
        let part = chunk.get_mut(..n).unwrap_or_default();
        random::fill(part);
        match t.mm().write_partial(buffer.add(done as u64)?, part) {
            Ok(w) => {
                done += w;
                if w < n {
                    break;
                }
            }
            // A fault after some progress gives the part (getrandom(2)).
            Err(e) if done == 0 => return Err(e.into()),
            Err(_) => break,
        }
        if done >= RANDOM_CHUNK && t.is_interrupted() {
            break;
        }
        if done < len && is_turn_over() {
            end_turn().await;
        }
    }
    Ok(done as u64)
}

fn sys_syslog(t: &mut CurrentTask, action: i32, buffer: UserAddr, len: i32) -> SyscallResult {
    if action == SYSLOG_ACTION_READ_ALL || action == SYSLOG_ACTION_SIZE_BUFFER {
        // dmesg_restrict is off: everybody may look.
    } else if !t.creds().has_root_cap(Cap::SYSLOG) {
        return Err(Errno::EPERM.into());
    }
    match action {
        SYSLOG_ACTION_READ | SYSLOG_ACTION_READ_ALL | SYSLOG_ACTION_READ_CLEAR if buffer.is_null() || len < 0 => {
            Err(Errno::EINVAL.into())
        }
        // As a kernel of the default size shows.
        SYSLOG_ACTION_SIZE_BUFFER => Ok(1 << 17),
        SYSLOG_ACTION_CLOSE
        | SYSLOG_ACTION_OPEN
        | SYSLOG_ACTION_READ
        | SYSLOG_ACTION_READ_ALL
        | SYSLOG_ACTION_READ_CLEAR
        | SYSLOG_ACTION_CLEAR
        | SYSLOG_ACTION_CONSOLE_OFF
        | SYSLOG_ACTION_CONSOLE_ON
        | SYSLOG_ACTION_CONSOLE_LEVEL
        | SYSLOG_ACTION_SIZE_UNREAD => Ok(0),
        _ => Err(Errno::EINVAL.into()),
    }
}

/// What only the host's administrator may do is refused to everybody inside.
const REFUSED: SyscallResult = Err(moat_kernel::SyscallError::Errno(Errno::EPERM));

fn sys_refused(_t: &mut CurrentTask, _path: PathArg) -> SyscallResult {
    REFUSED
}

fn sys_refused2(_t: &mut CurrentTask, _path: PathArg, _flags: i32) -> SyscallResult {
    REFUSED
}

fn sys_refused_level(_t: &mut CurrentTask, level: i32) -> SyscallResult {
    if !(0..=3).contains(&level) { Err(Errno::EINVAL.into()) } else { REFUSED }
}

fn sys_ioperm(_t: &mut CurrentTask, _from: u64, _count: u64, _on: i32) -> SyscallResult {
    REFUSED
}

fn sys_init_module(_t: &mut CurrentTask, _image: UserAddr, _len: u64, _args: UserAddr) -> SyscallResult {
    REFUSED
}

fn sys_delete_module(_t: &mut CurrentTask, _name: UserAddr, _flags: u32) -> SyscallResult {
    REFUSED
}

fn sys_kexec_load(_t: &mut CurrentTask, _entry: u64, _count: u64, _segments: UserAddr, _flags: u64) -> SyscallResult {
    REFUSED
}

fn sys_finit_module(_t: &mut CurrentTask, _fd: Fd, _args: UserAddr, _flags: i32) -> SyscallResult {
    REFUSED
}

fn sys_bpf(_t: &mut CurrentTask, _command: i32, _attr: UserAddr, _size: u32) -> SyscallResult {
    REFUSED
}

/// As with `perf_event_paranoid` 3.
fn sys_perf_event_open(
    _t: &mut CurrentTask,
    _attr: UserAddr,
    _pid: i32,
    _cpu: i32,
    _group: i32,
    _flags: u64,
) -> SyscallResult {
    Err(Errno::EACCES.into())
}

fn sys_reboot(_t: &mut CurrentTask, _magic1: u32, _magic2: u32, _command: u32, _arg: u64) -> SyscallResult {
    Err(Errno::EPERM.into())
}
