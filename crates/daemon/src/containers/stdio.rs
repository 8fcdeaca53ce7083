//! A container's stdio on this side of the FIFOs: one reader per output, feeding the log and everybody attached.
//!
//! The readers never buffer more than one chunk; whoever is attached has a short queue of its own, and when that is full
//! the container waits, as with Docker. Memory for a chunk is taken only when there is something to read, so that an
//! idle container costs none.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use api::backend::{Output, StreamKind, Writer};
use bytes::BytesMut;
use logs::Log;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::containerd::StdioPaths;
use crate::error::{Context, Result};

/// Read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that wait for one attached client.
const QUEUE_CHUNKS: usize = 32;
/// Bytes that wait between a client and the process's stdin.
const STDIN_BYTES: usize = 64 * 1024;

/// Where a container's output goes and its input comes from, over all of its runs.
pub struct Hub {
    subscribers: Mutex<Vec<Subscriber>>,
    stdin: watch::Sender<Stdin>,
}

struct Subscriber {
    stdout: bool,
    stderr: bool,
    queue: mpsc::Sender<Output>,
}

#[derive(Clone)]
enum Stdin {
    /// The process has not started yet.
    Waiting,
    /// It reads.
    Open(Arc<tokio::sync::Mutex<pipe::Sender>>),
    /// It has no stdin (any more).
    Closed,
}

impl Default for Hub {
    fn default() -> Self {
        Self { subscribers: Mutex::default(), stdin: watch::Sender::new(Stdin::Waiting) }
    }
}

impl Hub {
    /// Everything the process writes from now on, until its output ends.
    pub fn subscribe(&self, stdout: bool, stderr: bool) -> mpsc::Receiver<Output> {
        let (queue, receiver) = mpsc::channel(QUEUE_CHUNKS);
        self.lock().push(Subscriber { stdout, stderr, queue });
        receiver
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Subscriber>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn publish(&self, output: Output) {
        let targets: Vec<_> = self
            .lock()
            .iter()
            .filter(|s| match output.stream {
                StreamKind::Stderr => s.stderr,
                _ => s.stdout,
            })
            .map(|s| s.queue.clone())
            .collect();
        let mut gone = false;
        for target in targets {
            gone |= target.send(output.clone()).await.is_err();
        }
        if gone {
            self.lock().retain(|s| !s.queue.is_closed());
        }
    }

    /// Ends everybody's output.
    pub fn end_output(&self) {
        self.lock().clear();
    }

    /// The process's stdin is there.
    fn open_stdin(&self, sender: pipe::Sender) {
        self.stdin.send_replace(Stdin::Open(Arc::new(tokio::sync::Mutex::new(sender))));
    }

    /// The process's stdin is gone.
    pub fn close_stdin(&self) {
        self.stdin.send_replace(Stdin::Closed);
    }

    /// The next run may bring a new stdin.
    pub fn reset_stdin(&self) {
        self.stdin.send_replace(Stdin::Waiting);
    }

    /// A writer into the process's stdin, also before the process runs. `at_end` runs when the client has sent all and
    /// everything of it was handed over.
    pub fn stdin(&self, at_end: impl Future<Output = ()> + Send + 'static) -> Writer {
        let (ours, theirs) = tokio::io::duplex(STDIN_BYTES);
        let mut stdin = self.stdin.subscribe();
        tokio::spawn(async move {
            let mut ours = ours;
            let target = match stdin.wait_for(|s| !matches!(s, Stdin::Waiting)).await.map(|s| s.clone()) {
                Ok(Stdin::Open(target)) => target,
                _ => return,
            };
            let mut chunk = BytesMut::new();
            loop {
                chunk.clear();
                chunk.reserve(4096);
                match ours.read_buf(&mut chunk).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
                let mut fifo = target.lock().await;
                tokio::select! {
                    written = fifo.write_all(&chunk) => if written.is_err() { return },
                    // Nobody reads any more: do not wait for ever.
                    _ = stdin.wait_for(|s| matches!(s, Stdin::Closed)) => return,
                }
            }
            at_end.await;
        });
        Box::pin(theirs)
    }
}

/// The FIFOs of one process, made and opened on this side.
pub struct Fifos {
    /// What docker-containerd is told.
    pub paths: StdioPaths,
    stdin: Option<pipe::Sender>,
    outputs: Vec<(StreamKind, Source)>,
}

/// Where output comes from.
enum Source {
    /// The other end of what the process's shim writes.
    Fifo(pipe::Receiver),
    /// The same of a process that has ended, and whose shim may be gone: nobody may ever write again.
    Ended(OwnedFd, PathBuf),
    /// What was left when the process had ended and nobody had read: the shim puts it in the FIFO's place.
    Rest(tokio::fs::File),
}

impl Fifos {
    /// Makes `<dir>/<process>-stdin` and so on. With a terminal there is no stderr.
    pub fn make(dir: &Path, process: &str, stdin: bool, outputs: bool, terminal: bool) -> Result<Self> {
        let path = |name: &str| dir.join(format!("{process}-{name}"));
        let mut paths = StdioPaths::default();
        if stdin {
            paths.stdin = path("stdin");
            make_fifo(&paths.stdin)?;
        }
        if outputs {
            paths.stdout = path("stdout");
            make_fifo(&paths.stdout)?;
            if !terminal {
                paths.stderr = path("stderr");
                make_fifo(&paths.stderr)?;
            }
        }
        Self::open(paths, false)
    }

    /// Opens FIFOs that are there: after a restart of dockerd. What has `ended` leaves the rest of its output in them.
    pub fn open(paths: StdioPaths, ended: bool) -> Result<Self> {
        let mut outputs = Vec::new();
        for (kind, path) in [(StreamKind::Stdout, &paths.stdout), (StreamKind::Stderr, &paths.stderr)] {
            if !path.as_os_str().is_empty() {
                outputs.push((kind, Source::open(path, ended).context(|| format!("open {}", path.display()))?));
            }
        }
        let stdin = match paths.stdin.as_os_str().is_empty() {
            true => None,
            false => {
                // Opened for reading too: the process on the other end may not be there yet.
                let sender = pipe::OpenOptions::new().read_write(true).open_sender(&paths.stdin);
                Some(sender.context(|| format!("open {}", paths.stdin.display()))?)
            }
        };
        Ok(Self { paths, stdin, outputs })
    }

    /// Starts to copy; the task ends when all outputs have ended. Call it when the process's side is open: a FIFO that
    /// nobody has opened for writing looks ended.
    pub fn connect(self, hub: Arc<Hub>, log: Option<Log>) -> JoinHandle<()> {
        match self.stdin {
            Some(stdin) => hub.open_stdin(stdin),
            None => hub.close_stdin(),
        }
        let outputs = self.outputs;
        tokio::spawn(async move {
            let copies = outputs.into_iter().map(|(kind, source)| copy(kind, source, &hub, log.as_ref()));
            futures::future::join_all(copies).await;
        })
    }
}

impl Source {
    fn open(path: &Path, ended: bool) -> io::Result<Self> {
        if std::fs::symlink_metadata(path)?.is_file() {
            return Ok(Self::Rest(tokio::fs::File::from_std(std::fs::File::open(path)?)));
        }
        if ended {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            return Ok(Self::Ended(rustix::fs::open(path, flags, Mode::empty())?, path.to_owned()));
        }
        pipe::OpenOptions::new().open_receiver(path).map(Self::Fifo)
    }

    /// The next chunk; an empty one is the end. Memory for it is taken when there is something to read.
    async fn next(&mut self) -> io::Result<BytesMut> {
        let chunk = || BytesMut::with_capacity(CHUNK_BYTES);
        loop {
            match self {
                Self::Fifo(fifo) => {
                    fifo.readable().await?;
                    let mut chunk = chunk();
                    match fifo.try_read_buf(&mut chunk) {
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                        read => return read.map(|_| chunk),
                    }
                }
                // The kernel wakes nobody for the end of a FIFO that has had no writer since it was opened: it has to be
                // read to know.
                Self::Ended(fifo, path) => {
                    let mut chunk = chunk();
                    chunk.resize(CHUNK_BYTES, 0);
                    match rustix::io::read(&*fifo, &mut chunk[..]) {
                        // The shim may have put the rest in its place only now.
                        Ok(0) if path.is_file() => *self = Self::Rest(tokio::fs::File::open(&*path).await?),
                        Ok(length) => {
                            chunk.truncate(length);
                            return Ok(chunk);
                        }
                        Err(Errno::AGAIN) => *self = Self::Fifo(pipe::Receiver::from_owned_fd(fifo.try_clone()?)?),
                        Err(Errno::INTR) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                }
                Self::Rest(file) => {
                    let mut chunk = chunk();
                    return file.read_buf(&mut chunk).await.map(|_| chunk);
                }
            }
        }
    }
}

async fn copy(kind: StreamKind, mut source: Source, hub: &Hub, log: Option<&Log>) {
    let log_kind = match kind {
        StreamKind::Stderr => logs::StreamKind::Stderr,
        _ => logs::StreamKind::Stdout,
    };
    let mut failing = false;
    loop {
        let chunk = match source.next().await {
            Ok(chunk) if chunk.is_empty() => return,
            Ok(chunk) => chunk,
            Err(e) => {
                tracing::error!("reading a container's output: {e}");
                return;
            }
        };
        if let Some(log) = log {
            match log.write(log_kind, &chunk) {
                Ok(()) => failing = false,
                Err(e) if !failing => {
                    tracing::error!("writing a container's log: {e}");
                    failing = true;
                }
                Err(_) => {}
            }
        }
        hub.publish(Output { stream: kind, data: chunk.freeze() }).await;
    }
}

fn make_fifo(path: &PathBuf) -> Result<()> {
    let _ = std::fs::remove_file(path);
    rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::from_raw_mode(0o700))
        .context(|| format!("mkfifo {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_reaches_everybody_and_ends() {
        let dir = tempfile::tempdir().unwrap();
        let hub = Arc::new(Hub::default());
        let mut all = hub.subscribe(true, true);
        let mut errors_only = hub.subscribe(false, true);
        let fifos = Fifos::make(dir.path(), "init", false, true, false).unwrap();
        let (out, err) = (fifos.paths.stdout.clone(), fifos.paths.stderr.clone());
        let mut out = std::fs::OpenOptions::new().write(true).open(out).unwrap();
        let mut err = std::fs::OpenOptions::new().write(true).open(err).unwrap();
        let copying = fifos.connect(hub.clone(), None);
        io::Write::write_all(&mut out, b"hello").unwrap();
        assert_eq!(all.recv().await.unwrap().data.as_ref(), b"hello");
        io::Write::write_all(&mut err, b"oops").unwrap();
        assert_eq!(errors_only.recv().await.unwrap().data.as_ref(), b"oops");
        drop((out, err));
        copying.await.unwrap();
        hub.end_output();
        assert_eq!(all.recv().await.unwrap().data.as_ref(), b"oops");
        assert!(all.recv().await.is_none());
    }

    #[tokio::test]
    async fn what_a_dead_writer_left_ends() {
        let dir = tempfile::tempdir().unwrap();
        let hub = Arc::new(Hub::default());
        let mut all = hub.subscribe(true, true);
        let made = Fifos::make(dir.path(), "init", false, true, false).unwrap();
        let write = |path: &Path| std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let mut out = write(&made.paths.stdout);
        drop(write(&made.paths.stderr));
        let again = Fifos::open(made.paths.clone(), true).unwrap();
        drop(made);
        io::Write::write_all(&mut out, b"last").unwrap();
        let copying = again.connect(hub.clone(), None);
        assert_eq!(all.recv().await.unwrap().data.as_ref(), b"last");
        // One that is still there may say more.
        io::Write::write_all(&mut out, b" words").unwrap();
        assert_eq!(all.recv().await.unwrap().data.as_ref(), b" words");
        drop(out);
        copying.await.unwrap();
    }

    #[tokio::test]
    async fn input_given_early_arrives_and_its_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let hub = Arc::new(Hub::default());
        let (ended, mut told) = mpsc::channel(1);
        let mut writer = hub.stdin(async move {
            let _ = ended.send(()).await;
        });
        writer.write_all(b"early").await.unwrap();
        drop(writer);
        let fifos = Fifos::make(dir.path(), "init", true, false, false).unwrap();
        let mut reader = pipe::OpenOptions::new().open_receiver(&fifos.paths.stdin).unwrap();
        let _copying = fifos.connect(hub.clone(), None);
        let mut text = [0; 5];
        reader.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"early");
        told.recv().await.unwrap();
    }
}
