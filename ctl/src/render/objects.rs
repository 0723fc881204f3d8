//! The columns of each kind of object.

use super::{
    Row, Style,
    table::{Cell, Column, column, flexible, spare},
    time::{age, bytes},
};
use dvb_proto::devnet::v1::{
    BinaryInfo, BinaryVerdict, Condition, Devnet, Event, Export, LastExit, Launch, Metadata, Node, NodeSpec, NodeStatus, Orphan, PluginInfo,
    PortLease, Transaction, Upgrade,
};

/// Of a message in a hint: a log line can be much longer, and `why` tells all of it.
const HINT_CHARS: usize = 120;

impl Row for Devnet {
    fn reference(&self) -> String {
        format!("devnet/{}", name(&self.metadata))
    }
    fn columns(style: &Style) -> Vec<Column> {
        let mut columns = head(style);
        columns.extend([column("PHASE"), column("READY")]);
        columns.extend(style.chain.then(|| column("HEIGHT")));
        columns.push(column("PLUGIN"));
        columns.extend(style.chain.then(|| flexible("CHAIN-ID")));
        columns.push(spare("AGE", 1));
        if style.wide {
            columns.extend(style.chain.then(|| [column("VERSION"), column("SDK")]).into_iter().flatten());
            columns.extend([column("SUBNET"), column("DIRECTORY"), column("REASON"), column("MESSAGE")]);
        }
        columns
    }
    fn cells(&self, style: &Style) -> Vec<Cell> {
        let spec = self.spec.clone().unwrap_or_default();
        let status = self.status.clone().unwrap_or_default();
        let mut cells = head_cells(&self.metadata, style);
        let has_chain = self.has_chain();
        cells.extend([Cell::state(&status.phase), format!("{}/{}", status.ready_nodes, status.nodes).into()]);
        cells.extend(style.chain.then(|| known(status.current_height)));
        cells.push(spec.plugin.into());
        cells.extend(style.chain.then(|| status.chain_id.or(spec.chain_id).filter(|_| has_chain).unwrap_or_default().into()));
        cells.push(created(&self.metadata, style));
        if style.wide {
            let version = status.binary.map(|binary| binary.version).unwrap_or_default();
            cells.extend(style.chain.then(|| [version.into(), status.sdk_version.into()]).into_iter().flatten());
            let (reason, message) = match refusal(&status.conditions).or_else(|| complaint(&status.conditions)) {
                Some(condition) => (condition.reason.clone(), condition.message.clone()),
                None => (String::new(), status.message.unwrap_or_default()),
            };
            let (subnet, directory) = (status.subnet.unwrap_or_default(), status.directory.unwrap_or_default());
            cells.extend([subnet.into(), directory.into(), reason.into(), message.into()]);
        }
        cells
    }
    /// `plugin: exec` is a devnet of plain commands.
    fn has_chain(&self) -> bool {
        self.spec.as_ref().is_none_or(|spec| spec.plugin != "exec")
    }
    fn hint(&self) -> Option<String> {
        let status = self.status.as_ref()?;
        let refused = refusal(&status.conditions);
        if refused.is_none() && status.phase != "Failed" {
            return self.spec.as_ref()?.frozen().then(|| frozen_hint(&self.metadata));
        }
        Some(hint(&self.metadata, &status.phase, refused.or_else(|| complaint(&status.conditions))))
    }
}

impl Row for Node {
    fn reference(&self) -> String {
        format!("node/{}", name(&self.metadata))
    }
    fn columns(style: &Style) -> Vec<Column> {
        let mut columns = head(style);
        columns.extend([column("PHASE"), column("PID")]);
        if style.chain {
            columns.extend([column("HEIGHT"), spare("PEERS", 1)]);
        }
        columns.extend([spare("RESTARTS", 2), spare("AGE", 3), flexible("ENDPOINT")]);
        if style.wide {
            columns.extend([
                column("ROLE"),
                column("ADDRESS"),
                column("CPU"),
                column("MEMORY"),
                column("BINARY"),
                column("REASON"),
                column("LAST-EXIT"),
            ]);
        }
        columns
    }
    fn cells(&self, style: &Style) -> Vec<Cell> {
        let (no_spec, no_status) = (NodeSpec::default(), NodeStatus::default());
        let (spec, status) = (self.spec.as_ref().unwrap_or(&no_spec), self.status.as_ref().unwrap_or(&no_status));
        let mut cells = head_cells(&self.metadata, style);
        cells.extend([Cell::state(&status.phase), known(status.pid)]);
        if style.chain {
            cells.extend([height(status), known(status.peer_count)]);
        }
        cells.extend([
            status.restart_count.to_string().into(),
            age(status.started_at.as_deref().unwrap_or_default(), style.now).into(),
            endpoint(status).into(),
        ]);
        if style.wide {
            let usage = status.usage.as_ref();
            cells.extend([
                spec.role.clone().into(),
                spec.address.clone().into(),
                usage.map(|usage| format!("{:.2}", usage.cpu)).unwrap_or_default().into(),
                usage.map(|usage| bytes(usage.memory)).unwrap_or_default().into(),
                spec.binary_hash.chars().take(12).collect::<String>().into(),
                complaint(&status.conditions).map(|condition| condition.reason.clone()).unwrap_or_default().into(),
                status.last_exit.as_ref().map(exit_text).unwrap_or_default().into(),
            ]);
        }
        cells
    }
    fn has_chain(&self) -> bool {
        self.spec.as_ref().is_none_or(|spec| spec.role != "service")
    }
    fn hint(&self) -> Option<String> {
        if self.spec.as_ref().is_some_and(|spec| spec.frozen) {
            return Some(frozen_hint(&self.metadata));
        }
        let status = self.status.as_ref().filter(|status| status.phase == "Failed")?;
        Some(hint(&self.metadata, &status.phase, complaint(&status.conditions)))
    }
}

impl Row for Event {
    fn reference(&self) -> String {
        format!("event/{}", self.id)
    }
    fn columns(style: &Style) -> Vec<Column> {
        let mut columns = vec![column("AGE"), column("TYPE"), column("REASON"), column("OBJECT"), flexible("MESSAGE")];
        if style.namespaces {
            columns.insert(0, column("NAMESPACE"));
        }
        if style.wide {
            columns.extend([column("ACTOR"), column("ID")]);
        }
        columns
    }
    fn cells(&self, style: &Style) -> Vec<Cell> {
        let object = if self.kind == "Devnet" || self.kind == "Node" { self.name.clone() } else { format!("{}/{}", self.kind, self.name) };
        let kind = if self.r#type == "Warning" { Cell::state("Warning") } else { self.r#type.clone().into() };
        let mut cells = vec![age(&self.time, style.now).into(), kind, self.reason.clone().into(), object.into(), self.message.clone().into()];
        if style.namespaces {
            cells.insert(0, self.namespace.clone().into());
        }
        if style.wide {
            cells.extend([self.actor.clone().into(), self.id.clone().into()]);
        }
        cells
    }
}

impl Row for Launch {
    fn reference(&self) -> String {
        format!("launch/{}", name(&self.metadata))
    }
    fn columns(style: &Style) -> Vec<Column> {
        let mut columns =
            vec![column("NODE"), column("LAUNCH"), column("PHASE"), column("PID"), column("STARTED"), column("ENDED"), flexible("EXIT")];
        if style.namespaces {
            columns.insert(0, column("NAMESPACE"));
        }
        if style.wide {
            columns.extend([flexible("LOG"), flexible("COMMAND")]);
        }
        columns
    }
    fn cells(&self, style: &Style) -> Vec<Cell> {
        let spec = self.spec.clone().unwrap_or_default();
        let status = self.status.clone().unwrap_or_default();
        let time = |time: &Option<String>| Cell::from(age(time.as_deref().unwrap_or_default(), style.now));
        let mut cells = vec![
            spec.node_ref.into(),
            spec.launch_id.into(),
            Cell::state(&status.phase),
            known(status.pid),
            time(&status.started_at),
            time(&status.ended_at),
            status.exit.as_ref().map(exit_text).unwrap_or_default().into(),
        ];
        if style.namespaces {
            cells.insert(0, self.metadata.clone().unwrap_or_default().namespace.into());
        }
        if style.wide {
            cells.extend([spec.log_path.into(), spec.argv.join(" ").into()]);
        }
        cells
    }
}

impl Row for PluginInfo {
    fn reference(&self) -> String {
        format!("plugin/{}", self.name)
    }
    fn columns(style: &Style) -> Vec<Column> {
        let mut columns = vec![column("NAME"), column("VERSION"), column("API"), column("STATE"), flexible("NETWORKS"), flexible("DESCRIPTION")];
        if style.wide {
            columns.extend([flexible("PATH"), flexible("CAPABILITIES")]);
        }
        columns
    }
    fn cells(&self, style: &Style) -> Vec<Cell> {
        let text = if self.message.is_empty() { &self.description } else { &self.message };
        let mut cells: Vec<Cell> = vec![
            self.name.clone().into(),
            self.version.clone().into(),
            self.api_version.to_string().into(),
            Cell::state(&self.state),
            self.networks.join(",").into(),
            text.clone().into(),
        ];
        if style.wide {
            cells.extend([Cell::from(self.path.clone()), self.capabilities.join(",").into()]);
        }
        cells
    }
}

impl Row for PortLease {
    fn reference(&self) -> String {
        format!("port/{}/{}", self.node, self.name)
    }
    fn columns(_: &Style) -> Vec<Column> {
        vec![column("NODE"), column("NAME"), column("ADDRESS"), column("PORT"), column("STATE"), flexible("HOLDER")]
    }
    fn cells(&self, _: &Style) -> Vec<Cell> {
        let address = if self.wildcard { format!("{} (all)", self.address) } else { self.address.clone() };
        vec![
            self.node.clone().into(),
            self.name.clone().into(),
            address.into(),
            self.port.to_string().into(),
            Cell::state(&self.state),
            self.holder.clone().unwrap_or_default().into(),
        ]
    }
}

impl Row for Orphan {
    fn reference(&self) -> String {
        self.id.clone()
    }
    fn columns(_: &Style) -> Vec<Column> {
        vec![column("KIND"), flexible("NAME"), flexible("WHAT"), flexible("WHY")]
    }
    fn cells(&self, _: &Style) -> Vec<Cell> {
        vec![self.kind.clone().into(), self.name.clone().into(), self.what.clone().into(), self.why.clone().into()]
    }
}

impl Row for BinaryInfo {
    fn reference(&self) -> String {
        format!("binary/{}", self.digest)
    }
    fn columns(style: &Style) -> Vec<Column> {
        let mut columns = vec![column("DIGEST"), flexible("SOURCE"), column("SIZE"), spare("ADDED", 1), spare("USED", 1), flexible("USED-BY")];
        if style.wide {
            columns.push(flexible("PATH"));
        }
        columns
    }
    fn cells(&self, style: &Style) -> Vec<Cell> {
        let mut cells: Vec<Cell> = vec![
            digest(self, style).into(),
            self.source.clone().into(),
            bytes(self.size).into(),
            age(&self.added_at, style.now).into(),
            age(&self.used_at, style.now).into(),
            self.used_by.join(", ").into(),
        ];
        if style.wide {
            cells.push(self.path.clone().into());
        }
        cells
    }
}

impl Row for BinaryVerdict {
    fn reference(&self) -> String {
        self.binary.as_ref().map(BinaryInfo::reference).unwrap_or_default()
    }
    fn columns(_: &Style) -> Vec<Column> {
        vec![column("DIGEST"), flexible("SOURCE"), column("SIZE"), column("STATE"), flexible("USED-BY")]
    }
    fn cells(&self, style: &Style) -> Vec<Cell> {
        let binary = self.binary.clone().unwrap_or_default();
        vec![
            digest(&binary, style).into(),
            binary.source.into(),
            bytes(binary.size).into(),
            self.state.clone().into(),
            binary.used_by.join(", ").into(),
        ]
    }
}

fn digest(binary: &BinaryInfo, style: &Style) -> String {
    if style.wide { binary.digest.clone() } else { binary.digest.chars().take(12).collect() }
}

impl Row for Upgrade {
    fn reference(&self) -> String {
        format!("upgrade/{}", name(&self.metadata))
    }
    fn columns(style: &Style) -> Vec<Column> {
        head(style).into_iter().chain([column("PHASE"), column("HEIGHT"), column("AGE"), flexible("MESSAGE")]).collect()
    }
    fn cells(&self, style: &Style) -> Vec<Cell> {
        let status = self.status.clone().unwrap_or_default();
        let height = status.height.map(|height| height.to_string()).unwrap_or_default();
        let height = if status.former_chain { format!("{height} of the former chain") } else { height };
        let tail = [Cell::state(&status.phase), height.into(), created(&self.metadata, style), status.message.into()];
        head_cells(&self.metadata, style).into_iter().chain(tail).collect()
    }
}

impl Row for Transaction {
    fn reference(&self) -> String {
        format!("transaction/{}", name(&self.metadata))
    }
    fn columns(style: &Style) -> Vec<Column> {
        head(style).into_iter().chain([column("TYPE"), column("PHASE"), column("HEIGHT"), column("AGE"), flexible("HASH")]).collect()
    }
    fn cells(&self, style: &Style) -> Vec<Cell> {
        let status = self.status.clone().unwrap_or_default();
        let kind = self.spec.clone().unwrap_or_default().tx_type;
        let height = status.height.map(|height| height.to_string()).unwrap_or_default();
        let hash = status.tx_hash.unwrap_or_default();
        let height = if status.former_chain { format!("{height} of the former chain") } else { height };
        let tail = [kind.into(), Cell::state(&status.phase), height.into(), created(&self.metadata, style), hash.into()];
        head_cells(&self.metadata, style).into_iter().chain(tail).collect()
    }
}

impl Row for Export {
    fn reference(&self) -> String {
        format!("export/{}", name(&self.metadata))
    }
    fn columns(style: &Style) -> Vec<Column> {
        head(style).into_iter().chain([column("PHASE"), column("SIZE"), column("AGE"), flexible("PATH")]).collect()
    }
    fn cells(&self, style: &Style) -> Vec<Cell> {
        let status = self.status.clone().unwrap_or_default();
        let path = status.path.unwrap_or_default();
        let tail = [Cell::state(&status.phase), bytes(status.bytes).into(), created(&self.metadata, style), path.into()];
        head_cells(&self.metadata, style).into_iter().chain(tail).collect()
    }
}

/// The one endpoint that people look for first, else any.
pub(crate) fn endpoint(status: &NodeStatus) -> String {
    let first = ["rpc", "http", "jsonrpc", "json-rpc"].iter().find_map(|name| status.endpoints.get(*name));
    first.or_else(|| status.endpoints.values().next()).cloned().unwrap_or_default()
}

/// `exit code 1: unknown flag: --x (bad-flag)`
pub(crate) fn exit_text(exit: &LastExit) -> String {
    let (how, word) = match (&exit.signal, exit.code) {
        (Some(signal), _) => (format!("killed by {signal}"), signal.clone()),
        (None, Some(code)) => (format!("exit code {code}"), format!("exit code {code}")),
        (None, None) => ("ended".to_owned(), String::new()),
    };
    let text = match exit.message.as_str() {
        "" => how,
        message if message.contains(&word) => message.to_owned(),
        message => format!("{how}: {message}"),
    };
    if exit.class.is_empty() || exit.class == "unknown" { text } else { format!("{text} ({})", exit.class) }
}

/// A spec that cannot be had: nothing else matters then.
pub(crate) fn refusal(conditions: &[Condition]) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.r#type == "Provisioned" && condition.status == "False")
}

/// The condition that holds an object back: the first that is False, with what mends it.
pub(crate) fn complaint(conditions: &[Condition]) -> Option<&Condition> {
    let bad = |condition: &&Condition| condition.status == "False" && !condition.message.is_empty();
    conditions.iter().filter(bad).min_by_key(|condition| condition.remedy.is_none())
}

/// `mynet: Provisioned=False: there is no plugin `x`; dvbctl why mynet`
fn hint(metadata: &Option<Metadata>, phase: &str, cause: Option<&Condition>) -> String {
    let what = match cause {
        Some(cause) => format!("{}={}: {}", cause.r#type, cause.status, beginning(&cause.message)),
        None => phase.to_owned(),
    };
    format!("{0}: {what}; dvbctl why {0}{1}", name(metadata), in_namespace(metadata)).replace(|c: char| c.is_control(), " ")
}

/// The phase does not show it: the process is there, and stands still.
fn frozen_hint(metadata: &Option<Metadata>) -> String {
    format!("{0} is frozen; dvbctl thaw {0}{1}", name(metadata), in_namespace(metadata))
}

fn in_namespace(metadata: &Option<Metadata>) -> String {
    let namespace = metadata.as_ref().map(|metadata| metadata.namespace.as_str()).filter(|name| !matches!(*name, "" | "default"));
    namespace.map(|name| format!(" -n {name}")).unwrap_or_default()
}

/// The first line, or as much of it as a hint needs.
fn beginning(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(HINT_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

fn height(status: &NodeStatus) -> Cell {
    match status.block_height {
        Some(height) if status.catching_up => format!("{height} (syncing)").into(),
        height => known(height),
    }
}

/// `-` for what nobody knows.
pub(crate) fn known(number: Option<impl ToString>) -> Cell {
    number.map(|number| number.to_string()).unwrap_or_default().into()
}

pub(crate) fn name(metadata: &Option<Metadata>) -> &str {
    metadata.as_ref().map_or("", |metadata| metadata.name.as_str())
}

fn head(style: &Style) -> Vec<Column> {
    if style.namespaces { vec![column("NAMESPACE"), column("NAME")] } else { vec![column("NAME")] }
}

fn head_cells(metadata: &Option<Metadata>, style: &Style) -> Vec<Cell> {
    let name = name(metadata).to_owned().into();
    let namespace = || metadata.as_ref().map(|metadata| metadata.namespace.clone()).unwrap_or_default().into();
    if style.namespaces { vec![namespace(), name] } else { vec![name] }
}

fn created(metadata: &Option<Metadata>, style: &Style) -> Cell {
    age(metadata.as_ref().map_or("", |metadata| &metadata.created_at), style.now).into()
}
