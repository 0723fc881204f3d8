//! devnetd plugin `mock`: a chain whose node is a toy (`mock-node`, beside this binary) and whose plugin fails as a script says.
//!
//! It serves tests of devnetd. Without DVB_MOCK_SCRIPT it is a well-behaved small chain; see `script.rs` for the knobs.

mod chain;
mod node;
mod script;

use async_trait::async_trait;
use dvb_plugin_sdk::{HeightStream, Plugin, PluginFault, Result, pb};
use script::Player;
use std::{path::PathBuf, process::ExitCode};

struct Mock {
    player: Player,
    /// `mock-node`; None where it was not built.
    binary: Option<PathBuf>,
}

fn devnet(devnet: Option<pb::DevnetContext>) -> Result<pb::DevnetContext> {
    devnet.ok_or_else(|| PluginFault::InvalidArgument("the call names no devnet".into()))
}

fn placed(node: Option<pb::PlacedNode>) -> Result<pb::PlacedNode> {
    node.ok_or_else(|| PluginFault::InvalidArgument("the call names no node".into()))
}

#[async_trait]
impl Plugin for Mock {
    async fn get_info(&self, _request: pb::GetInfoRequest) -> Result<pb::PluginInfo> {
        let garbage = self.player.step("GetInfo").await?;
        Ok(pb::PluginInfo {
            name: if garbage { String::new() } else { "mock".into() },
            version: env!("CARGO_PKG_VERSION").into(),
            api_version: self.player.api_version(),
            description: "a scripted chain for tests".into(),
            networks: vec!["jobs".into()],
            default_binary: self.binary.as_ref().map(|path| path.to_string_lossy().into_owned()),
            default_validators: Some(4),
            needs_binary: true,
            ..pb::PluginInfo::default()
        })
    }

    async fn initialize(&self, request: pb::InitializeRequest) -> Result<pb::InitializeResponse> {
        let garbage = self.player.step("Initialize").await?;
        if garbage {
            let job = pb::Job { name: "no-argv".into(), ..Default::default() };
            return Ok(pb::InitializeResponse { jobs: vec![job], ..Default::default() });
        }
        chain::initialize(&devnet(request.devnet)?, &request.job_results)
    }

    async fn validate_spec(&self, request: pb::ValidateSpecRequest) -> Result<pb::ValidateSpecResponse> {
        let garbage = self.player.step("ValidateSpec").await?;
        let mut violations = chain::violations(&devnet(request.devnet)?);
        if garbage {
            violations.push(pb::Violation::default());
        }
        Ok(pb::ValidateSpecResponse { violations })
    }

    async fn plan_nodes(&self, request: pb::PlanNodesRequest) -> Result<pb::PlanNodesResponse> {
        let garbage = self.player.step("PlanNodes").await?;
        let mut nodes = chain::nodes(&devnet(request.devnet)?);
        if garbage {
            nodes.extend(nodes.clone());
        }
        Ok(pb::PlanNodesResponse { nodes })
    }

    async fn generate_genesis(&self, request: pb::GenerateGenesisRequest) -> Result<pb::GenerateGenesisResponse> {
        let garbage = self.player.step("GenerateGenesis").await?;
        let mut reply = chain::genesis(request)?;
        if garbage {
            reply.genesis_path = "../../outside".into();
        }
        Ok(reply)
    }

    async fn start_node(&self, request: pb::StartNodeRequest) -> Result<pb::LaunchPlan> {
        let garbage = self.player.step("StartNode").await?;
        let mut plan = chain::launch(request)?;
        if garbage {
            plan.argv.clear();
        }
        Ok(plan)
    }

    async fn stop_node(&self, _request: pb::StopNodeRequest) -> Result<pb::StopPlan> {
        self.player.step("StopNode").await?;
        Ok(pb::StopPlan { signal: "SIGTERM".into(), grace_ms: chain::GRACE_MS })
    }

    async fn get_node_status(&self, request: pb::NodeRef) -> Result<pb::NodeStatus> {
        let garbage = self.player.step("GetNodeStatus").await?;
        let mut status = node::status(&placed(request.node)?).await?;
        if garbage {
            status.sick = true;
            status.sick_class = "no-such-class".into();
        }
        Ok(status)
    }

    async fn get_block_height(&self, request: pb::NodeRef) -> Result<pb::BlockHeight> {
        self.player.step("GetBlockHeight").await?;
        let status = node::status(&placed(request.node)?).await?;
        Ok(pb::BlockHeight { height: status.height, ..pb::BlockHeight::default() })
    }

    async fn stream_block_heights(&self, request: pb::NodeRef) -> Result<HeightStream> {
        self.player.step("StreamBlockHeights").await?;
        node::heights(&placed(request.node)?).await
    }

    async fn classify_exit(&self, request: pb::ClassifyExitRequest) -> Result<pb::ExitClass> {
        let garbage = self.player.step("ClassifyExit").await?;
        let mut class = chain::classify(&request);
        if garbage {
            class.class = "no-such-class".into();
        }
        Ok(class)
    }
}

fn main() -> ExitCode {
    // Before the SDK takes stdout away: the script may want to write where it must not.
    let player = match Player::from_env() {
        Ok(player) => player,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "logging is set up later, by run()")]
            {
                eprintln!("dvb-plugin-mock: {error}");
            }
            return ExitCode::FAILURE;
        }
    };
    let sibling = std::env::current_exe().ok().map(|exe| exe.with_file_name("mock-node"));
    let lingers = player.lingers();
    let code = dvb_plugin_sdk::run(Mock { player, binary: sibling.filter(|path| path.exists()) });
    if lingers {
        loop {
            std::thread::park();
        }
    }
    code
}
