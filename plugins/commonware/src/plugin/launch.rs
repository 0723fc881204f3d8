//! A node's `config.toml` and launch plan.

use std::net::SocketAddr;
use std::path::Path;

use dvb_plugin_sdk::{PluginFault, Result, merge, pb, plain};
use serde_json::{Map, Value};

use super::nodes;
use crate::chain::config::{CONFIG_FILE, Config, P2p, Peer, Rpc};

const DEFAULT_BLOCK_TIME_MS: u64 = 1000;

pub(super) fn plan(devnet: &pb::DevnetContext, placed: &[pb::PlacedNode], name: &str, binary: String) -> Result<pb::LaunchPlan> {
    let node =
        placed.iter().find(|node| node.name == name).ok_or_else(|| PluginFault::InvalidArgument(format!("the devnet has no node {name:?}")))?;
    let overrides = devnet.overrides.get(name).cloned().unwrap_or_default();
    let mut argv = vec![binary, "run".into(), "--home".into(), node.home_dir.clone()];
    argv.extend(overrides.args);
    // Written anew for each start: addresses and block time may have changed since genesis.
    let config = pb::PlannedFile {
        path: Path::new(&node.home_dir).join(CONFIG_FILE).to_string_lossy().into_owned(),
        content: config(devnet, placed, node)?.into_bytes(),
        mode: 0o644,
        ..pb::PlannedFile::default()
    };
    Ok(pb::LaunchPlan {
        argv,
        env: overrides.env,
        cwd: node.home_dir.clone(),
        files: vec![config],
        readiness: Some(pb::Readiness { kind: Some(pb::readiness::Kind::Plugin(pb::PluginProbe {})) }),
        stop_signal: "SIGTERM".into(),
        grace_ms: 5_000,
        ..pb::LaunchPlan::default()
    })
}

/// The text of a node's `config.toml`, with the user's settings merged in.
pub(super) fn config(devnet: &pb::DevnetContext, placed: &[pb::PlacedNode], node: &pb::PlacedNode) -> Result<String> {
    let peers = placed.iter().map(|peer| {
        let (name, public_key) = (peer.name.clone(), nodes::address(devnet, &peer.role, peer.index));
        Ok(Peer { name, public_key, address: address(peer, "p2p")? })
    });
    let config = Config {
        moniker: node.name.clone(),
        block_time_ms: if devnet.block_time_ms == 0 { DEFAULT_BLOCK_TIME_MS } else { devnet.block_time_ms },
        log: "info".into(),
        rpc: Rpc { listen: address(node, "rpc")? },
        p2p: P2p { listen: address(node, "p2p")?, peers: peers.collect::<Result<_>>()? },
    };
    let mut document = serde_json::to_value(config).map_err(|error| PluginFault::Internal(error.to_string()))?;
    merge(&mut document, &settings(&devnet.overrides.get(&node.name).cloned().unwrap_or_default())?);
    let text = toml::to_string(&document).map_err(|error| PluginFault::InvalidArgument(format!("config of {}: {error}", node.name)))?;
    Config::parse(&text).map_err(|message| PluginFault::InvalidArgument(format!("config of {}: {message}", node.name)))?;
    Ok(text)
}

/// What a node's override says about `config.toml`; other files cannot be set.
pub(super) fn settings(overrides: &pb::NodeOverrides) -> Result<Value> {
    let invalid = PluginFault::InvalidArgument;
    if overrides.config.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let mut files: Map<String, Value> = serde_json::from_str(&overrides.config).map_err(|error| invalid(plain(&error.to_string())))?;
    let settings = files.remove(CONFIG_FILE).unwrap_or_else(|| Value::Object(Map::new()));
    if let Some(other) = files.keys().next() {
        return Err(invalid(format!("a devchain has no file {other:?} that can be set, only {CONFIG_FILE}")));
    }
    if !settings.is_object() {
        return Err(invalid(format!("{CONFIG_FILE} wants a map of settings")));
    }
    Ok(settings)
}

/// Where a port of a placed node listens.
pub(super) fn address(node: &pb::PlacedNode, port: &str) -> Result<SocketAddr> {
    let invalid = |why: String| PluginFault::InvalidArgument(format!("node {}: {why}", node.name));
    let number = node.ports.get(port).ok_or_else(|| invalid(format!("has no port {port}")))?;
    let number = u16::try_from(*number).map_err(|_| invalid(format!("port {port} is {number}")))?;
    let ip = node.address.parse().map_err(|_| invalid(format!("address {:?} is no IP address", node.address)))?;
    Ok(SocketAddr::new(ip, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(role: &str, index: u32) -> pb::PlacedNode {
        pb::PlacedNode {
            name: format!("{role}-{index}"),
            role: role.into(),
            index,
            address: format!("127.64.0.{}", index + 2),
            ports: [("p2p".to_owned(), 26100), ("rpc".to_owned(), 26101)].into(),
            home_dir: format!("/home/{role}-{index}"),
        }
    }

    fn devnet(config: &str) -> pb::DevnetContext {
        let overrides = pb::NodeOverrides { config: config.into(), args: vec!["--x".into()], ..pb::NodeOverrides::default() };
        pb::DevnetContext { seed: "s".into(), chain_id: "c".into(), overrides: [("validator-0".into(), overrides)].into(), ..Default::default() }
    }

    #[test]
    fn a_plan_runs_the_home_with_the_peers_and_the_user_s_settings() {
        let nodes = [placed("validator", 0), placed("validator", 1)];
        let plan = plan(&devnet(r#"{"config.toml": {"block_time_ms": 250}}"#), &nodes, "validator-0", "/bin/devchain".into()).unwrap();
        assert_eq!(plan.argv, ["/bin/devchain", "run", "--home", "/home/validator-0", "--x"]);
        let config = Config::parse(std::str::from_utf8(&plan.files[0].content).unwrap()).unwrap();
        assert_eq!(config.block_time_ms, 250);
        assert_eq!(config.p2p.peers.iter().map(|peer| peer.address.to_string()).collect::<Vec<_>>(), ["127.64.0.2:26100", "127.64.0.3:26100"]);
    }

    #[test]
    fn settings_that_do_not_fit_are_refused() {
        for (config, expect) in
            [(r#"{"config.toml": {"blok": 1}}"#, "blok"), (r#"{"x.toml": {}}"#, "x.toml"), (r#"{"config.toml": 1}"#, "wants a map")]
        {
            let fault = plan(&devnet(config), &[placed("validator", 0)], "validator-0", "/bin/devchain".into()).unwrap_err();
            assert!(fault.to_string().contains(expect), "{fault}");
        }
    }
}
