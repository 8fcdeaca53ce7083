//! What clients ask for.

use crate::protocol::{Call, Failure, Message, Origin, ProcessState, Reply, Request, Restore, Stdio};
use serde::Deserialize;

use super::ending::Ending;
use super::jobs::{Asked, JobKind};
use super::{INIT, Shim};
use crate::error::{Error, words};
use crate::process::Process;
use crate::protocol;
use crate::stdio;
use crate::sys;

/// The answer to a call that does not take time; `None` for one that a job answers later.
type Answer = Result<Option<Reply>, Failure>;

/// All that is needed to answer a request that is otherwise nonsense.
#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

impl Shim {
    /// Does what a packet asks.
    pub(super) fn answer(&mut self, client: u64, packet: &[u8]) {
        match protocol::parse_request(packet) {
            Ok(Request { seq, call }) => match self.call(Asked { client, seq }, call) {
                Ok(None) => {}
                Ok(Some(reply)) => self.reply(Asked { client, seq }, Ok(reply)),
                Err(failure) => self.reply(Asked { client, seq }, Err(failure)),
            },
            Err(error) => match serde_json::from_slice::<Numbered>(packet) {
                Ok(Numbered { seq }) => self.reply(Asked { client, seq }, Err(failure(&error.to_string()))),
                Err(_) => {
                    self.log.warn(&error.to_string());
                    self.clients.drop_client(client);
                }
            },
        }
    }

    /// Answers a request.
    pub(super) fn reply(&mut self, asked: Asked, result: Result<Reply, Failure>) {
        self.clients.tell(asked.client, &Message::Answer { seq: asked.seq, result });
    }

    fn call(&mut self, asked: Asked, call: Call) -> Answer {
        match call {
            Call::Create { stdio, no_pivot, restore } => self.create(asked, &stdio, no_pivot, restore.as_ref()),
            Call::Start => {
                self.running()?;
                let (command, id) = (["start"], self.runtime.id.clone());
                self.call_runtime(JobKind::Start, Some(asked), &command, &id)
            }
            Call::Exec { process, stdio } => self.exec(asked, process, &stdio),
            Call::Resize { process, width, height } => {
                if let Some(terminal) = self.process(&process)?.terminal() {
                    terminal.resize(width, height).map_err(shim_error)?;
                }
                Ok(Some(Reply::Done))
            }
            Call::CloseStdin { process } => {
                let streams = &mut self.process(&process)?.streams;
                if let Some(input) = &mut streams.input {
                    input.close_when_empty();
                    if !input.turn() {
                        streams.input = None;
                    }
                }
                Ok(Some(Reply::Done))
            }
            Call::Signal { process, signal } => {
                let process = self.process(&process)?;
                let pid = process.pid.filter(|_| process.exit.is_none()).unwrap_or(0);
                sys::kill(pid, signal).map_err(|errno| failure(&words(errno)))?;
                Ok(Some(Reply::Done))
            }
            Call::Checkpoint { args } => {
                self.running()?;
                let args: Vec<&str> = std::iter::once("checkpoint").chain(args.iter().map(String::as_str)).collect();
                let id = self.runtime.id.clone();
                self.call_runtime(JobKind::Checkpoint, Some(asked), &args, &id)
            }
            Call::State => {
                let list: Vec<ProcessState> = self.processes.values().filter_map(Process::state).collect();
                Ok(Some(Reply::Processes { list }))
            }
        }
    }

    fn create(&mut self, asked: Asked, stdio: &Stdio, no_pivot: bool, restore: Option<&Restore>) -> Answer {
        if !self.is_unused() || !matches!(self.ending, Ending::NotYet) {
            return Err(failure("container already created"));
        }
        let begun = self.begin_create(asked, stdio, no_pivot, restore);
        if begun.is_err() {
            // Nothing was made and nothing will be: the shim ends with the answer.
            self.ending_unmade();
        }
        begun
    }

    fn begin_create(&mut self, asked: Asked, stdio: &Stdio, no_pivot: bool, restore: Option<&Restore>) -> Answer {
        let dir = self.dir.join("init");
        let (child, streams, console) = self.open_stdio(stdio, &dir).map_err(shim_error)?;
        let pid = self
            .runtime
            .create(&dir, child, console.as_deref(), no_pivot, restore)
            .inspect_err(|error| self.log.error(&error.to_string()))
            .map_err(shim_error)?;
        let key = self.add_process(Process::new("init".into(), dir, streams));
        self.add_job(JobKind::Make { process: key, restored: restore.is_some() }, pid, None, Some(asked));
        Ok(None)
    }

    fn exec(&mut self, asked: Asked, name: String, stdio: &Stdio) -> Answer {
        self.running()?;
        if self.processes.values().any(|process| process.name == name && !process.reported) {
            return Err(failure("process already exists"));
        }
        let dir = self.dir.join(&name);
        let (child, streams, console) = self.open_stdio(stdio, &dir).map_err(shim_error)?;
        let pid = self.runtime.exec(&dir, child, console.as_deref()).map_err(shim_error)?;
        let key = self.add_process(Process::new(name, dir, streams));
        self.add_job(JobKind::Make { process: key, restored: false }, pid, None, Some(asked));
        Ok(None)
    }

    /// Opens the stdio; for a terminal also gives the console socket's path for the runtime, which is short whatever
    /// the container's directory is called.
    fn open_stdio(
        &mut self,
        stdio: &Stdio,
        dir: &std::path::Path,
    ) -> Result<(stdio::Child, stdio::Streams, Option<String>), Error> {
        let name = format!("console-{}.sock", self.next_process);
        let (child, streams) = stdio::open(stdio, dir, std::path::Path::new(&name))?;
        let console = stdio.terminal.then(|| format!("/proc/{}/cwd/{name}", std::process::id()));
        Ok((child, streams, console))
    }

    fn add_process(&mut self, process: Process) -> u32 {
        let key = self.next_process;
        self.next_process += 1;
        self.processes.insert(key, process);
        key
    }

    fn call_runtime(&mut self, kind: JobKind, asked: Option<Asked>, args: &[&str], id: &str) -> Answer {
        let runtime_args: Vec<String> = self.runtime.args.clone();
        let all = runtime_args.iter().map(String::as_str).chain(args.iter().copied()).chain([id]);
        let (pid, capture) = self.runtime.call(all).map_err(shim_error)?;
        self.add_job(kind, pid, Some(capture), asked);
        Ok(None)
    }

    /// Refuses unless the container's init lives.
    fn running(&self) -> Result<(), Failure> {
        match self.processes.get(&INIT) {
            Some(init) if init.pid.is_some() && init.exit.is_none() => Ok(()),
            _ => Err(failure("container is not running")),
        }
    }

    /// The newest process of that name that was not yet reported.
    fn process(&mut self, name: &str) -> Result<&mut Process, Failure> {
        let found = self.processes.values_mut().rev().find(|process| process.name == name && !process.reported);
        found.ok_or_else(|| failure("process not found for container"))
    }
}

/// A failure of our own.
pub(super) fn failure(message: &str) -> Failure {
    Failure { origin: Origin::Shim, message: message.to_owned() }
}

/// The same, of an error.
#[allow(clippy::needless_pass_by_value)]
pub(super) fn shim_error(error: Error) -> Failure {
    failure(&error.to_string())
}
