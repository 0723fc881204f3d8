//! Programs by http from a server of the test's own.

use super::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

const PROGRAM: &str = "#!/bin/sh\necho web\n";

/// `/chaind` is the program, `/moved` leads there, `/cut` breaks off in its middle; there is nothing else.
struct Server {
    root: String,
    task: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let root = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 2048];
                let length = stream.read(&mut asked).await.unwrap();
                let path = String::from_utf8_lossy(&asked[..length]).split(' ').nth(1).unwrap_or_default().to_owned();
                stream.write_all(answer(&path).as_bytes()).await.unwrap(); // and closes
            }
        });
        Self { root, task }
    }

    fn source(&self, path: &str, sha256: &str) -> BinarySource {
        BinarySource { url: Some(format!("{}{path}", self.root)), sha256: Some(sha256.into()), ..BinarySource::default() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(path: &str) -> String {
    let whole = |body: &str, length: usize| format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    match path {
        "/chaind" => whole(PROGRAM, PROGRAM.len()),
        "/cut" => whole(&PROGRAM[..9], PROGRAM.len()),
        "/moved" => "HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: /chaind\r\ncontent-length: 0\r\n\r\n".to_owned(),
        _ => "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(),
    }
}

/// A bed that can fetch, the server, and the program's digest; none where there is no curl.
async fn set_up() -> Option<(Bed, Server, String)> {
    if !Path::new("/usr/bin/curl").exists() {
        eprintln!("SKIP: no /usr/bin/curl to fetch with");
        return None;
    }
    let digest = digest::hex(&Sha256::digest(PROGRAM));
    Some((Bed::new(), Server::start().await, digest))
}

#[tokio::test]
async fn a_program_is_fetched_once_also_from_where_it_moved_to() {
    let Some((bed, server, digest)) = set_up().await else { return };
    let fetched = bed.resolve(&server.source("/moved", &digest)).await.unwrap();
    assert_eq!((fetched.sha256.as_str(), fs::read_to_string(&fetched.path).unwrap().as_str()), (digest.as_str(), PROGRAM));
    let again = server.source("/chaind", &digest);
    drop(server);
    assert_eq!(bed.resolve(&again).await.unwrap().path, fetched.path, "what is cached needs no server");
}

#[tokio::test]
async fn what_is_not_whole_not_there_or_not_what_was_asked_for_is_never_cached() {
    let Some((bed, server, digest)) = set_up().await else { return };
    let wrong = bed.resolve(&server.source("/chaind", &"0".repeat(64))).await.unwrap_err().to_string();
    assert!(wrong.contains(&digest) && wrong.contains(&"0".repeat(64)), "both digests are named: {wrong}");
    let missing = bed.resolve(&server.source("/none", &digest)).await.unwrap_err().to_string();
    assert!(missing.contains("404"), "{missing}");
    let cut = bed.resolve(&server.source("/cut", &digest)).await.unwrap_err().to_string();
    assert!(cut.contains("download"), "{cut}");
    let gone = server.source("/chaind", &digest);
    drop(server);
    assert!(bed.resolve(&gone).await.is_err());
    assert_eq!(bed.binaries.list().await.unwrap(), vec![]);
    assert!(fs::read_dir(bed.at("home/cache/builds")).unwrap().all(|entry| entry.unwrap().path().is_file()), "logs stay, and nothing else");
}
