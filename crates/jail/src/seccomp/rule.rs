//! [`Rule`]: one allowed host call, possibly with conditions on its arguments.

use std::fmt;

use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

/// A call that is allowed if all conditions hold. Several rules for one call are alternatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule<'a> {
    /// Its number, `libc::SYS_*`.
    pub call: i64,
    /// Conditions; none means whatever the arguments.
    pub args: &'a [Arg],
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arg {
    index: u8,
    test: Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Is(u64),
    IsNot(u64),
    Bits { mask: u64, value: u64 },
}

/// The call with any arguments.
#[must_use]
pub const fn any<'a>(call: i64) -> Rule<'a> {
    Rule { call, args: &[] }
}

/// The call if all conditions hold.
#[must_use]
pub const fn when<'a>(call: i64, args: &'a [Arg]) -> Rule<'a> {
    Rule { call, args }
}

/// Argument `index` is `value`. The lower 32 bits are compared: such arguments are ints, whose upper half the kernel
/// ignores.
#[must_use]
pub const fn is(index: u8, value: u64) -> Arg {
    Arg { index, test: Test::Is(value) }
}

/// Argument `index`, an int, is `value`.
#[must_use]
pub const fn is_int(index: u8, value: i32) -> Arg {
    is(index, value.cast_unsigned() as u64)
}

/// Argument `index`, an int, is not `value`.
#[must_use]
pub const fn is_not(index: u8, value: u64) -> Arg {
    Arg { index, test: Test::IsNot(value) }
}

/// Argument `index` has none of `bits`.
#[must_use]
pub const fn without(index: u8, bits: u64) -> Arg {
    Arg { index, test: Test::Bits { mask: bits, value: 0 } }
}

/// Argument `index` has all of `bits`.
#[must_use]
pub const fn with(index: u8, bits: u64) -> Arg {
    Arg { index, test: Test::Bits { mask: bits, value: bits } }
}

impl Rule<'_> {
    pub(super) fn to_seccomp(self) -> Result<SeccompRule, BackendError> {
        let conditions = self.args.iter().map(|arg| arg.to_seccomp()).collect::<Result<_, _>>()?;
        SeccompRule::new(conditions)
    }
}

impl Arg {
    /// Which argument it is about.
    #[must_use]
    pub const fn index(self) -> u8 {
        self.index
    }

    /// Whether a value of the argument meets it.
    #[must_use]
    pub const fn is_met(self, value: u64) -> bool {
        // The lower half, as the filter compares it.
        let low = value & 0xffff_ffff;
        match self.test {
            Test::Is(wanted) => low == wanted & 0xffff_ffff,
            Test::IsNot(other) => low != other & 0xffff_ffff,
            Test::Bits { mask, value } => low & mask == value,
        }
    }

    fn to_seccomp(self) -> Result<SeccompCondition, BackendError> {
        let (op, value) = match self.test {
            Test::Is(value) => (SeccompCmpOp::Eq, value),
            Test::IsNot(value) => (SeccompCmpOp::Ne, value),
            Test::Bits { mask, value } => (SeccompCmpOp::MaskedEq(mask), value),
        };
        SeccompCondition::new(self.index, SeccompCmpArgLen::Dword, op, value)
    }
}

/// As a document says it: `is 0x5401`, `lacks 0x4`.
impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.test {
            Test::Is(value) => write!(f, "is {value:#x}"),
            Test::IsNot(value) => write!(f, "is not {value:#x}"),
            Test::Bits { mask, value: 0 } => write!(f, "lacks {mask:#x}"),
            Test::Bits { value, .. } => write!(f, "has {value:#x}"),
        }
    }
}
