//! What a plugin error means to a user.

use super::PluginError;
use crate::model::{Fault, FaultCode};

impl PluginError {
    pub fn fault(&self) -> Fault {
        let message = self.to_string();
        match self {
            PluginError::Missing { name, nearest, .. } => {
                let fault = Fault::new(FaultCode::PluginMissing, message).about(name.as_str());
                match nearest {
                    Some(nearest) => fault.remedy(format!("did you mean `{nearest}`? `dvbctl plugins` lists what is there")),
                    None => fault.remedy(format!(
                        "put dvb-plugin-{name} beside devnetd or into the home's plugins folder; `dvbctl plugins` lists what is there"
                    )),
                }
            }
            PluginError::Incompatible { name, host, plugin } => {
                let older = if *plugin < *host { format!("install a newer dvb-plugin-{name}") } else { String::from("install a newer devnetd") };
                Fault::new(FaultCode::PluginIncompatible, message).about(name.as_str()).remedy(older)
            }
            PluginError::Spawn { name, .. }
            | PluginError::Exited { name, .. }
            | PluginError::Polluted { name, .. }
            | PluginError::BadReply { name, .. } => broken(message, name),
            PluginError::TimedOut { name, .. } | PluginError::Backoff { name, .. } => broken(message, name).retriable(),
            PluginError::Rejected { name, code, .. } => {
                let code = if code == "Unimplemented" { FaultCode::Unimplemented } else { FaultCode::PluginRejected };
                Fault::new(code, message).about(name.as_str())
            }
        }
    }
}

fn broken(message: String, name: &str) -> Fault {
    Fault::new(FaultCode::PluginBroken, message).about(name).remedy("dvbctl daemon logs  (the plugin's stderr is there)")
}
