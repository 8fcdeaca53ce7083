//! Against Debian's `docker-registry`, and against a server in this process that misbehaves on purpose.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use errors::{Kind, Kinded};

use super::*;
use crate::tests::{data_root, gzip, import, on_disk, tar};
use crate::{CommitOptions, Digest, Error, ImageConfig, Platform, Reference, Result};

const CONTAINER: &str = "c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0";
/// bcrypt of `secret`.
const HTPASSWD: &str = "user:$2b$04$J4yg.pQ8P8JzZOXNldOVfeB7crHbA1X3EU.L3CqpmmGfG.XazvWJC\n";

/// A `docker-registry` of its own, gone when dropped.
pub(super) struct DebianRegistry {
    child: Child,
    pub(super) host: String,
    _dir: tempfile::TempDir,
}

impl DebianRegistry {
    /// `None`, with a word on stderr, where the program is not installed.
    fn start(password: bool) -> Option<Self> {
        let auth = |root: &str| format!("auth:\n  htpasswd:\n    realm: test\n    path: {root}/htpasswd\n");
        Self::start_with(|root| if password { auth(root) } else { String::new() })
    }

    /// With more lines of configuration, whose last section may be `http`.
    pub(super) fn start_with(more: impl Fn(&str) -> String) -> Option<Self> {
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

    fn name(&self, rest: &str) -> Reference {
        Reference::parse(&format!("{}/{rest}", self.host)).unwrap()
    }
}

impl Drop for DebianRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn user(password: &str) -> Credentials {
    Credentials { username: "user".into(), password: password.into(), ..Credentials::default() }
}

fn registry(images: &Images) -> Registry {
    Registry::new(images.clone(), RegistryOptions { attempts: 2, ..RegistryOptions::default() })
}

fn pull_of(reference: &Reference) -> PullRequest {
    PullRequest { reference: reference.clone(), platform: None, credentials: Credentials::default() }
}

/// Runs a transfer; gives its outcome and its statuses (`id: status`), without the counts of bytes.
async fn told<T>(work: impl AsyncFnOnce(ProgressSender) -> Result<T>) -> (Result<T>, Vec<String>) {
    let (sender, mut receiver) = ProgressSender::channel();
    let collect = async {
        let mut lines = Vec::new();
        while let Some(progress) = receiver.recv().await {
            if progress.bytes.is_none() && progress.aux.is_none() {
                lines.push(format!("{}: {}", progress.id, progress.status));
            }
        }
        lines
    };
    tokio::join!(work(sender), collect)
}

async fn pull(images: &Images, reference: &Reference) -> (Result<Pulled>, Vec<String>) {
    let (registry, request) = (registry(images), pull_of(reference));
    told(async |progress| registry.pull(&request, &progress).await).await
}

async fn push(images: &Images, reference: &Reference, who: Credentials) -> (Result<Pushed>, Vec<String>) {
    let registry = registry(images);
    told(async |progress| registry.push(reference, who, &progress).await).await
}

/// An image of three layers.
fn layered(images: &Images, name: &Reference) -> Digest {
    let base = import(images, "base", &[("a", &"a".repeat(100_000))]);
    images.create_layer(CONTAINER, Some(&base)).unwrap();
    fs::write(images.upper_dir(CONTAINER).unwrap().join("b"), "b").unwrap();
    let second = images.commit(CONTAINER, &CommitOptions::default()).unwrap();
    images.remove_layer(CONTAINER).unwrap();
    images.create_layer(CONTAINER, Some(&second)).unwrap();
    fs::write(images.upper_dir(CONTAINER).unwrap().join("c"), "c").unwrap();
    let third = images.commit(CONTAINER, &CommitOptions { name: Some(name.clone()), ..Default::default() }).unwrap();
    images.remove_layer(CONTAINER).unwrap();
    third
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_is_pulled_with_dockers_messages() {
    let Some(server) = DebianRegistry::start(false) else { return };
    let (here, there) = (data_root(), data_root());
    let images = Images::open(here.path()).unwrap();
    let name = server.name("team/app:1");
    let id = layered(&images, &name);
    let (pushed, lines) = push(&images, &name, Credentials::default()).await;
    let pushed = pushed.unwrap();
    assert_eq!(lines[0], format!(": The push refers to repository [{}/team/app]", server.host));
    assert_eq!(lines.iter().filter(|line| line.ends_with(": Pushed")).count(), 3);
    assert_eq!(*lines.last().unwrap(), format!(": 1: digest: {} size: {}", pushed.digest, pushed.size));
    let (_, lines) = push(&images, &name, Credentials::default()).await;
    assert_eq!(lines.iter().filter(|line| line.ends_with(": Layer already exists")).count(), 3);
    let other = server.name("team/other:2");
    images.tag(&name.familiar(), &other.name(), "2").unwrap();
    let (_, lines) = push(&images, &other, Credentials::default()).await;
    assert_eq!(lines.iter().filter(|line| line.ends_with(": Mounted from team/app")).count(), 3, "{lines:?}");

    let pulling = Images::open(there.path()).unwrap();
    let (pulled, lines) = pull(&pulling, &name).await;
    assert_eq!(pulled.unwrap(), Pulled { id: id.clone(), digest: pushed.digest.clone(), newer: true });
    assert_eq!(lines[0], "1: Pulling from team/app");
    for status in ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"] {
        assert_eq!(
            lines.iter().filter(|line| line.ends_with(&format!(": {status}"))).count(),
            3,
            "{status}: {lines:?}"
        );
    }
    assert_eq!(lines[lines.len() - 2], format!(": Digest: {}", pushed.digest));
    assert_eq!(lines[lines.len() - 1], format!(": Status: Downloaded newer image for {}", name.familiar()));
    let details = pulling.inspect(&name.familiar()).unwrap();
    assert_eq!(details.repo_digests, [format!("{}@{}", name.familiar_name(), pushed.digest)]);
    assert_eq!(details.graph_driver.unwrap().lower.len(), 2);

    let (again, lines) = pull(&pulling, &name).await;
    assert!(!again.unwrap().newer);
    assert_eq!(*lines.last().unwrap(), format!(": Status: Image is up to date for {}", name.familiar()));
    let by_digest = name.clone().with_digest(pushed.digest.clone());
    assert_eq!(pull(&pulling, &by_digest).await.0.unwrap().id, id);
    let (all, _) = pull(&pulling, &other.name_only()).await;
    assert_eq!(all.unwrap().id, id);
    // What came goes again with the digest it came with.
    let third = server.name("third:1");
    pulling.tag(&name.familiar(), &third.name(), "1").unwrap();
    assert_eq!(push(&pulling, &third, Credentials::default()).await.0.unwrap().digest, pushed.digest);

    let remote = registry(&pulling).inspect(&name, Credentials::default()).await.unwrap();
    assert_eq!((remote.descriptor.digest, remote.platforms.len()), (pushed.digest, 1));
    let (missing, _) = pull(&pulling, &server.name("team/app:none")).await;
    let missing = missing.unwrap_err();
    assert_eq!(missing.kind(), Kind::NotFound);
    let words = format!("manifest for {}/team/app:none not found: manifest unknown: manifest unknown", server.host);
    assert_eq!(missing.to_string(), words);
    let (unknown, _) = push(&pulling, &server.name("team/app:none"), Credentials::default()).await;
    assert_eq!(unknown.unwrap_err().to_string(), format!("tag does not exist: {}/team/app:none", server.host));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_passwords_wants_the_right_one() {
    let Some(server) = DebianRegistry::start(true) else { return };
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let name = server.name("app:1");
    import(&images, &name.familiar(), &[("f", "x")]);
    let registry = registry(&images);
    assert_eq!(registry.login(&server.host, user("secret")).await.unwrap().status, "Login Succeeded");
    let url = format!("http://{}/v2/", server.host);
    assert_eq!(registry.login(&url, user("wrong")).await.unwrap_err().kind(), Kind::Unauthorized);
    let nobody = push(&images, &name, Credentials::default()).await.0.unwrap_err();
    assert_eq!(nobody.kind(), Kind::System);
    assert!(nobody.to_string().ends_with("no basic auth credentials"), "{nobody}");
    assert_eq!(push(&images, &name, user("wrong")).await.0.unwrap_err().kind(), Kind::Unauthorized);
    push(&images, &name, user("secret")).await.0.unwrap();
    let request = PullRequest { credentials: user("secret"), ..pull_of(&name) };
    let (pulled, _) = told(async |progress| registry.pull(&request, &progress).await).await;
    pulled.unwrap();
}

/// An answer of the misbehaving server.
#[derive(Clone, Default)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Bytes of the body after which the connection is closed.
    cut: Option<usize>,
    /// After the cut, wait instead of closing.
    stall: bool,
}

impl Reply {
    fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

struct Asked {
    path: String,
    headers: HashMap<String, String>,
}

/// A server that answers as it is told to.
struct Fake {
    host: String,
}

impl Fake {
    fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
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

    fn name(&self) -> Reference {
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
struct Offered {
    config: Vec<u8>,
    layer: Vec<u8>,
    manifest: Vec<u8>,
}

impl Offered {
    fn new(plain: &[u8]) -> Self {
        let layer = gzip(plain);
        let mut config = ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
        config.rootfs.diff_ids = vec![Digest::of(plain)];
        Self::of(serde_json::to_vec(&config).unwrap(), layer)
    }

    fn of(config: Vec<u8>, layer: Vec<u8>) -> Self {
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "config": {"mediaType": crate::manifest::OCI_CONFIG, "digest": Digest::of(&config).as_str(), "size": config.len()},
            "layers": [{"mediaType": crate::extract::LAYER_OCI_GZIP, "digest": Digest::of(&layer).as_str(), "size": layer.len()}],
        });
        Self { config, layer, manifest: serde_json::to_vec(&manifest).unwrap() }
    }

    fn reply(&self, asked: &Asked) -> Reply {
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

    fn is_layer(&self, asked: &Asked) -> bool {
        asked.path.ends_with(Digest::of(&self.layer).as_str())
    }
}

fn noise(bytes: usize) -> String {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        char::from(b' ' + (seed % 90) as u8)
    };
    (0..bytes).map(|_| next()).collect()
}

/// What a misbehaving registry sends is refused, and nothing stays.
async fn refused(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Error {
    let fake = Fake::start(answer);
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let error = pull(&images, &fake.name()).await.0.unwrap_err();
    assert!(on_disk(root.path()).is_empty(), "{error}: {:?}", on_disk(root.path()));
    assert!(images.list(&crate::ListFilter::default()).unwrap().is_empty());
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_match_is_refused_and_leaves_nothing() {
    let offered = || Offered::new(&tar(&[("f", &noise(50_000))]));
    let o = offered();
    let error = refused(move |asked| {
        let mut reply = o.reply(asked);
        if o.is_layer(asked) {
            reply.body[100] ^= 1;
        }
        reply
    })
    .await;
    assert!(error.to_string().starts_with("filesystem layer verification failed for digest sha256:"), "{error}");

    let o = offered();
    let error = refused(move |asked| {
        let mut reply = o.reply(asked);
        if o.is_layer(asked) {
            reply.body.push(0);
        }
        reply
    })
    .await;
    assert!(matches!(error, Error::Corrupt(_)), "{error}");

    let o = offered();
    let error = refused(move |asked| {
        let mut reply = o.reply(asked);
        if o.is_layer(asked) {
            reply.body.truncate(1000);
        }
        reply
    })
    .await;
    assert!(error.to_string().ends_with("unexpected EOF"), "{error}");

    let o = offered();
    let error = refused(move |asked| {
        let reply = o.reply(asked);
        if reply.body == o.config { Reply::ok(b"{}".repeat(o.config.len() / 2)) } else { reply }
    })
    .await;
    assert!(matches!(error, Error::Corrupt(_)), "{error}");

    let o = offered();
    let error = refused(move |asked| {
        let reply = o.reply(asked);
        if asked.path.contains("/manifests/") { Reply::ok(vec![b' '; 5 << 20]) } else { reply }
    })
    .await;
    assert_eq!(error.kind(), Kind::TooLarge, "{error}");

    // The layer's own content is another than the configuration says.
    let config = offered().config;
    let o = Offered::of(config, gzip(&tar(&[("g", "other")])));
    let error = refused(move |asked| o.reply(asked)).await;
    assert!(error.to_string().contains("invalid diffID"), "{error}");

    let mut evil = archive::TarWriter::new(Vec::new());
    evil.append_bytes(&archive::Entry::new("../evil", archive::EntryKind::File, 0o644), b"x").unwrap();
    let o = Offered::new(&evil.finish().unwrap());
    let error = refused(move |asked| o.reply(asked)).await;
    assert!(error.to_string().starts_with("failed to register layer: invalid archive"), "{error}");

    let error = refused(|asked| match asked.path.as_str() {
        "/v2/" => Reply::ok("{}"),
        _ => Reply::ok(r#"{"schemaVersion":1,"name":"app","tag":"1"}"#),
    })
    .await;
    assert!(
        error.to_string().starts_with("Docker Image Format v1 and Docker Image manifest version 2, schema 1"),
        "{error}"
    );

    let error = refused(|asked| match asked.path.as_str() {
        "/v2/" => Reply::ok("{}"),
        path => Reply::status(307).with("location", path),
    })
    .await;
    assert!(error.to_string().contains("stopped after 10 redirects"), "{error}");

    let error = refused(|asked| match asked.path.as_str() {
        "/v2/" => Reply::ok("{}"),
        _ => Reply {
            body: br#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#.into(),
            ..Reply::status(403)
        },
    })
    .await;
    assert!(error.to_string().starts_with("pull access denied for "), "{error}");
    assert!(error.to_string().ends_with("denied: requested access to the resource is denied"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_download_goes_on_where_it_broke() {
    for honours_range in [true, false] {
        let offered = Offered::new(&tar(&[("f", &noise(300_000))]));
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&ranges);
        let fake = Fake::start(move |asked| {
            let mut reply = offered.reply(asked);
            if !offered.is_layer(asked) {
                return reply;
            }
            let range = asked.headers.get("range").cloned();
            seen.lock().unwrap().push(range.clone());
            match range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()) {
                None => reply.cut = Some(100_000),
                Some(start) if honours_range => {
                    let last = reply.body.len() - 1;
                    let total = reply.body.len();
                    reply.body.drain(..start);
                    reply =
                        Reply { status: 206, ..reply }.with("content-range", format!("bytes {start}-{last}/{total}"));
                }
                Some(_) => {}
            }
            reply
        });
        let root = data_root();
        let images = Images::open(root.path()).unwrap();
        pull(&images, &fake.name()).await.0.unwrap();
        let ranges = ranges.lock().unwrap();
        assert_eq!((ranges.len(), &ranges[0]), (2, &None));
        assert!(ranges[1].as_deref().is_some_and(|range| range.starts_with("bytes=") && range.len() > 8), "{ranges:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_and_renewed() {
    let offered = Offered::new(&tar(&[("f", "x")]));
    let host = Arc::new(Mutex::new(String::new()));
    let (own, tokens) = (Arc::clone(&host), Arc::new(AtomicUsize::new(0)));
    let issued = Arc::clone(&tokens);
    let fake = Fake::start(move |asked| {
        let realm = format!("http://{}/token", own.lock().unwrap());
        if asked.path.starts_with("/token") {
            let good = asked.headers.get("authorization").is_some_and(|h| h.starts_with("Basic "));
            if !good {
                return Reply { body: br#"{"details":"incorrect username or password"}"#.into(), ..Reply::status(401) };
            }
            assert!(asked.path.contains("service=s") && asked.path.contains("scope=repository%3Aapp%3Apull"));
            let n = issued.fetch_add(1, Ordering::SeqCst) + 1;
            return Reply::ok(format!(r#"{{"token":"t{n}"}}"#));
        }
        // The first token runs out before the layer.
        let wanted = if offered.is_layer(asked) { "Bearer t2" } else { "Bearer t1" };
        if asked.headers.get("authorization").is_some_and(|h| h == wanted) {
            return offered.reply(asked);
        }
        let challenge = format!(r#"Bearer realm="{realm}",service="s",scope="repository:app:pull""#);
        Reply::status(401).with("www-authenticate", challenge)
    });
    host.lock().unwrap().clone_from(&fake.host);
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let registry = registry(&images);
    let request = PullRequest { credentials: user("secret"), ..pull_of(&fake.name()) };
    let (pulled, _) = told(async |progress| registry.pull(&request, &progress).await).await;
    pulled.unwrap();
    assert_eq!(tokens.load(Ordering::SeqCst), 2);
    let error = pull(&images, &fake.name()).await.0.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthorized);
    assert!(error.to_string().contains("incorrect username or password"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_platforms_the_right_one_is_taken() {
    let offered = Offered::new(&tar(&[("f", "amd64")]));
    let index = |platform: &str| {
        serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": crate::manifest::OCI_INDEX,
            "manifests": [
                {"mediaType": crate::manifest::OCI_MANIFEST, "digest": Digest::of(b"no").as_str(), "size": 2,
                 "platform": {"os": "unknown", "architecture": "unknown"}},
                {"mediaType": crate::manifest::OCI_MANIFEST, "digest": Digest::of(&offered.manifest).as_str(),
                 "size": offered.manifest.len(), "platform": {"os": "linux", "architecture": platform}},
            ],
        }))
        .unwrap()
    };
    let (ours, theirs) = (index(&Platform::host().architecture), index("s390x"));
    let fake = Fake::start(move |asked| match asked.path.as_str() {
        "/v2/app/manifests/1" => Reply::ok(ours.clone()),
        "/v2/app/manifests/2" => Reply::ok(theirs.clone()),
        _ => offered.reply(asked),
    });
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    pull(&images, &fake.name()).await.0.unwrap();
    let error = pull(&images, &fake.name().with_tag("2").unwrap()).await.0.unwrap_err();
    let words = format!("no matching manifest for {} in the manifest list entries", Platform::host().spell());
    assert_eq!((error.kind(), error.to_string()), (Kind::NotFound, words));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_pull_leaves_nothing_and_a_second_one_takes_over() {
    let offered = Offered::new(&tar(&[("f", &noise(300_000))]));
    let asked_for = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked_for);
    let fake = Fake::start(move |asked| {
        let mut reply = offered.reply(asked);
        // The first time the layer never ends.
        if offered.is_layer(asked) && count.fetch_add(1, Ordering::SeqCst) == 0 {
            (reply.cut, reply.stall) = (Some(100_000), true);
        }
        reply
    });
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let (registry, request) = (registry(&images), pull_of(&fake.name()));
    let (sender, mut receiver) = ProgressSender::channel();
    let first = {
        let (registry, request) = (registry.clone(), request.clone());
        tokio::spawn(async move { registry.pull(&request, &sender).await })
    };
    while receiver.recv().await.unwrap().status != "Downloading" {}
    let second = {
        let (registry, request) = (registry.clone(), request.clone());
        let (sender, mut receiver) = ProgressSender::channel();
        tokio::spawn(async move {
            let (pulled, ()) = tokio::join!(async { registry.pull(&request, &{ sender }).await }, async {
                while receiver.recv().await.is_some() {}
            });
            pulled
        })
    };
    tokio::task::yield_now().await;
    assert_eq!(asked_for.load(Ordering::SeqCst), 1, "one at a time");
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert!(second.await.unwrap().unwrap().newer);
    let ingest = on_disk(root.path()).into_iter().filter(|name| name.contains("ingest"));
    assert_eq!(ingest.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_at_once_download_once() {
    let offered = Offered::new(&tar(&[("f", &noise(100_000))]));
    let layers = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&layers);
    let fake = Fake::start(move |asked| {
        if offered.is_layer(asked) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        offered.reply(asked)
    });
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let registry = registry(&images);
    let other = fake.name().with_tag("other").unwrap();
    let run = |reference: Reference| {
        let (registry, request) = (registry.clone(), pull_of(&reference));
        async move { told(async |progress| registry.pull(&request, &progress).await).await.0.unwrap() }
    };
    let (a, b, c) = tokio::join!(run(fake.name()), run(fake.name()), run(other));
    assert!(a.id == b.id && b.id == c.id);
    assert_eq!(layers.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_said_with_the_address() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let root = data_root();
    let images = Images::open(root.path()).unwrap();
    let reference = Reference::parse(&format!("127.0.0.1:{port}/x:1")).unwrap();
    let error = pull(&images, &reference).await.0.unwrap_err();
    assert!(error.to_string().starts_with(&format!("Get \"http://127.0.0.1:{port}/v2/\": ")), "{error}");
    assert!(error.to_string().contains("onnection refused"), "{error}");
}
