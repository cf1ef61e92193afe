//! What is read from files: configurations of clients, the runtime's own state, descriptions of sandboxes, images.

use moat_control::SandboxSpec;
use moat_control::spec::{GoferSpec, Lifetime};
use moat_image::header;
use moat_image::state::SandboxState;
use moat_runtime::config::Config;
use moat_runtime::oci::Bundle;
use moat_runtime::store::ContainerState;

/// config.json, and the process that `exec` is given.
pub fn config(data: &[u8]) {
    if let Ok(spec) = moat_runtime::oci::parse::<oci_spec::runtime::Spec>(data, "config.json") {
        // Only what is said is looked at: the bundle is not there.
        let bundle = Bundle { path: "/nonexistent".into(), spec };
        let id = "fuzz".parse().expect("an id");
        let _ = bundle.blueprint(&Config::default(), id, Lifetime::Detached);
    }
    if let Ok(process) = moat_runtime::oci::parse::<moat_runtime::oci::Process>(data, "process.json") {
        let _ = moat_runtime::oci::process(&process);
    }
}

/// A container's state file: what is read is written again as it was.
pub fn state(data: &[u8]) {
    if let Ok(state) = serde_json::from_slice::<ContainerState>(data) {
        let text = serde_json::to_vec(&state).unwrap_or_default();
        let again = serde_json::from_slice::<ContainerState>(&text).and_then(|state| serde_json::to_vec(&state));
        assert_eq!(again.ok(), Some(text));
    }
}

/// The description of a sandbox or of a gofer.
pub fn spec(data: &[u8]) {
    let _ = (SandboxSpec::decode(data), GoferSpec::decode(data));
}

/// A checkpoint's header with its sections, and what is in them.
pub fn image(data: &[u8]) {
    if let Ok((_, sections)) = header::decode(data) {
        let all: usize = sections.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(all <= data.len(), "sections are larger than their file");
    }
    if let Ok(state) = SandboxState::decode(data) {
        let _ = state.stored().count();
        let text = state.encode().unwrap_or_default();
        assert!(SandboxState::decode(&text).is_ok(), "what was written can't be read");
    }
}
