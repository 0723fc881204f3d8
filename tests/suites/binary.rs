//! A binary that is rebuilt in place: nodes take it when they are told to, and only then.

use e2e::{TestHome, binary, quickstart};
use nix::sys::signal::{Signal, kill};
use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
    time::Duration,
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
    home.eventually("it is back", Duration::from_secs(5), |home| home.node(node)["status"]["restartCount"] == 1);
    home.ctl(&["wait", node, "--for=Running", "--timeout", "5s"]).ok();
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
