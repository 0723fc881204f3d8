//! Why a node ended, from its exit code (see `chain::fault`) and its last lines.

use dvb_plugin_sdk::pb;

const MAX_MESSAGE: usize = 400;
const SIGABRT: i32 = 6;
const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

pub(super) fn classify(request: &pb::ClassifyExitRequest) -> pb::ExitClass {
    let (class, remedy) = class(request);
    pb::ExitClass { class: class.into(), message: decisive_line(&request.log_tail), remedy: remedy.into() }
}

fn class(request: &pb::ClassifyExitRequest) -> (&'static str, &'static str) {
    if request.oom_killed {
        return ("oom", "raise spec.resources.memory");
    }
    match (request.exit_code, request.signal) {
        (Some(2), _) => ("bad-flag", "see `args` of this node in the spec"),
        (Some(10), _) => ("bad-flag", "see `config` of this node in the spec"),
        (Some(11), _) => ("genesis-mismatch", "reset the devnet: its data were made with another genesis"),
        (Some(12), _) => ("key-refused", "reset the devnet: the node's key is not the one in the genesis"),
        (Some(13), _) => ("port-busy", "end the program that holds the port"),
        (Some(14), _) => {
            ("unknown", "if the message names ledger.sqlite, remove data/ledger.sqlite*: it is made again from the blocks; else reset the devnet")
        }
        (Some(15), _) => ("db-locked", "end the other devchain that runs on this home"),
        (Some(16), _) => ("app-hash", "this binary executes blocks differently from the network's: use the same binary on all nodes"),
        (Some(19), _) => ("upgrade-needed", "start it with the binary that the state was made with"),
        (Some(18), _) => ("unknown", "make room on the disk of the node's home"),
        (Some(101), _) | (_, Some(SIGABRT)) => ("panic", "a bug or failing storage: the log says where"),
        (_, Some(SIGKILL | SIGTERM | SIGINT)) => ("killed-by-user", ""),
        _ => ("unknown", ""),
    }
}

/// The last line that tells of an error, else the last line; without colours and at most 400 characters.
fn decisive_line(tail: &[Vec<u8>]) -> String {
    let lines: Vec<String> = tail.iter().map(|line| plain(line)).filter(|line| !line.trim().is_empty()).collect();
    let telling = |line: &String| line.contains("ERROR") || line.contains("error:") || line.contains("panicked at");
    let Some(chosen) = lines.iter().rposition(telling).or(lines.len().checked_sub(1)) else { return String::new() };
    let line = lines[chosen].trim();
    // The words of a panic stand below its place in the source.
    let words = lines.get(chosen + 1).filter(|_| line.contains("panicked at") && line.ends_with(':'));
    let line = words.map_or_else(|| line.to_owned(), |words| format!("{line} {}", words.trim()));
    line.chars().take(MAX_MESSAGE).collect()
}

/// Text without escape sequences and control characters.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut out = String::new();
    let mut characters = text.chars().take(10 * MAX_MESSAGE);
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            // CSI: everything up to a letter.
            let _ = characters.by_ref().find(char::is_ascii_alphabetic);
        } else if !character.is_control() {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(exit_code: Option<i32>, signal: Option<i32>, tail: &[&str]) -> pb::ClassifyExitRequest {
        let log_tail = tail.iter().map(|line| line.as_bytes().to_vec()).collect();
        pb::ClassifyExitRequest { exit_code, signal, log_tail, ..pb::ClassifyExitRequest::default() }
    }

    #[test]
    fn exit_codes_tell_the_class() {
        for (code, class) in [
            (10, "bad-flag"),
            (11, "genesis-mismatch"),
            (12, "key-refused"),
            (13, "port-busy"),
            (15, "db-locked"),
            (16, "app-hash"),
            (19, "upgrade-needed"),
            (101, "panic"),
            (1, "unknown"),
        ] {
            assert_eq!(classify(&request(Some(code), None, &[])).class, class, "{code}");
        }
        assert_eq!(classify(&request(None, Some(SIGKILL), &[])).class, "killed-by-user");
        let oom = pb::ClassifyExitRequest { oom_killed: true, ..request(None, Some(SIGKILL), &[]) };
        assert_eq!(classify(&oom).class, "oom");
    }

    #[test]
    fn the_decisive_line_is_the_last_error_without_colours() {
        let tail = ["INFO fine", "\u{1b}[31mERROR\u{1b}[0m port busy: rpc", "INFO after", ""];
        assert_eq!(classify(&request(Some(13), None, &tail)).message, "ERROR port busy: rpc");
        assert_eq!(decisive_line(&[b"only this".to_vec()]), "only this");
        assert_eq!(decisive_line(&[]), "");
    }
}
