//! What a code of the chain means for the transaction that got it.

use dvb_plugin_sdk::pb;

/// Codes of the SDK's own code space, the same in 0.47, 0.50 and 0.53.
const UNAUTHORIZED: i64 = 4;
const INSUFFICIENT_FUNDS: i64 = 5;
const UNKNOWN_ADDRESS: i64 = 9;
const INSUFFICIENT_FEE: i64 = 13;
const IN_MEMPOOL: i64 = 19;
const MEMPOOL_FULL: i64 = 20;
const TIMEOUT_HEIGHT: i64 = 30;
const WRONG_SEQUENCE: i64 = 32;

/// What became of a transaction that a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It was carried out, or failed for good.
    Counts,
    /// A proposer puts into a block what its mempool holds, with gaps when gossip left some. What stands behind a gap fails there before it
    /// is charged or counted, and may be in a later block.
    TooEarly,
    /// The proposer had taken it in before its last height, and the block came after: it fails before it is charged or counted, and its
    /// bytes are dead, as if no block held them.
    TooLate,
}

pub(super) fn in_block(codespace: &str, code: i64) -> Standing {
    match (codespace, code) {
        ("sdk", WRONG_SEQUENCE) => Standing::TooEarly,
        ("sdk", TIMEOUT_HEIGHT) => Standing::TooLate,
        _ => Standing::Counts,
    }
}

/// None: the node has it already.
pub(super) fn of_code(codespace: &str, code: i64, log: &str) -> Option<pb::TxRefusal> {
    let class = match (codespace, code) {
        ("sdk", IN_MEMPOOL) => return None,
        ("sdk", WRONG_SEQUENCE) => "sequence",
        ("sdk", MEMPOOL_FULL) => "full",
        // A node that made no block since it started checks against account number 0.
        ("sdk", UNAUTHORIZED) if log.contains("account number (0)") => "unready",
        ("sdk", INSUFFICIENT_FUNDS) => "funds",
        ("sdk", UNKNOWN_ADDRESS) => "account",
        ("sdk", INSUFFICIENT_FEE) => "fee",
        ("sdk", TIMEOUT_HEIGHT) => "expired",
        _ => "invalid",
    };
    let next_sequence = if class == "sequence" { expected(log) } else { None };
    Some(pb::TxRefusal { class: class.into(), message: log.to_owned(), code, next_sequence })
}

/// What CometBFT itself says of a transaction before the chain sees it.
pub(super) fn of_rpc(data: &str) -> Option<Option<pb::TxRefusal>> {
    if data.contains("already exists in cache") {
        return Some(None);
    }
    let refusal = |class: &str| Some(Some(pb::TxRefusal { class: class.into(), message: data.to_owned(), ..pb::TxRefusal::default() }));
    if data.contains("mempool is full") {
        refusal("full")
    } else if data.contains("Tx too large") {
        refusal("invalid")
    } else {
        None
    }
}

/// `account sequence mismatch, expected 2, got 7`
fn expected(log: &str) -> Option<u64> {
    let digits = log.split("expected ").nth(1)?;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_classified_as_the_chain_means_them() {
        let check = |codespace, code, log, class: &str, next| {
            let refusal = of_code(codespace, code, log).unwrap();
            assert_eq!((refusal.class.as_str(), refusal.next_sequence, refusal.message.as_str()), (class, next, log));
        };
        check("sdk", 32, "account sequence mismatch, expected 2, got 7: incorrect account sequence", "sequence", Some(2));
        check("sdk", 4, "signature verification failed; please verify account number (0) and chain-id (x): unauthorized", "unready", None);
        check("sdk", 4, "signature verification failed; please verify account number (7) and chain-id (x): unauthorized", "invalid", None);
        check("sdk", 5, "spendable balance 1stake is smaller than 7stake: insufficient funds", "funds", None);
        check("sdk", 9, "account wasm1x not found: unknown address", "account", None);
        check("sdk", 13, "insufficient fees; got: 5stake required: 1200stake", "fee", None);
        check("sdk", 30, "block height: 7, timeout height: 6: tx timeout height", "expired", None);
        check("gov", 5, "inactive proposal", "invalid", None);
        assert!(of_code("sdk", 19, "tx already in mempool").is_none());
    }

    #[test]
    fn only_a_wrong_sequence_leaves_the_bytes_of_a_block_alive() {
        assert_eq!([in_block("sdk", 32), in_block("sdk", 30)], [Standing::TooEarly, Standing::TooLate]);
        assert_eq!([("sdk", 0), ("sdk", 5), ("wasm", 32), ("wasm", 30)].map(|(space, code)| in_block(space, code)), [Standing::Counts; 4]);
    }

    #[test]
    fn what_comet_says_is_told_from_other_errors() {
        assert_eq!(of_rpc("tx already exists in cache"), Some(None));
        assert_eq!(of_rpc("mempool is full: number of txs 2 (max: 2)").unwrap().unwrap().class, "full");
        assert_eq!(of_rpc("something else"), None);
    }
}
