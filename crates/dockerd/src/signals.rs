//! What dockerd does on signals.
//!
//! SIGINT and SIGTERM stop it, once; the third one forces the end. SIGHUP reads the configuration again. SIGUSR1 writes what
//! it is doing to the log. SIGPIPE is ignored, as every Rust program does.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// With this many SIGINT or SIGTERM the end comes at once.
const FORCING: u32 = 3;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Stop.
    Stop,
    /// Read the configuration again.
    Reload,
    /// Say what is going on.
    Dump,
}

/// The signals, caught from its making on.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user1: Signal,
    stops: u32,
}

impl Signals {
    /// Begins to catch them. Must be called within a tokio runtime.
    pub fn catch() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            stops: 0,
        })
    }

    /// Waits for the next. The third wish to stop does not return: it ends the process with 128 + the signal's number.
    pub async fn next(&mut self) -> Wish {
        loop {
            let (name, number) = tokio::select! {
                _ = self.interrupt.recv() => ("interrupt", 2),
                _ = self.terminate.recv() => ("terminated", 15),
                _ = self.hangup.recv() => return Wish::Reload,
                _ = self.user1.recv() => return Wish::Dump,
            };
            tracing::info!("Processing signal '{name}'");
            self.stops += 1;
            match self.stops {
                1 => return Wish::Stop,
                FORCING => {
                    tracing::warn!("Forcing docker daemon shutdown without cleanup; {FORCING} interrupts received");
                    std::process::exit(128 + number);
                }
                _ => {}
            }
        }
    }
}
