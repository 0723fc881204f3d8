//! The fake's devnets, their events and their logs.

use super::*;

#[tonic::async_trait]
impl dn::DevnetService for Fake {
    async fn create(&self, _: Request<v1::CreateDevnetRequest>) -> Reply<v1::Devnet> {
        Err(Status::unimplemented("not used"))
    }
    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Reply<v1::ApplyResponse> {
        let request = request.into_inner();
        let mut devnet = request.devnet.unwrap_or_default();
        let name = devnet.metadata.as_ref().unwrap().name.clone();
        self.log(format!("apply {name}{}", if request.dry_run { " dry" } else { "" }));
        let mut world = self.world.lock().unwrap();
        if let Some((code, refusal)) = &world.refuse {
            return Err(fault(*code, refusal));
        }
        let present = world.devnets.get(&name).cloned();
        let action = if present.is_some() { "configured" } else { "created" };
        let change = |field: &str, before: Option<&str>, after: Option<&str>| v1::FieldChange {
            field: field.into(),
            before: before.map(Into::into),
            after: after.map(Into::into),
        };
        let changes =
            vec![change("spec.validators", Some("4"), Some("5")), change("spec.network", None, Some("wasmd")), change("spec.seed", Some("x"), None)];
        let metadata = devnet.metadata.as_mut().unwrap();
        metadata.generation = present.as_ref().map_or(1, |present| present.metadata.as_ref().unwrap().generation + 1);
        metadata.created_at = super::super::CREATED.into();
        let kept = present.and_then(|present| present.spec).and_then(|spec| spec.desired);
        let spec = devnet.spec.get_or_insert_default();
        spec.desired = spec.desired.take().or(kept);
        devnet.status = Some(v1::DevnetStatus { phase: "Pending".into(), ..v1::DevnetStatus::default() });
        if !request.dry_run {
            world.put_devnet(devnet.clone());
            drop(world);
            self.reconcile(name);
        }
        Ok(Response::new(v1::ApplyResponse { devnet: Some(devnet), action: action.into(), changes, note: None }))
    }
    async fn get(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        let name = request.into_inner().name;
        self.world.lock().unwrap().devnets.get(&name).cloned().map(Response::new).ok_or_else(|| not_found(&name))
    }
    async fn list(&self, request: Request<v1::ListRequest>) -> Reply<v1::ListDevnetsResponse> {
        let selector = Some(request.into_inner());
        let items = self.world.lock().unwrap().devnets.values().filter(|devnet| takes(&selector, &devnet.metadata)).cloned().collect();
        Ok(Response::new(v1::ListDevnetsResponse { items, resource_version: 100 }))
    }
    async fn update(&self, _: Request<v1::UpdateDevnetRequest>) -> Reply<v1::Devnet> {
        Err(Status::unimplemented("not used"))
    }
    async fn delete(&self, request: Request<v1::DeleteRequest>) -> Reply<v1::Devnet> {
        let request = request.into_inner();
        self.log(format!("delete {}{}", request.name, if request.keep_data { " keep" } else { "" }));
        let devnet = self.change(&request.name, |devnet| devnet.status.get_or_insert_default().phase = "Deleting".into())?;
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            this.remove(&request.name);
        });
        Ok(Response::new(devnet))
    }
    async fn start(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        self.verb(request.get_ref(), "start", |spec| spec.desired = Some("running".into()))
    }
    async fn stop(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        self.verb(request.get_ref(), "stop", |spec| spec.desired = Some("stopped".into()))
    }
    async fn restart(&self, request: Request<v1::RestartDevnetRequest>) -> Reply<v1::Devnet> {
        let request = request.into_inner();
        let verb = if request.refresh_binary { "restart+refresh" } else { "restart" };
        let object = v1::ObjectRef { namespace: request.namespace, name: request.name };
        self.verb(&object, verb, |spec| spec.operations.get_or_insert_default().restart += 1)
    }
    async fn reset(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        self.verb(request.get_ref(), "reset", |spec| spec.operations.get_or_insert_default().reset += 1)
    }
    async fn freeze(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        self.verb(request.get_ref(), "freeze", |spec| spec.frozen = Some(true))
    }
    async fn thaw(&self, request: Request<v1::ObjectRef>) -> Reply<v1::Devnet> {
        self.verb(request.get_ref(), "thaw", |spec| spec.frozen = Some(false))
    }
    type WatchStream = Items<v1::DevnetEvent>;
    async fn watch(&self, request: Request<v1::WatchRequest>) -> Reply<Self::WatchStream> {
        let request = request.into_inner();
        let world = self.world.lock().unwrap();
        let feed = BroadcastStream::new(self.feed.subscribe());
        let mut first = Vec::new();
        let wanted = move |devnet: &v1::Devnet| {
            let named = request.name.is_empty() || devnet.metadata.as_ref().is_some_and(|metadata| metadata.name == request.name);
            named && takes(&request.selector, &devnet.metadata)
        };
        if request.resource_version.is_none() {
            let added = |devnet: &v1::Devnet| v1::DevnetEvent { r#type: "ADDED".into(), object: Some(devnet.clone()), resource_version: 1 };
            first.extend(world.devnets.values().filter(|devnet| wanted(devnet)).map(added));
            first.push(v1::DevnetEvent { r#type: "BOOKMARK".into(), object: None, resource_version: world.version });
        }
        let later = feed.take_while(|told| std::future::ready(!matches!(told, Ok(Told::Broken)))).filter_map(move |told| {
            let event = match told {
                Ok(Told::Devnet(event)) if event.object.as_ref().is_some_and(&wanted) => Some(Ok(event)),
                _ => None,
            };
            std::future::ready(event)
        });
        Ok(Response::new(Box::pin(stream::iter(first).map(Ok).chain(later))))
    }
    type StreamLogsStream = Items<v1::LogEntry>;
    async fn stream_logs(&self, request: Request<v1::LogRequest>) -> Reply<Self::StreamLogsStream> {
        let request = request.into_inner();
        let after: Vec<_> = request.after.iter().map(|cursor| format!(" after {}@{} {}", cursor.node, cursor.launch_id, cursor.offset)).collect();
        let v1::LogRequest { devnet, nodes, tail, since, .. } = &request;
        self.log(format!("logs {devnet} {nodes:?} tail {tail:?} since {since:?}{}", after.concat()));
        let wanted = |entry: &&v1::LogEntry| {
            let (devnet, short) = entry.node.split_once('/').unwrap();
            let is_new = !request.after.iter().any(|cursor| cursor.node == entry.node && entry.offset < cursor.offset);
            devnet == request.devnet && (request.nodes.is_empty() || request.nodes.iter().any(|node| node == short)) && is_new
        };
        let mut world = self.world.lock().unwrap();
        let mut entries: Vec<_> = world.logs.iter().filter(wanted).cloned().map(Ok).collect();
        if request.follow
            && let Some(count) = world.falls_behind.take()
        {
            entries.truncate(count);
            let message = "changes before revision 9 are compacted".into();
            entries.push(Err(fault(Code::OutOfRange, &v1::Fault { code: "OutOfRange".into(), message, ..v1::Fault::default() })));
        }
        Ok(Response::new(Box::pin(stream::iter(entries))))
    }
    type ListEventsStream = Items<v1::Event>;
    async fn list_events(&self, request: Request<v1::ListEventsRequest>) -> Reply<Self::ListEventsStream> {
        let request = request.into_inner();
        let of = request.selector.unwrap_or_default().devnet;
        let wanted = |event: &&v1::Event| {
            let devnet = event.name.split('/').next().unwrap_or_default();
            (request.name.is_empty() || event.name == request.name) && (of.is_empty() || devnet == of)
        };
        let world = self.world.lock().unwrap();
        let events: Vec<_> = world.events.iter().filter(wanted).cloned().collect();
        let named = if request.name.is_empty() { &of } else { &request.name };
        if events.is_empty() && !named.is_empty() && !world.devnets.contains_key(named) && !world.nodes.contains_key(named) {
            return Err(not_found(named));
        }
        Ok(Response::new(Box::pin(stream::iter(events).map(Ok))))
    }
    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Reply<v1::ExplainResponse> {
        let name = request.into_inner().name;
        let chain = self.world.lock().unwrap().events.iter().rev().cloned().collect();
        Ok(Response::new(v1::ExplainResponse { headline: format!("{name} is Running"), chain }))
    }
}
