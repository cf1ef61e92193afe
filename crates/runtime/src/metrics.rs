//! Metrics of containers: what their sandboxes count, what their cgroups say, and the texts that monitoring systems read.
//!
//! - [`Reading`]: the figures of one container at a moment.
//! - [`families`]: the readings under their names.
//! - [`text`]: Prometheus' text format and OpenMetrics.
//! - [`Usage`]: the memory of `moat usage`.
//! - [`server`]: the metric server, which reads all containers of a store for whoever asks by HTTP.

pub mod families;
mod http;
mod operations;
mod reading;
pub mod server;
pub mod text;
mod usage;

pub use families::{Family, Kind, Prefix, Sample};
pub use reading::Reading;
pub use text::Format;
pub use usage::Usage;
