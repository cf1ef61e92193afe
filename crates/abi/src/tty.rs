//! Terminals: termios in the kernel's layout, and ioctl(2) numbers of terminals and of files in general.
//!
//! Sources: `asm-generic/{termbits,termbits-common,termios,ioctls}.h`, `linux/{tty,fs}.h`.

/// Control characters in the kernel's termios.
pub const NCCS: usize = 19;

guest_struct! {
    /// `struct termios` of the kernel (not glibc's), TCGETS.
    Termios: 36 { c_iflag: u32, c_oflag: u32, c_cflag: u32, c_lflag: u32, c_line: u8, c_cc: [u8; NCCS] }
}
guest_struct! {
    /// `struct termios2`, TCGETS2.
    Termios2: 44 { c_iflag: u32, c_oflag: u32, c_cflag: u32, c_lflag: u32, c_line: u8, c_cc: [u8; NCCS],
        c_ispeed: u32, c_ospeed: u32 }
}
guest_struct! {
    /// `struct termio`, TCGETA.
    Termio: 18 { c_iflag: u16, c_oflag: u16, c_cflag: u16, c_lflag: u16, c_line: u8, c_cc: [u8; 8], pad: u8 }
}
guest_struct! {
    /// `struct winsize`, TIOCGWINSZ.
    Winsize: 8 { ws_row: u16, ws_col: u16, ws_xpixel: u16, ws_ypixel: u16 }
}

consts! { "Indices into `c_cc`, termios(3).", usize; VINTR = 0, VQUIT = 1, VERASE = 2, VKILL = 3, VEOF = 4, VTIME = 5,
VMIN = 6, VSWTC = 7,
VSTART = 8, VSTOP = 9, VSUSP = 10, VEOL = 11, VREPRINT = 12, VDISCARD = 13, VWERASE = 14, VLNEXT = 15, VEOL2 = 16 }
/// The value of a control character that is switched off (`_POSIX_VDISABLE`).
pub const VDISABLE: u8 = 0;

flag_set! {
    /// `c_iflag`, termios(3).
    InputFlags: u32, "" { IGNBRK = 0o1, BRKINT = 0o2, IGNPAR = 0o4, PARMRK = 0o10, INPCK = 0o20, ISTRIP = 0o40,
    INLCR = 0o100, IGNCR = 0o200,
        ICRNL = 0o400, IUCLC = 0o1000, IXON = 0o2000, IXANY = 0o4000, IXOFF = 0o10000, IMAXBEL = 0o20000,
        IUTF8 = 0o40000 }
}
flag_set! {
    /// `c_oflag`, termios(3). Delays are values of several bits, of which only TABDLY means anything: XTABS.
    OutputFlags: u32, "" { OPOST = 0o1, OLCUC = 0o2, ONLCR = 0o4, OCRNL = 0o10, ONOCR = 0o20, ONLRET = 0o40,
    OFILL = 0o100, OFDEL = 0o200,
        NLDLY = 0o400, CRDLY = 0o3000, TABDLY = 0o14000, XTABS = 0o14000, BSDLY = 0o20000, VTDLY = 0o40000,
        FFDLY = 0o100_000 }
}
flag_set! {
    /// `c_lflag`, termios(3).
    LocalFlags: u32, "" { ISIG = 0o1, ICANON = 0o2, XCASE = 0o4, ECHO = 0o10, ECHOE = 0o20, ECHOK = 0o40,
    ECHONL = 0o100, NOFLSH = 0o200,
        TOSTOP = 0o400, ECHOCTL = 0o1000, ECHOPRT = 0o2000, ECHOKE = 0o4000, FLUSHO = 0o10000, PENDIN = 0o40000,
        IEXTEN = 0o100_000,
        EXTPROC = 0o200_000 }
}
flag_set! {
    /// `c_cflag`, termios(3), without the speeds.
    ControlFlags: u32, "" { CS6 = 0o20, CS7 = 0o40, CS8 = 0o60, CSTOPB = 0o100, CREAD = 0o200, PARENB = 0o400,
    PARODD = 0o1000, HUPCL = 0o2000,
        CLOCAL = 0o4000, CMSPAR = 0o10_000_000_000, CRTSCTS = 0o20_000_000_000 }
}
consts! { "Speeds in `c_cflag`, termios(3). CIBAUD is CBAUD of the input, shifted.", u32; CBAUD = 0o10017,
CBAUDEX = 0o10000, IBSHIFT = 16, B0 = 0,
B9600 = 0o15, B38400 = 0o17, B115200 = 0o10002, BOTHER = 0o10000 }
/// Bits per second of B0, B50, ... B38400, then (with CBAUDEX) B57600, ... B4000000.
const BAUD_RATES: [u32; 31] = [
    0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400, 57600, 115_200, 230_400,
    460_800, 500_000, 576_000, 921_600, 1_000_000, 1_152_000, 1_500_000, 2_000_000, 2_500_000, 3_000_000, 3_500_000,
    4_000_000,
];

/// The speed that a CBAUD value names; `other` for BOTHER.
fn baud_rate(cbaud: u32, other: u32) -> u32 {
    if cbaud == BOTHER {
        return other;
    }
    let index = if cbaud & CBAUDEX != 0 { (cbaud & !CBAUDEX) + 15 } else { cbaud };
    BAUD_RATES.get(index as usize).copied().unwrap_or(0)
}

impl Termios2 {
    /// Settings by their parts: the input, output, control and local modes; the line discipline; control characters, of which there must
    /// be as many as there are; the speeds of input and output.
    #[must_use]
    pub fn from_parts(modes: [u32; 4], line: u8, control: &[u8], speeds: (u32, u32)) -> Option<Termios2> {
        let [c_iflag, c_oflag, c_cflag, c_lflag] = modes;
        let (c_ispeed, c_ospeed) = speeds;
        let c_cc = control.try_into().ok()?;
        Some(Termios2 { c_iflag, c_oflag, c_cflag, c_lflag, c_line: line, c_cc, c_ispeed, c_ospeed })
    }

    /// What a new pty has (`tty_std_termios` with 38400 baud): a cooked, echoing terminal.
    #[must_use]
    pub const fn pty_default() -> Termios2 {
        let mut c_cc = [0; NCCS];
        c_cc[VINTR] = 3;
        c_cc[VQUIT] = 28;
        c_cc[VERASE] = 127;
        c_cc[VKILL] = 21;
        c_cc[VEOF] = 4;
        c_cc[VMIN] = 1;
        c_cc[VSTART] = 17;
        c_cc[VSTOP] = 19;
        c_cc[VSUSP] = 26;
        c_cc[VREPRINT] = 18;
        c_cc[VDISCARD] = 15;
        c_cc[VWERASE] = 23;
        c_cc[VLNEXT] = 22;
        Termios2 {
            c_iflag: InputFlags::ICRNL.union(InputFlags::IXON).bits(),
            c_oflag: OutputFlags::OPOST.union(OutputFlags::ONLCR).bits(),
            c_cflag: B38400 | ControlFlags::CS8.union(ControlFlags::CREAD).bits(),
            c_lflag: LocalFlags::ISIG
                .union(LocalFlags::ICANON)
                .union(LocalFlags::ECHO)
                .union(LocalFlags::ECHOE)
                .union(LocalFlags::ECHOK)
                .union(LocalFlags::ECHOCTL)
                .union(LocalFlags::ECHOKE)
                .union(LocalFlags::IEXTEN)
                .bits(),
            c_line: 0,
            c_cc,
            c_ispeed: 38400,
            c_ospeed: 38400,
        }
    }

    /// The struct that TCGETS gives.
    #[must_use]
    pub const fn to_termios(self) -> Termios {
        Termios {
            c_iflag: self.c_iflag,
            c_oflag: self.c_oflag,
            c_cflag: self.c_cflag,
            c_lflag: self.c_lflag,
            c_line: self.c_line,
            c_cc: self.c_cc,
        }
    }

    /// With `c_ispeed` and `c_ospeed` as `c_cflag` names them, which the kernel does after every change
    /// (`set_termios`).
    #[must_use]
    pub fn with_speeds(self) -> Termios2 {
        let output = baud_rate(self.c_cflag & CBAUD, self.c_ospeed);
        let input = match (self.c_cflag >> IBSHIFT) & CBAUD {
            B0 => output,
            cbaud => baud_rate(cbaud, self.c_ispeed),
        };
        Termios2 { c_ispeed: input, c_ospeed: output, ..self }
    }

    /// This one with what TCSETS gives; the speeds stay.
    #[must_use]
    pub const fn with_termios(self, t: Termios) -> Termios2 {
        Termios2 {
            c_iflag: t.c_iflag,
            c_oflag: t.c_oflag,
            c_cflag: t.c_cflag,
            c_lflag: t.c_lflag,
            c_line: t.c_line,
            c_cc: t.c_cc,
            c_ispeed: self.c_ispeed,
            c_ospeed: self.c_ospeed,
        }
    }
}

consts! { "Terminal ioctls, ioctl_tty(2).", u32; TCGETS = 0x5401, TCSETS = 0x5402, TCSETSW = 0x5403, TCSETSF = 0x5404,
TCGETA = 0x5405,
TCSETA = 0x5406, TCSETAW = 0x5407, TCSETAF = 0x5408, TCSBRK = 0x5409, TCXONC = 0x540a, TCFLSH = 0x540b,
TIOCEXCL = 0x540c, TIOCNXCL = 0x540d,
TIOCSCTTY = 0x540e, TIOCGPGRP = 0x540f, TIOCSPGRP = 0x5410, TIOCOUTQ = 0x5411, TIOCSTI = 0x5412,
TIOCGWINSZ = 0x5413, TIOCSWINSZ = 0x5414,
TIOCMGET = 0x5415, TIOCMBIS = 0x5416, TIOCMBIC = 0x5417, TIOCMSET = 0x5418, TIOCGSOFTCAR = 0x5419,
TIOCSSOFTCAR = 0x541a, FIONREAD = 0x541b,
TIOCINQ = 0x541b, TIOCLINUX = 0x541c, TIOCCONS = 0x541d, TIOCGSERIAL = 0x541e, TIOCSSERIAL = 0x541f,
TIOCPKT = 0x5420, FIONBIO = 0x5421,
TIOCNOTTY = 0x5422, TIOCSETD = 0x5423, TIOCGETD = 0x5424, TCSBRKP = 0x5425, TIOCSBRK = 0x5427, TIOCCBRK = 0x5428,
TIOCGSID = 0x5429,
TCGETS2 = 0x802c_542a, TCSETS2 = 0x402c_542b, TCSETSW2 = 0x402c_542c, TCSETSF2 = 0x402c_542d,
TIOCGPTN = 0x8004_5430, TIOCSPTLCK = 0x4004_5431,
TIOCGDEV = 0x8004_5432, TIOCSIG = 0x4004_5436, TIOCVHANGUP = 0x5437, TIOCGPKT = 0x8004_5438,
TIOCGPTLCK = 0x8004_5439,
TIOCGEXCL = 0x8004_5440, TIOCGPTPEER = 0x5441 }
consts! { "TCXONC arguments, tcflow(3).", u32; TCOOFF = 0, TCOON = 1, TCIOFF = 2, TCION = 3 }
consts! { "TCFLSH arguments, tcflush(3).", u32; TCIFLUSH = 0, TCOFLUSH = 1, TCIOFLUSH = 2 }
consts! { "Control bytes of packet mode, ioctl_tty(2) TIOCPKT.", u8; TIOCPKT_DATA = 0, TIOCPKT_FLUSHREAD = 1,
TIOCPKT_FLUSHWRITE = 2,
TIOCPKT_STOP = 4, TIOCPKT_START = 8, TIOCPKT_NOSTOP = 16, TIOCPKT_DOSTOP = 32, TIOCPKT_IOCTL = 64 }
consts! { "Line disciplines, TIOCSETD.", i32; N_TTY = 0 }

consts! { "Ioctls of any file, ioctl(2).", u32; FIONCLEX = 0x5450, FIOCLEX = 0x5451, FIOASYNC = 0x5452,
FIOQSIZE = 0x5460, FIBMAP = 1, FIGETBSZ = 2,
FIFREEZE = 0xc004_5877, FITHAW = 0xc004_5878, FITRIM = 0xc018_5879, FICLONE = 0x4004_9409,
FICLONERANGE = 0x4020_940d,
FIDEDUPERANGE = 0xc018_9436, FS_IOC_FIEMAP = 0xc020_660b, FS_IOC_GETFLAGS = 0x8008_6601,
FS_IOC_SETFLAGS = 0x4008_6602,
FS_IOC_GETVERSION = 0x8008_7601, FS_IOC_FSGETXATTR = 0x801c_581f, FS_IOC_FSSETXATTR = 0x401c_5820 }
consts! { "Ioctls of block devices.", u32; BLKROSET = 0x125d, BLKROGET = 0x125e, BLKGETSIZE = 0x1260,
BLKFLSBUF = 0x1261, BLKSSZGET = 0x1268,
BLKGETSIZE64 = 0x8008_1272 }
consts! { "Ioctls of /dev/random, random(4).", u32; RNDGETENTCNT = 0x8004_5200, RNDADDTOENTCNT = 0x4004_5201,
RNDADDENTROPY = 0x4008_5203,
RNDZAPENTCNT = 0x5204, RNDCLEARPOOL = 0x5206, RNDRESEEDCRNG = 0x5207 }
consts! { "Ioctls of namespace files, ioctl_ns(2).", u32; NS_GET_USERNS = 0xb701, NS_GET_PARENT = 0xb702,
NS_GET_NSTYPE = 0xb703, NS_GET_OWNER_UID = 0xb704 }
consts! { "Ioctls of keyboards and virtual terminals, which a pty answers with ENOTTY.", u32; KDGKBTYPE = 0x4b33,
KDGKBMODE = 0x4b44, VT_GETSTATE = 0x5603 }
