//! An engine behind its API socket, ours or another's.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::{Answer, Engine, request};
use serde_json::{Value, json};

use crate::hold;
use crate::sleep::Sleeper;

const IMAGE: &str = "dormouse-bench";
/// By this label other engines' containers of ours are found again.
const LABEL: &str = "dormouse.bench";

/// An engine.
pub struct Peer {
    /// What it is called in the table.
    pub name: String,
    /// The folder that all its processes have on their command line; none for engines we did not start.
    pub home: Option<PathBuf>,
    socket: PathBuf,
}

impl Peer {
    pub fn ours(engine: &Engine) -> Self {
        Self { name: "dormouse".into(), home: Some(engine.home().to_path_buf()), socket: engine.socket() }
    }

    pub fn other(name: &str, socket: &str) -> Self {
        Self { name: name.into(), home: None, socket: socket.trim_start_matches("unix://").into() }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How many bytes its log, or the end of it, has.
    pub fn logs(&self, id: &str, tail: &str) -> Result<usize, String> {
        let answer = self.call("GET", &format!("/containers/{id}/logs?stdout=1&tail={tail}"), None)?;
        Ok(answer.body.len())
    }

    fn call(&self, method: &str, path: &str, body: Option<Value>) -> Result<Answer, String> {
        let text = body.map(|value| value.to_string()).unwrap_or_default();
        let headers: &[&str] = if text.is_empty() { &[] } else { &["Content-Type: application/json"] };
        let answer = request(&self.socket, method, path, headers, text.as_bytes());
        if answer.status < 400 {
            Ok(answer)
        } else {
            Err(format!("{method} {path}: {} {}", answer.status, answer.text().trim()))
        }
    }

    /// Imports the image.
    pub fn provide_image(&self) {
        let tar = hold::image_tar();
        let path = format!("/images/create?fromSrc=-&repo={IMAGE}&tag=latest");
        let answer = request(&self.socket, "POST", &path, &["Content-Type: application/x-tar"], &tar);
        assert!(answer.status < 400, "{}: import: {}", self.name, answer.text());
    }

    pub fn create(&self, command: &[&str], network: &str) -> Result<String, String> {
        let body = json!({"Image": format!("{IMAGE}:latest"), "Cmd": command, "Labels": {LABEL: "1"},
            "Env": ["PATH=/bin"], "HostConfig": {"NetworkMode": network}});
        let answer = self.call("POST", "/containers/create", Some(body))?;
        answer.json()["Id"].as_str().map(str::to_owned).ok_or_else(|| "create gave no id".to_owned())
    }

    pub fn start(&self, id: &str) -> Result<(), String> {
        self.call("POST", &format!("/containers/{id}/start"), None).map(drop)
    }

    pub fn wait(&self, id: &str) -> Result<(), String> {
        self.call("POST", &format!("/containers/{id}/wait"), None).map(drop)
    }

    pub fn remove(&self, id: &str) -> Result<(), String> {
        self.call("DELETE", &format!("/containers/{id}?force=true"), None).map(drop)
    }

    pub fn run(&self, command: &[&str], network: &str) -> Result<String, String> {
        let id = self.create(command, network)?;
        self.start(&id)?;
        Ok(id)
    }

    pub fn exec(&self, id: &str, command: &[&str]) -> Result<(), String> {
        let body = json!({"Cmd": command, "AttachStdout": true, "AttachStderr": true});
        let answer = self.call("POST", &format!("/containers/{id}/exec"), Some(body))?.json();
        let exec = answer["Id"].as_str().ok_or("exec gave no id")?;
        self.call("POST", &format!("/exec/{exec}/start"), Some(json!({"Detach": false, "Tty": false}))).map(drop)
    }

    pub fn checkpoint(&self, id: &str, name: &str) -> Result<(), String> {
        let body = json!({"CheckpointID": name, "Exit": true});
        self.call("POST", &format!("/containers/{id}/checkpoints"), Some(body)).map(drop)
    }

    pub fn wake(&self, id: &str, name: &str) -> Result<(), String> {
        self.call("POST", &format!("/containers/{id}/start?checkpoint={name}"), None).map(drop)
    }

    pub fn list(&self) -> Result<(), String> {
        self.call("GET", "/containers/json", None).map(drop)
    }

    fn checkpoint_in(&self, id: &str, name: &str, exit: bool, dir: &Path) -> Result<(), String> {
        let body = json!({"CheckpointID": name, "Exit": exit, "CheckpointDir": dir});
        self.call("POST", &format!("/containers/{id}/checkpoints"), Some(body)).map(drop)
    }

    /// Removes the containers and the image that were made here.
    pub fn remove_everything(&self) {
        let filter = format!("%7B%22label%22%3A%5B%22{LABEL}%22%5D%7D");
        let list = self.call("GET", &format!("/containers/json?all=1&filters={filter}"), None);
        for container in list.map(|answer| answer.json()).iter().flat_map(|list| list.as_array()).flatten() {
            if let Some(id) = container["Id"].as_str() {
                let _ = self.remove(id);
            }
        }
        let _ = self.call("DELETE", &format!("/images/{IMAGE}:latest"), None);
    }
}

impl Sleeper for Peer {
    fn name(&self) -> &str {
        &self.name
    }

    fn hold(&self, mebibytes: u64, port: u16) -> Result<String, String> {
        let network = if port == 0 { "none" } else { "host" };
        self.run(&["hold", &mebibytes.to_string(), &port.to_string()], network)
    }

    fn checkpoint(&self, id: &str, name: &str, leave_running: bool) -> Result<(), String> {
        let body = json!({"CheckpointID": name, "Exit": !leave_running});
        self.call("POST", &format!("/containers/{id}/checkpoints"), Some(body))?;
        if !leave_running {
            // Some engines answer before the container is known to have ended.
            self.wait(id)?;
        }
        Ok(())
    }

    fn wake(&self, id: &str, name: &str) -> Result<(), String> {
        Peer::wake(self, id, name)
    }

    fn remove_checkpoint(&self, id: &str, name: &str) -> Result<(), String> {
        self.call("DELETE", &format!("/containers/{id}/checkpoints/{name}"), None).map(drop)
    }

    fn files(&self, id: &str, name: &str) -> Option<PathBuf> {
        let info = self.call("GET", "/info", None).ok()?.json();
        Some(Path::new(info["DockerRootDir"].as_str()?).join("containers").join(id).join("checkpoints").join(name))
    }

    fn remove(&self, id: &str) -> Result<(), String> {
        Peer::remove(self, id)
    }

    fn clones(&self, id: &str, count: usize) -> Result<Duration, String> {
        let dir =
            tempfile::Builder::new().prefix("dormouse-bench").tempdir_in("/var/tmp").map_err(|e| e.to_string())?;
        self.checkpoint_in(id, "seed", true, dir.path())?;
        let ids: Vec<String> =
            (0..count).map(|_| self.create(&["hold", "1", "0"], "none")).collect::<Result<_, _>>()?;
        let dir = dir.path().to_string_lossy().into_owned();
        let began = Instant::now();
        let made = ids.iter().try_for_each(|clone| {
            let path = format!("/containers/{clone}/start?checkpoint=seed&checkpoint-dir={dir}");
            self.call("POST", &path, None).map(drop)
        });
        let took = began.elapsed();
        for clone in &ids {
            let _ = Peer::remove(self, clone);
        }
        made.map(|()| took)
    }
}
