//! Rules of congestion one by one, by a script: what is taken back where nothing was lost, marks of the network, pacing.

mod common;

use common::script::{ISS, PEER, SYN, Script, parameters, starts};
use moat_net_stack::tcp::{EcnRule, Flags, Marks, Options, Parameters, Rules, Segment, Settings};
use moat_net_stack::time::{MS, SECOND};

const MSS: u32 = 1448;

/// Where segment `n` begins.
fn at(n: u32) -> u32 {
    1 + n * MSS
}

/// The window and threshold in segments, and the state of congestion.
fn congestion(s: &Script) -> (u32, u32, u8) {
    let i = s.c.info(s.now);
    (i.tcpi_snd_cwnd, i.tcpi_snd_ssthresh, i.tcpi_ca_state)
}

/// An acknowledgement that echoes a stamp of `ago` milliseconds before now.
fn echo(s: &mut Script, ack: u32, ago: u64) -> Vec<u32> {
    let stamp = (s.now.us() / MS - ago) as u32;
    let mut segment = s.segment(1, Some(ack), &[]);
    segment.options.timestamp = Some((s.clock, stamp));
    s.c.input(&segment, s.now);
    starts(&s.take())
}

fn sacking() -> Options {
    Options { mss: Some(1448), sack_permitted: true, window_scale: Some(7), ..Options::default() }
}

fn with(options: Options, rules: Rules) -> Script {
    let syn = Segment { seq: PEER, flags: SYN, window: 65535, options, ..Segment::default() };
    Script::of(&syn, Parameters { rules, ..parameters(Settings::default()) })
}

fn rules() -> Rules {
    parameters(Settings::default()).rules
}

/// Waits for the timer, and a little more.
fn time_out(s: &mut Script) {
    let mut sent = Vec::new();
    while congestion(s).2 != 4 {
        sent.extend(s.wait(MS));
    }
    assert!(sent.iter().any(|o| o.seq == ISS.wrapping_add(at(0))), "the head was sent again");
    s.wait(10 * MS);
}

const NO_THRESHOLD: u32 = 0x7fff_ffff;

#[test]
fn a_repair_that_came_twice_is_taken_back() {
    // RFC 3708: the network reordered; both the segment and its second sending arrive.
    let mut s = Script::accepted(sacking());
    s.write(10 * MSS as usize);
    s.wait(30 * MS);
    assert_eq!(starts(&s.sack(at(0), &[(at(1), at(5))])), [at(0)]);
    assert_eq!(congestion(&s).1, 7);
    s.sack(at(10), &[]);
    assert_eq!(congestion(&s), (7, 7, 0), "repaired, as far as anybody knows");
    s.sack(at(10), &[(at(0), at(1))]);
    assert_eq!(congestion(&s), (10, NO_THRESHOLD, 0));
}

#[test]
fn of_two_repairs_one_that_came_twice_takes_nothing_back() {
    let mut s = Script::accepted(sacking());
    s.write(10 * MSS as usize);
    s.wait(30 * MS);
    let mut out = starts(&s.sack(at(0), &[(at(1), at(4)), (at(5), at(9))]));
    out.extend(starts(&s.sack(at(0), &[(at(5), at(10)), (at(1), at(4))])));
    assert_eq!(out, [at(0), at(4)]);
    s.sack(at(10), &[]);
    s.sack(at(10), &[(at(0), at(1))]);
    assert_eq!(congestion(&s), (7, 7, 0));
    s.sack(at(10), &[(at(4), at(5))]);
    assert_eq!(congestion(&s), (10, NO_THRESHOLD, 0));
}

#[test]
fn an_echo_of_the_first_sending_takes_a_repair_back() {
    // RFC 3522: the acknowledgement answers a stamp of before the second sending.
    let mut s = Script::full();
    s.write(10 * MSS as usize);
    s.wait(30 * MS);
    assert_eq!(starts(&s.sack(at(0), &[(at(1), at(5))])), [at(0)]);
    s.wait(5 * MS);
    echo(&mut s, at(5), 35);
    assert_eq!(congestion(&s), (15, NO_THRESHOLD, 0), "and grows on");
    // One of the second sending is a repair.
    let mut s = Script::full();
    s.write(10 * MSS as usize);
    s.wait(30 * MS);
    s.sack(at(0), &[(at(1), at(5))]);
    s.wait(30 * MS);
    echo(&mut s, at(5), 30);
    assert_eq!((congestion(&s).1, congestion(&s).2), (7, 3));
}

#[test]
fn a_timeout_that_an_echo_shows_to_be_spurious_is_taken_back() {
    let mut s = Script::full();
    s.write(10 * MSS as usize);
    time_out(&mut s);
    // The path had stood still: the first answers come.
    let out = echo(&mut s, at(1), 200);
    assert!(out.is_empty(), "nothing is sent again: {out:?}");
    assert_eq!(congestion(&s), (11, NO_THRESHOLD, 0));
}

#[test]
fn without_timestamps_new_data_asks_whether_a_timeout_was_spurious() {
    // RFC 5682 with SACK: the head's acknowledgement says nothing; that of what was never sent again does.
    let mut s = Script::accepted(sacking());
    s.write(10 * MSS as usize);
    s.write(10 * MSS as usize);
    time_out(&mut s);
    assert_eq!(starts(&s.sack(at(1), &[])), [at(10), at(11)], "new data in place of the rest");
    let out = starts(&s.sack(at(2), &[]));
    assert!(out.iter().all(|seq| *seq >= at(12)), "nothing of what was thought lost: {out:?}");
    assert_eq!((congestion(&s).0 >= 10, congestion(&s).1, congestion(&s).2), (true, NO_THRESHOLD, 0));
}

#[test]
fn a_real_loss_is_repaired_after_new_data_has_asked() {
    let mut s = Script::accepted(sacking());
    s.write(10 * MSS as usize);
    s.write(10 * MSS as usize);
    time_out(&mut s);
    assert_eq!(starts(&s.sack(at(1), &[])), [at(10), at(11)]);
    // The new data arrives behind the hole.
    let out = starts(&s.sack(at(1), &[(at(10), at(11))]));
    assert_eq!(out.first(), Some(&at(1)), "{out:?}");
    assert_eq!((congestion(&s).1, congestion(&s).2), (7, 4));
}

#[test]
fn with_nothing_new_to_send_and_without_the_rule_the_rest_is_sent_again() {
    let mut s = Script::accepted(sacking());
    s.write(10 * MSS as usize);
    time_out(&mut s);
    assert_eq!(starts(&s.sack(at(1), &[])), [at(1), at(2)]);
    let mut s = with(sacking(), Rules { frto: false, ..rules() });
    s.write(10 * MSS as usize);
    s.write(10 * MSS as usize);
    time_out(&mut s);
    assert_eq!(starts(&s.sack(at(1), &[])), [at(1), at(2)]);
}

#[test]
fn without_rack_three_segments_behind_a_hole_show_a_loss_and_time_does_not() {
    let mut s = with(sacking(), Rules { rack: false, ..rules() });
    s.write(10 * MSS as usize);
    s.wait(30 * MS);
    assert!(s.sack(at(0), &[(at(1), at(3))]).is_empty());
    assert!(s.wait(20 * MS).is_empty(), "no clock");
    assert_eq!(starts(&s.sack(at(0), &[(at(1), at(4))])), [at(0)]);
    // With it a quarter of the round trip is enough.
    let mut s = Script::accepted(sacking());
    s.write(10 * MSS as usize);
    s.wait(30 * MS);
    assert!(s.sack(at(0), &[(at(1), at(3))]).is_empty());
    assert_eq!(starts(&s.wait(20 * MS)), [at(0)]);
}

#[test]
fn only_who_allows_it_is_told_of_duplicates() {
    for (dsack, blocks) in [(true, 1), (false, 0)] {
        let mut s = with(sacking(), Rules { dsack, ..rules() });
        s.input(1, Some(1), b"bytes");
        let out = s.input(1, Some(1), b"bytes");
        assert_eq!((out.len(), out[0].options.sack.len()), (1, blocks));
    }
}

#[test]
fn offers_that_the_namespace_refuses_are_not_taken() {
    let all = Options { timestamp: Some((100, 0)), ..sacking() };
    for (rules, what) in [
        (Rules { sack: false, ..rules() }, 5),
        (Rules { timestamps: false, ..rules() }, 6),
        (Rules { window_scaling: false, ..rules() }, 3),
    ] {
        let mut s = with(all.clone(), rules);
        s.timestamps = rules.timestamps;
        assert_eq!(s.c.info(s.now).tcpi_options, what);
    }
}

/// A connection whose SYN asked for ECN.
fn marked(ecn: EcnRule) -> Script {
    let flags = Flags { ece: true, cwr: true, ..SYN };
    let syn = Segment { seq: PEER, flags, window: 65535, options: sacking(), ..Segment::default() };
    Script::of(&syn, Parameters { rules: Rules { ecn, ..rules() }, ..parameters(Settings::default()) })
}

fn told(s: &mut Script, ack: u32) -> Vec<moat_net_stack::tcp::SegmentOut> {
    let flags = Flags { ece: true, ..Flags::default() };
    let segment = Segment { flags, ..s.segment(1, Some(ack), &[]) };
    s.c.input(&segment, s.now);
    s.take()
}

#[test]
fn marks_that_the_peer_tells_of_make_the_window_smaller_once_in_a_round_trip() {
    let mut s = marked(EcnRule::Accept);
    let out = s.write(10 * MSS as usize);
    assert!(out.iter().all(|o| o.capable && !o.flags.cwr));
    s.write(20 * MSS as usize);
    s.wait(30 * MS);
    let mut after = told(&mut s, at(2));
    assert_eq!((congestion(&s).1, congestion(&s).2), (7, 2));
    after.extend(told(&mut s, at(4)));
    after.extend(told(&mut s, at(6)));
    assert_eq!(congestion(&s).1, 7, "once for a window");
    assert_eq!(after.iter().filter(|o| o.flags.cwr).count(), 1, "said once");
    assert!(after[0].flags.cwr && after[0].len() == MSS as usize && starts(&after)[0] == at(10));
    assert_eq!(s.c.info(s.now).tcpi_total_retrans, 0);
}

#[test]
fn the_peer_is_told_of_marks_until_it_says_that_it_has_heard() {
    let mut s = marked(EcnRule::Accept);
    let marks = Marks { capable: true, marked: true };
    let segment = Segment { ecn: marks, ..s.segment(1, Some(1), b"a") };
    s.c.input(&segment, s.now);
    let out = s.take();
    assert!(out.len() == 1 && out[0].flags.ece, "at once");
    let plain = Segment { ecn: Marks { capable: true, marked: false }, ..s.segment(2, Some(1), b"b") };
    s.c.input(&plain, s.now);
    assert!(s.take().iter().all(|o| o.flags.ece && !o.capable));
    assert!(s.write(10)[0].flags.ece, "data tells of it too");
    let heard = Segment { flags: Flags { cwr: true, ..Flags::default() }, ..s.segment(3, Some(11), b"c") };
    s.c.input(&heard, s.now);
    assert!(s.take().iter().all(|o| !o.flags.ece));
    assert_eq!(s.c.info(s.now).tcpi_options & 24, 24);
}

#[test]
fn repairs_and_acknowledgements_can_not_be_marked() {
    let mut s = marked(EcnRule::Accept);
    s.write(10 * MSS as usize);
    s.wait(30 * MS);
    let out = s.sack(at(0), &[(at(1), at(5))]);
    assert!(starts(&out) == [at(0)] && !out[0].capable);
    assert!(s.input(1, Some(at(10)), &[1; 1460]).iter().all(|o| !o.capable));
}

#[test]
fn ecn_is_for_those_who_ask_and_where_it_is_allowed() {
    let answer = |ecn, flags, marks| {
        let syn = Segment { seq: PEER, flags, ecn: marks, ..Segment::default() };
        let p = Parameters { rules: Rules { ecn, ..rules() }, ..parameters(Settings::default()) };
        let mut c = moat_net_stack::tcp::Connection::accept(p, &syn, moat_net_stack::Time::from_us(1));
        let mut out = Vec::new();
        c.output(moat_net_stack::Time::from_us(1), 1, &mut out);
        (out[0].flags.ece, out[0].flags.cwr, out[0].capable)
    };
    let asks = Flags { ece: true, cwr: true, ..SYN };
    assert_eq!(answer(EcnRule::Accept, asks, Marks::default()), (true, false, false));
    assert_eq!(answer(EcnRule::Ask, asks, Marks::default()), (true, false, false));
    assert_eq!(answer(EcnRule::Never, asks, Marks::default()), (false, false, false));
    assert_eq!(answer(EcnRule::Accept, SYN, Marks::default()), (false, false, false));
    assert_eq!(answer(EcnRule::Accept, asks, Marks { capable: true, marked: true }), (false, false, false));
    // And who asks: with the first SYN only.
    let p = Parameters { rules: Rules { ecn: EcnRule::Ask, ..rules() }, ..parameters(Settings::default()) };
    let now = moat_net_stack::Time::from_us(SECOND);
    let c = moat_net_stack::tcp::Connection::connect(p, now);
    let mut s = Script { c, now, clock: 0, timestamps: false };
    let first = s.take();
    assert!(first[0].flags.ece && first[0].flags.cwr);
    assert!(s.wait(SECOND).iter().all(|o| o.flags.syn && !o.flags.ece && !o.flags.cwr));
    let agreed = Flags { ece: true, ..SYN };
    let reply =
        Segment { seq: PEER, ack: Some(ISS.wrapping_add(1)), flags: agreed, window: 65535, ..Segment::default() };
    s.c.input(&reply, s.now);
    s.take();
    assert!(s.write(10)[0].capable);
}

#[test]
fn segments_are_spread_over_the_round_trip_but_for_the_first() {
    let mut s = with(sacking(), Rules { pacing: (200, 120), ..rules() });
    // The first window goes at once.
    assert_eq!(s.write(40 * MSS as usize).len(), 10);
    s.wait(30 * MS);
    // All of it is acknowledged together, and the next one is not sent together.
    let out = s.sack(at(10), &[]);
    assert!((1..=4).contains(&out.len()), "{} at once", out.len());
    let first_half = out.len() + s.wait(8 * MS).len();
    assert!((8..=16).contains(&first_half), "{first_half} in a quarter of the round trip");
    assert_eq!(first_half + s.wait(12 * MS).len(), 20, "twice the window in half of one, and a little");
    // A rate of the user's own.
    let settings = Settings { pacing_rate: Some(100 * u64::from(MSS)), ..Settings::default() };
    let mut s = Script::accepted_with(sacking(), settings);
    assert_eq!(s.write(40 * MSS as usize).len(), 10);
    s.wait(30 * MS);
    let sent = s.sack(at(10), &[]).len();
    assert_eq!((sent, s.wait(50 * MS).len()), (1, 5));
    assert_eq!(s.c.info(s.now).tcpi_max_pacing_rate, 100 * u64::from(MSS));
}
