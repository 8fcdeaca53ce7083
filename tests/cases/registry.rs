//! Pull and push: Debian's registry, and one that asks for logins or cuts connections.

use e2e::{DebianRegistry, Engine, ImageArchive, Layer, ScriptedRegistry, Trick, tags};

#[test]
fn push_and_pull_through_debians_registry() {
    let engine = Engine::start();
    let registry = DebianRegistry::start(engine.home(), None);
    let name = format!("{}/team/box:v1", registry.address);
    engine.ok(&format!("docker tag busybox {name}"));
    let pushed = engine.ok(&format!("docker push {name}"));
    assert!(pushed.contains("Pushed") && pushed.contains("v1: digest: sha256:"), "{pushed}");
    assert_eq!(tags(&registry.address, "team/box")["tags"][0], "v1");
    let again = engine.ok(&format!("docker push {name}"));
    assert!(again.contains("Layer already exists"), "{again}");

    let id = engine.inspect("busybox", "{{.Id}}");
    let digest = engine.inspect(&name, "{{index .RepoDigests 0}}");
    assert!(digest.starts_with(&format!("{}/team/box@sha256:", registry.address)), "{digest}");
    engine.ok(&format!("docker rmi {name} busybox"));
    assert_eq!(engine.ok("docker images -q"), "");

    let pulled = engine.ok(&format!("docker pull {name}"));
    assert!(pulled.contains(&format!("Status: Downloaded newer image for {name}")), "{pulled}");
    assert!(pulled.contains("Digest: sha256:") && pulled.contains("Pull complete"), "{pulled}");
    assert!(pulled.ends_with(&name), "the last line is the name: {pulled}");
    assert_eq!(engine.inspect(&name, "{{.Id}}"), id);
    let current = engine.ok(&format!("docker pull {name}"));
    assert!(current.contains(&format!("Status: Image is up to date for {name}")), "{current}");
    assert_eq!(engine.ok(&format!("docker run --rm {name} echo pulled")), "pulled");

    engine.ok(&format!("docker rmi {name}"));
    assert_eq!(engine.ok(&format!("docker pull -q {digest}")), digest);
    assert_eq!(engine.ok(&format!("docker run --rm {digest} echo by digest")), "by digest");
    let listed = engine.ok("docker images --digests --format '{{.Repository}} {{.Tag}} {{.Digest}}'");
    assert!(listed.contains("<none> sha256:"), "{listed}");

    engine.fails(&format!("docker pull {}/team/box:v2", registry.address)).says("manifest unknown");
    engine.fails(&format!("docker push {}/never:tagged", registry.address)).says("does not exist locally");
    engine.fails(&format!("docker pull 127.0.0.1:{}/x", e2e::free_port())).says("connection refused");
}

#[test]
fn run_pulls_what_is_missing() {
    let engine = Engine::start();
    let registry = DebianRegistry::start(engine.home(), None);
    let name = format!("{}/box:latest", registry.address);
    engine.ok(&format!("docker tag busybox {name} && docker push -q {name} && docker rmi {name}"));
    engine.ends_with(125, &format!("docker run --rm --pull never {name} true")).says("No such image");
    let done = engine.run(&format!("docker run --rm {name} echo fetched"));
    assert_eq!(done.out(), "fetched", "{}", done.report());
    assert!(done.stderr.contains("Unable to find image"), "{}", done.report());
}

#[test]
fn all_tags_of_a_name_are_pulled_and_pushed() {
    let engine = Engine::start();
    let registry = DebianRegistry::start(engine.home(), None);
    let name = format!("{}/many", registry.address);
    engine.ok(&format!("docker tag busybox {name}:1 && docker tag busybox {name}:2 && docker push -a {name}"));
    engine.ok(&format!("docker rmi {name}:1 {name}:2"));
    engine.ok(&format!("docker pull -a {name}"));
    assert_eq!(engine.ok(&format!("docker images --format '{{{{.Tag}}}}' {name} | sort | xargs")), "1 2");
}

#[test]
fn a_login_is_asked_for_and_used() {
    let engine = Engine::start();
    let line = engine.ok("perl -e 'print \"ann:\", crypt(\"secret\", q($2y$05$abcdefghijklmnopqrstuu))'");
    let registry = DebianRegistry::start(engine.home(), Some(&line));
    let name = format!("{}/private", registry.address);
    engine.ok(&format!("docker tag busybox {name}"));
    engine.fails(&format!("docker push {name}")).says("no basic auth credentials");
    engine.fails(&format!("docker login -u ann -p wrong {}", registry.address)).says("nauthorized");
    let login = engine.ok(&format!("docker login -u ann -p secret {} 2>&1", registry.address));
    assert!(login.contains("Login Succeeded"), "{login}");
    engine.ok(&format!("docker push {name} && docker rmi {name} && docker pull {name}"));
    engine.ok(&format!("docker logout {}", registry.address));
    engine.ok(&format!("docker rmi {name}"));
    engine.fails(&format!("docker pull {name}")).says("no basic auth credentials");
}

#[test]
fn basic_and_bearer_logins() {
    let engine = Engine::with().without_image().start();
    let image = ImageArchive::runnable(Layer::new());
    let basic = ScriptedRegistry::serve(&image, Trick::Basic("ann".into(), "secret".into()));
    engine.fails(&format!("docker pull {}", basic.image_name()));
    engine.ok(&format!("docker login -u ann -p secret {} 2>/dev/null", basic.address()));
    engine.ok(&format!("docker pull {}", basic.image_name()));
    let bearer = ScriptedRegistry::serve(&image, Trick::Bearer);
    engine.ok(&format!("docker pull {}", bearer.image_name()));
    let asked = bearer.asked();
    assert!(asked.iter().any(|entry| entry.contains("/token?") && entry.contains("repository")), "{asked:?}");
}

#[test]
fn a_manifest_list_gives_this_platforms_image() {
    let engine = Engine::with().without_image().start();
    let registry = ScriptedRegistry::serve(&ImageArchive::runnable(Layer::new()), Trick::ManifestList);
    let name = registry.image_name();
    let pulled = engine.ok(&format!("docker pull {name}"));
    assert!(pulled.contains(&format!("Digest: {}", registry.top_digest())), "the list's digest is shown: {pulled}");
    assert_eq!(engine.ok(&format!("docker run --rm {name} sh -c 'echo mine'")), "mine");
    engine.ok(&format!("docker rmi {name}"));
    engine.fails(&format!("docker pull --platform linux/riscv64 {name}")).says("no matching manifest");
}

#[test]
fn a_transfer_that_was_cut_goes_on_where_it_was() {
    let engine = Engine::with().without_image().start();
    let registry = ScriptedRegistry::serve(&ImageArchive::runnable(Layer::new()), Trick::CutFirstTransfers);
    engine.ok(&format!("docker pull {}", registry.image_name()));
    let asked = registry.asked();
    assert!(asked.iter().any(|entry| entry.contains("bytes=")), "no request for the rest: {asked:?}");
    engine.ok(&format!("docker run --rm {} sh -c 'true'", registry.image_name()));
}

#[test]
fn progress_is_drawn_on_a_terminal() {
    let engine = Engine::with().without_image().start();
    let registry = ScriptedRegistry::serve(&ImageArchive::runnable(Layer::new()), Trick::None);
    let mut terminal = engine.terminal(&format!("docker pull {}", registry.image_name()));
    assert_eq!(terminal.ends(), 0, "{}", terminal.screen());
    let screen = terminal.shows("Status: Downloaded newer image");
    for word in ["Pulling from test", "Pulling fs layer", "Pull complete"] {
        assert!(screen.contains(word), "{word:?} is not shown:\n{screen}");
    }
}

/// What docker trusts for one host, as long as this lives.
struct TrustedHost(std::path::PathBuf);

impl TrustedHost {
    fn new(host: &str, authority: &std::path::Path) -> Self {
        let folder = std::path::Path::new("/etc/docker/certs.d").join(host);
        std::fs::create_dir_all(&folder).expect("create a folder");
        std::fs::copy(authority, folder.join("ca.crt")).expect("copy a file");
        Self(folder)
    }
}

impl Drop for TrustedHost {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
        // Their parents too, if we made them.
        for folder in self.0.ancestors().skip(1).take(2) {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

#[test]
fn a_registry_elsewhere_has_to_speak_tls_and_prove_who_it_is() {
    let engine = Engine::start();
    let host = format!("{}1", engine.bridge_prefix());
    engine.ok(&format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca-key.pem -out ca.pem -subj /CN=test-ca 2>/dev/null
         openssl req -newkey rsa:2048 -nodes -keyout server-key.pem -out server.csr -subj /CN=registry 2>/dev/null
         printf 'subjectAltName=IP:{host}\\nextendedKeyUsage=serverAuth\\n' >ext
         openssl x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -out server.pem \
             -extfile ext 2>/dev/null"
    ));
    let plain = DebianRegistry::start_at(&host, engine.home(), None, false);
    let name = format!("{}/box", plain.address);
    engine.ok(&format!("docker tag busybox {name}"));
    engine.fails(&format!("docker push {name}")).says("server gave HTTP response to HTTPS client");
    assert!(!engine.home().join("registry/data/docker").exists(), "something was pushed without TLS");

    let secure = DebianRegistry::start_at(&host, engine.home(), None, true);
    let name = format!("{}/box", secure.address);
    engine.ok(&format!("docker tag busybox {name}"));
    engine.fails(&format!("docker push {name}"));
    let trusted = TrustedHost::new(&secure.address, &engine.home().join("ca.pem"));
    engine.ok(&format!("docker push {name} && docker rmi {name} && docker pull {name}"));
    assert_eq!(engine.ok(&format!("docker run --rm {name} echo over TLS")), "over TLS");
    drop(trusted);
    engine.ok(&format!("docker rmi {name}"));
    engine.fails(&format!("docker pull {name}")).says("x509");
}
