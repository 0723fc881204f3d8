//! How a validator signs: what the slashing module counts of it.

use crate::rpc;
use cosmos_sdk_proto::{
    cosmos::slashing::v1beta1::{QuerySigningInfoRequest, QuerySigningInfoResponse},
    traits::Message,
};

const SIGNING_INFO: &str = "/cosmos.slashing.v1beta1.Query/SigningInfo";

/// Details for a node's status; none for a node that does not sign, and as long as the chain counts nothing of it (a validator has
/// its record from its first block on).
pub async fn details(address: &str, signer: Option<&str>) -> Vec<(String, String)> {
    let Some(signer) = signer else { return Vec::new() };
    let request = QuerySigningInfoRequest { cons_address: signer.to_owned() }.encode_to_vec();
    match rpc::query(address, SIGNING_INFO, &request).await {
        Ok(Some(reply)) => read(&reply),
        _ => Vec::new(), // the status that is asked for beside this says why the node does not answer
    }
}

fn read(reply: &[u8]) -> Vec<(String, String)> {
    let Some(info) = QuerySigningInfoResponse::decode(reply).ok().and_then(|reply| reply.val_signing_info) else { return Vec::new() };
    let mut found = vec![("missedBlocks".to_owned(), info.missed_blocks_counter.to_string())];
    if info.tombstoned {
        found.push(("tombstoned".to_owned(), "true".to_owned()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use cosmos_sdk_proto::cosmos::slashing::v1beta1::ValidatorSigningInfo;

    #[test]
    fn missed_blocks_are_told_and_a_tombstone_only_where_there_is_one() {
        let check = |missed_blocks_counter, tombstoned, expect: &[(&str, &str)]| {
            let info = ValidatorSigningInfo { missed_blocks_counter, tombstoned, ..Default::default() };
            let expect: Vec<_> = expect.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            assert_eq!(read(&QuerySigningInfoResponse { val_signing_info: Some(info) }.encode_to_vec()), expect);
        };
        check(0, false, &[("missedBlocks", "0")]);
        check(7, true, &[("missedBlocks", "7"), ("tombstoned", "true")]);
        assert_eq!(read(&[]), []);
        assert_eq!(read(b"\xff"), []);
    }
}
