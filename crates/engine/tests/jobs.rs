//! Jobs from their beginning to their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use engine::{Context, Engine, Error, Failure};
use errors::{Kind, Kinded};
use tokio::sync::Notify;

fn engine_with(name: &str, status: Result<(), &'static str>) -> Engine {
    let engine = Engine::new();
    engine.register(name, move |_| async move { status.map_err(Failure::text) }).unwrap();
    engine
}

#[tokio::test]
async fn run_and_fail() {
    let engine = engine_with("good", Ok(()));
    engine.job("good").arg("a").args(["b", "c"]).run().await.unwrap();
    assert_eq!(engine.commands(), ["good"]);
    let error = engine.register("good", async |_| Ok(())).unwrap_err();
    assert_eq!(error.to_string(), "Can't overwrite handler for command good");
    let error = engine.job("missing").run().await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.status()), ("missing: command not found", 127));

    let error = engine_with("bad", Err("no luck")).job("bad").run().await.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.status(), error.kind()), ("no luck", 1, Kind::System));
    let kept = engine.job("work").run_with(|_| async { Err::<(), _>(Error::NotFound("x".into()).into()) }).await;
    assert_eq!(kept.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_job_knows_itself_is_listed_and_says_how_far_it_is() {
    let engine = Engine::new();
    let go_on = Arc::new(Notify::new());
    let waiting = Arc::clone(&go_on);
    engine
        .register("work", move |job: Context| {
            let waiting = Arc::clone(&waiting);
            async move {
                assert!(job.env().is_true("Fast"));
                job.progress(format!("halfway through {}", job.args()[0]));
                waiting.notified().await;
                job.progress("done");
                Ok(())
            }
        })
        .unwrap();
    let running = engine.job("work").arg("it").env("Fast", 1).spawn().unwrap();
    let listed = engine.jobs();
    assert_eq!((listed[0].id, listed[0].name.as_str(), &listed[0].args[0][..]), (running.id(), "work", "it"));
    assert_eq!(listed[0].progress.as_deref(), Some("halfway through it"));
    let mut progress = running.context().progress_carrier().listen();
    go_on.notify_one();
    assert_eq!(progress.recv().await.unwrap(), "done");
    running.wait().await.unwrap();
    assert!(engine.jobs().is_empty());
    let answer: Result<i32, Error> = engine.job("answer").run_with(|_| async { Ok(42) }).await;
    assert_eq!(answer.unwrap(), 42);
}

#[tokio::test]
async fn cancelled_dropped_and_panicking_jobs_leave_the_table() {
    let engine = Engine::new();
    engine
        .register("sleep", async |_| {
            std::future::pending::<()>().await;
            Ok(())
        })
        .unwrap();
    engine.register("panic", async |_| panic!("oh {}", "no")).unwrap();
    let running = engine.job("sleep").spawn().unwrap();
    assert!(engine.cancel(running.id()));
    let error = running.wait().await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (Kind::Cancelled, 130));
    assert!(!engine.cancel(1));

    let token = tokio_util::sync::CancellationToken::new();
    let running = engine.job("sleep").cancelled_by(&token).spawn().unwrap();
    token.cancel();
    assert!(running.wait().await.is_err());

    assert!(tokio::time::timeout(Duration::from_millis(10), engine.job("sleep").run()).await.is_err());
    assert_eq!(engine.job("panic").run().await.unwrap_err().to_string(), "panic: panicked: oh no");
    assert!(engine.jobs().is_empty());
}

#[tokio::test(start_paused = true)]
async fn shutdown_refuses_waits_tells_to_stop_and_calls_back_once() {
    let engine = Engine::new();
    engine
        .register("sleep", async |job: Context| {
            tokio::time::sleep(Duration::from_secs(job.env().number("Seconds").unwrap() as u64)).await;
            Ok(())
        })
        .unwrap();
    let called = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        let called = Arc::clone(&called);
        engine.on_shutdown("count", move || async move {
            called.fetch_add(1, Ordering::SeqCst);
        });
    }
    engine.on_shutdown("hangs", std::future::pending);
    let short = engine.job("sleep").env("Seconds", 2).spawn().unwrap();
    let serving = engine.job("sleep").env("Seconds", 1_000_000).background().spawn().unwrap();
    let begin = tokio::time::Instant::now();
    tokio::join!(engine.shutdown(), engine.shutdown());
    let took = begin.elapsed();
    assert!((Duration::from_secs(12)..Duration::from_millis(12_100)).contains(&took), "{took:?}");
    short.wait().await.unwrap();
    assert!(serving.wait().await.is_err());
    assert_eq!(called.load(Ordering::SeqCst), 2);
    assert!(matches!(engine.job("sleep").run().await, Err(Error::Shutdown)));
    engine.shutdown().await;

    let engine = Engine::new();
    engine
        .register("stuck", async |_| {
            std::future::pending::<()>().await;
            Ok(())
        })
        .unwrap();
    let stuck = engine.job("stuck").spawn().unwrap();
    let begin = tokio::time::Instant::now();
    engine.shutdown().await;
    assert_eq!(begin.elapsed().as_secs(), engine::JOB_LIMIT.as_secs());
    assert_eq!(stuck.wait().await.unwrap_err().kind(), Kind::Cancelled);
}
