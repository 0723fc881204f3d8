//! `apply`: create or update devnets to match documents, and begin the upgrades, transactions and exports that they declare.

mod made;

pub(super) use made::{Made, Object, send};

use super::generation;
use crate::{
    cli::Format,
    client::Client,
    context::Context,
    document::{Document, Wanted, load},
    error::{Error, Exit},
    follow::{Target, follow},
    goal::Goal,
    render::{self, progress::Progress},
};
use dvb_proto::devnet::v1::{Devnet, FieldChange, Metadata};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

/// Create or change devnets to match YAML or JSON documents, and begin upgrades, transactions and exports
///
/// Documents are applied in their order. What happens once (an upgrade, a transaction, an export) is begun by the first apply; applied
/// again it is unchanged.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File, folder, or - for stdin; may be given several times
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    file: Vec<String>,
    /// Change nothing; show field by field what would change, as a devnetd that runs knows it
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Wait until the devnets are as asked for, and the rest has ended; what is not a devnet is waited for before the next document
    #[arg(long)]
    wait: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let documents = load(&args.file, &ctx.settings.namespace, &ctx.settings.env, &ctx.settings.cwd)?;
    if args.dry_run {
        let client = Client::connect_running(ctx).await?.ok_or_else(|| none_to_ask(ctx))?;
        return look(ctx, &client, &documents).await;
    }
    let client = ctx.client().await?;
    check(&client, &documents).await?;
    let is_text = matches!(ctx.settings.format, Format::Table | Format::Wide);
    let (mut done, mut devnets) = (Vec::new(), Vec::new());
    for document in &documents {
        if args.wait && !document.wanted.is_devnet() {
            settle(ctx, &client, &mut devnets, &mut done).await?;
        }
        let made = send(&client, document, &documents, false).await?;
        if is_text {
            ctx.print(told(&made))?;
        }
        made.note.iter().for_each(|note| ctx.note(note));
        if !args.wait {
            done.push(made.object);
        } else if document.wanted.is_devnet() {
            devnets.push(made.object);
        } else {
            let object = made.object.settled(ctx, &client).await?;
            if is_text {
                ctx.print(format!("{}: {}", object.title(), object.phase()))?;
            }
            done.push(object);
        }
    }
    settle(ctx, &client, &mut devnets, &mut done).await?;
    match ctx.settings.format {
        Format::Json | Format::Yaml => {
            let values = done.iter().map(Object::to_value).collect::<Result<Vec<Value>, Error>>()?;
            match values.as_slice() {
                [one] => ctx.print_structured(one),
                many => ctx.print_structured(&json!({ "items": many })),
            }
        }
        Format::Name => Ok(done.iter().try_for_each(|object| ctx.print(object.reference()))?),
        Format::Table | Format::Wide => Ok(()),
    }
}

/// A dry run leaves everything as it is: it makes no home, and a devnetd that is started would start devnets.
fn none_to_ask(ctx: &Context) -> Error {
    let message = format!("the documents can be read; what they would change, devnetd knows, and none runs for {}", ctx.settings.home.display());
    Error::unreachable(message).with_remedy("dvbctl daemon start, then the same again; a dry run starts none itself")
}

/// Devnets come up side by side.
async fn settle(ctx: &Context, client: &Client, waiting: &mut Vec<Object>, done: &mut Vec<Object>) -> Result<(), Error> {
    for devnet in waiting.drain(..) {
        done.push(devnet.settled(ctx, client).await?);
    }
    Ok(())
}

/// Looks at all documents before the first of several is applied: what the daemon would refuse of one refuses them all.
pub(super) async fn check(client: &Client, documents: &[Document]) -> Result<(), Error> {
    if documents.len() < 2 {
        return Ok(()); // applying it is the check
    }
    for document in documents.iter().filter(|document| !waits_for_another(document, documents)) {
        match tokio::time::timeout(LOOK_WITHIN, send(client, document, documents, true)).await {
            Ok(Err(error)) if is_refusal(&error) => return Err(error.with_note("nothing was applied")),
            Ok(_) | Err(_) => {} // a plugin that is ill or slow keeps nobody from asking: what comes of it is told
        }
    }
    Ok(())
}

const LOOK_WITHIN: Duration = Duration::from_secs(20);

fn is_refusal(error: &Error) -> bool {
    matches!(error.exit, Exit::Refused | Exit::NotFound | Exit::Usage)
}

/// A devnet that begins with an export which the same documents ask for: only when that is there, more can be said.
fn waits_for_another(document: &Document, documents: &[Document]) -> bool {
    let Wanted::Devnet(devnet) = &document.wanted else { return false };
    let forks = devnet.spec.as_ref().and_then(|spec| spec.genesis.as_ref()).is_some_and(|genesis| genesis.from_export.is_some());
    forks && documents.iter().any(|other| matches!(other.wanted, Wanted::Export(_)))
}

/// What an apply would do. What belongs to a devnet that the same documents create is only checked.
async fn look(ctx: &Context, client: &Client, documents: &[Document]) -> Result<(), Error> {
    let (mut items, mut new) = (Vec::new(), BTreeSet::new());
    for document in documents {
        let (wanted, own) = (&document.wanted, (document.wanted.namespace().to_owned(), document.wanted.devnet()));
        let item = if waits_for_another(document, documents) {
            if !ctx.is_structured() {
                ctx.print(format!("devnet {} would be made from its export; more can be said when that is there", wanted.name()))?;
            }
            new.insert(own);
            json!({"name": format!("devnet/{}", wanted.name()), "action": "created", "changes": []})
        } else if !wanted.is_devnet() && new.contains(&own) {
            send(client, document, documents, true).await?;
            if !ctx.is_structured() {
                ctx.print(format!("{} {} would be created after its devnet; more can be said when that is there", wanted.word(), wanted.name()))?;
            }
            json!({"name": format!("{}/{}", wanted.word(), wanted.name()), "action": "created", "changes": []})
        } else {
            let made = send(client, document, documents, true).await?;
            made.note.iter().for_each(|note| ctx.note(note));
            if wanted.is_devnet() && made.action == "created" {
                new.insert(own);
            }
            if !ctx.is_structured() {
                ctx.print(foretold(&made, ctx.settings.stdout.color))?;
            }
            json!({"name": made.object.reference(), "action": made.action, "changes": render::to_value(&made.changes)?})
        };
        items.push(item);
    }
    if ctx.is_structured() { ctx.print_structured(&json!({ "items": items })) } else { Ok(()) }
}

pub(super) async fn wait(ctx: &Context, client: &Client, devnet: &Devnet) -> Result<Devnet, Error> {
    let metadata = devnet.metadata.clone().unwrap_or_default();
    let goal = Goal::Settled { generation: generation(&devnet.metadata) };
    let target = Target { namespace: metadata.namespace, devnet: metadata.name, node: None };
    let way_on = format!("dvbctl wait --for=Running {0} to go on, dvbctl delete {0} to undo; {0} stays as it is", target.devnet);
    let mut progress = Progress::new(ctx);
    let view = follow(ctx, client, &target, &goal, &way_on, |view, missing| progress.see(view, missing)).await?;
    Ok(view.devnet.unwrap_or_else(|| devnet.clone()))
}

/// `devnet mynet created`, `upgrade mynet/v2 unchanged: Completed`
fn told(made: &Made) -> String {
    let phase = made.object.phase();
    match (made.action.as_str(), phase.as_str()) {
        ("created", _) | (_, "") => format!("{} {}", made.object.title(), made.action),
        (action, phase) => format!("{} {action}: {phase}", made.object.title()),
    }
}

/// `devnet mynet would be created`, and below it what differs.
fn foretold(made: &Made, color: bool) -> String {
    let word = match made.action.as_str() {
        "unchanged" => "would stay unchanged".to_owned(),
        action => format!("would be {action}"),
    };
    let mut lines = vec![format!("{} {word}", made.object.title())];
    lines.extend(made.changes.iter().filter_map(|change| difference(change, made.object.metadata(), color)));
    lines.join("\n")
}

/// None for what is the daemon's own bookkeeping.
fn difference(change: &FieldChange, metadata: Option<&Metadata>, color: bool) -> Option<String> {
    use crate::render::table::{Tone, paint};
    let is_idle = |value: &Option<String>| value.as_deref().is_none_or(|count| count == "0");
    if change.field.starts_with("spec.operations.") && is_idle(&change.before) && is_idle(&change.after) {
        return None;
    }
    Some(match (&change.before, &change.after) {
        (None, Some(after)) if is_drawn(change, after, metadata) => paint(&format!("  + {}: drawn when applied", change.field), Tone::Good, color),
        (None, Some(after)) => paint(&format!("  + {}: {after}", change.field), Tone::Good, color),
        (Some(before), None) => paint(&format!("  - {}: {before}", change.field), Tone::Bad, color),
        (before, after) => {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            paint(&format!("  ~ {}: {} -> {}", change.field, text(before), text(after)), Tone::Busy, color)
        }
    })
}

/// A seed made of name and uid is not the document's, and the apply itself draws another.
fn is_drawn(change: &FieldChange, after: &str, metadata: Option<&Metadata>) -> bool {
    change.field == "spec.seed" && metadata.is_some_and(|metadata| after == format!("{}-{}", metadata.name, metadata.uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(field: &str, before: Option<&str>, after: Option<&str>) -> FieldChange {
        FieldChange { field: field.into(), before: before.map(Into::into), after: after.map(Into::into) }
    }

    #[test]
    fn a_dry_run_tells_what_the_document_changes_and_not_what_is_drawn_anew_each_time() {
        let metadata = Some(Metadata { name: "a".into(), uid: "01".into(), ..Metadata::default() });
        let changes = vec![
            change("spec.plugin", None, Some("exec")),
            change("spec.seed", None, Some("a-01")),
            change("spec.operations.reset", None, Some("0")),
            change("spec.operations.restart", Some("1"), Some("2")),
        ];
        let object = Object::Devnet(Box::new(Devnet { metadata, ..Devnet::default() }));
        let mut made = Made { object, action: "created".into(), changes, note: None };
        let text = foretold(&made, false);
        assert_eq!(text, "devnet a would be created\n  + spec.plugin: exec\n  + spec.seed: drawn when applied\n  ~ spec.operations.restart: 1 -> 2");
        made.changes = vec![change("spec.seed", None, Some("my-own"))];
        assert_eq!(foretold(&made, false), "devnet a would be created\n  + spec.seed: my-own");
    }
}
