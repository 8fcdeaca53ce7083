//! dormouse: what the docker CLI has no word for.
fn main() {}
