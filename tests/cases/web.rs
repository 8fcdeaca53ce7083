//! What comes from web servers that are no registries of today: `docker import http://…` and `docker search`.

use std::fs;

use e2e::{Engine, Page, WebServer, busybox_tar, request};

#[test]
fn a_root_file_system_is_imported_from_a_url() {
    let tar = fs::read(busybox_tar()).expect("read a file");
    let server = WebServer::start(move |target| match target {
        "/root.tar" => Page::new(200, tar.clone()),
        "/half.tar" => Page { status: 200, length: tar.len(), body: tar[..tar.len() / 2].to_vec() },
        "/private.tar" => Page::new(403, "go away\u{1b}[2J"),
        _ => Page::new(404, "nothing here"),
    });
    let engine = Engine::with().without_image().start();
    let url = format!("http://{}/root.tar", server.address);
    let said = engine.ok(&format!("docker import -c 'CMD [\"sh\"]' {url} web:1"));
    assert!(said.contains(&format!("Downloading from {url}")), "{said}");
    let id = said.lines().last().expect("a line").to_owned();
    assert_eq!(engine.inspect("web:1", "{{.Id}} {{.Comment}}"), format!("{id} Imported from {url}"));
    assert_eq!(engine.ok("docker run --rm web:1 busybox echo from the web"), "from the web");
    // As Docker: who says no scheme means http. The CLI would look for a file, so this goes without it.
    let bare = format!("/images/create?fromSrc={}/root.tar&repo=bare", server.address);
    let answer = request(&engine.socket(), "POST", &bare, &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        answer.text().contains(r#""status":"Importing""#) && answer.text().contains(r#""total":"#),
        "{}",
        answer.text()
    );
    assert_eq!(server.asked(), ["/root.tar", "/root.tar"]);

    // Nothing of what fails stays.
    let images = engine.ok("docker images -q --no-trunc");
    for (path, why) in [
        ("half.tar", ""),
        ("gone.tar", "with status 404 Not Found: nothing here"),
        ("private.tar", "with status 403 Forbidden: go away[2J"),
    ] {
        engine.fails(&format!("docker import http://{}/{path} bad", server.address)).says(why);
    }
    engine.fails("docker import http://127.0.0.1:1/x.tar bad").says("connection refused");
    let status =
        |from: &str| request(&engine.socket(), "POST", &format!("/images/create?fromSrc={from}"), &[], b"").status;
    assert_eq!(status("http://no%20host/x"), 400);
    assert_eq!(status("file:///etc/passwd"), 500);
    assert_eq!(engine.ok("docker images -q --no-trunc"), images);
}

#[test]
fn a_registry_is_searched() {
    let found = r#"{"num_results": 2, "query": "box", "results": [
        {"name": "team/box", "description": "A box\u001b[2J", "star_count": 12, "is_official": false},
        {"name": "box", "description": "The box", "star_count": 3, "is_official": true, "is_automated": false}]}"#;
    let server = WebServer::start(move |target| match target.strip_prefix("/v1/search?q=") {
        Some(query) if query.starts_with("box&") => Page::new(200, found),
        Some(query) if query.starts_with("none&") => Page::new(200, r#"{"num_results": 0, "results": []}"#),
        Some(query) if query.starts_with("odd&") => Page::new(200, "no JSON"),
        _ => Page::new(404, ""),
    });
    let engine = Engine::with().without_image().start();
    let search = |flags: &str, word: &str| {
        engine.ok(&format!(
            "docker search {flags} --format '{{{{.Name}}}} {{{{.StarCount}}}} {{{{.IsOfficial}}}} {{{{.Description}}}}' {}/{word}",
            server.address
        ))
    };
    assert_eq!(search("", "box"), "team/box 12  A box[2J\nbox 3 [OK] The box");
    assert_eq!(search("--filter is-official=true", "box"), "box 3 [OK] The box");
    assert_eq!(search("--filter stars=5", "box"), "team/box 12  A box[2J");
    assert_eq!(search("--limit 1", "box"), "team/box 12  A box[2J");
    assert!(server.asked().contains(&"/v1/search?q=box&n=1".to_owned()), "{:?}", server.asked());
    assert_eq!(search("", "none"), "");
    let failing = |rest: &str| engine.fails(&format!("docker search {rest}"));
    failing(&format!("{}/odd", server.address)).says("error decoding registry search results");
    failing(&format!("{}/other", server.address)).says("Unexpected status code 404");
    failing(&format!("--limit 101 {}/box", server.address)).says("limit 101 is outside the range of [1, 100]");
    failing(&format!("--filter x=1 {}/box", server.address)).says("invalid filter 'x'");
    failing("http://a/b").says("should not have a scheme");
}
