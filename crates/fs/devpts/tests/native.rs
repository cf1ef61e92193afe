//! The line discipline against a native pty: random settings, input, output and reads must have the same results.
//!
//! Signals are not compared here (the test's pty is nobody's controlling terminal), but what they flush is.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use moat_abi::Errno;
use moat_abi::tty::*;
use moat_fs_devpts::LineDiscipline;
use moat_fs_devpts::ldisc::packet::{FlowAction, Flush, PacketMode};
use moat_host::tty as host;
use proptest::prelude::*;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// One thing done to both ptys.
#[derive(Clone, Debug)]
enum Step {
    Type(Vec<u8>),
    Print(Vec<u8>),
    SlaveRead(usize),
    MasterRead(usize),
    Settings(Settings),
    Flush(Flush),
    Flow(FlowAction),
    Packet(PacketMode),
}

#[derive(Clone, Debug)]
struct Settings {
    iflag: u32,
    oflag: u32,
    lflag: u32,
    cflag: Option<u32>,
    cc: Vec<(usize, u8)>,
}

impl Settings {
    fn apply(&self, mut t: Termios2) -> Termios2 {
        (t.c_iflag, t.c_oflag, t.c_lflag) = (self.iflag, self.oflag, self.lflag);
        t.c_cflag = self.cflag.unwrap_or(t.c_cflag);
        for (index, c) in &self.cc {
            t.c_cc[*index] = *c;
        }
        t
    }
}

/// A native pty, both ends non-blocking.
struct Native {
    master: OwnedFd,
    slave: OwnedFd,
    /// How long its worker is waited for.
    patience: Duration,
}

impl Native {
    fn new(patience: Duration) -> Native {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("ptmx");
        grantpt(&master).expect("grantpt");
        unlockpt(&master).expect("unlockpt");
        rustix::io::ioctl_fionbio(&master, true).expect("FIONBIO");
        let name = ptsname(&master, Vec::new()).expect("ptsname");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty()).expect("slave");
        Native { master, slave, patience }
    }

    /// Waits until the kernel's worker has carried what was written through the line discipline.
    fn settle(&self, model: &LineDiscipline) {
        let deadline = Instant::now() + self.patience;
        let agrees = || {
            host::bytes_readable(&self.master) == Ok(model.master_bytes() as i32)
                && host::bytes_readable(&self.slave) == Ok(model.slave_bytes() as i32)
        };
        // A poll runs the worker to its end where nothing can be read yet.
        for _ in 0..2 {
            for fd in [&self.slave, &self.master] {
                let mut fds = [rustix::event::PollFd::new(fd, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll");
            }
        }
        std::thread::sleep(Duration::from_micros(300));
        while !agrees() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

fn read(fd: impl AsFd, len: usize) -> Option<Vec<u8>> {
    let mut buf = vec![0; len];
    match rustix::io::read(fd, &mut buf) {
        Ok(n) => {
            buf.truncate(n);
            Some(buf)
        }
        Err(rustix::io::Errno::AGAIN) => None,
        Err(e) => panic!("read: {e}"),
    }
}

fn write(fd: impl AsFd, data: &[u8]) -> usize {
    match rustix::io::write(fd, data) {
        Ok(n) => n,
        Err(rustix::io::Errno::AGAIN) => 0,
        Err(e) => panic!("write: {e}"),
    }
}

fn ioctl_number(fd: impl AsFd, request: u32, arg: u32) {
    moat_host::tty::ioctl_with_number(fd, request, arg).unwrap_or_else(|e: Errno| panic!("ioctl {request:#x}: {e}"));
}

/// Does `step` to both; gives what each showed.
fn run(step: &Step, native: &Native, model: &mut LineDiscipline) -> (String, String) {
    fn show(what: &impl std::fmt::Debug) -> String {
        format!("{what:?}")
    }
    fn bytes(data: Option<Vec<u8>>) -> String {
        data.map_or("EAGAIN".into(), |d| d.escape_ascii().to_string())
    }
    let pair = match step {
        Step::Type(data) => (show(&write(&native.master, data)), show(&model.master_write(data).0)),
        Step::Print(data) => (show(&write(&native.slave, data)), show(&model.slave_write(data).0)),
        Step::SlaveRead(len) => {
            let mut buf = vec![0; *len];
            let mut expected = model.slave_read(&mut buf).0;
            if expected.is_none() && model.read_rule() == (moat_fs_devpts::ReadRule::Timeout { deciseconds: 0 }) {
                expected = Some(0);
            }
            (bytes(read(&native.slave, *len)), bytes(expected.map(|n| buf[..n].to_vec())))
        }
        Step::MasterRead(len) => {
            let mut buf = vec![0; *len];
            let expected = model.master_read(&mut buf).0.map(|n| buf[..n].to_vec());
            (bytes(read(&native.master, *len)), bytes(expected))
        }
        Step::Settings(s) => {
            let new = s.apply(*model.termios());
            host::set_termios(&native.slave, new, host::When::Now).expect("TCSETS2");
            let _ = model.set_termios(new);
            (show(&host::termios(&native.slave)), show(&Ok::<_, Errno>(*model.termios())))
        }
        Step::Flush(what) => {
            let number = match what {
                Flush::Input => TCIFLUSH,
                Flush::Output => TCOFLUSH,
                Flush::Both => TCIOFLUSH,
            };
            ioctl_number(&native.slave, TCFLSH, number);
            let _ = model.flush(*what);
            Default::default()
        }
        Step::Flow(action) => {
            let number = match action {
                FlowAction::StopOutput => TCOOFF,
                FlowAction::StartOutput => TCOON,
                FlowAction::SendStop => TCIOFF,
                FlowAction::SendStart => TCION,
            };
            ioctl_number(&native.slave, TCXONC, number);
            let _ = model.control_flow(*action);
            Default::default()
        }
        Step::Packet(mode) => {
            let on = if *mode == PacketMode::On { host::PacketMode::On } else { host::PacketMode::Off };
            host::set_packet_mode(&native.master, on).expect("TIOCPKT");
            model.set_packet_mode(*mode);
            Default::default()
        }
    };
    native.settle(model);
    let polled = |fd: &OwnedFd| {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut fds =
            [PollFd::new(fd, PollFlags::IN | PollFlags::OUT | PollFlags::PRI | PollFlags::RDNORM | PollFlags::WRNORM)];
        poll(&mut fds, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll");
        moat_abi::PollEvents::from_bits_truncate(u32::from(fds[0].revents().bits()))
    };
    let native_state = format!(
        "master {:?} {:?}, slave {:?} {:?}",
        host::bytes_readable(&native.master).unwrap_or(-1),
        polled(&native.master),
        host::bytes_readable(&native.slave).unwrap_or(-1),
        polled(&native.slave),
    );
    let model_state = format!(
        "master {:?} {:?}, slave {:?} {:?}",
        model.master_bytes(),
        model.master_poll(),
        model.slave_bytes(),
        model.slave_poll(),
    );
    (format!("{} [{native_state}]", pair.0), format!("{} [{model_state}]", pair.1))
}

/// Runs a script on both and compares every result.
///
/// The kernel carries data over in a worker whose timing shows at times, so only a difference that comes every time counts, and that is still
/// there where a loaded machine has had time for it.
fn compare(steps: &[Step]) -> Result<(), String> {
    let quickly = || compare_once(steps, Duration::from_millis(40));
    (0..3).find_map(|_| quickly().ok()).map_or_else(|| compare_once(steps, Duration::from_secs(5)), Ok)
}

/// One run; at the end all that is left is read.
fn compare_once(steps: &[Step], patience: Duration) -> Result<(), String> {
    let native = Native::new(patience);
    let mut model = LineDiscipline::new(Termios2::pty_default());
    let drain = [
        Step::MasterRead(4096),
        Step::SlaveRead(4096),
        Step::SlaveRead(4096),
        Step::SlaveRead(4096),
        Step::MasterRead(4096),
    ];
    for (i, step) in steps.iter().chain(&drain).enumerate() {
        let (linux, ours) = run(step, &native, &mut model);
        if linux != ours {
            return Err(format!(
                "step {i} {step:?}:\n  linux {linux}\n  ours  {ours}\n  termios {:?}",
                model.termios()
            ));
        }
    }
    Ok(())
}

fn settings(iflag: InputFlags, oflag: OutputFlags, lflag: LocalFlags) -> Step {
    Step::Settings(Settings { iflag: iflag.bits(), oflag: oflag.bits(), lflag: lflag.bits(), cflag: None, cc: vec![] })
}

fn typed(s: &[u8]) -> Step {
    Step::Type(s.to_vec())
}

/// Interesting bytes: text, white space, every control character, several-byte characters and their fragments.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => prop::sample::select(&b"abc019_ZX .-/~"[..]).prop_map(|c| vec![c]),
        3 => prop::sample::select(&b"\n\n\n\r\t\t\x7f\x7f\x7f\x17\x15\x04\x16\x12\x08"[..]).prop_map(|c| vec![c]),
        2 => (0u8..32).prop_map(|c| vec![c]),
        1 => prop::sample::select(vec!["é", "日", "\u{1f600}"]).prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::sample::select(&[0u8, 0x80, 0xa9, 0xc3, 0xd7, 0xdf, 0xe9, 0xff, 0xff][..]).prop_map(|c| vec![c]),
    ];
    prop::collection::vec(piece, 1..10).prop_map(|p| p.concat())
}

fn any_settings() -> impl Strategy<Value = Settings> {
    use InputFlags as I;
    use LocalFlags as L;
    use OutputFlags as O;
    let i = [
        I::ISTRIP,
        I::INLCR,
        I::IGNCR,
        I::ICRNL,
        I::ICRNL,
        I::IUCLC,
        I::IXON,
        I::IXON,
        I::IXANY,
        I::IXOFF,
        I::IMAXBEL,
        I::IUTF8,
        I::PARMRK,
    ];
    let o = [O::OPOST, O::OPOST, O::OPOST, O::OLCUC, O::ONLCR, O::OCRNL, O::ONOCR, O::ONLRET, O::XTABS];
    let l = [
        L::ISIG,
        L::ICANON,
        L::ICANON,
        L::ICANON,
        L::ECHO,
        L::ECHO,
        L::ECHO,
        L::ECHOE,
        L::ECHOK,
        L::ECHONL,
        L::NOFLSH,
        L::ECHOCTL,
        L::ECHOPRT,
        L::ECHOKE,
        L::IEXTEN,
        L::IEXTEN,
    ];
    let pick = |flags: Vec<u32>| {
        prop::collection::vec(prop::sample::select(flags), 0..10).prop_map(|f| f.into_iter().fold(0, |a, b| a | b))
    };
    let cc = prop_oneof![
        3 => Just(vec![]),
        1 => prop::collection::vec(
            (
                prop::sample::select(vec![
                    VINTR, VQUIT, VERASE, VKILL, VEOF, VSTART, VSTOP, VSUSP, VEOL, VEOL2, VREPRINT, VWERASE, VLNEXT,
                ]),
                prop::sample::select(&b"abc\0\x01\x02\x03\xff"[..]),
            ),
            1..4
        ),
        1 => (prop::sample::select(vec![0u8, 1, 3]), prop::sample::select(vec![0u8, 1]))
            .prop_map(|(min, time)| vec![(VMIN, min), (VTIME, time)]),
    ];
    let extproc = prop_oneof![9 => Just(0), 1 => Just(L::EXTPROC.bits())];
    (
        pick(i.map(|f| f.bits()).to_vec()),
        pick(o.map(|f| f.bits()).to_vec()),
        pick(l.map(|f| f.bits()).to_vec()),
        extproc,
        cc,
    )
        .prop_map(|(iflag, oflag, lflag, extproc, cc)| Settings {
            iflag,
            oflag,
            lflag: lflag | extproc,
            cflag: None,
            cc,
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => text().prop_map(Step::Type),
        3 => text().prop_map(Step::Print),
        3 => (1usize..12).prop_map(Step::SlaveRead),
        2 => (1usize..30).prop_map(Step::MasterRead),
        3 => any_settings().prop_map(Step::Settings),
        1 => prop::sample::select(vec![Flush::Input, Flush::Output, Flush::Both]).prop_map(Step::Flush),
        1 => prop_oneof![
            1 => Just(FlowAction::StopOutput),
            2 => Just(FlowAction::StartOutput),
            1 => Just(FlowAction::SendStop),
            1 => Just(FlowAction::SendStart),
        ]
        .prop_map(Step::Flow),
        1 => prop::sample::select(vec![PacketMode::On, PacketMode::Off]).prop_map(Step::Packet),
    ]
}

/// How many random scripts are run; each takes some ten milliseconds.
fn cases() -> u32 {
    std::env::var("MOAT_TTY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(), failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::default()
    })]

    #[test]
    fn behaves_like_a_native_pty(
        first in prop::option::of(any_settings()),
        steps in prop::collection::vec(step(), 1..8),
    ) {
        let script: Vec<Step> = first.map(Step::Settings).into_iter().chain(steps).collect();
        if let Err(difference) = compare(&script) {
            prop_assert!(false, "{difference}");
        }
    }
}

/// Every single byte in the usual settings of a shell, of an editor and of a few others.
#[test]
fn every_byte() {
    let cooked = *LineDiscipline::new(Termios2::pty_default()).termios();
    let (i, o, l) = (
        InputFlags::from_bits_retain(cooked.c_iflag),
        OutputFlags::from_bits_retain(cooked.c_oflag),
        LocalFlags::from_bits_retain(cooked.c_lflag),
    );
    let all = [
        settings(i, o, l),
        settings(i | InputFlags::IUTF8, o, l),
        settings(i, o, l - LocalFlags::ECHO),
        settings(i, o, l - LocalFlags::ICANON),
        settings(i, o, l - LocalFlags::ICANON - LocalFlags::ECHO - LocalFlags::ISIG),
        settings(InputFlags::empty(), OutputFlags::empty(), LocalFlags::empty()),
    ];
    for setting in all {
        for c in 0..=255u8 {
            let script = [setting.clone(), typed(b"x\ty"), typed(&[c]), typed(b"z\n"), Step::Print(vec![c])];
            compare(&script).unwrap_or_else(|e| panic!("byte {c:#x}: {e}"));
        }
    }
}

#[test]
fn partial_reads_of_lines() {
    let script = [
        typed(b"abc\ndef\n"),
        Step::SlaveRead(3),
        Step::SlaveRead(10),
        typed(b"abc\x04de\x04\x04f\n"),
        Step::SlaveRead(3),
        Step::SlaveRead(20),
        Step::SlaveRead(2),
        Step::SlaveRead(1),
        Step::SlaveRead(10),
    ];
    compare(&script).unwrap_or_else(|e| panic!("{e}"));
}

/// Speeds and character sizes that programs set.
#[test]
fn control_flags() {
    let script: Vec<Step> =
        [0, 0o15, 0o17, 0o60, 0o160 | 0o13, 0o10002, 0o10000, 0o10017, 0o5260, 0o15 << 16 | 0o10004, 0o10000 << 16]
            .into_iter()
            .map(|c| Step::Settings(Settings { iflag: 0, oflag: 0, lflag: 0, cflag: Some(c), cc: vec![] }))
            .collect();
    compare(&script).unwrap_or_else(|e| panic!("{e}"));
}

/// Echoes that wait while output is stopped, more of them than the queue holds.
#[test]
fn echoes_of_stopped_output() {
    let raw = LocalFlags::ECHO | LocalFlags::ECHOCTL | LocalFlags::IEXTEN;
    let mut script = vec![settings(InputFlags::IXON, OutputFlags::OPOST | OutputFlags::ONLCR, raw), typed(b"\x13")];
    for i in 0..60u8 {
        script.extend([
            typed(&[b'a' + i % 26; 97]),
            typed(b"\x01"),
            Step::SlaveRead(4096),
            Step::Print(b"no".to_vec()),
        ]);
    }
    script.extend([typed(b"\x11"), Step::Print(b"done\n".to_vec()), Step::MasterRead(4096), Step::MasterRead(4096)]);
    compare(&script).unwrap_or_else(|e| panic!("{e}"));
}

/// Neither a start by ioctl nor a read of the master lets out echoes that wait: the next input or output does.
#[test]
fn echoes_that_a_start_finds() {
    let stopped = [typed(b"a"), Step::Flow(FlowAction::StopOutput), typed(b"b"), Step::Flow(FlowAction::StartOutput)];
    for next in [Step::MasterRead(4096), typed(b"c"), Step::Print(b"d".to_vec()), Step::SlaveRead(4096)] {
        let script: Vec<Step> = stopped.iter().cloned().chain([next, Step::MasterRead(4096)]).collect();
        compare(&script).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// The 4096-byte limits: a line that is too long, and a raw buffer that is full.
#[test]
fn full_buffers() {
    let mut script: Vec<Step> = (0..50).map(|_| typed(&[b'x'; 100])).collect();
    script.insert(0, settings(InputFlags::ICRNL, OutputFlags::empty(), LocalFlags::ICANON));
    script.extend([
        typed(b"yz\x7f\n"),
        Step::SlaveRead(4000),
        Step::SlaveRead(4000),
        typed(b"next\n"),
        Step::SlaveRead(10),
    ]);
    compare(&script).unwrap_or_else(|e| panic!("{e}"));

    let mut script: Vec<Step> = (0..45).map(|_| typed(&[b'x'; 100])).collect();
    script.insert(0, settings(InputFlags::empty(), OutputFlags::empty(), LocalFlags::empty()));
    script.extend([Step::SlaveRead(100), Step::SlaveRead(4000), Step::SlaveRead(4000)]);
    compare(&script).unwrap_or_else(|e| panic!("{e}"));
}
