//! What a failed clone means to a user.

use super::CloneError;
use crate::model::{Fault, FaultCode};
use std::io::ErrorKind;

impl CloneError {
    pub fn fault(&self) -> Fault {
        let fault = |code| Fault::new(code, self.to_string());
        match self {
            Self::NoRoom { .. } => fault(FaultCode::DiskFull).retriable().remedy("free space on that disk"),
            Self::Io { source, .. } => match source.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => fault(FaultCode::DiskFull).retriable().remedy("free space on that disk"),
                ErrorKind::ReadOnlyFilesystem => fault(FaultCode::ReadOnly).remedy("mount the file system writable"),
                ErrorKind::PermissionDenied => fault(FaultCode::PermissionDenied).remedy("check owner and mode of the path named above"),
                ErrorKind::NotFound => fault(FaultCode::NotFound),
                _ => fault(FaultCode::Internal).retriable(),
            },
            Self::Exists(_) => fault(FaultCode::AlreadyExists),
            Self::GivenUp(_) => fault(FaultCode::ShuttingDown).retriable(),
        }
    }
}
