//! Errors on their way out: module error -> Fault with its remedy, Fault -> gRPC status. Both are decided here and nowhere else.

use super::convert;
use crate::{
    logs::LogError,
    model::{Fault, FaultCode, Kind},
    plugin::PluginError,
    runtime::RuntimeError,
    store::StoreError,
};
use prost::Message;
use tonic::{Code, Status};

/// The status that carries `fault`: its code, its message, and the whole fault in the details.
pub fn status(fault: &Fault) -> Status {
    let details = convert::to_message(fault).map(|message| message.encode_to_vec()).unwrap_or_default();
    Status::with_details(code(fault.code), fault.message.clone(), details.into())
}

pub fn from_store(error: StoreError) -> Fault {
    let message = error.to_string();
    match error {
        StoreError::Conflict { key, .. } => {
            let subject = key.name.clone();
            Fault::new(FaultCode::Conflict, format!("{message}: somebody else changed it")).about(subject).retriable().remedy(read_again(&key.kind))
        }
        StoreError::Exists(key) => Fault::new(FaultCode::AlreadyExists, message).about(key.name).remedy("dvbctl apply -f FILE changes what exists"),
        StoreError::Missing(key) => Fault::new(FaultCode::NotFound, message).about(key.name).remedy(read_again(&key.kind)),
        StoreError::Orphan { child, .. } => Fault::new(FaultCode::Conflict, message).about(child.name),
        StoreError::Compacted { .. } => Fault::new(FaultCode::OutOfRange, format!("{message}; list again and watch from the list's resourceVersion"))
            .retriable()
            .remedy("list again"),
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

pub fn from_runtime(error: RuntimeError) -> Fault {
    let message = error.to_string();
    match error {
        RuntimeError::NoProgram { program } => {
            Fault::new(FaultCode::BinaryMissing, message).remedy(format!("put the program at {program}, or change spec.binary"))
        }
        RuntimeError::NotExecutable { program } => Fault::new(FaultCode::BinaryUnusable, message).remedy(format!("chmod +x {program}")),
        RuntimeError::WrongArchitecture { .. } => {
            Fault::new(FaultCode::BinaryUnusable, message).remedy(format!("build it for this machine ({})", std::env::consts::ARCH))
        }
        RuntimeError::Spawn { .. } | RuntimeError::Io { .. } => from_io(message, io_error(&error)),
        RuntimeError::NotGone { pids, .. } => {
            let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
            Fault::new(FaultCode::Internal, message).retriable().remedy(format!("look at them: ps -o pid,stat,wchan,args -p {}", pids.join(",")))
        }
        RuntimeError::JobTimedOut { .. } => Fault::new(FaultCode::JobFailed, message).retriable(),
        RuntimeError::Unsupported(_) => Fault::new(FaultCode::Unimplemented, message),
        RuntimeError::ForeignHandle(_) => Fault::new(FaultCode::Internal, message),
    }
}

pub fn from_plugin(error: PluginError) -> Fault {
    let message = error.to_string();
    match error {
        PluginError::Missing { name, nearest, .. } => {
            let fault = Fault::new(FaultCode::PluginMissing, message).about(name.clone());
            match nearest {
                Some(nearest) => fault.remedy(format!("did you mean `{nearest}`? `dvbctl plugins` lists what is there")),
                None => fault
                    .remedy(format!("put dvb-plugin-{name} beside devnetd or into the home's plugins folder; `dvbctl plugins` lists what is there")),
            }
        }
        PluginError::Incompatible { name, host, plugin } => {
            let older = if plugin < host { format!("install a newer dvb-plugin-{name}") } else { String::from("install a newer devnetd") };
            Fault::new(FaultCode::PluginIncompatible, message).about(name).remedy(older)
        }
        PluginError::Spawn { name, .. }
        | PluginError::Exited { name, .. }
        | PluginError::Polluted { name, .. }
        | PluginError::BadReply { name, .. } => broken(message, name),
        PluginError::TimedOut { name, .. } | PluginError::Backoff { name, .. } => broken(message, name).retriable(),
        PluginError::Rejected { name, code, .. } => {
            let code = if code == "Unimplemented" { FaultCode::Unimplemented } else { FaultCode::PluginRejected };
            Fault::new(code, message).about(name)
        }
    }
}

pub fn from_log(error: &LogError) -> Fault {
    let fault = Fault::new(FaultCode::Internal, error.to_string());
    match error {
        LogError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Fault { code: FaultCode::PermissionDenied, ..fault }.remedy("check owner and mode of the log named above")
        }
        LogError::Io { .. } => fault.retriable(),
        LogError::Watch { .. } => fault.retriable().remedy("the kernel may be out of inotify watches: raise fs.inotify.max_user_watches"),
    }
}

fn broken(message: String, name: String) -> Fault {
    Fault::new(FaultCode::PluginBroken, message).about(name).remedy("dvbctl daemon logs  (the plugin's stderr is there)")
}

/// Disk and permission troubles have codes of their own, wherever they turn up.
fn from_io(message: String, source: Option<&std::io::Error>) -> Fault {
    match source.map(std::io::Error::kind) {
        Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => {
            Fault::new(FaultCode::DiskFull, message).retriable().remedy("free space on the home's disk")
        }
        Some(std::io::ErrorKind::ReadOnlyFilesystem) => Fault::new(FaultCode::ReadOnly, message).remedy("mount the file system writable"),
        Some(std::io::ErrorKind::PermissionDenied) => {
            Fault::new(FaultCode::PermissionDenied, message).remedy("check owner and mode of the path named above")
        }
        _ => Fault::new(FaultCode::SpawnFailed, message).retriable(),
    }
}

fn io_error(error: &RuntimeError) -> Option<&std::io::Error> {
    match error {
        RuntimeError::Spawn { source, .. } | RuntimeError::Io { source, .. } => Some(source),
        _ => None,
    }
}

fn read_again(kind: &Kind) -> &'static str {
    match kind {
        Kind::Node => "dvbctl get nodes",
        _ => "dvbctl get devnets",
    }
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
    use crate::model::{Key, Violation};
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
            let fault = from_runtime(RuntimeError::Spawn { program: "/x".into(), source: kind.into() });
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
            from_store(StoreError::Conflict { key: key.clone(), expected: 1, actual: 2 }),
            from_store(StoreError::Exists(key.clone())),
            from_store(StoreError::Missing(key)),
            from_store(StoreError::Compacted { asked: 1, oldest: 9 }),
            from_store(StoreError::DiskFull { path: "/h".into() }),
            from_store(StoreError::ReadOnly { path: "/h".into() }),
            from_store(StoreError::Corrupt { path: "/h".into(), detail: "x".into() }),
            from_store(StoreError::TooNew { path: "/h".into(), found: 2, known: 1 }),
            from_plugin(PluginError::Missing { name: "cosmo".into(), looked_in: vec![], nearest: Some("cosmos".into()) }),
            from_plugin(PluginError::Incompatible { name: "x".into(), host: 2, plugin: 1 }),
            from_runtime(RuntimeError::NoProgram { program: "/x".into() }),
            from_runtime(RuntimeError::NotExecutable { program: "/x".into() }),
            from_runtime(RuntimeError::WrongArchitecture { program: "/x".into() }),
        ];
        for fault in faults {
            assert!(fault.remedy.is_some(), "{fault:?}");
        }
    }
}
