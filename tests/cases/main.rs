//! The cases, one module per area.
#![forbid(unsafe_code)]

mod bad_input;
mod checkpoints;
mod crashes;
mod hostile_images;
mod images;
mod inside;
mod kill_loops;
mod lazy;
mod lifecycle;
mod listeners;
mod looking;
mod networks;
mod parity;
mod preflight;
mod programs;
mod registry;
mod run_flags;
mod security;
mod sleepers;
mod spoiled;
mod things;
mod volumes;
mod web;
