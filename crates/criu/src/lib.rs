//! A session with criu swrk.
