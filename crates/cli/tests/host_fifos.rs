//! `--host-fifo`: FIFOs that a container finds in a volume, with a process of the host at the other end.
//!
//! Takes root and python3 (in the container, whose root is the host's); says so where it has to be skipped. The same program runs
//! natively first, and has to say the same there.

mod shared_with_host;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use shared_with_host::{Directory, can_run};

/// What the guest does, in the directory that it is told.
const CLIENT: &str = r#"
import errno, fcntl, os, select, signal, struct, sys, termios, time
os.chdir(sys.argv[1])
def attempt(name, body):
    try:
        print(name, body(), flush=True)
    except OSError as e:
        print(name, errno.errorcode[e.errno], flush=True)
def opened(name, flags, body):
    fd = os.open(name, flags)
    try:
        return body(fd)
    finally:
        os.close(fd)
def unread(fd):
    return struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"1234"))[0]
def nobody():
    opened("idle", os.O_WRONLY | os.O_NONBLOCK, lambda fd: fd)
def read_of_nobody():
    def body(fd):
        p = select.poll()
        p.register(fd, select.POLLIN)
        return p.poll(0), os.read(fd, 9)
    return opened("idle", os.O_RDONLY | os.O_NONBLOCK, body)
def both():
    def body(fd):
        os.write(fd, b"to myself")
        return unread(fd), os.read(fd, 99), fcntl.fcntl(fd, 1032)
    return opened("idle", os.O_RDWR, body)
def seek():
    return opened("idle", os.O_RDWR, lambda fd: os.lseek(fd, 0, 0))
def interrupted():
    signal.signal(signal.SIGALRM, lambda *_: 1 / 0)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        os.open("idle", os.O_WRONLY)
    except ZeroDivisionError:
        return "by the signal"
def reads():
    # The host writes in two parts, with a pause, and closes.
    with open("to_guest", "rb") as f:
        return f.read(), os.fstat(f.fileno()).st_mode & 0o170000 == 0o010000
def writes():
    with open("to_host", "wb") as f:
        return f.write(b"x" * 200000)
def one_that_goes():
    # The host reads one byte and closes.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    fd = os.open("short", os.O_WRONLY)
    for _ in range(100):
        os.write(fd, b"y" * 4096)
        time.sleep(0.01)
def made_here():
    os.mkfifo("made", 0o600)
    return open("made", "rb").read()
for body in (nobody, read_of_nobody, both, seek, interrupted, reads, writes, one_that_goes, made_here):
    attempt(body.__name__, body)
"#;

const WANT: &str = "nobody ENXIO\nread_of_nobody ([], b'')\nboth (9, b'to myself', 65536)\nseek ESPIPE\n\
    interrupted by the signal\nreads (b'one two', True)\nwrites 200000\none_that_goes EPIPE\nmade_here b'from outside'\n";

fn make(path: &Path) {
    let file_type = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, path, file_type, 0o600.into(), 0).unwrap();
}

/// What the host does with the FIFOs of `dir`; gives what came out of `to_host`.
fn other_ends(dir: &Path) -> thread::JoinHandle<usize> {
    let dir = dir.to_owned();
    thread::spawn(move || {
        let open_to_write = |name| fs::OpenOptions::new().write(true).open(dir.join(name)).unwrap();
        let mut file = open_to_write("to_guest");
        file.write_all(b"one ").unwrap();
        thread::sleep(Duration::from_millis(100));
        file.write_all(b"two").unwrap();
        drop(file);
        // The guest waits in open(2) by now, or comes later.
        let mut came = Vec::new();
        fs::File::open(dir.join("to_host")).unwrap().read_to_end(&mut came).unwrap();
        fs::File::open(dir.join("short")).unwrap().read_exact(&mut [0]).unwrap();
        while !dir.join("made").exists() {
            thread::sleep(Duration::from_millis(5));
        }
        open_to_write("made").write_all(b"from outside").unwrap();
        came.len()
    })
}

/// What the program says when `command` runs it, and how much came out of `to_host`.
fn run(name: &str, command: impl FnOnce(&Path) -> Command) -> (String, usize) {
    let dir = Directory::new(&format!("fifos-{name}"));
    for name in ["idle", "to_guest", "to_host", "short"] {
        make(&dir.0.join(name));
    }
    let ends = other_ends(&dir.0);
    let output = command(&dir.0).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    // If the program ended early the other ends wait for ever.
    assert_eq!(said, WANT, "{name}");
    (said, ends.join().unwrap())
}

fn moat(flags: &[&str], dir: &Path, program: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moat"));
    command.args(flags).args(["do", &format!("--volume={}:/mnt", dir.display()), "--"]).args(program);
    command
}

#[test]
fn guests_share_fifos_with_the_host() {
    if !can_run() {
        return;
    }
    let natively = run("native", |dir| {
        let mut command = Command::new("python3");
        command.args(["-c", CLIENT]).arg(dir);
        command
    });
    assert_eq!(natively, (WANT.to_owned(), 200_000));
    for files in ["--directfs=true", "--directfs=false"] {
        let said = run(files, |dir| moat(&["--host-fifo=open", files], dir, &["python3", "-c", CLIENT, "/mnt"]));
        assert_eq!(said, natively, "{files}");
    }
}

#[test]
fn without_the_flag_a_fifo_is_the_sandbox_s_own() {
    if !can_run() {
        return;
    }
    let dir = Directory(std::env::temp_dir().join(format!("moat-fifos-none-{}", std::process::id())));
    fs::create_dir_all(&dir.0).unwrap();
    make(&dir.0.join("fifo"));
    // Open for both, so that nothing waits.
    let mut held = fs::OpenOptions::new().read(true).write(true).open(dir.0.join("fifo")).unwrap();
    held.write_all(b"of the host").unwrap();
    let script = "cat /mnt/fifo & echo of the guest >/mnt/fifo; wait";
    let output = moat(&[], &dir.0, &["sh", "-c", script]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "of the guest\n");
    let mut came = [0; 64];
    let n = held.read(&mut came).unwrap();
    assert_eq!(&came[..n], b"of the host");
}
