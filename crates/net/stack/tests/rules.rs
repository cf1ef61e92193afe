//! Rules of TCP one by one: segments in, segments out, by a script.

mod common;

use common::script::{FIN, ISS, PEER, RST, SYN, Script, parameters, starts};
use moat_abi::Errno;
use moat_net_stack::Time;
use moat_net_stack::tcp::{Connection, ConnectionState, Options, Segment, SegmentOut, Settings, Taking};
use moat_net_stack::time::{MS, SECOND};

#[test]
fn a_reset_counts_only_at_the_very_next_number() {
    // RFC 5961, section 3: in the window it is challenged, elsewhere dropped.
    let mut s = Script::plain();
    let out = s.flags(1000, Some(1), RST);
    assert_eq!((out.len(), out[0].ack, s.c.state()), (1, Some(PEER.wrapping_add(1)), ConnectionState::Established));
    assert!(s.flags(1000, Some(1), RST).is_empty(), "challenges are not sent too often");
    assert!(s.flags(0x7000_0000, Some(1), RST).is_empty());
    s.flags(1, Some(1), RST);
    assert_eq!((s.c.state(), s.c.take_error()), (ConnectionState::Closed, Some(Errno::ECONNRESET)));
}

#[test]
fn a_syn_in_the_window_and_a_wild_acknowledgement_are_challenged() {
    let mut s = Script::plain();
    assert_eq!((s.flags(5, Some(1), SYN).len(), s.c.state()), (1, ConnectionState::Established));
    s.wait(SECOND);
    let out = s.input(1, Some(9_000), b"evil");
    assert_eq!((out.len(), s.c.readiness().readable), (1, 0), "nothing of it is taken");
}

#[test]
fn old_timestamps_are_dropped() {
    // RFC 7323, PAWS.
    let mut s = Script::full();
    s.clock = 200;
    s.input(1, Some(1), b"new");
    s.clock = 150;
    let out = s.input(4, Some(1), b"old");
    assert_eq!((out.len(), s.c.readiness().readable), (1, 3));
}

#[test]
fn three_duplicates_without_sack_send_the_first_again() {
    let mut s = Script::plain();
    assert_eq!(s.write(14_600).len(), 10);
    s.wait(20 * MS);
    assert!(s.input(1, Some(1), &[]).is_empty());
    assert!(s.input(1, Some(1), &[]).is_empty());
    assert_eq!(starts(&s.input(1, Some(1), &[])), [1]);
    // A partial acknowledgement shows the next hole (RFC 6582).
    assert_eq!(starts(&s.input(1, Some(1 + 4 * 1460), &[]))[0], 1 + 4 * 1460);
    assert!(s.c.info(s.now).tcpi_ca_state == 3);
    s.input(1, Some(1 + 14_600), &[]);
    let info = s.c.info(s.now);
    assert_eq!((info.tcpi_ca_state, info.tcpi_total_retrans, info.tcpi_snd_cwnd), (0, 2, 7));
}

#[test]
fn sack_repairs_the_holes_alone() {
    let mut s = Script::full();
    let mss = 1448;
    s.write(10 * mss);
    s.wait(30 * MS);
    let at = |n: u32| 1 + n * 1448;
    // 2 and 5 are missing.
    assert!(s.sack(at(2), &[(at(3), at(4))]).is_empty());
    assert!(s.sack(at(2), &[(at(3), at(5))]).is_empty());
    let mut out = s.sack(at(2), &[(at(6), at(7)), (at(3), at(5))]);
    out.extend(s.sack(at(2), &[(at(6), at(10)), (at(3), at(5))]));
    assert_eq!(starts(&out), [at(2), at(5)]);
    s.wait(30 * MS);
    s.sack(at(10), &[]);
    assert_eq!((s.c.unacknowledged(), s.c.info(s.now).tcpi_total_retrans), (0, 2));
}

#[test]
fn a_lost_retransmission_is_found_by_what_was_sent_after_it() {
    // RFC 8985: by time, without a timeout.
    let mut s = Script::full();
    s.write(10 * 1448);
    s.wait(30 * MS);
    let at = |n: u32| 1 + n * 1448;
    assert_eq!(starts(&s.sack(at(0), &[(at(1), at(4))])), [at(0)]);
    // New bytes go out after the repair, which is lost too.
    s.wait(MS);
    s.sack(at(0), &[(at(1), at(10))]);
    let new = s.write(3 * 1448);
    assert_eq!(starts(&new), [at(10), at(11), at(12)]);
    s.wait(30 * MS);
    let mut out = s.sack(at(0), &[(at(1), at(11))]);
    out.extend(s.wait(10 * MS));
    assert_eq!(starts(&out), [at(0)]);
    s.wait(30 * MS);
    s.sack(at(13), &[]);
    let info = s.c.info(s.now);
    assert_eq!((info.tcpi_total_retrans, info.tcpi_ca_state, s.c.unacknowledged()), (2, 0, 0));
}

#[test]
fn the_timer_counts_from_the_repair_of_the_first() {
    // Its answer may come after what was the timeout of the first sending.
    let mut s = Script::full();
    s.write(8 * 1448);
    let at = |n: u32| 1 + n * 1448;
    s.wait(55 * MS);
    assert_eq!(starts(&s.sack(at(0), &[(at(1), at(8))])), [at(0)]);
    let rto = s.c.info(s.now).tcpi_rto;
    let out = s.wait(u64::from(rto) - 10 * MS);
    assert!(out.is_empty(), "{:?} within {rto} us", starts(&out));
    assert_eq!(starts(&s.wait(20 * MS)), [at(0)]);
}

#[test]
fn the_timer_doubles_and_gives_up() {
    let settings = Settings { user_timeout_us: 0, ..Settings::default() };
    let mut s = Script::accepted_with(Options { mss: Some(1460), ..Options::default() }, settings);
    s.write(100);
    let first = s.c.deadline().unwrap().since(s.now);
    assert!((200 * MS..=SECOND).contains(&first), "{first}");
    assert_eq!(starts(&s.wait(first)), [1]);
    assert_eq!(s.wait(first * 2 - 1).len(), 0);
    assert_eq!(starts(&s.wait(1)), [1]);
    s.wait(3600 * SECOND);
    assert_eq!((s.c.state(), s.c.take_error()), (ConnectionState::Closed, Some(Errno::ETIMEDOUT)));
}

#[test]
fn a_silent_tail_is_probed_before_the_timer() {
    // RFC 8985, section 7: two round trips, not the timeout.
    let mut s = Script::full();
    s.write(1448);
    s.wait(10 * MS);
    s.sack(1449, &[]);
    s.write(3 * 1448);
    let out = s.wait(60 * MS);
    assert_eq!(starts(&out), [1 + 3 * 1448]);
}

#[test]
fn nagle_holds_a_second_small_segment_and_cork_the_first() {
    let mut s = Script::plain();
    assert_eq!(s.write(10).len(), 1);
    assert_eq!(s.write(10).len(), 0);
    assert_eq!(s.write(1460).len(), 1, "a full one goes");
    assert_eq!(starts(&s.input(1, Some(11), &[])), [1471]);
    let settings = Settings { cork: true, ..Settings::default() };
    s.input(1, Some(1481), &[]);
    s.c.set(settings, s.now);
    assert_eq!(s.write(10).len(), 0);
    assert_eq!(s.wait(199 * MS).len(), 0);
    assert_eq!(s.wait(MS).len(), 1, "a cork holds for 200 ms");
}

#[test]
fn acknowledgements_wait_but_not_for_the_second_full_segment() {
    let mut s = Script::plain();
    let full = [1; 1460];
    // The first sixteen are quick.
    let mut at = 1;
    for _ in 0..16 {
        assert_eq!(s.input(at, Some(1), &full).len(), 1);
        at += 1460;
    }
    assert_eq!(s.input(at, Some(1), &full).len(), 0);
    assert_eq!(s.input(at + 1460, Some(1), &full).len(), 1);
    assert_eq!(s.input(at + 2920, Some(1), &full).len(), 0);
    assert_eq!(s.wait(40 * MS).len(), 1);
    // Out of order: at once, with the block.
    let mut s = Script::full();
    let out = s.input(1001, Some(1), b"ahead");
    assert_eq!(out[0].options.sack, [(PEER.wrapping_add(1001), PEER.wrapping_add(1006))]);
}

#[test]
fn a_closed_window_is_probed_and_opened() {
    let mut s = Script::plain();
    let zero = Segment { window: 0, ..s.segment(1, Some(1), &[]) };
    s.c.input(&zero, s.now);
    assert_eq!(s.write(100).len(), 0);
    let out = s.wait(2 * SECOND);
    assert!(!out.is_empty() && out.iter().all(|o| o.is_empty() && o.seq == ISS), "probes lie before the window");
    assert_eq!(s.input(1, Some(1), &[]).iter().map(SegmentOut::len).sum::<usize>(), 100);
}

#[test]
fn the_own_window_closes_and_is_told_when_it_opens() {
    let settings = Settings { receive_buffer: Some(8192), ..Settings::default() };
    let mut s = Script::accepted_with(Options { mss: Some(1460), ..Options::default() }, settings);
    let mut at = 1;
    for _ in 0..3 {
        s.input(at, Some(1), &[5; 1300]);
        at += 1300;
    }
    let mut last = s.input(at, Some(1), &[5; 1300]);
    last.extend(s.wait(SECOND));
    assert_eq!(last.last().unwrap().window, 0);
    let mut buffer = [0; 4096];
    assert_eq!(s.c.read(&mut buffer, Taking::Remove, s.now), 4096);
    let out = s.take();
    assert_eq!((out.len(), out[0].window > 2000), (1, true));
}

#[test]
fn both_ends_close_in_every_order() {
    // Active: FIN_WAIT_1, FIN_WAIT_2, TIME_WAIT.
    let mut s = Script::plain();
    s.c.finish();
    assert!(s.take()[0].flags.fin);
    s.input(1, Some(2), &[]);
    assert_eq!(s.c.state(), ConnectionState::FinWait2);
    assert_eq!(s.flags(1, Some(2), FIN).len(), 1);
    assert_eq!(s.c.state(), ConnectionState::TimeWait);
    assert_eq!(s.flags(1, Some(2), FIN).len(), 1, "the last acknowledgement is given again");
    s.wait(61 * SECOND);
    assert_eq!(s.c.state(), ConnectionState::Closed);
    // Passive: CLOSE_WAIT, LAST_ACK.
    let mut s = Script::plain();
    s.flags(1, Some(1), FIN);
    assert_eq!((s.c.state(), s.c.readiness().read_ended), (ConnectionState::CloseWait, true));
    assert_eq!(s.write(5).len(), 1, "the other half still works");
    s.c.finish();
    s.take();
    s.input(2, Some(7), &[]);
    assert_eq!((s.c.state(), s.c.take_error()), (ConnectionState::Closed, None));
    // At once: CLOSING.
    let mut s = Script::plain();
    s.c.finish();
    s.take();
    s.flags(1, Some(1), FIN);
    assert_eq!(s.c.state(), ConnectionState::Closing);
    s.input(2, Some(2), &[]);
    assert_eq!(s.c.state(), ConnectionState::TimeWait);
}

#[test]
fn two_syns_that_cross_make_one_connection() {
    let now = Time::from_us(10 * SECOND);
    let mut c = Connection::connect(parameters(Settings::default()), now);
    let mut out = Vec::new();
    c.output(now, 1, &mut out);
    let syn = Segment { seq: PEER, flags: SYN, window: 65535, ..Segment::default() };
    c.input(&syn, now);
    assert_eq!(c.state(), ConnectionState::SynReceived);
    out.clear();
    c.output(now, 1, &mut out);
    assert_eq!((out[0].flags.syn, out[0].ack, out[0].seq), (true, Some(PEER + 1), ISS));
    let both = Segment { ack: Some(ISS.wrapping_add(1)), ..syn };
    c.input(&both, now);
    assert_eq!(c.state(), ConnectionState::Established);
}

#[test]
fn a_refusal_and_a_timeout_end_an_attempt() {
    let now = Time::from_us(10 * SECOND);
    let settings = Settings { syn_retries: 2, ..Settings::default() };
    let begin = || {
        let mut c = Connection::connect(parameters(settings.clone()), now);
        c.output(now, 1, &mut Vec::new());
        c
    };
    let mut c = begin();
    let forged = Segment { ack: Some(ISS.wrapping_add(9)), flags: RST, ..Segment::default() };
    c.input(&forged, now);
    assert_eq!(c.state(), ConnectionState::SynSent, "a reset that acknowledges something else is forged");
    c.input(&Segment { ack: Some(ISS.wrapping_add(1)), ..forged }, now);
    assert_eq!((c.state(), c.take_error()), (ConnectionState::Closed, Some(Errno::ECONNREFUSED)));
    let mut s = Script { c: begin(), now, clock: 0, timestamps: false };
    assert_eq!(s.wait(60 * SECOND).len(), 2);
    assert_eq!((s.c.state(), s.c.take_error()), (ConnectionState::Closed, Some(Errno::ETIMEDOUT)));
}

#[test]
fn keepalive_asks_and_gives_up() {
    let settings = Settings {
        keep_alive: true,
        keep_idle_us: 10 * SECOND,
        keep_interval_us: 5 * SECOND,
        keep_count: 3,
        ..Settings::default()
    };
    let mut s = Script::accepted_with(Options { mss: Some(1460), ..Options::default() }, settings);
    let out = s.wait(11 * SECOND);
    assert_eq!((out.len(), out[0].seq, out[0].len()), (1, ISS, 0));
    s.input(1, Some(1), &[]);
    s.wait(60 * SECOND);
    assert_eq!((s.c.state(), s.c.take_error()), (ConnectionState::Closed, Some(Errno::ETIMEDOUT)));
}

#[test]
fn close_with_unread_bytes_is_a_reset() {
    let mut s = Script::plain();
    s.input(1, Some(1), b"unread");
    s.c.release(s.now);
    assert!(s.take()[0].flags.rst);
    // And bytes that come after the close.
    let mut s = Script::plain();
    s.c.release(s.now);
    assert!(s.take()[0].flags.fin);
    assert!(s.input(1, Some(2), b"late").iter().any(|o| o.flags.rst));
}

#[test]
fn a_narrower_path_cuts_what_is_under_way_again() {
    let mut s = Script::plain();
    let out = s.write(2920);
    assert_eq!(out.len(), 2);
    s.c.path_shrank(500, Some(0x1234_5678));
    assert!(s.take().is_empty(), "a message about nothing that is under way is forged");
    s.c.path_shrank(500, Some(ISS.wrapping_add(1)));
    let out = s.take();
    assert!(!out.is_empty() && out.iter().all(|o| o.len() <= 500));
}
