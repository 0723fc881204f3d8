//! Checks of what a plugin with the capability `tx` does without a chain: signers, templates, refusals.

use super::{
    Checked, Finding, ensure, fail,
    session::{CALL_LIMIT, Session, answer, refusal},
};
use crate::pb::{self, build_outcome::Outcome};
use tonic::Code;

const SIGNER: &str = "account:0";
/// Types that the capability `gov` promises.
const GOVERNANCE: [&str; 3] = ["gov/submit-proposal", "gov/deposit", "gov/vote"];

/// A plugin without the capability has nothing to show here; `unimplemented` looks at its refusals.
pub(super) async fn transactions(session: &mut Session) -> Checked {
    if !session.info.capabilities.iter().any(|capability| capability == "tx") {
        return Ok(());
    }
    if let Some(why) = &session.no_binary {
        return Err(Finding::Skip(why.clone()));
    }
    let first = address(session, SIGNER).await?;
    ensure(first == address(session, SIGNER).await?, || format!("{SIGNER} has two addresses"))?;
    ensure(first != address(session, "account:1").await?, || "account:0 and account:1 have one address".into())?;
    ensure(first == address(session, &first).await?, || format!("{first} is not taken for {SIGNER}"))?;
    let request = account(session, "account:4000000000");
    refusal("GetAccount of nobody", &[Code::InvalidArgument], session.client.get_account(request)).await?;

    let request = pb::GetSupportedTxTypesRequest { devnet: Some(session.devnet.clone()) };
    let supported = answer("GetSupportedTxTypes", CALL_LIMIT, session.client.get_supported_tx_types(request)).await?;
    ensure(!supported.types.is_empty(), || "it has the capability tx and no type".into())?;
    if session.info.capabilities.iter().any(|capability| capability == "gov") {
        for wanted in GOVERNANCE {
            let has = supported.types.iter().any(|kind| kind.name == wanted);
            ensure(has, || format!("it has the capability gov and no type {wanted}"))?;
        }
    }
    for kind in supported.types {
        ensure(!kind.name.is_empty() && !kind.description.is_empty(), || format!("a type without name or description: {kind:?}"))?;
        match build(session, &kind.name, &kind.template).await? {
            Some(Outcome::Built(tx)) => {
                ensure(!tx.body.is_empty() && !tx.meaning.is_empty(), || format!("{}: its template builds to nothing", kind.name))?
            }
            other => return fail(format!("{}: its own template is refused: {other:?}", kind.name)),
        }
    }
    match build(session, "no/such-type", "{}").await? {
        Some(Outcome::Refused(refused)) => ensure(refused.class == "invalid", || format!("an unknown type is refused as {}", refused.class)),
        other => fail(format!("a type that does not exist: wanted a refusal, got {other:?}")),
    }
}

fn account(session: &Session, signer: &str) -> pb::GetAccountRequest {
    pb::GetAccountRequest { devnet: Some(session.devnet.clone()), node: None, signer: signer.into() }
}

async fn address(session: &mut Session, signer: &str) -> Checked<String> {
    let request = account(session, signer);
    let account = answer("GetAccount", CALL_LIMIT, session.client.get_account(request)).await?;
    ensure(!account.address.is_empty(), || format!("{signer} has no address"))?;
    Ok(account.address)
}

/// With its gas given there is nothing to simulate, and no node to ask.
async fn build(session: &mut Session, kind: &str, payload: &str) -> Checked<Option<Outcome>> {
    let intent = pb::TxIntent { r#type: kind.into(), payload: payload.into(), gas_limit: 200_000, ..pb::TxIntent::default() };
    let request =
        pb::BuildTxRequest { devnet: Some(session.devnet.clone()), signer: SIGNER.into(), intents: vec![intent], ..pb::BuildTxRequest::default() };
    let mut built = answer("BuildTx", CALL_LIMIT, session.client.build_tx(request)).await?;
    ensure(built.outcomes.len() == 1, || format!("BuildTx: {} outcomes for one intent", built.outcomes.len()))?;
    Ok(built.outcomes.remove(0).outcome)
}
