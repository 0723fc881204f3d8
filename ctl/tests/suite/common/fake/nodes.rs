//! The fake's nodes, launches and ports.

use super::*;

#[tonic::async_trait]
impl ns::NodeService for Fake {
    async fn get(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Node> {
        let name = request.into_inner().name;
        self.world.lock().unwrap().nodes.get(&name).cloned().map(Response::new).ok_or_else(|| not_found(&name))
    }
    async fn list(&self, request: Request<v1::ListRequest>) -> Reply<v1::ListNodesResponse> {
        let selector = Some(request.into_inner());
        let items = self.world.lock().unwrap().nodes.values().filter(|node| takes(&selector, &node.metadata)).cloned().collect();
        Ok(Response::new(v1::ListNodesResponse { items, resource_version: 100 }))
    }
    async fn start(&self, request: Request<v1::StartRequest>) -> Reply<v1::Node> {
        self.node_verb(
            &request.get_ref().name,
            &verb("start", &request),
            |node| node.spec.get_or_insert_default().desired = "running".into(),
            "Running",
        )
    }
    async fn stop(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Node> {
        self.node_verb(&request.get_ref().name, "stop", |node| node.spec.get_or_insert_default().desired = "stopped".into(), "Stopped")
    }
    async fn restart(&self, request: Request<v1::StartRequest>) -> Reply<v1::Node> {
        self.node_verb(&request.get_ref().name, &verb("restart", &request), |node| node.spec.get_or_insert_default().restart_request += 1, "Running")
    }
    async fn freeze(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Node> {
        self.node_verb(&request.get_ref().name, "freeze", |node| set_frozen(node, true), "Running")
    }
    async fn thaw(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Node> {
        self.node_verb(&request.get_ref().name, "thaw", |node| set_frozen(node, false), "Running")
    }
    type WatchStream = Items<v1::NodeEvent>;
    async fn watch(&self, request: Request<v1::WatchRequest>) -> Reply<Self::WatchStream> {
        let request = request.into_inner();
        let world = self.world.lock().unwrap();
        let feed = BroadcastStream::new(self.feed.subscribe());
        let mut first = Vec::new();
        let wanted = move |node: &v1::Node| {
            let named = request.name.is_empty() || node.metadata.as_ref().is_some_and(|metadata| metadata.name == request.name);
            named && takes(&request.selector, &node.metadata)
        };
        if request.resource_version.is_none() {
            let added = |node: &v1::Node| v1::NodeEvent { r#type: "ADDED".into(), object: Some(node.clone()), resource_version: 1 };
            first.extend(world.nodes.values().filter(|node| wanted(node)).map(added));
            first.push(v1::NodeEvent { r#type: "BOOKMARK".into(), object: None, resource_version: world.version });
        }
        let later = feed.take_while(|told| std::future::ready(!matches!(told, Ok(Told::Broken)))).filter_map(move |told| {
            let event = match told {
                Ok(Told::Node(event)) if event.object.as_ref().is_some_and(&wanted) => Some(Ok(event)),
                _ => None,
            };
            std::future::ready(event)
        });
        Ok(Response::new(Box::pin(stream::iter(first).map(Ok).chain(later))))
    }
    async fn list_launches(&self, _: Request<v1::ListRequest>) -> Reply<v1::ListLaunchesResponse> {
        let spec = v1::LaunchSpec { node_ref: "mynet/validator-0".into(), launch_id: "l1".into(), ..v1::LaunchSpec::default() };
        let status = v1::LaunchStatus { phase: "Running".into(), pid: Some(1000), ..v1::LaunchStatus::default() };
        let launch = v1::Launch { kind: "Launch".into(), spec: Some(spec), status: Some(status), ..v1::Launch::default() };
        Ok(Response::new(v1::ListLaunchesResponse { items: vec![launch], resource_version: 100 }))
    }
    async fn list_ports(&self, _: Request<v1::ListRequest>) -> Reply<v1::ListPortsResponse> {
        let port = |node: &str, state: &str, holder: &str| v1::PortLease {
            node: node.into(),
            name: "rpc".into(),
            address: "127.64.0.1".into(),
            port: 26657,
            state: state.into(),
            holder: Some(holder.into()),
            ..v1::PortLease::default()
        };
        let items = vec![port("mynet/validator-0", "held", "pid 1000 (wasmd)"), port("mynet/validator-1", "taken", "pid 7 (geth)")];
        Ok(Response::new(v1::ListPortsResponse { items }))
    }
}

impl Fake {
    fn node_verb(&self, name: &str, verb: &str, edit: impl FnOnce(&mut v1::Node), phase: &'static str) -> Reply<v1::Node> {
        self.log(format!("{verb} {name}"));
        let node = self.change_node(name, |node| {
            edit(node);
            node.status.get_or_insert_default().phase = "Stopping".into();
        })?;
        let (this, name) = (self.clone(), name.to_owned());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let _ = this.change_node(&name, |node| {
                let asked = node.spec.clone().unwrap_or_default().restart_request;
                let generation = node.metadata.clone().unwrap_or_default().generation;
                let status = node.status.get_or_insert_default();
                (status.phase, status.observed_restart, status.observed_generation) = (phase.into(), asked, generation);
            });
        });
        Ok(Response::new(node))
    }
}

/// At once, with its condition.
fn set_frozen(node: &mut v1::Node, on: bool) {
    node.spec.get_or_insert_default().frozen = on;
    let status = node.status.get_or_insert_default();
    status.observed_generation = node.metadata.as_ref().map_or(0, |metadata| metadata.generation);
    status.conditions.retain(|condition| condition.r#type != "Frozen");
    status.conditions.extend(on.then(|| v1::Condition { r#type: "Frozen".into(), status: "True".into(), ..v1::Condition::default() }));
}

/// As it is logged.
fn verb(name: &str, request: &Request<v1::StartRequest>) -> String {
    format!("{name}{}", if request.get_ref().allow_double_sign { " anyhow" } else { "" })
}
