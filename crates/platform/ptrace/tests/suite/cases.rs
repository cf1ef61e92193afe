//! The cases. Each takes the platform and panics where it does wrong.

mod family;
mod faults;
mod life;
mod memory;
mod orders;
mod state;

pub use family::*;
pub use faults::*;
pub use life::*;
pub use memory::*;
pub use orders::*;
pub use state::*;
