//! `logs`: what nodes wrote, of one, several or all, with a coloured name before each line when several speak.

use crate::{
    context::Context,
    error::Error,
    follow::Target,
    log_feed::{Told, log_feed},
};
use dvb_proto::devnet::v1::{LogEntry, LogRequest};
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use owo_colors::{AnsiColors, OwoColorize};
use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
};

const COLORS: [AnsiColors; 6] =
    [AnsiColors::Cyan, AnsiColors::Green, AnsiColors::Yellow, AnsiColors::Magenta, AnsiColors::Blue, AnsiColors::BrightRed];
/// A line in pieces is put together up to here; what is longer is printed in pieces.
const MAX_PIECES: usize = 1 << 20;

/// Print the logs of nodes
///
/// dvbctl logs mynet: all nodes of mynet; mynet/validator-0: one. On a terminal, control characters are made visible; without colours, the node's own are left out too.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(required = true, value_name = "NAME[/NODE]")]
    names: Vec<String>,
    /// Go on as lines come
    #[arg(short, long)]
    follow: bool,
    /// The last N lines of each node
    #[arg(long, value_name = "N")]
    tail: Option<u32>,
    /// Only since then: 5m, 1h30m, or a time such as 2026-01-01T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// The launch before the present one
    #[arg(short, long)]
    previous: bool,
    /// One launch: its id, as `get launches` prints it
    #[arg(long, value_name = "ID", conflicts_with = "previous")]
    launch: Option<String>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let since = args.since.as_deref().map(|text| since(text, (ctx.now)())).transpose()?;
    let requests = requests(ctx, &args, since);
    let prefix = requests.len() > 1 || requests.iter().any(|request| request.nodes.len() != 1);
    let client = ctx.client().await?;
    let mut streams = Vec::new();
    for request in requests {
        streams.push(log_feed(&client, request).await?);
    }
    let mut told = stream::select_all(streams);
    let terminal = ctx.settings.stdout;
    let mut printer = Printer { prefix, color: terminal.color, escape: terminal.is_terminal, width: 0, nodes: HashMap::new() };
    while let Some(told) = told.next().await {
        match told {
            Ok(Told::Entry(entry)) => {
                write(&printer.take(&entry))?;
                if let Some(aside) = aside(&entry) {
                    ctx.note(if ctx.settings.stderr.color { aside.dimmed().to_string() } else { aside });
                }
            }
            Ok(Told::Away) => ctx.note("devnetd has gone; its logs go on when it is back"),
            Err(error) => {
                write(&printer.rest())?;
                return Err(error);
            }
        }
    }
    write(&printer.rest())?;
    Ok(())
}

fn write(bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// One request for each devnet; a devnet that is named without a node means all of its nodes.
fn requests(ctx: &Context, args: &Args, since: Option<String>) -> Vec<LogRequest> {
    let mut devnets: BTreeMap<String, Option<Vec<String>>> = BTreeMap::new();
    for name in &args.names {
        let target = Target::parse(&ctx.settings.namespace, name);
        let nodes = devnets.entry(target.devnet).or_insert_with(|| Some(Vec::new()));
        match (name.split_once('/'), nodes.as_mut()) {
            (Some((_, short)), Some(nodes)) => nodes.push(short.to_owned()),
            (None, _) => *nodes = None,
            (Some(_), None) => {}
        }
    }
    let request = |(devnet, nodes): (String, Option<Vec<String>>)| LogRequest {
        namespace: ctx.settings.namespace.clone(),
        devnet,
        nodes: nodes.unwrap_or_default(),
        follow: args.follow,
        tail: args.tail,
        since: since.clone(),
        launch_id: args.launch.clone(),
        previous: args.previous,
        after: Vec::new(),
    };
    devnets.into_iter().map(request).collect()
}

fn since(text: &str, now: Timestamp) -> Result<String, Error> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.to_string());
    }
    let back = text.parse::<SignedDuration>().ok().filter(|back| !back.is_negative());
    let time = back.and_then(|back| now.checked_sub(back).ok());
    time.map(|time| time.to_string())
        .ok_or_else(|| Error::usage(format!("`{text}` is neither a duration nor a time")).with_remedy("--since 5m, or --since 2026-01-01T12:00:00Z"))
}

/// Said beside the log, not in it: `mynet/validator-0: ... 12 MiB dropped by the log cap`.
fn aside(entry: &LogEntry) -> Option<String> {
    if !entry.note.is_empty() {
        return Some(format!("{}: ... {}", entry.node, entry.note));
    }
    let amount = match entry.lost {
        0 => return None,
        bytes if bytes >= 1 << 20 => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} bytes"),
    };
    Some(format!("{}: ... {amount} {}", entry.node, entry.lost_because))
}

/// Puts lines together from their pieces, so that nodes do not write into each other's lines.
struct Printer {
    prefix: bool,
    color: bool,
    /// Make control characters visible: a log must not steer the terminal.
    escape: bool,
    width: usize,
    nodes: HashMap<String, Speaker>,
}

#[derive(Default)]
struct Speaker {
    /// For the colour.
    place: usize,
    launch: String,
    /// The line so far.
    held: Vec<u8>,
}

impl Printer {
    /// What is to be written because of `entry`.
    fn take(&mut self, entry: &LogEntry) -> Vec<u8> {
        let place = self.nodes.len();
        let speaker = self.nodes.entry(entry.node.clone()).or_insert_with(|| Speaker { place, ..Speaker::default() });
        let place = speaker.place;
        let mut lines = Vec::new();
        // What came before a gap, or of another launch, gets no end any more.
        let is_cut = entry.lost > 0 || speaker.launch != entry.launch_id;
        if is_cut && !speaker.held.is_empty() {
            lines.push(std::mem::take(&mut speaker.held));
        }
        speaker.launch.clone_from(&entry.launch_id);
        if entry.lost == 0 && entry.note.is_empty() {
            speaker.held.extend_from_slice(&entry.line);
            if !entry.partial || speaker.held.len() >= MAX_PIECES {
                lines.push(std::mem::take(&mut speaker.held));
            }
        }
        let mut out = Vec::new();
        for line in lines {
            out.extend(self.head(&entry.node, place));
            self.body(&line, &mut out);
            out.push(b'\n');
        }
        out
    }

    /// Last lines that never got their newline.
    fn rest(&mut self) -> Vec<u8> {
        let mut left: Vec<(String, Speaker)> = self.nodes.drain().filter(|(_, speaker)| !speaker.held.is_empty()).collect();
        left.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut out = Vec::new();
        for (node, Speaker { place, held, .. }) in left {
            out.extend(self.head(&node, place));
            self.body(&held, &mut out);
            if self.prefix {
                out.push(b'\n');
            }
        }
        out
    }

    fn head(&mut self, node: &str, place: usize) -> Vec<u8> {
        if !self.prefix {
            return Vec::new();
        }
        self.width = self.width.max(node.len());
        let name = format!("{node:<width$}", width = self.width);
        let name = if self.color { name.color(COLORS[place % COLORS.len()]).to_string() } else { name };
        format!("{name} | ").into_bytes()
    }

    fn body(&self, line: &[u8], out: &mut Vec<u8>) {
        if !self.escape && self.color {
            out.extend_from_slice(line);
            return;
        }
        let mut rest = line;
        while let Some((byte, more)) = rest.split_first() {
            match (colour_len(rest), byte) {
                (Some(len), _) => {
                    if self.color {
                        out.extend_from_slice(&rest[..len]);
                    }
                    rest = &rest[len..];
                    continue;
                }
                (None, b'\t') => out.push(b'\t'),
                (None, byte) if self.escape && byte.is_ascii_control() => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
                (None, byte) => out.push(*byte),
            }
            rest = more;
        }
    }
}

/// How long the colour (ESC [ digits m) is that the bytes begin with.
fn colour_len(bytes: &[u8]) -> Option<usize> {
    let code = bytes.strip_prefix(b"\x1b[")?;
    let end = code.iter().position(|byte| !byte.is_ascii_digit() && !b";:".contains(byte))?;
    (code[end] == b'm').then_some(end + 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(node: &str, line: &[u8], partial: bool) -> LogEntry {
        LogEntry { node: node.into(), line: line.to_vec(), partial, ..LogEntry::default() }
    }
    fn printer(prefix: bool, escape: bool) -> Printer {
        Printer { prefix, color: false, escape, width: 0, nodes: HashMap::new() }
    }

    #[test]
    fn bytes_pass_unchanged_when_no_terminal_is_there() {
        let line = [0xff, 0x00, 0x1b, b'[', b'2', b'J', b'x'];
        let mut expect = line.to_vec();
        expect.push(b'\n');
        assert_eq!(printer(false, false).take(&entry("a/b", &line, false)), expect);
    }

    #[test]
    fn colours_of_the_node_are_left_out_where_none_are_wanted_and_kept_where_they_are() {
        let line = b"\x1b[90m5:45AM\x1b[0m \x1b[38;5;2mINF\x1b[m \x1b[2Jx";
        assert_eq!(printer(false, false).take(&entry("a/b", line, false)), b"5:45AM INF \x1b[2Jx\n");
        let mut coloured = Printer { color: true, ..printer(false, false) };
        assert_eq!(coloured.take(&entry("a/b", line, false)), [line.as_slice(), b"\n"].concat());
    }

    #[test]
    fn a_terminal_is_not_steered_by_a_log() {
        let out = printer(false, true).take(&entry("a/b", b"\x1b[2J\x07ok\t\x1b[31mred\x1b[0m", false));
        assert_eq!(String::from_utf8_lossy(&out), "\\x1b[2J\\x07ok\tred\n");
    }

    #[test]
    fn lines_of_several_nodes_do_not_mix() {
        let mut printer = printer(true, false);
        assert!(printer.take(&entry("a/x", b"one ", true)).is_empty());
        assert_eq!(printer.take(&entry("a/longer", b"two", false)), b"a/longer | two\n");
        assert_eq!(printer.take(&entry("a/x", b"three", false)), b"a/x      | one three\n");
        assert!(printer.take(&entry("a/x", b"no newline", true)).is_empty());
        assert_eq!(printer.rest(), b"a/x      | no newline\n");
    }

    #[test]
    fn a_gap_is_told_and_ends_the_line_before_it() {
        let lost = |bytes| LogEntry { lost: bytes, lost_because: "dropped by the log cap".into(), ..entry("a/x", b"", false) };
        assert_eq!(aside(&lost(13 << 20)).unwrap(), "a/x: ... 13 MiB dropped by the log cap");
        assert_eq!(aside(&lost(1)).unwrap(), "a/x: ... 1 bytes dropped by the log cap");
        assert_eq!(aside(&entry("a/x", b"line", false)), None);
        let mut printer = printer(false, false);
        assert!(printer.take(&lost(5)).is_empty());
        assert!(printer.take(&entry("a/x", b"half", true)).is_empty());
        assert_eq!(printer.take(&lost(5)), b"half\n");
        assert_eq!(printer.take(&entry("a/x", b"whole", false)), b"whole\n");
    }

    #[test]
    fn an_unfinished_line_ends_with_its_launch_and_a_note_ends_nothing() {
        let of = |launch: &str, line: &[u8], partial| LogEntry { launch_id: launch.into(), ..entry("a/x", line, partial) };
        let mut printer = printer(false, false);
        assert!(printer.take(&of("l1", b"last ", true)).is_empty());
        assert!(printer.take(&LogEntry { note: "somebody deleted its log".into(), ..of("l1", b"", false) }).is_empty());
        assert!(printer.take(&of("l1", b"words", true)).is_empty());
        assert_eq!(printer.take(&of("l2", b"again", false)), b"last words\nagain\n");
        assert!(printer.take(&of("l2", b"the end", true)).is_empty());
        assert_eq!(printer.take(&of("l2", b"", false)), b"the end\n", "its launch is over");
    }

    #[test]
    fn since_takes_a_duration_or_a_time() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(since("5m", now).unwrap(), "2026-01-01T23:55:00Z");
        assert_eq!(since("2026-01-01T12:00:00Z", now).unwrap(), "2026-01-01T12:00:00Z");
        assert!(since("yesterday", now).is_err());
    }
}
