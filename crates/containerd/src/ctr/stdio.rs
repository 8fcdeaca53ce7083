//! The FIFOs of an attached process, and the threads that copy between them and our own streams.
//!
//! We hold every FIFO open for reading *and* writing until the process is known to have ended, so that nothing waits
//! for the other side and no end of file comes before its time.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use nix::sys::stat::Mode;

use crate::failure::{Failure, Result};

/// How long the last output is waited for once the process has ended.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// Three FIFOs in a directory of their own, which goes away with this.
#[derive(Debug)]
pub(crate) struct Fifos {
    dir: PathBuf,
}

impl Fifos {
    pub(crate) fn make() -> Result<Self> {
        let template = std::env::temp_dir().join("ctr-XXXXXX");
        let dir = nix::unistd::mkdtemp(&template)
            .map_err(|errno| Failure::new(format!("mkdir {}: {}", template.display(), errno.desc())))?;
        let fifos = Self { dir };
        for name in ["stdin", "stdout", "stderr"] {
            let path = fifos.dir.join(name);
            nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o755))
                .map_err(|errno| Failure::new(format!("mkfifo {}: {}", path.display(), errno.desc())))?;
        }
        Ok(fifos)
    }

    /// The path of one of them, as the API wants it.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn open(&self, name: &str) -> Result<File> {
        Ok(OpenOptions::new().read(true).write(true).open(self.dir.join(name))?)
    }
}

impl Drop for Fifos {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Output on its way to our stdout and stderr.
#[derive(Debug)]
pub(crate) struct Outputs {
    /// While these live there is no end of file.
    keep_open: Vec<File>,
    done: Receiver<()>,
}

impl Outputs {
    /// Begins to copy.
    pub(crate) fn copy(fifos: &Fifos) -> Result<Self> {
        let (finished, done) = channel();
        let keep_open = vec![fifos.open("stdout")?, fifos.open("stderr")?];
        copy_output(File::open(fifos.path("stdout"))?, std::io::stdout(), finished.clone());
        copy_output(File::open(fifos.path("stderr"))?, std::io::stderr(), finished);
        Ok(Self { keep_open, done })
    }

    /// The process has ended: waits until all it wrote was copied.
    pub(crate) fn finish(self) {
        drop(self.keep_open);
        // Two threads; the channel closes when both have ended.
        while self.done.recv_timeout(LAST_OUTPUT) != Err(RecvTimeoutError::Timeout) {
            if matches!(self.done.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected)) {
                return;
            }
        }
    }
}

fn copy_output(mut from: File, mut to: impl Write + Send + 'static, finished: Sender<()>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0_u8; 32 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..count]).and_then(|()| to.flush()).is_err() {
                break;
            }
        }
        let _ = finished.send(());
    });
}

/// Copies our stdin into the FIFO; the future ends with our stdin.
pub(crate) fn copy_input(fifos: &Fifos) -> Result<tokio::sync::oneshot::Receiver<()>> {
    let mut fifo = fifos.open("stdin")?;
    let (finished, done) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Unbuffered: a terminal's keys are wanted as they come.
        let mut stdin = File::from(own_stdin());
        let _ = std::io::copy(&mut stdin, &mut fifo);
        drop(fifo);
        let _ = finished.send(());
    });
    Ok(done)
}

fn own_stdin() -> std::os::fd::OwnedFd {
    use std::os::fd::AsFd;
    let stdin = std::io::stdin();
    match stdin.as_fd().try_clone_to_owned() {
        Ok(stdin) => stdin,
        // Without a stdin the input has ended before it began.
        Err(_) => File::open("/dev/null").map_or_else(|_| std::process::exit(1), Into::into),
    }
}
