//! What an image or a configuration cannot do to the host, and mounts that are as they were asked for.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use common::Container;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::{Value, json};

const FOR_EVER: &str = "while true; do sleep 0.1; done";

fn run(container: &Container) -> String {
    let bundle = container.bundle();
    container.must(&["run", "-b", bundle.to_str().unwrap(), &container.id])
}

fn refused(container: &Container) -> String {
    let bundle = container.bundle();
    container.must_fail(&["run", "-b", bundle.to_str().unwrap(), &container.id])
}

fn mount(container: &mut Container, mount: Value) {
    container.config()["mounts"].as_array_mut().unwrap().push(mount);
}

#[test]
fn a_link_in_the_image_leads_no_mount_device_or_link_to_the_host() {
    let container = Container::new("links", "test -c /dev/null && test -L /dev/ptmx && echo fine");
    let host = container.path("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("ptmx"), "the host's").unwrap();
    let root = container.path("bundle/rootfs");
    for name in ["dev", "sys"] {
        fs::remove_dir(root.join(name)).unwrap();
    }
    symlink(&host, root.join("dev")).unwrap();
    fs::create_dir(root.join("sys")).unwrap();
    assert_eq!(run(&container), "fine\n");
    let names: Vec<_> = fs::read_dir(&host).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["ptmx"]);
    assert_eq!(fs::read_to_string(host.join("ptmx")).unwrap(), "the host's");
}

#[test]
fn nothing_is_made_in_a_dev_that_is_bound() {
    let mut container = Container::new("dev", "test -f /dev/ptmx && echo fine");
    let host = container.path("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("ptmx"), "the host's").unwrap();
    mknodat(CWD, host.join("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3)).unwrap();
    let mounts = container.config()["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    mount(&mut container, json!({ "destination": "/dev", "type": "bind", "source": host, "options": ["bind"] }));
    assert_eq!(run(&container), "fine\n");
    assert_eq!(fs::read_dir(&host).unwrap().count(), 2);
    assert_eq!(fs::read_to_string(host.join("ptmx")).unwrap(), "the host's");
}

#[test]
fn what_lies_at_proc_is_the_kernels() {
    let mut container = Container::new("proc", "true");
    let root = container.path("bundle/rootfs");
    fs::remove_dir(root.join("proc")).unwrap();
    symlink("/tmp", root.join("proc")).unwrap();
    let text = refused(&container);
    assert!(text.contains("filesystem \\\"proc\\\" must be mounted on ordinary directory"), "{text}");
    fs::remove_file(root.join("proc")).unwrap();
    fs::create_dir(root.join("proc")).unwrap();
    symlink("/proc/sys", root.join("tmp/innocent")).unwrap();

    for (destination, kind, options, words) in [
        ("/proc/self/attr", "tmpfs", json!([]), "it is inside /proc"),
        ("/tmp/innocent/net", "bind", json!(["bind"]), "it is inside /proc"),
        ("/proc", "tmpfs", json!([]), "it is not of type proc"),
        ("/proc", "bind", json!(["bind"]), "it is not of type proc"),
        ("/", "tmpfs", json!([]), "on the top of rootfs"),
    ] {
        mount(
            &mut container,
            json!({ "destination": destination, "type": kind, "source": "/tmp", "options": options }),
        );
        let text = refused(&container);
        assert!(text.contains(words), "{destination}: {text}");
        container.config()["mounts"].as_array_mut().unwrap().pop();
    }
    run(&container);
}

#[test]
fn mounts_are_as_they_were_asked_for() {
    let mut container =
        Container::new("options", "cat /proc/self/mountinfo; cat /tmp/kept; cat /etc/ro && echo x > /etc/ro");
    let root = container.path("bundle/rootfs");
    fs::write(root.join("tmp/kept"), "copied up\n").unwrap();
    fs::write(container.path("ro"), "bound\n").unwrap();
    let file = container.path("ro");
    container.config()["mounts"][1]["options"] = json!(["nosuid", "mode=755", "ro"]);
    mount(
        &mut container,
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
        "options": ["nodev", "noexec", "tmpcopyup", "size=1m"] }),
    );
    mount(
        &mut container,
        json!({ "destination": "/etc/ro", "type": "none", "source": file,
        "options": ["rbind", "ro", "nosuid", "noatime", "rprivate"] }),
    );
    mount(&mut container, json!({ "destination": "/etc/shared", "type": "tmpfs", "options": ["rshared", "sync"] }));
    let bundle = container.bundle();
    let output = container.call(&["run", "-b", bundle.to_str().unwrap(), &container.id]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success(), "a read-only file was written");
    assert!(text.ends_with("copied up\nbound\n"), "{text}");
    let line = |point: &str| {
        let line = text.lines().rev().find(|line| line.split(' ').nth(4) == Some(point));
        line.unwrap_or_else(|| panic!("{point} is missing: {text}"))
    };
    assert!(line("/dev").contains(" ro,nosuid,relatime "), "{}", line("/dev"));
    assert!(line("/tmp").contains(" rw,nodev,noexec,relatime "), "{}", line("/tmp"));
    assert!(line("/etc/ro").contains(" ro,nosuid,noatime - "), "{}", line("/etc/ro"));
    assert!(line("/etc/shared").contains(" shared:"), "{}", line("/etc/shared"));
    assert!(line("/etc/shared").contains("rw,sync"), "{}", line("/etc/shared"));
    assert_eq!(fs::read_to_string(file).unwrap(), "bound\n");

    for options in [json!(["bind", "size=1m"]), json!(["bind", "nosuchoption"])] {
        mount(&mut container, json!({ "destination": "/x", "type": "bind", "source": "/tmp", "options": options }));
        let text = refused(&container);
        assert!(text.contains("bind mounts cannot have any filesystem-specific options applied"), "{text}");
        container.config()["mounts"].as_array_mut().unwrap().pop();
    }
}

#[test]
fn owners_are_mapped() {
    let mut container = Container::new("owners", "");
    let dir = container.path("shared");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "").unwrap();
    std::os::unix::fs::chown(dir.join("file"), Some(7), Some(8)).unwrap();
    container.config()["process"]["args"] = json!(["/bin/busybox", "ls", "-ln", "/shared"]);
    let map = |first: u32| json!([{ "containerID": 0, "hostID": first, "size": 100 }]);
    mount(
        &mut container,
        json!({ "destination": "/shared", "source": dir, "options": ["bind", "idmap"],
        "uidMappings": map(1000), "gidMappings": map(2000) }),
    );
    let bundle = container.bundle();
    let output = container.call(&["run", "-b", bundle.to_str().unwrap(), &container.id]);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    if errors.contains("failed to set MOUNT_ATTR_IDMAP") {
        eprintln!("this file system has no id-mapped mounts: {errors}");
        return;
    }
    let fields: Vec<_> = text.lines().last().unwrap_or_default().split_ascii_whitespace().collect();
    assert_eq!(fields.get(2..4), Some(["1007", "2008"].as_slice()), "{text} {errors}");
    assert_eq!(fs::metadata(dir.join("file")).unwrap().uid(), 7);

    let last = container.config()["mounts"].as_array().unwrap().len() - 1;
    container.config()["mounts"][last].as_object_mut().unwrap().remove("gidMappings");
    assert!(refused(&container).contains("must have both uid and gid mappings"));
}

#[test]
fn only_parameters_of_its_own_namespaces_are_set() {
    let mut container = Container::new("sysctl", "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax");
    container.config()["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1", "kernel/shmmax": "12345" });
    assert_eq!(run(&container), "1\n12345\n");
    for (name, words) in [
        ("vm.swappiness", "is not in a separate kernel namespace"),
        ("kernel.core_pattern", "is not in a separate kernel namespace"),
        ("kernel.hostname", "conflicts with the OCI"),
    ] {
        container.config()["linux"]["sysctl"] = json!({ name: "1" });
        let text = refused(&container);
        assert!(text.contains(words), "{name}: {text}");
    }
    container.config()["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    let namespaces = container.config()["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "network");
    let text = refused(&container);
    assert!(text.contains("not allowed in host network namespace"), "{text}");
}

#[test]
fn no_descriptor_of_the_host_leads_out() {
    let mut container = Container::new("escape", FOR_EVER);
    container.start();
    let id = container.id.clone();
    let mut other = Container::new("escape-run", "echo out; cat /etc/hostname");
    for number in 3..24 {
        let place = format!("/proc/self/fd/{number}");
        let text = container.must_fail(&["exec", "--cwd", &place, &id, "true"]);
        assert!(text.contains("cwd") || text.contains("current working directory"), "{text}");
        let program = format!("{place}/../../bin/true");
        container.must_fail(&["exec", &id, &program]);
        other.config()["process"]["cwd"] = json!(place);
        refused(&other);
    }
    let text = container.must(&["exec", &id, "/bin/busybox", "ls", "/proc/self/fd"]);
    // The last one is of `ls` itself.
    assert_eq!(text.split_ascii_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

#[test]
fn failures_are_told_in_runcs_words() {
    let mut container = Container::new("words", "");
    container.config()["process"]["args"] = json!(["no-such-program"]);
    let text = refused(&container);
    assert!(text.contains("exec: \\\"no-such-program\\\": executable file not found in $PATH"), "{text}");
    container.config()["process"]["args"] = json!(["/no/such"]);
    let text = refused(&container);
    assert!(text.contains("exec: \\\"/no/such\\\": stat /no/such: no such file or directory"), "{text}");
    container.config()["process"]["args"] = json!(["true"]);
    container.config()["process"]["cwd"] = json!("/nowhere");
    let text = refused(&container);
    let words = "chdir to cwd (\\\"/nowhere\\\") set in config.json failed: no such file or directory";
    assert!(text.contains(words), "{text}");
    container.config()["process"]["cwd"] = json!("/");
    mount(&mut container, json!({ "destination": "/x", "type": "bind", "source": "/no/such", "options": ["bind"] }));
    let text = refused(&container);
    assert!(text.contains("error mounting \\\"/no/such\\\" to rootfs at \\\"/x\\\""), "{text}");
    assert!(text.contains("no such file or directory") && !text.contains("os error"), "{text}");
    assert!(!Path::new("/no/such").exists());
}
