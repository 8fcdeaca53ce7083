//! The first thing that has to work: an engine that boots, answers and goes away.

use e2e::Engine;

#[test]
fn it_boots_and_answers() {
    let engine = Engine::start();
    assert_eq!(engine.ok("docker run --rm busybox echo hello"), "hello");
}
