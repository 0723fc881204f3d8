//! Progress of a wait: a live line on a terminal, else a plain line whenever something changes.

use super::{
    objects::name,
    table::{paint, tone},
};
use crate::{
    context::Context,
    goal::{View, trouble},
};
use dvb_proto::devnet::v1::Devnet;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{collections::BTreeMap, time::Duration};

pub(crate) struct Progress<'a> {
    ctx: &'a Context,
    bar: Option<ProgressBar>,
    last: Seen,
}

/// What was said already.
#[derive(Default)]
struct Seen {
    /// The devnet's phase.
    phase: String,
    /// What was said last of each node.
    nodes: BTreeMap<String, String>,
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
                let lines = news(&mut self.last, view);
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
    let heights: Vec<String> = view
        .nodes
        .values()
        .filter_map(|node| node.status.as_ref())
        .filter_map(|status| status.block_height)
        .map(|height| height.to_string())
        .take(12)
        .collect();
    if !heights.is_empty() {
        line.push_str(&format!("  heights {}", heights.join(" ")));
    }
    if let Some(message) = status.message.filter(|message| !message.is_empty()) {
        line.push_str(&format!("  {message}"));
    }
    line
}

/// A line for each new phase of the devnet, for each node that runs, and for each that is in trouble; nothing is said twice.
fn news(said: &mut Seen, view: &View) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(devnet) = &view.devnet else { return lines };
    for (name, node) in &view.nodes {
        let phase = node.status.as_ref().map_or("", |status| status.phase.as_str());
        let line = match phase {
            "Running" => phase.to_owned(),
            "Crashed" | "Backoff" | "Failed" => trouble(node).unwrap_or_else(|| phase.to_owned()),
            _ => continue,
        };
        if said.nodes.get(name) != Some(&line) {
            lines.push(if line == phase { format!("  {name} {phase}") } else { format!("  {name} {phase}: {line}") });
            said.nodes.insert(name.clone(), line);
        }
    }
    let status = devnet.status.clone().unwrap_or_default();
    if said.phase != status.phase {
        lines.push(phase_line(devnet));
        said.phase = status.phase;
    }
    lines
}

fn phase_line(devnet: &Devnet) -> String {
    let status = devnet.status.clone().unwrap_or_default();
    let ready = if status.nodes > 0 { format!(", {}/{} nodes ready", status.ready_nodes, status.nodes) } else { String::new() };
    let message = status.message.filter(|message| !message.is_empty() && status.phase != "Running");
    format!("{} {}{ready}{}", name(&devnet.metadata), status.phase, message.map(|message| format!(": {message}")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvb_proto::devnet::v1::{DevnetStatus, LastExit, Metadata, Node, NodeStatus};

    fn view(phase: &str, message: &str, nodes: &[(&str, &str)]) -> View {
        let metadata = |name: &str| Some(Metadata { name: name.into(), ..Metadata::default() });
        let node = |(name, phase): &(&str, &str)| {
            let last_exit = Some(LastExit { code: Some(1), message: "no".into(), ..LastExit::default() });
            let status = Some(NodeStatus { phase: (*phase).into(), last_exit, ..NodeStatus::default() });
            ((*name).to_owned(), Node { metadata: metadata(name), status, ..Node::default() })
        };
        let ready = nodes.iter().filter(|(_, phase)| *phase == "Running").count();
        let status = DevnetStatus {
            phase: phase.into(),
            nodes: u32::try_from(nodes.len()).unwrap(),
            ready_nodes: u32::try_from(ready).unwrap(),
            message: Some(message.into()),
            ..DevnetStatus::default()
        };
        let devnet = Some(Devnet { metadata: metadata("mynet"), status: Some(status), ..Devnet::default() });
        View { devnet, nodes: nodes.iter().map(node).collect(), ..View::default() }
    }

    #[test]
    fn a_phase_is_said_once_and_a_node_when_it_runs() {
        let mut said = Seen::default();
        let mut check = |view: View, expect: &[&str]| assert_eq!(news(&mut said, &view), expect);
        check(view("Provisioning", "getting the binary", &[]), &["mynet Provisioning: getting the binary"]);
        check(view("Provisioning", "making keys", &[]), &[]);
        check(view("Provisioning", "0 of 2 nodes are ready", &[("a", "Pending"), ("b", "Starting")]), &[]);
        check(view("Provisioning", "1 of 2 nodes are ready", &[("a", "Starting"), ("b", "Running")]), &["  b Running"]);
        let both = &[("a", "Running"), ("b", "Running")];
        check(view("Running", "all 2 nodes that should run are ready", both), &["  a Running", "mynet Running, 2/2 nodes ready"]);
        check(view("Running", "", both), &[]);
    }

    #[test]
    fn trouble_is_said_with_its_cause_once() {
        let mut said = Seen::default();
        let mut check = |phase: &str, expect: &[&str]| assert_eq!(news(&mut said, &view("Degraded", "a is ill", &[("a", phase)]))[..], *expect);
        check("Crashed", &["  a Crashed: exit code 1: no", "mynet Degraded, 0/1 nodes ready: a is ill"]);
        check("Backoff", &[]);
        check("Starting", &[]);
        check("Backoff", &[]);
        check("Running", &["  a Running"]);
        check("Crashed", &["  a Crashed: exit code 1: no"]);
    }
}
