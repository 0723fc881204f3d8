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
    /// What the daemon took otherwise than it is written.
    pub(in crate::commands) note: Option<String>,
}

pub(in crate::commands) enum Object {
    Devnet(Box<Devnet>),
    Transaction(Box<Transaction>),
    Upgrade(Box<Upgrade>),
    Export(Box<Export>),
}

/// Applies one document of `all`; faults of the spec come back with their place in it.
pub(in crate::commands) async fn send(client: &Client, document: &Document, all: &[Document], dry_run: bool) -> Result<Made, Error> {
    ask(client, document, all, dry_run).await.map_err(|status| with_places(status.into(), document, all))
}

async fn ask(client: &Client, document: &Document, all: &[Document], dry_run: bool) -> Result<Made, Status> {
    let beside = if dry_run { devnet_of(document, all) } else { None };
    Ok(match document.wanted.clone() {
        Wanted::Devnet(devnet) => {
            let answer =
                client.devnets().apply(ApplyRequest { devnet: Some(*devnet), dry_run, upgrades: upgrades_of(document, all) }).await?.into_inner();
            Made {
                object: Object::Devnet(Box::new(answer.devnet.unwrap_or_default())),
                action: answer.action,
                changes: answer.changes,
                note: answer.note,
            }
        }
        Wanted::Transaction(tx) => {
            let answer = client.transactions().apply(ApplyTransactionRequest { transaction: Some(*tx), dry_run, beside }).await?.into_inner();
            Made {
                object: Object::Transaction(Box::new(answer.transaction.unwrap_or_default())),
                action: answer.action,
                changes: answer.changes,
                note: None,
            }
        }
        Wanted::Upgrade(upgrade) => {
            let answer = client.upgrades().apply(ApplyUpgradeRequest { upgrade: Some(*upgrade), dry_run, beside }).await?.into_inner();
            Made { object: Object::Upgrade(Box::new(answer.upgrade.unwrap_or_default())), action: answer.action, changes: answer.changes, note: None }
        }
        Wanted::Export(export) => {
            let answer = client.exports().apply(ApplyExportRequest { export: Some(*export), dry_run, beside }).await?.into_inner();
            Made { object: Object::Export(Box::new(answer.export.unwrap_or_default())), action: answer.action, changes: answer.changes, note: None }
        }
    })
}

/// The document of `all` that makes the devnet which `document` belongs to.
fn devnet_of(document: &Document, all: &[Document]) -> Option<Devnet> {
    let (namespace, name) = (document.wanted.namespace(), document.wanted.devnet());
    all.iter().find_map(|other| match &other.wanted {
        Wanted::Devnet(devnet) if other.wanted.namespace() == namespace && other.wanted.name() == name => Some(Devnet::clone(devnet)),
        _ => None,
    })
}

/// Names of the upgrades that `all` declares for the devnet of `document`.
fn upgrades_of(document: &Document, all: &[Document]) -> Vec<String> {
    let (namespace, devnet) = (document.wanted.namespace(), document.wanted.devnet());
    let its = all.iter().filter(|other| matches!(other.wanted, Wanted::Upgrade(_)) && other.wanted.namespace() == namespace);
    its.filter(|other| other.wanted.devnet() == devnet).filter_map(|other| Some(other.wanted.name().split_once('/')?.1.to_owned())).collect()
}

/// The file, line and column of what a refusal is about.
fn with_places(mut error: Error, document: &Document, all: &[Document]) -> Error {
    if error.exit == Exit::Refused && !error.fault.violations.is_empty() {
        error.document = Some(DocumentError::from_violations(&document.source, &document.tree, &error.fault.violations));
    } else if !document.wanted.is_devnet() && error.exit == Exit::NotFound && error.fault.subject.as_deref() == Some(&document.wanted.devnet()) {
        let named = if document.tree.get("spec").is_some_and(|spec| spec.get("devnetRef").is_some()) { "spec.devnetRef" } else { "metadata.name" };
        let devnets = all.iter().filter(|other| other.wanted.is_devnet()).map(|other| other.wanted.name());
        let near = devnets.map(|name| (strsim::jaro_winkler(&name, &document.wanted.devnet()), name)).filter(|(likeness, _)| *likeness > 0.8);
        let nearest = near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name);
        let message = format!("{named}: {}", error.fault.message);
        error.document = Some(DocumentError::new(&document.source, document.tree.locate(named), message, nearest));
    } else {
        error = error.in_document(&document.position());
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
            Self::Upgrade(upgrade) => {
                let former = upgrade.status.as_ref().is_some_and(|status| status.former_chain);
                let way = format!(" on the former chain, before a reset; to have it again: dvbctl upgrade delete {}", name(&upgrade.metadata));
                format!("{}{}", upgrade::phase(upgrade), if former { &way } else { "" })
            }
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
