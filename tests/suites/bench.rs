//! The harness beside other supervisors reads our files and our words as it did when its figures were taken.

use e2e::{binary, end_processes_of};
use serde_json::Value;
use std::{fs, path::Path, process::Command};

/// In seconds; it takes about one minute. Told to end, it ends what it has started, for which it has another.
const LIMIT: &str = "600";
const ENDING: &str = "60";

#[test]
#[expect(clippy::disallowed_methods, reason = "the harness is no program of ours")]
fn the_bench_still_understands_us_and_finds_nothing_lost() {
    for program in ["python3", "cc"] {
        if !Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success()) {
            return println!("SKIP: there is no {program}");
        }
    }
    let scratch = tempfile::Builder::new().prefix("dvb").tempdir().unwrap();
    let (out, bin) = (scratch.path().join("out"), binary("devnetd").parent().unwrap().to_owned());
    let mut bench = Command::new("timeout");
    bench.args(["--signal", "INT", "--kill-after", ENDING, LIMIT, "python3"]).arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/bench.py"));
    bench.args(["--peers", "devnetd", "--tests", "kill,log", "--log-reps", "1", "--lines", "20000", "--max-wait", "0"]);
    bench.arg("--work").arg(scratch.path().join("w")).arg("--out").arg(&out).arg("--bin").arg(bin);
    let output = bench.output().unwrap();
    end_processes_of(scratch.path()); // of one that had to be killed
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let figures: Value = serde_json::from_slice(&fs::read(out.join("devnetd.json")).expect(&said)).unwrap();
    let (kill, log) = (&figures["kill"], &figures["log"]);
    assert_eq!((&log["lost"], &log["torn"], &log["twice"]), (&0.into(), &0.into(), &0.into()), "{said}");
    assert_eq!(kill["survive"], 3, "{said}");
    assert_eq!((&kill["recover"], &kill["verdict"]), (&"ok".into(), &"kept, still supervised".into()), "{kill}\n{said}");
}
