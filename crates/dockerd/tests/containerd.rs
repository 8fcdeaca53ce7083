//! Looking after docker-containerd.

mod stand_in;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use dockerd::containerd::{Containerd, Launch};
use tempfile::TempDir;

fn launch(dir: &TempDir) -> Launch {
    let script = format!(
        "#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in -l) STAND_IN_SOCKET=${{2#unix://}}; esac; shift; done\n\
         export STAND_IN_SOCKET\nexec {} --exact stand_in::stand_in >/dev/null\n",
        std::env::current_exe().unwrap().display()
    );
    let program = dir.path().join("docker-containerd");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut search_path = dir.path().as_os_str().to_owned();
    search_path.push(":/usr/bin:/bin");
    Launch { root: dir.path().join("libcontainerd"), debug: false, oom_score_adjust: 0, search_path }
}

fn pid(launch: &Launch) -> i32 {
    fs::read_to_string(launch.pid_file()).unwrap().parse().unwrap()
}

fn lives(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn kill(pid: i32) {
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

/// Waits until another process is in the pid file and answers.
async fn successor(launch: &Launch, before: i32, containerd: &Containerd) -> i32 {
    let deadline = Instant::now() + Duration::from_secs(10);
    while pid(launch) == before || containerd.connect().await.is_err() {
        assert!(Instant::now() < deadline, "no successor");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    pid(launch)
}

#[tokio::test]
async fn started_watched_and_ended() {
    let dir = tempfile::tempdir().unwrap();
    let launch = launch(&dir);
    let containerd = Containerd::start(launch.clone()).await.unwrap();
    let first = pid(&launch);
    assert_eq!(fs::metadata(launch.pid_file()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&launch.root).unwrap().permissions().mode() & 0o777, 0o700);

    kill(first);
    let second = successor(&launch, first, &containerd).await;
    assert!(!lives(first) && lives(second));

    // Its start is over when it has answered; then three bad answers, half a second apart.
    tokio::time::sleep(Duration::from_millis(500)).await;
    fs::write(launch.root.join("sick"), second.to_string()).unwrap();
    let third = successor(&launch, second, &containerd).await;
    assert!(!lives(second) && lives(third));

    containerd.stop().await;
    assert!(!lives(third) && !launch.pid_file().exists() && !launch.socket().exists());
}

#[tokio::test]
async fn a_living_one_is_used_and_still_watched() {
    let dir = tempfile::tempdir().unwrap();
    let launch = launch(&dir);
    fs::create_dir_all(&launch.root).unwrap();
    let mut other = launch.spawn().unwrap();
    while !launch.socket().exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fs::write(launch.pid_file(), "1").unwrap();
    let containerd = Containerd::start(launch.clone()).await.unwrap();
    assert_eq!(pid(&launch), other.id() as i32);
    kill(other.id() as i32);
    other.wait().unwrap();
    successor(&launch, other.id() as i32, &containerd).await;
    containerd.stop().await;
}

#[tokio::test]
async fn one_that_cannot_start_is_an_error_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let launch = launch(&dir);
    fs::write(dir.path().join("docker-containerd"), "#!/bin/sh\nexit 3\n").unwrap();
    let error = Containerd::start(launch).await.err().unwrap();
    assert!(format!("{error:#}").contains("it ended at once: exit status: 3"), "{error:#}");
}

#[tokio::test]
async fn an_external_one_is_waited_for_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let launch = launch(&dir);
    let address = format!("unix://{}", launch.socket().display());
    let waiting = tokio::spawn(async move { Containerd::external(&address).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    fs::create_dir_all(&launch.root).unwrap();
    let mut other = launch.spawn().unwrap();
    let containerd = waiting.await.unwrap().unwrap();
    containerd.connect().await.unwrap();
    containerd.stop().await;
    assert!(other.try_wait().unwrap().is_none());
    kill(other.id() as i32);
    other.wait().unwrap();
}
