//! Registries on the loopback address: Debian's, and one that misbehaves on purpose.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::archives::{Blob, Compression, ImageArchive, digest};
use crate::http;
use crate::wait::{eventually, free_port};

/// Debian's `docker-registry`.
pub struct DebianRegistry {
    child: Child,
    /// `127.0.0.1:<port>`.
    pub address: String,
}

impl DebianRegistry {
    /// Starts one with its storage and log below `folder`; `htpasswd` is a line of such a file and demands that login.
    #[track_caller]
    pub fn start(folder: &Path, htpasswd: Option<&str>) -> Self {
        Self::start_at("127.0.0.1", folder, htpasswd, false)
    }

    /// The same on another address of this machine; `tls` with `server.pem` and `server-key.pem` of `folder`.
    #[track_caller]
    pub fn start_at(host: &str, folder: &Path, htpasswd: Option<&str>, tls: bool) -> Self {
        let root = folder.join(if tls { "registry-tls" } else { "registry" });
        fs::create_dir_all(&root).expect("create a folder");
        let address = format!("{host}:{}", free_port());
        let mut config = json!({
            "version": 0.1,
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": root.join("data")}, "delete": {"enabled": true}},
            "http": {"addr": address},
        });
        if let Some(line) = htpasswd {
            fs::write(root.join("htpasswd"), format!("{line}\n")).expect("write a file");
            config["auth"] = json!({"htpasswd": {"realm": "test", "path": root.join("htpasswd")}});
        }
        if tls {
            let (certificate, key) = (folder.join("server.pem"), folder.join("server-key.pem"));
            config["http"]["tls"] = json!({"certificate": certificate, "key": key});
        }
        // JSON is YAML.
        fs::write(root.join("config.yml"), config.to_string()).expect("write a file");
        let log = fs::File::create(root.join("log")).expect("create a file");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(root.join("config.yml"))
            .env("PATH", crate::programs::search_path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("duplicate a descriptor"))
            .stderr(log)
            .spawn()
            .expect("start docker-registry");
        let registry = Self { child, address };
        eventually("the registry listens", || TcpStream::connect(&registry.address).ok());
        registry
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a [`ScriptedRegistry`] does that an honest one would not, or not always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trick {
    /// Nothing.
    None,
    /// Answers through a manifest list that also names another platform.
    ManifestList,
    /// Demands this user and password.
    Basic(String, String),
    /// Demands a bearer token, which it hands out at `/token`.
    Bearer,
    /// Cuts the connection in the middle of every layer's first transfer.
    CutFirstTransfers,
    /// Sends other bytes than the digest says, of the right length.
    AlterLayers,
    /// Sends more bytes than the descriptor says.
    LengthenLayers,
    /// Sends a manifest that does not match the digest it was asked for by.
    AlterManifest,
}

struct Shared {
    trick: Trick,
    address: String,
    blobs: BTreeMap<String, Blob>,
    layers: Vec<String>,
    top: String,
    asked: Mutex<Vec<String>>,
}

/// A registry that serves one image, `test:latest`, with a [`Trick`].
pub struct ScriptedRegistry {
    shared: Arc<Shared>,
}

impl ScriptedRegistry {
    /// Serves `image` until the test ends.
    pub fn serve(image: &ImageArchive, trick: Trick) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind a port of the loopback address");
        let address = listener.local_addr().expect("the address of a bound socket").to_string();
        let list = image.oci_blobs(Compression::Gzip);
        let layers = list[..list.len() - 2].iter().map(|blob| digest(&blob.bytes)).collect();
        let manifest = list.last().expect("the manifest").clone();
        let mut blobs: BTreeMap<String, Blob> = list.into_iter().map(|blob| (digest(&blob.bytes), blob)).collect();
        let mut top = digest(&manifest.bytes);
        if trick == Trick::ManifestList {
            let index = index_of(&manifest);
            top = digest(&index.bytes);
            blobs.insert(top.clone(), index);
        }
        let shared = Arc::new(Shared { trick, address, blobs, layers, top, asked: Mutex::default() });
        let server = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = Arc::clone(&server);
                thread::spawn(move || drop(server.serve(stream)));
            }
        });
        Self { shared }
    }

    /// `127.0.0.1:<port>/test`.
    pub fn image_name(&self) -> String {
        format!("{}/test", self.shared.address)
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// The digest of what `test:latest` names.
    pub fn top_digest(&self) -> &str {
        &self.shared.top
    }

    /// The requests so far, as `GET /v2/… [Range]`.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().expect("no holder panics").clone()
    }
}

fn index_of(manifest: &Blob) -> Blob {
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let mut here = manifest.descriptor();
    here["platform"] = json!({"architecture": own, "os": "linux"});
    let elsewhere = json!({"mediaType": manifest.media_type, "digest": digest(b"elsewhere"), "size": 9,
        "platform": {"architecture": "s390x", "os": "linux"}});
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [elsewhere, here]});
    Blob { media_type: "application/vnd.oci.image.index.v1+json", bytes: index.to_string().into_bytes() }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut stream = stream;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let mut headers = BTreeMap::new();
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                let Some((name, value)) = header.trim_end().split_once(':') else { break };
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            let mut words = line.split(' ');
            let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let range = headers.get("range").cloned();
            let (seen_before, asked) = {
                let mut log = self.asked.lock().expect("no holder panics");
                let before = log.iter().any(|entry| entry.contains(path));
                let entry = format!("{method} {path} {}", range.as_deref().unwrap_or("")).trim_end().to_owned();
                log.push(entry.clone());
                (before, entry)
            };
            if !self.answer(&mut stream, method, path, &headers, seen_before)? {
                return Ok(()); // cut, as the trick wants it; `asked` tells the test
            }
            drop(asked);
        }
    }

    /// Answers one request; `false` ends the connection.
    fn answer(
        &self,
        stream: &mut TcpStream,
        method: &str,
        path: &str,
        headers: &BTreeMap<String, String>,
        seen_before: bool,
    ) -> std::io::Result<bool> {
        let (route, _) = path.split_once('?').unwrap_or((path, ""));
        if route == "/token" {
            return respond(stream, method, "200 OK", &[], br#"{"token":"let-me-in","expires_in":300}"#);
        }
        if let Some(challenge) = self.challenge(headers) {
            let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
            return respond(stream, method, "401 Unauthorized", &[("WWW-Authenticate", &challenge)], body);
        }
        if route == "/v2/" || route == "/v2" {
            return respond(stream, method, "200 OK", &[], b"{}");
        }
        let Some((what, reference)) = route.strip_prefix("/v2/test/").and_then(|rest| rest.split_once('/')) else {
            return respond(stream, method, "404 Not Found", &[], br#"{"errors":[{"code":"NAME_UNKNOWN"}]}"#);
        };
        let wanted = if reference == "latest" { self.top.as_str() } else { reference };
        let Some(blob) = self.blobs.get(wanted) else {
            let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            return respond(stream, method, "404 Not Found", &[], body);
        };
        let mut bytes = blob.bytes.clone();
        let is_layer = self.layers.iter().any(|layer| layer == wanted);
        match self.trick {
            Trick::AlterLayers if is_layer => bytes[0] ^= 0xff,
            Trick::LengthenLayers if is_layer => bytes.extend_from_slice(&[0; 4096]),
            Trick::AlterManifest if what == "manifests" => bytes.push(b' '),
            _ => {}
        }
        let kind = if what == "manifests" { blob.media_type } else { "application/octet-stream" };
        if self.trick == Trick::CutFirstTransfers && is_layer && method == "GET" && !seen_before {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", bytes.len());
            stream.write_all(head.as_bytes())?;
            stream.write_all(&bytes[..bytes.len() / 2])?;
            return Ok(false);
        }
        let from = headers
            .get("range")
            .and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse::<usize>().ok())
            .filter(|from| *from < bytes.len());
        let digest = if self.trick == Trick::AlterManifest { wanted.to_owned() } else { digest(&blob.bytes) };
        let mut extra = vec![("Content-Type", kind), ("Docker-Content-Digest", digest.as_str())];
        let content_range = from.map(|from| format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()));
        extra.extend(content_range.as_deref().map(|range| ("Content-Range", range)));
        let status = if from.is_some() { "206 Partial Content" } else { "200 OK" };
        respond(stream, method, status, &extra, &bytes[from.unwrap_or(0)..])
    }

    fn challenge(&self, headers: &BTreeMap<String, String>) -> Option<String> {
        let given = headers.get("authorization").map(String::as_str).unwrap_or_default();
        match &self.trick {
            Trick::Basic(user, password) => {
                let wanted = format!("Basic {}", base64(format!("{user}:{password}").as_bytes()));
                (given != wanted).then(|| "Basic realm=\"test\"".to_owned())
            }
            Trick::Bearer => (given != "Bearer let-me-in").then(|| {
                format!(
                    "Bearer realm=\"http://{}/token\",service=\"test\",scope=\"repository:test:pull\"",
                    self.address
                )
            }),
            _ => None,
        }
    }
}

fn respond(
    stream: &mut TcpStream,
    method: &str,
    status: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<bool> {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    head.push_str("Docker-Distribution-Api-Version: registry/2.0\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    if method != "HEAD" {
        stream.write_all(body)?;
    }
    Ok(true)
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let three = [chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)];
        let number = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4 {
            let letter = ALPHABET[(number >> (18 - 6 * place)) as usize & 63] as char;
            text.push(if place <= chunk.len() { letter } else { '=' });
        }
    }
    text
}

/// What a registry says it has under a name: asked directly, not through the engine.
#[track_caller]
pub fn tags(address: &str, name: &str) -> Value {
    http::request_over_tcp(address, "GET", &format!("/v2/{name}/tags/list")).json()
}
