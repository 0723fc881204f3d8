//! The command line of `devchain`: runs a node of the embedded chain, and helps its users with keys and transfers.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::chain::client::{Client, ClientError, Heights};
use crate::chain::config::Home;
use crate::chain::tx::{Address, Transfer, namespace};
use crate::chain::upgrade::Abilities;
use crate::chain::{Hash, node, rpc, state};
use crate::keys;
use anyhow::{Context as _, bail};
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use commonware_codec::Encode as _;
use futures::StreamExt as _;

/// A small BFT chain for devnets: accounts and transfers on Commonware's simplex consensus.
#[derive(Parser)]
#[command(name = "devchain", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the node whose config.toml, genesis.json and node.key are in a folder.
    Run {
        #[arg(long)]
        home: PathBuf,
        /// Pass over the upgrade that is scheduled for this height; may be given several times.
        #[arg(long, value_name = "HEIGHT")]
        skip_upgrade: Vec<u64>,
    },
    /// Write the accounts of a stopped node's home as JSON: what another chain can begin with.
    Export(ExportArgs),
    /// Print the names of the upgrades that this binary has a handler for.
    Handlers,
    /// Print the addresses that a mnemonic's accounts have.
    Keys {
        /// File with the mnemonic.
        #[arg(long)]
        mnemonic: PathBuf,
        #[arg(long, default_value_t = 10)]
        count: u32,
    },
    /// Send transactions.
    #[command(subcommand)]
    Tx(Tx),
}

#[derive(Args)]
struct ExportArgs {
    #[arg(long)]
    home: PathBuf,
    /// File to write.
    #[arg(long)]
    output: PathBuf,
    /// A check only: of other heights than the newest there is no state.
    #[arg(long)]
    height: Option<u64>,
    /// As for `run`.
    #[arg(long, value_name = "HEIGHT")]
    skip_upgrade: Vec<u64>,
}

#[derive(Subcommand)]
enum Tx {
    /// Move an amount from one of the mnemonic's accounts to an address; prints the transaction's hash.
    Transfer(TransferArgs),
}

#[derive(Args)]
struct TransferArgs {
    /// A node's RPC, http://host:port.
    #[arg(long)]
    rpc: String,
    /// File with the mnemonic.
    #[arg(long)]
    mnemonic: PathBuf,
    /// Number of the account that pays.
    #[arg(long, default_value_t = 0)]
    from: u32,
    /// Address (64 hexadecimal digits), or account:N of the same mnemonic.
    #[arg(long)]
    to: String,
    #[arg(long)]
    amount: u64,
    /// Default: the next free one, asked of the node.
    #[arg(long)]
    nonce: Option<u64>,
    /// Print the signed bytes in hexadecimal, for `submit`, and send nothing.
    #[arg(long)]
    offline: bool,
    /// Return only when the transfer is in a finalized block.
    #[arg(long)]
    wait: bool,
}

/// What one version of the program can do.
#[derive(Debug)]
pub struct Release {
    /// What `--version` prints.
    pub version: &'static str,
    /// Upgrades that it has a handler for.
    pub handlers: &'static [&'static str],
}

pub const FIRST: Release = Release { version: concat!(env!("CARGO_PKG_VERSION"), " (protocol 1)"), handlers: &[] };
/// It executes the blocks of the first as well.
pub const SECOND: Release = Release { version: concat!(env!("CARGO_PKG_VERSION"), " (protocol 2)"), handlers: &["v2"] };

#[expect(clippy::print_stderr, reason = "a command line program says on stderr why it failed")]
pub fn main(release: &'static Release) -> ExitCode {
    let matches = Cli::command().version(release.version).get_matches();
    let command = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli.command,
        Err(error) => error.exit(),
    };
    let result = match command {
        Command::Run { home, skip_upgrade } => return run(&home, release, skip_upgrade),
        Command::Export(args) => export(args, release),
        Command::Handlers => print_handlers(release),
        Command::Keys { mnemonic, count } => print_keys(&mnemonic, count),
        Command::Tx(Tx::Transfer(args)) => transfer(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Exit codes: see `chain::fault`.
#[expect(clippy::print_stderr, reason = "errors before logging is set up")]
fn run(home: &std::path::Path, release: &Release, skip_upgrade: Vec<u64>) -> ExitCode {
    let home = match Home::load(home) {
        Ok(home) => home,
        Err(fault) => {
            eprintln!("error: {fault}");
            return ExitCode::from(fault.exit_code());
        }
    };
    start_logging(&home.config.log);
    let abilities = Abilities { handlers: release.handlers, skipped: skip_upgrade.into_iter().collect() };
    match node::run(home, abilities, end_soon) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            tracing::error!("{fault}");
            ExitCode::from(fault.exit_code())
        }
    }
}

/// A stop takes less than a second, whatever hangs.
fn end_soon() {
    std::thread::spawn(|| {
        std::thread::sleep(std::time::Duration::from_millis(700));
        std::process::exit(0);
    });
}

/// Plain lines on stderr. Commonware's own lines come from `warn` on, unless the filter names them.
fn start_logging(filter: &str) {
    let quiet = "commonware_actor=warn,commonware_broadcast=warn,commonware_consensus=warn,commonware_p2p=warn,commonware_resolver=warn,commonware_runtime=warn,commonware_storage=warn";
    let filter = tracing_subscriber::EnvFilter::new(format!("{quiet},{filter}"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(std::io::stderr).init();
}

fn export(args: ExportArgs, release: &Release) -> anyhow::Result<()> {
    let abilities = Abilities { handlers: release.handlers, skipped: args.skip_upgrade.into_iter().collect() };
    let state = state::read(&args.home, args.height, abilities)?;
    let mut bytes = serde_json::to_vec_pretty(&state)?;
    bytes.push(b'\n');
    std::fs::write(&args.output, bytes).with_context(|| format!("write {}", args.output.display()))
}

#[expect(clippy::print_stdout, reason = "this is the command's result")]
fn print_handlers(release: &Release) -> anyhow::Result<()> {
    release.handlers.iter().for_each(|name| println!("{name}"));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this is the command's result")]
fn print_keys(mnemonic: &PathBuf, count: u32) -> anyhow::Result<()> {
    let words = read_mnemonic(mnemonic)?;
    for index in 0..count {
        println!("account:{index} {}", Address::of(&keys::account_key(&words, index)?));
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "this is the command's result")]
async fn transfer(args: &TransferArgs) -> anyhow::Result<()> {
    let words = read_mnemonic(&args.mnemonic)?;
    let key = keys::account_key(&words, args.from)?;
    let to = match args.to.strip_prefix("account:") {
        Some(index) => Address::of(&keys::account_key(&words, index.parse().context("--to account:N wants a number")?)?),
        None => args.to.parse()?,
    };
    let client = Client::new(&args.rpc);
    let genesis = client.status().await?.genesis_hash;
    let nonce = match args.nonce {
        Some(nonce) => nonce,
        None => client.account(&Address::of(&key).to_string()).await?.next_nonce,
    };
    let tx = Transfer::sign(&key, to, args.amount, nonce, &namespace(&parse_hash(&genesis)?));
    if args.offline {
        println!("{}", hex::encode(tx.encode()));
        return Ok(());
    }
    // Listening before the transfer is sent: its block cannot be missed.
    let mut heights = client.heights().await?;
    let hash = client.submit(&tx.encode()).await?;
    println!("{hash}");
    if args.wait { until_final(&client, &hash, &mut heights).await } else { Ok(()) }
}

/// Looks for the transfer after each block.
async fn until_final(client: &Client, hash: &str, heights: &mut Heights) -> anyhow::Result<()> {
    loop {
        match client.call("tx", serde_json::json!([hash])).await {
            Ok(found) if found["status"] == "finalized" => return Ok(()),
            Ok(_) => {}
            Err(ClientError::Rpc { code: rpc::NOT_FOUND, .. }) => {
                bail!("transfer {hash} was dropped: another one with its nonce came first, or it waited too long")
            }
            Err(error) => return Err(error.into()),
        }
        heights.next().await.context("the node went away")??;
    }
}

fn read_mnemonic(path: &PathBuf) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn parse_hash(text: &str) -> anyhow::Result<Hash> {
    let bytes = hex::decode(text).context("genesis hash")?;
    crate::chain::decode::<Hash>(&bytes).ok().context("a genesis hash has 32 bytes")
}
