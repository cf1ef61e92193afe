//! `--host-uds=create`: Unix sockets that a container binds in a volume, for processes of the host to connect to.
//!
//! Takes root and python3 (in the container, whose root is the host's); says so where it has to be skipped.

mod shared_with_host;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use shared_with_host::{Directory, can_run};

/// A name that is too long to be bound by its directory's descriptor.
const LONG: &str = "a-name-that-does-not-fit-into-an-address-behind-the-number-of-its-directory-0123456789-0123456789";

/// What the guest does; it waits for a line on its stdin where the host has to do something first.
const SERVER: &str = r#"
import errno, os, select, socket, struct, sys
LONG = sys.argv[1]
def said(line):
    print(line, flush=True)
    assert sys.stdin.readline(), "the test has ended"
def bound(kind, name):
    s = socket.socket(socket.AF_UNIX, kind)
    s.bind(name)
    return s
def attempt(name, body):
    try:
        print(name, body())
    except OSError as e:
        print(name, errno.errorcode[e.errno])
os.chdir("/mnt")
os.umask(0o027)
stream = bound(socket.SOCK_STREAM, "/mnt/stream")
packets = bound(socket.SOCK_SEQPACKET, LONG)
datagrams = bound(socket.SOCK_DGRAM, "datagrams")
os.setegid(7)
os.seteuid(7)
other = bound(socket.SOCK_STREAM, "others/other")
os.seteuid(0)
os.setegid(0)
print(oct(os.lstat("stream").st_mode), stream.getsockname())
os.symlink("/tmp/elsewhere", "link")
attempt("there", lambda: bound(socket.SOCK_STREAM, "stream"))
attempt("link", lambda: bound(socket.SOCK_STREAM, "link"))
attempt("no right", lambda: datagrams.listen())
said("bound")
stream.listen(2)
packets.listen()
ready = select.epoll()
for s in stream, packets, datagrams:
    ready.register(s, select.EPOLLIN)
said("listening")
seen = set()
while len(seen) < 3:
    seen.update(fd for fd, _ in ready.poll(10))
c, name = stream.accept()
print("accepted", name, c.getsockname(), c.getpeername())
print("by", struct.unpack("iII", c.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))
text = b""
while part := c.recv(65536):
    text += part
c.sendall(text.upper())
c.shutdown(socket.SHUT_WR)
p, _ = packets.accept()
print(p.recv(100), p.recv(100), p.recv(100))
p.send(b"three")
print(datagrams.recvfrom(100), datagrams.recvfrom(100))
own = socket.socket(socket.AF_UNIX)
own.connect("/mnt/stream")
here, _ = stream.accept()
socket.send_fds(own, [b"x"], [0])
print("own", len(socket.recv_fds(here, 9, 9)[1]))
unbound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
unbound.sendto(b"own", "/mnt/datagrams")
print(datagrams.recvfrom(9))
attempt("to the host", lambda: unbound.sendto(b"to the host", "/mnt/of-the-host"))
datagrams.shutdown(socket.SHUT_RD)
os.rename("stream", "moved")
os.chmod("moved", 0o700)
said("moved")
stream.shutdown(socket.SHUT_RD)
attempt("accept", lambda: stream.accept())
said("shut")
stream.close()
os.unlink(LONG)
said("closed")
"#;

/// A guest that talks with the test.
struct Guest {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Guest {
    fn start(dir: &Path, flags: &[&str], script: &str) -> Guest {
        let mut child = Command::new(env!("CARGO_BIN_EXE_moat"))
            .args(flags)
            .args(["do", &format!("--volume={}:/mnt", dir.display()), "--", "python3", "-c", script, LONG])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Guest { child, stdin, stdout }
    }

    /// What it says until it says `last`.
    fn until(&mut self, last: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "it has ended after {lines:?}");
            if line.trim_end() == last {
                return lines;
            }
            lines.push(line.trim_end().to_owned());
        }
    }

    fn go_on(&mut self) {
        self.stdin.write_all(b"\n").unwrap();
    }

    fn end(mut self) {
        self.go_on();
        assert!(self.child.wait().unwrap().success());
    }
}

fn error_of(attempt: std::io::Result<UnixStream>) -> ErrorKind {
    attempt.expect_err("nobody listens").kind()
}

fn connected_packets(at: &Path) -> OwnedFd {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(at).unwrap()).unwrap();
    socket
}

/// The whole life of a guest's sockets, as a process of the host sees it.
fn serve(name: &str, flags: &[&str], sends_to_the_host: &str) {
    let dir = Directory::new(&format!("bound-{name}"));
    let at = |name: &str| dir.0.join(name);
    let of_the_host = UnixDatagram::bind(at("of-the-host")).unwrap();
    fs::create_dir(at("others")).unwrap();
    std::os::unix::fs::chown(at("others"), Some(7), Some(7)).unwrap();
    let mut guest = Guest::start(&dir.0, flags, SERVER);

    let said = guest.until("bound");
    assert_eq!(said, ["0o140750 /mnt/stream", "there EADDRINUSE", "link EADDRINUSE", "no right ENOTSUP"], "{flags:?}");
    let node = fs::symlink_metadata(at("stream")).unwrap();
    assert!(node.file_type().is_socket() && node.mode() & 0o7777 == 0o750 && node.uid() == 0);
    let node = fs::symlink_metadata(at("others/other")).unwrap();
    assert_eq!((node.uid(), node.gid(), node.mode() & 0o7777), (7, 7, 0o750));
    assert_eq!(error_of(UnixStream::connect(at("stream"))), ErrorKind::ConnectionRefused);
    assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("/tmp/elsewhere"));
    guest.go_on();

    assert!(guest.until("listening").is_empty());
    // One after the other, so that the sleeper is woken by each.
    guest.go_on();
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(at("client")).unwrap()).unwrap();
    rustix::net::connect(&socket, &SocketAddrUnix::new(at("stream")).unwrap()).unwrap();
    let mut stream = UnixStream::from(socket);
    let sent = "hello ".repeat(20_000);
    stream.write_all(sent.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // The name is longer than an address has room for beside the directory.
    std::os::unix::fs::symlink(at(LONG), at("short")).unwrap();
    let packets = connected_packets(&at("short"));
    rustix::net::send(&packets, b"one", SendFlags::empty()).unwrap();
    rustix::net::send(&packets, b"two", SendFlags::empty()).unwrap();
    rustix::net::shutdown(&packets, rustix::net::Shutdown::Write).unwrap();
    let named = UnixDatagram::bind(at("sender")).unwrap();
    named.send_to(b"datagram", at("datagrams")).unwrap();
    UnixDatagram::unbound().unwrap().send_to(b"of nobody", at("datagrams")).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text == sent.to_uppercase());
    let mut buffer = [0; 16];
    let (length, _) = rustix::net::recv(&packets, &mut buffer, RecvFlags::empty()).unwrap();
    assert_eq!(&buffer[..length], b"three");

    let client = at("client").display().to_string();
    let want = [
        format!("accepted {client} /mnt/stream {client}"),
        "by (0, 0, 0)".into(),
        "b'one' b'two' b''".into(),
        format!("(b'datagram', '{}') (b'of nobody', None)", at("sender").display()),
        "own 1".into(),
        "(b'own', None)".into(),
        format!("to the host {sends_to_the_host}"),
    ];
    assert_eq!(guest.until("moved"), want, "{flags:?}");
    of_the_host.set_nonblocking(true).unwrap();
    assert_eq!(of_the_host.recv(&mut buffer).is_ok(), sends_to_the_host == "11");
    let moved = fs::symlink_metadata(at("moved")).unwrap();
    assert_eq!(moved.mode() & 0o7777, 0o700);
    drop(UnixStream::connect(at("moved")).unwrap());
    guest.go_on();

    // The connection that was waiting is accepted first, as on Linux.
    let said = guest.until("shut");
    assert!(said.len() == 1 && said[0].starts_with("accept (<socket"), "{said:?}");
    assert_eq!(error_of(UnixStream::connect(at("moved"))), ErrorKind::ConnectionRefused);
    guest.go_on();
    guest.until("closed");
    assert_eq!(error_of(UnixStream::connect(at("moved"))), ErrorKind::ConnectionRefused);
    assert!(!fs::exists(at(LONG)).unwrap() && fs::exists(at("moved")).unwrap());
    guest.end();
    // None that the host had for a moment is left.
    let left = fs::read_dir(&dir.0).unwrap().filter(|e| e.as_ref().unwrap().file_name().as_encoded_bytes()[0] == b'.');
    assert_eq!(left.count(), 0);
}

#[test]
fn processes_of_the_host_connect_to_sockets_of_guests() {
    if can_run() {
        for files in ["--directfs=true", "--directfs=false"] {
            serve("create", &["--host-uds=create", files], "ECONNREFUSED");
            serve("all", &["--host-uds=all", files], "11");
        }
    }
}

#[test]
fn a_server_of_the_network_mode_host_is_found_too() {
    if can_run() {
        serve("network", &["--host-uds=all", "--network=host"], "11");
    }
}

/// As a guest without the flag sees it, and the host beside it.
#[test]
fn without_create_what_guests_bind_is_their_own() {
    if !can_run() {
        return;
    }
    const SCRIPT: &str = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.bind('/mnt/own')\ns.listen()\n\
        print('listening', flush=True)\nsys.stdin.readline()";
    for flags in [&["--host-uds=none"][..], &["--host-uds=open"], &["--host-uds=open", "--directfs=false"]] {
        let dir = Directory::new("bound-own");
        let mut guest = Guest::start(&dir.0, flags, SCRIPT);
        guest.until("listening");
        assert_eq!(error_of(UnixStream::connect(dir.0.join("own"))), ErrorKind::ConnectionRefused, "{flags:?}");
        guest.end();
    }
}

/// A listener of the host that takes no more connections for now holds a guest up, and does not hang it.
#[test]
fn a_guest_waits_for_a_listener_of_the_host_that_has_no_room() {
    if !can_run() {
        return;
    }
    const SCRIPT: &str = "import socket, struct, sys\ndef new():\n    return socket.socket(socket.AF_UNIX)\n\
        first = new()\nfirst.connect('/mnt/full')\n\
        busy = new()\nbusy.setblocking(False)\nprint(busy.connect_ex('/mnt/full'))\n\
        late = new()\nlate.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack('ll', 0, 50000))\n\
        print(late.connect_ex('/mnt/full'))\nprint('full', flush=True)\n\
        s = new()\ns.connect('/mnt/full')\nprint(s.recv(9), flush=True)";
    for files in ["--directfs=true", "--directfs=false"] {
        let dir = Directory::new("bound-full");
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(dir.0.join("full")).unwrap()).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let listener = UnixListener::from(socket);
        let mut guest = Guest::start(&dir.0, &["--host-uds=open", files], SCRIPT);
        assert_eq!(guest.until("full"), ["11", "11"], "{files}");
        let first = listener.accept().unwrap();
        let mut second = listener.accept().unwrap().0;
        second.write_all(b"welcome").unwrap();
        guest.until("b'welcome'");
        drop(first);
        assert!(guest.child.wait().unwrap().success());
    }
}
