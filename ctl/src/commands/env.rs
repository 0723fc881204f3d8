//! `env`: a devnet's endpoints, chain id and accounts as shell exports.

use super::one_devnet;
use crate::{cli::Format, context::Context, error::Error, render::objects::name};
use dvb_proto::devnet::v1::{Devnet, ListRequest, Node};
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

/// In the order in which they print. The first validator's endpoints have plain names: DVB_RPC.
fn variables(devnet: &Devnet, nodes: &[Node]) -> Vec<(String, String)> {
    let status = devnet.status.clone().unwrap_or_default();
    let metadata = devnet.metadata.clone().unwrap_or_default();
    let mut all = vec![("DVB_DEVNET".to_owned(), metadata.name), ("DVB_NAMESPACE".to_owned(), metadata.namespace)];
    let mut add = |name: String, value: String| {
        if !value.is_empty() {
            all.push((name, value));
        }
    };
    add("DVB_CHAIN_ID".into(), status.chain_id.unwrap_or_default());
    add("DVB_MNEMONIC_FILE".into(), status.mnemonic_path.unwrap_or_default());
    add("DVB_BINARY".into(), status.binary.map(|binary| binary.path).unwrap_or_default());
    let is_validator = |node: &&Node| node.spec.as_ref().is_some_and(|spec| spec.role == "validator");
    let index = |node: &&Node| node.spec.as_ref().map_or(0, |spec| spec.index);
    let first = nodes.iter().filter(is_validator).min_by_key(index).or_else(|| nodes.first());
    for (endpoint, url) in first.map(endpoints).unwrap_or_default() {
        add(format!("DVB_{}", word(&endpoint)), url);
    }
    for node in nodes {
        let short = name(&node.metadata).split_once('/').map_or("", |(_, short)| short);
        for (endpoint, url) in endpoints(node) {
            add(format!("DVB_{}_{}", word(short), word(&endpoint)), url);
        }
        add(format!("DVB_{}_HOME", word(short)), node.spec.as_ref().map(|spec| spec.home_dir.clone()).unwrap_or_default());
    }
    for (i, account) in status.accounts.iter().enumerate() {
        add(format!("DVB_ACCOUNT_{i}"), account.address.clone());
    }
    all
}

fn endpoints(node: &Node) -> BTreeMap<String, String> {
    node.status.as_ref().map(|status| status.endpoints.clone()).unwrap_or_default()
}

/// `validator-0` as a part of a variable's name: VALIDATOR_0.
fn word(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
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

    #[test]
    fn names_become_words_of_a_shell() {
        assert_eq!([word("validator-0"), word("json.rpc")], ["VALIDATOR_0", "JSON_RPC"]);
    }
}
