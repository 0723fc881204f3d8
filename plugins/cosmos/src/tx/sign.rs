//! Bytes: an unsigned transaction between two calls, and SIGN_MODE_DIRECT.

use super::invalid;
use crate::keys::AccountKey;
use cosmos_sdk_proto::{
    Any,
    cosmos::{
        crypto::secp256k1,
        tx::{
            signing::v1beta1::SignMode,
            v1beta1::{AuthInfo, Fee, ModeInfo, SignDoc, SignerInfo, Tx, TxBody, TxRaw, mode_info},
        },
    },
    traits::Message,
};
use dvb_plugin_sdk::{Result, pb};
use sha2::{Digest, Sha256};

const SECP256K1_KEY: &str = "/cosmos.crypto.secp256k1.PubKey";

/// What is to be signed, but for sequence and expiry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Unsigned {
    pub(super) messages: Vec<Any>,
    pub(super) memo: String,
    pub(super) fee: Fee,
}

/// The opaque body between BuildTx and SignTx: a transaction without a signer.
pub(super) fn write_body(unsigned: &Unsigned) -> Vec<u8> {
    let Unsigned { messages, memo, fee } = unsigned.clone();
    let body = TxBody { messages, memo, ..TxBody::default() };
    Tx { body: Some(body), auth_info: Some(AuthInfo { fee: Some(fee), ..AuthInfo::default() }), signatures: Vec::new() }.encode_to_vec()
}

pub(super) fn read_body(bytes: &[u8]) -> Result<Unsigned> {
    let tx = Tx::decode(bytes).map_err(|error| invalid(format!("a body that BuildTx did not make: {error}")))?;
    let body = tx.body.unwrap_or_default();
    let fee = tx.auth_info.and_then(|auth| auth.fee).unwrap_or_default();
    Ok(Unsigned { messages: body.messages, memo: body.memo, fee })
}

/// The account number travels as the account's opaque detail.
pub(super) fn account_detail(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

pub(super) fn account_number(account: &pb::TxAccount) -> Result<u64> {
    let bytes = account.detail.as_slice().try_into().map_err(|_| invalid("account.detail holds no account number"))?;
    Ok(u64::from_be_bytes(bytes))
}

pub(super) fn signed(unsigned: &Unsigned, key: &AccountKey, sequence: u64, expires_at: u64, chain_id: &str, account_number: u64) -> Vec<u8> {
    let (body_bytes, auth_info_bytes) = parts(unsigned, key, sequence, expires_at);
    let document = SignDoc { body_bytes: body_bytes.clone(), auth_info_bytes: auth_info_bytes.clone(), chain_id: chain_id.into(), account_number };
    let signature = key.sign(&document.encode_to_vec());
    TxRaw { body_bytes, auth_info_bytes, signatures: vec![signature] }.encode_to_vec()
}

/// For a simulation: the chain takes an empty signature there.
pub(super) fn unsigned(unsigned: &Unsigned, key: &AccountKey, sequence: u64) -> Vec<u8> {
    let (body_bytes, auth_info_bytes) = parts(unsigned, key, sequence, 0);
    TxRaw { body_bytes, auth_info_bytes, signatures: vec![Vec::new()] }.encode_to_vec()
}

/// As the chain prints it.
pub(super) fn hash(raw: &[u8]) -> String {
    hex::encode_upper(Sha256::digest(raw))
}

fn parts(unsigned: &Unsigned, key: &AccountKey, sequence: u64, expires_at: u64) -> (Vec<u8>, Vec<u8>) {
    let Unsigned { messages, memo, fee } = unsigned.clone();
    let body = TxBody { messages, memo, timeout_height: expires_at, ..TxBody::default() };
    let single = mode_info::Single { mode: SignMode::Direct as i32 };
    let public = secp256k1::PubKey { key: key.public() };
    let signer = SignerInfo {
        public_key: Some(Any { type_url: SECP256K1_KEY.into(), value: public.encode_to_vec() }),
        mode_info: Some(ModeInfo { sum: Some(mode_info::Sum::Single(single)) }),
        sequence,
    };
    let auth = AuthInfo { signer_infos: vec![signer], fee: Some(fee), ..AuthInfo::default() };
    (body.encode_to_vec(), auth.encode_to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Wallet;
    use cosmos_sdk_proto::cosmos::{bank::v1beta1::MsgSend, base::v1beta1::Coin};

    fn coin(denom: &str, amount: &str) -> Coin {
        Coin { denom: denom.into(), amount: amount.into() }
    }

    fn send() -> Unsigned {
        let message = MsgSend {
            from_address: "cosmos1pkptre7fdkl6gfrzlesjjvhxhlc3r4gmmk8rs6".into(),
            to_address: "cosmos1qypqxpq9qcrsszg2pvxq6rs0zqg3yyc5lzv7xu".into(),
            amount: vec![coin("ucosm", "1234567")],
        };
        let any = Any { type_url: "/cosmos.bank.v1beta1.MsgSend".into(), value: message.encode_to_vec() };
        Unsigned { messages: vec![any], memo: String::new(), fee: Fee { amount: vec![coin("ucosm", "2000")], gas_limit: 200_000, ..Fee::default() } }
    }

    /// The test vectors of CosmJS (packages/proto-signing): chain simd-testing, account number 1.
    #[test]
    fn the_signatures_are_those_of_cosmjs() {
        let words = "economy stock theory fatal elder harbor betray wasp final emotion task crumble siren bottom lizard educate guess current outdoor pair theory focus wife stone";
        let key = Wallet::from_mnemonic(words).unwrap().account(0).unwrap();
        let check = |sequence, expect: &str| {
            let raw = signed(&send(), &key, sequence, 0, "simd-testing", 1);
            let raw = TxRaw::decode(raw.as_slice()).unwrap();
            assert_eq!(hex::encode(&raw.signatures[0]), expect);
        };
        check(0, "c9dd20e07464d3a688ff4b710b1fbc027e495e797cfa0b4804da2ed117959227772de059808f765aa29b8f92edf30f4c2c5a438e30d3fe6897daa7141e3ce6f9");
        check(1, "525adc7e61565a509c60497b798c549fbf217bb5cd31b24cc9b419d098cc95330c99ecc4bc72448f85c365a4e3f91299a3d40412fb3751bab82f1940a83a0a4c");
        check(2, "f3f2ca73806f2abbf6e0fe85f9b8af66f0e9f7f79051fdb8abe5bb8633b17da132e82d577b9d5f7a6dae57a144efc9ccc6eef15167b44b3b22a57240109762af");
    }

    #[test]
    fn a_body_survives_its_way_to_sign_and_back() {
        assert_eq!(read_body(&write_body(&send())).unwrap(), send());
        assert!(read_body(&[0xff]).is_err());
        assert_eq!(account_number(&pb::TxAccount { detail: account_detail(7), ..pb::TxAccount::default() }).unwrap(), 7);
    }

    #[test]
    fn sequence_and_expiry_make_other_bytes() {
        let key = Wallet::from_seed("s", "net-1").unwrap().account(0).unwrap();
        let raw = |sequence, expires_at| signed(&send(), &key, sequence, expires_at, "net-1", 1);
        let hashes: std::collections::BTreeSet<String> = [raw(0, 0), raw(1, 0), raw(0, 60)].iter().map(|raw| hash(raw)).collect();
        assert_eq!(hashes.len(), 3);
        let body = TxBody::decode(TxRaw::decode(raw(0, 60).as_slice()).unwrap().body_bytes.as_slice()).unwrap();
        assert_eq!(body.timeout_height, 60);
    }
}
