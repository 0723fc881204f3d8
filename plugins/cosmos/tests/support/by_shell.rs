//! A network made the classical way, by the chain's own commands one after the other: what provisioning is compared with.

use super::{Wasmd, command, text};
use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

/// How long `init`, `keys add`, `add-genesis-account`, `gentx` and `collect-gentxs` take together for four validators.
pub(crate) fn four_validators(wasmd: &Wasmd) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let homes: Vec<String> = (0..4).map(|index| text(&dir.path().join(format!("n{index}")))).collect();
    let gentxs = dir.path().join("gentxs");
    fs::create_dir(&gentxs).unwrap();
    let begun = Instant::now();
    for home in &homes {
        run(wasmd, home, &["init", "n", "--chain-id", "shell-1"]);
        run(wasmd, home, &["keys", "add", "val", "--keyring-backend", "test"]);
        let address = run(wasmd, home, &["keys", "show", "val", "-a", "--keyring-backend", "test"]);
        // Each validator needs its own account to sign, the first one all of them.
        for holder in BTreeSet::from([home, &homes[0]]) {
            run(wasmd, holder, &["genesis", "add-genesis-account", address.trim(), "1000000000000stake"]);
        }
        let out = text(&gentxs.join(format!("{}.json", Path::new(home).file_name().unwrap().display())));
        let gentx = ["genesis", "gentx", "val", "1000000000stake", "--chain-id", "shell-1", "--keyring-backend", "test", "--output-document", &out];
        run(wasmd, home, &gentx);
    }
    run(wasmd, &homes[0], &["genesis", "collect-gentxs", "--gentx-dir", &text(&gentxs)]);
    for home in &homes[1..] {
        fs::copy(format!("{}/config/genesis.json", homes[0]), format!("{home}/config/genesis.json")).unwrap();
    }
    let took = begun.elapsed();
    let genesis = fs::read_to_string(format!("{}/config/genesis.json", homes[3])).unwrap();
    assert_eq!(genesis.matches("MsgCreateValidator").count(), 4, "a genesis with all four");
    took
}

fn run(wasmd: &Wasmd, home: &str, arguments: &[&str]) -> String {
    let mut command = command(&wasmd.path);
    command.args(arguments).args(["--home", home]).env("HOME", home).stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
