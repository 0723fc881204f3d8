//! The columns of each kind of object.

use super::{
    Row, Style,
    table::{Cell, Column, column, flexible},
    time::{age, bytes},
};
use dvb_proto::devnet::v1::{
    BinaryInfo, Condition, Devnet, Event, Export, LastExit, Launch, Metadata, Node, NodeStatus, PluginInfo, PortLease, Transaction, Upgrade,
};

impl Row for Devnet {
    fn reference(&self) -> String {
        format!("devnet/{}", name(&self.metadata))
    }
    fn columns(style: &Style) -> Vec<Column> {
        let mut columns = head(style);
        columns.extend([column("PHASE"), column("READY"), column("HEIGHT"), column("PLUGIN"), flexible("CHAIN-ID"), column("AGE")]);
        if style.wide {
            columns.extend([column("VERSION"), column("SUBNET"), flexible("DIRECTORY"), flexible("MESSAGE")]);
        }
        columns
    }
    fn cells(&self, style: &Style) -> Vec<Cell> {
        let spec = self.spec.clone().unwrap_or_default();
        let status = self.status.clone().unwrap_or_default();
        let mut cells = head_cells(&self.metadata, style);
        cells.extend([
            Cell::state(&status.phase),
            format!("{}/{}", status.ready_nodes, status.nodes).into(),
            status.current_height.to_string().into(),
            spec.plugin.into(),
            status.chain_id.or(spec.chain_id).unwrap_or_default().into(),
            created(&self.metadata, style),
        ]);
        if style.wide {
            cells.extend([
                status.sdk_version.into(),
                status.subnet.unwrap_or_default().into(),
                status.directory.unwrap_or_default().into(),
                status.message.unwrap_or_default().into(),
            ]);
        }
        cells
    }
}

impl Row for Node {
    fn reference(&self) -> String {
        format!("node/{}", name(&self.metadata))
    }
    fn columns(style: &Style) -> Vec<Column> {
        let mut columns = head(style);
        columns.extend([column("PHASE"), column("PID"), column("HEIGHT"), column("PEERS"), column("RESTARTS"), column("AGE"), flexible("ENDPOINT")]);
        if style.wide {
            columns.extend([column("ROLE"), column("ADDRESS"), column("CPU"), column("MEMORY"), column("BINARY"), flexible("LAST-EXIT")]);
        }
        columns
    }
    fn cells(&self, style: &Style) -> Vec<Cell> {
        let spec = self.spec.clone().unwrap_or_default();
        let status = self.status.clone().unwrap_or_default();
        let mut cells = head_cells(&self.metadata, style);
        cells.extend([
            Cell::state(&status.phase),
            pid(status.pid),
            height(&status).into(),
            status.peer_count.to_string().into(),
            status.restart_count.to_string().into(),
            age(status.started_at.as_deref().unwrap_or_default(), style.now).into(),
            endpoint(&status).into(),
        ]);
        if style.wide {
            let usage = status.usage;
            cells.extend([
                spec.role.into(),
                spec.address.into(),
                usage.map(|usage| format!("{:.2}", usage.cpu)).unwrap_or_default().into(),
                usage.map(|usage| bytes(usage.memory)).unwrap_or_default().into(),
                spec.binary_hash.chars().take(12).collect::<String>().into(),
                status.last_exit.as_ref().map(exit_text).unwrap_or_default().into(),
            ]);
        }
        cells
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
            pid(status.pid),
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

impl Row for BinaryInfo {
    fn reference(&self) -> String {
        format!("binary/{}", self.digest)
    }
    fn columns(style: &Style) -> Vec<Column> {
        let mut columns = vec![column("DIGEST"), flexible("SOURCE"), column("SIZE"), column("ADDED"), column("USED")];
        if style.wide {
            columns.push(flexible("PATH"));
        }
        columns
    }
    fn cells(&self, style: &Style) -> Vec<Cell> {
        let digest = if style.wide { self.digest.clone() } else { self.digest.chars().take(12).collect() };
        let mut cells: Vec<Cell> = vec![
            digest.into(),
            self.source.clone().into(),
            bytes(self.size).into(),
            age(&self.added_at, style.now).into(),
            age(&self.used_at, style.now).into(),
        ];
        if style.wide {
            cells.push(self.path.clone().into());
        }
        cells
    }
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

/// `exit code 1 (bad-flag): unknown flag: --x`
pub(crate) fn exit_text(exit: &LastExit) -> String {
    let how = match (&exit.signal, exit.code) {
        (Some(signal), _) => format!("killed by {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "ended".to_owned(),
    };
    let class = if exit.class.is_empty() || exit.class == "unknown" { String::new() } else { format!(" ({})", exit.class) };
    let message = if exit.message.is_empty() { String::new() } else { format!(": {}", exit.message) };
    format!("{how}{class}{message}")
}

/// The condition that holds an object back: the first that is False, with what mends it.
pub(crate) fn complaint(conditions: &[Condition]) -> Option<&Condition> {
    let bad = |condition: &&Condition| condition.status == "False" && !condition.message.is_empty();
    conditions.iter().filter(bad).min_by_key(|condition| condition.remedy.is_none())
}

fn height(status: &NodeStatus) -> String {
    if status.catching_up { format!("{} (syncing)", status.block_height) } else { status.block_height.to_string() }
}

fn pid(pid: Option<u32>) -> Cell {
    pid.map(|pid| pid.to_string()).unwrap_or_default().into()
}

pub(crate) fn name(metadata: &Option<Metadata>) -> &str {
    metadata.as_ref().map_or("", |metadata| metadata.name.as_str())
}

fn head(style: &Style) -> Vec<Column> {
    if style.namespaces { vec![column("NAMESPACE"), column("NAME")] } else { vec![column("NAME")] }
}

fn head_cells(metadata: &Option<Metadata>, style: &Style) -> Vec<Cell> {
    let metadata = metadata.clone().unwrap_or_default();
    if style.namespaces { vec![metadata.namespace.into(), metadata.name.into()] } else { vec![metadata.name.into()] }
}

fn created(metadata: &Option<Metadata>, style: &Style) -> Cell {
    age(metadata.as_ref().map_or("", |metadata| &metadata.created_at), style.now).into()
}
