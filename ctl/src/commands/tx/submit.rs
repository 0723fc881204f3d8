//! `tx submit`: one transaction.

use super::{
    failure,
    intent::{Intent, fresh_request_id, parse_field, parse_payload},
    phase, settle, store,
};
use crate::{
    cli::Format,
    context::Context,
    error::Error,
    render::{Named, objects::name, print_items},
};
use serde_json::Value;

/// Submit one transaction
///
/// The payload of a type: dvbctl tx templates DEVNET TYPE
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    devnet: String,
    /// bank/send, transfer ...; dvbctl tx types DEVNET lists them
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    /// account:N, validator:N, or the address of one
    #[arg(long, value_name = "WHO")]
    signer: String,
    /// Field `to` of the payload
    #[arg(long, value_name = "WHO")]
    to: Option<String>,
    /// Field `amount` of the payload, as in 7stake
    #[arg(long, allow_hyphen_values = true)]
    amount: Option<String>,
    /// Any field of the payload: key=value
    #[arg(long = "set", value_parser = parse_field, value_name = "KEY=VALUE")]
    fields: Vec<(String, Value)>,
    /// The payload as JSON, or @FILE
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// Gas limit [default: simulated]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    gas: u64,
    /// Simulated gas is multiplied by it [default: 1.4]
    #[arg(long, default_value_t = 0.0, hide_default_value = true)]
    gas_factor: f64,
    #[arg(long, default_value = "", hide_default_value = true)]
    memo: String,
    /// A second submit with the same id is the same transaction
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Wait until it is Confirmed or Failed
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let mut payload = args.payload.as_deref().map(parse_payload).transpose()?.unwrap_or_default();
    payload.extend(args.fields);
    let intent = Intent {
        kind: args.kind,
        signer: args.signer,
        payload,
        to: args.to,
        amount: args.amount.map(Value::from),
        gas: args.gas,
        gas_factor: args.gas_factor,
        memo: args.memo,
        request_id: args.request_id.map_or_else(fresh_request_id, Ok)?,
    };
    let client = ctx.client().await?;
    let mut tx = store(&client, intent.into_transaction(&ctx.settings.namespace, &args.devnet)).await?;
    let own = name(&tx.metadata).to_owned();
    if args.wait {
        ctx.debug(format!("{own} is submitted"));
        tx = settle::one(ctx, &client, &own).await?;
    }
    if matches!(ctx.settings.format, Format::Table | Format::Wide) {
        let status = tx.status.clone().unwrap_or_default();
        let former = if status.former_chain { " of the former chain, before a reset" } else { "" };
        let place = status.height.map(|height| format!(" in block {height}{former}")).unwrap_or_default();
        let hash = status.tx_hash.map(|hash| format!("  {hash}")).unwrap_or_default();
        ctx.print(format!("{own} {}{place}{hash}", phase(&tx)))?;
    } else {
        print_items(ctx, std::slice::from_ref(&tx), Named::One, "")?;
    }
    if args.wait && phase(&tx) == "Failed" { Err(failure(&tx)) } else { Ok(()) }
}
