//! What can be said of a spec without a plugin, a file or a machine: names, counts, contradictions.

use super::{BinarySource, ByteSize, Devnet, GenesisSpec, LogsSpec, Mode, ReadinessSpec, ServiceSpec, Span, Violation};
use std::collections::BTreeSet;

/// Nodes of one devnet, services included: what one loopback /24 can address.
pub const MAX_NODES: u32 = 250;

/// Least size of a log file: a line that is handed out in one piece must fit.
pub const MIN_LOG: ByteSize = ByteSize(64 << 10);

/// All faults, in the order of the document. An empty list: valid as far as can be told here.
pub fn validate_devnet(devnet: &Devnet) -> Vec<Violation> {
    let mut faults = Vec::new();
    let spec = &devnet.spec;
    check_name("metadata.name", &devnet.metadata.name, &mut faults);
    check_name("metadata.namespace", &devnet.metadata.namespace, &mut faults);
    if spec.plugin.is_empty() {
        faults.push(Violation::new("spec.plugin", "is required: the chain family, as in cosmos or commonware"));
    } else {
        check_name("spec.plugin", &spec.plugin, &mut faults);
    }
    if let Some(chain_id) = &spec.chain_id
        && (chain_id.is_empty() || chain_id.len() > 50 || !chain_id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)))
    {
        faults.push(Violation::new("spec.chainId", "must have 1 to 50 letters, digits, `-`, `_` or `.`"));
    }
    check_counts(devnet, &mut faults);
    check_genesis(&spec.genesis, &mut faults);
    if spec.mode == Mode::Docker {
        faults.push(Violation::new("spec.mode", "docker is not built yet; leave it out to run natively"));
    }
    if spec.block_time.is_some_and(|time| time < Span::millis(10) || time > Span::secs(3600)) {
        faults.push(Violation::new("spec.blockTime", "must lie between 10ms and 1h"));
    }
    if let Some(binary) = &spec.binary {
        check_binary("spec.binary", binary, &mut faults);
    }
    if let Some(logs) = &spec.logs {
        check_logs("spec.logs", logs, &mut faults);
    }
    let mut names = BTreeSet::new();
    for (i, node) in spec.nodes.iter().enumerate() {
        let at = format!("spec.nodes[{i}]");
        check_name(&format!("{at}.name"), &node.name, &mut faults);
        if !names.insert(node.name.as_str()) {
            faults.push(Violation::new(format!("{at}.name"), format!("`{}` is named twice", node.name)));
        }
        if let Some(binary) = &node.binary {
            check_binary(&format!("{at}.binary"), binary, &mut faults);
        }
        check_own_logs(&format!("{at}.logs"), node.logs.as_ref(), &mut faults);
    }
    let mut names = BTreeSet::new();
    for (i, service) in spec.services.iter().enumerate() {
        check_service(&format!("spec.services[{i}]"), service, &mut faults);
        check_own_logs(&format!("spec.services[{i}].logs"), service.logs.as_ref(), &mut faults);
        if !names.insert(service.name.as_str()) {
            faults.push(Violation::new(format!("spec.services[{i}].name"), format!("`{}` is named twice", service.name)));
        }
    }
    faults
}

fn check_counts(devnet: &Devnet, faults: &mut Vec<Violation>) {
    let spec = &devnet.spec;
    let services = u32::try_from(spec.services.len()).unwrap_or(u32::MAX);
    if !spec.has_chain() {
        if services == 0 {
            faults.push(Violation::new("spec.services", "is required for plugin exec: at least one command"));
        }
        if spec.validators() != 0 {
            faults.push(Violation::new("spec.validators", "plugin exec has no validators; list commands in spec.services"));
        }
    } else if spec.validators() == 0 {
        faults.push(Violation::new("spec.validators", "must be at least 1"));
    }
    let total = spec.validators().saturating_add(spec.full_nodes).saturating_add(services);
    if total > MAX_NODES {
        let field = if spec.validators() > MAX_NODES { "spec.validators" } else { "spec.fullNodes" };
        faults.push(Violation::new(field, format!("{total} nodes are too many for one machine; at most {MAX_NODES} in all")));
    }
    if spec.accounts() > 10_000 {
        faults.push(Violation::new("spec.accounts", "at most 10000"));
    }
}

fn check_service(at: &str, service: &ServiceSpec, faults: &mut Vec<Violation>) {
    check_name(&format!("{at}.name"), &service.name, faults);
    if service.command.first().is_none_or(String::is_empty) {
        faults.push(Violation::new(format!("{at}.command"), "is required: program and arguments as a list"));
    }
    for (index, port) in service.park.iter().enumerate().filter(|(_, port)| !service.ports.contains_key(*port)) {
        faults.push(Violation::new(format!("{at}.park[{index}]"), format!("names the port `{port}`, which {at}.ports does not list")));
    }
    let Some(ReadinessSpec { tcp, http, log }) = &service.readiness else { return };
    if [tcp, http, log].into_iter().flatten().count() > 1 {
        faults.push(Violation::new(format!("{at}.readiness"), "takes one of tcp, http and log"));
    }
    let port = tcp.as_deref().or_else(|| http.as_deref().map(|http| http.split('/').next().unwrap_or_default()));
    if let Some(port) = port
        && !service.ports.contains_key(port)
    {
        faults.push(Violation::new(format!("{at}.readiness"), format!("names the port `{port}`, which {at}.ports does not list")));
    }
}

/// Of a node or a service.
fn check_own_logs(at: &str, logs: Option<&LogsSpec>, faults: &mut Vec<Violation>) {
    let Some(logs) = logs else { return };
    if logs.devnet.is_some() {
        faults.push(Violation::new(format!("{at}.devnet"), "caps all nodes together: it goes into spec.logs"));
    }
    check_logs(at, logs, faults);
}

fn check_logs(at: &str, logs: &LogsSpec, faults: &mut Vec<Violation>) {
    let LogsSpec { rotate, node, devnet, age } = logs;
    for (field, size) in [("rotate", rotate), ("node", node), ("devnet", devnet)] {
        if size.is_some_and(|size| size < MIN_LOG) {
            faults.push(Violation::new(format!("{at}.{field}"), format!("must be {MIN_LOG} or more")));
        } else if let (Some(rotate), Some(size)) = (rotate, size)
            && size < rotate
        {
            faults.push(Violation::new(format!("{at}.{field}"), format!("must be at least {at}.rotate, which is {rotate}")));
        }
    }
    if age.is_some_and(|age| age < Span::secs(60)) {
        faults.push(Violation::new(format!("{at}.age"), "must be 1m or more"));
    }
}

fn check_genesis(genesis: &GenesisSpec, faults: &mut Vec<Violation>) {
    let sources = [&genesis.from_export, &genesis.from_file, &genesis.from_url];
    let mut fault = |field: &str, message: &str| faults.push(Violation::new(field, message));
    if sources.into_iter().flatten().count() > 1 {
        return fault("spec.genesis", "takes only one of fromExport, fromFile and fromUrl");
    }
    if genesis.from_export.as_ref().is_some_and(|name| !name.contains('/')) {
        fault("spec.genesis.fromExport", "is DEVNET/EXPORT, as `dvbctl get exports` prints it");
    }
    if genesis.from_file.as_ref().is_some_and(|path| !path.starts_with('/')) {
        fault("spec.genesis.fromFile", "must be an absolute path");
    }
    if genesis.from_url.as_ref().is_some_and(|url| !["https://", "http://", "file://"].iter().any(|scheme| url.starts_with(scheme))) {
        fault("spec.genesis.fromUrl", "must begin with https://, http:// or file://");
    }
    let is_digest = |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match &genesis.sha256 {
        Some(_) if !genesis.is_fork() => fault("spec.genesis.sha256", "goes with fromExport, fromFile or fromUrl"),
        Some(digest) if !is_digest(digest) => fault("spec.genesis.sha256", "must be 64 hex digits, as sha256sum prints them"),
        None if genesis.from_file.is_some() || genesis.from_url.is_some() => {
            fault("spec.genesis.sha256", "is required with fromFile and fromUrl, as sha256sum prints it");
        }
        _ => {}
    }
}

fn check_binary(at: &str, binary: &BinarySource, faults: &mut Vec<Violation>) {
    let named =
        [binary.path.is_some(), binary.go_module.is_some(), binary.url.is_some(), binary.cargo.is_some(), binary.npm.is_some(), binary.git.is_some()];
    match named.into_iter().filter(|named| *named).count() {
        0 => faults.push(Violation::new(at, "needs one of path, goModule, url, cargo, npm, git")),
        1 => {}
        _ => faults.push(Violation::new(at, "takes only one of path, goModule, url, cargo, npm, git")),
    }
    if let Some(go) = &binary.go_module {
        for (field, text) in [("module", &go.module), ("version", &go.version)] {
            if text.is_empty() || text.starts_with('-') || text.chars().any(char::is_whitespace) {
                faults.push(Violation::new(format!("{at}.goModule.{field}"), "is required, without spaces, and may not begin with `-`"));
            }
        }
    }
    if binary.url.is_some() && binary.sha256.is_none() {
        faults.push(Violation::new(format!("{at}.sha256"), "is required with url"));
    }
}

/// `[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?`
pub fn check_name(field: &str, name: &str, faults: &mut Vec<Violation>) {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = (1..=40).contains(&name.len()) && name.chars().all(inner) && !name.starts_with('-') && !name.ends_with('-');
    if !good {
        let shown: String = name.chars().take(40).collect();
        let dots = if shown.len() < name.len() { "…" } else { "" };
        let message = format!("`{shown}{dots}` is not a name: 1 to 40 of a-z, 0-9 and `-`, beginning and ending with a letter or digit");
        faults.push(Violation::new(field, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DevnetSpec, DevnetStatus, Meta};

    fn faults(edit: impl FnOnce(&mut Devnet)) -> Vec<String> {
        let metadata = Meta { name: "mynet".into(), namespace: "default".into(), ..Meta::default() };
        let spec = DevnetSpec { plugin: "cosmos".into(), ..DevnetSpec::default() };
        let mut devnet = Devnet { metadata, spec, status: DevnetStatus::default() };
        edit(&mut devnet);
        validate_devnet(&devnet).into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn a_plain_spec_is_valid() {
        assert_eq!(faults(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn each_fault_names_its_field() {
        assert_eq!(faults(|d| d.metadata.name = "../x".into()), ["metadata.name"]);
        assert_eq!(faults(|d| d.metadata.name = "x".repeat(300)), ["metadata.name"]);
        assert_eq!(faults(|d| d.spec.plugin.clear()), ["spec.plugin"]);
        assert_eq!(faults(|d| d.spec.validators = Some(0)), ["spec.validators"]);
        assert_eq!(faults(|d| d.spec.validators = Some(10_000)), ["spec.validators"]);
        assert_eq!(faults(|d| d.spec.full_nodes = 10_000), ["spec.fullNodes"]);
        assert_eq!(faults(|d| d.spec.binary = Some(BinarySource::default())), ["spec.binary"]);
        assert_eq!(faults(|d| d.spec.plugin = "exec".into()), ["spec.services"]);
        let parks = |port: &str| ServiceSpec {
            name: "web".into(),
            command: vec!["web".into()],
            ports: [("http".to_owned(), 8080)].into(),
            park: vec![port.into()],
            ..ServiceSpec::default()
        };
        assert_eq!(faults(|d| d.spec.services = vec![parks("http")].into()), Vec::<String>::new());
        assert_eq!(faults(|d| d.spec.services = vec![parks("htp")].into()), ["spec.services[0].park[0]"]);
    }

    #[test]
    fn caps_of_logs_are_possible_and_do_not_contradict_each_other() {
        let size = |kib: u64| Some(ByteSize(kib << 10));
        let logs = |rotate, node, devnet, age| Some(LogsSpec { rotate, node, devnet, age });
        assert_eq!(faults(|d| d.spec.logs = logs(size(64), size(64), size(64), Some(Span::secs(60)))), Vec::<String>::new());
        assert_eq!(faults(|d| d.spec.logs = logs(None, size(64), None, None)), Vec::<String>::new());
        let all = ["spec.logs.rotate", "spec.logs.node", "spec.logs.devnet", "spec.logs.age"];
        assert_eq!(faults(|d| d.spec.logs = logs(size(63), size(1), size(0), Some(Span::secs(59)))), all);
        assert_eq!(faults(|d| d.spec.logs = logs(size(100), size(99), size(100), None)), ["spec.logs.node"]);
        let own = |logs| vec![crate::model::NodeOverride { name: "validator-0".into(), logs, ..Default::default() }];
        assert_eq!(faults(|d| d.spec.nodes = own(logs(None, size(64), None, None))), Vec::<String>::new());
        assert_eq!(faults(|d| d.spec.nodes = own(logs(None, None, size(64), None))), ["spec.nodes[0].logs.devnet"]);
        let service = |logs| vec![ServiceSpec { name: "a".into(), command: vec!["true".into()], logs, ..Default::default() }];
        assert_eq!(faults(|d| d.spec.services = service(logs(size(1), None, None, None)).into()), ["spec.services[0].logs.rotate"]);
    }
}
