//! What a failed reconcile means to a user: one fault with its remedy.

use super::ReconcileError;
use crate::model::{Fault, FaultCode};
use std::io;

impl ReconcileError {
    /// `retriable` decides whether the controller tries again by itself.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Store(error) => error.fault(),
            Self::Runtime(error) => error.fault(),
            Self::Plugin(error) => error.fault(),
            Self::Port(error) => error.fault(),
            Self::Binary(error) => error.fault(),
            Self::Key(error) => error.fault(),
            Self::Clone(error) => error.fault(),
            Self::Fault(fault) => fault.clone(),
            Self::Io { source, .. } => disk(self.to_string(), source),
            Self::Job { name, .. } => Fault::new(FaultCode::JobFailed, self.to_string())
                .remedy(format!("read the output of job {name}, mend the spec, then apply it again")),
            Self::Invalid(violations) => Fault::invalid(violations.clone()),
            Self::Digest { .. } => {
                Fault::new(FaultCode::PluginBroken, self.to_string()).remedy("update the plugin: it announced one file and wrote another")
            }
            Self::Unfit(_) => Fault::new(FaultCode::InvalidSpec, self.to_string()).remedy("mend the spec, then apply it again"),
        }
    }
}

fn disk(message: String, source: &io::Error) -> Fault {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Fault::new(FaultCode::DiskFull, message).retriable().remedy("free space; it goes on by itself")
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            Fault::new(FaultCode::ReadOnly, message).remedy("make the folder writable for the daemon's user")
        }
        _ => Fault::new(FaultCode::Internal, message).retriable(),
    }
}
