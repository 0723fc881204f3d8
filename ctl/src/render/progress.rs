//! Progress of a wait: a live line on a terminal, else a plain line whenever something changes.

use super::{
    objects::name,
    table::{paint, tone},
    time::short,
};
use crate::{
    context::Context,
    goal::{View, trouble},
};
use dvb_proto::devnet::v1::{Devnet, Node};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// A wait is silent for so long at most.
pub(crate) const WORD_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct Progress<'a> {
    ctx: &'a Context,
    begun: Instant,
    /// When it was last said, in words that stay, what becomes of the wait.
    last_word: Instant,
    bar: Option<ProgressBar>,
    last: Seen,
    /// None: everything is news, from the first view on.
    request: Option<Request>,
}

/// A verb that was asked for: what was so before it is no news.
pub(crate) struct Request {
    /// The object's resourceVersion with the request in it.
    pub(crate) revision: u64,
    /// Full name of the one node that is meant.
    pub(crate) node: Option<String>,
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
        let now = Instant::now();
        Self { ctx, begun: now, last_word: now, bar, last: Seen::default(), request: None }
    }

    /// Tells what comes of a request, and nothing of the moment before.
    pub(crate) fn of(ctx: &'a Context, request: Request) -> Self {
        let mut progress = Self::new(ctx);
        progress.request = Some(request);
        progress
    }

    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => self.ctx.note(text),
        }
    }

    /// `missing` is what the wait is for.
    pub(crate) fn see(&mut self, view: &View, missing: Option<&str>) {
        match &self.bar {
            Some(bar) => bar.set_message(live_line(view, self.ctx.settings.stderr.color)),
            None => {
                let lines = news(&mut self.last, view, self.request.as_ref());
                lines.iter().for_each(|line| self.ctx.note(line));
                if !lines.is_empty() {
                    self.last_word = Instant::now();
                }
            }
        }
        let Some(missing) = missing.filter(|_| self.last_word.elapsed() >= WORD_EVERY) else { return };
        let line = format!("  waiting for {}: {missing}", short(Duration::from_secs(self.begun.elapsed().as_secs())));
        match &self.bar {
            Some(bar) => bar.println(line),
            None => self.ctx.note(line),
        }
        self.last_word = Instant::now();
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

/// A line for each new phase of the devnet, for each node that runs, and for each that is in trouble; after a request also for each
/// that stops. Nothing is said twice.
fn news(said: &mut Seen, view: &View, request: Option<&Request>) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(devnet) = &view.devnet else { return lines };
    for (name, node) in view.nodes.iter().filter(|(name, node)| request.is_none_or(|request| request.tells_of_node(name, node))) {
        let phase = node.status.as_ref().map_or("", |status| status.phase.as_str());
        let line = match phase {
            "Running" => phase.to_owned(),
            "Stopping" | "Stopped" if request.is_some() => phase.to_owned(),
            "Crashed" | "Backoff" | "Failed" => trouble(node).unwrap_or_else(|| phase.to_owned()),
            _ => continue,
        };
        if said.nodes.get(name) != Some(&line) {
            lines.push(if line == phase { format!("  {name} {phase}") } else { format!("  {name} {phase}: {line}") });
            said.nodes.insert(name.clone(), line);
        }
    }
    let status = devnet.status.clone().unwrap_or_default();
    if said.phase != status.phase && request.is_none_or(|request| request.tells_of_devnet(devnet)) {
        lines.push(phase_line(devnet));
        said.phase = status.phase;
    }
    lines
}

impl Request {
    /// The first change after the request may still show the state of before: a node counts once it has taken what is asked of it.
    fn tells_of_node(&self, name: &str, node: &Node) -> bool {
        let (metadata, spec) = (node.metadata.clone().unwrap_or_default(), node.spec.clone().unwrap_or_default());
        let status = node.status.clone().unwrap_or_default();
        let has_taken = status.observed_restart >= spec.restart_request && status.observed_generation >= metadata.generation;
        let is_meant = self.node.as_deref().is_none_or(|meant| meant == name);
        is_meant && metadata.resource_version > self.revision && (has_taken || status.phase == "Stopping")
    }

    fn tells_of_devnet(&self, devnet: &Devnet) -> bool {
        let (metadata, status) = (devnet.metadata.clone().unwrap_or_default(), devnet.status.clone().unwrap_or_default());
        let has_taken = status.observed_generation >= metadata.generation || status.phase == "Deleting";
        self.node.is_none() && metadata.resource_version > self.revision && has_taken
    }
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
    use dvb_proto::devnet::v1::{DevnetStatus, LastExit, Metadata, NodeSpec, NodeStatus};

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
        let mut check = |view: View, expect: &[&str]| assert_eq!(news(&mut said, &view, None), expect);
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
        let mut check = |phase: &str, expect: &[&str]| assert_eq!(news(&mut said, &view("Degraded", "a is ill", &[("a", phase)]), None)[..], *expect);
        check("Crashed", &["  a Crashed: exit code 1: no", "mynet Degraded, 0/1 nodes ready: a is ill"]);
        check("Backoff", &[]);
        check("Starting", &[]);
        check("Backoff", &[]);
        check("Running", &["  a Running"]);
        check("Crashed", &["  a Crashed: exit code 1: no"]);
    }

    /// The devnet's or node's version, and whether it has taken the request.
    fn dated(mut view: View, version: u64, taken: bool) -> View {
        let metadata = |name: &str| Some(Metadata { name: name.into(), generation: 2, resource_version: version, ..Metadata::default() });
        let observed_generation = if taken { 2 } else { 1 };
        let devnet = view.devnet.as_mut().unwrap();
        devnet.metadata = metadata("mynet");
        devnet.status.as_mut().unwrap().observed_generation = observed_generation;
        for (name, node) in &mut view.nodes {
            node.metadata = metadata(name);
            node.spec = Some(NodeSpec::default());
            node.status.as_mut().unwrap().observed_generation = observed_generation;
        }
        view
    }

    #[test]
    fn after_a_request_nothing_is_told_of_the_moment_before_and_each_step_once() {
        let mut said = Seen::default();
        let request = Request { revision: 10, node: None };
        let mut check = |view: View, expect: &[&str]| assert_eq!(news(&mut said, &view, Some(&request)), expect);
        check(dated(view("Running", "", &[("a", "Running")]), 9, true), &[]);
        check(dated(view("Running", "", &[("a", "Running")]), 11, false), &[]);
        check(dated(view("Running", "", &[("a", "Stopping")]), 12, false), &["  a Stopping"]);
        check(dated(view("Provisioning", "resetting", &[("a", "Stopping")]), 13, true), &["mynet Provisioning, 0/1 nodes ready: resetting"]);
        check(dated(view("Running", "", &[("a", "Running")]), 14, true), &["  a Running", "mynet Running, 1/1 nodes ready"]);
    }

    #[test]
    fn a_request_to_one_node_tells_of_that_node_alone() {
        let mut said = Seen::default();
        let request = Request { revision: 10, node: Some("a".into()) };
        let nodes = |a| dated(view("Degraded", "", &[("a", a), ("b", "Crashed")]), 11, true);
        assert_eq!(news(&mut said, &nodes("Stopping"), Some(&request)), ["  a Stopping"]);
        assert_eq!(news(&mut said, &nodes("Stopped"), Some(&request)), ["  a Stopped"]);
        assert_eq!(news(&mut said, &nodes("Stopped"), Some(&request)), [""; 0]);
    }
}
