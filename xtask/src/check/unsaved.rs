//! Kinds of objects that a checkpoint refuses. Whoever adds a file, a file system or something that can be mapped says what an image has
//! of it (`save`, `origin`), or lists it in [`FILE`] with the words by which users are told: it does not go unnoticed.

use anyhow::Result;

use super::listed::List;
use super::sources;

const FILE: &str = "xtask/ratchets/unsaved.txt";

/// Traits whose default refuses, and the method that says otherwise.
const TRAITS: &[(&str, &str)] =
    &[("File", "fn save("), ("FileSystem", "fn save("), ("Socket", "fn save("), ("Mappable", "fn origin(")];

const LIST: List = List {
    file: FILE,
    unexplained: "does not say what it is",
    unlisted: "a checkpoint refuses it; save it (docs/checkpoint.md), or list it in xtask/ratchets/unsaved.txt",
    gone: "is saved, or gone",
};

/// Compares the implementations that lack the method with the list.
///
/// # Errors
/// Those that are not listed, and lines of the list without such an implementation or a reason.
pub fn run() -> Result<()> {
    LIST.check(refusing)
}

/// `TRAIT:TYPE` of each implementation that leaves the refusing default.
fn refusing(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for at in sources::words(code, "impl") {
        let rest = &code[at..];
        let Some((head, body)) = rest.split_once('{') else { continue };
        let Some((before, object)) = head.split_once(" for ") else { continue };
        let name = before.rsplit([' ', ':', '>']).next().unwrap_or_default();
        let Some((name, method)) = TRAITS.iter().find(|(known, _)| *known == name) else { continue };
        // An implementation at the left margin ends with the first brace there.
        let body = body.split("\n}").next().unwrap_or_default();
        if !body.contains(method) {
            let object = object.trim().split(['<', ' ']).next().unwrap_or_default();
            found.push(format!("{name}:{object}"));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_without_the_method_refuse() {
        let code = "impl File for A {\n    fn save(&self) {\n    }\n}\nimpl<T: Text> File for B<T> {\n}\n\
                    impl moat_mm::Mappable for C {\n    fn save(&self) {}\n}\nimpl Display for D {\n}\n";
        assert_eq!(refusing(code), ["File:B", "Mappable:C"]);
    }
}
