//! Sockets over a veth pair whose other end is Linux's own stack: TCP both ways, UDP with fragments, ping, refusals; once over
//! a good wire, once with loss, delay and reordering (netem), once with ECN and cookies for all SYNs.
//!
//! Needs root and ip(8); says so and is skipped without.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moat_abi::socket::{
    AF_INET, AF_INET6, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_IP, MsgFlags, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM,
};
use moat_abi::{Errno, PollEvents};
use moat_identity::{Counter, NetNamespace, UserNamespace};
use moat_net_inet::{address, links, stack::NetStack};
use moat_net_link::PacketLink;
use moat_net_stack::{AddressConfig, LinkConfig, LinkDevice, LinkKind, NetworkConfig, RouteConfig, RouteKind};
use moat_sync::WaitQueue;
use moat_sync::reactor::Watch;
use moat_vfs::Registry;
use moat_vfs::caller::KernelCaller;
use moat_vfs::socket::{Outgoing, Socket, SocketKind, SocketMaker, SocketMemory};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

fn ip(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split_whitespace()).output();
    output.is_ok_and(|o| o.status.success())
}

/// Two namespaces and the pair between them; both go with it.
struct Wire {
    guest: String,
    peer: String,
}

impl Wire {
    fn new(name: &str) -> Option<Wire> {
        let id = std::process::id();
        let wire = Wire { guest: format!("moat-{name}-g{id}"), peer: format!("moat-{name}-p{id}") };
        let (g, p) = (&wire.guest, &wire.peer);
        let steps = [
            format!("netns add {g}"),
            format!("netns add {p}"),
            format!("-n {g} link add eth0 mtu 1500 type veth peer name eth0 netns {p}"),
            format!("-n {g} link set eth0 address 02:00:00:00:09:02 up"),
            format!("-n {p} link set eth0 up"),
            format!("-n {p} link set lo up"),
            format!("-n {p} addr add 10.9.0.1/24 dev eth0"),
            format!("-n {p} addr add fd09::1/64 dev eth0 nodad"),
        ];
        steps.iter().all(|s| ip(s)).then_some(wire)
    }

    /// Runs `f` in a thread in a namespace.
    fn within<R: Send + 'static>(name: &str, f: impl FnOnce() -> R + Send + 'static) -> std::thread::JoinHandle<R> {
        let file = File::open(format!("/run/netns/{name}")).expect("a namespace");
        std::thread::spawn(move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
            f()
        })
    }

    fn netem(&self, settings: &str) -> bool {
        [&self.guest, &self.peer].iter().all(|n| {
            let arguments = format!("-n {n} qdisc replace dev eth0 root netem {settings}");
            Command::new("tc").args(arguments.split_whitespace()).output().is_ok_and(|o| o.status.success())
        })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.guest));
        ip(&format!("netns del {}", self.peer));
    }
}

fn config() -> NetworkConfig {
    let address =
        |ip: &str, prefix_len| AddressConfig { ip: ip.parse().unwrap(), prefix_len, broadcast: None, scope: 0 };
    let route = |to: &str, prefix_len, gateway: Option<&str>| RouteConfig {
        destination: to.parse().unwrap(),
        prefix_len,
        gateway: gateway.map(|g| g.parse().unwrap()),
        link: 2,
        preferred_source: None,
        metric: 0,
        scope: 0,
        protocol: 2,
        table: 254,
        kind: RouteKind::Unicast,
        on_link: false,
        mtu: None,
    };
    NetworkConfig {
        links: vec![LinkConfig {
            name: "eth0".into(),
            index: 2,
            kind: LinkKind::Ethernet,
            mac: [2, 0, 0, 0, 9, 2],
            mtu: 1500,
            flags: 0x1043,
            queue_len: 1000,
            peer_index: None,
            driver: None,
            addresses: vec![address("10.9.0.2", 24), address("fd09::2", 64)],
        }],
        routes: vec![route("10.9.0.0", 24, None), route("0.0.0.0", 0, Some("10.9.0.1")), route("fd09::", 64, None)],
        neighbours: Vec::new(),
    }
}

/// A guest's network namespace over the wire.
struct Guest {
    net: Arc<NetNamespace>,
    caller: KernelCaller,
    inodes: Arc<Counter>,
    memory: Arc<SocketMemory>,
    registry: Registry,
    /// Has listened before the links came, as those of a restored sandbox do.
    early: Arc<dyn Socket>,
}

async fn serve(stack: Arc<NetStack>, queue: Arc<WaitQueue>, _watch: Watch) {
    let mut frames = queue.listen(PollEvents::IN);
    loop {
        while stack.link_readable(2) {}
        (&mut frames).await;
    }
}

impl Guest {
    fn new(wire: &Wire) -> Guest {
        let index = format!("-n {} -o link show eth0", wire.guest);
        let output = Command::new("ip").args(index.split_whitespace()).output().expect("ip");
        let text = String::from_utf8_lossy(&output.stdout).to_string();
        let index: u32 = text.split(':').next().and_then(|n| n.trim().parse().ok()).expect("a number");
        let socket = Wire::within(&wire.guest, move || moat_host::packet::open(index)).join().unwrap();
        let link = Arc::new(PacketLink::new(Arc::new(socket.expect("a packet socket"))));
        let user_ns = UserNamespace::root();
        let net = NetNamespace::new(1, user_ns.clone());
        let mut registry = Registry::default();
        moat_net_inet::register(&mut registry);
        let caller = KernelCaller::root(user_ns);
        let (inodes, memory) = (Arc::new(Counter::starting_at(1)), SocketMemory::unlimited());
        let early = {
            let maker = SocketMaker { caller: &caller, net: &net, inodes: &inodes, memory: &memory };
            let kind = SocketKind { family: AF_INET6, socket_type: SOCK_STREAM, protocol: IPPROTO_IP };
            registry.family(AF_INET6).unwrap().new_socket(&maker, kind).unwrap()
        };
        early.bind(&caller, address::format(AF_INET6, "[::]:7666".parse().unwrap()).as_bytes()).unwrap();
        early.listen(&caller, 16).unwrap();
        let devices = HashMap::from([(2, link.clone() as Arc<dyn LinkDevice>)]);
        let stack = links::add_links(&net, &config(), devices);
        let queue = Arc::new(WaitQueue::new());
        let watch = Watch::on_demand(link.socket().clone(), queue.clone()).unwrap();
        moat_sync::spawn(serve(stack, queue, watch));
        Guest { net, caller, inodes, memory, registry, early }
    }

    fn socket(&self, family: u16, socket_type: u32, protocol: u32) -> Arc<dyn Socket> {
        let maker = SocketMaker { caller: &self.caller, net: &self.net, inodes: &self.inodes, memory: &self.memory };
        let kind = SocketKind { family, socket_type, protocol };
        self.registry.family(family).unwrap().new_socket(&maker, kind).unwrap()
    }

    fn connect(&self, to: SocketAddr) -> Result<Arc<dyn Socket>, Errno> {
        let family = if to.is_ipv4() { AF_INET } else { AF_INET6 };
        let socket = self.socket(family, SOCK_STREAM, IPPROTO_IP);
        match socket.connect(&self.caller, address::format(family, to).as_bytes()) {
            Err(Errno::EINPROGRESS) => {}
            done => done?,
        }
        retry(|| socket.finish_connect())?;
        Ok(socket)
    }
}

/// Calls until there is something else than EAGAIN.
fn retry<R>(mut f: impl FnMut() -> Result<R, Errno>) -> Result<R, Errno> {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        match f() {
            Err(Errno::EAGAIN) if Instant::now() < limit => std::thread::sleep(Duration::from_micros(50)),
            done => return done,
        }
    }
}

fn read_some(socket: &dyn Socket, buffer: &mut [u8]) -> Result<usize, Errno> {
    retry(|| socket.receive(buffer, MsgFlags::empty())).map(|m| m.len)
}

fn pattern(at: usize) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13) as u8
}

fn write_all(socket: &dyn Socket, len: usize) {
    let data: Vec<u8> = (0..len).map(pattern).collect();
    let mut sent = 0;
    while sent < len {
        let end = len.min(sent + (1 << 18));
        sent += retry(|| socket.send(None, &mut Outgoing::plain(&data[sent..end]))).expect("send");
    }
}

fn read_all(socket: &dyn Socket, len: usize) {
    let mut buffer = vec![0; 1 << 18];
    let mut got = 0;
    loop {
        let n = read_some(socket, &mut buffer).expect("receive");
        if n == 0 {
            break;
        }
        for (i, b) in buffer[..n].iter().enumerate() {
            assert_eq!(*b, pattern(got + i), "byte {}", got + i);
        }
        got += n;
    }
    assert_eq!(got, len);
}

fn check_stream(mut stream: TcpStream, receive: usize, send: usize) {
    let mut got = Vec::new();
    if receive > 0 {
        stream.read_to_end(&mut got).expect("read");
        assert_eq!(got.len(), receive);
        assert!(got.iter().enumerate().all(|(i, b)| *b == pattern(i)));
    }
    let data: Vec<u8> = (0..send).map(pattern).collect();
    stream.write_all(&data).expect("write");
}

/// A stream to Linux and back from it; gives bytes per second each way.
fn bulk(guest: &Guest, wire: &Wire, ip: IpAddr, len: usize) -> (f64, f64) {
    let (tell, told) = std::sync::mpsc::channel();
    let server = Wire::within(&wire.peer, move || {
        let listener = TcpListener::bind((ip, 0)).expect("bind");
        tell.send(listener.local_addr().unwrap()).unwrap();
        check_stream(listener.accept().unwrap().0, len, len);
    });
    let socket = guest.connect(told.recv().unwrap()).expect("connect");
    let began = Instant::now();
    write_all(&*socket, len);
    socket.shutdown(moat_vfs::socket::Shutdown::Write).unwrap();
    let middle = Instant::now();
    read_all(&*socket, len);
    let rate = |d: Duration| len as f64 / d.as_secs_f64() / 1e6;
    let rates = (rate(middle - began), rate(middle.elapsed()));
    server.join().expect("the server's checks");
    socket.release();
    rates
}

fn everything(guest: &Guest, wire: &Wire, len: usize) {
    for ip in ["10.9.0.1", "fd09::1"] {
        let (up, down) = bulk(guest, wire, ip.parse().unwrap(), len);
        eprintln!("{ip}: {up:.0} MB/s to Linux, {down:.0} MB/s from it");
    }
    // Linux connects to the guest.
    let listener = guest.socket(AF_INET6, SOCK_STREAM, IPPROTO_IP);
    listener.bind(&guest.caller, address::format(AF_INET6, "[::]:7777".parse().unwrap()).as_bytes()).unwrap();
    listener.listen(&guest.caller, 16).unwrap();
    let listeners = [&listener, &listener, &guest.early];
    for (to, listener) in ["10.9.0.2:7777", "[fd09::2]:7777", "10.9.0.2:7666"].into_iter().zip(listeners) {
        let to: SocketAddr = to.parse().unwrap();
        let client = Wire::within(&wire.peer, move || {
            let stream = TcpStream::connect(to).expect("connect to the guest");
            check_stream(stream.try_clone().unwrap(), 0, 100_000);
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            check_stream(stream, 50_000, 0);
        });
        let socket = retry(|| listener.accept(&guest.caller)).unwrap();
        read_all(&*socket, 100_000);
        write_all(&*socket, 50_000);
        socket.release();
        client.join().expect("the client's checks");
    }
    listener.release();
}

fn datagrams(guest: &Guest, wire: &Wire) {
    let (tell, told) = std::sync::mpsc::channel();
    let server = Wire::within(&wire.peer, move || {
        let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
        tell.send(socket.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 65536];
        for _ in 0..3 {
            let (n, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&buffer[..n], from).unwrap();
        }
    });
    let to = address::format(AF_INET, told.recv().unwrap());
    let socket = guest.socket(AF_INET, SOCK_DGRAM, IPPROTO_IP);
    for len in [0, 100, 20_000] {
        let data: Vec<u8> = (0..len).map(pattern).collect();
        let mut message = Outgoing { to: Some(to.as_bytes()), ..Outgoing::plain(&data) };
        socket.send(None, &mut message).expect("send");
        let mut buffer = vec![0; 65536];
        let got = retry(|| socket.receive(&mut buffer, MsgFlags::empty())).expect("an answer");
        assert_eq!(buffer[..got.len], data[..]);
    }
    server.join().unwrap();
    // Nobody has the port: a connected socket is told.
    let nobody = address::format(AF_INET, "10.9.0.1:9".parse().unwrap());
    socket.connect(&guest.caller, nobody.as_bytes()).unwrap();
    socket.send(None, &mut Outgoing::plain(b"x")).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(retry(|| socket.receive(&mut buffer, MsgFlags::empty())).err(), Some(Errno::ECONNREFUSED));
    socket.release();
}

fn echoes(guest: &Guest, wire: &Wire) {
    for (family, protocol, kind, reply, to) in
        [(AF_INET, IPPROTO_ICMP, 8, 0, "10.9.0.1:0"), (AF_INET6, IPPROTO_ICMPV6, 128, 129, "[fd09::1]:0")]
    {
        let socket = guest.socket(family, SOCK_RAW, protocol);
        let mut echo = vec![kind, 0, 0, 0, 7, 7, 0, 1, 1, 2, 3];
        let sum = moat_net_stack::internet_checksum(&echo).to_be_bytes();
        echo[2..4].copy_from_slice(&sum);
        let to = address::format(family, to.parse().unwrap());
        socket.send(None, &mut Outgoing { to: Some(to.as_bytes()), ..Outgoing::plain(&echo) }).unwrap();
        loop {
            let mut buffer = [0; 256];
            let got = retry(|| socket.receive(&mut buffer, MsgFlags::empty())).expect("a reply");
            let message = &buffer[if family == AF_INET { 20 } else { 0 }..got.len];
            if message[0] == reply {
                assert_eq!(message[4..], echo[4..]);
                break;
            }
        }
        socket.release();
    }
    for to in ["10.9.0.2", "fd09::2"] {
        let done = Command::new("ip").args(["netns", "exec", &wire.peer, "ping", "-c", "1", "-W", "5", to]).output();
        match done {
            Ok(o) if o.status.code() == Some(255) || o.status.code() == Some(1) && o.stdout.is_empty() => {
                eprintln!("skipped: ping(8) is not there");
            }
            Ok(o) => assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stdout)),
            Err(_) => eprintln!("skipped: ping(8) is not there"),
        }
    }
}

fn round_trips(guest: &Guest, wire: &Wire) {
    let (tell, told) = std::sync::mpsc::channel();
    let server = Wire::within(&wire.peer, move || {
        let listener = TcpListener::bind("10.9.0.1:0").unwrap();
        tell.send(listener.local_addr().unwrap()).unwrap();
        let mut stream = listener.accept().unwrap().0;
        stream.set_nodelay(true).unwrap();
        let mut byte = [0];
        while stream.read(&mut byte).unwrap() == 1 {
            stream.write_all(&byte).unwrap();
        }
    });
    let socket = guest.connect(told.recv().unwrap()).unwrap();
    let began = Instant::now();
    let mut byte = [0];
    for i in 0..200u8 {
        retry(|| socket.send(None, &mut Outgoing::plain(&[i]))).unwrap();
        assert_eq!((read_some(&*socket, &mut byte), byte[0]), (Ok(1), i));
    }
    eprintln!("a round trip: {:?}", began.elapsed() / 200);
    socket.release();
    server.join().unwrap();
}

fn all(wire: &Wire) {
    let guest = Guest::new(wire);
    echoes(&guest, wire);
    datagrams(&guest, wire);
    let refused = guest.connect("10.9.0.1:9".parse().unwrap()).err();
    assert_eq!(refused, Some(Errno::ECONNREFUSED));
    let nowhere = guest.connect("10.9.0.77:9".parse().unwrap()).err();
    assert_eq!(nowhere, Some(Errno::EHOSTUNREACH));
    round_trips(&guest, wire);
    everything(&guest, wire, 64 << 20);
    if wire.netem("loss 1% delay 5ms 1ms reorder 2%") {
        everything(&guest, wire, 2 << 20);
    } else {
        eprintln!("skipped: tc with netem is not there");
    }
    marks_and_cookies(&guest, wire);
}

/// Both ends ask for ECN, on a wire that marks in place of losing where there is netem; each SYN of Linux's is answered by a cookie.
fn marks_and_cookies(guest: &Guest, wire: &Wire) {
    let asks = Wire::within(&wire.peer, || std::fs::write("/proc/sys/net/ipv4/tcp_ecn", "1")).join().unwrap();
    if asks.is_err() || !wire.netem("loss 1% ecn delay 2ms") {
        eprintln!("no marks: Linux does not ask for ECN, or tc with netem is not there");
    }
    guest.net.settings.tcp.ecn.set(1).unwrap();
    guest.net.settings.tcp.syncookies.set(2).unwrap();
    everything(guest, wire, 2 << 20);
    let totals = moat_net_inet::stack::stack_of(&guest.net).unwrap().change(|s| s.totals());
    assert!(totals.tcp_cookies_sent > 0 && totals.tcp_cookies_received > 0, "{totals:?}");
    assert_eq!(totals.tcp_cookies_failed, 0);
}

#[test]
fn linux_and_this_stack_understand_each_other() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let Some(wire) = Wire::new("veth") else {
        eprintln!("skipped: ip(8) can't make namespaces and a veth pair");
        return;
    };
    moat_sync::executor::init().unwrap();
    let work = std::thread::spawn(move || {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| all(&wire)));
        drop(wire);
        moat_sync::executor::stop();
        done.expect("all of it");
    });
    moat_sync::executor::run(1);
    work.join().unwrap();
}
