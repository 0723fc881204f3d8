//! The real devnetd in temporary homes: how it starts, whom it refuses, how it ends.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is their way to fail")]

use dvb_proto::devnet::v1::{
    self, daemon_service_client::DaemonServiceClient, devnet_service_client::DevnetServiceClient, node_service_client::NodeServiceClient,
};
use hyper_util::rt::TokioIo;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};
use tonic::transport::{Channel, Endpoint, Uri};

/// A running daemon; killed when the test ends, however it ends.
struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(home: &Path) -> Command {
    command_of(Path::new(env!("CARGO_BIN_EXE_devnetd")), home)
}

#[expect(clippy::disallowed_methods, reason = "the test starts the daemon as a user would")]
fn command_of(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("HOME", home.parent().unwrap_or(home)).arg("--home").arg(home).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

impl Daemon {
    /// Starts it and waits for its READY=1.
    fn start(home: &Path) -> Self {
        Self::start_program(Path::new(env!("CARGO_BIN_EXE_devnetd")), home)
    }

    fn start_program(program: &Path, home: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let notify = dir.path().join("notify");
        let ready = UnixDatagram::bind(&notify).unwrap();
        ready.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let child = command_of(program, home).env("NOTIFY_SOCKET", &notify).stderr(Stdio::null()).spawn().unwrap();
        let daemon = Self { child, socket: home.join("devnetd.sock") };
        let mut word = [0; 64];
        let length = ready.recv(&mut word).expect("READY=1 within twenty seconds");
        assert_eq!(&word[..length], b"READY=1\n");
        daemon
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Its exit code, or a failed test when it does not end within ten seconds.
    fn ends(mut self) -> Option<i32> {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10)); // std has no wait with a limit
        }
        panic!("the daemon did not end");
    }

    async fn channel(&self) -> Channel {
        let socket = self.socket.clone();
        let dial = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(socket).await?)) }
        });
        Endpoint::from_static("http://devnetd").connect_with_connector(dial).await.unwrap()
    }
}

fn refused(home: &Path, edit: impl FnOnce(&mut Command)) -> (Option<i32>, String) {
    let mut command = command(home);
    edit(&mut command);
    let Output { status, stderr, .. } = command.stderr(Stdio::piped()).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap().join("h");
    (dir, home)
}

fn exec_devnet(name: &str) -> v1::Devnet {
    let service = v1::ServiceSpec { name: "web".into(), command: vec!["/bin/true".into()], ..Default::default() };
    v1::Devnet {
        metadata: Some(v1::Metadata { name: name.into(), ..Default::default() }),
        spec: Some(v1::DevnetSpec { plugin: "exec".into(), desired: Some("stopped".into()), services: vec![service], ..Default::default() }),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_serves_its_home_and_ends_in_order_on_sigterm() {
    let (_dir, home) = home();
    let daemon = Daemon::start(&home);
    assert_eq!(fs::metadata(&daemon.socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
    let mut client = DaemonServiceClient::new(daemon.channel().await);
    let request = v1::HandshakeRequest { home: home.to_string_lossy().into_owned(), ..Default::default() };
    let status = client.handshake(request).await.unwrap().into_inner();
    assert_eq!((status.pid, status.home.as_str()), (daemon.child.id(), home.to_str().unwrap()));
    assert_eq!(status.socket, daemon.socket.to_string_lossy());
    let mut watch = DevnetServiceClient::new(daemon.channel().await).watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().r#type, "BOOKMARK");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(watch.message().await.unwrap_err().code(), tonic::Code::Unavailable);
    let socket = daemon.socket.clone();
    assert_eq!(daemon.ends(), Some(0));
    assert!(!socket.exists(), "the socket file is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sighup_it_executes_itself_anew_and_keeps_socket_and_lock() {
    let (_dir, home) = home();
    let daemon = Daemon::start(&home);
    let first = DaemonServiceClient::new(daemon.channel().await).status(v1::Empty {}).await.unwrap().into_inner();
    for _ in 0..2 {
        let mut watch = DevnetServiceClient::new(daemon.channel().await).watch(v1::WatchRequest::default()).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().r#type, "BOOKMARK");
        daemon.signal(Signal::SIGHUP);
        assert_eq!(watch.message().await.unwrap_err().code(), tonic::Code::Unavailable);
        drop(watch);
        // The old program has hung up on us, so who answers now is the new one.
        let next = DaemonServiceClient::new(daemon.channel().await).status(v1::Empty {}).await.unwrap().into_inner();
        assert_eq!((next.pid, &next.instance_id, &next.socket), (first.pid, &first.instance_id, &first.socket));
        assert_ne!(next.started_at, first.started_at);
        let (code, error) = refused(&home, |_| {});
        assert_eq!(code, Some(75), "the lock is held all the time: {error}");
    }
    daemon.signal(Signal::SIGTERM);
    let socket = daemon.socket.clone();
    assert_eq!(daemon.ends(), Some(0));
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_executes_what_now_lies_in_its_place_and_refuses_what_cannot_run() {
    let (dir, home) = home();
    let program = dir.path().canonicalize().unwrap().join("devnetd");
    let put = |bytes: &dyn Fn(&Path)| {
        let new = program.with_extension("new");
        bytes(&new);
        fs::rename(&new, &program).unwrap();
    };
    put(&|new| _ = fs::copy(env!("CARGO_BIN_EXE_devnetd"), new).unwrap());
    let daemon = Daemon::start_program(&program, &home);
    let pid = daemon.child.id();
    put(&|new| {
        fs::write(new, "#!/bin/sh\necho broken >&2; exit 9\n").unwrap();
        fs::set_permissions(new, fs::Permissions::from_mode(0o755)).unwrap();
    });
    let mut client = DaemonServiceClient::new(daemon.channel().await);
    let first = client.status(v1::Empty {}).await.unwrap().into_inner();
    let refused = client.reload(v1::Empty {}).await.unwrap_err();
    assert!(refused.message().contains("exit status: 9: broken") && refused.message().contains("serves on"), "{refused}");
    assert_eq!(client.status(v1::Empty {}).await.unwrap().into_inner().started_at, first.started_at);

    put(&|new| _ = fs::copy(env!("CARGO_BIN_EXE_devnetd"), new).unwrap());
    assert!(fs::read_link(format!("/proc/{pid}/exe")).unwrap().to_string_lossy().ends_with("(deleted)"));
    let mut steps = client.reload(v1::Empty {}).await.unwrap().into_inner();
    while let Ok(Some(_)) = steps.message().await {}
    drop((steps, client));
    // The old program may still take a call that comes on the heels of its last word.
    let begin = Instant::now();
    let next = loop {
        match DaemonServiceClient::new(daemon.channel().await).status(v1::Empty {}).await.map(tonic::Response::into_inner) {
            Ok(status) if status.started_at != first.started_at => break status,
            other => assert!(begin.elapsed() < Duration::from_secs(20), "{other:?}"),
        }
    };
    assert_eq!(next.pid, pid);
    assert_eq!(fs::read_link(format!("/proc/{pid}/exe")).unwrap(), program);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ends(), Some(0));
}

#[test]
fn a_second_daemon_on_one_home_is_refused_and_names_the_first() {
    let (_dir, home) = home();
    let first = Daemon::start(&home);
    let (code, error) = refused(&home, |_| {});
    assert_eq!(code, Some(75), "{error}");
    assert!(error.contains(&format!("pid {}", first.child.id())) && error.contains(home.to_str().unwrap()), "{error}");
    let (code, error) = refused(&home, |command| _ = command.arg("--socket").arg(home.join("other.sock")));
    assert_eq!(code, Some(75), "the lock counts, not the socket: {error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_outlives_a_kill_and_the_stale_socket_is_replaced() {
    let (_dir, home) = home();
    let daemon = Daemon::start(&home);
    let mut client = DevnetServiceClient::new(daemon.channel().await);
    let created = client.create(v1::CreateDevnetRequest { devnet: Some(exec_devnet("mynet")) }).await.unwrap().into_inner();
    let id = DaemonServiceClient::new(daemon.channel().await).status(v1::Empty {}).await.unwrap().into_inner().instance_id;
    daemon.signal(Signal::SIGKILL);
    let socket = daemon.socket.clone();
    daemon.ends();
    assert!(socket.exists(), "a killed daemon leaves its socket");
    let daemon = Daemon::start(&home);
    let mut client = DevnetServiceClient::new(daemon.channel().await);
    let found = client.get(v1::ObjectRef { name: "mynet".into(), ..Default::default() }).await.unwrap().into_inner();
    assert_eq!(found.metadata.unwrap().uid, created.metadata.unwrap().uid);
    assert_eq!(found.spec, created.spec);
    let again = DaemonServiceClient::new(daemon.channel().await).status(v1::Empty {}).await.unwrap().into_inner();
    assert_eq!(again.instance_id, id);
}

/// An exec devnet with one sleeping service; its pid once it runs.
async fn running_service(daemon: &Daemon) -> u32 {
    let mut devnet = exec_devnet("mynet");
    let spec = devnet.spec.as_mut().unwrap();
    spec.desired = None;
    spec.services[0].command = vec!["/bin/sleep".into(), "300".into()];
    let request = v1::ApplyRequest { devnet: Some(devnet), dry_run: false, ..Default::default() };
    DevnetServiceClient::new(daemon.channel().await).apply(request).await.unwrap();
    let mut nodes = NodeServiceClient::new(daemon.channel().await).watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    let running = async {
        loop {
            let event = nodes.message().await.unwrap().expect("the watch goes on");
            let status = event.object.and_then(|node| node.status).unwrap_or_default();
            if let (Some(pid), "Running") = (status.pid, status.phase.as_str()) {
                return pid;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), running).await.expect("it runs within twenty seconds")
}

/// Kills what a failed test would leave.
struct Reap(u32);

impl Drop for Reap {
    fn drop(&mut self) {
        let command = fs::read(format!("/proc/{}/cmdline", self.0)).unwrap_or_default();
        if command == b"/bin/sleep\x00300\x00" {
            let _ = kill(Pid::from_raw(i32::try_from(self.0).unwrap()), Signal::SIGKILL);
        }
    }
}

fn alive(pid: u32) -> bool {
    // A zombie whose parent has gone is nobody's any more; it has no command line.
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|command| !command.is_empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_outlives_a_daemon_that_ends_and_goes_with_one_that_is_told_so() {
    if !Path::new(env!("CARGO_BIN_EXE_devnetd")).with_file_name("dvb-plugin-exec").exists() {
        println!("SKIP: dvb-plugin-exec is not built; cargo build -p dvb-plugin-exec");
        return;
    }
    let (_dir, home) = home();
    let daemon = Daemon::start(&home);
    let pid = running_service(&daemon).await;
    let _reap = Reap(pid);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ends(), Some(0));
    assert!(alive(pid), "the node keeps running without a daemon");

    let daemon = Daemon::start(&home);
    assert_eq!(running_service(&daemon).await, pid, "the next daemon takes it up again");
    let mut steps = DaemonServiceClient::new(daemon.channel().await).shutdown(v1::ShutdownRequest { with_nodes: true }).await.unwrap().into_inner();
    let mut told = Vec::new();
    while let Some(step) = steps.message().await.unwrap() {
        told.push(step.message);
    }
    assert_eq!(told, ["mynet/web stopped", "devnetd ends"]);
    assert_eq!(daemon.ends(), Some(0));
    assert!(!alive(pid), "the node is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shutdown_call_ends_it() {
    let (_dir, home) = home();
    let daemon = Daemon::start(&home);
    let mut client = DaemonServiceClient::new(daemon.channel().await);
    let mut steps = client.shutdown(v1::ShutdownRequest { with_nodes: false }).await.unwrap().into_inner();
    let mut done = false;
    while let Some(step) = steps.message().await.unwrap() {
        done = step.done;
    }
    assert!(done);
    assert_eq!(daemon.ends(), Some(0));
}

#[test]
fn each_unusable_home_gets_one_clear_error() {
    let (dir, home) = home();
    let check = |home: &Path, edit: &dyn Fn(&mut Command), expect: &[&str]| {
        let (code, error) = refused(home, |command| edit(command));
        assert_eq!(code, Some(1), "{error}");
        assert!(expect.iter().all(|part| error.contains(part)) && error.lines().count() <= 3, "{error}");
    };
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    check(&file, &|_| {}, &["is not a folder", "--home DIR"]);
    let long = home.join("s".repeat(120));
    check(&home, &|command| _ = command.arg("--socket").arg(&long), &["socket path", "at most 107", "--socket"]);
    check(&home, &|command| _ = command.arg("--socket").arg(&file), &["exists and is no socket"]);
    assert!(file.exists(), "what is no socket is left alone");
    fs::write(home.join("config.toml"), "log_level = \"debug\"\n").unwrap();
    check(&home, &|_| {}, &["config.toml:1", "did you mean `logLevel`?"]);
    fs::write(home.join("config.toml"), "").unwrap();
    fs::write(home.join("devnetd.db"), "this is no database, and long enough to be taken for one ".repeat(50)).unwrap();
    check(&home, &|_| {}, &["devnetd.db", "mend:"]);
    assert!(fs::read_to_string(home.join("devnetd.db")).unwrap().starts_with("this is no database"), "a store that cannot be read is kept");
}

#[test]
fn a_home_on_a_read_only_disk_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    if nix::unistd::geteuid().is_root() {
        // Root writes everywhere but where the kernel itself says no.
        let (code, error) = refused(Path::new("/sys/kernel"), |_| {});
        assert_eq!(code, Some(1), "{error}");
        assert!(error.contains("/sys/kernel") && error.contains("home"), "{error}");
        return;
    }
    fs::set_permissions(&home, fs::Permissions::from_mode(0o500)).unwrap();
    let (code, error) = refused(&home, |_| {});
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("read-only") && error.contains("--home DIR"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_home_too_deep_for_a_socket_is_served_on_a_short_one() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap().join("d".repeat(90)).join("h");
    let mut daemon = Daemon::start(&home);
    daemon.socket = dvb_proto::endpoint::socket_path(&home, home.parent().unwrap(), None);
    assert!(daemon.socket.starts_with("/tmp"), "{:?}", daemon.socket);
    DaemonServiceClient::new(daemon.channel().await).status(v1::Empty {}).await.unwrap();
    daemon.signal(Signal::SIGINT);
    let socket = daemon.socket.clone();
    assert_eq!(daemon.ends(), Some(0));
    assert!(!socket.exists());
}
