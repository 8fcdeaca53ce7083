//! SIGUSR1: what every thread and every job is doing, to the log.

use std::fs;

use engine::Engine;

/// Writes it.
pub fn write(engine: &Engine) {
    let mut text = String::from("=== BEGIN dump ===\n");
    for job in engine.jobs() {
        let since = job.started.elapsed().unwrap_or_default();
        let progress = job.progress.unwrap_or_default();
        text += &format!("job {} {}({}) for {since:?} {progress}\n", job.id, job.name, job.args.join(", "));
    }
    let metrics = tokio::runtime::Handle::current().metrics();
    text += &format!(
        "runtime: {} workers, {} tasks alive, {} in the global queue\n",
        metrics.num_workers(),
        metrics.num_alive_tasks(),
        metrics.global_queue_depth()
    );
    for (tid, name, state) in threads() {
        let waits_in = fs::read_to_string(format!("/proc/self/task/{tid}/wchan")).unwrap_or_default();
        text += &format!("thread {tid} {name} {state} {waits_in}\n");
    }
    text += "=== END dump ===";
    // As many lines as there are: a dump in one quoted line is read by nobody.
    eprintln!("{text}");
}

/// Thread id, name and state of each thread.
fn threads() -> Vec<(String, String, String)> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let thread = |entry: fs::DirEntry| {
        let tid = entry.file_name().into_string().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        Some((tid, name.to_owned(), rest.split_whitespace().next()?.to_owned()))
    };
    tasks.filter_map(Result::ok).filter_map(thread).collect()
}
