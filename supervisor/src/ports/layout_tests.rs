//! Decisions about addresses and ports, on values.

use super::*;
use crate::{
    model::Meta,
    ports::machine::{Bound, Ephemeral},
};
use proptest::prelude::*;

fn port(name: &str, port: u16) -> PlannedPort {
    PlannedPort { name: name.into(), port, ..PlannedPort::default() }
}
fn wildcard(name: &str, port: u16) -> PlannedPort {
    PlannedPort { name: name.into(), port, wildcard: true, ..PlannedPort::default() }
}
fn node(role: &str, index: u32, ports: &[PlannedPort]) -> PlannedNode {
    PlannedNode { name: format!("{role}-{index}"), role: role.into(), index, ports: ports.to_vec(), ..PlannedNode::default() }
}
fn validators(count: u32) -> Vec<PlannedNode> {
    (0..count).map(|index| node("validator", index, &[port("p2p", 26656), port("rpc", 26657)])).collect()
}

/// One store and one machine; `decide` as a daemon would call it, leases kept.
struct World {
    leases: Vec<Arc<Lease>>,
    machine: Machine,
    foreign: BTreeSet<String>,
    staying: BTreeSet<String>,
    addresses: Addresses,
    localhost: bool,
}

impl World {
    fn new() -> Self {
        let ephemeral = Ephemeral { range: 32768..=60999, reserved: String::new() };
        let machine = Machine { bound: Vec::new(), claims: BTreeSet::new(), ephemeral };
        Self { leases: Vec::new(), machine, foreign: BTreeSet::new(), staying: BTreeSet::new(), addresses: Addresses::Loopback, localhost: true }
    }
    fn listen(&mut self, address: &str, port: u16) {
        self.machine.bound.push(Bound { udp: false, address: address.parse().unwrap(), port, inode: 1 });
    }
    fn place(&mut self, devnet: &str, nodes: &[PlannedNode]) -> Result<Layout, LayoutError> {
        let request = Request {
            home_id: "home",
            namespace: "default",
            devnet,
            addresses: self.addresses,
            localhost: self.localhost,
            nodes,
            leases: &self.leases,
            machine: &self.machine,
            foreign: &self.foreign,
            staying: &self.staying,
        };
        let layout = decide(&request)?;
        self.leases.retain(|lease| lease.spec.devnet_ref != devnet);
        for (name, spec) in &layout.leases {
            let metadata = Meta { name: name.clone(), namespace: "default".into(), ..Meta::default() };
            self.leases.push(Arc::new(Lease { metadata, spec: spec.clone() }));
        }
        Ok(layout)
    }
}

fn hosts(layout: &Layout) -> Vec<u8> {
    layout.nodes.iter().map(|(address, _)| address.octets()[3]).collect()
}

fn service(name: &str) -> PlannedNode {
    PlannedNode { name: name.into(), ..node("service", 0, &[port("web", 8000)]) }
}

#[test]
fn a_node_that_is_not_gone_yet_keeps_its_address_beside_the_one_that_comes() {
    let mut world = World::new();
    let first = world.place("a", &[service("old")]).unwrap();
    world.staying.insert("a/old".into());
    let second = world.place("a", &[service("new")]).unwrap();
    assert_ne!(second.nodes[0].0, first.nodes[0].0);
    let holders: BTreeSet<_> = second.leases.values().filter_map(|lease| lease.node_ref.clone()).collect();
    assert_eq!(holders, ["a/new".to_owned(), "a/old".to_owned()].into());
    world.staying.clear();
    let third = world.place("a", &[service("new")]).unwrap();
    assert_eq!((third.nodes[0].0, third.leases.len()), (second.nodes[0].0, 2), "the subnet and one port");
}

#[test]
fn a_shared_address_makes_the_newcomer_wait_for_the_port_and_names_who_has_it() {
    let mut world = World { addresses: Addresses::Ports, ..World::new() };
    world.place("a", &[service("old")]).unwrap();
    world.staying.insert("a/old".into());
    let expect = LayoutError::Staying { node: "a/new".into(), name: "web".into(), port: 8000, by: "a/old".into() };
    assert_eq!(world.place("a", &[service("new")]), Err(expect));
    world.staying.clear();
    assert!(world.place("a", &[service("new")]).is_ok());
}

#[test]
fn each_node_gets_its_own_address_with_the_standard_ports() {
    let layout = World::new().place("a", &validators(4)).unwrap();
    assert_eq!(layout.nodes[0].0, LOCALHOST);
    assert_eq!(hosts(&layout)[1..], [2, 3, 4]);
    let subnet = layout.subnet.unwrap();
    for (address, ports) in &layout.nodes {
        assert!(*address == LOCALHOST || Subnet::of(*address) == Some(subnet));
        assert_eq!(ports["rpc"], 26657);
    }
    assert_eq!(layout.leases.len(), 1 + 8);
    let claims: Vec<&str> = layout.claims.iter().map(String::as_str).collect();
    assert_eq!(claims, ["dvb-port-26656", "dvb-port-26657", &format!("dvb-subnet-{subnet}")]);
}

#[test]
fn localhost_goes_to_the_first_devnet_and_stays_there() {
    let mut world = World::new();
    let first = world.place("a", &validators(1)).unwrap();
    let second = world.place("b", &validators(1)).unwrap();
    assert_eq!(first.nodes[0].0, LOCALHOST);
    assert_eq!(hosts(&second), [1]);
    assert_ne!(first.subnet, second.subnet);
    assert_eq!(world.place("a", &validators(1)).unwrap(), first);
    world.leases.retain(|lease| lease.spec.devnet_ref != "a");
    assert_eq!(world.place("b", &validators(1)).unwrap(), second);
}

#[test]
fn localhost_is_left_alone_when_a_port_there_is_busy_or_claimed_or_ephemeral_or_unwanted() {
    let check = |prepare: &dyn Fn(&mut World), number: u16| {
        let mut world = World::new();
        prepare(&mut world);
        let layout = world.place("a", &[node("validator", 0, &[port("rpc", number)])]).unwrap();
        assert_eq!(hosts(&layout), [1], "{layout:?}");
        assert_ne!(layout.nodes[0].0, LOCALHOST);
    };
    check(&|world| world.listen("127.0.0.1", 26657), 26657);
    check(&|world| world.listen("::", 26657), 26657);
    check(&|world| world.foreign = BTreeSet::from([port_claim(26657)]), 26657);
    check(&|_| {}, 40000);
    check(&|world| world.localhost = false, 26657);
}

#[test]
fn a_subnet_in_use_by_anybody_is_passed_over() {
    let plain = World::new().place("a", &validators(2)).unwrap().subnet.unwrap();
    let mut world = World::new();
    world.listen(&plain.host(77).to_string(), 1);
    let second = world.place("a", &validators(2)).unwrap().subnet.unwrap();
    assert_ne!(second, plain);
    let mut world = World::new();
    world.listen(&plain.host(77).to_string(), 1);
    world.foreign = BTreeSet::from([subnet_claim(second)]);
    let third = world.place("a", &validators(2)).unwrap().subnet.unwrap();
    assert!(third != plain && third != second);
}

#[test]
fn a_leased_subnet_that_another_home_claims_is_refused_and_not_moved() {
    let mut world = World::new();
    let claim = subnet_claim(world.place("a", &validators(2)).unwrap().subnet.unwrap());
    world.foreign = BTreeSet::from([claim.clone()]);
    assert_eq!(world.place("a", &validators(2)), Err(LayoutError::Foreign(claim)));
}

#[test]
fn wildcard_ports_are_unique_over_all_devnets_and_outside_the_ephemeral_range() {
    let mut world = World::new();
    let nodes: Vec<_> = (0..3).map(|i| node("validator", i, &[port("rpc", 8545), wildcard("metrics", 6060)])).collect();
    let mut numbers = BTreeSet::new();
    for devnet in ["a", "b", "c"] {
        let layout = world.place(devnet, &nodes).unwrap();
        for (_, ports) in &layout.nodes {
            assert!(ports["metrics"] > 60999 && numbers.insert(ports["metrics"]));
            assert!(layout.claims.contains(&port_claim(ports["metrics"])));
        }
    }
}

#[test]
fn with_ports_mode_all_share_one_address_and_services_keep_their_numbers() {
    let mut world = World::new();
    world.addresses = Addresses::Ports;
    let mut nodes = validators(2);
    nodes.push(PlannedNode { name: "faucet".into(), ..node("service", 0, &[port("http", 8080)]) });
    let layout = world.place("a", &nodes).unwrap();
    assert_eq!(layout.subnet, None);
    assert!(layout.nodes.iter().all(|(address, _)| *address == LOCALHOST));
    assert_eq!(layout.nodes[2].1["http"], 8080);
    let numbers: BTreeSet<u16> = layout.nodes.iter().flat_map(|(_, ports)| ports.values().copied()).collect();
    assert_eq!(numbers.len(), 5);
    assert_eq!(world.place("a", &nodes).unwrap(), layout);
    let busy = world.place("b", &nodes);
    assert!(matches!(&busy, Err(LayoutError::Leased { port: 8080, by, .. }) if by == "default/a"), "{busy:?}");
}

#[test]
fn tcp_and_udp_of_one_number_stay_together() {
    let both = [port("p2p", 30303), PlannedPort { udp: true, ..port("discovery", 30303) }];
    let mut world = World::new();
    let layout = world.place("a", &[node("validator", 0, &both)]).unwrap();
    assert_eq!(layout.leases.keys().filter(|name| name.contains("30303")).count(), 2);
    world.addresses = Addresses::Ports;
    let layout = world.place("b", &[node("validator", 0, &both)]).unwrap();
    assert_eq!(layout.nodes[0].1["p2p"], layout.nodes[0].1["discovery"]);
}

#[test]
fn a_port_planned_twice_on_one_address_is_refused() {
    let twice = [port("rpc", 1317), port("api", 1317)];
    let got = World::new().place("a", &[node("validator", 0, &twice)]);
    assert!(matches!(got, Err(LayoutError::Twice { port: 1317, .. })), "{got:?}");
}

#[test]
fn nodes_without_ports_keep_their_address_too() {
    let mut world = World::new();
    let nodes = [node("driver", 0, &[]), node("driver", 1, &[])];
    let before = world.place("a", &nodes).unwrap();
    let after = world.place("a", &nodes[1..]).unwrap();
    assert_eq!(after.nodes[0].0, before.nodes[1].0);
}

#[test]
fn two_hundred_and_fifty_five_nodes_are_too_many() {
    let mut world = World::new();
    world.localhost = false;
    assert!(world.place("a", &validators(254)).is_ok());
    assert_eq!(world.place("b", &validators(255)), Err(LayoutError::TooMany(255)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever comes and goes: who stays keeps what it has, and no two ports meet.
    #[test]
    fn survivors_keep_their_addresses_and_nobody_shares(
        steps in prop::collection::vec((0..3_usize, prop::collection::btree_set(0..12_u32, 0..8)), 1..12),
    ) {
        let mut world = World::new();
        let mut last: BTreeMap<(usize, String), (Ipv4Addr, BTreeMap<String, u16>)> = BTreeMap::new();
        for (devnet, indices) in steps {
            // Each devnet keeps to one mode.
            world.addresses = if devnet == 2 { Addresses::Ports } else { Addresses::Loopback };
            let nodes: Vec<_> = indices.iter().map(|i| node("validator", *i, &[port("rpc", 26657), wildcard("w", 6060)])).collect();
            let layout = world.place(&format!("d{devnet}"), &nodes).unwrap();
            prop_assert_eq!(&world.place(&format!("d{devnet}"), &nodes).unwrap(), &layout);
            let now: BTreeMap<_, _> = nodes.iter().map(|n| (devnet, n.name.clone())).zip(layout.nodes).collect();
            for (key, placed) in &now {
                if let Some(before) = last.get(key) {
                    prop_assert_eq!(before, placed);
                }
            }
            last.retain(|(of, _), _| *of != devnet);
            last.extend(now);
            let mut taken = BTreeSet::new();
            for (address, ports) in last.values() {
                prop_assert!(taken.insert((*address, ports["rpc"])));
                prop_assert!(taken.insert((Ipv4Addr::UNSPECIFIED, ports["w"])));
            }
        }
    }
}
