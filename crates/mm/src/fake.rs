//! Fake platform.
