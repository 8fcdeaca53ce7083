//! One connected shim. A task of its own owns the socket: it numbers the calls, hands out the answers, reports exits as they
//! come, connects again when the connection breaks, and says so, exactly once, when the shim has ended.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::Signal;
use shim::protocol::{self, Call, Exit, Failure, Message, Origin, ProcessState, Reply, Request};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use super::launch::Connected;
use crate::error::{Error, Result};
use crate::process::ended;

/// Calls that may wait to be sent.
const QUEUE: usize = 16;
/// How often and how far apart a broken connection is tried again.
const RECONNECTS: u32 = 5;
const RECONNECT_DELAY: Duration = Duration::from_millis(50);

/// What a shim tells without being asked.
#[derive(Debug)]
pub enum Notice {
    /// A process ended. May be told twice.
    Exit(Exit),
    /// The shim has ended; the last notice.
    Gone,
}

/// Whose shim it is. Ids are used again; generations are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The container's id.
    pub id: Arc<str>,
    /// Which container of this id.
    pub generation: u64,
}

/// Where notices go.
pub type NoticeQueue = mpsc::Sender<(Key, Notice)>;

/// A handle to a shim; all clones talk to the same.
#[derive(Debug, Clone)]
pub struct ShimClient {
    calls: mpsc::Sender<Pending>,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    gone: watch::Receiver<bool>,
}

#[derive(Debug)]
struct Pending {
    call: Call,
    answer: oneshot::Sender<Result<Reply, Failure>>,
}

impl ShimClient {
    /// Takes over a connected shim, whose notices go to `notices` under `key`.
    ///
    /// # Errors
    /// When its descriptors cannot be watched.
    pub fn new(connected: Connected, key: Key, notices: NoticeQueue) -> Result<ShimClient> {
        let Connected { dir, socket, pidfd, child } = connected;
        let socket = crate::fd::watch(socket)?;
        let pidfd = Arc::new(crate::fd::watch(pidfd)?);
        let (calls, receiver) = mpsc::channel(QUEUE);
        let (gone_sender, gone) = watch::channel(false);
        let task = Task {
            dir,
            socket: Some(socket),
            pidfd: Arc::clone(&pidfd),
            child,
            waiting: HashMap::new(),
            next: 1,
            key,
            notices,
        };
        tokio::spawn(async move {
            task.run(receiver).await;
            // Nobody may be waiting.
            let _ = gone_sender.send(true);
        });
        Ok(ShimClient { calls, pidfd, gone })
    }

    /// Asks the shim for something.
    ///
    /// # Errors
    /// What the shim or the runtime says, or that the shim is gone.
    pub async fn call(&self, call: Call) -> Result<Reply> {
        let (answer, receiver) = oneshot::channel();
        self.calls.send(Pending { call, answer }).await.map_err(|_| Error::ShimLost)?;
        receiver.await.map_err(|_| Error::ShimLost)?.map_err(|failure| match failure.origin {
            Origin::Shim => Error::Shim(failure.message),
            Origin::Runtime => Error::Runtime(failure.message),
            Origin::ExitStatus => Error::RuntimeOutput(failure.message),
        })
    }

    /// A call that starts something and is answered with its pid.
    ///
    /// # Errors
    /// As for [`ShimClient::call`]; [`Error::NotStarted`] when the runtime failed without saying why.
    pub async fn call_for_pid(&self, call: Call) -> Result<i32> {
        match self.call(call).await {
            Ok(Reply::Pid { pid }) if pid > 0 => Ok(pid),
            Ok(other) => Err(Error::Shim(format!("unexpected answer {other:?}"))),
            Err(Error::RuntimeOutput(status)) => {
                warn!(status, "a runtime failed and its log does not say why");
                Err(Error::NotStarted)
            }
            Err(error) => Err(error),
        }
    }

    /// What the shim knows of its processes.
    ///
    /// # Errors
    /// As for [`ShimClient::call`].
    pub async fn processes(&self) -> Result<Vec<ProcessState>> {
        match self.call(Call::State).await? {
            Reply::Processes { list } => Ok(list),
            other => Err(Error::Shim(format!("unexpected answer {other:?}"))),
        }
    }

    /// Whether the shim has ended and its last notice was sent.
    pub fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Kills the shim.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }

    /// Waits until the shim has ended and its last notice was sent.
    pub async fn ended(&self) {
        // An error means the same: its task is gone.
        let _ = self.gone.clone().wait_for(|gone| *gone).await;
    }

    /// Waits until the shim has ended, and kills it when it takes longer than `patience`.
    pub async fn finish(&self, patience: Duration) {
        let mut gone = self.gone.clone();
        if tokio::time::timeout(patience, gone.wait_for(|gone| *gone)).await.is_err() {
            warn!("a shim does not end by itself and is killed");
            self.kill();
            let _ = gone.wait_for(|gone| *gone).await;
        }
    }
}

struct Task {
    dir: PathBuf,
    /// `None` while the connection is broken.
    socket: Option<AsyncFd<OwnedFd>>,
    pidfd: Arc<AsyncFd<OwnedFd>>,
    child: Option<Child>,
    waiting: HashMap<u64, oneshot::Sender<Result<Reply, Failure>>>,
    next: u64,
    key: Key,
    notices: NoticeQueue,
}

impl Task {
    async fn run(mut self, mut calls: mpsc::Receiver<Pending>) {
        let mut open = true;
        loop {
            let Some(socket) = &self.socket else {
                if self.reconnect().await {
                    continue;
                }
                break;
            };
            tokio::select! {
                call = calls.recv(), if open => match call {
                    Some(call) => self.send(call).await,
                    // The container is finished with; the shim still has to be reaped.
                    None => open = false,
                },
                message = receive(socket) => match message {
                    Ok(Some(message)) => self.handle(message).await,
                    Ok(None) => self.socket = None,
                    Err(error) => {
                        warn!(%error, dir = %self.dir.display(), "the connection to a shim broke");
                        self.socket = None;
                    }
                },
            }
        }
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
        self.waiting.clear();
        self.notify(Notice::Gone).await;
    }

    async fn notify(&self, notice: Notice) {
        // The supervisor only goes away with the whole program.
        let _ = self.notices.send((self.key.clone(), notice)).await;
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Answer { seq, result } => {
                if let Some(answer) = self.waiting.remove(&seq) {
                    // The caller may have given up.
                    let _ = answer.send(result);
                }
            }
            Message::Exit(exit) => self.notify(Notice::Exit(exit)).await,
        }
    }

    async fn send(&mut self, Pending { call, answer }: Pending) {
        let seq = self.next;
        self.next += 1;
        let packet = match serde_json::to_vec(&Request { seq, call }) {
            Ok(packet) if packet.len() <= protocol::MAX_MESSAGE => packet,
            Ok(packet) => return refuse(answer, format!("a request of {} bytes is too long", packet.len())),
            Err(error) => return refuse(answer, error.to_string()),
        };
        let Some(socket) = &self.socket else { return };
        match transmit(socket, &packet).await {
            Ok(()) => {
                self.waiting.insert(seq, answer);
            }
            Err(error) => {
                debug!(%error, dir = %self.dir.display(), "cannot send to a shim");
                self.socket = None;
            }
        }
    }

    /// False when the shim has ended.
    async fn reconnect(&mut self) -> bool {
        // Whoever waits for an answer on the broken connection waits in vain.
        self.waiting.clear();
        for attempt in 0..RECONNECTS {
            if tokio::time::timeout(RECONNECT_DELAY * attempt, ended(&self.pidfd)).await.is_ok() {
                return false;
            }
            let Ok(socket) = protocol::connect(&self.dir).and_then(crate::fd::watch) else { continue };
            self.socket = Some(socket);
            // What happened while there was no connection is told in the answer.
            let (answer, told) = oneshot::channel();
            self.send(Pending { call: Call::State, answer }).await;
            while let Some(socket) = &self.socket {
                match receive(socket).await {
                    Ok(Some(Message::Answer { result, .. })) => {
                        self.waiting.clear();
                        drop(told);
                        if let Ok(Reply::Processes { list }) = result {
                            for exit in list.into_iter().filter_map(|process| process.exit) {
                                self.notify(Notice::Exit(exit)).await;
                            }
                        }
                        return true;
                    }
                    Ok(Some(message)) => self.handle(message).await,
                    Ok(None) | Err(_) => self.socket = None,
                }
            }
        }
        if tokio::time::timeout(RECONNECT_DELAY, ended(&self.pidfd)).await.is_err() {
            warn!(dir = %self.dir.display(), "a shim does not answer any more and is killed");
            let _ = rustix::process::pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
            ended(&self.pidfd).await;
        }
        false
    }
}

fn refuse(answer: oneshot::Sender<Result<Reply, Failure>>, message: String) {
    let _ = answer.send(Err(Failure { origin: Origin::Shim, message }));
}

async fn transmit(socket: &AsyncFd<OwnedFd>, packet: &[u8]) -> io::Result<()> {
    loop {
        let mut ready = socket.writable().await?;
        let send = |fd: &AsyncFd<OwnedFd>| {
            rustix::net::send(fd.get_ref(), packet, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map_err(io::Error::from)
        };
        if let Ok(sent) = ready.try_io(send) {
            return sent.map(drop);
        }
    }
}

/// The next message; `None` at the end of the connection.
async fn receive(socket: &AsyncFd<OwnedFd>) -> io::Result<Option<Message>> {
    loop {
        let mut ready = socket.readable().await?;
        let Ok(packet) = ready.try_io(|fd| packet(fd.get_ref())) else { continue };
        let packet = packet?;
        if packet.is_empty() {
            return Ok(None);
        }
        return protocol::parse_message(&packet).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
    }
}

/// One packet, in a buffer of just its size; empty at the end of the connection.
fn packet(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let flags = RecvFlags::DONTWAIT;
    let size = match rustix::net::recv(socket, &mut [0_u8; 1], flags | RecvFlags::PEEK | RecvFlags::TRUNC) {
        Ok((_, size)) => size,
        Err(Errno::CONNRESET) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    if size == 0 {
        return Ok(Vec::new());
    }
    if size > protocol::MAX_MESSAGE {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut packet = vec![0; size];
    let (read, _) = rustix::net::recv(socket, packet.as_mut_slice(), flags)?;
    packet.truncate(read);
    Ok(packet)
}
