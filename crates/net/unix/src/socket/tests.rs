//! Unit tests of [`super`].

use super::*;
use moat_abi::PollEvents;
use moat_abi::fs::OpenFlags;
use moat_identity::UserNamespace;
use moat_vfs::socket::{Outgoing, Socket, SocketMemory};
use moat_vfs::{KernelCaller, OpenFile, Vfs};

fn pair(socket_type: u32) -> (Arc<OpenFile>, Arc<OpenFile>) {
    pair_of(&fake_vfs(), &Arc::default(), socket_type)
}

fn fake_vfs() -> Vfs {
    moat_vfs::vfs::fake::vfs(moat_vfs::Registry::default())
}

fn pair_of(vfs: &Vfs, family: &Arc<UnixFamily>, socket_type: u32) -> (Arc<OpenFile>, Arc<OpenFile>) {
    pair_within(vfs, family, &SocketMemory::unlimited(), socket_type)
}

fn pair_within(
    vfs: &Vfs,
    family: &Arc<UnixFamily>,
    memory: &Arc<SocketMemory>,
    socket_type: u32,
) -> (Arc<OpenFile>, Arc<OpenFile>) {
    let caller = KernelCaller::root(UserNamespace::root());
    let net = NetNamespace::new(1, UserNamespace::root());
    let kind = SocketKind { family: AF_UNIX, socket_type, protocol: 0 };
    let maker = SocketMaker { caller: &caller, net: &net, inodes: &vfs.ids.inodes, memory };
    let (a, b) = family.new_pair(&maker, kind).unwrap();
    let open = |s| vfs.open_socket(s, &net, OpenFlags::empty(), caller.creds());
    (open(a), open(b))
}

fn socket(f: &OpenFile) -> &UnixSocket {
    moat_vfs::socket::SocketFile::of(f).unwrap().downcast().unwrap()
}

fn send_files(from: &OpenFile, files: &[&Arc<OpenFile>]) {
    let mut m = Outgoing::plain(b"f");
    m.ancillary.files = files.iter().map(|f| Arc::clone(f)).collect();
    assert_eq!(socket(from).send(None, &mut m), Ok(1));
    assert!(m.ancillary.is_empty());
}

#[test]
fn a_full_stream_wakes_its_writer_late() {
    let (a, b) = pair(SOCK_STREAM);
    let block = vec![7; 100_000];
    let mut sent = 0;
    while let Ok(n) = a.write(&block) {
        sent += n;
    }
    assert_eq!((sent, a.write(b"x")), (212_992, Err(Errno::EAGAIN)));
    let mut buf = vec![0; sent];
    assert_eq!(b.read(&mut buf[..1000]), Ok(1000));
    assert!(!a.poll().contains(PollEvents::OUT), "a quarter must be free");
    assert_eq!(b.read(&mut buf), Ok(sent - 1000));
    assert!(a.poll().contains(PollEvents::OUT));
    assert_eq!(socket(&a).endpoint.unreceived(), 0);
}

#[test]
fn a_container_s_sockets_hold_no_more_than_it_may() {
    let (vfs, family, memory) = (fake_vfs(), Arc::default(), SocketMemory::new(8 * 100_000));
    let mut pairs = Vec::new();
    for socket_type in [SOCK_STREAM, SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET] {
        let (a, b) = pair_within(&vfs, &family, &memory, socket_type);
        while a.write(&[7; 1000]).is_ok() {}
        assert!(!a.poll().contains(PollEvents::OUT));
        pairs.push((a, b));
    }
    // The first has taken it all; the others get a page's worth each, and a whole message.
    assert!((100_000..120_000).contains(&memory.used()), "{}", memory.used());
    let (dgram, _reader) = pair_within(&vfs, &family, &memory, SOCK_DGRAM);
    assert_eq!(dgram.write(&[7; 50_000]), Err(Errno::ENOBUFS));
    let (a, b) = pairs.remove(1);
    let mut buf = [0; 1 << 16];
    while b.read(&mut buf).is_ok() {}
    assert!(a.poll().contains(PollEvents::OUT) && a.write(b"x") == Ok(1), "who has read goes on");
    drop((a, b, pairs, dgram, _reader));
    assert_eq!(memory.used(), 0);
}

#[test]
fn the_end_of_one_side() {
    let (a, b) = pair(SOCK_SEQPACKET);
    assert_eq!(b.write(b"unread"), Ok(6));
    drop(a);
    let mut buf = [0; 4];
    assert_eq!(b.read(&mut buf), Err(Errno::ECONNRESET));
    assert_eq!((b.read(&mut buf), b.write(b"x")), (Ok(0), Err(Errno::EPIPE)));
    assert_eq!(b.poll() & (PollEvents::HUP | PollEvents::RDHUP), PollEvents::HUP | PollEvents::RDHUP);
}

#[test]
fn datagrams_are_charged_to_their_sender() {
    let (a, b) = pair(SOCK_DGRAM);
    let mut sent = 0;
    while a.write(b"x").is_ok() {
        sent += 1;
    }
    assert!((200..400).contains(&sent), "{sent}");
    assert_eq!(b.write(b"other way"), Ok(9));
    let mut buf = [0; 1];
    while b.read(&mut buf).is_ok() {
        sent -= 1;
    }
    assert_eq!((sent, socket(&a).endpoint.unreceived()), (0, 0));
    assert_eq!(a.write(&vec![0; 300_000]), Err(Errno::EMSGSIZE));
}

#[test]
fn cycles_are_collected_and_live_sockets_are_not() {
    // One for all: descriptions in flight are told apart by ids that are unique within a vfs.
    let vfs = fake_vfs();
    let family = Arc::new(UnixFamily::default());
    let flight = &family.in_flight;
    let (pipe_in, watched) = pair_of(&vfs, &family, SOCK_STREAM);
    let (a, b) = pair_of(&vfs, &family, SOCK_STREAM);
    send_files(&a, &[&a, &b, &watched]);
    send_files(&b, &[&a]);
    drop(watched);
    flight.collect();
    assert_eq!(pipe_in.write(b"x"), Ok(1), "both ends are still held");
    drop((a, b));
    flight.collect();
    assert_eq!(pipe_in.write(b"x"), Err(Errno::EPIPE), "what lay in the cycle is gone with it");
    assert_eq!(flight.sockets_in_flight(), 0);

    let (holder, reader) = pair_of(&vfs, &family, SOCK_STREAM);
    let (c, d) = pair_of(&vfs, &family, SOCK_DGRAM);
    send_files(&c, &[&c, &d]);
    send_files(&holder, &[&d]);
    drop((c, d));
    flight.collect();
    assert_eq!(flight.sockets_in_flight(), 3, "the reader can still receive d, and c from it");
    drop(reader);
    assert_eq!(flight.sockets_in_flight(), 0, "the end of a socket sets a collection off");
}
