//! The sandbox process's seccomp filter, tried out in a child of the test.
//!
//! The test program runs itself with [`MODE`] set; that run goes under the filter and does what the mode says.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use moat_abi::socket::{SO_ATTACH_FILTER, SO_REUSEADDR, SOL_SOCKET};
use moat_control::spec::{FileAccess, HostNodes, NetworkMode, PlatformKind};
use moat_host::net::{get_option, local_address, set_option};
use moat_jail::seccomp::Refusal;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, listen, socket_with};

const MODE: &str = "MOAT_SECCOMP_TEST_MODE";
/// Begins the modes that are about network mode `host`.
const HOST: &str = "host-";
const SIGSYS: i32 = 31;

/// The child's part. Without [`MODE`] it is a test that passes.
#[test]
fn child() {
    let Ok(mode) = std::env::var(MODE) else { return };
    let network = if mode.starts_with(HOST) { NetworkMode::Host } else { NetworkMode::None };
    rustix::thread::set_no_new_privs(true).unwrap();
    moat_sentry::boot::seccomp::install_for(
        PlatformKind::Systrap,
        FileAccess::Direct,
        network,
        HostNodes::default(),
        Refusal::Kill,
    )
    .unwrap();
    let refused = match mode.as_str() {
        "thread" => std::thread::spawn(|| vec![1u8; 4 << 20].len()).join().unwrap() != 4 << 20,
        "exec" | "host-exec" => Command::new("/bin/true").status().is_err(),
        "socket" => std::net::TcpStream::connect("127.0.0.1:9").is_err(),
        "open" => std::fs::File::open("/etc/passwd").is_err(),
        "mount" => rustix::mount::unmount("/nowhere", rustix::mount::UnmountFlags::empty()).is_err(),
        "host-tcp" => !tcp_works(),
        "host-unix" => socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None).is_err(),
        "host-packet" => socket_with(AddressFamily::PACKET, SocketType::RAW, FLAGS, None).is_err(),
        "host-audit" => socket_with(AddressFamily::NETLINK, SocketType::RAW, FLAGS, protocol(9)).is_err(),
        "host-filter" => set_option(tcp(), SOL_SOCKET, SO_ATTACH_FILTER, &[0; 16]).is_err(),
        other => panic!("unknown mode {other}"),
    };
    std::process::exit(i32::from(refused));
}

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

fn protocol(number: u32) -> Option<Protocol> {
    std::num::NonZeroU32::new(number).map(Protocol::from_raw)
}

fn tcp() -> OwnedFd {
    socket_with(AddressFamily::INET, SocketType::STREAM, FLAGS, Some(ipproto::TCP)).unwrap()
}

fn tcp_works() -> bool {
    let (socket, mut value) = (tcp(), [0; 4]);
    set_option(&socket, SOL_SOCKET, SO_REUSEADDR, &1i32.to_ne_bytes()).unwrap();
    get_option(&socket, SOL_SOCKET, SO_REUSEADDR, &mut value).unwrap();
    listen(&socket, 1).unwrap();
    local_address(&socket, &mut [0; 128]) == Ok(16) && i32::from_ne_bytes(value) == 1
}

fn run(mode: &str) -> ExitStatus {
    let program = std::env::current_exe().unwrap();
    Command::new(program).args(["--exact", "child", "--test-threads=1"]).env(MODE, mode).status().unwrap()
}

#[test]
fn threads_and_memory_work() {
    assert_eq!(run("thread").code(), Some(0));
}

#[test]
fn what_an_attacker_wants_kills() {
    for mode in ["exec", "socket", "mount"] {
        assert_eq!(run(mode).signal(), Some(SIGSYS), "{mode}");
    }
}

#[test]
fn the_host_s_network_is_internet_sockets_only() {
    assert_eq!(run("host-tcp").code(), Some(0));
    for mode in ["host-unix", "host-packet", "host-audit", "host-filter", "host-exec"] {
        assert_eq!(run(mode).signal(), Some(SIGSYS), "{mode}");
    }
}

/// It fails rather than kills: the C library looks for a file of /proc now and then.
#[test]
fn files_cannot_be_opened_by_path() {
    assert_eq!(run("open").code(), Some(1));
}
