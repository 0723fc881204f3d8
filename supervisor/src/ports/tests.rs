//! Placement against a store and the machine's own sockets.

use super::*;
use crate::{
    model::{DevnetSpec, DevnetStatus, NodeSpec, NodeStatus},
    store::MemoryStore,
    sys::SystemClock,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
};

/// A home of its own: random, so that tests that run beside this one begin their searches elsewhere.
struct Homestead {
    store: Arc<MemoryStore>,
    home_id: String,
}

impl Homestead {
    fn new() -> Self {
        let clock = Arc::new(SystemClock);
        let home_id = clock.fresh_id().to_string();
        Self { store: Arc::new(MemoryStore::new(clock)), home_id }
    }
    /// As a daemon that starts.
    fn ports(&self) -> Ports {
        Ports::new(self.store.clone(), Arc::new(SystemClock), self.home_id.clone())
    }
    async fn devnet(&self, name: &str) -> Devnet {
        let metadata = Meta { name: name.into(), namespace: "default".into(), ..Meta::default() };
        let spec = DevnetSpec { plugin: "exec".into(), localhost: Some(false), ..DevnetSpec::default() };
        let devnet = Devnet { metadata, spec, status: DevnetStatus::default() };
        self.store.commit(vec![Write::create(devnet.clone())]).await.unwrap();
        devnet
    }
    async fn lease_names(&self) -> Vec<String> {
        let (leases, _) = self.store.list(&Selector::kind(Kind::Lease)).await.unwrap();
        leases.iter().map(|lease| lease.meta().name.clone()).collect()
    }
}

fn home() -> Home {
    Home::new("/nowhere".into())
}
fn port(name: &str, port: u16) -> PlannedPort {
    PlannedPort { name: name.into(), port, ..PlannedPort::default() }
}
fn plan(count: u32) -> Vec<PlannedNode> {
    let node = |index| PlannedNode {
        name: format!("validator-{index}"),
        role: "validator".into(),
        index,
        ports: vec![port("rpc", 26657)],
        ..PlannedNode::default()
    };
    (0..count).map(node).collect()
}
fn placed(devnet: &str, place: &PlacedNode) -> Node {
    let metadata = Meta { name: format!("{devnet}/{}", place.name), namespace: "default".into(), ..Meta::default() };
    let spec = NodeSpec { devnet_ref: devnet.into(), address: place.address.clone(), ports: place.ports.clone(), ..NodeSpec::default() };
    Node { metadata, spec, status: NodeStatus::default() }
}

#[tokio::test]
async fn a_placement_survives_a_restart_and_takes_in_new_nodes() {
    let homestead = Homestead::new();
    let devnet = homestead.devnet("a").await;
    let ports = homestead.ports();
    let first = ports.place(&devnet, &home(), &plan(2)).await.unwrap();
    assert_eq!(first.nodes[1].home_dir, "/nowhere/devnets/default/a/nodes/validator-1/home");
    drop(ports);
    let ports = homestead.ports();
    assert!(ports.reclaim().await.unwrap().is_empty());
    let revision = homestead.store.list(&Selector::default()).await.unwrap().1;
    assert_eq!(ports.place(&devnet, &home(), &plan(2)).await.unwrap(), first);
    assert_eq!(homestead.store.list(&Selector::default()).await.unwrap().1, revision, "placing again writes nothing");
    let grown = ports.place(&devnet, &home(), &plan(3)).await.unwrap();
    assert_eq!(grown.nodes[..2], first.nodes[..]);
    let shrunk = ports.place(&devnet, &home(), &plan(1)).await.unwrap();
    assert_eq!(shrunk.nodes[..], first.nodes[..1]);
    assert_eq!(homestead.lease_names().await.len(), 2, "leases of nodes that are gone go back");
}

#[tokio::test]
async fn devnets_placed_at_once_never_share() {
    let homestead = Homestead::new();
    let ports = homestead.ports();
    let (a, b, c) = (homestead.devnet("a").await, homestead.devnet("b").await, homestead.devnet("c").await);
    let (plan, home) = (plan(4), home());
    let (a, b, c) = tokio::join!(ports.place(&a, &home, &plan), ports.place(&b, &home, &plan), ports.place(&c, &home, &plan));
    let subnets: BTreeSet<_> = [a, b, c].into_iter().map(|placement| placement.unwrap().subnet.unwrap()).collect();
    assert_eq!(subnets.len(), 3);
}

#[tokio::test]
async fn two_homes_that_would_choose_the_same_subnet_do_not_clash() {
    let one = Homestead::new();
    let two = Homestead { store: Arc::new(MemoryStore::new(Arc::new(SystemClock))), home_id: one.home_id.clone() };
    let (ports_one, ports_two) = (one.ports(), two.ports());
    let first = ports_one.place(&one.devnet("a").await, &home(), &plan(1)).await.unwrap();
    let second = ports_two.place(&two.devnet("a").await, &home(), &plan(1)).await.unwrap();
    assert_ne!(first.subnet, second.subnet);
}

#[tokio::test]
async fn a_subnet_that_another_home_took_meanwhile_is_reported_with_its_holder() {
    let homestead = Homestead::new();
    let devnet = homestead.devnet("a").await;
    homestead.ports().place(&devnet, &home(), &plan(1)).await.unwrap();
    let thief = homestead.ports();
    assert!(thief.reclaim().await.unwrap().is_empty());
    let ports = homestead.ports();
    let conflicts = ports.reclaim().await.unwrap();
    let me = Holder::Process { pid: std::process::id(), program: program() };
    assert!(matches!(&conflicts[..], [PortError::Claimed { holder, .. }] if *holder == me), "{conflicts:?}");
    let error = ports.place(&devnet, &home(), &plan(1)).await.unwrap_err();
    assert!(matches!(error, PortError::Claimed { .. }), "{error}");
    assert!(error.to_string().contains("subnet 127."), "{error}");
    thief.release("default", "a").await.unwrap();
    ports.place(&devnet, &home(), &plan(1)).await.unwrap();
}

fn program() -> String {
    std::fs::read_to_string("/proc/self/comm").unwrap().trim_end().to_owned()
}

#[tokio::test]
async fn a_live_listener_is_named_and_a_free_port_is_not() {
    let homestead = Homestead::new();
    let ports = homestead.ports();
    let placement = ports.place(&homestead.devnet("a").await, &home(), &plan(1)).await.unwrap();
    let node = placed("a", &placement.nodes[0]);
    let address: Ipv4Addr = node.spec.address.parse().unwrap();
    ports.probe(&node, &plan(1)[0].ports).await.unwrap();
    let listener = TcpListener::bind((address, 26657)).unwrap();
    let error = ports.probe(&node, &plan(1)[0].ports).await.unwrap_err();
    let words = format!("port 26657 (rpc) of a/validator-0 on {address} is taken by pid {} ({})", std::process::id(), program());
    assert_eq!(error.to_string(), words);
    assert_eq!(error.fault().code, FaultCode::PortBusy);
    // A connection that was open when the listener went leaves the port in TIME_WAIT: free for us.
    let client = std::net::TcpStream::connect((address, 26657)).unwrap();
    let (server, _) = listener.accept().unwrap();
    drop(listener);
    drop(server);
    drop(client);
    ports.probe(&node, &plan(1)[0].ports).await.unwrap();
}

#[tokio::test]
async fn udp_and_wildcard_ports_are_probed_as_what_they_are() {
    let homestead = Homestead::new();
    let ports = homestead.ports();
    let kinds = [PlannedPort { udp: true, ..port("discovery", 30303) }, PlannedPort { wildcard: true, ..port("metrics", 6060) }];
    let nodes = [PlannedNode { name: "validator-0".into(), role: "validator".into(), ports: kinds.to_vec(), ..PlannedNode::default() }];
    let placement = ports.place(&homestead.devnet("a").await, &home(), &nodes).await.unwrap();
    let node = placed("a", &placement.nodes[0]);
    ports.probe(&node, &kinds).await.unwrap();
    let tcp = TcpListener::bind((node.spec.address.parse::<Ipv4Addr>().unwrap(), 30303)).unwrap();
    ports.probe(&node, &kinds).await.unwrap();
    let udp = UdpSocket::bind((node.spec.address.parse::<Ipv4Addr>().unwrap(), 30303)).unwrap();
    let error = ports.probe(&node, &kinds).await.unwrap_err();
    assert!(matches!(&error, PortError::Taken { name, holder: Holder::Process { .. }, .. } if name == "discovery"), "{error}");
    drop((tcp, udp));
    let elsewhere = TcpListener::bind(("127.0.0.1", node.spec.ports["metrics"])).unwrap();
    let error = ports.probe(&node, &kinds).await.unwrap_err();
    assert!(matches!(&error, PortError::Taken { name, .. } if name == "metrics"), "{error}");
    drop(elsewhere);
}

/// As another program would: without SO_REUSEADDR, which the standard library sets.
fn bound(address: SocketAddr, kind: SocketType) -> OwnedFd {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    socket
}

fn knows_bound_sockets() -> bool {
    let socket = bound(([127, 0, 0, 1], 0).into(), SocketType::STREAM);
    let inode = rustix::fs::fstat(&socket).unwrap().st_ino;
    crate::holders::inactive_sockets().unwrap().iter().any(|seen| seen.inode == inode)
}

#[tokio::test]
async fn whatever_is_in_the_way_of_a_port_is_named() {
    let homestead = Homestead::new();
    let ports = homestead.ports();
    // Numbers of this run alone: it binds them on all addresses, too, and leaves one of them to TIME_WAIT for a minute.
    let free = 12_000 + u16::try_from(std::process::id() % 4_000).unwrap() * 2;
    let kinds = [port("rpc", free), PlannedPort { udp: true, ..port("discovery", free) }, PlannedPort { wildcard: true, ..port("metrics", 6060) }];
    let nodes = [PlannedNode { name: "validator-0".into(), role: "validator".into(), ports: kinds.to_vec(), ..PlannedNode::default() }];
    let placement = ports.place(&homestead.devnet("a").await, &home(), &nodes).await.unwrap();
    let node = placed("a", &placement.nodes[0]);
    let address: Ipv4Addr = node.spec.address.parse().unwrap();
    let holder = async || match ports.probe(&node, &kinds).await.unwrap_err() {
        PortError::Taken { name, holder, .. } => (name, holder),
        other => panic!("{other}"),
    };
    let me = || Holder::Process { pid: std::process::id(), program: program() };
    let check = async |name: &str, thief: OwnedFd| {
        assert_eq!(holder().await, (name.to_owned(), me()));
        drop(thief);
        ports.probe(&node, &kinds).await.unwrap();
    };
    let v4 = |port: &str| SocketAddr::from((address, node.spec.ports[port]));
    let all_v4 = |port: &str| SocketAddr::from((Ipv4Addr::UNSPECIFIED, node.spec.ports[port]));
    let both = |port: &str| SocketAddr::from((Ipv6Addr::UNSPECIFIED, node.spec.ports[port]));
    let listening = |address| {
        let socket = bound(address, SocketType::STREAM);
        rustix::net::listen(&socket, 1).unwrap();
        socket
    };
    check("rpc", listening(v4("rpc"))).await;
    check("rpc", listening(all_v4("rpc"))).await;
    check("rpc", listening(both("rpc"))).await;
    check("discovery", bound(all_v4("discovery"), SocketType::DGRAM)).await;
    check("discovery", bound(both("discovery"), SocketType::DGRAM)).await;
    check("metrics", listening(both("metrics"))).await;
    check("metrics", listening((Ipv6Addr::LOCALHOST, node.spec.ports["metrics"]).into())).await;
    // A connection that goes out from the port, as the kernel itself may have chosen it.
    let server = TcpListener::bind((address, 0)).unwrap();
    let client = bound(v4("rpc"), SocketType::STREAM);
    rustix::net::connect(&client, &server.local_addr().unwrap()).unwrap();
    let (accepted, _) = server.accept().unwrap();
    assert_eq!(holder().await, ("rpc".to_owned(), me()));
    // The side that closes first keeps the port for a minute.
    drop(client);
    drop(accepted);
    assert_eq!(holder().await, ("rpc".to_owned(), Holder::TimeWait));
    if !knows_bound_sockets() {
        return println!("SKIP: this kernel (before 6.8) does not tell of sockets that are bound and do not listen");
    }
    let others = homestead.devnet("b").await;
    let only = [port("rpc", free + 1)];
    let nodes = [PlannedNode { ports: only.to_vec(), ..plan(1).remove(0) }];
    let placement = ports.place(&others, &home(), &nodes).await.unwrap();
    let node = placed("b", &placement.nodes[0]);
    homestead.store.commit(vec![Write::create(node.clone())]).await.unwrap();
    let own = IpAddr::from(node.spec.address.parse::<Ipv4Addr>().unwrap());
    for (address, reuse) in [(own, false), (own, true), (Ipv6Addr::UNSPECIFIED.into(), false)] {
        let socket = bound((address, free + 1).into(), SocketType::STREAM);
        // With SO_REUSEADDR on both sides a bind would succeed beside it.
        rustix::net::sockopt::set_socket_reuseaddr(&socket, reuse).unwrap();
        let error = ports.probe(&node, &only).await.unwrap_err();
        assert!(matches!(&error, PortError::Taken { holder, .. } if *holder == me()), "{error}");
        let states = ports.states(None, Some("b")).await.unwrap();
        assert_eq!((states[0].state.as_str(), states[0].holder.clone()), ("taken", Some(me())));
    }
}

#[tokio::test]
async fn states_tell_free_held_and_taken_apart() {
    let homestead = Homestead::new();
    let ports = homestead.ports();
    let placement = ports.place(&homestead.devnet("a").await, &home(), &plan(2)).await.unwrap();
    let mut ours = placed("a", &placement.nodes[0]);
    ours.status.pid = Some(std::process::id());
    let other = placed("a", &placement.nodes[1]);
    homestead.store.commit(vec![Write::create(ours.clone()), Write::create(other.clone())]).await.unwrap();
    let seen = async || -> Vec<String> { ports.states(None, Some("a")).await.unwrap().into_iter().map(|row| row.state).collect() };
    assert_eq!(seen().await, ["free", "free"]);
    let bind = |node: &Node| TcpListener::bind((node.spec.address.parse::<Ipv4Addr>().unwrap(), 26657)).unwrap();
    let _listeners = (bind(&ours), bind(&other));
    assert_eq!(seen().await, ["held", "taken"]);
}

#[tokio::test]
async fn deleting_a_devnet_gives_everything_back() {
    let homestead = Homestead::new();
    let ports = homestead.ports();
    let devnet = homestead.devnet("a").await;
    let placement = ports.place(&devnet, &home(), &plan(1)).await.unwrap();
    homestead.store.commit(vec![Write::Delete { key: crate::model::Key::devnet("default", "a"), expect: crate::store::Expect::Any }]).await.unwrap();
    ports.release("default", "a").await.unwrap();
    assert!(homestead.lease_names().await.is_empty());
    let again = homestead.ports().place(&homestead.devnet("a").await, &home(), &plan(1)).await.unwrap();
    assert_eq!(again, placement, "the same words choose the same place when it is free");
}

#[tokio::test]
async fn a_port_that_could_not_be_parked_is_parked_when_it_is_tried_again() {
    let homestead = Homestead::new();
    let ports = homestead.ports().with_keeper(Keeper::in_a_thread(homestead.home_id.clone()));
    let kinds = [PlannedPort { park: true, ..port("rpc", 26657) }];
    let nodes = [PlannedNode { name: "validator-0".into(), role: "validator".into(), ports: kinds.to_vec(), ..PlannedNode::default() }];
    let placement = ports.place(&homestead.devnet("a").await, &home(), &nodes).await.unwrap();
    let node = placed("a", &placement.nodes[0]);
    let address = (node.spec.address.parse::<Ipv4Addr>().unwrap(), node.spec.ports["rpc"]);
    let stranger = TcpListener::bind(address).unwrap();
    assert!(!ports.park(&node, &kinds).await.unwrap(), "it is to be tried again");
    drop(stranger);
    assert!(ports.park(&node, &kinds).await.unwrap());
    assert!(TcpListener::bind(address).is_err());
    ports.unpark(&node)();
}
