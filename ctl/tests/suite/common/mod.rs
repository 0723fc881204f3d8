//! An in-process devnetd that only knows the protocol: a scripted world behind a unix socket, and dvbctl run against it.
#![allow(clippy::disallowed_methods, dead_code, unreachable_pub, reason = "tests run the real program; each test file uses its part of this one")]

pub mod fake;

use dvb_proto::devnet::v1::{Account, Devnet, DevnetSpec, DevnetStatus, Event, LastExit, Metadata, Node, NodeSpec, NodeStatus};
use fake::{Fake, World};
use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread::JoinHandle,
};
use tempfile::TempDir;
use tokio::sync::oneshot;

pub struct Daemon {
    pub dir: TempDir,
    pub fake: Fake,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What dvbctl answered.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Daemon {
    pub fn start(world: World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = Fake::new(world, dir.path().canonicalize().unwrap());
        let socket = dir.path().join("devnetd.sock");
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let served = fake.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::bind(socket).unwrap();
                ready.send(()).unwrap();
                tokio::select! {
                    served = fake::serve(served, listener) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv().unwrap();
        Self { dir, fake, stop: Some(stop), thread: Some(thread) }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dvbctl"));
        command.env_clear().env("HOME", self.dir.path()).current_dir(self.dir.path()).stdin(Stdio::null());
        command.arg("--home").arg(self.dir.path()).args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> Answer {
        answer(self.command(args).output().unwrap())
    }

    /// With a file beside.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub fn answer(output: Output) -> Answer {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Answer { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// dvbctl where no daemon can be reached or started: for what is the client's business alone.
pub fn alone(dir: &Path, args: &[&str]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dvbctl"));
    command.env_clear().env("HOME", dir).env("BIN", "/usr/bin").current_dir(dir).stdin(Stdio::null()).args(args);
    answer(command.output().unwrap())
}

pub const CREATED: &str = "2026-01-01T00:00:00.000Z";

pub fn devnet(name: &str, phase: &str) -> Devnet {
    let account = |i: u32| Account { name: format!("account:{i}"), address: format!("wasm1account{i}"), balance: "1000000ustake".into() };
    Devnet {
        api_version: "devnet.builder/v1".into(),
        kind: "Devnet".into(),
        metadata: Some(Metadata {
            name: name.into(),
            namespace: "default".into(),
            uid: format!("uid-{name}"),
            generation: 1,
            resource_version: 10,
            created_at: CREATED.into(),
            updated_at: CREATED.into(),
            ..Metadata::default()
        }),
        spec: Some(DevnetSpec { plugin: "cosmos".into(), validators: Some(2), desired: Some("running".into()), ..DevnetSpec::default() }),
        status: Some(DevnetStatus {
            phase: phase.into(),
            nodes: 2,
            ready_nodes: if phase == "Running" { 2 } else { 0 },
            current_height: (phase == "Running").then_some(42),
            observed_generation: 1,
            chain_id: Some(format!("{name}-1")),
            accounts: (0..5).map(account).collect(),
            mnemonic_path: Some(format!("/home/u/.devnet-builder/devnets/default/{name}/shared/mnemonic")),
            ..DevnetStatus::default()
        }),
    }
}

pub fn node(devnet: &str, index: u32, phase: &str) -> Node {
    let running = phase == "Running";
    let endpoint = |port: u32| format!("http://127.64.0.{}:{port}", index + 1);
    let exit = LastExit {
        code: Some(1),
        class: "bad-flag".into(),
        message: "unknown flag".into(),
        log_tail: vec!["starting".into(), "panic: no".into()],
        ..LastExit::default()
    };
    Node {
        api_version: "devnet.builder/v1".into(),
        kind: "Node".into(),
        metadata: Some(Metadata {
            name: format!("{devnet}/validator-{index}"),
            namespace: "default".into(),
            generation: 1,
            resource_version: 11,
            created_at: CREATED.into(),
            ..Metadata::default()
        }),
        spec: Some(NodeSpec {
            devnet_ref: devnet.into(),
            index,
            role: "validator".into(),
            desired: "running".into(),
            home_dir: format!("/h/validator-{index}"),
            address: format!("127.64.0.{}", index + 1),
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            phase: phase.into(),
            pid: running.then_some(1000 + index),
            block_height: running.then_some(42),
            peer_count: running.then_some(1),
            last_exit: (phase == "Failed").then_some(exit),
            endpoints: [("rpc".to_owned(), endpoint(26657)), ("grpc".to_owned(), endpoint(9090))].into(),
            ..NodeStatus::default()
        }),
    }
}

pub fn event(seq: u64, name: &str, reason: &str) -> Event {
    Event {
        id: format!("e{seq}"),
        seq,
        time: CREATED.into(),
        kind: if name.contains('/') { "Node" } else { "Devnet" }.into(),
        namespace: "default".into(),
        name: name.into(),
        r#type: "Normal".into(),
        reason: reason.into(),
        message: format!("{name} {reason}"),
        actor: "user:1000".into(),
        ..Event::default()
    }
}

/// Two devnets: `mynet` runs with two nodes, `other` is stopped.
pub fn two_devnets() -> World {
    let mut world = World::default();
    world.put_devnet(devnet("mynet", "Running"));
    world.put_devnet(devnet("other", "Stopped"));
    world.put_node(node("mynet", 0, "Running"));
    world.put_node(node("mynet", 1, "Running"));
    world.events = vec![event(1, "mynet", "Created"), event(2, "mynet/validator-0", "NodeStarted")];
    world
}
