//! Who is at the other end of unix sockets: asked of the kernel (`man 7 sock_diag`).

use std::collections::HashMap;
use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
const REQUEST_AND_DUMP: u16 = 0x301;
const DONE: u16 = 3;
const ERROR: u16 = 2;
/// `UDIAG_SHOW_PEER`
const SHOW_PEER: u32 = 4;
/// `UNIX_DIAG_PEER`
const PEER: u16 = 2;
const HEADER_BYTES: usize = 16;
/// `struct unix_diag_msg`
const MESSAGE_BYTES: usize = 16;
const BUFFER_BYTES: usize = 64 << 10;

/// The inode of each connected unix socket of the calling thread's network namespace, and that of its peer.
pub fn all() -> io::Result<HashMap<u64, u64>> {
    let protocol = Some(netlink::SOCK_DIAG);
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    let mut request = Vec::new();
    request.extend(40u32.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(REQUEST_AND_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([AddressFamily::UNIX.as_raw() as u8, 0, 0, 0]);
    for number in [u32::MAX, 0, SHOW_PEER, u32::MAX, u32::MAX] {
        request.extend(number.to_ne_bytes());
    }
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut peers = HashMap::new();
    let mut buffer = vec![0u8; BUFFER_BYTES];
    loop {
        let (_, length) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        if read(&buffer[..length.min(BUFFER_BYTES)], &mut peers)? {
            return Ok(peers);
        }
    }
}

/// Takes in one answer; true when it was the last.
fn read(mut answer: &[u8], peers: &mut HashMap<u64, u64>) -> io::Result<bool> {
    while answer.len() >= HEADER_BYTES {
        let length = number(answer, 0) as usize;
        let kind = number(answer, 4) as u16;
        let Some(body) = answer.get(HEADER_BYTES..length) else { return Err(io::ErrorKind::InvalidData.into()) };
        match kind {
            DONE => return Ok(true),
            ERROR => return Err(io::Error::from_raw_os_error((number(body, 0) as i32).wrapping_neg())),
            BY_FAMILY if body.len() >= MESSAGE_BYTES => {
                let inode = u64::from(number(body, 4));
                if let Some(peer) = peer(&body[MESSAGE_BYTES..]) {
                    peers.insert(inode, u64::from(peer));
                }
            }
            _ => (),
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Out of the attributes.
fn peer(mut attributes: &[u8]) -> Option<u32> {
    while attributes.len() >= 8 {
        let first = number(attributes, 0);
        let (length, kind) = ((first & 0xffff) as usize, (first >> 16) as u16);
        if kind == PEER {
            return Some(number(attributes, 4)).filter(|peer| *peer != 0);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

/// Zero where there is nothing.
fn number(bytes: &[u8], at: usize) -> u32 {
    let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
    four.map_or(0, u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn both_ends_of_a_pair_know_each_other() {
        let (one, other) = UnixStream::pair().unwrap();
        let inode = |socket: &UnixStream| rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
        let peers = all().unwrap();
        assert_eq!(peers.get(&inode(&one)), Some(&inode(&other)));
        assert_eq!(peers.get(&inode(&other)), Some(&inode(&one)));
    }

    #[test]
    fn a_cut_answer_is_an_error_or_nothing() {
        let mut peers = HashMap::new();
        assert!(read(&[255, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &mut peers).is_err());
        assert!(!read(&[1, 2, 3], &mut peers).unwrap());
        assert!(peers.is_empty());
    }
}
