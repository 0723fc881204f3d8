//! `mock-node`: the toy node of the mock chain. It makes a block each block time, keeps its height in its home, answers HTTP.
//!
//! `GET /status`: one JSON object. `GET /heights`: one JSON object per line, the present height and then each new block.
//! The flags below `--ignore-sigterm` make it fail in the ways in which nodes fail; `args` and `env` of a devnet's node set them.

use clap::Parser;
use serde_json::{Value, json};
use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::watch,
};

#[derive(Debug, Parser)]
#[command(name = "mock-node", version, about = "The toy node of devnetd's mock chain")]
struct Args {
    /// Prints the SHA-256 of a text and ends: the job of network `jobs`.
    #[arg(long, value_name = "TEXT", exclusive = true)]
    digest: Option<String>,
    /// Its folder; the height is kept in data/sign_state.json.
    #[arg(long, required_unless_present = "digest", default_value = ".")]
    home: PathBuf,
    /// Refuses to run when the file is missing or holds no chain_id.
    #[arg(long)]
    genesis: Option<PathBuf>,
    #[arg(long, default_value = "127.0.0.1:36657")]
    rpc: SocketAddr,
    #[arg(long)]
    p2p: Option<SocketAddr>,
    /// p2p addresses of the others; those that accept are counted as peers.
    #[arg(long = "peer")]
    peers: Vec<SocketAddr>,
    #[arg(long, env = "MOCK_BLOCK_TIME_MS", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    block_time_ms: u64,
    /// Only SIGKILL ends it.
    #[arg(long, env = "MOCK_IGNORE_SIGTERM", value_parser = clap::builder::FalseyValueParser::new())]
    ignore_sigterm: bool,
    /// Ends by itself after so many milliseconds, with --exit-code.
    #[arg(long, env = "MOCK_EXIT_AFTER_MS")]
    exit_after_ms: Option<u64>,
    #[arg(long, env = "MOCK_EXIT_CODE", default_value_t = 1)]
    exit_code: u8,
    /// Makes no blocks and never says that it is ready.
    #[arg(long, env = "MOCK_NEVER_READY", value_parser = clap::builder::FalseyValueParser::new())]
    never_ready: bool,
    /// Stops making blocks at this height, alive.
    #[arg(long, env = "MOCK_HALT_AT")]
    halt_at: Option<u64>,
    /// Says that it is sick, with this class.
    #[arg(long, env = "MOCK_SICK", default_value = "")]
    sick: String,
    /// A line for the log at its start; with --exit-after-ms also its last words.
    #[arg(long, env = "MOCK_LOG")]
    log: Option<String>,
}

struct Node {
    args: Args,
    height: watch::Sender<u64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(text) = &args.digest {
        say(&dvb_plugin_sdk::sha256_hex(text.as_bytes()));
        return ExitCode::SUCCESS;
    }
    match run(args).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&format!("Error: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// A node's log is its stdout; when nobody takes it, that is no reason to die.
fn say(line: &str) {
    use io::Write as _;
    let _ = writeln!(io::stdout(), "{line}");
}

async fn run(args: Args) -> io::Result<u8> {
    if let Some(line) = &args.log {
        say(line);
    }
    check_genesis(args.genesis.as_deref())?;
    let state = args.home.join("data/sign_state.json");
    let begin = read_height(&state)?;
    let rpc = bind(args.rpc, "rpc").await?;
    if let Some(address) = args.p2p {
        tokio::spawn(accept_peers(bind(address, "p2p").await?));
    }
    say(&format!("mock-node listens on {} at height {begin}", args.rpc));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let node = Arc::new(Node { height: watch::Sender::new(begin), args });
    tokio::spawn(serve(rpc, node.clone()));
    let death = async {
        match node.args.exit_after_ms {
            Some(after) => tokio::time::sleep(Duration::from_millis(after)).await,
            None => std::future::pending().await,
        }
    };
    let stop = async {
        loop {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
            if !node.args.ignore_sigterm {
                break;
            }
            say("mock-node ignores the signal");
        }
    };
    tokio::select! {
        result = make_blocks(&node, &state) => result.map(|()| 0),
        () = stop => { say("mock-node stops"); Ok(0) }
        () = death => {
            say(node.args.log.as_deref().unwrap_or("mock-node ends as it was told"));
            Ok(node.args.exit_code)
        }
    }
}

async fn bind(address: SocketAddr, what: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| io::Error::new(error.kind(), format!("{what} {address}: {error}")))
}

fn check_genesis(path: Option<&Path>) -> io::Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("genesis {}: {error}", path.display())))?;
    match serde_json::from_slice::<Value>(&text) {
        Ok(genesis) if genesis["chain_id"].is_string() => Ok(()),
        _ => Err(io::Error::other(format!("genesis mismatch: {} has no chain_id", path.display()))),
    }
}

/// 0 where there is no file yet.
fn read_height(state: &Path) -> io::Result<u64> {
    match fs::read(state) {
        Ok(text) => {
            serde_json::from_slice::<Value>(&text).ok().and_then(|value| value["height"].as_u64()).ok_or_else(|| io::Error::other("bad sign state"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Renamed into place, so that a kill leaves the old height or the new one.
fn write_height(state: &Path, height: u64) -> io::Result<()> {
    if let Some(folder) = state.parent() {
        fs::create_dir_all(folder)?;
    }
    let fresh = state.with_extension("json.new");
    fs::write(&fresh, json!({"height": height}).to_string())?;
    fs::rename(fresh, state)
}

/// This timer is the chain: a block time is what it waits for.
async fn make_blocks(node: &Node, state: &Path) -> io::Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_millis(node.args.block_time_ms));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let height = *node.height.borrow() + 1;
        if node.args.never_ready || node.args.halt_at.is_some_and(|halt| height > halt) {
            return std::future::pending().await;
        }
        write_height(state, height)?;
        node.height.send_replace(height);
    }
}

async fn accept_peers(listener: TcpListener) {
    while listener.accept().await.is_ok() {}
}

async fn serve(listener: TcpListener, node: Arc<Node>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let node = node.clone();
        // A client that hangs up is no event.
        tokio::spawn(async move { answer(tcp, &node).await });
    }
}

async fn answer(tcp: TcpStream, node: &Node) -> io::Result<()> {
    let mut tcp = BufReader::new(tcp);
    let mut first = String::new();
    tcp.read_line(&mut first).await?;
    let mut header = String::new();
    while tcp.read_line(&mut header).await? > 2 {
        header.clear();
    }
    let head = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n");
    match first.split_whitespace().nth(1) {
        Some("/status") => {
            let body = status(node).await;
            tcp.write_all(format!("{}{body}\n", head("200 OK")).as_bytes()).await
        }
        Some("/heights") => {
            tcp.write_all(head("200 OK").as_bytes()).await?;
            stream_heights(tcp, node).await
        }
        _ => tcp.write_all(format!("{}{{\"error\":\"no such path\"}}\n", head("404 Not Found")).as_bytes()).await,
    }
}

async fn stream_heights(mut tcp: BufReader<TcpStream>, node: &Node) -> io::Result<()> {
    let mut heights = node.height.subscribe();
    heights.mark_changed();
    let mut ended = String::new();
    loop {
        tokio::select! {
            changed = heights.changed() => if changed.is_err() { return Ok(()) },
            // The client sends no more: whatever comes is its end.
            _ = tcp.read_line(&mut ended) => return Ok(()),
        }
        let height = *heights.borrow_and_update();
        if height > 0 {
            tcp.write_all(format!("{}\n", json!({"height": height, "hash": hash(height)})).as_bytes()).await?;
        }
    }
}

async fn status(node: &Node) -> Value {
    let height = *node.height.borrow();
    let mut peers = 0;
    for peer in &node.args.peers {
        let connected = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(peer)).await;
        peers += u32::from(matches!(connected, Ok(Ok(_))));
    }
    json!({"height": height, "hash": hash(height), "peers": peers, "ready": height > 0 && !node.args.never_ready, "sick": node.args.sick})
}

fn hash(height: u64) -> String {
    dvb_plugin_sdk::sha256_hex(&height.to_be_bytes())
}
