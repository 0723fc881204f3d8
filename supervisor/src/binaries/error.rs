//! What can go wrong with a binary, each with its mend.

use crate::model::{Fault, FaultCode};
use std::{io, path::PathBuf, sync::Arc, time::Duration};

/// Clone: one build may fail for many waiters.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BinaryError {
    #[error("binary {} does not exist", path.display())]
    Missing { path: PathBuf },
    #[error("binary path {} is not absolute", path.display())]
    Relative { path: PathBuf },
    #[error("binary {} is a {what}, not a regular file", path.display())]
    NotAFile { path: PathBuf, what: &'static str },
    #[error("binary {} is not executable", path.display())]
    NotExecutable { path: PathBuf },
    #[error("binary {} is built for {found}; this machine is {host}", path.display())]
    WrongArchitecture { path: PathBuf, found: String, host: &'static str },
    #[error("binary {} cannot be run: {reason}", path.display())]
    NotAProgram { path: PathBuf, reason: String },
    #[error("binary {} needs {}, which this machine does not have", path.display(), interpreter.display())]
    NoInterpreter { path: PathBuf, interpreter: PathBuf },
    #[error("binary {} kept changing while it was copied", path.display())]
    Changing { path: PathBuf },
    #[error("a binary source must name one of path, goModule, url; got {0}")]
    BadSource(String),
    #[error("{what} as a binary source comes with a later release")]
    Unsupported { what: String },
    #[error("{tool} is not installed; it is needed for {purpose}")]
    ToolMissing { tool: &'static str, purpose: String, install: &'static str },
    #[error("{step} of {subject} failed ({status}); its last words:\n{tail}")]
    StepFailed { subject: String, step: String, status: String, tail: String, log: PathBuf },
    #[error("{step} of {subject} ran longer than {after:?} and was killed")]
    TimedOut { subject: String, step: String, after: Duration, log: PathBuf },
    #[error("{subject} has sha256 {found}, not {expected}")]
    WrongDigest { subject: String, expected: String, found: String },
    #[error("the cached file {} was altered on disk (sha256 {found})", path.display())]
    Altered { path: PathBuf, found: String },
    #[error("the cached file {} is gone", path.display())]
    Gone { path: PathBuf },
    #[error("{} lies among the libraries of a cached binary and did not come with it", path.display())]
    Stray { path: PathBuf },
    #[error("binary {digest} is used by {by}")]
    InUse { digest: String, by: String },
    #[error("no cached binary begins with {digest}")]
    NotCached { digest: String },
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: Arc<io::Error> },
}

impl BinaryError {
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: Arc::new(source) }
    }

    /// The same as the one shape in which errors leave the daemon.
    pub fn fault(&self) -> Fault {
        let fault = |code| Fault::new(code, self.to_string());
        match self {
            Self::Missing { .. } => fault(FaultCode::BinaryMissing).remedy("build it, or correct spec.binary.path"),
            Self::Relative { .. } => fault(FaultCode::InvalidSpec).remedy("write an absolute path; dvbctl makes paths in files absolute"),
            Self::NotAFile { .. } => fault(FaultCode::BinaryUnusable).remedy("name the executable itself in spec.binary.path"),
            Self::NotExecutable { path } => fault(FaultCode::BinaryUnusable).remedy(format!("chmod +x {}", path.display())),
            Self::WrongArchitecture { host, .. } => fault(FaultCode::BinaryUnusable).remedy(format!("build or download it for {host}")),
            Self::NotAProgram { .. } => fault(FaultCode::BinaryUnusable).remedy("name an ELF executable or a script that begins with #!"),
            Self::NoInterpreter { interpreter, .. } => {
                fault(FaultCode::BinaryUnusable).remedy(format!("install what provides {}, or take a static build", interpreter.display()))
            }
            Self::Changing { .. } => fault(FaultCode::BinaryUnusable).retriable().remedy("try again when the build that writes it has ended"),
            Self::BadSource(_) => fault(FaultCode::InvalidSpec).remedy("see spec.binary in the documentation of the spec"),
            Self::Unsupported { .. } => fault(FaultCode::Unimplemented).remedy("build it yourself and name it with binary: {path: ...}"),
            Self::ToolMissing { install, .. } => fault(FaultCode::BinaryBuildFailed).remedy(*install),
            Self::StepFailed { log, .. } => fault(FaultCode::BinaryBuildFailed).retriable().remedy(format!("read {}", log.display())),
            Self::TimedOut { log, .. } => fault(FaultCode::BinaryBuildFailed).retriable().remedy(format!("read {}, then try again", log.display())),
            Self::WrongDigest { .. } => fault(FaultCode::BinaryUnusable).remedy("correct spec.binary.sha256, or do not trust the file"),
            Self::Altered { .. } | Self::Gone { .. } | Self::Stray { .. } => {
                fault(FaultCode::BinaryUnusable).remedy("dvbctl binaries verify tells what is damaged and how each is mended")
            }
            Self::InUse { .. } => fault(FaultCode::Conflict).remedy("end that first, or leave the binary where it is: dvbctl binaries list -o wide"),
            Self::NotCached { .. } => fault(FaultCode::NotFound).remedy("dvbctl binaries list"),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    fault(FaultCode::DiskFull).retriable().remedy("make room, then try again")
                }
                io::ErrorKind::ReadOnlyFilesystem => fault(FaultCode::ReadOnly).remedy("choose a home that can be written: DVB_HOME"),
                io::ErrorKind::PermissionDenied => fault(FaultCode::PermissionDenied).remedy("let this user read the file"),
                _ => fault(FaultCode::Internal).retriable(),
            },
        }
    }
}
