//! [`SessionConfig`]: a session of security events as its configuration has it, in runsc's form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is told, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionConfig {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Points and fields that there are not are passed over.
    #[serde(default)]
    pub ignore_missing: bool,
    /// What is told.
    #[serde(default)]
    pub points: Vec<PointConfig>,
    /// Who is told.
    #[serde(default)]
    pub sinks: Vec<SinkConfig>,
    /// Settings of runsc's, of which none matters here.
    #[serde(default)]
    pub options: BTreeMap<String, serde_json::Value>,
}

/// A point at which something is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointConfig {
    /// Its name.
    pub name: String,
    /// Fields of its message that cost something.
    #[serde(default)]
    pub optional_fields: Vec<String>,
    /// Fields about who did it.
    #[serde(default)]
    pub context_fields: Vec<String>,
}

/// Who is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// What kind: "remote", "file" or "null".
    pub name: String,
    /// Settings of that kind.
    #[serde(default)]
    pub config: BTreeMap<String, serde_json::Value>,
    /// If it can't be opened the session is without it.
    #[serde(default)]
    pub ignore_setup_error: bool,
}

/// A session as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its name.
    pub name: String,
    /// Its sinks.
    pub sinks: Vec<SinkInfo>,
}

/// A sink as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkInfo {
    /// What kind.
    pub name: String,
    /// Events that it took.
    pub sent: u64,
    /// Events that it did not take, and that nobody will see.
    pub dropped: u64,
}
