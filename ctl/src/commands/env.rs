//! `env`: a devnet's endpoints, chain id and accounts as shell exports.

use super::one_devnet;
use crate::{cli::Format, context::Context, error::Error, render::objects::name};
use dvb_proto::{
    devnet::v1::{Devnet, ListRequest, Node},
    variables::{Neighbour, Surroundings},
};
use std::collections::BTreeMap;

/// Print endpoints, chain id and accounts as shell exports
///
/// eval "$(dvbctl env NAME)". The first validator's endpoints have plain names (DVB_RPC), the others DVB_VALIDATOR_1_RPC.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    name: String,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    one_devnet(&args.name)?;
    let client = ctx.client().await?;
    let devnet = client.devnets().get(ctx.object(&args.name)).await?.into_inner();
    let selector = ListRequest { devnet: args.name.clone(), ..ctx.selector() };
    let nodes = client.nodes().list(selector).await?.into_inner().items;
    let variables = variables(&devnet, &nodes);
    match ctx.settings.format {
        Format::Json | Format::Yaml => ctx.print_structured(&variables.into_iter().collect::<BTreeMap<_, _>>()),
        _ => Ok(variables.iter().try_for_each(|(name, value)| ctx.print(format!("export {name}={}", quoted(value))))?),
    }
}

fn variables(devnet: &Devnet, nodes: &[Node]) -> Vec<(String, String)> {
    let (metadata, status) = (devnet.metadata.clone().unwrap_or_default(), devnet.status.clone().unwrap_or_default());
    let surroundings = Surroundings {
        devnet: &metadata.name,
        namespace: &metadata.namespace,
        chain_id: status.chain_id.as_deref().unwrap_or_default(),
        mnemonic_file: status.mnemonic_path.as_deref().unwrap_or_default(),
        binary: status.binary.as_ref().map(|binary| binary.path.as_str()).unwrap_or_default(),
        accounts: status.accounts.iter().map(|account| account.address.as_str()).collect(),
        nodes: nodes.iter().filter_map(neighbour).collect(),
    };
    surroundings.variables()
}

fn neighbour(node: &Node) -> Option<Neighbour<'_>> {
    let (spec, status) = (node.spec.as_ref()?, node.status.as_ref()?);
    let (_, short) = name(&node.metadata).split_once('/')?;
    Some(Neighbour { short, role: &spec.role, index: spec.index, home: &spec.home_dir, endpoints: &status.endpoints })
}

/// For a POSIX shell: in single quotes nothing has a meaning but the single quote.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_shell_whatever_they_hold() {
        assert_eq!(quoted("http://127.0.0.1:26657"), "'http://127.0.0.1:26657'");
        assert_eq!(quoted("it's $HOME `x`"), r"'it'\''s $HOME `x`'");
    }
}
