//! What a log error means to a user.

use super::LogError;
use crate::model::{Fault, FaultCode};
use std::io::ErrorKind;

impl LogError {
    pub fn fault(&self) -> Fault {
        let fault = |code| Fault::new(code, self.to_string());
        match self {
            Self::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
                fault(FaultCode::PermissionDenied).remedy("check owner and mode of the log named above")
            }
            Self::Io { .. } | Self::Rotate { .. } => fault(FaultCode::Internal).retriable(),
            Self::Watch { .. } => fault(FaultCode::Internal)
                .retriable()
                .remedy("the kernel may be out of inotify watches or instances: raise fs.inotify.max_user_watches and max_user_instances"),
        }
    }
}
