//! A chain that we did not write: wasmd on the Cosmos SDK, four validators and a full node.

use e2e::{TestHome, is_alive, wasmd};
use nix::sys::signal::{Signal, kill};
use std::time::{Duration, Instant};

#[test]
fn wasmd_makes_blocks_heals_a_killed_validator_and_goes_without_a_trace() {
    let Some(program) = wasmd() else { return };
    let home = TestHome::new();
    let file = home.file(
        "wasm.yaml",
        &format!(
            "apiVersion: devnet.builder/v1\nkind: Devnet\nmetadata: {{name: wasm}}\nspec:\n  plugin: cosmos\n  binary: {{path: {}}}\n  \
             validators: 4\n  fullNodes: 1\n  blockTime: 500ms\n  localhost: false\n  restart: {{backoff: 300ms}}\n",
            program.display()
        ),
    );
    let start = Instant::now();
    home.ctl(&["up", &file, "--timeout", "60s"]).ok();
    home.eventually("all nodes at height 1", Duration::from_secs(30), |home| home.lowest("wasm") >= 1);
    let took = start.elapsed();
    let status = home.devnet("wasm")["status"].clone();
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    println!("wasmd {}, Cosmos SDK {}: {took:.1?} from up to height 1 on all nodes", word(&status["binary"]["version"]), word(&status["sdkVersion"]));
    assert!(!word(&status["sdkVersion"]).is_empty(), "{status}");
    home.eventually("all nodes at height 3", Duration::from_secs(30), |home| home.lowest("wasm") >= 3);

    let pids = home.pids("wasm");
    assert_eq!(pids.len(), 5);
    kill(pids["validator-1"], Signal::SIGKILL).unwrap();
    home.eventually("validator-1 is back", Duration::from_secs(20), |home| home.node("wasm/validator-1")["status"]["restartCount"] == 1);
    home.ctl(&["wait", "wasm", "--for=Running", "--timeout", "30s"]).ok();
    let goal = home.highest("wasm") + 1;
    home.eventually("validator-1 has caught up", Duration::from_secs(30), |home| home.lowest("wasm") >= goal);

    let pids = home.pids("wasm");
    home.ctl(&["delete", "wasm", "--yes"]).ok();
    for (name, pid) in pids {
        assert!(!is_alive(pid), "{name}");
    }
    assert_eq!(home.rows("leases"), 0);
    assert!(!home.home().join("devnets/default/wasm").exists());
}
