//! Blocks the traffic of a network namespace while connections are taken apart or put together.
//!
//! CRIU would do it with iptables rules for every connection. One nftables table does it for all. On loopback it blocks
//! TCP only, which sends again what was lost: while one end of a connection is put together, the other must hear nothing
//! of it, and answers in the name of who is not there yet would end it. It belongs to a socket of this process and goes with it, so that a container whose docker-runc was killed is not cut off.
//! A container that sleeps is followed by one that goes by itself after a while: until its namespace is gone or it wakes
//! again, its peers must not hear that nobody is there.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::netfilter::{Loopback, Socket, Until};
use crate::error::{Doing, Result};
use crate::sys;

/// While this process is at it.
const LOCK: &str = "dormouse_checkpoint";
/// Afterwards.
const HOLD: &str = "dormouse_asleep";
/// Longer than it takes until the namespace of a container that has ended is gone.
const HOLD_MILLISECONDS: u64 = 120_000;

/// A network namespace whose traffic can be blocked.
#[derive(Debug)]
pub struct Network {
    namespace: OwnedFd,
    /// What the lock belongs to.
    socket: Option<Socket>,
}

impl Network {
    /// That of a file such as `/proc/<pid>/ns/net`.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).doing(|| format!("open network namespace {}", path.display()))?;
        Ok(Network { namespace: file.into(), socket: None })
    }

    /// Its descriptor.
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Blocks everything, on loopback TCP only, until it is unlocked or this process has ended.
    pub fn lock(&mut self) -> Result<()> {
        let socket = self.enter()?;
        let blocked = match socket.block(LOCK, Until::Closed, Loopback::WithoutTcp) {
            // Kernels before 5.12 know no tables that belong to a socket.
            Err(err) if matches!(err.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                socket.block(LOCK, Until::Milliseconds(HOLD_MILLISECONDS), Loopback::WithoutTcp)
            }
            other => other,
        };
        blocked.doing(|| "block the traffic of established connections".into())?;
        self.socket = Some(socket);
        Ok(())
    }

    /// Lets traffic flow again, whoever has blocked it.
    pub fn unlock(&mut self) -> Result<()> {
        match self.socket.take() {
            // By name: the kernel takes longer to find out what belonged to a socket.
            Some(socket) => remove(&socket, &[HOLD, LOCK]),
            None => Ok(()),
        }
    }

    /// Goes on to block traffic for a while when this process has ended.
    pub fn hold(&mut self) -> Result<()> {
        let Some(socket) = self.socket.take() else { return Ok(()) };
        let held = socket.block(HOLD, Until::Milliseconds(HOLD_MILLISECONDS), Loopback::Open);
        held.doing(|| "block the traffic of established connections".into())?;
        remove(&socket, &[LOCK])
    }

    /// Removes what a checkpoint left in the namespace, if anything.
    pub fn clear(&mut self) -> Result<()> {
        let socket = self.enter()?;
        remove(&socket, &[HOLD])
    }

    /// Does something inside.
    pub fn within<T>(&self, act: impl FnOnce() -> T) -> Result<T> {
        let own = File::open("/proc/thread-self/ns/net").doing(|| "open own network namespace".into())?;
        sys::setns(self.namespace.as_fd(), libc::CLONE_NEWNET).doing(|| "enter the network namespace".into())?;
        let done = act();
        sys::setns(own.as_fd(), libc::CLONE_NEWNET).doing(|| "return to own network namespace".into())?;
        Ok(done)
    }

    /// A socket inside.
    fn enter(&self) -> Result<Socket> {
        self.within(Socket::open)?.doing(|| "open a netfilter socket".into())
    }
}

fn remove(socket: &Socket, tables: &[&str]) -> Result<()> {
    let removed: io::Result<()> = tables.iter().try_for_each(|table| socket.remove(table));
    removed.doing(|| "let traffic flow again".into())
}

/// Makes a network namespace that holds nothing but loopback, up.
pub fn make_empty() -> Result<OwnedFd> {
    let own = File::open("/proc/thread-self/ns/net").doing(|| "open own network namespace".into())?;
    sys::unshare(libc::CLONE_NEWNET).doing(|| "make a network namespace".into())?;
    let result = sys::loopback_up()
        .doing(|| "bring up the loopback interface".into())
        .and_then(|()| File::open("/proc/thread-self/ns/net").doing(|| "open the new network namespace".into()));
    sys::setns(own.as_fd(), libc::CLONE_NEWNET).doing(|| "return to own network namespace".into())?;
    result.map(OwnedFd::from)
}

impl From<OwnedFd> for Network {
    fn from(namespace: OwnedFd) -> Self {
        Network { namespace, socket: None }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;

    use super::*;

    fn tables(network: &Network) -> Vec<String> {
        let own = File::open("/proc/thread-self/ns/net").unwrap();
        sys::setns(network.as_fd(), libc::CLONE_NEWNET).unwrap();
        let output = Command::new("nft").args(["list", "tables"]).output();
        sys::setns(own.as_fd(), libc::CLONE_NEWNET).unwrap();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        text.lines().map(|line| line.trim_start_matches("table inet ").to_owned()).collect()
    }

    /// Needs root and nft (to look).
    #[test]
    fn a_lock_goes_with_its_maker_and_a_hold_stays() {
        let empty = || Network::from(make_empty().unwrap());
        let mut network = empty();
        network.lock().unwrap();
        assert_eq!(tables(&network), [LOCK]);
        network.unlock().unwrap();
        assert_eq!(tables(&network), [""; 0]);
        network.lock().unwrap();
        let copy = Network::from(network.namespace.try_clone().unwrap());
        drop(network);
        assert_eq!(tables(&copy), [""; 0], "as after SIGKILL");

        let mut network = copy;
        network.lock().unwrap();
        network.hold().unwrap();
        assert_eq!(tables(&network), [HOLD]);
        // A wake in the same namespace.
        network.lock().unwrap();
        network.unlock().unwrap();
        assert_eq!(tables(&network), [""; 0]);
        network.lock().unwrap();
        network.hold().unwrap();
        network.clear().unwrap();
        network.clear().unwrap();
        assert_eq!(tables(&network), [""; 0]);
    }

    /// Needs root.
    #[test]
    fn loopback_stays_open_but_for_tcp_under_a_lock_and_everything_else_does_not() {
        let own = File::open("/proc/thread-self/ns/net").unwrap();
        let mut network = Network::from(make_empty().unwrap());
        sys::setns(network.as_fd(), libc::CLONE_NEWNET).unwrap();
        for args in
            ["link add d0 type veth peer name d1", "addr add 192.0.2.1/24 dev d0", "link set d1 up", "link set d0 up"]
        {
            assert!(Command::new("ip").args(args.split(' ')).status().unwrap().success());
        }
        let sends = || std::net::UdpSocket::bind("192.0.2.1:0").unwrap().send_to(b"x", "192.0.2.2:9");
        sends().unwrap();
        network.lock().unwrap();
        assert_eq!(sends().unwrap_err().kind(), io::ErrorKind::PermissionDenied, "dropped on its way out");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let soon = std::time::Duration::from_millis(300);
        assert_eq!(TcpStream::connect_timeout(&address, soon).unwrap_err().kind(), io::ErrorKind::TimedOut);
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        datagrams.send_to(b"x", datagrams.local_addr().unwrap()).unwrap();
        datagrams.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        assert_eq!(datagrams.recv(&mut [0; 2]).unwrap(), 1);
        network.hold().unwrap();
        assert_eq!(sends().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        TcpStream::connect(address).unwrap();
        network.clear().unwrap();
        sends().unwrap();
        sys::setns(own.as_fd(), libc::CLONE_NEWNET).unwrap();
    }
}
