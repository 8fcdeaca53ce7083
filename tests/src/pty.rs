//! A person at a terminal: a program on a pty, what it shows, and what is typed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::pty::{OpenptyResult, Winsize, openpty};
use rustix::termios::{Winsize as Size, tcsetwinsize};

use crate::command::wait_within;
use crate::wait::eventually_seen;

/// A program on a terminal of its own.
pub struct Terminal {
    child: Child,
    master: File,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Starts `script` in a shell, as the leader of a session whose terminal has `rows` and `columns`.
    pub(crate) fn start(mut shell: Command, rows: u16, columns: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(Some(&size), None).expect("open a pty");
        let stdio = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("duplicate a descriptor"));
        let child = shell
            .stdin(stdio(&slave))
            .stdout(stdio(&slave))
            .stderr(stdio(&slave))
            .spawn()
            .expect("start a program on a terminal");
        drop(slave);
        drop(shell); // it holds the terminal open, too
        let master = File::from(master);
        let shown = Arc::new(Mutex::new(Vec::new()));
        let mut reader = master.try_clone().expect("duplicate a descriptor");
        let sink = Arc::clone(&shown);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO is how a terminal says that nobody is left on the other side.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                sink.lock().expect("no reader panics").extend_from_slice(&buffer[..length]);
            }
        });
        Self { child, master, shown }
    }

    /// Types.
    pub fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("write to a terminal");
    }

    /// Everything shown so far.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("no reader panics")).into_owned()
    }

    /// Waits until `text` is shown; gives the whole screen.
    #[track_caller]
    pub fn shows(&self, text: &str) -> String {
        eventually_seen(format_args!("{text:?} is shown"), || self.screen(), |screen| screen.contains(text))
    }

    /// Changes the window's size; the kernel tells the programs in front.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Size { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("set a terminal's size");
    }

    /// Waits for the program to end; its exit status.
    #[track_caller]
    pub fn ends(&mut self) -> i32 {
        wait_within(&mut self.child, Duration::from_secs(15))
            .unwrap_or_else(|| panic!("the program on the terminal does not end; it shows:\n{}", self.screen()))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
