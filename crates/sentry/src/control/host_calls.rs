//! The requests of a test that plays an attacker who has taken over the sentry.

use moat_control::protocol::{HostArgument, HostCall};
use moat_host::any_call::{Argument, call};

/// Makes the calls one after the other; gives their results, negative for error numbers.
pub(super) fn run(calls: Vec<HostCall>) -> Vec<i64> {
    let mut results = Vec::new();
    for host_call in calls {
        let argument = |argument| match argument {
            HostArgument::Number(number) => Argument::Number(number.cast_unsigned()),
            HostArgument::Text(text) => Argument::Bytes([text.as_bytes(), &[0]].concat()),
            HostArgument::Bytes(bytes) => Argument::Bytes(bytes),
            HostArgument::Result(index) => {
                Argument::Number(results.get(index).copied().unwrap_or(-1i64).cast_unsigned())
            }
        };
        let arguments = host_call.arguments.into_iter().map(argument).collect();
        results.push(call(host_call.number, arguments));
    }
    results
}
