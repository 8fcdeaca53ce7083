//! The server driven over a socket, with backends that are not there.

mod client;
mod fake;
mod hijack;
mod requests;
mod streams;
