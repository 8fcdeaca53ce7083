//! Who is asked: Debian's `docker-registry`, and a server in this process that misbehaves on purpose.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::tests::gzip;
use crate::{Digest, ImageConfig, Reference};

/// bcrypt of `secret`.
const HTPASSWD: &str = "user:$2b$04$J4yg.pQ8P8JzZOXNldOVfeB7crHbA1X3EU.L3CqpmmGfG.XazvWJC\n";

/// A `docker-registry` of its own, gone when dropped.
pub(in crate::registry) struct DebianRegistry {
    child: Child,
    pub(in crate::registry) host: String,
    _dir: tempfile::TempDir,
}

impl DebianRegistry {
    /// `None`, with a word on stderr, where the program is not installed.
    pub(in crate::registry) fn start(password: bool) -> Option<Self> {
        let auth = |root: &str| format!("auth:\n  htpasswd:\n    realm: test\n    path: {root}/htpasswd\n");
        Self::start_with(|root| if password { auth(root) } else { String::new() })
    }

    /// With more lines of configuration, whose last section may be `http`.
    pub(in crate::registry) fn start_with(more: impl Fn(&str) -> String) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let root = dir.path().to_str().unwrap();
        fs::write(dir.path().join("htpasswd"), HTPASSWD).unwrap();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\n\
             http:\n  addr: {host}\n{}",
            more(root)
        );
        fs::write(dir.path().join("config.yml"), config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            eprintln!("docker-registry is not installed: this test did nothing");
            return None;
        };
        let started = Instant::now();
        while TcpStream::connect(&host).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(Self { child, host, _dir: dir })
    }

    pub(in crate::registry) fn name(&self, rest: &str) -> Reference {
        Reference::parse(&format!("{}/{rest}", self.host)).unwrap()
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer of the misbehaving server.
#[derive(Clone, Default)]
pub(in crate::registry) struct Reply {
    pub(in crate::registry) status: u16,
    pub(in crate::registry) headers: Vec<(String, String)>,
    pub(in crate::registry) body: Vec<u8>,
    /// Bytes of the body after which the connection is closed.
    pub(in crate::registry) cut: Option<usize>,
    /// After the cut, wait instead of closing.
    pub(in crate::registry) stall: bool,
}

impl Reply {
    pub(in crate::registry) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub(in crate::registry) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(in crate::registry) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

pub(in crate::registry) struct Asked {
    pub(in crate::registry) path: String,
    pub(in crate::registry) headers: HashMap<String, String>,
}

/// A server that answers as it is told to.
pub(in crate::registry) struct Fake {
    pub(in crate::registry) host: String,
}

impl Fake {
    pub(in crate::registry) fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || serve(stream, &*answer));
            }
        });
        Self { host }
    }

    pub(in crate::registry) fn name(&self) -> Reference {
        Reference::parse(&format!("{}/app:1", self.host)).unwrap()
    }
}

fn serve(stream: TcpStream, answer: &(impl Fn(&Asked) -> Reply + ?Sized)) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    // The beginning of a TLS handshake: this server has no TLS.
    if reader.fill_buf().ok()?.first()? == &0x16 {
        return None;
    }
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let reply = answer(&Asked { path, headers });
    let mut head = format!("HTTP/1.1 {} X\r\ncontent-length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("connection: close\r\n\r\n");
    let mut stream = stream;
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())]).ok()?;
    if reply.stall {
        let _ = stream.read(&mut [0; 1]);
    }
    Some(())
}

/// A small image as a registry has it.
pub(in crate::registry) struct Offered {
    pub(in crate::registry) config: Vec<u8>,
    pub(in crate::registry) layer: Vec<u8>,
    pub(in crate::registry) manifest: Vec<u8>,
}

impl Offered {
    pub(in crate::registry) fn new(plain: &[u8]) -> Self {
        let layer = gzip(plain);
        let mut config = ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
        config.rootfs.diff_ids = vec![Digest::of(plain)];
        Self::of(serde_json::to_vec(&config).unwrap(), layer)
    }

    pub(in crate::registry) fn of(config: Vec<u8>, layer: Vec<u8>) -> Self {
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "config": {"mediaType": crate::manifest::OCI_CONFIG, "digest": Digest::of(&config).as_str(), "size": config.len()},
            "layers": [{"mediaType": crate::extract::LAYER_OCI_GZIP, "digest": Digest::of(&layer).as_str(), "size": layer.len()}],
        });
        Self { config, layer, manifest: serde_json::to_vec(&manifest).unwrap() }
    }

    pub(in crate::registry) fn reply(&self, asked: &Asked) -> Reply {
        let blob = |data: &[u8]| asked.path.ends_with(Digest::of(data).as_str());
        if asked.path == "/v2/" {
            Reply::ok("{}")
        } else if asked.path.contains("/manifests/") {
            Reply::ok(self.manifest.clone()).with("content-type", crate::manifest::OCI_MANIFEST)
        } else if blob(&self.config) {
            Reply::ok(self.config.clone())
        } else if blob(&self.layer) {
            Reply::ok(self.layer.clone())
        } else {
            Reply::status(404)
        }
    }

    pub(in crate::registry) fn is_layer(&self, asked: &Asked) -> bool {
        asked.path.ends_with(Digest::of(&self.layer).as_str())
    }
}
