//! A binary that is rebuilt in place: nodes take it when they are told to, and only then.

use e2e::{TestHome, binary, quickstart};
use nix::sys::signal::{Signal, kill};
use std::{
    fs::{self, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

/// What a build does: another file under the same name. Bytes behind the end of an ELF file change nothing of what it does.
fn rebuild(path: &Path) {
    let next = path.with_extension("new");
    fs::copy(path, &next).unwrap();
    OpenOptions::new().append(true).open(&next).unwrap().write_all(b"rebuilt").unwrap();
    fs::rename(&next, path).unwrap();
}

/// The size of the program that a node's process runs.
fn running(home: &TestHome, node: &str) -> u64 {
    fs::metadata(format!("/proc/{}/exe", home.pid(node))).unwrap().len()
}

/// Bytes of a cached file go bad, as on a disk that fails.
fn spoil(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    // The kernel lets nobody write to a program that runs; whoever puts another file there is not kept from it.
    let other = path.with_extension("bad");
    fs::copy(path, &other).unwrap();
    OpenOptions::new().append(true).open(&other).unwrap().write_all(b"bad").unwrap();
    fs::rename(&other, path).unwrap();
}

#[test]
fn a_cached_binary_that_was_altered_is_told_not_launched_and_mended_from_its_source() {
    let home = TestHome::new();
    let program = home.path().join("devchain");
    fs::copy(binary("devchain"), &program).unwrap();
    let text = quickstart("quick", "{backoff: 100ms}").replace("validators: 4", &format!("validators: 1\n  binary: {{path: {}}}", program.display()));
    home.ctl(&["up", &home.file("quick.yaml", &text.replace("fullNodes: 1", "fullNodes: 0"))]).ok();
    let (node, source) = ("quick/validator-0", program.display().to_string());
    home.ctl(&["binaries", "verify"]).ok().prints("whole").prints("quick");
    home.ctl(&["binaries", "verify", "devchain"]).ok();
    home.ctl(&["binaries", "evict", "devchain", "--yes"]).exits(4).says("is used by quick");
    let cached = home.node(node)["spec"]["binaryPath"].as_str().unwrap().to_owned();
    spoil(Path::new(&cached));
    let verdicts: serde_json::Value = serde_json::from_str(&home.ctl(&["binaries", "verify", "-o", "json"]).exits(1).stdout).unwrap();
    assert_eq!((verdicts["items"][0]["state"].as_str(), verdicts["items"][0]["binary"]["usedBy"][0].as_str()), (Some("altered"), Some("quick")));

    kill(home.pid(node), Signal::SIGKILL).unwrap();
    home.eventually("it is not started with other bytes", Duration::from_secs(60), |home| home.node(node)["status"]["phase"] == "Failed");
    let failed = home.node(node);
    assert!(failed["status"]["lastExit"]["message"].as_str().unwrap().contains("was altered on disk"), "{failed}");
    home.ctl(&["describe", node]).ok().prints("dvbctl binaries verify");
    let mend = format!("dvbctl binaries add --path {source}");
    home.ctl(&["binaries", "verify"]).exits(1).says(&format!("{cached} was altered on disk")).says(&mend);
    home.ctl(&["binaries", "add", "--path", &source]).ok();
    home.ctl(&["binaries", "verify"]).ok();
    home.ctl(&["restart", node]).ok();
    home.all_rise("quick", 1);

    // The source has moved on: the devnet takes what is there now.
    spoil(Path::new(&cached));
    rebuild(&program);
    home.ctl(&["binaries", "verify"]).exits(1).says("dvbctl restart quick --refresh-binary");
    home.ctl(&["restart", "quick", "--refresh-binary"]).ok();
    home.all_rise("quick", 1);
    let left = home.ctl(&["binaries", "verify"]).exits(1);
    let evict = left.stderr.split("try: ").nth(1).unwrap().split(';').next().unwrap().to_owned();
    assert!(evict.starts_with("dvbctl binaries evict "), "{evict}");
    home.ctl(&["binaries", "evict", evict.rsplit(' ').next().unwrap(), "--yes"]).ok();
    home.ctl(&["binaries", "verify"]).ok();
}

#[test]
fn a_rebuilt_binary_is_taken_by_refresh_binary_and_by_nothing_else() {
    let home = TestHome::new();
    let program = home.path().join("devchain");
    fs::copy(binary("devchain"), &program).unwrap();
    let text = quickstart("quick", "{backoff: 100ms}").replace("validators: 4", &format!("validators: 1\n  binary: {{path: {}}}", program.display()));
    let text = text.replace("fullNodes: 1", "fullNodes: 0");
    let file = home.file("quick.yaml", &text);
    home.ctl(&["up", &file]).ok();
    let node = "quick/validator-0";
    let (hash, size) = (home.node(node)["spec"]["binaryHash"].clone(), running(&home, node));
    assert_eq!(size, fs::metadata(&program).unwrap().len());
    assert!(hash.as_str().is_some_and(|hash| hash.len() == 64), "{hash}");
    rebuild(&program);

    let same = |why: &str| {
        assert_eq!((running(&home, node), &home.node(node)["spec"]["binaryHash"]), (size, &hash), "{why}");
    };
    home.ctl(&["restart", "quick"]).ok();
    same("a restart");
    home.ctl(&["restart", node]).ok();
    same("a restart of the node");
    kill(home.pid(node), Signal::SIGKILL).unwrap();
    home.eventually("it is back", Duration::from_secs(60), |home| home.node(node)["status"]["restartCount"] == 1);
    home.ctl(&["wait", node, "--for=Running", "--timeout", "60s"]).ok();
    same("a death");
    home.ctl(&["stop", "quick"]).ok();
    home.ctl(&["start", "quick"]).ok();
    same("stop and start");
    home.file("quick.yaml", &text.replace("300ms", "200ms"));
    home.ctl(&["apply", "-f", &file, "--wait"]).ok();
    same("another spec");

    home.ctl(&["restart", "quick", "--refresh-binary"]).ok();
    assert_eq!(running(&home, node), fs::metadata(&program).unwrap().len());
    let after = home.node(node)["spec"]["binaryHash"].clone();
    assert_ne!(after, hash);
    assert_eq!(home.devnet("quick")["status"]["binary"]["sha256"], after);
    home.all_rise("quick", 1);
}

/// Half of the file, and the rest when `go` exists, for which it looks five minutes long.
fn serve_slowly(bytes: Vec<u8>, go: std::path::PathBuf) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len());
            let (first, rest) = bytes.split_at(bytes.len() / 2);
            let _ = stream.read(&mut [0; 4096]); // one short request
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(first)); // or its client went away
            let given_up = Instant::now() + Duration::from_secs(300);
            while !go.exists() && Instant::now() < given_up {
                std::thread::sleep(Duration::from_millis(20)); // the test's word comes as a file
            }
            let _ = stream.write_all(rest);
        }
    });
    format!("http://{address}/devchain-v2")
}

#[test]
fn an_upgrade_by_url_tells_of_its_download_and_asks_nothing_of_the_chain_before_it_is_whole() {
    let home = TestHome::new();
    home.up_quickstart("quick", "{backoff: 300ms}");
    let bytes = fs::read(binary("devchain-v2")).unwrap();
    let (go, sha256) = (home.path().join("go"), dvb_plugin_sdk::sha256_hex(&bytes));
    let url = serve_slowly(bytes, go.clone());
    let height = (home.highest("quick") + 300).to_string();
    home.ctl(&["upgrade", "create", "quick", "--name", "v2", "--height", &height, "--url", &url, "--sha256", &sha256, "--skip-vote"]).ok();
    let status = |home: &TestHome| home.json(&["get", "upgrade", "quick/v2"])["status"].clone();
    home.eventually("it says what it downloads", Duration::from_secs(30), |home| {
        let now = status(home);
        now["phase"] == "Pending" && now["message"] == format!("downloading {url}").as_str()
    });
    fs::write(&go, "").unwrap();
    home.ctl(&["upgrade", "status", "quick/v2", "--wait", "--timeout", "400s"]).ok().prints("Completed");
    assert_eq!(home.devnet("quick")["status"]["binary"]["sha256"], sha256.as_str());
    home.all_rise("quick", 1);
}
