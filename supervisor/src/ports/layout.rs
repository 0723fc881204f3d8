//! Decides addresses and ports of a devnet from values alone: the plan, the leases there are, and a picture of the machine.
//!
//! What is leased stays as it is; only what is new is chosen. So the same answer comes after a restart, a reset or with added nodes.

use super::{
    Subnet, claim_of,
    claims::{port_claim, subnet_claim},
    is_address,
    machine::Machine,
    subnet::{SUBNETS, start},
};
use crate::model::{Addresses, Lease, LeaseSpec, NodeName, PlannedNode, PlannedPort};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Leased ports come from above the ephemeral range, else from below it but not under this.
const LOWEST_POOL_PORT: u16 = 10_000;

/// What is asked for.
pub(super) struct Request<'a> {
    /// Where searches begin.
    pub(super) home_id: &'a str,
    pub(super) namespace: &'a str,
    pub(super) devnet: &'a str,
    pub(super) addresses: Addresses,
    pub(super) localhost: bool,
    pub(super) nodes: &'a [PlannedNode],
    /// All leases of the store.
    pub(super) leases: &'a [Arc<Lease>],
    pub(super) machine: &'a Machine,
    /// Claims that other homes hold.
    pub(super) foreign: &'a BTreeSet<String>,
    /// Full names of nodes that left the plan and are not gone yet: what they lease stays theirs.
    pub(super) staying: &'a BTreeSet<String>,
}

/// What was decided. Addresses and ports are in the order of the plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Layout {
    pub(super) subnet: Option<Subnet>,
    pub(super) nodes: Vec<(Ipv4Addr, BTreeMap<String, u16>)>,
    /// Every lease that the devnet shall have, by name.
    pub(super) leases: BTreeMap<String, LeaseSpec>,
    /// Every claim that goes with them.
    pub(super) claims: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LayoutError {
    NoSubnet,
    NoPort,
    /// More nodes than a /24 addresses.
    TooMany(usize),
    /// Another home holds it.
    Foreign(String),
    /// Another devnet of this home holds the port.
    Leased {
        node: String,
        name: String,
        port: u16,
        by: String,
    },
    /// A node of this devnet that is being removed still has the port.
    Staying {
        node: String,
        name: String,
        port: u16,
        by: String,
    },
    /// Two ports of one devnet are the same.
    Twice {
        node: String,
        name: String,
        port: u16,
        address: Ipv4Addr,
    },
}

pub(super) fn decide(request: &Request<'_>) -> Result<Layout, LayoutError> {
    let mut layout = Layout::default();
    let known = Known::of(request);
    if request.addresses == Addresses::Loopback {
        let subnet = match known.subnet {
            Some(subnet) => subnet,
            None => pick_subnet(request)?,
        };
        layout.lease(format!("subnet/{subnet}"), request.lease(None));
        layout.claim(request, subnet_claim(subnet))?;
        layout.subnet = Some(subnet);
    }
    for lease in request.leases.iter().filter(|lease| request.is_staying(lease)) {
        layout.lease(lease.metadata.name.clone(), lease.spec.clone());
        layout.claims.extend(claim_of(lease));
    }
    let addresses = assign_addresses(request, &known, layout.subnet)?;
    let mut pool = Pool::of(request);
    for (node, address) in request.nodes.iter().zip(addresses) {
        place_node(request, &known, &mut pool, &mut layout, node, address)?;
    }
    Ok(layout)
}

impl Request<'_> {
    fn lease(&self, node: Option<&PlannedNode>) -> LeaseSpec {
        let node_ref = node.map(|node| NodeName::new(self.devnet, &node.name).to_string());
        LeaseSpec { devnet_ref: self.devnet.to_owned(), node_ref, ..LeaseSpec::default() }
    }
    fn owns(&self, lease: &Lease) -> bool {
        lease.metadata.namespace == self.namespace && lease.spec.devnet_ref == self.devnet
    }
    /// A lease of a node that left the plan and is not gone yet.
    fn is_staying(&self, lease: &Lease) -> bool {
        is_address(lease) && self.owns(lease) && lease.spec.node_ref.as_ref().is_some_and(|node| self.staying.contains(node))
    }
    /// True when the number comes from the pool rather than from the plan.
    fn pooled(&self, node: &PlannedNode, port: &PlannedPort) -> bool {
        // A service's numbers are the user's own words: its command line may hold them.
        port.wildcard || port.port == 0 || (self.addresses == Addresses::Ports && node.role != "service")
    }
    /// The devnet, other than this one, that leases the number where a bind to `address` would meet it.
    fn leased_by_other(&self, address: Ipv4Addr, number: u16, udp: bool) -> Option<&Lease> {
        self.leases.iter().map(AsRef::as_ref).find(|lease| {
            let same = lease.spec.port == Some(number) && lease.metadata.name.ends_with("/udp") == udp;
            same && !self.owns(lease) && (lease.spec.wildcard || address.is_unspecified() || lease.spec.address == Some(address.to_string()))
        })
    }
}

impl Layout {
    fn lease(&mut self, name: String, spec: LeaseSpec) {
        self.leases.insert(name, spec);
    }
    fn claim(&mut self, request: &Request<'_>, name: String) -> Result<(), LayoutError> {
        if request.foreign.contains(&name) {
            return Err(LayoutError::Foreign(name));
        }
        self.claims.insert(name);
        Ok(())
    }
}

/// What this devnet's own leases say.
#[derive(Default)]
struct Known {
    subnet: Option<Subnet>,
    /// By full node name.
    addresses: BTreeMap<String, Ipv4Addr>,
    /// By full node name, port name and wildcard.
    ports: BTreeMap<(String, String, bool), u16>,
}

impl Known {
    fn of(request: &Request<'_>) -> Self {
        let mut known = Self::default();
        for lease in request.leases.iter().filter(|lease| request.owns(lease)) {
            if let Some(subnet) = lease.metadata.name.strip_prefix("subnet/") {
                known.subnet = Subnet::parse(subnet);
            }
            let Some(node) = &lease.spec.node_ref else { continue };
            let address = lease.spec.address.as_ref().and_then(|address| address.parse::<Ipv4Addr>().ok());
            if let Some(address) = address.filter(|address| !address.is_unspecified()) {
                known.addresses.insert(node.clone(), address);
            }
            if let (Some(name), Some(port)) = (&lease.spec.port_name, lease.spec.port) {
                known.ports.insert((node.clone(), name.clone(), lease.spec.wildcard), port);
            }
        }
        known
    }
}

fn pick_subnet(request: &Request<'_>) -> Result<Subnet, LayoutError> {
    let leased: BTreeSet<Subnet> =
        request.leases.iter().filter_map(|lease| lease.metadata.name.strip_prefix("subnet/").and_then(Subnet::parse)).collect();
    let used: BTreeSet<Subnet> = request.machine.bound.iter().filter_map(|bound| bound.subnet()).collect();
    let first = start(&[request.home_id, request.namespace, request.devnet]) % SUBNETS;
    let free = |subnet: &Subnet| !leased.contains(subnet) && !used.contains(subnet) && !request.foreign.contains(&subnet_claim(subnet));
    (0..SUBNETS).map(|step| Subnet::nth(first + step)).find(free).ok_or(LayoutError::NoSubnet)
}

/// An address for each node of the plan, in its order.
fn assign_addresses(request: &Request<'_>, known: &Known, subnet: Option<Subnet>) -> Result<Vec<Ipv4Addr>, LayoutError> {
    let Some(subnet) = subnet else { return Ok(vec![LOCALHOST; request.nodes.len()]) };
    let kept: Vec<Option<Ipv4Addr>> = request.nodes.iter().map(|node| kept_address(request, known, subnet, node)).collect();
    let staying = known.addresses.iter().filter(|(node, _)| request.staying.contains(*node)).map(|(_, address)| *address);
    let mut used: BTreeSet<Ipv4Addr> = kept.iter().flatten().copied().chain(staying).collect();
    let mut addresses = Vec::with_capacity(kept.len());
    for (position, (node, kept)) in request.nodes.iter().zip(kept).enumerate() {
        let address = match kept {
            Some(address) => address,
            None if takes_localhost(request, node) => LOCALHOST,
            None => {
                // Its own place in the plan when that is free: validator-3 is easier to find at .4.
                let wish = u8::try_from(position + 1).unwrap_or(u8::MAX);
                let mut hosts = std::iter::once(wish).chain(1..=254).filter(|host| *host < 255).map(|host| subnet.host(host));
                hosts.find(|address| !used.contains(address)).ok_or(LayoutError::TooMany(request.nodes.len()))?
            }
        };
        used.insert(address);
        addresses.push(address);
    }
    Ok(addresses)
}

fn kept_address(request: &Request<'_>, known: &Known, subnet: Subnet, node: &PlannedNode) -> Option<Ipv4Addr> {
    let address = *known.addresses.get(&NodeName::new(request.devnet, &node.name).to_string())?;
    let fits = Subnet::of(address) == Some(subnet) || (address == LOCALHOST && request.localhost && is_first_validator(node));
    fits.then_some(address)
}

fn is_first_validator(node: &PlannedNode) -> bool {
    node.role == "validator" && node.index == 0
}

/// The first validator goes to 127.0.0.1 when every port that it binds there is free: tools expect localhost.
fn takes_localhost(request: &Request<'_>, node: &PlannedNode) -> bool {
    let mut ports = node.ports.iter().filter(|port| !request.pooled(node, port)).peekable();
    request.localhost
        && is_first_validator(node)
        && ports.peek().is_some()
        && ports.all(|port| {
            !request.machine.ephemeral.range.contains(&port.port)
                && !request.machine.bound.iter().any(|bound| bound.udp == port.udp && bound.port == port.port && bound.blocks(LOCALHOST))
                && !request.foreign.contains(&port_claim(port.port))
                // A claim has no protocol in its name, so neither has this.
                && [false, true].iter().all(|udp| request.leased_by_other(LOCALHOST, port.port, *udp).is_none())
        })
}

fn place_node(
    request: &Request<'_>,
    known: &Known,
    pool: &mut Pool,
    layout: &mut Layout,
    node: &PlannedNode,
    address: Ipv4Addr,
) -> Result<(), LayoutError> {
    let full = NodeName::new(request.devnet, &node.name).to_string();
    let mut numbers = BTreeMap::new();
    // A chain that gives TCP and UDP one number does so in the pool too.
    let mut shared: BTreeMap<(u16, bool), u16> = BTreeMap::new();
    let mut bound = false;
    for port in &node.ports {
        let at = if port.wildcard { Ipv4Addr::UNSPECIFIED } else { address };
        let number = if request.pooled(node, port) {
            let kept = known.ports.get(&(full.clone(), port.name.clone(), port.wildcard)).copied().filter(|number| pool.keeps(*number));
            let twin = if port.port == 0 { None } else { shared.get(&(port.port, !port.udp)).copied() };
            let number = kept.or(twin).or_else(|| pool.next()).ok_or(LayoutError::NoPort)?;
            shared.insert((port.port, port.udp), number);
            number
        } else {
            port.port
        };
        if let Some(other) = request.leased_by_other(at, number, port.udp) {
            let by = format!("{}/{}", other.metadata.namespace, other.spec.devnet_ref);
            return Err(LayoutError::Leased { node: full, name: port.name.clone(), port: number, by });
        }
        let name = format!("port/{at}/{number}{}", if port.udp { "/udp" } else { "" });
        if let Some(by) = layout.leases.get(&name).and_then(|lease| lease.node_ref.clone()).filter(|holder| request.staying.contains(holder)) {
            return Err(LayoutError::Staying { node: full, name: port.name.clone(), port: number, by });
        }
        if layout.leases.contains_key(&name) {
            return Err(LayoutError::Twice { node: full, name: port.name.clone(), port: number, address: at });
        }
        if at == LOCALHOST || port.wildcard {
            layout.claim(request, port_claim(number))?;
        }
        let (port_name, address) = (Some(port.name.clone()), Some(at.to_string()));
        layout.lease(name, LeaseSpec { port_name, address, port: Some(number), wildcard: port.wildcard, ..request.lease(Some(node)) });
        bound |= !port.wildcard;
        numbers.insert(port.name.clone(), number);
    }
    // Without a port bound to it, nothing else would remember the address.
    if !bound && address != LOCALHOST {
        layout.lease(format!("address/{address}"), LeaseSpec { address: Some(address.to_string()), ..request.lease(Some(node)) });
    }
    layout.nodes.push((address, numbers));
    Ok(())
}

/// Numbers for ports that may not be the chain's own: outside the kernel's ephemeral range, unlike any other port in use.
struct Pool {
    numbers: Vec<u16>,
    next: usize,
    left: usize,
    /// Leased, claimed elsewhere, or bound by somebody.
    used: BTreeSet<u16>,
    own: BTreeSet<u16>,
}

impl Pool {
    fn of(request: &Request<'_>) -> Self {
        let (low, high) = (*request.machine.ephemeral.range.start(), *request.machine.ephemeral.range.end());
        let above: Vec<u16> = (high.max(LOWEST_POOL_PORT - 1)..u16::MAX).map(|port| port + 1).collect();
        let numbers = if above.len() < 1000 { (LOWEST_POOL_PORT..low.max(LOWEST_POOL_PORT)).chain(above).collect() } else { above };
        let mut used: BTreeSet<u16> = request.leases.iter().filter_map(|lease| lease.spec.port).collect();
        let own = request.leases.iter().filter(|lease| request.owns(lease)).filter_map(|lease| lease.spec.port).collect();
        used.extend(request.machine.bound.iter().map(|bound| bound.port));
        used.extend(request.nodes.iter().flat_map(|node| &node.ports).map(|port| port.port));
        used.extend(request.foreign.iter().filter_map(|claim| claim.strip_prefix(&port_claim_prefix())?.parse::<u16>().ok()));
        let first = start(&[request.home_id, request.namespace, request.devnet, "ports"]);
        let next = usize::try_from(first).unwrap_or_default() % numbers.len().max(1);
        Self { left: numbers.len(), numbers, next, used, own }
    }
    /// True for a number that this devnet leases already; each is given once.
    fn keeps(&self, number: u16) -> bool {
        self.own.contains(&number)
    }
    fn next(&mut self) -> Option<u16> {
        while self.left > 0 {
            let number = self.numbers[self.next];
            self.next = (self.next + 1) % self.numbers.len();
            self.left -= 1;
            if self.used.insert(number) {
                return Some(number);
            }
        }
        None
    }
}

fn port_claim_prefix() -> String {
    port_claim(0).trim_end_matches('0').to_owned()
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
