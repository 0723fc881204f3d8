//! What a refused key means to a user: condition, reason, and what mends it.

use super::KeyError;
use crate::model::{Fault, FaultCode};

impl KeyError {
    /// The node's condition that this is about, and its reason; none for what is no refusal.
    pub fn condition(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Leased { .. } | Self::InUse { .. } => Some(("KeyLease", "KeyInUse")),
            Self::HomeInUse { .. } => Some(("KeyLease", "HomeInUse")),
            Self::WentBack { .. } => Some(("SignState", "SignStateWentBack")),
            Self::Io { .. } | Self::Store(_) => None,
        }
    }

    /// Processes whose end may let the node start.
    pub fn holders(&self) -> Vec<u32> {
        match self {
            Self::InUse { by, .. } => by.iter().map(|signer| signer.pid).collect(),
            Self::HomeInUse { by, .. } => by.iter().map(|user| user.pid).collect(),
            _ => Vec::new(),
        }
    }

    /// What mends it for a node that runs.
    pub fn remedy_while_it_runs(&self) -> String {
        format!("end that process{} before the validator is punished for two signatures at one height", kill(&self.holders()))
    }

    pub fn fault(&self) -> Fault {
        let fault = Fault::new(FaultCode::Conflict, self.to_string());
        match self {
            Self::Leased { node, by } => fault.retriable().about(node).remedy(format!("delete {by}, or give one of the two another seed")),
            Self::InUse { node, .. } => fault
                .retriable()
                .about(node)
                .remedy(format!("stop that process where it was started{}; this node then starts by itself", kill(&self.holders()))),
            Self::HomeInUse { node, .. } => {
                fault.retriable().about(node).remedy(format!("end that process{}; this node then starts by itself", kill(&self.holders())))
            }
            Self::WentBack { node, .. } => {
                let devnet = node.split('/').next().unwrap_or(node);
                fault.about(node).remedy(format!(
                    "put the newer sign-state back, then dvbctl restart {node}; or dvbctl reset {devnet}; or, where a double signature hurts nobody, dvbctl start {node} --allow-double-sign"
                ))
            }
            Self::Io { .. } | Self::Store(_) => Fault::new(FaultCode::Internal, self.to_string()).retriable(),
        }
    }
}

fn kill(pids: &[u32]) -> String {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    if pids.is_empty() { String::new() } else { format!(" (kill {})", pids.join(" ")) }
}
