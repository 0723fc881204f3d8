//! `tx types` and `tx templates`: what a devnet's chain takes.

use crate::{
    cli::Format,
    context::Context,
    error::Error,
    render::{
        self, Named, Row, Style, print_items,
        table::{Cell, Column, column, flexible},
    },
};
use dvb_proto::devnet::v1::{TxType, TxTypesRequest};

/// List the types of transaction that a devnet takes
#[derive(Debug, clap::Args)]
pub(super) struct Types {
    devnet: String,
}

/// Print a payload of a type to start from
#[derive(Debug, clap::Args)]
pub(super) struct Templates {
    devnet: String,
    #[arg(value_name = "TYPE")]
    kind: String,
}

pub(super) async fn list(ctx: &Context, args: Types) -> Result<(), Error> {
    print_items(ctx, &types(ctx, &args.devnet).await?, Named::Many, "types")
}

pub(super) async fn template(ctx: &Context, args: Templates) -> Result<(), Error> {
    let types = types(ctx, &args.devnet).await?;
    let Some(found) = types.iter().find(|kind| kind.name == args.kind) else {
        let names: Vec<&str> = types.iter().map(|kind| kind.name.as_str()).collect();
        let message = format!("there is no type {} on {}; there are {}", args.kind, args.devnet, names.join(", "));
        return Err(Error::not_found(message).with_remedy(format!("dvbctl tx types {}", args.devnet)));
    };
    let value = serde_json::from_str(&found.template).map_err(|error| Error::failed("PluginBroken", format!("its template is no JSON: {error}")))?;
    match ctx.settings.format {
        Format::Yaml => Ok(ctx.print(render::yaml(&value)?.trim_end())?),
        _ => Ok(ctx.print(render::json(&value)?)?),
    }
}

async fn types(ctx: &Context, devnet: &str) -> Result<Vec<TxType>, Error> {
    let request = TxTypesRequest { namespace: ctx.settings.namespace.clone(), devnet: devnet.to_owned() };
    Ok(ctx.client().await?.transactions().list_types(request).await?.into_inner().items)
}

impl Row for TxType {
    fn reference(&self) -> String {
        self.name.clone()
    }
    fn columns(_: &Style) -> Vec<Column> {
        vec![column("TYPE"), flexible("DESCRIPTION")]
    }
    fn cells(&self, _: &Style) -> Vec<Cell> {
        vec![self.name.clone().into(), self.description.clone().into()]
    }
}
