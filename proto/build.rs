//! Compiles the .proto files with protox, so that nobody needs protoc.

use std::{error::Error, path::Path};

const FILES: [&str; 7] = [
    "devnet/v1/meta.proto",
    "devnet/v1/devnet.proto",
    "devnet/v1/node.proto",
    "devnet/v1/operations.proto",
    "devnet/v1/gov.proto",
    "devnet/v1/daemon.proto",
    "plugin/v1/plugin.proto",
];

/// Fields that hold JSON text in protobuf and a nested value in JSON.
const JSON_FIELDS: [&str; 7] = [
    ".devnet.v1.GenesisSpec.patch",
    ".devnet.v1.NodeOverride.config",
    ".devnet.v1.TransactionSpec.payload",
    ".devnet.v1.Proposal.messages",
    ".devnet.v1.ParamChange.old",
    ".devnet.v1.ParamChange.new",
    ".devnet.v1.DraftParamChangeResponse.messages",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, [Path::new("proto")])?;
    let mut config = tonic_prost_build::Config::new();
    config.btree_map(["."]);
    config.type_attribute(".devnet.v1", "#[derive(serde::Serialize, serde::Deserialize)]");
    config.message_attribute(".devnet.v1", "#[serde(rename_all = \"camelCase\", default, deny_unknown_fields)]");
    for field in JSON_FIELDS {
        config.field_attribute(field, "#[serde(with = \"crate::json_text\")]");
    }
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
