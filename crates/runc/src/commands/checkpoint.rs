//! `checkpoint` and `restore`.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use super::lifecycle::{self, bundle_directory};
use crate::checkpoint::dump::{self, Capture, PageServer};
use crate::checkpoint::options::Options;
use crate::checkpoint::preflight;
use crate::checkpoint::{cache_file, restore};
use crate::cli;
use crate::error::{Doing, Error, Result};
use crate::launch::create::{self, ConsoleSocket};
use crate::launch::relay::{self, Terminal};
use crate::launch::wait;
use crate::lazy;
use crate::logging::Log;
use crate::spec;
use crate::state::{Container, check_id};

fn absolute(path: Option<&PathBuf>, default: &Path) -> Result<PathBuf> {
    std::path::absolute(path.map_or(default, PathBuf::as_path)).map_err(|err| Error::Invalid(err.to_string()))
}

fn empty_namespaces(list: &[String]) -> Result<u32> {
    list.iter().try_fold(0, |all, name| match name.as_str() {
        "network" => Ok(all | libc::CLONE_NEWNET as u32),
        other => Err(Error::Invalid(format!("namespace {other:?} cannot be left empty"))),
    })
}

/// A descriptor of the caller's.
fn writable(fd: i32) -> Result<OwnedFd> {
    let opened = rustix::fs::open(format!("/proc/self/fd/{fd}"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(|errno| Error::Invalid(format!("invalid --status-fd argument {fd}: {errno}")))
}

/// `checkpoint`
pub fn checkpoint(root: &Path, criu: Option<&Path>, arguments: &cli::Checkpoint) -> Result<i32> {
    let container = Container::open(root, &arguments.id)?;
    if arguments.preflight {
        let report = preflight::look(&container, criu)?;
        println!("{}", serde_json::to_string(&report).doing(|| "encode".into())?);
        return Ok(0);
    }
    if arguments.criu.lazy_pages && arguments.page_server.is_none() {
        return Err(Error::Invalid("--lazy-pages needs --page-server".into()));
    }
    let image = absolute(arguments.criu.image_path.as_ref(), Path::new("checkpoint"))?;
    let work = absolute(arguments.criu.work_path.as_ref(), &image)?;
    let mut options = Options::from_flags(&arguments.criu)?;
    if arguments.auto {
        let given = options;
        options = Options::automatic();
        options.tcp = given.tcp;
        options.shell_job = given.shell_job;
        options.nested_cgroups = given.nested_cgroups;
    }
    let leaves = arguments.leave_running || arguments.pre_dump;
    dump::checkpoint(
        &container,
        dump::Request {
            criu,
            cache: cache_file(root),
            image: &image,
            work: &work,
            leave_running: arguments.leave_running,
            pre_dump: arguments.pre_dump,
            parent: arguments.parent_path.as_deref(),
            tcp_skip_in_flight: arguments.tcp_skip_in_flight,
            auto_dedup: arguments.criu.auto_dedup,
            page_server: arguments.page_server.as_deref().map(PageServer::parse).transpose()?,
            lazy_pages: arguments.criu.lazy_pages,
            status: arguments.status_fd.map(writable).transpose()?,
            empty_namespaces: empty_namespaces(&arguments.criu.empty_ns)?,
            options,
            auto: arguments.auto,
            captures: arguments.capture.iter().map(|text| Capture::parse(text)).collect::<Result<_>>()?,
        },
    )?;
    if !leaves {
        // As runc does: a container that sleeps is no longer there.
        lifecycle::end(&container)?;
        create::remove(&container)?;
    }
    Ok(0)
}

/// `restore`
pub fn restore(root: &Path, criu: Option<&Path>, log: Option<Log>, arguments: &cli::Restore) -> Result<i32> {
    crate::cgroup::warm_up();
    let bundle = bundle_directory(&arguments.bundle)?;
    let spec = spec::load(&bundle)?;
    let image = absolute(arguments.criu.image_path.as_ref(), Path::new("checkpoint"))?;
    let work = absolute(arguments.criu.work_path.as_ref(), &image)?;
    let mut request = restore::Request {
        criu,
        cache: cache_file(root),
        image: &image,
        work: &work,
        bundle: &bundle,
        console_socket: arguments.bundle.console_socket.clone().map(ConsoleSocket::Path),
        pid_file: arguments.bundle.pid_file.clone(),
        empty_namespaces: empty_namespaces(&arguments.criu.empty_ns)?,
        tcp_close: arguments.tcp_close,
        lazy_pages: arguments.criu.lazy_pages,
        log,
        lsm_profile: arguments.lsm_profile.clone(),
        lsm_mount_context: arguments.lsm_mount_context.clone(),
        options: Options::from_flags(&arguments.criu)?,
    };
    if arguments.detach {
        restore::restore(root, &arguments.id, &spec, request)?;
        return Ok(0);
    }
    let signals = wait::block_signals()?;
    if !arguments.no_subreaper {
        rustix::process::set_child_subreaper(Pid::from_raw(1)).doing(|| "become a subreaper".into())?;
    }
    let mut terminal = None;
    if create::wants_terminal(&spec) && request.console_socket.is_none() {
        let (ours, theirs) = Terminal::new()?;
        request.console_socket = Some(ConsoleSocket::Connected(theirs));
        terminal = Some(ours);
    }
    let container = restore::restore(root, &arguments.id, &spec, request)?;
    let master = terminal.map(Terminal::receive).transpose()?;
    let code = relay::stay(container.record.pid, &signals, master)?;
    lifecycle::kill_rest(&container)?;
    create::remove(&container)?;
    Ok(code)
}

/// `feed-pages`
pub fn feed_pages(root: &Path, arguments: &cli::FeedPages) -> Result<i32> {
    check_id(&arguments.id)?;
    lazy::keeper::main(root, &lazy::Request { id: arguments.id.clone(), images: arguments.image_path.clone() })
}
