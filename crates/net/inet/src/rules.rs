//! What a namespace's settings mean for its stack ([`Rules`]).

use moat_identity::{Setting, TcpSettings};
use moat_net_stack::tcp::{CookieRule, EcnRule, Rules};
use moat_net_stack::time::SECOND;

/// The bits of `tcp_recovery` (`TCP_RACK_LOSS_DETECTION` and its like).
const RACK: u64 = 1;
const RACK_STATIC: u64 = 2;
const RACK_NO_THRESHOLD: u64 = 4;

/// The rules that these settings are.
pub(crate) fn of(t: &TcpSettings) -> Rules {
    let on = |s: &Setting| s.get() != 0;
    let count = |s: &Setting| u32::try_from(s.get()).unwrap_or(u32::MAX);
    let recovery = t.recovery.get();
    Rules {
        ecn: match t.ecn.get() {
            // The values are those of ip-sysctl.rst.
            0 => EcnRule::Never,
            1 => EcnRule::Ask,
            _ => EcnRule::Accept,
        },
        cookies: match t.syncookies.get() {
            // Any other value asks for cookies at all times, which is for tests.
            0 => CookieRule::Never,
            1 => CookieRule::Overflow,
            _ => CookieRule::Always,
        },
        syn_backlog: usize::try_from(t.max_syn_backlog.get()).unwrap_or(usize::MAX),
        sack: on(&t.sack),
        dsack: on(&t.dsack),
        timestamps: on(&t.timestamps),
        window_scaling: on(&t.window_scaling),
        frto: on(&t.frto),
        rack: recovery & RACK != 0,
        rack_static: recovery & RACK_STATIC != 0,
        rack_no_threshold: recovery & RACK_NO_THRESHOLD != 0,
        pacing: (t.pacing_ss_ratio.get(), t.pacing_ca_ratio.get()),
        restart_after_idle: on(&t.slow_start_after_idle),
        syn_answers: count(&t.synack_retries),
        retries: count(&t.retries2),
        fin_timeout_us: t.fin_timeout.get().saturating_mul(SECOND),
    }
}
