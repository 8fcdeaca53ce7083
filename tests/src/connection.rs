//! A TCP connection that is held open across a sleep, and the few words of the protocols that are spoken over it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::wait::eventually_within;

/// Longer than any sleep of a test: nobody on the other side answers meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
const START_LIMIT: Duration = Duration::from_secs(40);

/// A connection to a port of the loopback address.
pub struct Connection {
    stream: BufReader<TcpStream>,
    port: u16,
}

impl Connection {
    /// Connects, as soon as somebody listens, and greets: a program that has only begun to start may take a connection
    /// and drop it. `greet` says whether the answer is the right one.
    #[track_caller]
    pub fn open(port: u16, mut greet: impl FnMut(&mut Self) -> std::io::Result<bool>) -> Self {
        eventually_within(START_LIMIT, format_args!("port {port} answers"), || {
            let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            stream.set_nodelay(true).ok()?;
            let mut connection = Self { stream: BufReader::new(stream), port };
            greet(&mut connection).unwrap_or(false).then_some(connection)
        })
    }

    /// Sends some bytes.
    #[track_caller]
    pub fn sends(&mut self, bytes: &[u8]) {
        let port = self.port;
        self.stream.get_mut().write_all(bytes).unwrap_or_else(|error| panic!("send to port {port}: {error}"));
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::Error::other("the connection was closed"));
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Sends a line and gives the line that comes back.
    #[track_caller]
    pub fn asks(&mut self, line: &str) -> String {
        self.sends(format!("{line}\n").as_bytes());
        self.line().unwrap_or_else(|error| panic!("port {}: no answer to {line:?}: {error}", self.port))
    }

    // --- HTTP/1.1 with keep-alive

    /// Sends a `GET` and leaves the connection open.
    #[track_caller]
    pub fn sends_get(&mut self, path: &str) {
        self.sends(format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").as_bytes());
    }

    /// Reads the head of an answer; the length of the body. The server must keep the connection.
    pub fn http_head(&mut self) -> std::io::Result<usize> {
        let status = self.line()?;
        let mut length = None;
        let mut keeps = true;
        loop {
            let header = self.line()?.to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().ok();
            }
            keeps &= header != "connection: close";
        }
        match length {
            Some(length) if status.contains(" 200 ") && keeps => Ok(length),
            _ => Err(std::io::Error::other(format!("{status:?}, length {length:?}, keep-alive {keeps}"))),
        }
    }

    /// One `GET` and its body.
    pub fn try_get(&mut self, path: &str) -> std::io::Result<String> {
        self.sends_get(path);
        let length = self.http_head()?;
        Ok(String::from_utf8_lossy(&self.bytes(length)?).into_owned())
    }

    /// One `GET` that must be answered over this very connection; the body.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> String {
        self.try_get(path).unwrap_or_else(|error| panic!("port {}: GET {path}: {error}", self.port))
    }

    // --- Redis

    /// Sends a command of Redis in its inline form and gives the answer, lists with a blank between their members.
    #[track_caller]
    pub fn redis(&mut self, command: &str) -> String {
        self.sends(format!("{command}\r\n").as_bytes());
        self.redis_reply().unwrap_or_else(|error| panic!("port {}: {command}: {error}", self.port))
    }

    /// The next answer or message of Redis.
    pub fn redis_reply(&mut self) -> std::io::Result<String> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| std::io::Error::other("an empty line"))?;
        let count = || rest.parse::<i64>().map_err(std::io::Error::other);
        match kind {
            "+" | "-" | ":" => Ok(rest.to_owned()),
            "$" => {
                let Ok(length) = usize::try_from(count()?) else { return Ok("nil".into()) };
                let bytes = self.bytes(length + 2)?;
                Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
            }
            "*" => {
                let members: std::io::Result<Vec<String>> = (0..count()?).map(|_| self.redis_reply()).collect();
                Ok(members?.join(" "))
            }
            _ => Err(std::io::Error::other(format!("no answer of Redis: {line:?}"))),
        }
    }

    // --- PostgreSQL, protocol 3.0, a user that is trusted

    /// Signs in as `postgres`; whether it was let in.
    pub fn postgres_sign_in(&mut self) -> std::io::Result<bool> {
        let words = b"user\0postgres\0database\0postgres\0\0";
        let mut message = ((words.len() + 8) as u32).to_be_bytes().to_vec();
        message.extend_from_slice(&196_608u32.to_be_bytes()); // 3.0
        message.extend_from_slice(words);
        self.stream.get_mut().write_all(&message)?;
        self.sql_answer().map(|_| true)
    }

    /// Sends a query without waiting for its answer.
    #[track_caller]
    pub fn sends_sql(&mut self, query: &str) {
        let mut message = vec![b'Q'];
        message.extend_from_slice(&((query.len() + 5) as u32).to_be_bytes());
        message.extend_from_slice(query.as_bytes());
        message.push(0);
        self.sends(&message);
    }

    /// The answer to a query: rows a line each, columns with a `|` between them, as `psql -At` prints them.
    pub fn sql_answer(&mut self) -> std::io::Result<String> {
        let mut rows = Vec::new();
        let mut failed = None;
        loop {
            let head = self.bytes(5)?;
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let body = self.bytes(length.saturating_sub(4))?;
            match head[0] {
                b'D' => rows.push(columns(&body).join("|")),
                b'E' => failed = Some(String::from_utf8_lossy(&body).replace('\0', " ")),
                b'Z' => break,
                _ => {}
            }
            if head[0] == b'E' && body.starts_with(b"SFATAL") {
                break; // the server closes: it is not ready for a query ever again
            }
        }
        failed.map_or_else(|| Ok(rows.join("\n")), |why| Err(std::io::Error::other(why)))
    }

    /// A query and its answer.
    #[track_caller]
    pub fn sql(&mut self, query: &str) -> String {
        self.sends_sql(query);
        self.sql_answer().unwrap_or_else(|error| panic!("port {}: {query}: {error}", self.port))
    }
}

/// The columns of a `DataRow`: a count, and for each a length (-1: NULL) and the text.
fn columns(body: &[u8]) -> Vec<String> {
    let mut columns = Vec::new();
    let mut rest = body.get(2..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0).min(after.len());
        columns.push(String::from_utf8_lossy(&after[..length]).into_owned());
        rest = &after[length..];
    }
    columns
}
