//! timerfd_create(2): a timer as a file.
//!
//! Expirations are counted when somebody looks; a host timer only wakes those who wait.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use moat_abi::fs::OpenFlags;
use moat_abi::time::{
    CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM, CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_REALTIME_ALARM, Itimerspec,
    NSEC_PER_SEC, TFD_IOC_SET_TICKS, Timespec, ktime_add, ktime_forward,
};
use moat_abi::{Errno, PollEvents, Result};
use moat_image::state::{OpenFileKind, TimerFdState as Saved};
use moat_image::{ImageError, Refusal};
use moat_sync::timer::Timer;
use moat_sync::wait::{Notify, Registration};
use moat_sync::{LockClass, Mutex, WaitQueue};
use moat_vfs::persist::SaveFiles;
use moat_vfs::{Caller, Credentials, File, OpenFile, Seekable, Vfs};
use rustix::time::{ClockId, clock_gettime};

/// What a timer is set to, in nanoseconds of its clock.
#[derive(Clone, Copy, Debug, Default)]
struct Setting {
    /// The next expiration; `None` is disarmed.
    next_ns: Option<u64>,
    /// 0 is once.
    interval_ns: u64,
    /// Expirations not read yet.
    ticks: u64,
}

impl Setting {
    /// Counts what has expired by `now_ns`.
    fn advance(&mut self, now_ns: u64) {
        let Some(next) = self.next_ns.filter(|&n| n <= now_ns) else { return };
        let (following, n) = match self.interval_ns {
            0 => (None, 1),
            interval => {
                let (following, n) = ktime_forward(next, interval, now_ns);
                (Some(following), n)
            }
        };
        self.next_ns = following;
        self.ticks = self.ticks.saturating_add(n);
    }
}

struct TimerFdState {
    setting: Setting,
    host: Option<Timer>,
}

/// A timer.
pub struct TimerFd {
    me: Weak<TimerFd>,
    clock: i32,
    state: Mutex<TimerFdState>,
    queue: WaitQueue,
}

/// Whether the time given is a point or a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum When {
    Absolute,
    Relative,
}

/// The host timer of a timerfd.
struct Expired(Weak<TimerFd>);

impl Notify for Expired {
    fn notify(&self, _events: PollEvents) {
        let Some(t) = self.0.upgrade() else { return };
        {
            let mut s = t.state.lock();
            s.setting.advance(t.now_ns());
            // With nobody listening the next look counts by itself: an unread timer costs nothing.
            let old = if t.queue.is_empty() { s.host.take() } else { t.arm(&mut s) };
            drop(s);
            drop(old);
        }
        t.queue.wake(PollEvents::READ_READY);
    }
}

impl TimerFd {
    /// Opens a disarmed timer on `clock`.
    ///
    /// # Errors
    /// EINVAL for a clock that timers can't use.
    pub fn open(vfs: &Vfs, clock: i32, flags: OpenFlags, creds: &Arc<Credentials>) -> Result<Arc<OpenFile>> {
        if !matches!(
            clock,
            CLOCK_REALTIME | CLOCK_MONOTONIC | CLOCK_BOOTTIME | CLOCK_REALTIME_ALARM | CLOCK_BOOTTIME_ALARM
        ) {
            return Err(Errno::EINVAL);
        }
        let file = Arc::new_cyclic(|me| TimerFd {
            me: me.clone(),
            clock,
            state: Mutex::new(LockClass::KernelTimer, TimerFdState { setting: Setting::default(), host: None }),
            queue: WaitQueue::new(),
        });
        Ok(vfs.open_anon("[timerfd]", file, flags | OpenFlags::RDWR, creds))
    }

    fn now_ns(&self) -> u64 {
        let id = match self.clock {
            CLOCK_REALTIME | CLOCK_REALTIME_ALARM => ClockId::Realtime,
            CLOCK_MONOTONIC => ClockId::Monotonic,
            _ => ClockId::Boottime,
        };
        let t = clock_gettime(id);
        let (sec, nsec) = (u64::try_from(t.tv_sec).unwrap_or(0), u64::try_from(t.tv_nsec).unwrap_or(0));
        sec.saturating_mul(NSEC_PER_SEC).saturating_add(nsec)
    }

    /// Sets the host timer to the next expiration; gives the old one, to be dropped outside the lock.
    fn arm(&self, s: &mut TimerFdState) -> Option<Timer> {
        let new = s.setting.next_ns.map(|next| {
            let wait = Duration::from_nanos(next.saturating_sub(self.now_ns()));
            Timer::set(Instant::now() + wait, Arc::new(Expired(self.me.clone())))
        });
        std::mem::replace(&mut s.host, new)
    }

    fn shown(&self, setting: &Setting) -> Itimerspec {
        // An armed timer must not show zero, which is off.
        let left = setting.next_ns.map_or(0, |n| n.saturating_sub(self.now_ns()).max(1));
        Itimerspec { it_interval: Timespec::from_nanos(setting.interval_ns), it_value: Timespec::from_nanos(left) }
    }

    /// Sets or disarms; gives the old setting.
    ///
    /// # Errors
    /// EINVAL.
    pub fn set(&self, new: &Itimerspec, when: When) -> Result<Itimerspec> {
        let (value, interval_ns) = (new.it_value.to_nanos()?, new.it_interval.to_nanos()?);
        let next_ns = match (value, when) {
            (0, _) => None,
            (at, When::Absolute) => Some(at),
            (span, When::Relative) => Some(ktime_add(self.now_ns(), span)),
        };
        let (old, timer) = {
            let mut s = self.state.lock();
            s.setting.advance(self.now_ns());
            let old = self.shown(&s.setting);
            // Expirations of the old setting are gone.
            s.setting = Setting { next_ns, interval_ns, ticks: 0 };
            (old, self.arm(&mut s))
        };
        // Dropped unlocked, as `arm` asks.
        drop(timer);
        Ok(old)
    }

    /// The time left and the interval.
    #[must_use]
    pub fn get(&self) -> Itimerspec {
        let mut s = self.state.lock();
        s.setting.advance(self.now_ns());
        self.shown(&s.setting)
    }

    /// Counts expirations, and sets the host timer again if it has been let go.
    fn look<R>(&self, f: impl FnOnce(&mut Setting) -> R) -> R {
        let (result, timer) = {
            let mut s = self.state.lock();
            s.setting.advance(self.now_ns());
            let result = f(&mut s.setting);
            (result, self.arm(&mut s))
        };
        // As above.
        drop(timer);
        result
    }
}

impl TimerFd {
    fn is_of_the_day(clock: i32) -> bool {
        matches!(clock, CLOCK_REALTIME | CLOCK_REALTIME_ALARM)
    }

    /// A timer out of an image.
    ///
    /// # Errors
    /// A clock that timers can't use.
    pub fn restore(
        vfs: &Vfs,
        saved: &Saved,
        flags: OpenFlags,
        creds: &Arc<Credentials>,
    ) -> std::result::Result<Arc<OpenFile>, ImageError> {
        let wrong = |_| ImageError::state(format!("a timerfd on clock {}", saved.clock));
        let open = TimerFd::open(vfs, saved.clock, flags, creds).map_err(wrong)?;
        if let Some(timer) = open.downcast::<TimerFd>() {
            let since = if TimerFd::is_of_the_day(saved.clock) { 0 } else { timer.now_ns() };
            let next_ns = saved.next_ns.map(|next| ktime_add(since, next));
            timer.state.lock().setting = Setting { next_ns, interval_ns: saved.interval_ns, ticks: saved.ticks };
        }
        Ok(open)
    }
}

impl File for TimerFd {
    fn save(&self, _f: &OpenFile, _saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        let now = self.now_ns();
        let mut s = self.state.lock();
        s.setting.advance(now);
        let since = if TimerFd::is_of_the_day(self.clock) { 0 } else { now };
        let Setting { next_ns, interval_ns, ticks } = s.setting;
        let next_ns = next_ns.map(|next| next.saturating_sub(since));
        Ok(OpenFileKind::TimerFd(Saved { clock: self.clock, next_ns, interval_ns, ticks }))
    }

    fn seekable(&self) -> Seekable {
        Seekable::Noop
    }

    fn read(&self, _f: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        let to = buf.get_mut(..8).ok_or(Errno::EINVAL)?;
        let ticks = self.look(|s| std::mem::take(&mut s.ticks));
        if ticks == 0 {
            return Err(Errno::EAGAIN);
        }
        to.copy_from_slice(&ticks.to_ne_bytes());
        Ok(8)
    }

    fn poll(&self, _f: &OpenFile) -> PollEvents {
        let mut s = self.state.lock();
        s.setting.advance(self.now_ns());
        if s.setting.ticks > 0 { PollEvents::IN } else { PollEvents::empty() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn register(&self, events: PollEvents, notify: Arc<dyn Notify>) -> Option<Registration> {
        let r = self.queue.register(events, notify);
        // From here on somebody listens.
        self.look(|_| ());
        Some(r)
    }

    fn ioctl(&self, _f: &OpenFile, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        if cmd != TFD_IOC_SET_TICKS {
            return Err(Errno::ENOTTY);
        }
        let mut bytes = [0; 8];
        caller.read_user(arg, &mut bytes)?;
        let ticks = u64::from_ne_bytes(bytes);
        if ticks == 0 {
            return Err(Errno::EINVAL);
        }
        self.state.lock().setting.ticks = ticks;
        self.queue.wake(PollEvents::READ_READY);
        Ok(0)
    }

    fn fdinfo(&self, _f: &OpenFile) -> String {
        let (t, ticks) = {
            let s = self.state.lock();
            (self.shown(&s.setting), s.setting.ticks)
        };
        format!(
            "clockid: {}\nticks: {ticks}\nsettime flags: 00\nit_value: ({}, {})\nit_interval: ({}, {})\n",
            self.clock, t.it_value.tv_sec, t.it_value.tv_nsec, t.it_interval.tv_sec, t.it_interval.tv_nsec
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expirations_are_counted_late() {
        let mut s = Setting { next_ns: Some(100), interval_ns: 10, ticks: 0 };
        s.advance(99);
        assert_eq!(s.ticks, 0);
        s.advance(125);
        assert_eq!((s.ticks, s.next_ns), (3, Some(130)));
        let mut once = Setting { next_ns: Some(5), ..Setting::default() };
        once.advance(50);
        once.advance(60);
        assert_eq!((once.ticks, once.next_ns), (1, None));
    }

    #[test]
    fn a_span_in_the_past_is_readable_at_once() {
        let vfs = moat_vfs::vfs::fake::vfs(moat_vfs::Registry::default());
        let creds = Arc::new(Credentials::root(moat_identity::UserNamespace::root()));
        let f = TimerFd::open(&vfs, CLOCK_MONOTONIC, OpenFlags::empty(), &creds).unwrap();
        let t: &TimerFd = f.downcast().unwrap();
        let spec = Itimerspec { it_value: Timespec { tv_sec: 0, tv_nsec: 1 }, it_interval: Timespec::ZERO };
        t.set(&spec, When::Absolute).unwrap();
        assert_eq!(f.poll(), PollEvents::IN);
        let mut buf = [0; 8];
        assert_eq!((f.read(&mut buf), f.read(&mut buf)), (Ok(8), Err(Errno::EAGAIN)));
        assert_eq!(TimerFd::open(&vfs, 99, OpenFlags::empty(), &creds).err(), Some(Errno::EINVAL));
    }
}
