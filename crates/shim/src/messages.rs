//! Messages of containerd's protocols, field by field as their `.proto` files have them.

mod events;
mod metrics_v1;
mod metrics_v2;
mod options;
mod task;

use std::time::{SystemTime, UNIX_EPOCH};

use prost::{Message, Name};

pub(crate) use events::*;
pub(crate) use options::*;
pub(crate) use task::*;

/// Version 1 of cgroups' figures.
pub(crate) mod v1 {
    pub(crate) use super::metrics_v1::*;
}

/// Version 2 of cgroups' figures.
pub(crate) mod v2 {
    pub(crate) use super::metrics_v2::*;
}

/// google.protobuf.Empty.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Empty {}

/// google.protobuf.Timestamp.
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Timestamp {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        }
    }
}

/// google.protobuf.Any.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

impl Any {
    /// As containerd packs: the type's full name without a host before it.
    pub(crate) fn pack<M: Message + Name>(message: &M) -> Self {
        Any { type_url: M::full_name(), value: message.encode_to_vec() }
    }

    /// The full name of the type.
    pub(crate) fn name(&self) -> &str {
        // "type.googleapis.com/NAME", as others pack.
        self.type_url.strip_prefix("type.googleapis.com/").unwrap_or(&self.type_url)
    }
}

/// A message of this package and name.
macro_rules! named {
    ($package:literal: $($message:ident),+) => {
        $(impl prost::Name for $message {
            const NAME: &'static str = stringify!($message);
            const PACKAGE: &'static str = $package;
        })+
    };
}
use named;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_has_its_name() {
        let any = Any::pack(&TaskOom { container_id: "c".into() });
        assert_eq!(any.name(), "containerd.events.TaskOOM");
        assert_eq!(any.value, b"\x0a\x01c");
        let other = Any { type_url: "type.googleapis.com/a.B".into(), value: Vec::new() };
        assert_eq!(other.name(), "a.B");
    }
}
