//! [`Script`]: a connection whose peer is played by hand.

use moat_net_stack::Time;
use moat_net_stack::tcp::{
    Connection, ConnectionState, Flags, Follows, Options, Parameters, Rules, Segment, SegmentOut, Settings,
};
use moat_net_stack::time::{MS, SECOND};

pub const ISS: u32 = 0xffff_ff00;
pub const PEER: u32 = 0x7fff_fff0;

/// A connection with its peer played by hand. The peer has SACK, timestamps and a window of 64 KiB unless the test says otherwise.
pub struct Script {
    pub c: Connection,
    pub now: Time,
    pub clock: u32,
    pub timestamps: bool,
}

/// So fast that no segment waits for its time, which tests of their own are about.
pub fn unpaced() -> Rules {
    Rules { pacing: (100_000, 100_000), ..Rules::default() }
}

pub fn parameters(settings: Settings) -> Parameters {
    Parameters { iss: ISS, timestamp_offset: 0, path_mss: 1460, largest_segment: 0, settings, rules: unpaced() }
}

impl Script {
    pub fn accepted(options: Options) -> Script {
        Script::accepted_with(options, Settings::default())
    }

    pub fn accepted_with(options: Options, settings: Settings) -> Script {
        let syn = Segment { seq: PEER, flags: SYN, window: 65535, options, ..Segment::default() };
        Script::of(&syn, parameters(settings))
    }

    /// A connection that `syn` has asked for.
    pub fn of(syn: &Segment<'_>, parameters: Parameters) -> Script {
        let now = Time::from_us(10 * SECOND);
        let timestamps = syn.options.timestamp.is_some();
        let c = Connection::accept(parameters, syn, now);
        let mut s = Script { c, now, clock: 100, timestamps };
        let out = s.take();
        assert_eq!((out.len(), out[0].flags.syn, out[0].seq, out[0].ack), (1, true, ISS, Some(PEER + 1)));
        s.now = s.now.after(30 * MS);
        s.input(1, Some(1), &[]);
        assert_eq!(s.c.state(), ConnectionState::Established);
        s
    }

    pub fn plain() -> Script {
        Script::accepted(Options { mss: Some(1460), ..Options::default() })
    }

    pub fn full() -> Script {
        Script::accepted(Options {
            mss: Some(1460),
            sack_permitted: true,
            timestamp: Some((100, 0)),
            window_scale: Some(7),
            ..Options::default()
        })
    }

    pub fn take(&mut self) -> Vec<SegmentOut> {
        let mut out = Vec::new();
        while self.c.output(self.now, 16, &mut out) {}
        out
    }

    pub fn segment<'a>(&self, position: u32, ack: Option<u32>, payload: &'a [u8]) -> Segment<'a> {
        Segment {
            seq: PEER.wrapping_add(position),
            ack: ack.map(|a| ISS.wrapping_add(a)),
            window: 65535,
            options: Options { timestamp: self.timestamps.then_some((self.clock, 0)), ..Options::default() },
            payload,
            part: payload.len(),
            ..Segment::default()
        }
    }

    /// Bytes at a position of the peer's stream, with an acknowledgement of the own one; gives what is sent.
    pub fn input(&mut self, position: u32, ack: Option<u32>, payload: &[u8]) -> Vec<SegmentOut> {
        let s = self.segment(position, ack, payload);
        self.c.input(&s, self.now);
        self.take()
    }

    pub fn flags(&mut self, position: u32, ack: Option<u32>, flags: Flags) -> Vec<SegmentOut> {
        let s = Segment { flags, ..self.segment(position, ack, &[]) };
        self.c.input(&s, self.now);
        self.take()
    }

    pub fn sack(&mut self, ack: u32, blocks: &[(u32, u32)]) -> Vec<SegmentOut> {
        let mut s = self.segment(1, Some(ack), &[]);
        s.options.sack = blocks.iter().map(|b| (ISS.wrapping_add(b.0), ISS.wrapping_add(b.1))).collect();
        self.c.input(&s, self.now);
        self.take()
    }

    pub fn write(&mut self, len: usize) -> Vec<SegmentOut> {
        assert_eq!(self.c.write(&vec![7; len], Follows::Nothing), Ok(len));
        self.take()
    }

    /// Lets time pass, with all that it brings.
    pub fn wait(&mut self, us: u64) -> Vec<SegmentOut> {
        let until = self.now.after(us);
        let mut out = Vec::new();
        while let Some(at) = self.c.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.c.on_timer(self.now);
            out.extend(self.take());
        }
        self.now = until;
        self.clock += (us / MS) as u32;
        out
    }
}

pub fn starts(out: &[SegmentOut]) -> Vec<u32> {
    out.iter().map(|s| s.seq.wrapping_sub(ISS)).collect()
}

pub const NONE: Flags = Flags { rst: false, syn: false, fin: false, psh: false, ece: false, cwr: false };
pub const RST: Flags = Flags { rst: true, ..NONE };
pub const SYN: Flags = Flags { syn: true, ..NONE };
pub const FIN: Flags = Flags { fin: true, ..NONE };
