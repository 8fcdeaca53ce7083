//! A web server on the loopback address that says what it is told to say.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What it answers a request: a status, a body, and how long it says that the body is.
pub struct Page {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// `Content-Length`; a body that is shorter is cut off in the middle, as far as the client can tell.
    pub length: usize,
}

impl Page {
    /// A whole answer.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self { status, length: body.len(), body }
    }
}

/// A web server. It serves until the test's process ends.
pub struct WebServer {
    /// `127.0.0.1:<port>`.
    pub address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl WebServer {
    /// Answers each request by what `page` makes of its target.
    pub fn start(page: impl Fn(&str) -> Page + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind a port of the loopback address");
        let address = listener.local_addr().expect("the address of a bound socket").to_string();
        let (asked, page) = (Arc::new(Mutex::new(Vec::new())), Arc::new(page));
        let seen = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, page) = (Arc::clone(&seen), Arc::clone(&page));
                thread::spawn(move || drop(serve(stream, &seen, &*page)));
            }
        });
        Self { address, asked }
    }

    /// The targets that were asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no holder panics").clone()
    }
}

fn serve(mut stream: TcpStream, seen: &Mutex<Vec<String>>, page: &dyn Fn(&str) -> Page) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    // The rest of the head; whoever speaks TLS sends none that can be read.
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let target = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let page = page(&target);
    seen.lock().expect("no holder panics").push(target);
    write!(stream, "HTTP/1.1 {} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", page.status, page.length)?;
    stream.write_all(&page.body)
}
