//! Images that somebody has tampered with: an error that says what is wrong, whatever the bytes are.

use std::fs::File;
use std::os::unix::fs::FileExt;

use moat_image::directory::{self, Image, ImageFiles, NewImage};
use moat_image::header::{self, Header, KERNEL};
use moat_image::pages::{PagesWriter, Stored};
use moat_image::state::*;
use moat_image::{Compression, PAGE_SIZE, Ref, SandboxState, Table};

const ID: [u8; 16] = [5; 16];

fn header(pages_len: u64) -> Header {
    Header {
        version: "0.1.0".into(),
        id: ID,
        created_s: 1,
        clocks: None,
        cpu_features: vec!["sse2".into()],
        platform: "systrap".into(),
        pages_len,
        compression: Compression::None,
        ahead: 0,
        bases: Vec::new(),
        sections: Vec::new(),
    }
}

fn memfd() -> File {
    rustix::fs::memfd_create("pages", rustix::fs::MemfdFlags::CLOEXEC).unwrap().into()
}

/// A small sandbox with something of most kinds, and its pages.
fn sandbox() -> (SandboxState, File, u64) {
    let pages = memfd();
    let mut writer = PagesWriter::new(pages.try_clone().unwrap(), ID).unwrap();
    let mut segment = writer.segment(0x10000);
    segment.write(&[1; 8192]).unwrap();
    let stored = segment.finish().unwrap()[0].stored;
    let len = writer.finish().unwrap();
    let mut state = SandboxState::default();
    let pid = state.pids.push(PidState { numbers: vec![1, 1], namespace: None, container: 0 });
    state.sessions.push(SessionState { pid, terminal: None, hung_up: None });
    state.process_groups.push(ProcessGroupState { pid, session: Ref::FIRST });
    state.credentials.push(CredentialsState {
        uid: 0,
        euid: 0,
        suid: 0,
        fsuid: 0,
        gid: 0,
        egid: 0,
        sgid: 0,
        fsgid: 0,
        groups: vec![1, 2],
        effective: 1,
        permitted: 1,
        inheritable: 0,
        bounding: 1,
        ambient: 0,
        securebits: 0,
        no_new_privs: true,
        user: None,
        container: 0,
    });
    state.signal_handlers.push(SignalHandlersState { actions: vec![(0, 0, 0, 0); 64] });
    state.memories.push(MemoryState {
        areas: vec![AreaState { start: 0x10000, end: 0x12000, prot: 3, max_prot: 7, flags: 0, shows: None }],
        segments: vec![Segment { start: 0x10000, stored }],
        auxv: vec![0; 16],
        ..MemoryState::default()
    });
    let lock = RecordLockState { start: 0, end: 99, kind: LockKindState::Write, pid: 1 };
    let locks = vec![ProcessLockState { fd: 0, lock }];
    state.fd_tables.push(FdTableState {
        descriptors: vec![DescriptorState { fd: 0, file: Ref::FIRST, close_on_exec: false }],
        locks,
    });
    state.open_files.push(OpenFileState {
        flags: 0,
        pos: 3,
        credentials: Ref::FIRST,
        signal: 0,
        owner: Some(OwnerState { id: OwnerIdState::Process(1), uid: 0, euid: 0 }),
        async_fd: 0,
        held: HeldState { flock: Some((LockKindState::Read, 1)), records: vec![lock], lease: None },
        kind: OpenFileKind::Donated(0),
    });
    state.containers.push(ContainerState {
        id: "web".into(),
        init: Ref::FIRST,
        last_pid: 1,
        executed: Vec::new(),
        hostname: b"web".to_vec(),
        domainname: Vec::new(),
        settings: vec![SettingState { path: "net/ipv4/ip_forward".into(), value: "1".into() }],
        name: "web".into(),
        shared: SharedState::default(),
        system_v: SystemVState::default(),
    });
    state.tasks.push(TaskState { comm: b"init".to_vec(), ..TaskState::nothing() });
    sockets(&mut state);
    others(&mut state, stored);
    (state, pages, len)
}

/// A connection of two UNIX sockets, with a descriptor in flight.
fn sockets(state: &mut SandboxState) {
    let creds = SocketCredsState { process: Some(1), uid: 0, gid: 0 };
    for ino in [7, 8] {
        let core = SocketCoreState { ino, sndbuf: 212_992, rcvbuf: 212_992, rcvlowat: 1, ..SocketCoreState::default() };
        let attached = UnixAttachedState { creds: Some(creds), files: vec![Ref::FIRST], files_uid: 0 };
        let endpoint = state.unix_endpoints.push(UnixEndpointState {
            core,
            shutdown: 0,
            name: Some(b"/run/socket".to_vec().into()),
            only_from: 0,
            starved: false,
            pieces: vec![UnixPieceState { data: b"hello".to_vec(), attached }],
            packets: Vec::new(),
        });
        let socket = state.unix_sockets.push(UnixSocketState {
            endpoint,
            socket_type: 1,
            maker: creds,
            peer: Some(Ref::FIRST),
            peer_creds: Some(creds),
            bound: Some(UnixBoundState::Abstract),
            backlog: Some(UnixBacklogState { limit: 5, creds, ready: vec![Ref::FIRST] }),
        });
        let socket = SocketRef::Unix(socket.index());
        let kind = OpenFileKind::Socket(SocketFileState { mode: 0o777, uid: 0, gid: 0, time: (1, 0), socket });
        let first = state.open_files.get(Ref::FIRST).unwrap().clone();
        state.open_files.push(OpenFileState { flags: 2, kind, ..first });
    }
}

/// A terminal of the host with a session, an opening of it, and a stream whose other end is gone.
fn terminals(state: &mut SandboxState) {
    let host = state.host_terminals.push(HostTerminalState {
        container: 0,
        console: true,
        modes: [0x500, 5, 0xbf, 0x8a3b],
        line: 0,
        control: vec![3; 19],
        speeds: (38_400, 38_400),
        winsize: [24, 80, 0, 0],
    });
    let terminal = TerminalRef::Host { host };
    let controls = ControllingTerminalState { terminal, foreground: ForegroundState::Group(1) };
    state.sessions.push(SessionState { pid: Ref::FIRST, terminal: Some(controls), hung_up: None });
    let shown = b"/dev/pts/0".to_vec();
    let kinds = [
        OpenFileKind::HostTerminal(HostTerminalFileState { terminal: host, path: None, shown: shown.clone(), ino: 3 }),
        OpenFileKind::Severed(SeveredState { kind: SeveredKind::Pipe, shown, ino: 9 }),
    ];
    let first = state.open_files.get(Ref::FIRST).unwrap().clone();
    kinds.into_iter().for_each(|kind| {
        state.open_files.push(OpenFileState { kind, ..first.clone() });
    });
}

/// One of each kind of object that is in a namespace or a file system.
fn others(state: &mut SandboxState, stored: Stored) {
    let object =
        |object| IpcObjectState { id: 0, key: 7, uid: 0, gid: 0, cuid: 0, cgid: 0, mode: 0o600, seq: 0, object };
    let segments = vec![Segment { start: 0, stored }];
    let shm = ShmState { size: 8192, atime: 0, dtime: 0, ctime: 1, cpid: 1, lpid: 1, removed: false, segments };
    state.system_v.shm = RegistryState { objects: vec![object(shm)], next_index: 1, last_index: Some(0), seq: 0 };
    state.mappables.push(MappableState { kind: MappableKind::Segment(0) });
    state.mqueues.push(MqueueState {
        container: 0,
        name: Some(b"queue".to_vec().into()),
        shown: b"queue".to_vec().into(),
        mode: 0o600,
        uid: 0,
        gid: 0,
        times: [(1, 0); 3],
        max_messages: 10,
        message_size: 8192,
        messages: vec![(1, b"message".to_vec().into())],
        payer: 0,
        notification: Some(MqueueNotificationState { process: 1, signal: Some((10, 1)) }),
        ipc: None,
    });
    terminals(state);
    let pty = state.ptys.push(PtyState {
        index: 0,
        mode: 0o620,
        uid: 0,
        gid: 5,
        times: [(1, 0); 3],
        locked: false,
        exclusive: false,
        winsize: [24, 80, 0, 0],
        master_open: true,
        slave_gone: false,
        hang_ups: 0,
        ldisc: LineDisciplineState { input: b"line".to_vec(), control: vec![0; 19], ..LineDisciplineState::default() },
    });
    state.file_systems.push(FileSystemState::Terminals(vec![pty]));
    let address = "127.0.0.1:80".parse().unwrap();
    let core = SocketCoreState { ino: 9, ..SocketCoreState::default() };
    let end = state.tcp_ends.push(TcpEndState {
        core: core.clone(),
        shutdown: 1,
        reset: false,
        bytes: b"bytes".to_vec(),
        urgent: None,
        starved: Some(5),
    });
    state.tcp_sockets.push(TcpSocketState {
        family: 2,
        end,
        options: InetOptionsState { congestion: b"cubic".to_vec(), ..InetOptionsState::default() },
        uid: 0,
        bound: Some((address, true)),
        binding: None,
        phase: TcpPhaseState::Connected { peer: end, addr: address, announced: true },
    });
    let (ip, port) = (address.ip(), address.port());
    let datagram = DatagramState { data: b"data".to_vec(), from: address, to: ip, device: 1, ttl: 64, tos: 0 };
    let (dual, peer) = (false, None);
    state.udp_sockets.push(UdpSocketState {
        family: 2,
        core,
        options: InetOptionsState::default(),
        uid: 0,
        shutdown: 0,
        local: Some(address),
        bound_address: None,
        bound_port: true,
        peer: None,
        binding: Some(BindingState { ip, port, dual, reuse_address: true, reuse_port: false, uid: 0, peer }),
        datagrams: vec![datagram],
        errors: Vec::new(),
        filter: Some(vec![(6, 0, 0, 0xffff)]),
        filter_locked: true,
    });
    let path = PathState { mount: Ref::FIRST, names: b"/tmp".to_vec() };
    let watches = vec![WatchState { wd: 1, path: path.clone(), mask: 2 }];
    let events = vec![InotifyEventState { wd: 1, mask: 2, cookie: 0, name: Some(b"file".to_vec().into()) }];
    let first = state.open_files.get(Ref::FIRST).unwrap().clone();
    for kind in [
        OpenFileKind::Inotify(InotifyState { uid: 0, max_queued: 100, last_wd: 1, watches, events }),
        OpenFileKind::Mqueue(MqueueFileState { queue: Ref::FIRST, path: None }),
        OpenFileKind::PtyMaster(PtyMasterState { pty, path: path.clone(), root: path.clone() }),
        OpenFileKind::PtySlave(PtySlaveState { pty, path: Some(path), shown: b"0".to_vec(), hang_ups: 0 }),
    ] {
        state.open_files.push(OpenFileState { kind, ..first.clone() });
    }
}

/// Numbers that look random and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % n
    }
}

/// The bytes with one thing changed.
fn mutated(bytes: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut mutant = bytes.to_vec();
    let at = numbers.below(bytes.len());
    match numbers.below(5) {
        0 => mutant[at] ^= 1 << numbers.below(8),
        1 => mutant[at] = u8::try_from(numbers.below(256)).unwrap(),
        2 => mutant.truncate(at),
        // The largest lengths that CBOR can say.
        3 => mutant.splice(at..at, [0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).for_each(drop),
        _ => {
            let to = numbers.below(bytes.len());
            mutant.swap(at, to);
        }
    }
    mutant
}

#[test]
fn an_image_comes_back_as_it_was() {
    let (state, pages, len) = sandbox();
    let bytes = header::encode(header(len), &[(KERNEL, state.encode().unwrap())]).unwrap();
    let image = Image::decode(&bytes, pages, Vec::new()).unwrap();
    assert_eq!(image.state.encode().unwrap(), state.encode().unwrap());
    image.verify_pages().unwrap();
}

#[test]
fn a_changed_file_is_noticed() {
    let (state, pages, len) = sandbox();
    let bytes = header::encode(header(len), &[(KERNEL, state.encode().unwrap())]).unwrap();
    let mut numbers = Numbers(1);
    for _ in 0..500 {
        let mutant = mutated(&bytes, &mut numbers);
        if mutant != bytes {
            assert!(Image::decode(&mutant, pages.try_clone().unwrap(), Vec::new()).is_err());
        }
    }
}

/// Whoever makes an image can make its checksums, too: then the state itself is taken apart.
#[test]
fn a_changed_state_with_its_checksum_never_panics() {
    let (state, pages, len) = sandbox();
    let bytes = state.encode().unwrap();
    let mut numbers = Numbers(2);
    let (mut refused, mut read) = (0, 0);
    for _ in 0..1000 {
        let mutant = mutated(&bytes, &mut numbers);
        let file = header::encode(header(len), &[(KERNEL, mutant)]).unwrap();
        match Image::decode(&file, pages.try_clone().unwrap(), Vec::new()) {
            Ok(image) => {
                read += 1;
                // What it names has to be looked up, and can be wrong.
                let _ = image.verify_pages();
                for task in image.state.tasks.iter() {
                    let _ = image.state.pids.get(task.pid);
                    let _ = image.state.memories.get(task.memory);
                }
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().starts_with("state: "), "{error}");
            }
        }
    }
    assert!(refused > 300 && read > 50, "{refused} refused, {read} read");
}

#[test]
fn a_state_that_nests_without_end_is_refused() {
    let deep = vec![0x81; 1 << 20];
    assert!(SandboxState::decode(&deep).is_err());
}

#[test]
fn references_lead_to_something_or_are_errors() {
    let (mut state, ..) = sandbox();
    state.pids = Table::default();
    let pid = state.tasks.iter().next().unwrap().pid;
    assert_eq!(state.pids.get(pid).unwrap_err().to_string(), "the image names pid 0, which it does not have");
}

#[test]
fn a_directory_is_complete_or_not_there() {
    let place = std::env::temp_dir().join(format!("moat-image-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&place);
    let (state, ..) = sandbox();
    let write = |image: &NewImage| {
        let len = PagesWriter::new(image.pages.try_clone().unwrap(), ID).unwrap().finish().unwrap();
        directory::write_state(&image.state, header(len), &state).unwrap();
    };
    let image = NewImage::create(&place, None).unwrap();
    write(&image);
    assert!(!place.exists());
    drop(image);
    let beside =
        |name: &std::ffi::OsStr| name.to_string_lossy().contains(&format!("moat-image-{}", std::process::id()));
    let left = std::fs::read_dir(std::env::temp_dir()).unwrap().filter(|e| beside(&e.as_ref().unwrap().file_name()));
    assert_eq!(left.count(), 0);
    let image = NewImage::create(&place, None).unwrap();
    write(&image);
    image.commit().unwrap();
    Image::read(directory::open(&place).unwrap()).unwrap();
    assert!(NewImage::create(&place, None).is_err());
    // Pages of another image, or cut off.
    let files = directory::open(&place).unwrap();
    let other = memfd();
    other.write_all_at(&[0; 4096], 0).unwrap();
    other.set_len(PAGE_SIZE).unwrap();
    assert!(Image::read(ImageFiles { pages: other, ..files }).is_err());
    std::fs::remove_dir_all(&place).unwrap();
}
