//! The user manager (`systemd --user`), by its private socket: that one is there also where no session bus runs.

use futures::StreamExt;
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{net::UnixStream, time::timeout};
use zbus::{
    Connection, Message, MessageStream,
    connection::Builder,
    message::Type,
    zvariant::{DynamicType, OwnedObjectPath, OwnedValue, Value},
};

const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// An idle manager answers in milliseconds; one that starts up is busy for longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// The longest that a unit of ours may take to start or stop.
const JOB_LIMIT: Duration = Duration::from_secs(100);

#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    #[error("no systemd user manager listens at {}: {source}", socket.display())]
    Unreachable { socket: PathBuf, source: io::Error },
    #[error("the systemd user manager refuses {what}: {source}")]
    Call { what: String, source: Box<zbus::Error> },
    #[error("the systemd user manager did not finish {what} within {JOB_LIMIT:?}")]
    TimedOut { what: String },
    #[error("{what} ended as {result}; see: systemctl --user status {unit}")]
    Job { what: String, unit: String, result: String },
}

/// A connection; it closes when it is dropped.
#[derive(Clone, Debug)]
pub struct UserManager {
    connection: Connection,
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
        let call = |source| failed("a connection")(source);
        // No bus on this socket, so nobody to say Hello to.
        let connecting = Builder::unix_stream(stream).p2p().method_timeout(ANSWER_LIMIT).build();
        let connection = timeout(ANSWER_LIMIT, connecting).await.map_err(|_| call(io::Error::from(io::ErrorKind::TimedOut).into()))?;
        Ok(Self { connection: connection.map_err(call)? })
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
        B: serde::Serialize + DynamicType + Sync,
    {
        let what = format!("{method} of {unit}");
        // Before the call: the job may be done before its answer is read.
        let signals = MessageStream::from(&self.connection);
        let answer = self.call(method, &what, body).await?;
        let job: OwnedObjectPath = answer.body().deserialize().map_err(failed(&what))?;
        let result = timeout(JOB_LIMIT, outcome(signals, &job)).await.map_err(|_| ManagerError::TimedOut { what: what.clone() })?;
        match result.map_err(failed(&what))?.as_str() {
            "done" | "skipped" => Ok(()),
            result => Err(ManagerError::Job { what, unit: unit.to_owned(), result: result.to_owned() }),
        }
    }

    async fn unit(&self, unit: &str) -> Result<OwnedObjectPath, ManagerError> {
        let answer = self.call("LoadUnit", unit, &(unit,)).await?;
        answer.body().deserialize().map_err(failed(unit))
    }

    async fn manager_property(&self, name: &str) -> Result<String, ManagerError> {
        self.text_property(MANAGER_PATH, MANAGER, name).await
    }

    async fn text_property(&self, path: &str, interface: &str, name: &str) -> Result<String, ManagerError> {
        let answer = self.connection.call_method(None::<&str>, path, Some(PROPERTIES), "Get", &(interface, name)).await;
        let value: OwnedValue = answer.and_then(|answer| answer.body().deserialize()).map_err(failed(name))?;
        String::try_from(value).map_err(|error| failed(name)(error.into()))
    }

    async fn call<B>(&self, method: &str, what: &str, body: &B) -> Result<Message, ManagerError>
    where
        B: serde::Serialize + DynamicType + Sync,
    {
        self.connection.call_method(None::<&str>, MANAGER_PATH, Some(MANAGER), method, body).await.map_err(failed(what))
    }
}

/// The word in the signal that ends `job`.
async fn outcome(mut signals: MessageStream, job: &OwnedObjectPath) -> zbus::Result<String> {
    while let Some(message) = signals.next().await {
        let message = message?;
        let header = message.header();
        if message.message_type() != Type::Signal || header.member().is_none_or(|member| member.as_str() != "JobRemoved") {
            continue;
        }
        let (_, path, _, result): (u32, OwnedObjectPath, String, String) = message.body().deserialize()?;
        if path == *job {
            return Ok(result);
        }
    }
    Err(io::Error::from(io::ErrorKind::ConnectionAborted).into())
}

fn failed(what: &str) -> impl Fn(zbus::Error) -> ManagerError {
    let what = what.to_owned();
    move |source| ManagerError::Call { what: what.clone(), source: Box::new(source) }
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
