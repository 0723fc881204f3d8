//! What a store error means to a user.

use super::StoreError;
use crate::model::{Fault, FaultCode, Kind};

impl StoreError {
    pub fn fault(&self) -> Fault {
        let message = self.to_string();
        match self {
            StoreError::Conflict { key, .. } => {
                let subject = key.name.clone();
                Fault::new(FaultCode::Conflict, format!("{message}: somebody else changed it"))
                    .about(subject)
                    .retriable()
                    .remedy(read_again(key.kind))
            }
            StoreError::Exists(key) => {
                Fault::new(FaultCode::AlreadyExists, message).about(key.name.as_str()).remedy("dvbctl apply -f FILE changes what exists")
            }
            StoreError::Missing(key) => Fault::new(FaultCode::NotFound, message).about(key.name.as_str()).remedy(read_again(key.kind)),
            StoreError::Orphan { child, .. } => Fault::new(FaultCode::Conflict, message).about(child.name.as_str()),
            StoreError::Compacted { .. } => {
                Fault::new(FaultCode::OutOfRange, format!("{message}; list again and watch from the list's resourceVersion"))
                    .retriable()
                    .remedy("list again")
            }
            StoreError::TooNew { .. } => {
                Fault::new(FaultCode::StoreTooNew, message).remedy("start the newer devnetd again, or use another home: DVB_HOME=DIR devnetd")
            }
            StoreError::Corrupt { path, .. } => Fault::new(FaultCode::StoreCorrupt, message)
                .remedy(format!("stop devnetd, move {path} away (keep it), restore it from a copy or start empty; node homes are untouched")),
            StoreError::DiskFull { path } => Fault::new(FaultCode::DiskFull, message)
                .retriable()
                .remedy(format!("free space on the disk of {path}; `dvbctl delete` and the binary cache give back most")),
            StoreError::ReadOnly { path } => {
                Fault::new(FaultCode::ReadOnly, message).remedy(format!("make {path} writable, or use another home: DVB_HOME=DIR devnetd"))
            }
            StoreError::Other(_) => Fault::new(FaultCode::Internal, message).remedy("dvbctl daemon logs"),
        }
    }
}

fn read_again(kind: Kind) -> &'static str {
    match kind {
        Kind::Node => "dvbctl get nodes",
        _ => "dvbctl get devnets",
    }
}
