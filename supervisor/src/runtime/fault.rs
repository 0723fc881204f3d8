//! What a runtime error means to a user.

use super::RuntimeError;
use crate::{
    model::{Fault, FaultCode},
    sys::is_out_of_descriptors,
};

/// EAGAIN does not tell which of them is reached.
pub const NO_PROCESS_REMEDY: &str = "end some processes, or raise the limit that is reached: pids.max of its cgroup (TasksMax in a unit), ulimit -u of its user, or kernel.pid_max; it is tried again by itself";
pub const NO_DESCRIPTOR_REMEDY: &str =
    "close some files, or raise the limit: ulimit -n of devnetd (LimitNOFILE in its unit), or fs.file-max; it is tried again by itself";

pub const NO_SPACE_REMEDY: &str = "free space, or inodes, on the disk of the path named above; it is tried again by itself";

impl RuntimeError {
    pub fn fault(&self) -> Fault {
        let message = self.to_string();
        match self {
            RuntimeError::NoProgram { program } => {
                Fault::new(FaultCode::BinaryMissing, message).remedy(format!("put the program at {program}, or change spec.binary"))
            }
            RuntimeError::NotExecutable { program } => Fault::new(FaultCode::BinaryUnusable, message).remedy(format!("chmod +x {program}")),
            RuntimeError::WrongArchitecture { .. } => {
                Fault::new(FaultCode::BinaryUnusable, message).remedy(format!("build it for this machine ({})", std::env::consts::ARCH))
            }
            RuntimeError::NoProcess { .. } => Fault::new(FaultCode::SpawnFailed, message).retriable().remedy(NO_PROCESS_REMEDY),
            RuntimeError::Spawn { .. } | RuntimeError::Io { .. } => from_io(message, io_error(self)),
            RuntimeError::NotGone { pids, .. } | RuntimeError::NotFrozen { pids, .. } => {
                let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
                Fault::new(FaultCode::Internal, message).retriable().remedy(format!("look at them: ps -o pid,stat,wchan,args -p {}", pids.join(",")))
            }
            RuntimeError::JobTimedOut { .. } => Fault::new(FaultCode::JobFailed, message).retriable(),
            RuntimeError::CalledOff(_) => Fault::new(FaultCode::Internal, message).retriable(),
            RuntimeError::Unsupported(_) => Fault::new(FaultCode::Unimplemented, message),
            RuntimeError::ForeignHandle(_) => Fault::new(FaultCode::Internal, message),
        }
    }
}

/// Disk and permission troubles have codes of their own, wherever they turn up.
fn from_io(message: String, source: Option<&std::io::Error>) -> Fault {
    match source.map(std::io::Error::kind) {
        _ if source.is_some_and(|source| is_out_of_descriptors(source)) => {
            Fault::new(FaultCode::SpawnFailed, message).retriable().remedy(NO_DESCRIPTOR_REMEDY)
        }
        Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) => {
            Fault::new(FaultCode::DiskFull, message).retriable().remedy(NO_SPACE_REMEDY)
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
