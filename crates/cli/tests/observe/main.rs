//! Looking at containers from outside: metrics and their server, security events, a sandbox that hangs or fails; and what tells how. What comes out is read back by parsers that others made, or
//! that are written here from the public description of a format.
//!
//! Takes root; says so where it has to be skipped.

mod bundle;
mod documents;
mod failure;
mod metrics;
mod outside;
mod points;
mod reader;
mod trace;
