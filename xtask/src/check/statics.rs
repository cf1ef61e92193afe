//! Statics that can change. State of the guest belongs to the kernel object or to a namespace, so that two kernels can
//! live in one process; each static that remains is listed with its reason in [`FILE`].

use anyhow::Result;

use super::listed::List;
use super::sources;

const FILE: &str = "xtask/ratchets/statics.txt";

/// Parts of the names of types whose values change behind a shared reference.
const MUTABLE: &[&str] = &[
    "Atomic",
    "Mutex",
    "RwLock",
    "OnceLock",
    "OnceCell",
    "LazyLock",
    "LazyCell",
    "Cell<",
    "Counter",
    "WaitQueue",
    "Once",
];

const LIST: List = List {
    file: FILE,
    unexplained: "has no reason",
    unlisted: "a static that changes; make it a field of the object that it belongs to",
    gone: "is gone",
};

/// Compares the statics of all crates with the list.
///
/// # Errors
/// Those that are not listed, and lines of the list without a static or a reason.
pub fn run() -> Result<()> {
    LIST.check(mutable_statics)
}

/// The names of the statics, also those of threads, whose type can change.
fn mutable_statics(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for at in sources::words(code, "static") {
        // `&'static` is a lifetime.
        if code[..at].ends_with('\'') {
            continue;
        }
        let Some((name, rest)) = code[at + "static".len()..].split_once(':') else { continue };
        let name = name.trim().trim_start_matches("ref ");
        if !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let kind = rest.split(['=', ';']).next().unwrap_or_default();
        if MUTABLE.iter().any(|part| kind.contains(part)) {
            found.push(name.to_string());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_change_counts() {
        let code = "static A: AtomicU64 = AtomicU64::new(0);\npub(crate) static TABLE: &[Decl] = &[];\n\
                    fn f() -> &'static Mutex<u8> { x }\nthread_local! { static B: RefCell<u8> = x; }";
        assert_eq!(mutable_statics(code), ["A", "B"]);
    }
}
