//! `--host-uds`: Unix sockets of the host that a container finds in a volume.
//!
//! Takes root and python3 (in the container, whose root is the host's); says so where it has to be skipped.

mod shared_with_host;

use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::{Command, Stdio};
use std::thread;

use shared_with_host::{Directory, can_run};

/// What the guest does: one connection, with the ends of both directions, a datagram, and what is not possible.
const CLIENT: &str = r#"
import errno, select, socket
def attempt(name, body):
    try:
        print(name, body())
    except OSError as e:
        print(name, errno.errorcode[e.errno])
def stream():
    s = socket.socket(socket.AF_UNIX)
    s.connect("/mnt/stream")
    s.sendall(b"hello " * 20000)
    s.shutdown(socket.SHUT_WR)
    ready = select.select([s], [], [], 10)[0] == [s]
    got = b""
    while part := s.recv(65536):
        got += part
    s.settimeout(5)
    return ready, len(got), got[:11], s.recv(1), s.getpeername()
def datagram():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.connect("/mnt/datagram")
    return s.send(b"one"), s.send(b"two two")
def descriptor():
    s = socket.socket(socket.AF_UNIX)
    s.connect("/mnt/stream")
    return socket.send_fds(s, [b"x"], [0])
def other_type():
    socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect("/mnt/stream")
def nobody():
    socket.socket(socket.AF_UNIX).connect("/mnt/nobody")
def own():
    here = socket.socket(socket.AF_UNIX)
    here.bind("/mnt/own")
    here.listen()
    there = socket.socket(socket.AF_UNIX)
    there.connect("/mnt/own")
    return here.accept()[0].send(b"ok"), there.recv(9)
for body in stream, datagram, descriptor, other_type, nobody, own:
    attempt(body.__name__, body)
"#;

/// What a container with these flags says, and the datagrams that came.
fn run(name: &str, flags: &[&str]) -> (String, Vec<Vec<u8>>) {
    let dir = Directory::new(&format!("sockets-{name}"));
    let listener = UnixListener::bind(dir.0.join("stream")).unwrap();
    let datagrams = UnixDatagram::bind(dir.0.join("datagram")).unwrap();
    drop(UnixListener::bind(dir.0.join("nobody")).unwrap());
    // Ends with the process.
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut text = Vec::new();
            let _ = stream.read_to_end(&mut text);
            let _ = stream.write_all(&text.to_ascii_uppercase());
        }
    });
    let volume = format!("--volume={}:/mnt", dir.0.display());
    let output = Command::new(env!("CARGO_BIN_EXE_moat"))
        .args(flags)
        .args(["do", &volume, "--", "python3", "-c", CLIENT])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    datagrams.set_nonblocking(true).unwrap();
    let mut came = Vec::new();
    let mut buffer = [0; 64];
    while let Ok(n) = datagrams.recv(&mut buffer) {
        came.push(buffer[..n].to_vec());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout) + &text(&output.stderr), came)
}

#[test]
fn guests_connect_to_sockets_of_the_host() {
    if !can_run() {
        return;
    }
    let want = "stream (True, 120000, b'HELLO HELLO', b'', '')\ndatagram (3, 7)\ndescriptor ENOTSUP\n\
        other_type EPROTOTYPE\nnobody ECONNREFUSED\nown (2, b'ok')\n";
    for files in ["--directfs=true", "--directfs=false"] {
        let (said, came) = run("open", &["--host-uds=open", files]);
        assert_eq!(said, want, "{files}");
        assert_eq!(came, [b"one".to_vec(), b"two two".to_vec()], "{files}");
    }
}

#[test]
fn without_the_flag_nobody_listens() {
    if !can_run() {
        return;
    }
    let (said, came) = run("none", &[]);
    let refused = "stream ECONNREFUSED\ndatagram ECONNREFUSED\ndescriptor ECONNREFUSED\n\
        other_type ECONNREFUSED\nnobody ECONNREFUSED\nown (2, b'ok')\n";
    assert_eq!((said.as_str(), came.len()), (refused, 0));
}
