//! Real sockets: the gate, stale sockets, modes, TLS, and descriptors passed as systemd does.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use listeners::{Activated, Address, BindOptions, Gate, Listener, Peer, SocketGroup, TlsFiles, bind_all};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn unix(path: &Path, options: &BindOptions) -> listeners::Result<Listener> {
    let mut bound = bind_all(&[Address::Unix(path.to_owned())], options, &mut Activated::none())?;
    Ok(bound.remove(0))
}

async fn echo(listener: &Listener) -> Peer {
    let incoming = listener.accept().await.unwrap();
    let peer = incoming.peer().clone();
    let mut stream = incoming.establish().await.unwrap();
    let mut buffer = [0; 5];
    stream.read_exact(&mut buffer).await.unwrap();
    stream.write_all(&buffer).await.unwrap();
    stream.shutdown().await.unwrap();
    peer
}

fn ask(mut stream: impl Read + Write) -> String {
    stream.write_all(b"hello").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn who_comes_before_the_gate_opens_waits_and_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let gate = Gate::closed();
    let listener = unix(&path, &BindOptions { gate: gate.clone(), ..Default::default() }).unwrap();
    let client = tokio::task::spawn_blocking(move || ask(std::os::unix::net::UnixStream::connect(path).unwrap()));
    assert!(tokio::time::timeout(Duration::from_millis(100), listener.accept()).await.is_err());
    assert!(!client.is_finished());
    gate.open();
    let peer = echo(&listener).await;
    assert_eq!(client.await.unwrap(), "hello");
    assert!(matches!(peer, Peer::Unix { pid: Some(pid), .. } if pid == std::process::id() as i32));
}

#[tokio::test]
async fn unix_sockets_are_private_replace_stale_ones_and_clean_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let gid = std::fs::metadata(dir.path()).unwrap().gid();
    let group = Some(SocketGroup { name: gid.to_string(), required: true });
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "std leaves it behind: a stale socket");
    let listener = unix(&path, &BindOptions { group, ..Default::default() }).unwrap();
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.gid()), (0o660, gid));

    let error = unix(&path, &BindOptions::default()).err().unwrap();
    assert!(error.to_string().contains("already in use"), "{error}");
    assert!(path.exists());
    drop(listener);
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    assert!(unix(&path, &BindOptions::default()).is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");

    let group = Some(SocketGroup::dockers("no-such-group"));
    let error = unix(&dir.path().join("y"), &BindOptions { group, ..Default::default() }).err().unwrap();
    assert_eq!(error.to_string(), "group no-such-group not found");
}

#[tokio::test]
async fn all_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good.sock");
    let addresses = [Address::Unix(good.clone()), Address::Unix(dir.path().join("no/such/dir.sock"))];
    let error = bind_all(&addresses, &BindOptions::default(), &mut Activated::none()).err().unwrap();
    assert!(error.to_string().starts_with("can't create unix socket"), "{error}");
    assert!(!good.exists());
    let error = bind_all(&[Address::parse("fd://", false).unwrap()], &BindOptions::default(), &mut Activated::none());
    assert!(error.err().unwrap().to_string().starts_with("no sockets found via socket activation"));
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn tcp() {
    let port = free_port();
    let address = Address::Tcp { host: "localhost".to_owned(), port };
    let listener = bind_all(&[address], &BindOptions::default(), &mut Activated::none()).unwrap().remove(0);
    let client = tokio::task::spawn_blocking(move || ask(std::net::TcpStream::connect(("127.0.0.1", port)).unwrap()));
    assert!(matches!(echo(&listener).await, Peer::Tcp(_)));
    assert_eq!(client.await.unwrap(), "hello");
}

/// Makes `<name>.pem` and `<name>-key.pem` with openssl, signed by `ca` or by itself.
fn certificate(dir: &Path, name: &str, ca: Option<&str>) {
    let file = |suffix: &str| dir.join(format!("{name}{suffix}"));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    command.args(["-subj", &format!("/CN={name}"), "-addext", "subjectAltName=IP:127.0.0.1"]);
    command.arg("-keyout").arg(file("-key.pem")).arg("-out").arg(file(".pem"));
    match ca {
        Some(ca) => {
            command.args(["-addext", "basicConstraints=critical,CA:false"]);
            command.arg("-CA").arg(dir.join(format!("{ca}.pem"))).arg("-CAkey").arg(dir.join(format!("{ca}-key.pem")));
        }
        None => {
            command.args(["-addext", "keyUsage=keyCertSign"]);
        }
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What `openssl s_client` gets back, with the given extra arguments.
fn tls_ask(port: u16, arguments: &[&str], dir: &Path) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-CAfile", "ca.pem", "-connect"])
        .arg(format!("127.0.0.1:{port}"))
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(b"hello");
    let mut answer = String::new();
    child.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    child.wait().unwrap();
    answer
}

#[tokio::test]
async fn tls_with_and_without_client_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    certificate(dir.path(), "ca", None);
    certificate(dir.path(), "other", None);
    certificate(dir.path(), "server", Some("ca"));
    certificate(dir.path(), "client", Some("ca"));
    certificate(dir.path(), "stranger", Some("other"));
    let mut files = TlsFiles { certificate: file("server.pem"), key: file("server-key.pem"), client_ca: None };
    for verify in [false, true] {
        files.client_ca = verify.then(|| file("ca.pem"));
        let port = free_port();
        let options = BindOptions { tls: Some(listeners::acceptor(&files).unwrap()), ..Default::default() };
        let address = Address::Tcp { host: "127.0.0.1".to_owned(), port };
        let listener = bind_all(&[address], &options, &mut Activated::none()).unwrap().remove(0);
        let serving = tokio::spawn(async move {
            loop {
                let incoming = listener.accept().await.unwrap();
                let Ok(mut stream) = incoming.establish().await else { continue };
                let mut buffer = [0; 5];
                if stream.read_exact(&mut buffer).await.is_ok() {
                    stream.write_all(&buffer).await.unwrap();
                    stream.shutdown().await.unwrap();
                }
            }
        });
        for (arguments, served) in [
            (&["-cert", "client.pem", "-key", "client-key.pem"][..], true),
            (&["-cert", "stranger.pem", "-key", "stranger-key.pem"], !verify),
            (&[], !verify),
        ] {
            let path = dir.path().to_owned();
            let answer = tokio::task::spawn_blocking(move || tls_ask(port, arguments, &path)).await.unwrap();
            assert_eq!(answer == "hello", served, "verify {verify} {arguments:?}: {answer:?}");
        }
        serving.abort();
    }
    files.key = file("client-key.pem");
    assert!(listeners::acceptor(&files).err().unwrap().to_string().starts_with("could not load X509 key pair"));
    files.key = file("missing.pem");
    assert!(listeners::acceptor(&files).err().unwrap().to_string().contains("missing.pem"));
}

/// Not a test by itself: the process that [`sockets_from_systemd`] starts as systemd would.
#[tokio::test]
async fn activated_child() {
    let Ok(address) = std::env::var("TEST_ACTIVATED_ADDRESS") else { return };
    let address = Address::parse(&address, false).unwrap();
    let listeners = bind_all(&[address], &BindOptions::default(), &mut Activated::from_env()).unwrap();
    assert!(std::env::var("LISTEN_FDS").is_err());
    assert_eq!(listeners.len(), 1);
    echo(&listeners[0]).await;
}

#[test]
fn sockets_from_systemd() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    for address in ["fd://", "fd://3", "fd://web"] {
        // LISTEN_PID has to be the child's: the shell knows it.
        let script = format!(
            "exec 3<&{}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web exec {} --exact activated_child",
            socket.as_raw_fd(),
            std::env::current_exe().unwrap().display()
        );
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty()).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", &script]).env("TEST_ACTIVATED_ADDRESS", address).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        assert_eq!(ask(std::os::unix::net::UnixStream::connect(&path).unwrap()), "hello", "{address}");
        assert!(child.wait().unwrap().success());
        assert!(path.exists(), "systemd's socket stays");
    }
}
