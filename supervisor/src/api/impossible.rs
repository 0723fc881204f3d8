//! Transactions that can never be confirmed, as far as their plugin knows it without a node: the type, the signer, what the payload says.
//! Balances, sequences, denoms and proposals only the chain knows; a Cosmos chain that is not provisioned yet knows its types alone.

use super::{Context, foresight::WORD_WITHIN, nearest};
use crate::{
    model::{Devnet, Fault, FaultCode, Key, Kind, Node, Object, Transaction, Violation},
    plugin::{
        ChainPlugin, DevnetContext, PluginError,
        tx::{BuildRequest, RefusalClass, TX_CAPABILITY, TxIntent},
    },
    store::Selector,
};
use futures::future::join_all;
use std::{collections::BTreeMap, sync::Arc};
use tokio::time::timeout;

/// The first of them that is refused, by its place, and why.
pub(super) async fn first(cx: &Context, devnet: &Devnet, txs: &[&Transaction]) -> Option<(usize, Fault)> {
    if txs.is_empty() {
        return None;
    }
    timeout(WORD_WITHIN, ask(cx, devnet, txs)).await.ok()?
}

/// None also when the plugin cannot tell now.
async fn ask(cx: &Context, devnet: &Devnet, txs: &[&Transaction]) -> Option<(usize, Fault)> {
    let plugin = cx.plugins.get(&devnet.spec.plugin).await.ok()?;
    let info = plugin.info().await.ok()?;
    if !info.capabilities.iter().any(|capability| capability == TX_CAPABILITY) {
        let message = format!("plugin {} makes no transactions", devnet.spec.plugin);
        return Some((0, Fault::new(FaultCode::Unimplemented, message).about(devnet.metadata.name.as_str())));
    }
    let context = context(cx, devnet).await?;
    let mut signers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, tx) in txs.iter().enumerate() {
        signers.entry(tx.spec.signer.as_str()).or_default().push(at);
    }
    let (mut refused, mut untold) = (Vec::new(), Vec::new());
    let asked = signers.into_iter().map(|(signer, places)| async {
        let word = payloads(plugin.as_ref(), &context, signer, &places, txs).await;
        (places, word)
    });
    for (places, word) in join_all(asked).await {
        match word {
            Word::Refused(at, violation) => refused.push((at, violation)),
            Word::Fine => {}
            Word::None => untold.extend(places),
        }
    }
    if refused.is_empty() && untold.is_empty() {
        return None;
    }
    let known: Vec<String> = plugin.tx_support(&context).await.ok()?.types.into_iter().map(|kind| kind.name).collect();
    refused.extend(untold.into_iter().filter_map(|at| Some((at, unknown_type(txs[at], &known)?))));
    let (at, violation) = refused.into_iter().min_by_key(|(at, _)| *at)?;
    let violation = match unknown_type(txs[at], &known) {
        Some(unknown) if violation.field == PAYLOAD => Violation { message: violation.message, ..unknown }, // the plugin may know more of it
        _ => violation,
    };
    let name = devnet.metadata.name.as_str();
    Some((at, Fault::invalid(vec![violation]).about(name).remedy(format!("dvbctl tx types {name}; dvbctl tx templates {name} TYPE"))))
}

const PAYLOAD: &str = "spec.payload";

/// What a plugin says of the transactions of one signer.
enum Word {
    Fine,
    Refused(usize, Violation),
    /// It cannot tell now.
    None,
}

fn unknown_type(tx: &Transaction, known: &[String]) -> Option<Violation> {
    let named = &tx.spec.tx_type;
    if known.contains(named) {
        return None;
    }
    let message = format!("there is no transaction type `{named}`; there are {}", known.join(", "));
    let suggestion = nearest(named, known.iter().map(String::as_str));
    Some(Violation { suggestion, ..Violation::new("spec.txType", message) })
}

/// `places` are those of this signer.
async fn payloads(plugin: &dyn ChainPlugin, context: &DevnetContext, signer: &str, places: &[usize], txs: &[&Transaction]) -> Word {
    let account = match plugin.account(context, None, signer).await {
        Ok(account) => account,
        Err(PluginError::Rejected { code, message, .. }) if code == "InvalidArgument" => {
            return places.first().map_or(Word::Fine, |at| Word::Refused(*at, Violation::new("spec.signer", message)));
        }
        Err(_) => return Word::None,
    };
    let intent = |at: &usize| {
        let spec = &txs[*at].spec;
        let (tx_type, payload, memo) = (spec.tx_type.clone(), spec.payload.to_string(), spec.memo.clone());
        TxIntent { tx_type, payload, memo, gas_limit: spec.gas_limit.max(1) } // nothing is simulated
    };
    let intents = places.iter().map(intent).collect();
    let request = BuildRequest { signer: signer.to_owned(), account, intents, next_sequence: 0, gas_factor: 1.0 };
    let Ok(outcomes) = plugin.build(context, None, request).await else { return Word::None };
    let refused = places.iter().zip(outcomes).find_map(|(at, outcome)| Some((*at, outcome.err()?)));
    match refused.filter(|(_, refusal)| refusal.class == RefusalClass::Invalid) {
        Some((at, refusal)) => Word::Refused(at, Violation::new(PAYLOAD, refusal.message)),
        None => Word::Fine,
    }
}

/// With what provisioning found out, if it has.
pub(super) async fn context(cx: &Context, devnet: &Devnet) -> Option<DevnetContext> {
    let (namespace, name) = (&devnet.metadata.namespace, &devnet.metadata.name);
    let Some(Object::Plan(plan)) = cx.store.get(&Key::new(Kind::Plan, namespace, name)).await.ok()? else {
        return Some(DevnetContext::of(devnet));
    };
    let (nodes, _) = cx.store.list(&Selector::in_devnet(Kind::Node, namespace, name)).await.ok()?;
    let nodes: Vec<Arc<Node>> = nodes.into_iter().filter_map(|object| object.try_into().ok()).collect();
    Some(DevnetContext::provisioned(devnet, &plan.spec, &nodes))
}
