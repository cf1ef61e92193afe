//! Bytes in CBOR as bytes, not as a list of numbers.

pub use serde_bytes::{deserialize, serialize};
