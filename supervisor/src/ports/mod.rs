//! Addresses and ports: leased in the store, claimed machine-wide, probed before each start, with thieves named.
//!
//! ```text
//! place ──► picture of the machine ──► decide (pure) ──► claims (abstract sockets) ──► leases (one commit)
//!             ▲                                             │ held meanwhile             │ leased meanwhile
//!             └─────────────────────────────────────────────┴────────────────────────────┘
//! ```
//!
//! Leases make two devnets of one home differ and survive restarts; claims make two homes of one machine differ and live as long
//! as the daemon. A claim that another home took while this daemon was down is a conflict that a person settles: moving a devnet
//! would break configs that name its addresses.
//!
//! Ports whose plan says so are parked while their node does not run (`parks`): nobody else can take them then.

mod claims;
mod layout;
mod lendable;
mod machine;
mod parks;
mod probe;
mod states;
mod subnet;

pub use lendable::PORTS_RESERVED;
pub use states::PortLease;
pub use subnet::Subnet;

use crate::{
    config::Home,
    holders::Holder,
    keeper::Keeper,
    model::{
        Condition, Devnet, Fault, FaultCode, Key, Kind, Lease, LeaseSpec, Meta, Node, NodeName, Object, PlacedNode, PlannedNode, PlannedPort, Uid,
    },
    store::{Selector, Store, StoreError, Write},
    sys::Clock,
};
use claims::{ClaimError, Claims, Owner, port_claim, subnet_claim};
use layout::{Layout, LayoutError, Request};
use machine::{Ephemeral, Machine, claim_holder};
use parks::{Parks, Place};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, SocketAddrV4},
    sync::Arc,
};

/// How often `place` starts anew because somebody else was quicker.
const ATTEMPTS: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum PortError {
    #[error("port {port} ({name}) of {node} on {address} is taken by {holder}")]
    Taken { node: String, name: String, address: String, port: u16, holder: Holder },
    #[error("port {port} ({name}) of {node} is leased to devnet {by}")]
    Leased { node: String, name: String, port: u16, by: String },
    #[error("port {port} ({name}) of {node} is still held for {by}, which is being removed")]
    Staying { node: String, name: String, port: u16, by: String },
    #[error("{what} of devnet {devnet} is claimed by another daemon: {holder}")]
    Claimed { devnet: String, what: String, holder: Holder },
    #[error("port {port} on {address} is planned twice; the second time as {name} of {node}")]
    Twice { node: String, name: String, port: u16, address: String },
    #[error("no loopback subnet in 127.64.0.0/10 is free for devnet {devnet}")]
    NoSubnet { devnet: String },
    #[error("no port outside the kernel's ephemeral range is free for devnet {devnet}")]
    NoPort { devnet: String },
    #[error("devnet {devnet} has {nodes} nodes; a loopback subnet addresses 254")]
    TooMany { devnet: String, nodes: usize },
    #[error("cannot bind port {port} ({name}) of {node} on {address}: {source}")]
    Bind { node: String, name: String, address: String, port: u16, source: io::Error },
    #[error("{node} has no usable number for its port {name}")]
    NoNumber { node: String, name: String },
    #[error("cannot {action}: {source}")]
    Io { action: String, source: io::Error },
    #[error("others kept taking the addresses chosen for devnet {devnet}")]
    Contended { devnet: String },
    #[error("cannot lease addresses: {0}")]
    Store(#[from] StoreError),
}

/// Where the nodes of a devnet run, in the order of the plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    /// `127.64.3.0/24`; none with `addresses: ports`.
    pub subnet: Option<String>,
    pub nodes: Vec<PlacedNode>,
}

/// All leases and claims of one home.
pub struct Ports {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// Tells this home from others on the machine.
    home_id: String,
    claims: Claims,
    parks: Arc<Parks>,
    /// One placement at a time: each sees the leases of the one before.
    placing: tokio::sync::Mutex<()>,
}

impl Ports {
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, home_id: String) -> Self {
        Self { store, clock, home_id, claims: Claims::default(), parks: Arc::default(), placing: tokio::sync::Mutex::default() }
    }

    /// With ports that are parked over any death of the daemon.
    pub fn with_keeper(self, keeper: Keeper) -> Self {
        Self { parks: Arc::new(Parks::with(keeper)), ..self }
    }

    /// Gives each node its address and ports. Idempotent: what is leased stays; leases of nodes that left the plan go back as soon as
    /// the store has no such node any more.
    pub async fn place(&self, devnet: &Devnet, home: &Home, nodes: &[PlannedNode]) -> Result<Placement, PortError> {
        let _one = self.placing.lock().await;
        let owner = (devnet.metadata.namespace.clone(), devnet.metadata.name.clone());
        let mut machine = on_blocking_thread(Machine::read).await??;
        for _ in 0..ATTEMPTS {
            let leases = self.leases(None).await?;
            let staying = self.staying(&owner, nodes).await?;
            let before = self.claims.of(&owner);
            let foreign: BTreeSet<String> = machine.claims.difference(&before).cloned().collect();
            let request = Request {
                home_id: &self.home_id,
                namespace: &owner.0,
                devnet: &owner.1,
                addresses: devnet.spec.addresses,
                localhost: devnet.spec.localhost(),
                nodes,
                leases: &leases,
                machine: &machine,
                foreign: &foreign,
                staying: &staying,
            };
            let layout = match layout::decide(&request) {
                Ok(layout) => layout,
                Err(error) => return Err(explain(error, &owner).await),
            };
            match self.claims.take(&owner, &layout.claims) {
                Ok(()) => {}
                Err(ClaimError::Held(name)) => {
                    machine.claims.insert(name);
                    continue;
                }
                Err(ClaimError::Io(name, source)) => return Err(PortError::Io { action: format!("claim {name}"), source }),
            }
            let changes = self.changes(&owner, &leases, &layout);
            let outcome = if changes.is_empty() { Ok(0) } else { self.store.commit(changes).await };
            match outcome {
                Ok(_) => {
                    self.claims.keep(&owner, &layout.claims);
                    return Ok(placement(home, &owner, nodes, layout));
                }
                Err(error) => {
                    self.claims.keep(&owner, &before);
                    if !matches!(error, StoreError::Exists(_) | StoreError::Conflict { .. }) {
                        return Err(error.into());
                    }
                }
            }
        }
        Err(PortError::Contended { devnet: format!("{}/{}", owner.0, owner.1) })
    }

    /// Claims what the store's leases say, and takes back the ports that are parked, once, when the daemon starts. Each conflict is its own error; the rest is claimed all the same.
    pub async fn reclaim(&self) -> Result<Vec<PortError>, PortError> {
        let mut wanted: BTreeMap<Owner, BTreeSet<String>> = BTreeMap::new();
        let leases = self.leases(None).await?;
        let (parks, leased) = (self.parks.clone(), leases.iter().filter_map(|lease| parkable(lease)).collect());
        on_blocking_thread(move || parks.recall(&leased)).await?;
        for lease in leases {
            let owner = (lease.metadata.namespace.clone(), lease.spec.devnet_ref.clone());
            wanted.entry(owner).or_default().extend(claim_of(&lease));
        }
        let mut conflicts = Vec::new();
        for (owner, names) in wanted {
            for name in names {
                match self.claims.take(&owner, &BTreeSet::from([name])) {
                    Ok(()) => {}
                    Err(ClaimError::Held(name)) => conflicts.push(explain(LayoutError::Foreign(name), &owner).await),
                    Err(ClaimError::Io(name, source)) => conflicts.push(PortError::Io { action: format!("claim {name}"), source }),
                }
            }
        }
        Ok(conflicts)
    }

    /// Drops the claims and parked ports of a devnet that is deleted; its leases go with its row in the store.
    pub async fn release(&self, namespace: &str, devnet: &str) -> Result<(), PortError> {
        let _one = self.placing.lock().await;
        let (namespace, devnet) = (namespace.to_owned(), devnet.to_owned());
        self.claims.keep(&(namespace.clone(), devnet.clone()), &BTreeSet::new());
        self.drop_parks(move |_, place| is_in(place, &namespace, &devnet)).await
    }

    /// What gives back the leases of one node, to go into the commit that removes it; `settle` follows.
    pub async fn leases_back(&self, namespace: &str, devnet: &str, node: &str) -> Result<Vec<Write>, PortError> {
        let leases = self.leases(Some(Selector::in_devnet(Kind::Lease, namespace, devnet))).await?;
        let of_node = leases.into_iter().filter(|lease| is_address(lease) && lease.spec.node_ref.as_deref() == Some(node));
        Ok(of_node.map(|lease| Write::Delete { key: Object::Lease(lease).key(), expect: crate::store::Expect::Any }).collect())
    }

    /// Drops the claims and parked ports of a devnet that no lease of it needs any more.
    pub async fn settle(&self, namespace: &str, devnet: &str) -> Result<(), PortError> {
        let _one = self.placing.lock().await;
        let leases = self.leases(Some(Selector::in_devnet(Kind::Lease, namespace, devnet))).await?;
        self.claims.keep(&(namespace.to_owned(), devnet.to_owned()), &leases.iter().filter_map(|lease| claim_of(lease)).collect());
        let leased: BTreeMap<SocketAddrV4, Place> = leases.iter().filter_map(|lease| parkable(lease)).collect();
        let (namespace, devnet) = (namespace.to_owned(), devnet.to_owned());
        self.drop_parks(move |address, place| is_in(place, &namespace, &devnet) && leased.get(address) != Some(place)).await
    }

    /// Binds each port for a moment, as the node will, but for those that are parked for it. Call it just before the start: a port that
    /// is taken names its holder.
    pub async fn probe(&self, node: &Node, ports: &[PlannedPort]) -> Result<(), PortError> {
        let parked = self.parks.all();
        let ours = |address: SocketAddrV4| parked.get(&address) == Some(&place(node));
        let open = ports.iter().filter(|port| port.udp || !socket_address(node, port).is_some_and(ours));
        let ports: Vec<PlannedPort> = open.cloned().collect();
        probe::probe(node, &ports).await
    }

    /// The condition `PORTS_RESERVED` of a node that has numbers of which the kernel may give one away while the node does not run.
    pub fn lendable(&self, node: &Node, ports: &[PlannedPort]) -> Option<Condition> {
        if ports.is_empty() { None } else { lendable::condition(node, ports, &Ephemeral::read()) }
    }

    /// Holds the ports of a node that does not run, as far as `ports` asks for it, until `unpark`. Idempotent. False: some could not be
    /// had, which is to be tried again; a stranger who has one is named by the node's next start.
    pub async fn park(&self, node: &Node, ports: &[PlannedPort]) -> Result<bool, PortError> {
        let place = place(node);
        let mut wanted: BTreeSet<SocketAddrV4> =
            ports.iter().filter(|port| port.park && !port.udp).filter_map(|port| socket_address(node, port)).collect();
        if self.parks.are_held(&place, &wanted) {
            return Ok(true);
        }
        // Whoever gives leases back does so under this lock too, or has said so in the store before: nothing is parked after it.
        let _one = self.placing.lock().await;
        let devnet = self.store.get(&Key::devnet(&node.metadata.namespace, &node.spec.devnet_ref)).await?;
        let stays = devnet.is_some_and(|devnet| devnet.meta().deleted_at.is_none());
        let leases = self.leases(Some(Selector::in_devnet(Kind::Lease, &node.metadata.namespace, &node.spec.devnet_ref))).await?;
        let leased: BTreeMap<SocketAddrV4, Place> = leases.iter().filter_map(|lease| parkable(lease)).collect();
        wanted.retain(|address| stays && leased.get(address) == Some(&place));
        let parks = self.parks.clone();
        let failed = on_blocking_thread(move || parks.park(&place, &wanted)).await?;
        for (address, error) in &failed {
            tracing::warn!(node = %node.metadata.name, %address, %error, "the port is not held while its node does not run");
        }
        Ok(failed.is_empty())
    }

    /// What lets go of what is parked for this node when it is called, just before the fork: nobody else can be quicker than the program
    /// itself. It may block.
    pub fn unpark(&self, node: &Node) -> impl FnOnce() + Send + 'static {
        let (parks, place) = (self.parks.clone(), place(node));
        move || parks.drop_where(|_, holder| *holder == place)
    }

    /// Lets go of all that is parked, for a daemon that ends with its nodes.
    pub async fn unpark_all(&self) -> Result<(), PortError> {
        self.drop_parks(|_, _| true).await
    }

    async fn drop_parks(&self, goes: impl Fn(&SocketAddrV4, &Place) -> bool + Send + 'static) -> Result<(), PortError> {
        if !self.parks.all().iter().any(|(address, place)| goes(address, place)) {
            return Ok(());
        }
        let parks = self.parks.clone();
        on_blocking_thread(move || parks.drop_where(goes)).await
    }

    /// Each leased port and what is there now, for `dvbctl ports`. None takes all namespaces, or all devnets.
    pub async fn states(&self, namespace: Option<&str>, devnet: Option<&str>) -> Result<Vec<PortLease>, PortError> {
        let selector = Selector { namespace: namespace.map(Into::into), devnet: devnet.map(Into::into), ..Selector::kind(Kind::Lease) };
        let leases = self.leases(Some(selector)).await?;
        let selector = Selector { namespace: namespace.map(Into::into), devnet: devnet.map(Into::into), ..Selector::kind(Kind::Node) };
        let (nodes, _) = self.store.list(&selector).await?;
        let nodes: Vec<Arc<Node>> = nodes.into_iter().filter_map(|object| object.try_into().ok()).collect();
        let parked = self.parks.all();
        on_blocking_thread(move || states::states(&leases, &nodes, &parked)).await?
    }

    async fn leases(&self, selector: Option<Selector>) -> Result<Vec<Arc<Lease>>, PortError> {
        let (objects, _) = self.store.list(&selector.unwrap_or_else(|| Selector::kind(Kind::Lease))).await?;
        Ok(objects.into_iter().filter_map(|object| object.try_into().ok()).collect())
    }

    /// Nodes that there are and that the plan does not name.
    async fn staying(&self, owner: &Owner, nodes: &[PlannedNode]) -> Result<BTreeSet<String>, PortError> {
        let planned: BTreeSet<String> = nodes.iter().map(|node| NodeName::new(&owner.1, &node.name).to_string()).collect();
        let (objects, _) = self.store.list(&Selector::in_devnet(Kind::Node, &owner.0, &owner.1)).await?;
        Ok(objects.into_iter().map(|object| object.meta().name.clone()).filter(|name| !planned.contains(name)).collect())
    }

    /// What brings the store from `leases` to `layout`; leases of other sorts are left alone.
    fn changes(&self, owner: &Owner, leases: &[Arc<Lease>], layout: &Layout) -> Vec<Write> {
        let own = leases.iter().filter(|lease| lease.metadata.namespace == owner.0 && lease.spec.devnet_ref == owner.1 && is_address(lease));
        let own: BTreeMap<&str, &Arc<Lease>> = own.map(|lease| (lease.metadata.name.as_str(), lease)).collect();
        let gone = own.iter().filter(|(name, _)| !layout.leases.contains_key(**name));
        let mut writes: Vec<Write> =
            gone.map(|(_, lease)| Write::Delete { key: Object::Lease((*lease).clone()).key(), expect: crate::store::Expect::Any }).collect();
        for (name, spec) in &layout.leases {
            match own.get(name.as_str()) {
                Some(lease) if lease.spec == *spec => {}
                Some(lease) => writes.push(Write::update(Lease { metadata: lease.metadata.clone(), spec: spec.clone() })),
                None => writes.push(Write::create(self.new_lease(owner, name, spec))),
            }
        }
        writes
    }

    fn new_lease(&self, owner: &Owner, name: &str, spec: &LeaseSpec) -> Lease {
        let now = self.clock.now();
        let uid = Uid::from_uuid(self.clock.fresh_id());
        let metadata =
            Meta { name: name.to_owned(), namespace: owner.0.clone(), uid, generation: 1, created_at: now, updated_at: now, ..Meta::default() };
        Lease { metadata, spec: spec.clone() }
    }
}

impl PortError {
    /// The same as the one shape in which errors leave the daemon.
    pub fn fault(&self) -> Fault {
        let message = self.to_string();
        match self {
            Self::Taken { node, holder, .. } => {
                let mend = match holder {
                    Holder::Process { pid, program } => format!("end {program} (kill {pid}), or give that program another port"),
                    Holder::Hidden => "find the holder as root: ss -antup".to_owned(),
                    Holder::TimeWait => "wait: the kernel forgets them within a minute".to_owned(),
                };
                Fault::new(FaultCode::PortBusy, message).retriable().about(node).remedy(mend)
            }
            Self::Leased { node, by, .. } => {
                Fault::new(FaultCode::PortBusy, message).about(node).remedy(format!("choose another number, or delete devnet {by}"))
            }
            Self::Claimed { devnet, .. } => Fault::new(FaultCode::SubnetBusy, message)
                .retriable()
                .about(devnet)
                .remedy("stop that daemon, or delete this devnet and create it again: it then gets another subnet"),
            Self::Staying { node, by, .. } => {
                Fault::new(FaultCode::PortBusy, message).retriable().about(node).remedy(format!("wait: it goes on when {by} is gone"))
            }
            Self::NoSubnet { devnet } | Self::Contended { devnet } => {
                Fault::new(FaultCode::SubnetBusy, message).retriable().about(devnet).remedy("delete devnets that are no longer used")
            }
            Self::NoPort { devnet } => Fault::new(FaultCode::PortBusy, message)
                .retriable()
                .about(devnet)
                .remedy("delete devnets that are no longer used, or narrow net.ipv4.ip_local_port_range"),
            Self::TooMany { devnet, .. } => Fault::new(FaultCode::InvalidSpec, message).about(devnet).remedy("ask for fewer nodes"),
            Self::Twice { node, .. } | Self::NoNumber { node, .. } => {
                Fault::new(FaultCode::InvalidSpec, message).about(node).remedy("give each port of the node a number of its own")
            }
            Self::Bind { node, .. } => Fault::new(FaultCode::PortBusy, message).about(node),
            Self::Io { .. } | Self::Store(_) => Fault::new(FaultCode::Internal, message).retriable(),
        }
    }

    fn proc(file: &str, error: procfs::ProcError) -> Self {
        Self::Io { action: format!("read {file}"), source: io::Error::other(error) }
    }
}

/// Leases of this module; other modules lease other things.
fn is_address(lease: &Lease) -> bool {
    ["subnet/", "port/", "address/"].iter().any(|sort| lease.metadata.name.starts_with(sort))
}

fn place(node: &Node) -> Place {
    (node.metadata.namespace.clone(), node.metadata.name.clone())
}

fn is_in((of, node): &Place, namespace: &str, devnet: &str) -> bool {
    of == namespace && NodeName::parse(node).is_some_and(|node| node.devnet == devnet)
}

/// Where the node binds the port; None before it has been placed.
fn socket_address(node: &Node, port: &PlannedPort) -> Option<SocketAddrV4> {
    let address = if port.wildcard { Ipv4Addr::UNSPECIFIED } else { node.spec.address.parse().ok()? };
    node.spec.ports.get(&port.name).map(|number| SocketAddrV4::new(address, *number))
}

/// A lease of a TCP port, and the node that it is for.
fn parkable(lease: &Lease) -> Option<(SocketAddrV4, Place)> {
    let LeaseSpec { address, port, node_ref, .. } = &lease.spec;
    let is_tcp = lease.metadata.name.starts_with("port/") && !lease.metadata.name.ends_with("/udp");
    let address = SocketAddrV4::new(address.as_ref()?.parse().ok()?, (*port)?);
    is_tcp.then(|| Some((address, (lease.metadata.namespace.clone(), node_ref.clone()?)))).flatten()
}

/// The machine-wide claim that goes with a lease.
fn claim_of(lease: &Lease) -> Option<String> {
    if let Some(subnet) = lease.metadata.name.strip_prefix("subnet/") {
        return Some(subnet_claim(subnet));
    }
    let shared = lease.spec.wildcard || lease.spec.address.as_deref() == Some("127.0.0.1");
    (shared && is_address(lease)).then(|| lease.spec.port.map(port_claim)).flatten()
}

fn placement(home: &Home, owner: &Owner, nodes: &[PlannedNode], layout: Layout) -> Placement {
    let placed = nodes.iter().zip(layout.nodes).map(|(node, (address, ports))| PlacedNode {
        name: node.name.clone(),
        role: node.role.clone(),
        index: node.index,
        address: address.to_string(),
        ports,
        home_dir: home.node_home(&owner.0, &owner.1, &node.name).to_string_lossy().into_owned(),
    });
    Placement { subnet: layout.subnet.map(Subnet::cidr), nodes: placed.collect() }
}

async fn explain(error: LayoutError, owner: &Owner) -> PortError {
    let devnet = format!("{}/{}", owner.0, owner.1);
    match error {
        LayoutError::NoSubnet => PortError::NoSubnet { devnet },
        LayoutError::NoPort => PortError::NoPort { devnet },
        LayoutError::TooMany(nodes) => PortError::TooMany { devnet, nodes },
        LayoutError::Leased { node, name, port, by } => PortError::Leased { node, name, port, by },
        LayoutError::Staying { node, name, port, by } => PortError::Staying { node, name, port, by },
        LayoutError::Twice { node, name, port, address } => PortError::Twice { node, name, port, address: address.to_string() },
        LayoutError::Foreign(claim) => {
            // `dvb-subnet-127.64.3` reads as `subnet 127.64.3`.
            let what = claim.trim_start_matches(machine::CLAIM_PREFIX).replacen('-', " ", 1);
            let holder = on_blocking_thread(move || claim_holder(&claim)).await.unwrap_or(Holder::Hidden);
            PortError::Claimed { devnet, what, holder }
        }
    }
}

/// Walks of /proc take milliseconds: not on a thread that others wait for.
async fn on_blocking_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, PortError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| PortError::Io { action: "look at the machine's sockets".into(), source: io::Error::other(e) })
}

#[cfg(test)]
mod tests;
