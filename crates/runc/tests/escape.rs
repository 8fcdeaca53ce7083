//! What a container's programs, or an image, might try against docker-runc: ways out that have been found in runtimes over the
//! years. `rootfs.rs` has those that go through mounts and paths of the image. Needs root and busybox.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::Container;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::json;

const FOR_EVER: &str = "while true; do sleep 0.1; done";

/// Calls docker-runc from a shell that first does something to what it inherits. `$@` is the call.
fn from_shell(container: &Container, before: &str, arguments: &[&str]) -> Output {
    let call = container.command(arguments);
    let script = format!("{before}\nexec \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-euc", &script, "sh"]).arg(call.get_program()).args(call.get_args()).stdin(Stdio::null());
    shell.output().unwrap()
}

fn text(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// CVE-2024-21626: a directory that the engine has left open leads out of the container.
#[test]
fn what_the_caller_left_open_is_closed_before_a_name_is_looked_up() {
    let mut container = Container::new("open", FOR_EVER);
    container.start();
    let id = container.id.clone();
    let listed = from_shell(&container, "exec 7</ 9</etc", &["exec", &id, "/bin/busybox", "ls", "/proc/self/fd"]);
    let (listed, errors) = text(&listed);
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"], "the last is ls's own: {errors}");
    for program in ["/proc/self/fd/7/bin/true", "/proc/self/fd/7/usr/bin/env"] {
        let output = from_shell(&container, "exec 7</", &["exec", &id, program]);
        assert!(!output.status.success(), "{program}");
        assert!(text(&output).1.contains("no such file or directory"), "{}", text(&output).1);
    }
    let output = from_shell(&container, "exec 7</", &["exec", "--cwd", "/proc/self/fd/7", &id, "true"]);
    assert!(!output.status.success());

    let mut first = Container::new("open-first", "");
    for (args, cwd) in [(json!(["/proc/self/fd/7/bin/true"]), "/"), (json!(["true"]), "/proc/self/fd/7")] {
        first.config()["process"]["args"] = args;
        first.config()["process"]["cwd"] = json!(cwd);
        let bundle = first.bundle();
        let output = from_shell(&first, "exec 7</", &["run", "-b", bundle.to_str().unwrap(), &first.id]);
        assert!(!output.status.success(), "{}", text(&output).0);
    }
}

/// In the place of a descriptor that nobody handed over the container would get one of docker-runc's own.
#[test]
fn only_what_was_handed_over_is_preserved() {
    let mut container = Container::new("preserved", FOR_EVER);
    container.start();
    let id = container.id.clone();
    let words = container.must_fail(&["exec", "--preserve-fds", "2", &id, "true"]);
    assert!(words.contains("unable to stat preserved-fd 0"), "{words}");
    let cat = ["exec", "--preserve-fds", "1", &id, "/bin/busybox", "cat", "/proc/self/fd/3"];
    let (output, errors) = text(&from_shell(&container, "exec 3</proc/sys/kernel/ostype", &cat));
    assert_eq!(output, "Linux\n", "{errors}");
    // Socket activation is for the process that it names.
    let list = ["exec", &id, "sh", "-c", "/bin/busybox ls /proc/self/fd; echo $LISTEN_FDS."];
    let (output, errors) = text(&from_shell(&container, "exec 3</; export LISTEN_FDS=1 LISTEN_PID=1", &list));
    assert_eq!(output, "0\n1\n2\n3\n.\n", "{errors}");
    let own = "exec 3</proc/sys/kernel/ostype; export LISTEN_FDS=1 LISTEN_PID=$$";
    let (output, errors) = text(&from_shell(&container, own, &["exec", &id, "sh", "-c", "cat <&3; echo $LISTEN_FDS"]));
    assert_eq!(output, "Linux\n1\n", "{errors}");
    let output = from_shell(&container, "export LISTEN_FDS=4294967295 LISTEN_PID=$$", &["exec", &id, "true"]);
    assert!(!output.status.success());
}

/// CVE-2019-5736: the runtime is made to execute itself in the container, and is overwritten through `/proc/self/exe`.
#[test]
fn the_runtime_cannot_be_overwritten_from_inside() {
    let script = "\
        /bin/busybox mkfifo /tmp/wait
        while true; do sleep 0.1; done";
    let mut container = Container::new("exe", script);
    // So that it can execute there.
    for dir in ["/usr", "/lib", "/lib64"] {
        let mount = json!({ "destination": dir, "type": "bind", "source": dir, "options": ["rbind", "ro"] });
        container.config()["mounts"].as_array_mut().unwrap().push(mount);
    }
    // A program of its own: as long as anybody anywhere executes it, it is busy, and cannot be written for that alone.
    let own = container.path("docker-runc");
    fs::copy(env!("CARGO_BIN_EXE_docker-runc"), &own).unwrap();
    let with_own = |container: &Container, arguments: &[&str]| {
        let call = container.command(arguments);
        let output = fs::OpenOptions::new().append(true).create(true).open(container.path("output")).unwrap();
        let errors = output.try_clone().unwrap();
        let status =
            Command::new(&own).args(call.get_args()).stdin(Stdio::null()).stdout(output).stderr(errors).status();
        assert!(status.unwrap().success(), "{arguments:?}: {}", container.output());
    };
    let (bundle, id) = (container.bundle(), container.id.clone());
    with_own(&container, &["run", "-d", "-b", bundle.to_str().unwrap(), &id]);
    let fifo = container.path("bundle/rootfs/tmp/wait");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fifo.exists() {
        assert!(Instant::now() < deadline, "{}", container.output());
        std::thread::sleep(Duration::from_millis(10));
    }
    // What runs then is docker-runc, in the container: it opens its log and waits there for a reader.
    with_own(&container, &["exec", "-d", &id, "/proc/self/exe", "--log", "/tmp/wait", "list"]);
    let attack = "\
        victim=; i=0
        while [ -z \"$victim\" ] && [ $i -lt 200 ]; do
            i=$((i+1)); sleep 0.05
            for p in /proc/[0-9]*; do
                case $(cat $p/cmdline 2>/dev/null | /bin/busybox tr '\\0' ' ') in *'--log /tmp/wai't*) victim=$p;; esac
            done
        done
        exec 9<$victim/exe || exit 3
        /bin/busybox head -c 4 <&9 | /bin/busybox tail -c 3; echo
        kill -9 ${victim#/proc/}
        while if (echo x >> /proc/self/fd/9) 2>/tmp/why; then echo overwritten; exit; else grep busy /tmp/why; fi; do sleep 0.02; done
        cat /tmp/why; echo over";
    with_own(&container, &["exec", "-d", &id, "sh", "-c", attack]);
    let deadline = Instant::now() + Duration::from_secs(40);
    while !container.output().contains("over") {
        assert!(Instant::now() < deadline, "{}", container.output());
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = container.output();
    assert!(output.starts_with("ELF\n"), "it was not docker-runc: {output}");
    assert!(output.contains("Read-only file system"), "{output}");
}

/// The container's `/etc/passwd` is read for `HOME`: it may be anything.
#[test]
fn no_file_of_the_image_holds_the_runtime_up() {
    for kind in ["fifo", "endless", "loop", "directory"] {
        let mut container = Container::new(kind, "");
        let passwd = container.path("bundle/rootfs/etc/passwd");
        match kind {
            "fifo" => mknodat(CWD, &passwd, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap(),
            "endless" => std::os::unix::fs::symlink("/dev/zero", &passwd).unwrap(),
            "loop" => std::os::unix::fs::symlink("passwd", &passwd).unwrap(),
            _ => fs::create_dir(&passwd).unwrap(),
        }
        container.config()["process"]["args"] = json!(["sh", "-c", "echo $HOME"]);
        let bundle = container.bundle();
        // A runtime that hangs fails the test by the time limit of tests, and is ended here for those who have none.
        let call = container.command(&["run", "-b", bundle.to_str().unwrap(), &container.id]);
        let output = Command::new("timeout").arg("60").arg(call.get_program()).args(call.get_args()).output().unwrap();
        assert_eq!(text(&output), ("/\n".into(), String::new()), "{kind}");
    }
}

/// CVE-2022-29162 and its like: an exec gets nothing that the container has not, and nothing of its caller's.
#[test]
fn an_exec_has_what_was_asked_for_and_no_more() {
    let mut container = Container::new("exec", FOR_EVER);
    container.config()["process"]["user"] = json!({ "uid": 7, "gid": 8, "additionalGids": [9, 10] });
    container.start();
    let id = container.id.clone();
    let status = |more: &[&str]| {
        let mut arguments = vec!["exec"];
        arguments.extend(more);
        arguments.extend([id.as_str(), "cat", "/proc/self/status"]);
        let (status, errors) = text(&from_shell(&container, "umask 000", &arguments));
        let line = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("{name}: {status} {errors}")).split_whitespace().collect::<Vec<_>>().join(" ")
        };
        ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs", "Umask", "Seccomp"].map(line)
    };
    let none = "0000000000000000";
    let own = ["7 7 7 7", "8 8 8 8", "9 10", none, none, none, none, "0", "0022", "2"];
    assert_eq!(status(&[]), own);
    // What is given by name is not inherited by what an unprivileged program executes.
    let [uid, _, _, inheritable, permitted, effective, ambient, privileges, ..] =
        status(&["--user", "0:0", "--cap", "CAP_NET_RAW", "--no-new-privs"]);
    assert_eq!(
        (uid.as_str(), inheritable.as_str(), ambient.as_str(), privileges.as_str()),
        ("0 0 0 0", none, none, "1")
    );
    assert_eq!((permitted.as_str(), effective.as_str()), ("00000000000024a1", "00000000000024a1"));
    let [.., groups, _, _, _, _, _, _, _] = &status(&["--additional-gids", "11"]);
    assert_eq!(groups, "11");
}

/// Whoever may not become root here must not read what containers are given.
#[test]
fn nobody_else_reads_configurations() {
    let mut container = Container::new("modes", FOR_EVER);
    container.start();
    let mode = |path: &str| fs::metadata(container.path(path)).unwrap().permissions().mode() & 0o7777;
    let dir = format!("state/{}", container.id);
    assert_eq!((mode("state"), mode(&dir)), (0o711, 0o711));
    for name in ["config.json", "state.json"] {
        assert_eq!(mode(&format!("{dir}/{name}")), 0o600, "{name}");
    }
}

/// What is kept between two calls may have been written by anybody who is root: it is an error, and no more.
#[test]
fn spoiled_state_is_an_error() {
    let mut container = Container::new("spoiled", FOR_EVER);
    container.start();
    let id = container.id.clone();
    let path = container.path(&format!("state/{id}/state.json"));
    let whole = fs::read_to_string(&path).unwrap();
    let mut other: serde_json::Value = serde_json::from_str(&whole).unwrap();
    other["pid"] = json!(-1);
    for spoiled in ["", "{", "null", "[1]", &whole[..whole.len() / 2], &other.to_string()] {
        fs::write(&path, spoiled).unwrap();
        for arguments in [&["kill", &id, "KILL"][..], &["exec", &id, "true"], &["pause", &id], &["ps", &id]] {
            let output = container.call(arguments);
            let (_, errors) = text(&output);
            assert!(matches!(output.status.code(), Some(1 | 255)) || arguments[0] == "ps", "{arguments:?} {errors}");
            assert!(!errors.contains("panicked"), "{spoiled}: {errors}");
        }
        assert!(!text(&container.call(&["list"])).1.contains("panicked"));
    }
    fs::write(&path, whole).unwrap();
    assert_eq!(container.status(), "running");
}

/// CVE-2025-31133: what hides files must be the null device.
#[test]
fn a_false_null_device_hides_nothing() {
    let mut container = Container::new(
        "null",
        "cat /proc/version | wc -c; grep -c /proc/version /proc/self/mountinfo; cat /proc/sys/kernel/ostype",
    );
    let real = container.path("bundle/rootfs/dev");
    fs::write(real.join("null"), "not it").unwrap();
    let mounts = container.config()["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    container.config()["linux"]["maskedPaths"] = json!(["/proc/version", "/proc/acpi", "/proc/version"]);
    container.config()["linux"]["readonlyPaths"] = json!(["/proc/sys"]);
    let bundle = container.bundle();
    let run = ["run", "-b", bundle.to_str().unwrap(), &container.id.clone()];
    let words = container.must_fail(&run);
    assert!(words.contains("is not the null device"), "{words}");
    fs::remove_file(real.join("null")).unwrap();
    let (output, errors) = text(&container.call(&run));
    assert_eq!(output, "0\n1\nLinux\n", "{errors}");
}

/// CVE-2025-31133, CVE-2025-52881: whoever shares a volume exchanges names all the time.
#[test]
fn names_that_change_meanwhile_lead_nowhere() {
    let mut container = Container::new("race", "cat /proc/self/mountinfo");
    let shared = container.path("shared");
    let outside = container.path("outside");
    for dir in ["a/deep", "b"] {
        fs::create_dir_all(shared.join(dir)).unwrap();
    }
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, shared.join("link")).unwrap();
    let bind = |source: &std::path::Path, to: &str| json!({ "destination": to, "type": "bind", "source": source, "options": ["rbind"] });
    container.config()["linux"]["maskedPaths"] = json!(["/shared/a/deep", "/shared/a/deep/x"]);
    container.config()["linux"]["readonlyPaths"] = json!(["/shared/a"]);
    let more = [bind(&shared, "/shared"), json!({ "destination": "/shared/a/deep/new/place", "type": "tmpfs" })];
    container.config()["mounts"].as_array_mut().unwrap().extend(more);
    let exchange = "while :; do mv -T a c && mv -T link a && mv -T a link && mv -T c a; done 2>/dev/null";
    let mut attacker = Command::new("sh").args(["-c", exchange]).current_dir(&shared).spawn().unwrap();
    let bundle = container.bundle();
    for _ in 0..40 {
        let (output, _) = text(&container.call(&["run", "-b", bundle.to_str().unwrap(), &container.id]));
        let inside = |line: &str| line.split(' ').nth(4).is_some_and(|place| !place.starts_with("/var"));
        assert!(output.lines().all(inside), "{output}");
    }
    attacker.kill().unwrap();
    attacker.wait().unwrap();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(container.path("").to_str().unwrap()), "{mounts}");
}

/// CVE-2025-52565: what the image has in the places of terminals is not used, and not written to.
#[test]
fn a_terminal_is_one_of_the_containers_own() {
    let mut container = Container::new("console", "tty; echo hello > /dev/console");
    container.config()["process"]["terminal"] = json!(true);
    let dev = container.path("bundle/rootfs/dev");
    let victim = container.path("bundle/rootfs/tmp/victim");
    fs::write(&victim, "untouched").unwrap();
    container.config()["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
    std::os::unix::fs::symlink("/tmp/victim", dev.join("console")).unwrap();
    std::os::unix::fs::symlink("/tmp/victim", dev.join("ptmx")).unwrap();
    let bundle = container.bundle();
    let run = ["run", "-b", bundle.to_str().unwrap(), &container.id.clone()];
    let words = container.must_fail(&run);
    assert!(words.contains("set up the terminal"), "{words}");
    fs::remove_file(dev.join("console")).unwrap();
    let output = container.must(&run);
    assert_eq!(output.lines().collect::<Vec<_>>(), ["/dev/pts/0", "hello"]);
    // Without terminals of its own there is none.
    container.config()["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev/pts");
    fs::create_dir_all(dev.join("pts")).unwrap();
    fs::write(dev.join("pts/ptmx"), "").unwrap();
    let bundle = container.bundle();
    container.must_fail(&["run", "-b", bundle.to_str().unwrap(), &container.id.clone()]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
}
