//! Real programs sleep and wake: servers with data, clients that stay connected, transactions that are open. Each is
//! put to sleep twice and then copied while it runs on; every time it must go on where it was, over the connections it
//! had. The images are made from Debian packages.

use std::cell::Cell;
use std::path::Path;

use e2e::{Connection, DebianProgram, Engine, eventually, free_port};
use serde_json::Value;

/// A container with a program that listens on one port.
struct Guest {
    engine: Engine,
    port: u16,
    naps: Cell<u32>,
}

impl Guest {
    /// Starts the program; `files` of `cases/programs` are in `/srv` of the container.
    fn start(program: DebianProgram, inside: u16, files: &[&str], command: &str) -> Self {
        program.tar(); // may take a while, the first time
        let engine = Engine::with().without_image().start();
        program.import(&engine);
        let port = free_port();
        let flags = format!("--name c1 -m 1g -p 127.0.0.1:{port}:{inside}");
        engine.ok(&format!("docker create {flags} {} {command}", program.name));
        for file in files {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/programs").join(file);
            engine.ok(&format!("docker cp {} c1:/srv/", path.display()));
        }
        engine.ok("docker start c1");
        Self { engine, port, naps: Cell::new(0) }
    }

    /// Puts it to sleep and wakes it.
    fn naps(&self) {
        let nap = format!("nap{}", self.naps.replace(self.naps.get() + 1));
        self.engine.ok(&format!("docker checkpoint create c1 {nap}"));
        assert_eq!(self.engine.inspect("c1", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
        self.engine.ok(&format!("docker start --checkpoint {nap} c1"));
    }

    /// Sleeps twice, and is then checkpointed while it runs on; `goes_on` is asked before and after each.
    fn sleeps(&self, mut goes_on: impl FnMut()) {
        goes_on();
        for _ in 0..2 {
            self.naps();
            goes_on();
        }
        self.engine.ok("docker checkpoint create --leave-running c1 copy");
        goes_on();
        // What was never said: that something inside was killed, or fell over.
        let log = self.engine.run("docker logs c1");
        for word in ["PANIC", "terminated by signal", "exited on signal", "Traceback", "Exception", "crashed"] {
            assert!(!log.stdout.contains(word) && !log.stderr.contains(word), "{}", log.report());
        }
        assert_eq!(self.engine.inspect("c1", "{{.State.OOMKilled}} {{.RestartCount}}"), "false 0");
    }

    /// Ends it and wakes it from the copy that was made while it ran on.
    fn wakes_from_the_copy(&self) {
        self.engine.ok("docker kill c1 && docker start --checkpoint copy c1");
    }

    fn connects(&self, greet: impl FnMut(&mut Connection) -> std::io::Result<bool>) -> Connection {
        Connection::open(self.port, greet)
    }

    fn http(&self, path: &str) -> Connection {
        self.connects(|connection| connection.try_get(path).map(|_| true))
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"))
}

/// Panics unless the numbers at `names` are greater than they were in `before`.
#[track_caller]
fn greater(before: &Value, after: &Value, names: &[&str]) {
    for name in names {
        let number = |value: &Value| value[*name].as_u64().unwrap_or_else(|| panic!("no number {name}: {value}"));
        assert!(number(after) > number(before), "{name} does not go on: {before} then {after}");
    }
}

#[test]
fn redis_with_its_data_and_its_clients() {
    let serve =
        "sh -c 'exec redis-server --dir /srv --appendonly yes --save 3600 1 --protected-mode no --bind 0.0.0.0'";
    let guest = Guest::start(DebianProgram::REDIS, 6379, &[], serve);
    let greeted = |connection: &mut Connection| {
        connection.sends(b"PING\r\n");
        Ok(connection.redis_reply()? == "PONG")
    };
    let mut client = guest.connects(greeted);
    let mut waiting = guest.connects(greeted);
    let mut listening = guest.connects(greeted);
    let mut writing = guest.connects(greeted);
    let large: String = (0..100_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    assert_eq!(client.redis(&format!("SET large {}", &large[..60_000])), "OK");
    assert_eq!(client.redis(&format!("APPEND large {}", &large[60_000..])), "100000");
    assert_eq!(listening.redis("SUBSCRIBE news"), "subscribe news 1");
    waiting.sends(b"BLPOP queue 0\r\n");
    assert_eq!(writing.redis("MULTI"), "OK");
    assert_eq!(writing.redis("INCR committed"), "QUEUED");
    let mut round = 0;
    guest.sleeps(|| {
        round += 1;
        assert_eq!(client.redis("INCR count"), round.to_string());
        assert_eq!(client.redis("GET large"), large);
        // A command that was waiting before the sleep is answered after it.
        assert_eq!(client.redis(&format!("LPUSH queue {round}")), "1");
        assert_eq!(waiting.redis_reply().expect("what BLPOP waited for"), format!("queue {round}"));
        waiting.sends(b"BLPOP queue 0\r\n");
        assert_eq!(client.redis(&format!("PUBLISH news {round}")), "1");
        assert_eq!(listening.redis_reply().expect("the news"), format!("message news {round}"));
        assert_eq!(writing.redis("EXEC"), round.to_string());
        assert_eq!(writing.redis("MULTI"), "OK");
        assert_eq!(writing.redis("INCR committed"), "QUEUED");
        // It can still fork and write its data down.
        assert_eq!(client.redis("BGSAVE"), "Background saving started");
        eventually("the data is written down", || {
            client.redis("INFO persistence").contains("rdb_bgsave_in_progress:0").then_some(())
        });
        assert!(client.redis("INFO persistence").contains("rdb_last_bgsave_status:ok"));
        assert_eq!(guest.engine.ok("docker exec c1 redis-cli GET count"), round.to_string());
    });
    assert_eq!(client.redis("INCR count"), (round + 1).to_string());
    guest.wakes_from_the_copy();
    let mut client = guest.connects(greeted);
    assert_eq!(client.redis("GET count"), (round - 1).to_string(), "what came after the copy is not in it");
    assert_eq!(client.redis("INCR count"), round.to_string());
    // What it wrote to its files in all these lives is one whole.
    guest.engine.ok("docker restart c1");
    let mut client = guest.connects(greeted);
    assert_eq!(client.redis("MGET count committed large"), format!("{round} {} {large}", round - 1));
}

#[test]
fn postgres_in_the_middle_of_transactions() {
    let guest = Guest::start(DebianProgram::POSTGRES, 5432, &["postgres.sh"], "su postgres -c 'sh /srv/postgres.sh'");
    let mut outside = guest.connects(Connection::postgres_sign_in);
    let mut waiting = guest.connects(Connection::postgres_sign_in);
    let mut rows = 0;
    // A client beside the server, in the container's network namespace.
    let inside = |sql: &str| {
        let fed = guest.engine.run_with_input("docker exec -i c1 sh -c 'cat >/tmp/in'", format!("{sql}\n").as_bytes());
        assert_eq!(fed.code, 0, "{}", fed.report());
    };
    let inside_said = |words: &str| {
        eventually(format_args!("the client inside says {words:?}"), || {
            guest.engine.ok("docker exec c1 tail -n 1 /tmp/out").contains(words).then_some(())
        });
    };
    outside.sql("CREATE TABLE seen (n int PRIMARY KEY, who text)");
    outside.sql("INSERT INTO seen VALUES (0, $$shared$$)");
    outside.sql("CREATE TABLE many AS SELECT n, repeat(md5(n::text), 10) AS text FROM generate_series(1, 20000) AS n");
    let sum = outside.sql("SELECT sum(hashtext(text)) FROM many");
    let round = Cell::new(0);
    let begin = |outside: &mut Connection, waiting: &mut Connection| {
        let n = round.get();
        outside.sql(&format!(
            "BEGIN; INSERT INTO seen VALUES ({n}1, $$outside$$); UPDATE seen SET who = $$held$$ WHERE n = 0"
        ));
        inside(&format!("BEGIN; INSERT INTO seen VALUES ({n}2, $$inside$$); SELECT $$open {n}$$;"));
        inside_said(&format!("open {n}"));
        // Waits for the row that the first one holds.
        waiting.sends_sql(&format!("UPDATE seen SET who = $$waited {n}$$ WHERE n = 0 RETURNING who"));
    };
    round.set(1);
    begin(&mut outside, &mut waiting);
    let mut first = true;
    guest.sleeps(|| {
        if std::mem::take(&mut first) {
            return; // what is open is to be finished after the sleep
        }
        let n = round.get();
        assert_eq!(outside.sql("SELECT count(*) FROM seen"), (rows + 2).to_string(), "its own row, not the other's");
        outside.sql("COMMIT");
        assert_eq!(waiting.sql_answer().expect("what waited for the lock"), format!("waited {n}"));
        inside(&format!("COMMIT; SELECT $$done {n}$$;"));
        inside_said(&format!("done {n}"));
        rows += 2;
        assert_eq!(outside.sql("SELECT count(*), max(who) FROM seen"), format!("{}|waited {n}", rows + 1));
        assert_eq!(outside.sql("SELECT sum(hashtext(text)) FROM many"), sum);
        outside.sql("CHECKPOINT");
        let mut newcomer = guest.connects(Connection::postgres_sign_in);
        assert_eq!(newcomer.sql("SELECT count(*) FROM seen"), (rows + 1).to_string());
        round.set(n + 1);
        begin(&mut outside, &mut waiting);
    });
    guest.wakes_from_the_copy();
    let mut newcomer = guest.connects(Connection::postgres_sign_in);
    assert_eq!(newcomer.sql("SELECT count(*) FROM seen"), (rows - 1).to_string(), "as it was when the copy was made");
    assert_eq!(newcomer.sql("SELECT sum(hashtext(text)) FROM many"), sum);
    let log = guest.engine.run("docker logs c1");
    assert!(!log.stderr.contains("interrupted"), "it never recovered from anything: {}", log.report());
}

#[test]
fn nginx_with_connections_that_are_kept() {
    let content: String = (0..60_000).map(|n| format!("{n:09}\n")).collect();
    let serve = "sh -c 'cd /srv; i=0; while [ $i -lt 60000 ]; do printf \"%09d\\n\" $i; i=$((i+1)); done >slow; \
                 echo small >small; exec nginx -c /srv/nginx.conf'";
    let guest = Guest::start(DebianProgram::NGINX, 8000, &["nginx.conf"], serve);
    let mut client = guest.http("/small");
    let mut other = guest.http("/behind");
    let worker = client.get("/pid");
    let mut download = guest.http("/small");
    let mut before: Vec<u64> = Vec::new();
    let workers = || guest.engine.ok("docker top c1 -o pid,args | grep -c 'worker process'");
    download.sends_get("/slow");
    let length = download.http_head().expect("the head of a download");
    assert_eq!(length, content.len());
    let mut got = Vec::new();
    guest.sleeps(|| {
        assert_eq!(workers(), "2");
        assert_eq!(client.get("/small"), "small\n");
        assert_eq!(client.get("/pid"), worker, "the same worker has the connection");
        // The connection that nginx itself keeps, by a unix socket, counts its requests.
        let behind: Vec<u64> = other.get("/behind").split(' ').filter_map(|n| n.parse().ok()).collect();
        assert_eq!(behind.len(), 2);
        if let [pid, requests] = before[..] {
            assert_eq!(behind, [pid, requests + 1], "the connection behind is the same");
        }
        before = behind;
        // A download that is under way goes on, part by part.
        let part = 100_000.min(length - got.len());
        got.extend(download.bytes(part).expect("the next part of the download"));
        guest.http("/small");
    });
    got.extend(download.bytes(length - got.len()).expect("the rest of the download"));
    assert!(got == content.as_bytes(), "the download is not what was sent");
    // The master hears signals and starts new workers.
    guest.engine.ok("docker kill -s HUP c1");
    eventually("new workers serve", || {
        let pid = guest.http("/small").get("/pid");
        (pid != worker && workers() == "2").then_some(())
    });
}

#[test]
fn a_java_virtual_machine() {
    let serve = "sh -c 'set -- /usr/lib/jvm/*/bin/java; exec $1 -Xmx96m /srv/Server.java'";
    let guest = Guest::start(DebianProgram::JAVA, 8000, &["Server.java"], serve);
    let mut client = guest.http("/");
    let mut before = json(&client.get("/"));
    let mut first = None;
    guest.sleeps(|| {
        let now = json(&client.get("/"));
        first = now["requests"].as_u64();
        greater(&before, &now, &["ticks"]);
        let request = before["requests"].as_u64().map(|n| n + 1);
        assert_eq!([now["requests"].as_u64(), now["mapped"].as_u64(), now["heard"].as_u64()], [request; 3], "{now}");
        let counts = |value: &Value| -> Vec<u64> {
            value["counts"].as_array().expect("a list").iter().filter_map(Value::as_u64).collect()
        };
        assert_eq!(counts(&now).len(), 4);
        eventually("every thread counts on", || {
            before = json(&client.get("/"));
            counts(&before).iter().zip(counts(&now)).all(|(after, before)| *after > before).then_some(())
        });
    });
    guest.wakes_from_the_copy();
    // The request that finds the program answering is the first one after the copy was made.
    let mut client = guest.http("/");
    assert_eq!(json(&client.get("/"))["requests"].as_u64(), first.map(|n| n + 1), "it goes on where the copy was made");
}

#[test]
fn node_with_workers_and_children() {
    let guest = Guest::start(DebianProgram::NODE, 8000, &["server.js"], "node /srv/server.js");
    let mut client = guest.http("/");
    let mut before = json(&client.get("/"));
    let mut hups = 0;
    guest.sleeps(|| {
        guest.engine.ok("docker kill -s HUP c1");
        hups += 1;
        eventually("the signal is handled, the ticks and the worker go on", || {
            let now = json(&client.get("/"));
            let requests = before["requests"].as_u64().map(|n| n + 1);
            assert_eq!(now["requests"].as_u64(), requests, "the server began anew");
            assert_eq!(now["child"].as_u64(), requests.map(|n| n + 1), "the child answers");
            assert_eq!([&now["pipe"], &now["file"]], ["line", "hosts: files dns"]);
            let more = |name: &str| now[name].as_u64() > before[name].as_u64();
            let all = more("ticks") && more("worker") && now["hups"].as_u64() == Some(hups);
            before = now.clone();
            all.then_some(())
        });
    });
    guest.wakes_from_the_copy();
    let mut client = guest.http("/");
    assert_eq!(json(&client.get("/"))["hups"].as_u64(), Some(hups - 1));
}

#[test]
fn python_with_threads_timers_and_children() {
    let guest = Guest::start(DebianProgram::PYTHON, 8000, &["server.py"], "python3 /srv/server.py");
    let greeted = |connection: &mut Connection| {
        connection.sends(b"hello\n");
        Ok(connection.line()? == "heard hello")
    };
    let mut client = guest.connects(greeted);
    let mut half = guest.connects(greeted);
    let session = client.asks("session");
    half.sends(b"half a ");
    let mut before = json(&client.asks("state"));
    let mut signals = 0;
    guest.sleeps(|| {
        guest.engine.ok("docker kill -s USR1 c1");
        signals += 1;
        let mapped = before["mapped"].as_u64().expect("a number");
        let mut asked = 0;
        let now = eventually("threads, timer, child and loop go on", || {
            let now = json(&client.asks("state"));
            asked += 1;
            assert_eq!(now["mapped"].as_u64(), Some(mapped + asked), "the mapped file is not what it was");
            let more = |name: &str| now[name].as_u64() > before[name].as_u64();
            let threads = (0..4).all(|n| now["counts"][n].as_u64() > before["counts"][n].as_u64());
            let all = threads && more("alarms") && more("shared") && more("ticks");
            (all && now["usr1"].as_u64() == Some(signals)).then_some(now)
        });
        let steady = ["worker", "socket", "pipe", "nameless", "memory"].map(|name| now[name].to_string());
        assert_eq!(steady, ["2", "\"x\"", "\"line\"", "\"no name\"", "true"]);
        assert_eq!(client.asks("session"), session);
        before = now;
    });
    // A line of which one half came before the first sleep, and the other half now.
    assert_eq!(half.asks("line"), "heard half a line");
    assert_eq!(client.asks("reap"), "7", "the zombie has kept its exit status");
    guest.wakes_from_the_copy();
    let mut client = guest.connects(greeted);
    assert_eq!(client.asks("reap"), "7");
    // The file that is locked by the process that sleeps is locked by the process that woke.
    let lock = "import fcntl; fcntl.lockf(open(\"/srv/locked\", \"w\"), fcntl.LOCK_EX | fcntl.LOCK_NB)";
    let tried = guest.engine.run(&format!("docker exec c1 python3 -c '{lock}'"));
    assert!(tried.code == 1 && tried.stderr.contains("BlockingIOError"), "{}", tried.report());
}
