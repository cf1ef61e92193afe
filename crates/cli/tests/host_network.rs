//! Network mode `host` seen from outside: both ends of connections, one in the sandbox and one not, in a network namespace
//! that the test makes.
//!
//! The test program runs itself, with [`ROLE`] set: in the namespace, and from there in the sandbox, which shows the host's
//! root file system.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

const ROLE: &str = "MOAT_HOST_NETWORK_TEST_ROLE";
const TIMEOUT: Duration = Duration::from_secs(20);
/// An ordinary user.
const USER: u32 = 12345;

/// What a run of this program does. Without [`ROLE`] it is a test that passes.
#[test]
fn role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.split_once(' ').unwrap_or((&role, "")) {
        ("serve", address) => serve(address),
        ("dial", address) => assert_eq!(ask(address.parse().unwrap(), "from inside"), "FROM INSIDE"),
        ("no-dial", address) => assert!(TcpStream::connect(address).is_err()),
        ("outside", platform) => outside(platform),
        ("rootless", _) => rootless(),
        other => panic!("no role {other:?}"),
    }
}

/// Answers one connection in capital letters.
fn serve(address: &str) {
    let listener = TcpListener::bind(address).unwrap();
    println!("\nport {}", listener.local_addr().unwrap().port());
    answer(&listener);
}

fn answer(listener: &TcpListener) {
    let (mut peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut text = String::new();
    peer.read_to_string(&mut text).unwrap();
    peer.write_all(text.to_uppercase().as_bytes()).unwrap();
}

fn ask(address: SocketAddr, text: &str) -> String {
    let mut peer = TcpStream::connect(address).unwrap();
    peer.set_read_timeout(Some(TIMEOUT)).unwrap();
    peer.write_all(text.as_bytes()).unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    peer.read_to_string(&mut answer).unwrap();
    answer
}

/// This program again, started by `before`.
fn again(mut before: Command, role: &str) -> Command {
    let program = std::env::current_exe().unwrap();
    before.arg(program).args(["--exact", "role", "--nocapture"]).env(ROLE, role);
    before
}

fn in_sandbox(flags: &[&str], role: &str) -> Command {
    let mut moat = Command::new(env!("CARGO_BIN_EXE_moat"));
    moat.args(flags).args(["do", "--env", &format!("{ROLE}={role}")]).current_dir("/");
    again(moat, role)
}

fn passes(mut command: Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A sandbox that serves.
struct Server {
    child: Child,
    /// Stays open: what is printed later must not fail.
    stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(mut command: Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Server { child, stdout }
    }

    /// The port that it says.
    fn port(&mut self) -> u16 {
        let mut ports = self.stdout.by_ref().lines().map_while(Result::ok);
        ports.find_map(|line| line.strip_prefix("port ")?.parse().ok()).expect("the server's port")
    }

    fn end(mut self, what: &str) {
        assert!(self.child.wait().unwrap().success(), "{what}");
    }
}

fn outside(platform: &str) {
    let flags = ["--network", "host", "--platform", platform];
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    for (bind, ip) in [("127.0.0.1:0", v4), ("[::]:0", v6), ("[::]:0", v4), ("127.0.0.1:79", v4)] {
        let mut server = Server::start(in_sandbox(&flags, &format!("serve {bind}")));
        assert_eq!(ask(SocketAddr::new(ip, server.port()), "from outside"), "FROM OUTSIDE", "{bind}");
        server.end(bind);
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let dialled = std::thread::spawn(move || answer(&listener));
    passes(in_sandbox(&["--platform", platform], &format!("no-dial {address}")));
    passes(in_sandbox(&flags, &format!("dial {address}")));
    dialled.join().unwrap();
}

fn rootless() {
    let mut command = in_sandbox(&["--network", "host"], "serve 127.0.0.1:0");
    command.uid(USER).gid(USER);
    let mut server = Server::start(command);
    assert_eq!(ask(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), server.port()), "x"), "X");
    server.end("rootless");
}

/// Runs a role in a new network namespace with the loopback device up, as root only.
fn in_namespace(role: &str) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: making a network namespace takes root");
        return;
    }
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
    passes(again(unshare, role));
}

#[test]
fn connections_in_both_directions_on_systrap() {
    in_namespace("outside systrap");
}

#[test]
fn connections_in_both_directions_on_ptrace() {
    in_namespace("outside ptrace");
}

#[test]
fn an_ordinary_user_has_its_own_sockets() {
    in_namespace("rootless");
}
