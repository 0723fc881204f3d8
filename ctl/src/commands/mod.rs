//! One verb, one file.

pub(crate) mod apply;
pub(crate) mod binaries;
pub(crate) mod completion;
pub(crate) mod daemon;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod env;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod freeze;
pub(crate) mod get;
pub(crate) mod gov;
pub(crate) mod logs;
pub(crate) mod orphans;
pub(crate) mod plugins;
pub(crate) mod ports;
pub(crate) mod reset;
pub(crate) mod restart;
pub(crate) mod start;
pub(crate) mod stop;
pub(crate) mod top;
pub(crate) mod tx;
pub(crate) mod up;
pub(crate) mod upgrade;
pub(crate) mod wait;
pub(crate) mod why;

use crate::{
    cli::{Format, Verb},
    client::Client,
    context::Context,
    error::Error,
    follow::{Target, follow},
    goal::Goal,
    render::{
        Named,
        objects::name,
        print_items,
        progress::{Progress, Request},
    },
};
use dvb_proto::devnet::v1::{Devnet, ListRequest, Metadata, Node, NodeSpec};

pub(crate) async fn run(ctx: &Context, verb: Verb) -> Result<(), Error> {
    match verb {
        Verb::Up(args) => up::run(ctx, args).await,
        Verb::Apply(args) => apply::run(ctx, args).await,
        Verb::Get(args) => get::run(ctx, args).await,
        Verb::Describe(args) => describe::run(ctx, args).await,
        Verb::Logs(args) => logs::run(ctx, args).await,
        Verb::Why(args) => why::run(ctx, args).await,
        Verb::Events(args) => events::run(ctx, args).await,
        Verb::Wait(args) => wait::run(ctx, args).await,
        Verb::Start(args) => start::run(ctx, args).await,
        Verb::Stop(args) => stop::run(ctx, args).await,
        Verb::Restart(args) => restart::run(ctx, args).await,
        Verb::Freeze(args) => freeze::freeze(ctx, args).await,
        Verb::Thaw(args) => freeze::thaw(ctx, args).await,
        Verb::Reset(args) => reset::run(ctx, args).await,
        Verb::Delete(args) => delete::run(ctx, args).await,
        Verb::Env(args) => env::run(ctx, args).await,
        Verb::Orphans(args) => orphans::run(ctx, args).await,
        Verb::Ports(args) => ports::run(ctx, args).await,
        Verb::Top(args) => top::run(ctx, args).await,
        Verb::Plugins(args) => plugins::run(ctx, args).await,
        Verb::Binaries(args) => binaries::run(ctx, args).await,
        Verb::Daemon(args) => daemon::run(ctx, args).await,
        Verb::Completion(args) => completion::run(ctx, args),
        Verb::Tx(args) => tx::run(ctx, args).await,
        Verb::Gov(args) => gov::run(ctx, args).await,
        Verb::Upgrade(args) => upgrade::run(ctx, args).await,
        Verb::Export(args) => export::run(ctx, args).await,
    }
}

/// A changed object that a verb got back, and what it is now.
enum Changed {
    Devnet(Box<Devnet>),
    Node(Box<Node>),
}

/// After start, stop, restart and reset: waits unless told not to, then prints the object or one line.
async fn settle(ctx: &Context, client: &Client, target: &Target, changed: Changed, verb: &str, wait: bool) -> Result<(), Error> {
    let goal = match &changed {
        Changed::Devnet(devnet) => Goal::Settled { generation: generation(&devnet.metadata) },
        Changed::Node(_) => Goal::NodeSettled { node: target.name().to_owned() },
    };
    let changed = reach(ctx, client, target, changed, &goal, verb, wait).await?;
    let phase = match &changed {
        Changed::Devnet(devnet) => devnet.status.as_ref().map(|status| status.phase.clone()),
        Changed::Node(node) => node.status.as_ref().map(|status| status.phase.clone()),
    };
    let now = if wait { phase.unwrap_or_default() } else { format!("{verb} requested") };
    tell(ctx, target, changed, &now)
}

/// As `settle`, after freeze and thaw.
async fn freezing(ctx: &Context, client: &Client, target: &Target, changed: Changed, on: bool, wait: bool) -> Result<(), Error> {
    let verb = if on { "freeze" } else { "thaw" };
    let goal = match &changed {
        Changed::Devnet(devnet) => Goal::Frozen { node: None, on, generation: generation(&devnet.metadata) },
        Changed::Node(node) => Goal::Frozen { node: Some(target.name().to_owned()), on, generation: generation(&node.metadata) },
    };
    let changed = reach(ctx, client, target, changed, &goal, verb, wait).await?;
    let now = match (wait, on) {
        (true, true) => "frozen".to_owned(),
        (true, false) => "thawed".to_owned(),
        (false, _) => format!("{verb} requested"),
    };
    tell(ctx, target, changed, &now)
}

/// A verb for a whole devnet leaves alone what was asked of one of its nodes: `state` is what those were made that `are_apart`.
async fn note_those_apart(
    ctx: &Context,
    client: &Client,
    target: &Target,
    (state, verb): (&str, &str),
    are_apart: impl Fn(&NodeSpec) -> bool,
) -> Result<(), Error> {
    let selector = ListRequest { namespace: target.namespace.clone(), devnet: target.devnet.clone(), ..ListRequest::default() };
    for node in client.nodes().list(selector).await?.into_inner().items {
        if node.spec.as_ref().is_some_and(&are_apart) {
            let name = name(&node.metadata);
            ctx.note(format!("{name} was {state} by itself and stays so; dvbctl {verb} {name}"));
        }
    }
    Ok(())
}

/// What is asked for, when the goal is reached; at once without `wait`.
async fn reach(ctx: &Context, client: &Client, target: &Target, changed: Changed, goal: &Goal, verb: &str, wait: bool) -> Result<Changed, Error> {
    let mut changed = changed;
    if wait {
        let way_on = format!("dvbctl get nodes {}; the {verb} goes on without dvbctl", target.devnet);
        let metadata = match &changed {
            Changed::Devnet(devnet) => &devnet.metadata,
            Changed::Node(node) => &node.metadata,
        };
        let mut progress = Progress::of(ctx, Request { revision: revision(metadata), node: target.node.clone() });
        let view = follow(ctx, client, target, goal, &way_on, |view, missing| progress.see(view, missing)).await?;
        progress.finish();
        changed = match (changed, view.devnet, target.node.as_deref().and_then(|node| view.nodes.get(node).cloned())) {
            (Changed::Devnet(_), Some(devnet), _) => Changed::Devnet(Box::new(devnet)),
            (Changed::Node(_), _, Some(node)) => Changed::Node(Box::new(node)),
            (before, _, _) => before,
        };
    }
    Ok(changed)
}

fn tell(ctx: &Context, target: &Target, changed: Changed, now: &str) -> Result<(), Error> {
    if matches!(ctx.settings.format, Format::Table | Format::Wide) {
        return Ok(ctx.print(format!("{} {}: {now}", target.kind(), target.name()))?);
    }
    match changed {
        Changed::Devnet(devnet) => print_items(ctx, &[*devnet], Named::One, ""),
        Changed::Node(node) => print_items(ctx, &[*node], Named::One, ""),
    }
}

/// A double signature is allowed to one validator at a time, never to a whole devnet.
fn one_node_each(targets: &[Target], allow_double_sign: bool, verb: &str) -> Result<(), Error> {
    match targets.iter().find(|target| allow_double_sign && target.node.is_none()) {
        None => Ok(()),
        Some(target) => Err(Error::usage(format!("--allow-double-sign is for one validator, and {} is a whole devnet", target.devnet))
            .with_remedy(format!("dvbctl {verb} {}/validator-0 --allow-double-sign", target.devnet))),
    }
}

fn generation(metadata: &Option<Metadata>) -> u64 {
    metadata.as_ref().map_or(0, |metadata| metadata.generation)
}

fn revision(metadata: &Option<Metadata>) -> u64 {
    metadata.as_ref().map_or(0, |metadata| metadata.resource_version)
}

fn one_devnet(name: &str) -> Result<(), Error> {
    match name.split_once('/') {
        None => Ok(()),
        Some((devnet, _)) => Err(Error::usage(format!("`{name}` is a node; this verb takes a devnet")).with_remedy(devnet)),
    }
}
