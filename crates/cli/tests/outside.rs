//! `moat --network=sandbox do`: the network that a command gets when no engine has made one.
//!
//! Takes root and python3 (in the sandbox, whose root is the host's), ip and unshare; says so where it has to be skipped. Everything is in a
//! network namespace of the test's own.

use std::process::{Command, Stdio};

/// In the namespace: a server with an address, then a command that talks to it, then what is left.
const SCRIPT: &str = r#"
set -e
ip link set lo up
ip addr add 10.9.8.1/32 dev lo
python3 -c '
import socket
listener = socket.create_server(("10.9.8.1", 7))
print("listens", flush=True)
connection, peer = listener.accept()
connection.sendall(b"you are " + peer[0].rsplit(".", 2)[0].encode())
connection.close()' > /dev/stderr 2>&1 &
server=$!
until ss -Hltn | grep -q 10.9.8.1:7; do sleep 0.05; done
"$MOAT" $FLAGS --network=sandbox do -- python3 -c '
import socket
there = socket.create_connection(("10.9.8.1", 7), timeout=10)
print(there.recv(100).decode())
print(open("/proc/net/route").read().split()[11:13])
'
wait $server
# The host takes its time to end a namespace, with which its devices go.
for look in $(seq 100); do ip -o link | grep -q moat || break; sleep 0.1; done
ip -o link | cut -d: -f2 | tr -d "\n"; echo
{ iptables-save 2>/dev/null || nft list ruleset; } | grep -c moat || true
cat /proc/sys/net/ipv4/ip_forward
"#;

/// In namespaces with a resolv.conf that names a resolver on the loopback device, which answers with its own address where it was asked for one.
const NAMES: &str = r#"
set -e
ip link set lo up
echo "nameserver 127.0.0.53" > $DIR/resolv.conf
mount --bind $DIR/resolv.conf /etc/resolv.conf
python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.53", 53))
print("serves", flush=True)
while True:
    q, a = s.recvfrom(4096)
    found = q[12:].startswith(b"\x04some\x07example")
    one = q[-4:-2] == b"\0\1" and found
    head = q[:2] + (b"\x81\x80" if found else b"\x81\x83") + b"\0\1" + (b"\0\1" if one else b"\0\0") + b"\0\0\0\0"
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\x01\0\4" + socket.inet_aton("10.9.8.7")
    s.sendto(head + q[12:] + (answer if one else b""), a)' > /dev/stderr 2>&1 &
server=$!
until ss -Hlun | grep -q 127.0.0.53:53; do sleep 0.05; done
"$MOAT" $FLAGS --network=sandbox do -- python3 -c '
import socket
print(socket.gethostbyname("some.example"))
try: print(socket.gethostbyname("other.example"))
except socket.gaierror as e: print("none")
'
kill $server
"#;

/// Whether what the tests take is there; says what is not.
fn can_run() -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: takes root");
        return false;
    }
    let is_missing = |program: &&str| {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
        !found.unwrap().success()
    };
    let missing = ["python3", "unshare", "ip", "ss", "iptables", "setpriv"].into_iter().find(is_missing);
    if let Some(program) = missing {
        eprintln!("skipped: no {program}");
    }
    missing.is_none()
}

#[test]
fn a_command_reaches_outside_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    for platform in ["systrap", "ptrace"] {
        let output = Command::new("unshare")
            .args(["--net", "sh", "-c", SCRIPT])
            .env("MOAT", env!("CARGO_BIN_EXE_moat"))
            .env("FLAGS", format!("--platform={platform}"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let want = "you are 172.29\n['eth0', '00000000']\n lo\n0\n1\n";
        assert_eq!(said, want, "{platform}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn names_are_asked_of_the_hosts_resolver_on_its_loopback_device() {
    if !can_run() {
        return;
    }
    let directory = std::env::temp_dir().join(format!("moat-names-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let output = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", NAMES])
        .env("MOAT", env!("CARGO_BIN_EXE_moat"))
        .env("DIR", &directory)
        .env("FLAGS", "")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "10.9.8.7\nnone\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn of_a_user_it_is_refused_by_name() {
    if !can_run() {
        return;
    }
    let output = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            env!("CARGO_BIN_EXE_moat"),
            "--network=sandbox",
            "do",
            "true",
        ])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("--network=sandbox of moat do is not supported: a network"),
        "{said}"
    );
}
