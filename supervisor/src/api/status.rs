//! Faults on their way out: the gRPC status of each is decided here and nowhere else.

use super::convert;
use crate::model::{Fault, FaultCode};
use prost::Message;
use tonic::{Code, Status};

/// The status that carries `fault`: its code, its message, and the whole fault in the details.
pub fn status(fault: &Fault) -> Status {
    let details = convert::to_message(fault).map(|message| message.encode_to_vec()).unwrap_or_default();
    Status::with_details(code(fault.code), fault.message.clone(), details.into())
}

/// Chosen so that a generic gRPC client does the right thing: Unavailable, Aborted and ResourceExhausted may be tried again.
fn code(code: FaultCode) -> Code {
    match code {
        FaultCode::NotFound => Code::NotFound,
        FaultCode::AlreadyExists => Code::AlreadyExists,
        FaultCode::Conflict => Code::Aborted,
        FaultCode::InvalidSpec | FaultCode::PluginRejected => Code::InvalidArgument,
        FaultCode::PermissionDenied => Code::PermissionDenied,
        FaultCode::Unimplemented => Code::Unimplemented,
        FaultCode::OutOfRange => Code::OutOfRange,
        FaultCode::Overloaded | FaultCode::DiskFull => Code::ResourceExhausted,
        FaultCode::ShuttingDown | FaultCode::PluginBroken => Code::Unavailable,
        FaultCode::TimedOut => Code::DeadlineExceeded,
        FaultCode::StoreCorrupt => Code::DataLoss,
        FaultCode::Immutable
        | FaultCode::NotReady
        | FaultCode::HomeMismatch
        | FaultCode::PluginMissing
        | FaultCode::PluginIncompatible
        | FaultCode::BinaryMissing
        | FaultCode::BinaryUnusable
        | FaultCode::BinaryBuildFailed
        | FaultCode::PortBusy
        | FaultCode::SubnetBusy
        | FaultCode::ReadOnly
        | FaultCode::StoreTooNew => Code::FailedPrecondition,
        FaultCode::SpawnFailed | FaultCode::GenesisFailed | FaultCode::JobFailed | FaultCode::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Key, Violation},
        plugin::PluginError,
        runtime::RuntimeError,
        store::StoreError,
    };
    use dvb_proto::devnet::v1;

    #[test]
    fn the_whole_fault_travels_in_the_details() {
        let fault = Fault { violations: vec![Violation::new("spec.nodes[0].name", "is no name")], ..Fault::new(FaultCode::PortBusy, "taken") }
            .about("mynet/validator-0")
            .remedy("kill 42")
            .retriable();
        let status = status(&fault);
        assert_eq!(status.code(), Code::FailedPrecondition);
        let read: Fault = convert::from_message(&v1::Fault::decode(status.details()).unwrap()).unwrap();
        assert_eq!(read, fault);
    }

    #[test]
    fn a_disk_that_is_full_is_told_apart_from_a_program_that_does_not_start() {
        let check = |kind: std::io::ErrorKind, expect| {
            let fault = RuntimeError::Spawn { program: "/x".into(), source: kind.into() }.fault();
            assert_eq!(fault.code, expect);
        };
        check(std::io::ErrorKind::StorageFull, FaultCode::DiskFull);
        check(std::io::ErrorKind::PermissionDenied, FaultCode::PermissionDenied);
        check(std::io::ErrorKind::Other, FaultCode::SpawnFailed);
    }

    #[test]
    fn every_fault_that_a_user_can_mend_says_how() {
        let key = Key::devnet("default", "mynet");
        let faults = [
            StoreError::Conflict { key: key.clone(), expected: 1, actual: 2 }.fault(),
            StoreError::Exists(key.clone()).fault(),
            StoreError::Missing(key).fault(),
            StoreError::Compacted { asked: 1, oldest: 9 }.fault(),
            StoreError::DiskFull { path: "/h".into() }.fault(),
            StoreError::ReadOnly { path: "/h".into() }.fault(),
            StoreError::Corrupt { path: "/h".into(), detail: "x".into() }.fault(),
            StoreError::TooNew { path: "/h".into(), found: 2, known: 1 }.fault(),
            PluginError::Missing { name: "cosmo".into(), looked_in: vec![], nearest: Some("cosmos".into()) }.fault(),
            PluginError::Incompatible { name: "x".into(), host: 2, plugin: 1 }.fault(),
            RuntimeError::NoProgram { program: "/x".into() }.fault(),
            RuntimeError::NotExecutable { program: "/x".into() }.fault(),
            RuntimeError::WrongArchitecture { program: "/x".into() }.fault(),
        ];
        for fault in faults {
            assert!(fault.remedy.is_some(), "{fault:?}");
        }
    }
}
