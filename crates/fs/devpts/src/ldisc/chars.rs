//! Character classes as the kernel has them (`lib/ctype.c`): ISO 8859-1, whatever the locale.

/// 0 to 31 and 127.
pub(super) fn is_control(c: u8) -> bool {
    c.is_ascii_control()
}

/// A letter or digit of ISO 8859-1.
pub(super) fn is_alphanumeric(c: u8) -> bool {
    c.is_ascii_alphanumeric() || is_upper(c) || is_lower(c)
}

fn is_upper(c: u8) -> bool {
    c.is_ascii_uppercase() || matches!(c, 0xc0..=0xde if c != 0xd7)
}

fn is_lower(c: u8) -> bool {
    c.is_ascii_lowercase() || matches!(c, 0xdf..=0xff if c != 0xf7)
}

/// The lower-case letter 32 above an upper-case one.
pub(super) fn to_lower(c: u8) -> u8 {
    if is_upper(c) { c + 32 } else { c }
}

/// The upper-case letter 32 below a lower-case one (as in the kernel for the sharp s and the y with diaeresis, too).
pub(super) fn to_upper(c: u8) -> u8 {
    if is_lower(c) { c - 32 } else { c }
}
