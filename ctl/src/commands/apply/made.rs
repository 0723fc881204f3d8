//! What an apply made, of whichever kind: sent, waited for, and told.

use super::super::{export, tx, upgrade};
use crate::{
    client::Client,
    context::Context,
    document::{Document, DocumentError, Wanted},
    error::{Error, Exit},
    render::{self, Row, objects::name},
};
use dvb_proto::devnet::v1::{
    ApplyExportRequest, ApplyRequest, ApplyTransactionRequest, ApplyUpgradeRequest, Devnet, Export, FieldChange, Metadata, Transaction, Upgrade,
};
use serde_json::Value;
use tonic::Status;

/// An object as the daemon has it after the apply, or would have it.
pub(in crate::commands) struct Made {
    pub(in crate::commands) object: Object,
    /// created | configured | unchanged
    pub(in crate::commands) action: String,
    pub(in crate::commands) changes: Vec<FieldChange>,
}

pub(in crate::commands) enum Object {
    Devnet(Box<Devnet>),
    Transaction(Box<Transaction>),
    Upgrade(Box<Upgrade>),
    Export(Box<Export>),
}

/// Applies one document; faults of the spec come back with their place in it.
pub(in crate::commands) async fn send(client: &Client, document: &Document, dry_run: bool) -> Result<Made, Error> {
    ask(client, document, dry_run).await.map_err(|status| with_places(status.into(), document))
}

async fn ask(client: &Client, document: &Document, dry_run: bool) -> Result<Made, Status> {
    Ok(match document.wanted.clone() {
        Wanted::Devnet(devnet) => {
            let answer = client.devnets().apply(ApplyRequest { devnet: Some(*devnet), dry_run }).await?.into_inner();
            Made { object: Object::Devnet(Box::new(answer.devnet.unwrap_or_default())), action: answer.action, changes: answer.changes }
        }
        Wanted::Transaction(tx) => {
            let answer = client.transactions().apply(ApplyTransactionRequest { transaction: Some(*tx), dry_run }).await?.into_inner();
            Made { object: Object::Transaction(Box::new(answer.transaction.unwrap_or_default())), action: answer.action, changes: answer.changes }
        }
        Wanted::Upgrade(upgrade) => {
            let answer = client.upgrades().apply(ApplyUpgradeRequest { upgrade: Some(*upgrade), dry_run }).await?.into_inner();
            Made { object: Object::Upgrade(Box::new(answer.upgrade.unwrap_or_default())), action: answer.action, changes: answer.changes }
        }
        Wanted::Export(export) => {
            let answer = client.exports().apply(ApplyExportRequest { export: Some(*export), dry_run }).await?.into_inner();
            Made { object: Object::Export(Box::new(answer.export.unwrap_or_default())), action: answer.action, changes: answer.changes }
        }
    })
}

fn with_places(mut error: Error, document: &Document) -> Error {
    if error.exit == Exit::Refused && !error.fault.violations.is_empty() {
        error.document = Some(DocumentError::from_violations(&document.source, &document.tree, &error.fault.violations));
    }
    error
}

impl Object {
    pub(in crate::commands) fn metadata(&self) -> Option<&Metadata> {
        match self {
            Self::Devnet(devnet) => devnet.metadata.as_ref(),
            Self::Transaction(tx) => tx.metadata.as_ref(),
            Self::Upgrade(upgrade) => upgrade.metadata.as_ref(),
            Self::Export(export) => export.metadata.as_ref(),
        }
    }

    /// `upgrade/mynet/v2`
    pub(super) fn reference(&self) -> String {
        match self {
            Self::Devnet(devnet) => devnet.reference(),
            Self::Transaction(tx) => tx.reference(),
            Self::Upgrade(upgrade) => upgrade.reference(),
            Self::Export(export) => export.reference(),
        }
    }

    pub(super) fn to_value(&self) -> Result<Value, Error> {
        match self {
            Self::Devnet(devnet) => render::to_value(devnet),
            Self::Transaction(tx) => render::to_value(tx),
            Self::Upgrade(upgrade) => render::to_value(upgrade),
            Self::Export(export) => render::to_value(export),
        }
    }

    /// How far it is; devnets are told of by their waits.
    pub(super) fn phase(&self) -> String {
        match self {
            Self::Devnet(_) => String::new(),
            Self::Transaction(transaction) => {
                let former = transaction.status.as_ref().is_some_and(|status| status.former_chain);
                format!("{}{}", tx::phase(transaction), if former { " on the former chain, before a reset" } else { "" })
            }
            Self::Upgrade(upgrade) => upgrade::phase(upgrade).to_owned(),
            Self::Export(export) => export::phase(export).to_owned(),
        }
    }

    /// `transaction mynet/tx-0123 (rent)`: a transaction is stored under a digest of the name that the user gave it.
    pub(super) fn title(&self) -> String {
        match self {
            Self::Devnet(devnet) => format!("devnet {}", name(&devnet.metadata)),
            Self::Transaction(tx) => {
                let id = tx.spec.as_ref().map_or("", |spec| spec.request_id.as_str());
                format!("transaction {} ({id})", name(&tx.metadata))
            }
            Self::Upgrade(upgrade) => format!("upgrade {}", name(&upgrade.metadata)),
            Self::Export(export) => format!("export {}", name(&export.metadata)),
        }
    }

    /// As it is when it has ended; for one that did not reach its end, the error. A devnet is as asked for.
    pub(super) async fn settled(self, ctx: &Context, client: &Client) -> Result<Self, Error> {
        let ctx = ctx.in_namespace(self.metadata().map_or("", |metadata| metadata.namespace.as_str()));
        Ok(match self {
            Self::Devnet(devnet) => Self::Devnet(Box::new(super::wait(&ctx, client, &devnet).await?)),
            Self::Transaction(transaction) => {
                let transaction = tx::settle::one(&ctx, client, name(&transaction.metadata)).await?;
                if tx::phase(&transaction) == "Failed" {
                    return Err(tx::failure(&transaction));
                }
                Self::Transaction(Box::new(transaction))
            }
            Self::Upgrade(upgrade) => {
                let upgrade = upgrade::settle::ended(&ctx, client, name(&upgrade.metadata)).await?;
                upgrade::succeeded(&upgrade)?;
                Self::Upgrade(Box::new(upgrade))
            }
            Self::Export(export) => {
                let export = export::settle::ended(&ctx, client, name(&export.metadata)).await?;
                export::succeeded(&export)?;
                Self::Export(Box::new(export))
            }
        })
    }
}
