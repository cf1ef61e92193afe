//! [`Pace`]: how quickly a guest thread has lately stopped, and whether a look at it pays.

/// A stop so many cycles after the reply (some 20 us) is a quick one.
const QUICK_CYCLES: u64 = 60_000;
/// Quick stops in a row that make a thread hot.
const HOT_STREAK: u32 = 16;
/// How long to look at a thread that waited awake last time (some 30 us).
pub const LOOK_CYCLES: u64 = 90_000;
/// How long its owner looks first, while which nobody else is served (some 3 us).
pub const LINGER_CYCLES: u64 = 8_000;
/// How long at one that has to be woken by the host first (some 100 us).
pub const FIRST_LOOK_CYCLES: u64 = 300_000;
/// Stops that a thread stays cool for after a look in vain, and how often that doubles: a look in vain (some 100 us) for 4,096 rings
/// (some 25 ms) costs next to nothing, and a thread that was misjudged is not left to rings for long.
const COOL_STOPS: u32 = 64;
const MAX_DOUBLINGS: u32 = 6;
/// Calls that were handed over awake, after which a look in vain has been paid for: it costs as much as some four rings.
const PAID: u32 = 64;
/// What a stretch counts for at most: one that was interrupted says little.
const LONG_CYCLES: u64 = 2_000_000;
/// Stretches of application code that are brief on average (some 5 us): a thread with such is as well off on a CPU that it
/// shares with its like.
const BRIEF_CYCLES: u64 = 15_000;

/// How quickly a thread has lately stopped.
#[derive(Debug)]
pub struct Pace {
    streak: u32,
    cool_for: u32,
    doublings: u32,
    awake: bool,
    /// Calls handed over awake since the last look in vain.
    paid: u32,
    /// The mean length of late stretches of application code.
    ran: u64,
}

impl Default for Pace {
    /// Of a thread that nothing is known of.
    fn default() -> Pace {
        Pace { streak: 0, cool_for: 0, doublings: 0, awake: false, paid: 0, ran: QUICK_CYCLES }
    }
}

impl Pace {
    /// The thread has stopped, so many cycles after its last reply (by the stub's own word, which is good
    /// enough here), and waits awake, or not.
    pub fn stopped(&mut self, ran: u64, awake: bool) {
        let quick = ran < QUICK_CYCLES;
        // One slow stop is enough to be cool again: a look costs a CPU for its whole length, a ring costs little.
        self.streak = if quick { self.streak.saturating_add(1) } else { 0 };
        self.cool_for = self.cool_for.saturating_sub(1);
        self.awake = awake;
        self.paid = if awake { self.paid.saturating_add(1) } else { self.paid };
        self.ran = (self.ran.saturating_mul(7).saturating_add(ran.min(LONG_CYCLES))) / 8;
        // The price of looks in vain long ago is forgotten by a thread that has been answered awake for a thousand
        // calls.
        if awake && self.streak.is_multiple_of(1024) {
            self.doublings = 0;
        }
    }

    /// Whether it leaves application code soon each time, on average.
    pub fn is_brief(&self) -> bool {
        self.ran < BRIEF_CYCLES
    }

    /// It is told to make calls that the sentry has to be told of by the listener, and must not be looked at instead.
    pub fn calm(&mut self) {
        self.streak = 0;
        self.awake = false;
    }

    /// It was looked at in vain, because the host has not let it run beside the thread that looked: it is as quick as it was.
    pub fn starved(&mut self) {
        self.cool_for = HOT_STREAK;
        self.awake = false;
    }

    /// It was looked at in vain: false if looks have saved so many rings since the last time that nothing was lost, and nothing is to
    /// change.
    pub fn is_loss(&mut self) -> bool {
        let loss = self.paid < PAID;
        self.paid = 0;
        if !loss {
            self.starved();
        }
        loss
    }

    /// It was looked at in vain, at a loss.
    pub fn cool(&mut self) {
        // Twice as long each time: a program whose calls only look quick must not cost a look every 64 calls for ever.
        self.cool_for = COOL_STOPS << self.doublings;
        self.doublings = (self.doublings + 1).min(MAX_DOUBLINGS);
        self.streak = 0;
        self.awake = false;
    }

    /// Whether it is worth looking at.
    pub fn is_hot(&self) -> bool {
        self.streak >= HOT_STREAK && self.cool_for == 0
    }

    /// For how many cycles.
    pub fn look_cycles(&self) -> u64 {
        // Whom the host has to wake first is late by that much more.
        if self.awake { LOOK_CYCLES } else { FIRST_LOOK_CYCLES }
    }
}
