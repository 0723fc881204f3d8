//! The user manager (`systemd --user`), by its private socket: that one is there also where no session bus runs.

use crate::wire::{Message, Wire};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{net::UnixStream, sync::Mutex, time::timeout};
use zvariant::{DynamicType, OwnedObjectPath, OwnedValue, Value};

const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// Id, path, unit and result of a job that is over.
type Removed = (u32, OwnedObjectPath, String, String);
const JOB_REMOVED: &str = "JobRemoved";
/// An idle manager answers in milliseconds; one that starts up is busy for longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// The longest that a unit of ours may take to start or stop.
const JOB_LIMIT: Duration = Duration::from_secs(100);

#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    #[error("no systemd user manager listens at {}: {source}", socket.display())]
    Unreachable { socket: PathBuf, source: io::Error },
    #[error("the systemd user manager refuses {what}: {source}")]
    Call { what: String, source: io::Error },
    #[error("the systemd user manager did not finish {what} within {JOB_LIMIT:?}")]
    TimedOut { what: String },
    #[error("{what} ended as {result}; see: systemctl --user status {unit}")]
    Job { what: String, unit: String, result: String },
}

/// A connection; it closes when it is dropped.
#[derive(Debug)]
pub struct UserManager {
    /// One call at a time.
    wire: Mutex<Wire>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `loaded`, `not-found` ...
    pub load: String,
    /// `active`, `activating`, `inactive`, `failed` ...
    pub active: String,
}

/// A transient scope to be made around a process that runs already.
#[derive(Clone, Copy, Debug)]
pub struct NewScope<'a> {
    pub name: &'a str,
    pub description: &'a str,
    pub slice: &'a str,
    pub pid: u32,
    /// Its cgroup is ours to divide.
    pub delegate: bool,
    /// At a common stop these end first.
    pub before: &'a [&'a str],
}

impl UnitState {
    pub fn is_loaded(&self) -> bool {
        self.load == "loaded"
    }
    pub fn is_active(&self) -> bool {
        self.active == "active"
    }
}

impl UserManager {
    /// Where the manager listens.
    pub fn socket(runtime_dir: &Path) -> PathBuf {
        runtime_dir.join("systemd/private")
    }

    pub async fn connect(runtime_dir: &Path) -> Result<Self, ManagerError> {
        let socket = Self::socket(runtime_dir);
        let stream = UnixStream::connect(&socket).await.map_err(|source| ManagerError::Unreachable { socket, source })?;
        let opening = timeout(ANSWER_LIMIT, Wire::open(stream, own_uid()?)).await;
        let wire = opening.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed("a connection"))?;
        Ok(Self { wire: Mutex::new(wire) })
    }

    /// `257.9-1~deb13u1`
    pub async fn version(&self) -> Result<String, ManagerError> {
        self.manager_property("Version").await
    }

    /// The manager's own cgroup, from the root of the hierarchy. What it may divide lies below.
    pub async fn control_group(&self) -> Result<String, ManagerError> {
        self.manager_property("ControlGroup").await
    }

    /// The cgroup of a scope; empty while it has none.
    pub async fn scope_control_group(&self, unit: &str) -> Result<String, ManagerError> {
        self.text_property(self.unit(unit).await?.as_str(), "org.freedesktop.systemd1.Scope", "ControlGroup").await
    }

    pub async fn state(&self, unit: &str) -> Result<UnitState, ManagerError> {
        const UNIT: &str = "org.freedesktop.systemd1.Unit";
        let path = self.unit(unit).await?;
        Ok(UnitState {
            load: self.text_property(path.as_str(), UNIT, "LoadState").await?,
            active: self.text_property(path.as_str(), UNIT, "ActiveState").await?,
        })
    }

    /// Reads the unit files anew.
    pub async fn reload(&self) -> Result<(), ManagerError> {
        self.call("Reload", "daemon-reload", &()).await.map(drop)
    }

    /// From the next start of the manager on.
    pub async fn enable(&self, units: &[&str]) -> Result<(), ManagerError> {
        self.call("EnableUnitFiles", &format!("to enable {}", units.join(", ")), &(units, false, true)).await.map(drop)
    }

    pub async fn disable(&self, units: &[&str]) -> Result<(), ManagerError> {
        self.call("DisableUnitFiles", &format!("to disable {}", units.join(", ")), &(units, false)).await.map(drop)
    }

    /// Returns when it has started, or why it has not.
    pub async fn start(&self, unit: &str) -> Result<(), ManagerError> {
        self.job("StartUnit", unit, &(unit, "replace")).await
    }

    /// Returns when it has ended. One that is not there has.
    pub async fn stop(&self, unit: &str) -> Result<(), ManagerError> {
        if !self.state(unit).await?.is_loaded() {
            return Ok(());
        }
        self.job("StopUnit", unit, &(unit, "replace")).await
    }

    /// Makes a scope around `scope.pid` and returns when the process is in it.
    pub async fn start_scope(&self, scope: NewScope<'_>) -> Result<(), ManagerError> {
        let mut properties: Vec<(&str, Value<'_>)> = vec![
            ("Description", scope.description.into()),
            ("Slice", scope.slice.into()),
            ("PIDs", vec![scope.pid].into()),
            ("CollectMode", "inactive-or-failed".into()),
            // One process that the kernel kills for memory must not take the others along.
            ("OOMPolicy", "continue".into()),
        ];
        if scope.delegate {
            properties.push(("Delegate", true.into()));
        }
        if !scope.before.is_empty() {
            properties.push(("Before", scope.before.to_vec().into()));
        }
        let others: Vec<(&str, Vec<(&str, Value<'_>)>)> = Vec::new();
        self.job("StartTransientUnit", scope.name, &(scope.name, "fail", properties, others)).await
    }

    /// A call that answers with a job; returns when that is done.
    async fn job<B>(&self, method: &str, unit: &str, body: &B) -> Result<(), ManagerError>
    where
        B: serde::Serialize + DynamicType,
    {
        let what = format!("{method} of {unit}");
        // Held until the job is done, which may be told before the call is answered.
        let mut wire = self.wire.lock().await;
        let mut removed = Vec::new();
        let answer = timeout(ANSWER_LIMIT, ask(&mut wire, MANAGER_PATH, MANAGER, method, body, &mut removed)).await;
        let answer = answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(failed(&what))?;
        let job: OwnedObjectPath = answer.body().map_err(failed(&what))?;
        let result = timeout(JOB_LIMIT, outcome(&mut wire, removed, &job)).await.map_err(|_| ManagerError::TimedOut { what: what.clone() })?;
        match result.map_err(failed(&what))?.as_str() {
            "done" | "skipped" => Ok(()),
            result => Err(ManagerError::Job { what, unit: unit.to_owned(), result: result.to_owned() }),
        }
    }

    async fn unit(&self, unit: &str) -> Result<OwnedObjectPath, ManagerError> {
        let answer = self.call("LoadUnit", unit, &(unit,)).await?;
        answer.body().map_err(failed(unit))
    }

    async fn manager_property(&self, name: &str) -> Result<String, ManagerError> {
        self.text_property(MANAGER_PATH, MANAGER, name).await
    }

    async fn text_property(&self, path: &str, interface: &str, name: &str) -> Result<String, ManagerError> {
        let answer = self.ask(path, PROPERTIES, "Get", &(interface, name)).await.map_err(failed(name))?;
        let value: OwnedValue = answer.body().map_err(failed(name))?;
        String::try_from(value).map_err(|error| failed(name)(io::Error::other(error)))
    }

    async fn call<B>(&self, method: &str, what: &str, body: &B) -> Result<Message, ManagerError>
    where
        B: serde::Serialize + DynamicType,
    {
        self.ask(MANAGER_PATH, MANAGER, method, body).await.map_err(failed(what))
    }

    async fn ask<B>(&self, path: &str, interface: &str, method: &str, body: &B) -> io::Result<Message>
    where
        B: serde::Serialize + DynamicType,
    {
        let mut wire = self.wire.lock().await;
        let asked = timeout(ANSWER_LIMIT, ask(&mut wire, path, interface, method, body, &mut Vec::new())).await;
        asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// The answer; jobs that are done meanwhile go into `removed`.
async fn ask<B>(wire: &mut Wire, path: &str, interface: &str, method: &str, body: &B, removed: &mut Vec<Removed>) -> io::Result<Message>
where
    B: serde::Serialize + DynamicType,
{
    let serial = wire.call(path, interface, method, body).await?;
    loop {
        let message = wire.read().await?;
        if message.is_signal(JOB_REMOVED) {
            removed.push(message.body()?);
        } else if let Some(answer) = message.answer_to(serial) {
            return answer;
        }
    }
}

/// The word in the signal that ends `job`.
async fn outcome(wire: &mut Wire, removed: Vec<Removed>, job: &OwnedObjectPath) -> io::Result<String> {
    let result = |(_, path, _, result): Removed| (path == *job).then_some(result);
    if let Some(result) = removed.into_iter().find_map(result) {
        return Ok(result);
    }
    loop {
        let message = wire.read().await?;
        if message.is_signal(JOB_REMOVED)
            && let Some(result) = result(message.body()?)
        {
            return Ok(result);
        }
    }
}

fn own_uid() -> Result<u32, ManagerError> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map(|meta| meta.uid()).map_err(failed("a connection"))
}

fn failed(what: &str) -> impl Fn(io::Error) -> ManagerError {
    let what = what.to_owned();
    move |source| ManagerError::Call { what: what.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_user_manager_the_error_names_its_socket() {
        let error = UserManager::connect(Path::new("/nonexistent")).await.unwrap_err();
        assert!(error.to_string().contains("/nonexistent/systemd/private"), "{error}");
    }
}
