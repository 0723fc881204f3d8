//! The long form of one object, for `describe`.

use super::{
    Row, Style,
    objects::endpoint,
    table::{paint, tone},
    time::{age, bytes},
    to_value, yaml,
};
use crate::error::Error;
use dvb_proto::devnet::v1::{Condition, Devnet, Event, Export, LastExit, Launch, Metadata, Node, SdkChange, Transaction, Upgrade, Usage};
use std::{collections::BTreeMap, fmt::Write as _};

pub(crate) fn devnet(devnet: &Devnet, nodes: &[Node], events: &[Event], style: &Style) -> Result<String, Error> {
    let status = devnet.status.clone().unwrap_or_default();
    let mut text = Text::default();
    text.metadata(&devnet.metadata, style);
    text.state("Phase", &status.phase, style);
    text.line("Message", status.message.as_deref().unwrap_or_default());
    text.line("Nodes", &format!("{} ready of {}", status.ready_nodes, status.nodes));
    if devnet.has_chain() {
        text.line("Height", &number(status.current_height));
        text.line("Chain id", status.chain_id.as_deref().unwrap_or_default());
        text.line("Version", status.binary.as_ref().map_or("", |binary| binary.version.as_str()));
        text.line("SDK version", &status.sdk_version);
    }
    if status.sdk_version_history.len() > 1 {
        text.block("SDK version history", status.sdk_version_history.iter().map(turn));
    }
    if let Some(binary) = &status.binary {
        text.line("Binary", &format!("{} ({})", binary.source, binary.sha256.chars().take(12).collect::<String>()));
    }
    text.line("Subnet", status.subnet.as_deref().unwrap_or_default());
    text.line("Directory", status.directory.as_deref().unwrap_or_default());
    text.line("Mnemonic", status.mnemonic_path.as_deref().unwrap_or_default());
    text.line("Genesis", status.genesis_hash.as_deref().unwrap_or_default());
    text.conditions(&status.conditions, style);
    let spec = to_value(&devnet.spec)?;
    text.block("Spec", yaml(&spec)?.lines().map(str::to_owned));
    text.block("Nodes", super::table(nodes, style).lines().map(str::to_owned).take(if nodes.is_empty() { 0 } else { usize::MAX }));
    let accounts = status.accounts.iter().map(|account| format!("{}  {}  {}", account.name, account.address, account.balance));
    text.block("Accounts", accounts);
    text.events(events, style);
    Ok(text.0)
}

/// `v0.50.11  from height 38, 2026-01-02T03:04:05Z`
fn turn(turn: &SdkChange) -> String {
    let from = if turn.height == 0 { "the beginning".to_owned() } else { format!("height {}", turn.height) };
    format!("{}  from {from}, {}", turn.version, turn.at)
}

pub(crate) fn node(node: &Node, launches: &[Launch], events: &[Event], style: &Style) -> Result<String, Error> {
    let spec = node.spec.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let mut text = Text::default();
    text.metadata(&node.metadata, style);
    text.line("Devnet", &spec.devnet_ref);
    text.line("Role", &spec.role);
    text.state("Phase", &status.phase, style);
    let frozen = if spec.frozen || spec.frozen_with_devnet { ", frozen" } else { "" };
    text.line("Desired", &format!("{}{frozen}", spec.desired));
    text.line("Pid", &status.pid.map(|pid| pid.to_string()).unwrap_or_default());
    text.line("Started", &status.started_at.as_deref().map(|time| format!("{time} ({} ago)", age(time, style.now))).unwrap_or_default());
    if node.has_chain() {
        text.line("Height", &number(status.block_height));
        text.line("Peers", &number(status.peer_count));
        text.line("Catching up", if status.catching_up { "yes" } else { "no" });
    }
    text.line("Restarts", &status.restart_count.to_string());
    text.line("Next restart", status.next_restart.as_deref().unwrap_or_default());
    text.line("Binary", &spec.binary_path);
    text.line("Home", &spec.home_dir);
    text.line("Log", status.log_path.as_deref().unwrap_or_default());
    text.line("Address", &spec.address);
    text.line("Endpoint", &endpoint(&status));
    if let Some(usage) = &status.usage {
        text.line("Usage", &usage_text(usage));
    }
    text.map("Ports", &spec.ports.iter().map(|(name, port)| (name.clone(), port.to_string())).collect());
    text.map("Endpoints", &status.endpoints);
    text.map("Details", &status.details);
    if let Some(exit) = &status.last_exit {
        text.block("Last exit", certificate(exit).into_iter());
        text.block("Last log lines", exit.log_tail.iter().cloned());
    }
    text.block("Health", status.health_checks.iter().map(|check| format!("{}  {}  {}", check.name, check.status, check.message)));
    text.conditions(&status.conditions, style);
    text.block("Launches", super::table(launches, style).lines().map(str::to_owned).take(if launches.is_empty() { 0 } else { usize::MAX }));
    text.events(events, style);
    Ok(text.0)
}

fn usage_text(usage: &Usage) -> String {
    let mut text = format!("cpu {:.2}, memory {}, {} descriptors", usage.cpu, bytes(usage.memory), usage.fds);
    if let (Some(read), Some(written)) = (usage.io_read, usage.io_written) {
        let _ = write!(text, ", disk read {}, written {}", bytes(read), bytes(written));
    }
    if let Some(pressure) = &usage.memory_pressure {
        let _ = write!(text, ", waits for memory {:.1} % of the time (all of it {:.1} %)", pressure.some, pressure.full);
    }
    text
}

/// The whole death certificate, a fact in a line.
fn certificate(exit: &LastExit) -> Vec<String> {
    let how = match (exit.code, &exit.signal) {
        (Some(code), _) => Some(format!("exit code {code}")),
        (None, Some(signal)) => Some(signal.clone()),
        (None, None) => None,
    };
    let oom = exit.oom.as_ref().map(|oom| {
        let limit = oom.limit.map(|limit| format!(" of {}", bytes(limit))).unwrap_or_default();
        let peak = oom.peak.map(|peak| format!(", peak {}", bytes(peak))).unwrap_or_default();
        let whose = if oom.limit_of == "machine" {
            "no limit of its own: the machine had no more".to_owned()
        } else {
            format!("the {}'s{limit}", oom.limit_of)
        };
        format!("{whose}{peak}")
    });
    let core = exit.core.as_ref().map(|core| core.path.as_ref().map_or_else(|| core.hint.clone(), |path| format!("{path}; {}", core.hint)));
    let facts = [
        ("Message", Some(exit.message.clone())),
        ("Class", Some(exit.class.clone())),
        ("At", Some(exit.at.clone())),
        ("How", how),
        ("Memory peak", exit.memory_peak.map(bytes)),
        ("Cpu time", exit.cpu_time_ms.map(|ms| format!("{:.3} s", ms as f64 / 1_000.0))),
        ("Limit reached", oom),
        ("Core", core),
    ];
    let told = facts.into_iter().filter_map(|(label, fact)| Some((label, fact.filter(|fact| !fact.is_empty())?)));
    told.map(|(label, fact)| format!("{:<15}{fact}", format!("{label}:"))).collect()
}

/// `-` for what nobody knows.
fn number(number: Option<impl ToString>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

pub(crate) fn transaction(tx: &Transaction, events: &[Event], style: &Style) -> Result<String, Error> {
    let (spec, status) = (tx.spec.clone().unwrap_or_default(), tx.status.clone().unwrap_or_default());
    let mut text = Text::default();
    text.metadata(&tx.metadata, style);
    text.line("Devnet", &spec.devnet_ref);
    text.line("Type", &spec.tx_type);
    text.line("Signer", &spec.signer);
    text.line("Address", status.sender.as_deref().unwrap_or_default());
    text.line("Payload", &spec.payload);
    text.line("Memo", &spec.memo);
    text.line("Request id", &spec.request_id);
    text.state("Phase", &status.phase, style);
    text.line("Signed", status.meaning.as_deref().unwrap_or_default());
    text.line("Hash", status.tx_hash.as_deref().unwrap_or_default());
    text.line("Height", &status.height.map(|height| height.to_string()).unwrap_or_default());
    let gas = |gas: Option<u64>| gas.map(|gas| gas.to_string()).unwrap_or_default();
    text.line("Gas limit", &gas(status.gas_limit));
    text.line("Gas used", &gas(status.gas_used.filter(|gas| *gas > 0)));
    text.line("Fee", status.fee.as_deref().unwrap_or_default());
    if let Some(signed) = &status.signed {
        let end = if signed.expires_at > 0 { format!(", valid until block {}", signed.expires_at) } else { String::new() };
        text.line("Bytes", &format!("sequence {}{end}", signed.sequence));
    }
    if status.attempts > 1 {
        text.line("Attempts", &status.attempts.to_string());
    }
    text.line("Error", status.error.as_deref().unwrap_or_default());
    text.line("Chain", if status.former_chain { "the former one: the devnet was reset since, and its chain does not have it" } else { "" });
    text.conditions(&status.conditions, style);
    let said = status.events.iter().map(|event| {
        let attributes: Vec<String> = event.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        format!("{}  {}", event.r#type, attributes.join(" "))
    });
    text.block("Chain events", said);
    text.events(events, style);
    Ok(text.0)
}

pub(crate) fn upgrade(upgrade: &Upgrade, events: &[Event], style: &Style) -> Result<String, Error> {
    let (spec, status) = (upgrade.spec.clone().unwrap_or_default(), upgrade.status.clone().unwrap_or_default());
    let mut text = Text::default();
    text.metadata(&upgrade.metadata, style);
    text.line("Devnet", &spec.devnet_ref);
    text.line("Upgrade", &spec.upgrade_name);
    text.state("Phase", &status.phase, style);
    text.line("Message", &status.message);
    text.line("Why", status.why.as_deref().unwrap_or_default());
    text.line("Chain", if status.former_chain { "the former one: the devnet was reset since, and runs the binary of its spec" } else { "" });
    text.line("Height", &status.height.map(|height| height.to_string()).unwrap_or_default());
    text.line("Proposal", &status.proposal_id.map(|id| id.to_string()).unwrap_or_default());
    if let Some(binary) = &status.binary {
        text.line("Binary", &format!("{} ({})", binary.source, binary.path));
    }
    text.line("SDK version", &status.sdk_version);
    text.line("Handler", &status.handler);
    if let Some(saved) = &status.saved {
        let how = if saved.shared { "blocks shared with the homes" } else { "copied" };
        text.line("Saved homes", &format!("{} ({} bytes, {how})", saved.path, saved.bytes));
    }
    if let Some(block) = &status.verified {
        text.line("Verified", &format!("block {}, state {} on {} nodes", block.height, block.app_hash, block.nodes));
    }
    text.block("Halts", status.halts.iter().map(|halt| format!("{}  {}", halt.node, halt.evidence)));
    text.conditions(&status.conditions, style);
    text.events(events, style);
    Ok(text.0)
}

pub(crate) fn export(export: &Export, events: &[Event], style: &Style) -> Result<String, Error> {
    let (spec, status) = (export.spec.clone().unwrap_or_default(), export.status.clone().unwrap_or_default());
    let mut text = Text::default();
    text.metadata(&export.metadata, style);
    text.line("Devnet", &spec.devnet_ref);
    text.state("Phase", &status.phase, style);
    text.line("Message", status.message.as_deref().unwrap_or_default());
    text.line("Node", status.node.as_deref().unwrap_or_default());
    text.line("Height", &status.height.map(|height| height.to_string()).unwrap_or_default());
    text.line("File", status.path.as_deref().unwrap_or_default());
    text.line("Size", &bytes(status.bytes));
    text.line("SHA-256", status.sha256.as_deref().unwrap_or_default());
    if let Some(clone) = &status.clone {
        text.line("Clone", &format!("{} by {}; the node stood still for {} ms", bytes(clone.bytes), clone.way, clone.paused_ms));
    }
    text.conditions(&status.conditions, style);
    text.events(events, style);
    Ok(text.0)
}

#[derive(Default)]
struct Text(String);

impl Text {
    /// Nothing for an empty value.
    fn line(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            let label = format!("{label}:");
            let _ = writeln!(self.0, "{label:<14}{}", value.replace(|c: char| c.is_control(), " "));
        }
    }
    fn state(&mut self, label: &str, value: &str, style: &Style) {
        let label = format!("{label}:");
        let _ = writeln!(self.0, "{label:<14}{}", paint(value, tone(value), style.color));
    }
    fn block(&mut self, label: &str, lines: impl Iterator<Item = String>) {
        let mut lines = lines.peekable();
        if lines.peek().is_some() {
            let _ = writeln!(self.0, "{label}:");
            lines.for_each(|line| {
                let _ = writeln!(self.0, "  {}", line.trim_end());
            });
        }
    }
    fn map(&mut self, label: &str, map: &BTreeMap<String, String>) {
        self.block(label, map.iter().map(|(key, value)| format!("{key}: {value}")));
    }
    fn metadata(&mut self, metadata: &Option<Metadata>, style: &Style) {
        let metadata = metadata.clone().unwrap_or_default();
        self.line("Name", &metadata.name);
        self.line("Namespace", &metadata.namespace);
        self.line("Uid", &metadata.uid);
        self.line("Created", &format!("{} ({} ago)", metadata.created_at, age(&metadata.created_at, style.now)));
        self.line("Generation", &metadata.generation.to_string());
        self.map("Labels", &metadata.labels);
        self.map("Annotations", &metadata.annotations);
    }
    fn conditions(&mut self, conditions: &[Condition], style: &Style) {
        self.block(
            "Conditions",
            conditions.iter().flat_map(|condition| {
                let state = paint(&condition.status, tone(&condition.status), style.color);
                let since = age(&condition.last_transition_time, style.now);
                let line = format!("{}={state}  {}  {} ({since})", condition.r#type, condition.reason, condition.message);
                [Some(line), condition.remedy.as_ref().map(|remedy| format!("  try: {remedy}"))].into_iter().flatten()
            }),
        );
    }
    fn events(&mut self, events: &[Event], style: &Style) {
        let lines = if events.is_empty() { String::new() } else { super::table(events, style) };
        self.block("Events", lines.lines().map(str::to_owned));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvb_proto::devnet::v1::{CoreDump, MemoryPressure, OomKill};

    #[test]
    fn a_death_certificate_is_told_whole_and_what_is_not_known_is_left_out() {
        let oom = Some(OomKill { limit_of: "devnet".into(), limit: Some(64 << 20), peak: Some(63 << 20) });
        let core = Some(CoreDump { path: Some("/x/core.7".into()), hint: "gdb /bin/node /x/core.7".into() });
        let signal = Some("SIGKILL".to_owned());
        let exit = LastExit {
            signal,
            class: "oom".into(),
            message: "killed".into(),
            at: "2026-01-01T00:00:00Z".into(),
            memory_peak: Some(1 << 20),
            cpu_time_ms: Some(61_250),
            oom,
            core,
            ..LastExit::default()
        };
        insta::assert_snapshot!(certificate(&exit).join("\n"), @r"
        Message:       killed
        Class:         oom
        At:            2026-01-01T00:00:00Z
        How:           SIGKILL
        Memory peak:   1.0Mi
        Cpu time:      61.250 s
        Limit reached: the devnet's of 64Mi, peak 63Mi
        Core:          /x/core.7; gdb /bin/node /x/core.7
        ");
        let plain = LastExit { code: Some(3), message: "exit code 3".into(), ..LastExit::default() };
        assert_eq!(certificate(&plain), ["Message:       exit code 3", "How:           exit code 3"]);
    }

    #[test]
    fn usage_tells_disk_and_pressure_where_they_are_known() {
        let mut usage = Usage { cpu: 0.5, memory: 2 << 20, fds: 9, ..Usage::default() };
        assert_eq!(usage_text(&usage), "cpu 0.50, memory 2.0Mi, 9 descriptors");
        (usage.io_read, usage.io_written) = (Some(0), Some(3 << 20));
        usage.memory_pressure = Some(MemoryPressure { some: 12.5, full: 1.0 });
        assert!(
            usage_text(&usage).ends_with("disk read 0, written 3.0Mi, waits for memory 12.5 % of the time (all of it 1.0 %)"),
            "{}",
            usage_text(&usage)
        );
    }
}
