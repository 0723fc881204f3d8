//! The calls about transactions.

use super::{Client, requests};
use crate::{
    model::{PlacedNode, TxEvent},
    plugin::{
        DevnetContext, PluginError,
        tx::{
            BroadcastOutcome, BuildOutcome, BuildRequest, IncludedTx, RefusalClass, SignItem, SignedTx, TxAccount, TxLookup, TxPlugin, TxQuery,
            TxRefusal, TxSupport, TxType, UnsignedTx,
        },
    },
};
use async_trait::async_trait;
use dvb_proto::plugin::v1::{self as pb, build_outcome::Outcome};

/// What a plugin that names no bound can surely take.
const MAX_IN_FLIGHT: u32 = 16;

#[async_trait]
impl TxPlugin for Client {
    async fn tx_support(&self, devnet: &DevnetContext) -> Result<TxSupport, PluginError> {
        let request = pb::GetSupportedTxTypesRequest { devnet: Some(requests::devnet(devnet)) };
        let reply = self.call("GetSupportedTxTypes", |mut client| async move { client.get_supported_tx_types(request).await }).await?;
        let bound = if reply.max_in_flight == 0 { MAX_IN_FLIGHT } else { reply.max_in_flight };
        let types = reply.types.into_iter().map(|kind| TxType { name: kind.name, description: kind.description, template: kind.template });
        Ok(TxSupport {
            types: types.collect(),
            max_in_flight: usize::try_from(bound).unwrap_or(usize::MAX),
            expiry_blocks: reply.expiry_blocks.into(),
        })
    }

    async fn account(&self, devnet: &DevnetContext, node: Option<&PlacedNode>, signer: &str) -> Result<TxAccount, PluginError> {
        let request = pb::GetAccountRequest { devnet: Some(requests::devnet(devnet)), node: node.map(requests::placed), signer: signer.to_owned() };
        let reply = self.call("GetAccount", |mut client| async move { client.get_account(request).await }).await?;
        if reply.address.is_empty() {
            return Err(self.bad("GetAccount", format!("it names no address of {signer}")));
        }
        let pb::TxAccount { address, exists, sequence, height, balance, detail } = reply;
        Ok(TxAccount { address, exists, sequence, height, balance, detail })
    }

    async fn build(&self, devnet: &DevnetContext, node: Option<&PlacedNode>, request: BuildRequest) -> Result<Vec<BuildOutcome>, PluginError> {
        let wanted = request.intents.len();
        let intents = request.intents.into_iter().map(|intent| pb::TxIntent {
            r#type: intent.tx_type,
            payload: intent.payload,
            gas_limit: intent.gas_limit,
            memo: intent.memo,
        });
        let request = pb::BuildTxRequest {
            devnet: Some(requests::devnet(devnet)),
            node: node.map(requests::placed),
            signer: request.signer,
            account: Some(account(&request.account)),
            intents: intents.collect(),
            next_sequence: request.next_sequence,
            gas_factor: request.gas_factor,
        };
        let reply = self.call("BuildTx", |mut client| async move { client.build_tx(request).await }).await?;
        let outcomes: Result<Vec<_>, String> = reply.outcomes.into_iter().map(built).collect();
        self.as_many("BuildTx", wanted, outcomes.map_err(|reason| self.bad("BuildTx", reason))?)
    }

    async fn sign(&self, devnet: &DevnetContext, signer: &str, by: &TxAccount, items: Vec<SignItem>) -> Result<Vec<SignedTx>, PluginError> {
        let wanted = items.len();
        let items = items.into_iter().map(|item| pb::SignItem { body: item.body, sequence: item.sequence, expiry_height: item.expires_at });
        let request = pb::SignTxRequest {
            devnet: Some(requests::devnet(devnet)),
            signer: signer.to_owned(),
            account: Some(account(by)),
            items: items.collect(),
        };
        let reply = self.call("SignTx", |mut client| async move { client.sign_tx(request).await }).await?;
        if reply.signed.iter().any(|signed| signed.raw.is_empty() || signed.hash.is_empty()) {
            return Err(self.bad("SignTx", "a signed transaction without bytes or hash".into()));
        }
        self.as_many("SignTx", wanted, reply.signed.into_iter().map(|signed| SignedTx { raw: signed.raw, hash: signed.hash }).collect())
    }

    async fn broadcast(&self, devnet: &DevnetContext, node: &PlacedNode, raw: Vec<Vec<u8>>) -> Result<Vec<BroadcastOutcome>, PluginError> {
        let sent = raw.len();
        let request = pb::BroadcastTxRequest { devnet: Some(requests::devnet(devnet)), node: Some(requests::placed(node)), raw };
        let reply = self.call("BroadcastTx", |mut client| async move { client.broadcast_tx(request).await }).await?;
        let outcomes: Result<Vec<_>, String> = reply
            .outcomes
            .into_iter()
            .map(|outcome| match outcome.refused {
                Some(refused) if !outcome.accepted => Ok(Err(refusal(refused)?)),
                None if !outcome.accepted => Err("an outcome that is neither accepted nor refused".into()),
                _ => Ok(Ok(())),
            })
            .collect();
        let outcomes = outcomes.map_err(|reason| self.bad("BroadcastTx", reason))?;
        let complete = outcomes.len() == sent || outcomes.last().is_some_and(Result::is_err) && outcomes.len() < sent;
        if !complete {
            return Err(self.bad("BroadcastTx", format!("{} outcomes for {sent} transactions, and the last is no refusal", outcomes.len())));
        }
        Ok(outcomes)
    }

    async fn lookup(&self, devnet: &DevnetContext, node: &PlacedNode, queries: Vec<TxQuery>) -> Result<TxLookup, PluginError> {
        let queries =
            queries.into_iter().map(|query| pb::TxQuery { hash: query.hash, after_height: query.after_height, expiry_height: query.expires_at });
        let request = pb::GetTxRequest { devnet: Some(requests::devnet(devnet)), node: Some(requests::placed(node)), queries: queries.collect() };
        let reply = self.call("GetTx", |mut client| async move { client.get_tx(request).await }).await?;
        let included = reply.included.into_iter().map(|tx| {
            let events = tx.events.into_iter().map(|event| TxEvent { kind: event.r#type, attributes: event.attributes }).collect();
            (tx.hash, IncludedTx { height: tx.height, code: tx.code, log: tx.log, gas_used: tx.gas_used, events })
        });
        Ok(TxLookup { height: reply.height, included: included.collect(), dropped: reply.dropped.into_iter().collect() })
    }
}

impl Client {
    fn as_many<T>(&self, call: &str, wanted: usize, got: Vec<T>) -> Result<Vec<T>, PluginError> {
        if got.len() == wanted { Ok(got) } else { Err(self.bad(call, format!("{} answers for {wanted} items", got.len()))) }
    }
}

fn account(account: &TxAccount) -> pb::TxAccount {
    let TxAccount { address, exists, sequence, height, balance, detail } = account.clone();
    pb::TxAccount { address, exists, sequence, height, balance, detail }
}

fn built(outcome: pb::BuildOutcome) -> Result<BuildOutcome, String> {
    match outcome.outcome {
        Some(Outcome::Built(tx)) => Ok(Ok(UnsignedTx { body: tx.body, gas_limit: tx.gas_limit, fee: tx.fee, meaning: tx.meaning })),
        Some(Outcome::Refused(refused)) => Ok(Err(refusal(refused)?)),
        None => Err("an outcome that is neither built nor refused".into()),
    }
}

fn refusal(refused: pb::TxRefusal) -> Result<TxRefusal, String> {
    let class = match refused.class.as_str() {
        "sequence" => RefusalClass::Sequence,
        "full" => RefusalClass::MempoolFull,
        "unready" => RefusalClass::Unready,
        "funds" => RefusalClass::Funds,
        "invalid" => RefusalClass::Invalid,
        "account" => RefusalClass::UnknownAccount,
        "fee" => RefusalClass::Fee,
        "expired" => RefusalClass::Expired,
        other => return Err(format!("a refusal of unknown class `{other}`")),
    };
    Ok(TxRefusal { class, message: refused.message, code: refused.code, next_sequence: refused.next_sequence })
}
