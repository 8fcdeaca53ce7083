//! `create`, `start`, `run`, `kill`, `delete`, `pause`, `resume`.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::cli;
use crate::error::{Doing, Error, Result};
use crate::launch::create::{self, ConsoleSocket, Options};
use crate::launch::namespaces::Namespaces;
use crate::launch::relay::Terminal;
use crate::launch::{relay, wait};
use crate::spec;
use crate::state::{Container, Status, check_id, remove_directory};

/// The bundle given or the current directory, resolved.
pub fn bundle_directory(bundle: &cli::Bundle) -> Result<PathBuf> {
    let path = bundle.bundle.as_deref().unwrap_or(Path::new("."));
    fs::canonicalize(path).doing(|| format!("bundle {}", path.display()))
}

fn options(arguments: &cli::Bundle, bundle: PathBuf) -> Options {
    Options {
        bundle,
        console_socket: arguments.console_socket.clone().map(ConsoleSocket::Path),
        pid_file: arguments.pid_file.clone(),
        no_pivot: arguments.no_pivot,
        no_new_keyring: arguments.no_new_keyring,
        preserve_fds: arguments.preserve_fds,
    }
}

/// `create`
pub fn create(root: &Path, arguments: &cli::Create) -> Result<i32> {
    create::prepare()?;
    let bundle = bundle_directory(&arguments.bundle)?;
    let spec = spec::load(&bundle)?;
    create::create(root, &arguments.id, &spec, options(&arguments.bundle, bundle))?;
    Ok(0)
}

/// `start`
pub fn start(root: &Path, id: &str) -> Result<i32> {
    create::start(&Container::open(root, id)?)?;
    Ok(0)
}

/// `run`
pub fn run(root: &Path, arguments: &cli::Run) -> Result<i32> {
    create::prepare()?;
    let bundle = bundle_directory(&arguments.bundle)?;
    let spec = spec::load(&bundle)?;
    let mut options = options(&arguments.bundle, bundle);
    if arguments.detach {
        let container = create::create(root, &arguments.id, &spec, options)?;
        return create::start(&container).map(|()| 0).inspect_err(|_| create::discard(&container));
    }
    let signals = wait::block_signals()?;
    if !arguments.no_subreaper {
        rustix::process::set_child_subreaper(Pid::from_raw(1)).doing(|| "become a subreaper".into())?;
    }
    let mut terminal = None;
    if create::wants_terminal(&spec) && options.console_socket.is_none() {
        let (ours, theirs) = Terminal::new()?;
        options.console_socket = Some(ConsoleSocket::Connected(theirs));
        terminal = Some(ours);
    }
    let container = create::create(root, &arguments.id, &spec, options)?;
    let result = terminal.map(Terminal::receive).transpose().and_then(|master| {
        create::start(&container)?;
        relay::stay(container.record.pid, &signals, master)
    });
    match result {
        Ok(code) => {
            if !arguments.keep {
                kill_rest(&container)?;
                create::remove(&container)?;
            }
            Ok(code)
        }
        Err(err) => {
            create::discard(&container);
            Err(err)
        }
    }
}

/// Without a pid namespace of its own a container's other processes outlive the first.
pub fn kill_rest(container: &Container) -> Result<()> {
    for pid in container.cgroups()?.pids()? {
        signal_process(pid, Signal::KILL)?;
    }
    Ok(())
}

/// Sends a signal; a process that has gone is no error.
fn signal_process(pid: i32, signal: Signal) -> Result<()> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    match rustix::process::kill_process(pid, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        other => other.doing(|| format!("signal process {}", pid.as_raw_nonzero())),
    }
}

/// `SIGTERM`, `TERM`, `15`.
pub fn parse_signal(text: &str) -> Result<Signal> {
    let unknown = || Error::Invalid(format!("unknown signal {text:?}"));
    if let Ok(number) = text.parse::<i32>() {
        return Signal::from_named_raw(number).map_or_else(
            || {
                // Real-time signals have no names; the kernel's range is 34 to 64 for programs.
                if (34..=64).contains(&number) { real_time(number) } else { Err(unknown()) }
            },
            Ok,
        );
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper.clone() } else { format!("SIG{upper}") };
    if let Ok(signal) = nix::sys::signal::Signal::from_str(&name) {
        return Signal::from_named_raw(signal as i32).ok_or_else(unknown);
    }
    let number = match name.strip_prefix("SIGRTMIN") {
        Some("") => Some(34),
        Some(rest) => rest.strip_prefix('+').and_then(|n| n.parse::<i32>().ok()).map(|n| 34 + n),
        None => match name.strip_prefix("SIGRTMAX") {
            Some("") => Some(64),
            Some(rest) => rest.strip_prefix('-').and_then(|n| n.parse::<i32>().ok()).map(|n| 64 - n),
            None => None,
        },
    };
    match number {
        Some(number) if (34..=64).contains(&number) => real_time(number),
        _ => Err(unknown()),
    }
}

fn real_time(number: i32) -> Result<Signal> {
    crate::sys::real_time_signal(number).ok_or_else(|| Error::Invalid(format!("unknown signal {number}")))
}

/// `kill`
pub fn kill(root: &Path, arguments: &cli::Kill) -> Result<i32> {
    // No signal: whether there is anybody to send one to.
    let signal = match arguments.signal.as_str() {
        "0" => None,
        text => Some(parse_signal(text)?),
    };
    let container = Container::open(root, &arguments.id)?;
    let kills = signal == Some(Signal::KILL);
    if arguments.all {
        return signal.map_or(Ok(()), |signal| signal_all(&container, signal)).map(|()| 0);
    }
    // The kernel ends what is in a pid namespace with its first process. Where there is none of its own, nobody does.
    let has_own = || Ok::<_, Error>(Namespaces::of(&container.spec()?).has_new(libc::CLONE_NEWPID));
    if kills && !has_own()? && !container.cgroups()?.pids()?.is_empty() {
        return signal_all(&container, Signal::KILL).map(|()| 0);
    }
    let status = container.status()?;
    if matches!(status, Status::Stopped | Status::Creating) {
        return Err(Error::NotRunning);
    }
    let Some(signal) = signal else { return Ok(0) };
    send(&container, signal)?;
    if status == Status::Paused && kills {
        // A frozen v1 group does not die.
        container.cgroups()?.thaw()?;
    }
    Ok(0)
}

fn signal_all(container: &Container, signal: Signal) -> Result<()> {
    let cgroups = container.cgroups()?;
    // Frozen meanwhile, so that none escapes by forking; v1 thaws to deliver.
    let was_frozen = cgroups.is_frozen()?;
    let frozen = cgroups.freeze().is_ok();
    let result = cgroups.pids().and_then(|pids| pids.into_iter().try_for_each(|pid| signal_process(pid, signal)));
    if frozen && (!was_frozen || signal == Signal::KILL) {
        cgroups.thaw()?;
    }
    result
}

/// To the first process, and to no other that may have got its pid.
fn send(container: &Container, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(container.record.pid).ok_or(Error::NotRunning)?;
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Err(Error::NotRunning),
        Err(errno) => return Err(Error::Io { what: "open the process".into(), source: errno.into() }),
    };
    if !container.is_alive() {
        return Err(Error::NotRunning);
    }
    match pidfd_send_signal(pidfd.as_fd(), signal) {
        Err(rustix::io::Errno::SRCH) => Err(Error::NotRunning),
        other => other.doing(|| "send the signal".into()),
    }
}

/// `delete`
pub fn delete(root: &Path, arguments: &cli::Delete) -> Result<i32> {
    let container = match Container::open(root, &arguments.id) {
        Ok(container) => container,
        Err(Error::NoContainer) => {
            // A directory whose creation was cut short holds nothing that anybody could start.
            check_id(&arguments.id)?;
            let dir = root.join(&arguments.id);
            if dir.is_dir() {
                remove_directory(&dir)?;
                return Ok(0);
            }
            return if arguments.force { Ok(0) } else { Err(Error::NoContainer) };
        }
        Err(err) => return Err(err),
    };
    match container.status()? {
        Status::Stopped => (),
        Status::Created | Status::Creating => end(&container)?,
        _ if arguments.force => end(&container)?,
        status => {
            return Err(Error::Conflict(format!(
                "cannot delete container {} that is not stopped: {status}",
                arguments.id
            )));
        }
    }
    kill_rest(&container)?;
    create::remove(&container)?;
    Ok(0)
}

/// Kills the first process and waits until it has ended.
pub fn end(container: &Container) -> Result<()> {
    let Some(pid) = Pid::from_raw(container.record.pid) else { return Ok(()) };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
    if !container.is_alive() {
        return Ok(());
    }
    let _ = pidfd_send_signal(pidfd.as_fd(), Signal::KILL);
    kill_rest(container)?;
    container.cgroups()?.thaw()?;
    let mut watched = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    match rustix::event::poll(&mut watched, Some(&limit)) {
        Ok(0) => Err(Error::Conflict("container init still running".into())),
        _ => Ok(()),
    }
}

/// `pause`
pub fn pause(root: &Path, id: &str) -> Result<i32> {
    let container = Container::open(root, id)?;
    match container.status()? {
        Status::Running | Status::Created => container.cgroups()?.freeze().map(|()| 0),
        Status::Paused => Err(Error::Paused),
        _ => Err(Error::NotRunning),
    }
}

/// `resume`
pub fn resume(root: &Path, id: &str) -> Result<i32> {
    let container = Container::open(root, id)?;
    match container.status()? {
        Status::Paused => container.cgroups()?.thaw().map(|()| 0),
        _ => Err(Error::NotPaused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for text in ["SIGTERM", "TERM", "term", "15"] {
            assert_eq!(parse_signal(text).unwrap(), Signal::TERM, "{text}");
        }
        assert_eq!(parse_signal("KILL").unwrap(), Signal::KILL);
        assert_eq!(parse_signal("SIGRTMIN+3").unwrap().as_raw(), 37);
        assert_eq!(parse_signal("37").unwrap().as_raw(), 37);
        for text in ["", "0", "65", "SIGNOTHING", "-1"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
