//! Progress of a wait: a live line on a terminal, else a plain line whenever something changes.

use super::{
    objects::name,
    table::{paint, tone},
};
use crate::{
    context::Context,
    goal::{View, trouble},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{collections::BTreeMap, time::Duration};

pub(crate) struct Progress<'a> {
    ctx: &'a Context,
    bar: Option<ProgressBar>,
    last: Seen,
}

#[derive(Default, PartialEq)]
struct Seen {
    devnet: String,
    nodes: BTreeMap<String, String>,
    has_blocks: bool,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(ctx: &'a Context) -> Self {
        let bar = ctx.settings.stderr.is_terminal.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let template = if ctx.settings.stderr.color { "{spinner:.cyan} {wide_msg} {elapsed}" } else { "{spinner} {wide_msg} {elapsed}" };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            // The spinner turns by a timer: it is there to show that we live.
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { ctx, bar, last: Seen::default() }
    }

    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => self.ctx.note(text),
        }
    }

    pub(crate) fn see(&mut self, view: &View) {
        match &self.bar {
            Some(bar) => bar.set_message(live_line(view, self.ctx.settings.stderr.color)),
            None => {
                let (lines, now) = changes(&self.last, view);
                self.last = now;
                lines.iter().for_each(|line| self.ctx.note(line));
            }
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// `mynet  Provisioning  3/5 nodes ready  heights 12 12 11  genesis is being made`
fn live_line(view: &View, color: bool) -> String {
    let Some(devnet) = &view.devnet else { return "waiting for devnetd".to_owned() };
    let status = devnet.status.clone().unwrap_or_default();
    let phase = paint(&status.phase, tone(&status.phase), color);
    let mut line = format!("{}  {phase}  {}/{} nodes ready", name(&devnet.metadata), status.ready_nodes, status.nodes);
    let heights: Vec<String> =
        view.nodes.values().filter_map(|node| node.status.as_ref()).map(|status| status.block_height.to_string()).take(12).collect();
    if status.current_height > 0 {
        line.push_str(&format!("  heights {}", heights.join(" ")));
    }
    if let Some(message) = status.message.filter(|message| !message.is_empty()) {
        line.push_str(&format!("  {message}"));
    }
    line
}

/// What to say about `view` after `last`. Heights are told once, when the first block is there: each block would be a line.
fn changes(last: &Seen, view: &View) -> (Vec<String>, Seen) {
    let mut lines = Vec::new();
    let Some(devnet) = &view.devnet else { return (lines, Seen::default()) };
    let status = devnet.status.clone().unwrap_or_default();
    let message = status.message.as_deref().filter(|message| !message.is_empty()).map(|message| format!(": {message}"));
    let own =
        format!("{} {}, {}/{} nodes ready{}", name(&devnet.metadata), status.phase, status.ready_nodes, status.nodes, message.unwrap_or_default());
    let line_of = |node: &dvb_proto::devnet::v1::Node| {
        let phase = node.status.as_ref().map_or("", |status| status.phase.as_str());
        format!("{} {phase}{}", name(&node.metadata), trouble(node).map(|why| format!(": {why}")).unwrap_or_default())
    };
    let nodes: BTreeMap<String, String> = view.nodes.iter().map(|(name, node)| (name.clone(), line_of(node))).collect();
    if own != last.devnet {
        lines.push(own.clone());
    }
    lines.extend(nodes.iter().filter(|(name, line)| last.nodes.get(*name) != Some(line)).map(|(_, line)| format!("  {line}")));
    let has_blocks = status.current_height > 0;
    if has_blocks && !last.has_blocks {
        lines.push(format!("  {} makes blocks: height {}", name(&devnet.metadata), status.current_height));
    }
    (lines, Seen { devnet: own, nodes, has_blocks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvb_proto::devnet::v1::{Devnet, DevnetStatus, Metadata};

    #[test]
    fn a_plain_line_is_printed_only_when_something_changed() {
        let view = |phase: &str, height: u64| View {
            devnet: Some(Devnet {
                metadata: Some(Metadata { name: "mynet".into(), ..Metadata::default() }),
                status: Some(DevnetStatus { phase: phase.into(), nodes: 2, current_height: height, ..DevnetStatus::default() }),
                ..Devnet::default()
            }),
            ..View::default()
        };
        let (lines, seen) = changes(&Seen::default(), &view("Provisioning", 0));
        assert_eq!(lines, ["mynet Provisioning, 0/2 nodes ready"]);
        let (lines, seen) = changes(&seen, &view("Provisioning", 0));
        assert!(lines.is_empty());
        let (lines, seen) = changes(&seen, &view("Running", 1));
        assert_eq!(lines, ["mynet Running, 0/2 nodes ready", "  mynet makes blocks: height 1"]);
        let (lines, _) = changes(&seen, &view("Running", 2));
        assert!(lines.is_empty(), "heights are not told one by one");
    }
}
