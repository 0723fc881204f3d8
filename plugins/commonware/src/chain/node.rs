//! Wires a node together and runs it: p2p, marshal, simplex, and the chain's own parts.
//!
//! ```text
//! load home ─► lock ─► bind rpc, try p2p port ─► open ledger ─► archives ─► p2p ─► marshal ─► (quorum of peers, or 3 s) ─► simplex
//!                                                                                                    │
//!                              SIGTERM, SIGINT: exit 0 ◄── run ── applier failed, consensus stopped: exit code of the fault
//! ```
//!
//! A full node runs the same parts with a scheme that cannot sign (`Scheme::verifier`): simplex then casts no vote and proposes
//! nothing, but it collects and verifies certificates against the validator set, and marshal fetches the blocks. Validators know
//! full nodes as secondary peers, which they accept and serve but do not dial.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use commonware_broadcast::buffered;
use commonware_consensus::marshal::core::Actor as MarshalActor;
use commonware_consensus::marshal::resolver::p2p as backfill;
use commonware_consensus::marshal::standard::{Inline, Standard};
use commonware_consensus::marshal::{self};
use commonware_consensus::simplex::config::{ForwardPolicy, SkipBudget, SkipPolicy};
use commonware_consensus::simplex::elector::RoundRobin;
use commonware_consensus::simplex::types::Finalization;
use commonware_consensus::simplex::{self};
use commonware_consensus::types::{Epoch, FixedEpocher, ViewDelta};
use commonware_cryptography::certificate::{ConstantProvider, Verifier as _};
use commonware_cryptography::ed25519::{PrivateKey, PublicKey};
use commonware_cryptography::sha256::Sha256;
use commonware_cryptography::{ChaCha20Poly1305, Digestible as _, Signer as _};
use commonware_p2p::authenticated::lookup;
use commonware_p2p::{
    Address as PeerAddress, AddressableManager as _, AddressableTrackedPeers, CheckedSender as _, LimitedSender, Recipients, max_message_size,
};
use commonware_parallel::Sequential;
use commonware_runtime::buffer::paged::CacheRef;
use commonware_runtime::{Clock as _, Handle, Quota, Runner as _, Spawner as _, Supervisor as _, tokio as runtime};
use commonware_storage::archive::{Archive as _, prunable};
use commonware_storage::translator::FourCap;
use commonware_stream::cups::{self, Cups};
use commonware_stream::sake::{self, Sake};
use commonware_utils::ordered::{Map, Set};
use commonware_utils::{NZDuration, NZU16, NZU32, NZU64, NZUsize};
use futures::FutureExt as _;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Hash;
use super::app::{App, Marshal, Scheme};
use super::applier::Applier;
use super::block::Block;
use super::config::{Config, Home, KEY_FILE, Peer};
use super::fault::NodeFault;
use super::genesis::ChainSpec;
use super::shared::Chain;
use super::store::{Store, TxIndex};
use super::upgrade::{Abilities, UPGRADES_FILE, Upgrades};
use super::{gossip, rpc};

/// The accounts, below the home.
pub(super) const LEDGER: &str = "data/ledger.sqlite";
/// Consensus starts when so many validators are connected, or after this long: a proposal that nobody hears costs a timeout.
const QUORUM_WAIT: Duration = Duration::from_secs(3);
/// How long the parts may take to stop.
const STOP_GRACE: Duration = Duration::from_millis(350);
/// Per peer and channel; block sync is the busiest.
const MESSAGES_PER_SECOND: u32 = 512;
const MAILBOX: usize = 1024;
const BUFFER: usize = 64 * 1024;

type Context = runtime::Context;
type Oracle = lookup::Oracle<PublicKey>;
type Network = lookup::Network<Context, Cups<Sake<PrivateKey>, ChaCha20Poly1305>>;
type Finalizations = prunable::Archive<FourCap, Context, Hash, Finalization<Scheme, Hash>>;
type Blocks = prunable::Archive<FourCap, Context, Hash, Arc<Block>>;

/// Runs the node of a home until it is told to stop. Logging must be set up.
///
/// `on_stop` is called when SIGTERM or SIGINT came: the caller may want to end the process should the orderly stop take too long.
/// All that is final is on disk at any time.
pub fn run(home: Home, abilities: Abilities, on_stop: impl FnOnce()) -> Result<(), NodeFault> {
    let _lock = lock(&home.path)?;
    let rpc = bind("rpc", home.config.rpc.listen)?;
    // Commonware panics when it cannot listen; finding out first gives a clear error. The listener is closed at once.
    drop(bind("p2p", home.config.p2p.listen)?);
    let data = home.data();
    std::fs::create_dir_all(&data).map_err(|source| NodeFault::Io { what: format!("create {}", data.display()), source })?;
    let config = runtime::Config::new().with_storage_directory(data.join("chain")).with_worker_threads(2).with_max_blocking_threads(16);
    runtime::Runner::new(config).start(|context| node(context, home, abilities, rpc, on_stop))
}

async fn node(context: Context, home: Home, abilities: Abilities, rpc_listener: TcpListener, on_stop: impl FnOnce()) -> Result<(), NodeFault> {
    let mut stop = Signals::new()?;
    tokio::select! {
        biased;
        name = stop.recv() => {
            info!(signal = name, "stopping");
            on_stop();
            let _ = context.stop(0, Some(STOP_GRACE)).await;
            Ok(())
        }
        fault = start(context.child("node"), home, abilities, rpc_listener) => fault,
    }
}

/// Starts all parts and waits for the first that ends.
async fn start(context: Context, home: Home, abilities: Abilities, rpc_listener: TcpListener) -> Result<(), NodeFault> {
    let Home { path, config, spec, key } = home;
    let ledger_path = path.join(LEDGER);
    let upgrades = Upgrades::load(&path.join("data").join(UPGRADES_FILE), abilities)?;
    let (store, head, ledger) = Store::open(&ledger_path, &spec, &upgrades)?;
    let role = if spec.validators.position(&key.public_key()).is_some() { "validator" } else { "fullnode" };
    info!(moniker = config.moniker, role, version = env!("CARGO_PKG_VERSION"), chain = spec.chain_id, genesis = %spec.hash, height = head.height, "starting");
    let genesis_time = Duration::from_millis(spec.block.inner().timestamp);
    if let Ok(ahead) = (SystemTime::UNIX_EPOCH + genesis_time).duration_since(context.current()) {
        warn!(seconds = ahead.as_secs(), "the genesis time lies ahead: there is no block before it");
    }
    let chain = Arc::new(Chain::new(spec, head, ledger, upgrades));

    let mut net = Channels::open(&context, &path, &config, &chain.spec, &key)?;
    let block_time = Duration::from_millis(config.block_time_ms);
    let archives = Archives::open(&context, &path).await?;
    chain.set_tip_at_start(archives.finalizations.last_index().unwrap_or(0).max(head.height));

    let (finalized, to_apply) = mpsc::unbounded_channel();
    let late_marshal = Arc::new(OnceLock::new());
    let app = App::new(chain.clone(), late_marshal.clone(), finalized, block_time);
    let parts = Parts { context: &context, chain: &chain, key: &key, app: &app, block_time };
    let (marshal, marshal_task) = parts.start_marshal(archives, &mut net).await;
    let _ = late_marshal.set(marshal.clone());

    let applier = Applier { chain: chain.clone(), store, marshal: marshal.clone() };
    let applier_task = context.child("applier").dedicated().spawn(move |_| applier.run(to_apply));
    let (submit, submitted) = mpsc::channel(MAILBOX);
    let gossip_task = context.child("gossip").spawn({
        let (chain, channel, oracle) = (chain.clone(), net.gossip.take().expect("taken once"), net.oracle.clone());
        move |_| gossip::run(chain, channel, oracle, submitted)
    });
    let index = TxIndex::open(&ledger_path).map_err(|error| NodeFault::Corrupt { path: ledger_path, message: error.to_string() })?;
    let peers = net.presence.0.clone();
    let served = rpc::Node::new(config.moniker, role, chain.clone(), marshal.clone(), index, submit, Box::new(move || connected(&peers).len()));
    let rpc_task = tokio::spawn(rpc::serve(rpc_listener, served));

    net.network.take().expect("taken once").start();
    wait_for_quorum(&context, &net, &chain.spec.validators, &key.public_key()).await;
    let consensus_task = parts.start_consensus(marshal, &mut net);
    tokio::select! {
        result = applier_task => result.map_err(|error| NodeFault::Stopped(format!("applier: {error}")))?,
        _ = marshal_task => Err(NodeFault::Stopped("marshal ended".into())),
        _ = consensus_task => Err(NodeFault::Stopped("simplex ended".into())),
        _ = gossip_task => Err(NodeFault::Stopped("gossip ended".into())),
        result = rpc_task => Err(NodeFault::Stopped(format!("rpc ended: {result:?}"))),
    }
}

/// What the wiring functions need in common.
struct Parts<'a> {
    context: &'a Context,
    chain: &'a Arc<Chain>,
    key: &'a PrivateKey,
    app: &'a App,
    block_time: Duration,
}

impl Parts<'_> {
    fn scheme(&self) -> Scheme {
        let (namespace, validators) = (namespace("consensus", &self.chain.spec), self.chain.spec.validators.clone());
        Scheme::signer(&namespace, validators.clone(), self.key.clone()).unwrap_or_else(|| Scheme::verifier(&namespace, validators))
    }

    async fn start_marshal(&self, archives: Archives, net: &mut Channels) -> (Marshal, Handle<()>) {
        let me = self.key.public_key();
        let (buffer, buffer_mailbox) = buffered::Engine::new(
            self.context.child("buffer"),
            buffered::Config {
                public_key: me.clone(),
                mailbox_size: NZUsize!(MAILBOX),
                deque_size: 16,
                priority: true,
                codec_config: (),
                peer_provider: net.oracle.clone(),
                strategy: Sequential,
            },
        );
        let (actor, mailbox, _) = MarshalActor::init(
            self.context.child("marshal"),
            archives.finalizations,
            archives.blocks,
            marshal::Config {
                provider: ConstantProvider::new(self.scheme()),
                epocher: epocher(),
                start: marshal::Start::Genesis(self.chain.spec.block.clone()),
                partition_prefix: "marshal".into(),
                mailbox_size: NZUsize!(MAILBOX),
                view_retention: ViewDelta::new(256),
                prunable_items_per_section: NZU64!(1024),
                page_cache: archives.page_cache,
                replay_buffer: NZUsize!(BUFFER),
                key_write_buffer: NZUsize!(BUFFER),
                value_write_buffer: NZUsize!(BUFFER),
                block_codec_config: (),
                max_repair: NZUsize!(64),
                max_pending_acks: NZUsize!(16),
                strategy: Sequential,
            },
        )
        .await;
        let resolver = backfill::init(
            self.context.child("backfill"),
            backfill::Config {
                public_key: me,
                peer_provider: net.oracle.clone(),
                blocker: net.oracle.clone(),
                mailbox_size: NZUsize!(MAILBOX),
                fetch_timeout: NZDuration!(Duration::from_secs(1)),
                fetch_retry_delay: Duration::from_millis(100),
                priority_requests: false,
                priority_responses: false,
            },
            net.backfill.take().expect("taken once"),
        );
        buffer.start(net.blocks.take().expect("taken once"));
        (mailbox, actor.start(self.app.clone(), buffer_mailbox, resolver))
    }

    fn start_consensus(&self, marshal: Marshal, net: &mut Channels) -> Handle<()> {
        let inline = Inline::new(self.context.child("app"), self.app.clone(), marshal, epocher());
        let page_cache = CacheRef::new(NZU16!(4096), NZUsize!(256));
        let config = simplex::Config {
            scheme: self.scheme(),
            elector: RoundRobin::<Sha256>::default(),
            blocker: net.oracle.clone(),
            automaton: inline.clone(),
            relay: inline.clone(),
            reporter: inline,
            track_historical_votes: false,
            strategy: Sequential,
            // config::SIGN_STATE names this folder
            partition: "consensus".into(),
            mailbox_size: NZUsize!(MAILBOX),
            epoch: Epoch::zero(),
            floor: simplex::Floor::Genesis(self.chain.spec.block.digest()),
            replay_buffer: NZUsize!(BUFFER),
            write_buffer: NZUsize!(BUFFER),
            page_cache,
            // A leader waits for the block time before it proposes, so every timeout counts from there.
            leader_timeout: self.block_time + Duration::from_millis(750),
            certification_timeout: self.block_time + Duration::from_millis(1500),
            timeout_retry: Duration::from_secs(1),
            view_retention: ViewDelta::new(256),
            skip: SkipPolicy::Enabled { timeout: self.block_time * 4 + Duration::from_secs(4), budget: SkipBudget::Participants },
            fetch_timeout: NZDuration!(Duration::from_secs(1)),
            fetch_retry_delay: Duration::from_millis(100),
            // A node that lacks a block fetches it by its certificate.
            forward: ForwardPolicy::Disabled,
        };
        let engine = simplex::Engine::new(self.context.child("simplex"), config);
        engine.start(net.votes.take().expect("taken once"), net.certificates.take().expect("taken once"), net.resolver.take().expect("taken once"))
    }
}

/// The two archives of finalized blocks; nothing is pruned, so a late node can fetch all.
struct Archives {
    finalizations: Finalizations,
    blocks: Blocks,
    page_cache: CacheRef,
}

impl Archives {
    async fn open(context: &Context, home: &Path) -> Result<Self, NodeFault> {
        let page_cache = CacheRef::new(NZU16!(4096), NZUsize!(512));
        let corrupt = |error: commonware_storage::archive::Error| NodeFault::Corrupt { path: home.join("data/chain"), message: error.to_string() };
        let finalizations = prunable::Archive::init(
            context.child("finalizations"),
            archive_config("finalizations", page_cache.clone(), Scheme::certificate_codec_config_unbounded()),
        )
        .await
        .map_err(corrupt)?;
        let blocks = prunable::Archive::init(context.child("blocks"), archive_config("blocks", page_cache.clone(), ())).await.map_err(corrupt)?;
        Ok(Self { finalizations, blocks, page_cache })
    }
}

fn archive_config<C>(name: &str, key_page_cache: CacheRef, codec_config: C) -> prunable::Config<FourCap, C> {
    prunable::Config {
        translator: FourCap,
        metadata_partition: format!("{name}-metadata"),
        key_partition: format!("{name}-keys"),
        key_page_cache,
        value_partition: format!("{name}-values"),
        compression: None,
        codec_config,
        items_per_section: NZU64!(1024),
        key_write_buffer: NZUsize!(BUFFER),
        value_write_buffer: NZUsize!(BUFFER),
        replay_buffer: NZUsize!(BUFFER),
    }
}

type Sender = lookup::Sender<PublicKey, Context>;
type Channel = (Sender, lookup::Receiver<PublicKey>);

/// The p2p network, not started yet, with its channels. The numbers are part of the protocol.
struct Channels {
    network: Option<Network>,
    oracle: Oracle,
    votes: Option<Channel>,
    certificates: Option<Channel>,
    resolver: Option<Channel>,
    blocks: Option<Channel>,
    backfill: Option<Channel>,
    gossip: Option<Channel>,
    /// Carries nothing: its sender is asked who is connected, without touching another channel's quota.
    presence: Channel,
}

impl Channels {
    fn open(context: &Context, home: &Path, config: &Config, spec: &ChainSpec, key: &PrivateKey) -> Result<Self, NodeFault> {
        let peers = tracked(&config.p2p.peers, &spec.validators, key).map_err(|message| NodeFault::Key { path: home.join(KEY_FILE), message })?;
        let (mut network, mut oracle) = lookup::Network::new(context.child("network"), p2p_config(config, spec, key));
        oracle.track(0, peers);
        let quota = Quota::per_second(NZU32!(MESSAGES_PER_SECOND));
        Ok(Self {
            votes: Some(network.register(0, quota)),
            certificates: Some(network.register(1, quota)),
            resolver: Some(network.register(2, quota)),
            blocks: Some(network.register(3, quota)),
            backfill: Some(network.register(4, quota)),
            gossip: Some(network.register(5, Quota::per_second(NZU32!(gossip::QUOTA)))),
            presence: network.register(6, quota),
            network: Some(network),
            oracle,
        })
    }
}

fn p2p_config(config: &Config, spec: &ChainSpec, key: &PrivateKey) -> lookup::Config<Cups<Sake<PrivateKey>, ChaCha20Poly1305>> {
    let validators = spec.validators.len() as u32;
    let payload = simplex::max_payload_size::<Scheme, Hash>(validators).max(marshal::max_payload_size::<Standard<Block>, Scheme>(validators, &()));
    let handshake = Cups::new(
        Sake { signer: key.clone(), synchrony_bound: Duration::from_secs(5), max_handshake_age: Duration::from_secs(10), version: sake::Version::V1 },
        cups::Version::V1,
    );
    let limit = NZUsize!(config.p2p.peers.len() + 1);
    let mut p2p = lookup::Config::local(
        handshake,
        &namespace("p2p", spec),
        config.p2p.listen,
        limit,
        max_message_size(&[payload, gossip::MAX_MESSAGE]),
        NZUsize!(MAILBOX),
    );
    // Who connects is known by its key. Its address is not: the kernel lets connections to 127.x.y.z come from 127.0.0.1.
    p2p.bypass_ip_check = true;
    p2p.allowed_handshake_rate_per_ip = Quota::per_second(NZU32!(1024));
    p2p.allowed_handshake_rate_per_subnet = Quota::per_second(NZU32!(1024));
    // One dial attempt per period, and a pause before the same peer is tried again: together they decide how soon nodes that start
    // at the same moment find each other.
    p2p.dial_frequency = Duration::from_millis(50);
    p2p.peer_connection_cooldown = Duration::from_millis(250);
    p2p
}

/// Validators are dialed by everybody; full nodes are accepted and served.
fn tracked(peers: &[Peer], validators: &Set<PublicKey>, key: &PrivateKey) -> Result<AddressableTrackedPeers<PublicKey>, String> {
    let me = key.public_key();
    let mut keyed = Vec::with_capacity(peers.len());
    for peer in peers {
        let public =
            super::decode::<PublicKey>(&peer.public_key.0).map_err(|_| format!("p2p.peers: {} is no ed25519 public key", peer.public_key))?;
        keyed.push((public, PeerAddress::from(peer.address)));
    }
    if validators.len() > 1 && !keyed.iter().any(|(public, _)| *public == me) {
        return Err(format!("this key's public key {me} is not in p2p.peers"));
    }
    let (primary, secondary): (Vec<_>, Vec<_>) = keyed.into_iter().partition(|(public, _)| validators.position(public).is_some());
    Ok(AddressableTrackedPeers::new(Map::from_iter_dedup(primary), Map::from_iter_dedup(secondary)))
}

fn connected(presence: &Sender) -> Vec<PublicKey> {
    let mut presence = presence.clone();
    presence.check(Recipients::All).map(|checked| checked.recipients()).unwrap_or_default()
}

/// The p2p crate announces no connections, hence the short poll; it ends with the first quorum.
async fn wait_for_quorum(context: &Context, net: &Channels, validators: &Set<PublicKey>, me: &PublicKey) {
    let quorum = validators.len() - (validators.len() - 1) / 3;
    let deadline = context.current() + QUORUM_WAIT;
    loop {
        let there = connected(&net.presence.0).iter().chain([me]).filter(|peer| validators.position(peer).is_some()).count();
        if there >= quorum || context.current() >= deadline {
            info!(there, quorum, "consensus starts");
            return;
        }
        context.sleep(Duration::from_millis(20)).await;
    }
}

/// One epoch for ever: the validator set does not change.
fn epocher() -> FixedEpocher {
    FixedEpocher::new(NZU64!(u64::MAX))
}

fn namespace(what: &str, spec: &ChainSpec) -> Vec<u8> {
    [format!("devchain/{what}/v1/").as_bytes(), spec.hash.as_ref()].concat()
}

fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, NodeFault> {
    TcpListener::bind(address).map_err(|source| NodeFault::Port { what, address, source })
}

/// One process per home: two would sign with one key.
pub(super) fn lock(home: &Path) -> Result<std::fs::File, NodeFault> {
    let path = home.join("lock");
    let io = |source| NodeFault::Io { what: format!("open {}", path.display()), source };
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(NodeFault::Busy { path: home.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(io(source)),
    }
}

struct Signals {
    term: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, NodeFault> {
        use tokio::signal::unix::{SignalKind, signal};
        let io = |source| NodeFault::Io { what: "listen for signals".into(), source };
        Ok(Self { term: signal(SignalKind::terminate()).map_err(io)?, interrupt: signal(SignalKind::interrupt()).map_err(io)? })
    }

    async fn recv(&mut self) -> &'static str {
        futures::select! {
            _ = self.term.recv().fuse() => "SIGTERM",
            _ = self.interrupt.recv().fuse() => "SIGINT",
        }
    }
}
