//! JSON of clients: what is wrong with it is said by the path of the field.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::process::CAPABILITY_NAMES;
use crate::error::{Error, Result};

/// Decodes what a client wrote; `what` is its name in messages. Capabilities that nobody knows are left out, with a warning, as
/// runc does: they are those of newer kernels.
///
/// # Errors
/// Malformed JSON, by line; a value that its field can't have, by the field's path.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    // Nearly all are right, and the path costs time.
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let mut value: Value = serde_json::from_slice(bytes).map_err(|error| Error::Invalid(format!("{what}: {error}")))?;
    for name in take_unknown_capabilities(&mut value) {
        tracing::warn!("{what}: the capability {name:?} is ignored: there is none of that name");
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!("{path}: ") };
        Error::Invalid(format!("{what}: {place}{}", error.into_inner()))
    })
}

/// Removes them from `process.capabilities`, or from `capabilities` of a process alone.
fn take_unknown_capabilities(value: &mut Value) -> Vec<String> {
    let mut unknown = Vec::new();
    let process = if value.get("process").is_some() { &mut value["process"] } else { value };
    let Some(sets) = process.get_mut("capabilities").and_then(Value::as_object_mut) else { return unknown };
    for names in sets.values_mut().filter_map(Value::as_array_mut) {
        names.retain(|name| match name.as_str() {
            Some(text) if !is_capability(text) => {
                unknown.push(text.to_owned());
                false
            }
            _ => true,
        });
    }
    // One name is in up to five sets.
    unknown.sort();
    unknown.dedup();
    unknown
}

fn is_capability(name: &str) -> bool {
    let upper = name.to_uppercase();
    CAPABILITY_NAMES.iter().any(|known| *known == upper || known.strip_prefix("CAP_") == Some(&upper))
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Capability, Process, Spec};

    use super::*;

    fn error<T: DeserializeOwned>(json: &str) -> String {
        parse::<T>(json.as_bytes(), "config.json").err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_field_is_named() {
        let uid = r#"{"ociVersion":"1.0.2","process":{"user":{"uid":-1,"gid":0},"args":["a"],"cwd":"/"}}"#;
        let message = error::<Spec>(uid);
        assert!(message.starts_with("config.json: process.user.uid: ") && message.contains("-1"), "{message}");
        let mount = r#"{"ociVersion":"1.0.2","mounts":[{"destination":"/a"},{"destination":7}]}"#;
        assert!(error::<Spec>(mount).starts_with("config.json: mounts[1].destination: "), "{}", error::<Spec>(mount));
        let syntax = error::<Spec>("{\n\"ociVersion\":");
        assert!(syntax.contains("line 2"), "{syntax}");
    }

    #[test]
    fn unknown_capabilities_are_left_out() {
        let json =
            r#"{"user":{"uid":0,"gid":0},"args":["a"],"cwd":"/","capabilities":{"bounding":["CAP_CHOWN","CAP_FROB"]}}"#;
        let process: Process = parse(json.as_bytes(), "process").unwrap();
        let capabilities = process.capabilities().clone().unwrap();
        assert_eq!(capabilities.bounding().clone().unwrap().into_iter().collect::<Vec<_>>(), [Capability::Chown]);
    }
}
