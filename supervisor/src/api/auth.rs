//! Who may speak: the daemon's own user and root, told by the peer credentials of the unix socket, if it is this home that they mean.

use super::status;
use crate::model::{Fault, FaultCode};
use dvb_proto::endpoint::HOME_KEY;
use tonic::{Request, Status, transport::server::UdsConnectInfo};

/// Who sent a request; events carry it as `user:<uid>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
}

impl Caller {
    /// The one that the interceptor put there. Without it the request did not come through the server.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        request.extensions().get::<Self>().copied().ok_or_else(|| status::status(&refusal("the connection has no peer credentials")))
    }
    pub fn actor(self) -> String {
        format!("user:{}", self.uid)
    }
}

/// Lets a request in when its peer runs as `own` or as root and means `home` (or says nothing of a home), and writes down who it is.
pub fn admit(mut request: Request<()>, own: u32, home: &str) -> Result<Request<()>, Status> {
    let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred).map(|cred| cred.uid());
    let caller = decide(peer, own).map_err(|fault| status::status(&fault))?;
    if let Some(meant) = request.metadata().get_bin(HOME_KEY) {
        let meant = meant.to_bytes().unwrap_or_default();
        check_home(home, &String::from_utf8_lossy(&meant)).map_err(|fault| status::status(&fault))?;
    }
    request.extensions_mut().insert(caller);
    Ok(request)
}

/// A client that means another home must not change this one.
pub(super) fn check_home(served: &str, meant: &str) -> Result<(), Fault> {
    if meant == served {
        return Ok(());
    }
    let message = format!("this devnetd serves the home {served}, not {meant}");
    let remedy = format!("dvbctl --home {served} speaks to this one; dvbctl --home {meant} daemon start starts the other");
    Err(Fault::new(FaultCode::HomeMismatch, message).remedy(remedy))
}

fn decide(peer: Option<u32>, own: u32) -> Result<Caller, Fault> {
    match peer {
        Some(uid) if uid == own || uid == 0 => Ok(Caller { uid }),
        Some(uid) => Err(refusal(&format!("this devnetd belongs to user {own}; you are user {uid}"))),
        None => Err(refusal("the connection has no peer credentials")),
    }
}

fn refusal(message: &str) -> Fault {
    Fault::new(FaultCode::PermissionDenied, message).remedy("run a daemon of your own: dvbctl daemon start")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_and_root_are_let_in() {
        assert_eq!(decide(Some(1000), 1000).unwrap().actor(), "user:1000");
        assert_eq!(decide(Some(0), 1000).unwrap().actor(), "user:0");
        assert_eq!(decide(Some(1001), 1000).unwrap_err().code, FaultCode::PermissionDenied);
        assert_eq!(decide(None, 1000).unwrap_err().code, FaultCode::PermissionDenied);
    }
}
