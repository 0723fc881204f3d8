//! `why`: the story of an object's state, from the newest effect back to the user's request.

use crate::{
    cli::Format,
    context::Context,
    error::Error,
    follow::Target,
    kind::{Kind, split},
    render::{
        Style,
        table::{paint, tone},
        time::age,
    },
};
use dvb_proto::devnet::v1::{Event, ExplainRequest, ExplainResponse};
use std::collections::BTreeSet;

/// Tell why a devnet, node, transaction, upgrade or export is as it is
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// [KIND] NAME
    #[arg(required = true, num_args = 1..=2, value_name = "NAME")]
    words: Vec<String>,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    let (kind, names) = split(&args.words);
    let [name] = names else { return Err(Error::usage("name one object").with_remedy("dvbctl why NAME")) };
    let target = Target::parse(&ctx.settings.namespace, name);
    let kind = match kind {
        Some(Kind::Upgrade) => "Upgrade",
        Some(Kind::Export) => "Export",
        Some(Kind::Transaction) => "Transaction",
        Some(Kind::Node) => "Node",
        Some(Kind::Devnet) => "Devnet",
        None => "", // the daemon knows
        Some(kind) => return Err(Error::usage(format!("there is no story of {}", kind.word())).with_remedy("dvbctl why NAME")),
    };
    let request = ExplainRequest { kind: kind.to_owned(), namespace: target.namespace.clone(), name: name.clone() };
    let told = client.devnets().explain(request).await?.into_inner();
    match ctx.settings.format {
        Format::Table | Format::Wide => Ok(ctx.print(story(&told, &ctx.style()))?),
        Format::Json | Format::Yaml => ctx.print_structured(&told),
        Format::Name => Ok(told.chain.iter().try_for_each(|event| ctx.print(format!("event/{}", event.id)))?),
    }
}

/// Newest effect first. What the headline, or the line above, has said is not said again.
fn story(told: &ExplainResponse, style: &Style) -> String {
    let mut lines = vec![told.headline.clone()];
    let mut said = BTreeSet::new();
    for (i, event) in told.chain.iter().enumerate() {
        let link = if i == 0 { "  " } else { "  because " };
        let who = if event.actor.is_empty() { String::new() } else { format!("  [{}]", event.actor) };
        let reason = paint(&event.reason, if event.r#type == "Warning" { tone("Warning") } else { tone("") }, style.color);
        // An older event may have the same words for another turn of the same kind.
        let is_old = told.headline.contains(&event.message) && said.insert(event.message.as_str());
        let message = if is_old { String::new() } else { format!(": {}", one_line(&event.message)) };
        lines.push(format!("{link}{} ago  {}  {reason}{message}{who}", age(&event.time, style.now), event.name));
        let cause = told.chain.get(i + 1).map_or("", |cause| cause.message.as_str());
        let is_told = |text: &str| told.headline.contains(text) || event.message.contains(text) || cause.contains(text);
        if let Some(detail) = detail(event, is_told) {
            lines.push(format!("      {detail}"));
        }
    }
    if told.chain.is_empty() {
        lines.push("  no event is kept that tells more".to_owned());
    }
    lines.join("\n")
}

/// `saw exit code 1, wanted running, did restart`
fn detail(event: &Event, is_told: impl Fn(&str) -> bool) -> Option<String> {
    let part = |word: &str, text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(|text| format!("{word} {}", one_line(text)));
    let news = |text: &Option<String>| text.clone().filter(|text| !is_told(text));
    let (observed, result) = (news(&event.observed), news(&event.result));
    let parts: Vec<String> =
        [part("saw", &observed), part("wanted", &event.desired), part("did", &event.action), part("got", &result)].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_story_goes_from_the_newest_effect_back_to_the_request_and_says_each_cause_once() {
        let event = |time: &str, reason: &str, message: &str, actor: &str| Event {
            time: time.into(),
            name: "mynet/validator-0".into(),
            r#type: "Normal".into(),
            reason: reason.into(),
            message: message.into(),
            actor: actor.into(),
            ..Event::default()
        };
        let cause = "killed with SIGKILL by somebody other than devnetd";
        let backoff = Event {
            observed: Some(cause.into()),
            desired: Some("running".into()),
            ..event("2026-01-01T23:59:51.000Z", "BackOff", "restarts in 5s", "controller/node")
        };
        let died = Event { r#type: "Warning".into(), ..event("2026-01-01T23:59:50.000Z", "Died", cause, "controller/node") };
        let started = Event { result: Some("pid 7".into()), ..event("2026-01-01T23:59:00.000Z", "Started", "runs as pid 7", "controller/node") };
        let before = Event {
            action: Some("wait".into()),
            observed: Some("exit code 1".into()),
            ..event("2026-01-01T23:58:50.000Z", "Died", "exit code 1", "controller/node")
        };
        let told = ExplainResponse {
            headline: format!("mynet/validator-0 is in Backoff: {cause}"),
            chain: vec![backoff, died, started, before, event("2026-01-01T23:00:00.000Z", "Created", "devnet created", "user:1000")],
        };
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let style = Style { wide: false, chain: true, namespaces: false, color: false, width: None, now };
        insta::assert_snapshot!(story(&told, &style), @r"
        mynet/validator-0 is in Backoff: killed with SIGKILL by somebody other than devnetd
          9s ago  mynet/validator-0  BackOff: restarts in 5s  [controller/node]
              wanted running
          because 10s ago  mynet/validator-0  Died  [controller/node]
          because 60s ago  mynet/validator-0  Started: runs as pid 7  [controller/node]
          because 70s ago  mynet/validator-0  Died: exit code 1  [controller/node]
              did wait
          because 60m ago  mynet/validator-0  Created: devnet created  [user:1000]
        ");
    }
}
