//! GenerateGenesis: from one `init` job's folder to shared files and a home for every node.
//!
//! ```text
//! staging/work/template/   what `init` made, now or for an earlier devnet of the binary (goes away)
//! staging/shared/          genesis.json, mnemonic.txt, templates/*.toml
//! staging/nodes/<name>/    config/*, data/priv_validator_state.json
//! ```
//! Nothing here reads a clock or draws a random number: the same request gives the same bytes.

use crate::{
    binary::{self, Chain},
    config::{ConfigError, Network, Templates},
    fork::{self, Base, ForkError, Joining},
    genesis::{self, Additions, GenesisError},
    gentx::{self, Declaration},
    keys::{CometKey, KeyError, Purpose, Wallet, bech32_address},
    network::Profile,
    plan,
    stream::Edit,
    template::{self, TEMPLATE},
};
use dvb_plugin_sdk::{StagingError, pb, sha256_file, sha256_hex, write_staged};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

const INIT_JOB: &str = "init";
/// Below the shared folder.
pub const TEMPLATES: &str = "templates";
const GENESIS: &str = "shared/genesis.json";
/// A fork's before a patch of it.
const UNPATCHED: &str = "work/unpatched.json";
/// The same, below the shared folder.
pub const SHARED_GENESIS: &str = "genesis.json";
const MNEMONIC: &str = "shared/mnemonic.txt";

#[derive(Debug, thiserror::Error)]
pub enum HomesError {
    #[error("the chain's `init` {0}")]
    Init(String),
    #[error("spec.genesis.patch {0}")]
    Patch(String),
    #[error("network profile `{network}` {reason}")]
    Profile { network: String, reason: String },
    #[error("spec.genesis.time is missing")]
    NoGenesisTime,
    #[error("cannot read {path}: {reason}")]
    Read { path: PathBuf, reason: String },
    #[error("cannot link {path} to the shared genesis: {source}")]
    Link { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Staging(#[from] StagingError),
    #[error(transparent)]
    Genesis(#[from] GenesisError),
    #[error(transparent)]
    Fork(#[from] ForkError),
    #[error(transparent)]
    Keys(#[from] KeyError),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// The `init` job as long as its work is not there; then everything.
pub fn generate(request: &pb::GenerateGenesisRequest, chain: &Chain, profile: Profile) -> Result<pb::GenerateGenesisResponse, HomesError> {
    let devnet = request.devnet.clone().unwrap_or_default();
    let staging = Path::new(&request.staging_dir);
    match binary::outcome(&request.job_results, INIT_JOB) {
        None if template::unpack(staging, &devnet.chain_id)? => Generation::new(request, &devnet, chain, profile)?.run(),
        None => Ok(pb::GenerateGenesisResponse { jobs: vec![init_job(&devnet, &request.staging_dir)], ..Default::default() }),
        Some(result) if result.exit_code == Some(0) => {
            template::pack(staging, &devnet.chain_id)?;
            Generation::new(request, &devnet, chain, profile)?.run()
        }
        Some(_) => Err(HomesError::Init(binary::describe(&request.job_results, INIT_JOB))),
    }
}

/// The p2p ids of nodes, in their order.
pub fn node_ids(devnet: &pb::DevnetContext, nodes: &[pb::PlacedNode]) -> Vec<String> {
    nodes.iter().map(|node| node_key(devnet, node, Purpose::Node).node_id()).collect()
}

/// The address under which a validator signs blocks; none for other nodes, and where the chain's prefix is not known.
pub fn consensus_address(devnet: &pb::DevnetContext, node: &pb::PlacedNode, chain: &Chain) -> Option<String> {
    let signs = node.role == "validator" && !chain.prefixes.consensus.is_empty();
    signs.then(|| bech32_address(&chain.prefixes.consensus, &node_key(devnet, node, Purpose::Consensus).address()).ok())?
}

/// The keys of a node and its fresh sign state, by path below the home. A full node has a consensus key as well, since
/// CometBFT wants one; no genesis transaction names it.
fn secret_files(devnet: &pb::DevnetContext, node: &pb::PlacedNode) -> [(&'static str, Vec<u8>); 3] {
    [
        ("config/priv_validator_key.json", pretty(&node_key(devnet, node, Purpose::Consensus).priv_validator_json())),
        ("config/node_key.json", pretty(&node_key(devnet, node, Purpose::Node).node_key_json())),
        ("data/priv_validator_state.json", pretty(&json!({"height": "0", "round": 0, "step": 0}))),
    ]
}

/// What a full node lacks that joined after the genesis was made; nothing for a home that is there. Never for a validator: its
/// sign state must not begin anew. The genesis is linked, whatever its size.
pub fn late_files(devnet: &pb::DevnetContext, node: &pb::PlacedNode) -> Vec<pb::PlannedFile> {
    let (home, genesis) = (Path::new(&node.home_dir), "config/genesis.json");
    if node.role == "validator" || home.join(genesis).exists() {
        return Vec::new();
    }
    let file = |name: &str| pb::PlannedFile { path: home.join(name).to_string_lossy().into_owned(), ..pb::PlannedFile::default() };
    let secret = |(name, content)| pb::PlannedFile { content, mode: 0o600, ..file(name) };
    // The genesis comes last: where it is, the rest is.
    let genesis = pb::PlannedFile { shared: SHARED_GENESIS.into(), ..file(genesis) };
    secret_files(devnet, node).into_iter().map(secret).chain([genesis]).collect()
}

fn init_job(devnet: &pb::DevnetContext, staging: &str) -> pb::Job {
    let home = format!("{staging}/{TEMPLATE}");
    binary::job(INIT_JOB, &devnet.binary_path, &["init", "template", "--chain-id", &devnet.chain_id], &home)
}

fn node_key(devnet: &pb::DevnetContext, node: &pb::PlacedNode, purpose: Purpose) -> CometKey {
    CometKey::derive(&devnet.seed, &devnet.chain_id, purpose, &node.role, node.index)
}

/// One run of GenerateGenesis after `init`.
struct Generation<'a> {
    devnet: &'a pb::DevnetContext,
    nodes: &'a [pb::PlacedNode],
    /// An exported state; empty: the chain's default.
    base: &'a Path,
    chain: &'a Chain,
    staging: PathBuf,
    wallet: Wallet,
    /// The network's settings of nodes, JSON.
    settings: String,
    patches: Vec<Value>,
    node_ids: Vec<String>,
    files: Vec<pb::StagedFile>,
}

impl<'a> Generation<'a> {
    fn new(request: &'a pb::GenerateGenesisRequest, devnet: &'a pb::DevnetContext, chain: &'a Chain, profile: Profile) -> Result<Self, HomesError> {
        let patch = plan::parse_patch(&devnet.genesis_patch).map_err(HomesError::Patch)?;
        Ok(Self {
            devnet,
            nodes: &request.nodes,
            base: Path::new(&request.base_genesis),
            chain,
            staging: PathBuf::from(&request.staging_dir),
            wallet: Wallet::from_seed(&devnet.seed, &devnet.chain_id)?,
            settings: profile.settings(),
            patches: profile.genesis.into_iter().chain(patch).collect(),
            node_ids: node_ids(devnet, &request.nodes),
            files: Vec::new(),
        })
    }

    fn run(mut self) -> Result<pb::GenerateGenesisResponse, HomesError> {
        if self.devnet.genesis_time.is_empty() {
            return Err(HomesError::NoGenesisTime);
        }
        let (denom, accounts) = if self.base.as_os_str().is_empty() { self.default_genesis()? } else { self.forked_genesis()? };
        let genesis_sha256 = self.files[0].sha256.clone();
        self.stage(MNEMONIC, format!("{}\n", self.wallet.mnemonic()).as_bytes(), 0o600)?;
        self.homes(&denom)?;
        Ok(pb::GenerateGenesisResponse {
            genesis_path: GENESIS.into(),
            genesis_sha256,
            files: self.files,
            accounts,
            mnemonic_path: MNEMONIC.into(),
            ..pb::GenerateGenesisResponse::default()
        })
    }

    /// The chain's default, completed. Stages it, and answers the staked token and the accounts.
    fn default_genesis(&mut self) -> Result<(String, Vec<pb::Account>), HomesError> {
        let template = read_json(&self.staging.join(TEMPLATE).join("config/genesis.json"))?;
        let denom = genesis::bond_denom(&template, &self.patches)?;
        let staking = template.pointer("/app_state/staking/params").and_then(Value::as_object).cloned().unwrap_or_default();
        let gentxs = self.gentxs(&denom, &genesis::commission(&staking), |_| 0, gentx::GAS)?;
        let (operators, accounts) = (self.operators()?, self.accounts()?);
        let funded: Vec<String> = operators.into_iter().map(|(_, address)| address).chain(accounts.iter().cloned()).collect();
        let (chain_id, genesis_time) = (self.devnet.chain_id.as_str(), self.devnet.genesis_time.as_str());
        let additions = Additions { chain_id, genesis_time, denom: &denom, funded: &funded, gentxs, patches: &self.patches };
        let document = genesis::complete(template, additions)?;
        self.stage(GENESIS, &pretty(&document), 0o644)?;
        let balance = format!("{}{denom}", genesis::BALANCE);
        Ok((denom, named(accounts, |_| balance.clone())))
    }

    /// The state to begin with, under our validators. It is never held as a whole.
    fn forked_genesis(&mut self) -> Result<(String, Vec<pb::Account>), HomesError> {
        let (operators, accounts) = (self.operators()?, self.accounts()?);
        let funded: Vec<String> = operators.iter().map(|(_, address)| address).chain(&accounts).cloned().collect();
        let base = Base::read(self.base, &self.chain.prefixes.account, &funded.iter().cloned().collect())?;
        base.refuse_keys_of(&operators)?;
        let denom = base.bond_denom(&self.patches)?;
        let gentxs = self.gentxs(&denom, &base.commission(), |index| base.account_number(index), base.gas())?;
        let reply = named(accounts, |address| base.balance(address, &denom));
        let (chain_id, genesis_time) = (self.devnet.chain_id.as_str(), self.devnet.genesis_time.as_str());
        let (genesis, unpatched) = (self.staging.join(GENESIS), self.staging.join(UNPATCHED));
        base.write(&genesis, &denom, Joining { chain_id, genesis_time, funded: &funded, gentxs })?;
        for patch in &self.patches {
            std::fs::create_dir_all(self.staging.join("work"))
                .and_then(|()| std::fs::rename(&genesis, &unpatched))
                .map_err(|source| ForkError::Io { action: "rename", path: genesis.clone(), source })?;
            fork::rewrite(&unpatched, &genesis, &mut Edit::merge(patch.clone()))?;
        }
        if self.patches.iter().any(|patch| patch.pointer("/app_state/bank").is_some())
            && let Err(ForkError::Supply { denom, says, sum }) = Base::read(&genesis, &self.chain.prefixes.account, &BTreeSet::new())
        {
            return Err(GenesisError::Supply { denom, says, sum }.into());
        }
        let sha256 = sha256_file(&genesis).map_err(|source| ForkError::Io { action: "read", path: genesis, source })?;
        self.files.push(pb::StagedFile { path: GENESIS.into(), sha256 });
        Ok((denom, reply))
    }

    fn accounts(&self) -> Result<Vec<String>, KeyError> {
        (0..self.devnet.accounts).map(|i| bech32_address(&self.chain.prefixes.account, &self.wallet.account(i)?.address())).collect()
    }

    fn validators(&self) -> impl Iterator<Item = (&pb::PlacedNode, &String)> {
        self.nodes.iter().zip(&self.node_ids).filter(|(node, _)| node.role == "validator")
    }

    /// The validators' names and their operators' addresses.
    fn operators(&self) -> Result<Vec<(String, String)>, KeyError> {
        let operator = |node: &pb::PlacedNode| {
            let address = self.wallet.operator(node.index)?.address();
            Ok((node.name.clone(), bech32_address(&self.chain.prefixes.account, &address)?))
        };
        self.validators().map(|(node, _)| operator(node)).collect()
    }

    /// One for each validator. `number`: of the account of the validator that is the n-th here.
    fn gentxs(&self, denom: &str, commission: &str, number: impl Fn(u64) -> u64, gas: u64) -> Result<Vec<Value>, KeyError> {
        let gentx = |(index, (node, id)): (u64, (&pb::PlacedNode, &String))| {
            let declaration = Declaration {
                chain_id: &self.devnet.chain_id,
                moniker: &node.name,
                memo: id,
                denom,
                stake: genesis::STAKE,
                consensus_key: node_key(self.devnet, node, Purpose::Consensus).public(),
                commission,
                account_prefix: &self.chain.prefixes.account,
                validator_prefix: &self.chain.prefixes.validator,
                account_number: number(index),
                gas,
            };
            gentx::signed(&declaration, &self.wallet.operator(node.index)?)
        };
        (0..).zip(self.validators()).map(gentx).collect()
    }

    fn homes(&mut self, denom: &str) -> Result<(), HomesError> {
        let from_init = self.staging.join(TEMPLATE).join("config");
        let mut templates = Templates::read(&from_init)?;
        templates.prepare(denom);
        templates.merge(&self.settings).map_err(|reason| HomesError::Profile { network: self.devnet.network.clone(), reason })?;
        for (name, text) in templates.texts() {
            self.stage(&format!("shared/{TEMPLATES}/{name}"), text.as_bytes(), 0o644)?;
        }
        let others = other_files(&from_init)?;
        let node_ids = std::mem::take(&mut self.node_ids);
        let network = Network { chain_id: &self.devnet.chain_id, block_time_ms: self.devnet.block_time_ms, nodes: self.nodes, node_ids: &node_ids };
        for index in 0..self.nodes.len() {
            self.home(&templates, &network, index, &others)?;
        }
        Ok(())
    }

    fn home(&mut self, templates: &Templates, network: &Network<'_>, index: usize, others: &[(String, Vec<u8>)]) -> Result<(), HomesError> {
        let node = &self.nodes[index];
        let home = format!("nodes/{}", node.name);
        let overrides = self.devnet.overrides.get(&node.name).map(|o| o.config.as_str()).unwrap_or_default();
        for (name, text) in templates.render(network, index, overrides)? {
            self.stage(&format!("{home}/config/{name}"), text.as_bytes(), 0o644)?;
        }
        for (name, bytes) in others {
            self.stage(&format!("{home}/config/{name}"), bytes, 0o644)?;
        }
        for (name, bytes) in secret_files(self.devnet, node) {
            self.stage(&format!("{home}/{name}"), &bytes, 0o600)?;
        }
        self.share_genesis(&format!("{home}/config/genesis.json"))
    }

    /// One genesis on disk for all nodes, however large it is: a node only reads it. Where links are not possible, a copy.
    fn share_genesis(&self, relative: &str) -> Result<(), HomesError> {
        let (from, path) = (self.staging.join(GENESIS), self.staging.join(relative));
        let linked = std::fs::hard_link(&from, &path).or_else(|_| std::fs::copy(&from, &path).map(|_| ()));
        linked.map_err(|source| HomesError::Link { path, source })
    }

    /// Writes the file and returns its digest.
    fn stage(&mut self, relative: &str, bytes: &[u8], mode: u32) -> Result<String, StagingError> {
        let staged = write_staged(&self.staging, relative, bytes, mode)?;
        let digest = staged.sha256.clone();
        self.files.push(staged);
        Ok(digest)
    }
}

fn named(addresses: Vec<String>, balance: impl Fn(&str) -> String) -> Vec<pb::Account> {
    let named = |(i, address): (usize, String)| pb::Account { name: format!("account:{i}"), balance: balance(&address), address };
    addresses.into_iter().enumerate().map(named).collect()
}

/// Files that the chain's `init` left beside those we make: a chain may want further ones.
fn other_files(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, HomesError> {
    const OURS: [&str; 6] = ["config.toml", "app.toml", "client.toml", "genesis.json", "node_key.json", "priv_validator_key.json"];
    let failed = |path: &Path, e: io::Error| HomesError::Read { path: path.to_owned(), reason: e.to_string() };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| failed(dir, e))? {
        let path = entry.map_err(|e| failed(dir, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && !OURS.contains(&name.as_str()) {
            found.push((name, std::fs::read(&path).map_err(|e| failed(&path, e))?));
        }
    }
    found.sort();
    Ok(found)
}

fn read_json(path: &Path) -> Result<Value, HomesError> {
    let failed = |reason: String| HomesError::Read { path: path.to_owned(), reason };
    serde_json::from_slice(&std::fs::read(path).map_err(|e| failed(e.to_string()))?).map_err(|e| failed(e.to_string()))
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("a JSON value has only string keys");
    bytes.push(b'\n');
    bytes
}

/// The digest that [`crate::launch`] compares files by.
pub(crate) fn differs(path: &Path, content: &[u8]) -> bool {
    std::fs::read(path).map_or(true, |now| sha256_hex(&now) != sha256_hex(content))
}
