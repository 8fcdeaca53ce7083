//! The cases, one module per area.
#![forbid(unsafe_code)]

mod smoke;
