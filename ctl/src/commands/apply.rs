//! `apply`: create or update devnets to match documents.

use super::generation;
use crate::{
    cli::Format,
    client::Client,
    context::Context,
    document::{Document, DocumentError, load},
    error::{Error, Exit},
    follow::{Target, follow},
    goal::Goal,
    render::{self, Named, Row, objects::name, print_items, progress::Progress},
};
use dvb_proto::devnet::v1::{ApplyRequest, ApplyResponse, Devnet, FieldChange};
use serde_json::json;

/// Create or change devnets to match YAML or JSON documents
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File, folder, or - for stdin; may be given several times
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    file: Vec<String>,
    /// Change nothing; show field by field what would change
    #[arg(long)]
    dry_run: bool,
    /// Wait until the devnets are as asked for
    #[arg(long)]
    wait: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let documents = load(&args.file, &ctx.settings.namespace, &ctx.settings.env, &ctx.settings.cwd)?;
    let client = ctx.client().await?;
    let mut applied = Vec::new();
    for document in &documents {
        let response = send(&client, document, args.dry_run).await?;
        if matches!(ctx.settings.format, Format::Table | Format::Wide) {
            ctx.print(told(&response, args.dry_run, ctx.settings.stdout.color))?;
        }
        applied.push(response);
    }
    if args.wait && !args.dry_run {
        for devnet in applied.iter_mut().filter_map(|response| response.devnet.as_mut()) {
            *devnet = wait(ctx, &client, devnet).await?;
        }
    }
    match ctx.settings.format {
        Format::Json | Format::Yaml if args.dry_run => {
            let item = |response: &ApplyResponse| {
                Ok(
                    json!({"name": response.devnet.as_ref().map(Row::reference), "action": response.action, "changes": render::to_value(&response.changes)?}),
                )
            };
            let items: Vec<_> = applied.iter().map(item).collect::<Result<_, Error>>()?;
            ctx.print_structured(&json!({ "items": items }))
        }
        Format::Json | Format::Yaml | Format::Name => {
            let named = if applied.len() == 1 { Named::One } else { Named::Many };
            let devnets: Vec<Devnet> = applied.into_iter().filter_map(|response| response.devnet).collect();
            print_items(ctx, &devnets, named, "devnets")
        }
        Format::Table | Format::Wide => Ok(()),
    }
}

/// Applies one document; faults of the spec come back with their place in it.
pub(super) async fn send(client: &Client, document: &Document, dry_run: bool) -> Result<ApplyResponse, Error> {
    let request = ApplyRequest { devnet: Some(document.devnet.clone()), dry_run };
    match client.devnets().apply(request).await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => Err(with_places(status.into(), document)),
    }
}

fn with_places(mut error: Error, document: &Document) -> Error {
    if error.exit == Exit::Refused && !error.fault.violations.is_empty() {
        error.document = Some(DocumentError::from_violations(&document.source, &document.tree, &error.fault.violations));
    }
    error
}

pub(super) async fn wait(ctx: &Context, client: &Client, devnet: &Devnet) -> Result<Devnet, Error> {
    let metadata = devnet.metadata.clone().unwrap_or_default();
    let goal = Goal::Settled { generation: generation(&devnet.metadata) };
    let target = Target { namespace: metadata.namespace, devnet: metadata.name, node: None };
    let way_on = format!("dvbctl wait --for=Running {0} to go on, dvbctl delete {0} to undo; {0} stays as it is", target.devnet);
    let mut progress = Progress::new(ctx);
    let view = follow(ctx, client, &target, &goal, &way_on, |view| progress.see(view)).await?;
    Ok(view.devnet.unwrap_or_else(|| devnet.clone()))
}

/// `devnet mynet created`, and below it what differs.
fn told(response: &ApplyResponse, dry_run: bool, color: bool) -> String {
    let name = response.devnet.as_ref().map_or("", |devnet| name(&devnet.metadata));
    let word = match (dry_run, response.action.as_str()) {
        (true, "unchanged") => "would stay unchanged".to_owned(),
        (true, action) => format!("would be {action}"),
        (false, action) => action.to_owned(),
    };
    let mut lines = vec![format!("devnet {name} {word}")];
    if dry_run {
        lines.extend(response.changes.iter().filter_map(|change| difference(change, response, color)));
    }
    lines.join("\n")
}

/// None for what is the daemon's own bookkeeping.
fn difference(change: &FieldChange, response: &ApplyResponse, color: bool) -> Option<String> {
    use crate::render::table::{Tone, paint};
    let is_idle = |value: &Option<String>| value.as_deref().is_none_or(|count| count == "0");
    if change.field.starts_with("spec.operations.") && is_idle(&change.before) && is_idle(&change.after) {
        return None;
    }
    Some(match (&change.before, &change.after) {
        (None, Some(after)) if is_drawn(change, after, response) => paint(&format!("  + {}: drawn when applied", change.field), Tone::Good, color),
        (None, Some(after)) => paint(&format!("  + {}: {after}", change.field), Tone::Good, color),
        (Some(before), None) => paint(&format!("  - {}: {before}", change.field), Tone::Bad, color),
        (before, after) => {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            paint(&format!("  ~ {}: {} -> {}", change.field, text(before), text(after)), Tone::Busy, color)
        }
    })
}

/// A seed made of name and uid is not the document's, and the apply itself draws another.
fn is_drawn(change: &FieldChange, after: &str, response: &ApplyResponse) -> bool {
    let metadata = response.devnet.as_ref().and_then(|devnet| devnet.metadata.as_ref());
    change.field == "spec.seed" && metadata.is_some_and(|metadata| after == format!("{}-{}", metadata.name, metadata.uid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvb_proto::devnet::v1::Metadata;

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
        let devnet = Some(Devnet { metadata, ..Devnet::default() });
        let mut response = ApplyResponse { devnet, action: "created".into(), changes };
        let text = told(&response, true, false);
        assert_eq!(text, "devnet a would be created\n  + spec.plugin: exec\n  + spec.seed: drawn when applied\n  ~ spec.operations.restart: 1 -> 2");
        response.changes = vec![change("spec.seed", None, Some("my-own"))];
        assert_eq!(told(&response, true, false), "devnet a would be created\n  + spec.seed: my-own");
    }
}
