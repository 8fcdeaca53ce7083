//! Against Debian's `docker-registry`, and against a server in this process that misbehaves on purpose.

use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use errors::{Kind, Kinded};

use super::*;
use crate::tests::{data_root, gzip, import, on_disk, tar};
use crate::{CommitOptions, Digest, Error, Platform, Reference, Result};

mod servers;

pub(super) use servers::DebianRegistry;
use servers::{Asked, Fake, Offered, Reply};

const CONTAINER: &str = "c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0";
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
    assert!(on_disk(&images, root.path()).is_empty(), "{error}: {:?}", on_disk(&images, root.path()));
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
    let ingest = on_disk(&images, root.path()).into_iter().filter(|name| name.contains("ingest"));
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
