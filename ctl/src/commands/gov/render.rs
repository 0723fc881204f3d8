//! How proposals look.

use crate::render::{
    Row, Style,
    table::{Cell, Column, column, flexible, spare},
};
use dvb_proto::devnet::v1::{ParamChange, Proposal, Tally};
use serde_json::Value;
use std::fmt::Write as _;

/// It stays as it is.
pub(super) fn is_decided(proposal: &Proposal) -> bool {
    matches!(proposal.status.as_str(), "passed" | "rejected" | "failed")
}

/// `proposal 3 is voting until 2026-01-02T03:04:05Z`
pub(super) fn progress(proposal: &Proposal) -> String {
    let until = match proposal.status.as_str() {
        "deposit" => format!(" until {}: it has {} and the vote begins with more", proposal.deposit_end_time, proposal.total_deposit),
        "voting" => format!(" until {}", proposal.voting_end_time),
        _ if !proposal.failed_reason.is_empty() => format!(": {}", proposal.failed_reason),
        _ => String::new(),
    };
    let word = match proposal.status.as_str() {
        "deposit" => "waits for its deposit",
        "voting" => "is voted on",
        other => return format!("proposal {} is {other}{until}", proposal.id),
    };
    format!("proposal {} {word}{until}", proposal.id)
}

pub(super) fn count(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// `staking.max_validators: 100 → 50`
pub(super) fn change(change: &ParamChange) -> String {
    format!("{}: {} → {}", change.path, value(&change.old), value(&change.new))
}

pub(super) fn describe(proposal: &Proposal) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            let label = format!("{label}:");
            let _ = writeln!(text, "{label:<14}{}", value.replace(|c: char| c.is_control(), " "));
        }
    };
    line("Proposal", &proposal.id.to_string());
    line("Title", &proposal.title);
    line("Summary", &proposal.summary);
    line("Status", &proposal.status);
    line("Reason", &proposal.failed_reason);
    line("Expedited", if proposal.expedited { "yes" } else { "" });
    line("Proposer", &proposal.proposer);
    line("Deposit", &proposal.total_deposit);
    line("Submitted", &proposal.submit_time);
    line("Deposit ends", &proposal.deposit_end_time);
    line("Voting", &span(&proposal.voting_start_time, &proposal.voting_end_time));
    line("Tally", &tally(&proposal.tally.clone().unwrap_or_default()));
    let mut block = |label: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = writeln!(text, "{label}:");
            for line in lines {
                let _ = writeln!(text, "  {line}");
            }
        }
    };
    block("Votes", proposal.votes.iter().map(|vote| format!("{}  {}", vote.voter, vote.option)).collect());
    block("Changes", proposal.changes.iter().map(change).collect());
    let messages: Vec<Value> = serde_json::from_str(&proposal.messages).unwrap_or_default();
    block("Messages", messages.iter().flat_map(|message| format!("{message:#}").lines().map(str::to_owned).collect::<Vec<_>>()).collect());
    text
}

fn tally(tally: &Tally) -> String {
    let counts = [("yes", &tally.yes), ("no", &tally.no), ("abstain", &tally.abstain), ("noWithVeto", &tally.no_with_veto)];
    counts.iter().filter(|(_, count)| !count.is_empty()).map(|(option, count)| format!("{option} {count}")).collect::<Vec<_>>().join(", ")
}

fn span(from: &str, to: &str) -> String {
    if from.is_empty() { String::new() } else { format!("{from} to {to}") }
}

/// Coins as `5stake`, text without its quotes.
fn value(json: &str) -> String {
    let value: Value = serde_json::from_str(json).unwrap_or_default();
    let coin = |coin: &Value| Some(format!("{}{}", coin["amount"].as_str()?, coin["denom"].as_str()?));
    match &value {
        Value::String(text) if text.is_empty() => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "nothing".to_owned(),
        Value::Array(items) => match items.iter().map(coin).collect::<Option<Vec<_>>>() {
            Some(coins) => coins.join(","),
            None => json.to_owned(),
        },
        _ => json.to_owned(),
    }
}

impl Row for Proposal {
    fn reference(&self) -> String {
        format!("proposal/{}", self.id)
    }
    fn columns(_: &Style) -> Vec<Column> {
        vec![column("ID"), column("STATUS"), flexible("TITLE"), spare("DEPOSIT", 1), spare("VOTING ENDS", 2), flexible("TALLY")]
    }
    fn cells(&self, _: &Style) -> Vec<Cell> {
        vec![
            self.id.to_string().into(),
            Cell::state(&self.status),
            self.title.clone().into(),
            self.total_deposit.clone().into(),
            self.voting_end_time.clone().into(),
            tally(&self.tally.clone().unwrap_or_default()).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_read_at_a_glance() {
        let of = |old: &str, new: &str| change(&ParamChange { path: "gov.x".into(), old: old.into(), new: new.into() });
        assert_eq!(of("100", "50"), "gov.x: 100 → 50");
        assert_eq!(of(r#"[{"denom":"stake","amount":"5"}]"#, r#""2s""#), "gov.x: 5stake → 2s");
        assert_eq!(of("[]", r#"["a"]"#), r#"gov.x: nothing → ["a"]"#);
    }

    #[test]
    fn a_proposal_tells_what_it_waits_for() {
        let proposal = |status: &str, reason: &str| Proposal {
            id: 3,
            status: status.into(),
            voting_end_time: "T".into(),
            failed_reason: reason.into(),
            ..Proposal::default()
        };
        assert_eq!(progress(&proposal("voting", "")), "proposal 3 is voted on until T");
        assert_eq!(progress(&proposal("failed", "height is past")), "proposal 3 is failed: height is past");
        assert!(describe(&proposal("passed", "")).contains("Status:       passed"));
    }
}
