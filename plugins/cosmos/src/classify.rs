//! Why a node ended, from its last lines; and what to do about it.
//!
//! A Cosmos binary names its end in one line: `panic: ...`, `ERR failure when running app err=...` (0.50 and later) or
//! `Error: ...` (0.47), often before sixty lines of usage. A panic's text may go over many lines, up to its stack. Only such
//! passages decide; what a healthy node logs never does. The host waits 300 ms, so of each line only its beginning is read.
//!
//! CometBFT ends neither on a consensus failure nor on another app hash: the process lives on and makes no blocks. Of a node that lives and
//! stands still, the refusal of a block counts as well; one that goes on refuses the odd block of others.

use dvb_plugin_sdk::pb;
use regex::Regex;
use std::sync::LazyLock;

/// A plan's name, "height" or "time", and the number; the name may stand in escaped quotes.
static UPGRADE: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"UPGRADE \\?"([^"\\]+)\\?" NEEDED at (height|time): (\d+)"#).expect("a constant pattern that tests use"));

const LONGEST_MESSAGE: usize = 600;
const LONGEST_LINE: usize = 2048;
const STACK_REMEDY: &str = "the stack is in the node's log";
const GENESIS_REMEDY: &str = "the chain refuses this genesis: look at spec.genesis.patch, then `reset`";

struct Rule {
    class: &'static str,
    /// Any of these in a fatal line.
    texts: &'static [&'static str],
    remedy: &'static str,
}

/// First match wins.
const RULES: &[Rule] = &[
    Rule {
        class: "upgrade-needed",
        texts: &["BINARY UPDATED BEFORE TRIGGER"],
        remedy: "go back to the binary that ran before; the upgrade's height is not reached yet",
    },
    Rule {
        class: "upgrade-needed",
        texts: &["mismatch root store's version", "failed to load store: wanted to load target"],
        remedy: "the binary and the stored state are of different versions; start the binary that the state belongs to",
    },
    Rule {
        class: "db-locked",
        texts: &["resource temporarily unavailable", "Could not lock exclusive.lock", "lock held by current process", "LOCK: No locks available"],
        remedy: "another process uses this home; find it with `fuser` on data/application.db/LOCK in the home and stop it",
    },
    Rule { class: "port-busy", texts: &["bind: address already in use"], remedy: "find the program that listens there with `ss -ltnp` and stop it" },
    Rule {
        class: "key-refused",
        texts: &["found signature from the same key"],
        remedy: "make sure that no other process signs with this key, then set consensus.double_sign_check_height to 0",
    },
    Rule {
        class: "app-hash",
        texts: &["wrong Block.Header.AppHash", "AppHash does not match", "app hash mismatch", "wrong Block.Header.LastResultsHash"],
        remedy: "this node computed another state than the others: compare binaries, then rebuild its data with `reset` or from a healthy node",
    },
    Rule {
        class: "genesis-mismatch",
        texts: &[
            "genesis doc hash in db does not match",
            "invalid chain-id on InitChain",
            "genesis supply is incorrect",
            "not bonded pool balance is different",
            "fee payer address:",
            "invalid coin denomination: got",
            "signature verification failed; please verify account number (0)",
            "validator set is empty after InitGenesis",
            "error reading GenesisDoc",
            "couldn't read GenesisDoc file",
        ],
        remedy: GENESIS_REMEDY,
    },
    Rule {
        class: "bad-flag",
        texts: &[
            "unknown flag",
            "unknown shorthand flag",
            "unknown command",
            "flag needs an argument",
            "invalid argument",
            "accepts at most",
            "accepts 0 arg",
        ],
        remedy: "correct spec.nodes[].args",
    },
    Rule {
        class: "bad-flag",
        texts: &["While parsing config", "error in config file", "set min gas price in app.toml", "failed to read in "],
        remedy: "correct spec.nodes[].config",
    },
    Rule { class: "unknown", texts: &["no space left on device"], remedy: "free disk space" },
    Rule { class: "oom", texts: &["out of memory", "cannot allocate memory"], remedy: "raise spec.resources.memory" },
];

/// Decides by the lines; signals and exit codes alone say nothing about a chain.
pub fn classify(request: &pb::ClassifyExitRequest) -> pb::ExitClass {
    let lines: Vec<String> = request.log_tail.iter().map(|line| text(line)).collect();
    if request.oom_killed {
        return found("oom", last_said(&lines), "raise spec.resources.memory");
    }
    if let Some(class) = upgrade_needed(&lines) {
        return class;
    }
    let passages = fatal_passages(&lines);
    for rule in RULES {
        if let Some(line) = passages.iter().flat_map(|p| *p).find(|line| rule.texts.iter().any(|text| line.contains(text))) {
            return found(rule.class, line, rule.remedy);
        }
    }
    if request.alive
        && let Some((rule, line)) = refused_block(&lines)
    {
        return found(rule.class, line, rule.remedy);
    }
    match passages.first() {
        Some([line, ..]) if head(line).contains(CONSENSUS_FAILURE) => found("consensus-failure", line, CONSENSUS_REMEDY),
        Some(passage) if stack_is_of_genesis(&lines) => found("genesis-mismatch", passage.last().map_or("", String::as_str), GENESIS_REMEDY),
        Some([line, ..]) if !line.contains(RETURNED_ERROR) && !line.starts_with("Error:") => found("panic", line, STACK_REMEDY),
        Some([line, ..]) => found("unknown", line, ""),
        _ if lines.iter().any(|line| is_frame(line)) => found("panic", "it panicked; the first line of that is further up in its log", STACK_REMEDY),
        _ => found("unknown", last_said(&lines), ""),
    }
}

/// Which upgrade a halted chain waits for; also used while the node is still alive.
pub fn upgrade_remedy(name: &str) -> String {
    format!("give the node a binary that has the upgrade handler \"{name}\", then start it")
}

/// One line of a log without colours; bytes that are no UTF-8 are replaced, and what is beyond reading is cut off.
pub fn plain(line: &[u8]) -> String {
    anstream::adapter::strip_str(&text(line)).to_string().trim_end().to_owned()
}

/// At most a few hundred characters: stacks and dumps belong into the log.
pub fn shorten(line: &str) -> String {
    match line.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.to_owned(),
    }
}

/// The last block that this node refused for another state than its own.
fn refused_block(lines: &[String]) -> Option<(&'static Rule, &String)> {
    let rule = RULES.iter().find(|rule| rule.class == "app-hash")?;
    Some((rule, lines.iter().rev().find(|line| rule.texts.iter().any(|text| line.contains(text)))?))
}

fn upgrade_needed(lines: &[String]) -> Option<pb::ExitClass> {
    let telling = lines.iter().filter(|line| line.contains("NEEDED at"));
    let (line, captures) = telling.map(|line| (line, UPGRADE.captures(line))).find_map(|(line, found)| Some((line, found?)))?;
    // A skipped or finished upgrade is not logged in these words, so the plan is the one that stopped the node.
    Some(found("upgrade-needed", line, &upgrade_remedy(&captures[1])))
}

/// The lines in which the node names its end: one line of an error, or a panic's text up to its stack.
fn fatal_passages(lines: &[String]) -> Vec<&[String]> {
    let stack_after = |from: usize| from + lines[from..].iter().position(|l| l.is_empty() || is_stack(l)).unwrap_or(lines.len() - from);
    let mut passages = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let end = match &lines[at] {
            line if is_panic(line) => stack_after(at + 1),
            line if line.starts_with("Error:") || head(line).contains(RETURNED_ERROR) => at + 1,
            _ => at,
        };
        if end > at {
            passages.push(&lines[at..end]);
        }
        at = end.max(at + 1);
    }
    // The tail may begin within a long panic: then all before the stack belongs to it.
    match lines.iter().position(|line| is_stack(line)) {
        Some(stack) if passages.is_empty() && stack > 0 && !lines[..stack].iter().any(|line| is_frame(line)) => vec![&lines[..stack]],
        _ => passages,
    }
}

/// 0.50 and later log the error that ended `start`.
const RETURNED_ERROR: &str = "failure when running app";
const CONSENSUS_FAILURE: &str = "CONSENSUS FAILURE!!!";
const CONSENSUS_REMEDY: &str = "the chain's code could not apply a block: the stack is in the node's log; another binary, or `reset`, goes on";

fn is_panic(line: &str) -> bool {
    line.starts_with("panic:") || line.starts_with("fatal error:") || line.starts_with("[signal SIG") || head(line).contains(CONSENSUS_FAILURE)
}

fn is_stack(line: &str) -> bool {
    line.starts_with("goroutine ") && line.ends_with(':')
}

/// Where in the source a function of a stack was.
fn is_frame(line: &str) -> bool {
    line.starts_with('\t') && line.contains(".go:")
}

/// Whatever the words, a panic while the genesis is run is the genesis's fault.
fn stack_is_of_genesis(lines: &[String]) -> bool {
    lines.iter().any(|line| head(line).contains(".InitGenesis("))
}

/// Where a log line says what it is about.
fn head(line: &str) -> &str {
    beginning(line, 300)
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(LONGEST_LINE)]).trim_end().to_owned()
}

fn beginning(line: &str, bytes: usize) -> &str {
    &line[..line.floor_char_boundary(bytes)]
}

fn last_said(lines: &[String]) -> &str {
    lines.iter().rev().map(|line| line.trim()).find(|line| !line.is_empty()).unwrap_or("it said nothing")
}

fn found(class: &str, line: &str, remedy: &str) -> pb::ExitClass {
    // The stack that a consensus failure carries in its line tells nothing to the reader of one line.
    let line = plain(line.as_bytes());
    let line = line.split(" stack=").next().unwrap_or(&line);
    // The last line of a panic about a transaction begins with the end of its JSON.
    let line = line.trim().trim_start_matches("}': ");
    pb::ExitClass { class: class.into(), message: shorten(line), remedy: remedy.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classify_lines(lines: &[&[u8]]) -> pb::ExitClass {
        classify(&pb::ClassifyExitRequest { exit_code: Some(1), log_tail: lines.iter().map(|l| l.to_vec()).collect(), ..Default::default() })
    }

    #[track_caller]
    fn check(line: &str, class: &str) {
        let noise = ["5:45AM INF Starting IndexerService service", "Usage:", "  <appd> start [flags]", "Flags:", "      --abci string"];
        let lines: Vec<&[u8]> = [noise[0], line].into_iter().chain(noise[1..].iter().copied()).map(str::as_bytes).collect();
        let got = classify_lines(&lines);
        assert_eq!(got.class, class, "{line}");
        let said = plain(line.as_bytes());
        assert!(said.starts_with(&got.message), "the decisive line is told: {}", got.message);
    }

    #[test]
    fn real_lines_of_the_three_sdk_versions_are_recognised() {
        check(r#"Error: failed to initialize database: resource temporarily unavailable"#, "db-locked");
        check(
            "\x1b[90m5:45AM\x1b[0m \x1b[31mERR\x1b[0m \x1b[1mfailure when running app\x1b[0m \x1b[36merr=\x1b[0m\"failed to initialize database: resource temporarily unavailable\"",
            "db-locked",
        );
        check(r#"5:45AM ERR failure when running app err="listen tcp 127.0.191.4:26656: bind: address already in use""#, "port-busy");
        check(r#"5:45AM ERR failure when running app err="unknown flag: --no-such""#, "bad-flag");
        check("Error: unknown flag: --no-such", "bad-flag");
        check("Error: listen tcp 127.0.191.4:26657: bind: address already in use", "port-busy");
        check("panic: Expected signing info for validator 2C6F0D but not found", "panic");
        check(r#"5:45AM ERR CONSENSUS FAILURE!!! err="failed to apply block; error no validator signing info found""#, "consensus-failure");
        check(r#"5:45AM ERR CONSENSUS FAILURE!!! err="failed to apply block; error halt per configuration height 73 time 0""#, "consensus-failure");
        check("panic: genesis supply is incorrect, expected 5stake, got 3000000000000stake", "genesis-mismatch");
        check("panic: not bonded pool balance is different from not bonded coins:  <-> 1000000000stake", "genesis-mismatch");
        check("panic: invalid coin denomination: got stake, expected uother: invalid request", "genesis-mismatch");
        check("panic: signature verification failed; please verify account number (0) and chain-id (other-1): unauthorized", "genesis-mismatch");
        check("panic: Failed to start consensus state: found signature from the same key", "key-refused");
        check("panic: runtime error: index out of range [3] with length 3", "panic");
        check("fatal error: runtime: out of memory", "oom");
    }

    #[test]
    fn a_needed_upgrade_is_told_with_its_name_whatever_the_version() {
        let lines = [
            r#"5:45AM ERR UPGRADE "v0.50" NEEDED at height: 38: {} module=server"#,
            r#"panic: UPGRADE "v0.50" NEEDED at height: 38: {}"#,
            r#"5:45AM ERR failure when running app err="error during handshake: error on replay: UPGRADE \"v0.50\" NEEDED at height: 38: {}""#,
            r#"5:45AM ERR CONSENSUS FAILURE!!! err="failed to apply block; error UPGRADE \"v0.50\" NEEDED at height: 38: " module=consensus stack="goroutine""#,
        ];
        for line in lines {
            let got = classify_lines(&[line.as_bytes()]);
            assert_eq!(got.class, "upgrade-needed", "{line}");
            assert!(got.remedy.contains("\"v0.50\"") && !got.message.contains("stack="), "{got:?}");
        }
        check(
            "panic: version of store circuit mismatch root store's version; expected 0 got 5; new stores should be added using StoreUpgrades",
            "upgrade-needed",
        );
        check(
            "panic: version of store protocolpool mismatch root store's version; expected 0 got 77; new stores should be added using StoreUpgrades",
            "upgrade-needed",
        );
        check(
            r#"panic: BINARY UPDATED BEFORE TRIGGER! UPGRADE "v0.60" - in binary but not executed on chain. Downgrade your binary"#,
            "upgrade-needed",
        );
        check(
            r#"5:45AM ERR failure when running app err="failed to load store: wanted to load target 83 but only found up to 37""#,
            "upgrade-needed",
        );
    }

    #[test]
    fn an_app_hash_that_differs_is_recognised() {
        check("panic: Failed to process committed block (7:AB): wrong Block.Header.AppHash.  Expected 0A, got 0B", "app-hash");
        check(
            r#"11:49PM ERR CONSENSUS FAILURE!!! err="precommit step; +2/3 prevoted for an invalid block: wrong Block.Header.AppHash.  Expected 4B, got 78" module=consensus stack="goroutine 172""#,
            "app-hash",
        );
    }

    /// Two of four came to another state: no block finds enough votes, and nobody fails.
    #[test]
    fn a_refused_block_tells_of_another_state_only_where_a_living_node_stands_still() {
        let refusal = r#"11:49PM ERR prevote step: consensus deems this block invalid; prevoting nil err="wrong Block.Header.AppHash.  Expected 1B, got FC" height=2 module=consensus round=0"#;
        let class = |alive| {
            let log_tail = vec![refusal.as_bytes().to_vec(), b"11:49PM INF dialing a peer".to_vec()];
            classify(&pb::ClassifyExitRequest { log_tail, alive, ..Default::default() })
        };
        assert_eq!((class(true).class.as_str(), class(false).class.as_str()), ("app-hash", "unknown"));
        assert!(class(true).message.contains("Expected 1B, got FC"), "{}", class(true).message);
    }

    #[test]
    fn a_panic_of_many_lines_is_read_up_to_its_stack_also_when_its_beginning_is_lost() {
        let panic = "panic: failed to execute DeliverTx for '{\n  \"body\": {\n }': signature verification failed; please verify account number (0) and \
            chain-id (it-9): unauthorized\n\ngoroutine 1 [running]:\nx/genutil.AppModule.InitGenesis({{_}})";
        let lines: Vec<&[u8]> = panic.lines().map(str::as_bytes).collect();
        for from in 0..=2 {
            let got = classify_lines(&lines[from..]);
            assert_eq!(got.class, "genesis-mismatch");
            assert!(got.message.starts_with("signature verification failed"), "{}", got.message);
        }
        let other = classify_lines(&[b"panic: a module's own words", b"", b"goroutine 1 [running]:", b"x/foo.AppModule.InitGenesis({{_}})"]);
        assert_eq!((other.class.as_str(), other.message.as_str()), ("genesis-mismatch", "panic: a module's own words"));
    }

    #[test]
    fn a_line_of_a_stack_is_never_taken_for_the_cause_of_a_panic() {
        let stack =
            ["main.start(0x1)", "\t/src/start.go:12 +0x1d", "", "goroutine 55 [select]:", "net.wait()", "\t/src/net.go:3 +0x2", "exit status 2"];
        let words = |lines: &[&str]| classify_lines(&lines.iter().map(|line| line.as_bytes()).collect::<Vec<_>>());
        let lost = words(&stack);
        assert_eq!((lost.class.as_str(), lost.message.as_str()), ("panic", "it panicked; the first line of that is further up in its log"));
        let whole = words(&[&["INF height 3", "panic: no validator signing info", "", "goroutine 1 [running]:"], stack.as_slice()].concat());
        assert_eq!((whole.class.as_str(), whole.message.as_str()), ("panic", "panic: no validator signing info"));
    }

    #[test]
    fn words_of_a_healthy_node_decide_nothing() {
        let got = classify_lines(&[
            b"5:45AM ERR dialing peer err=\"bind: address already in use\"",
            b"5:45AM INF fee payer address: x does not exist",
            b"",
        ]);
        assert_eq!((got.class.as_str(), got.message.as_str()), ("unknown", "5:45AM INF fee payer address: x does not exist"));
        assert_eq!(classify_lines(&[]).message, "it said nothing");
    }

    #[test]
    fn bytes_that_are_no_text_and_endless_lines_are_survived() {
        let got = classify_lines(&[b"panic: \xff\xfe broken"]);
        assert_eq!(got.message, "panic: \u{fffd}\u{fffd} broken");
        let long = format!("panic: {}", "ä".repeat(10_000));
        assert!(classify_lines(&[long.as_bytes()]).message.chars().count() <= LONGEST_MESSAGE + 3);
    }

    #[test]
    fn an_oom_kill_counts_before_any_line() {
        let request = pb::ClassifyExitRequest { oom_killed: true, log_tail: vec![b"panic: x".to_vec()], ..Default::default() };
        assert_eq!(classify(&request).class, "oom");
    }
}
