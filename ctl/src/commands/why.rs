//! `why`: the story of an object's state, from the newest effect back to the user's request.

use crate::{
    cli::Format,
    context::Context,
    error::Error,
    follow::Target,
    kind::Kind,
    render::{
        Style,
        table::{paint, tone},
        time::age,
    },
};
use dvb_proto::devnet::v1::{Event, ExplainRequest, ExplainResponse};

/// Tell why a devnet, node or transaction is as it is
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    name: String,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    let target = Target::parse(&ctx.settings.namespace, &args.name);
    let kind = match Kind::of(&args.name) {
        Kind::Transaction => "Transaction",
        Kind::Node => "Node",
        _ => "Devnet",
    };
    let request = ExplainRequest { kind: kind.to_owned(), namespace: target.namespace.clone(), name: args.name };
    let told = client.devnets().explain(request).await?.into_inner();
    match ctx.settings.format {
        Format::Table | Format::Wide => Ok(ctx.print(story(&told, &ctx.style()))?),
        Format::Json | Format::Yaml => ctx.print_structured(&told),
        Format::Name => Ok(told.chain.iter().try_for_each(|event| ctx.print(format!("event/{}", event.id)))?),
    }
}

fn story(told: &ExplainResponse, style: &Style) -> String {
    let mut lines = vec![told.headline.clone()];
    for (i, event) in told.chain.iter().enumerate() {
        let link = if i == 0 { "  " } else { "  because " };
        let who = if event.actor.is_empty() { String::new() } else { format!("  [{}]", event.actor) };
        let reason = paint(&event.reason, if event.r#type == "Warning" { tone("Warning") } else { tone("") }, style.color);
        lines.push(format!("{link}{} ago  {}  {reason}: {}{who}", age(&event.time, style.now), event.name, one_line(&event.message)));
        if let Some(detail) = detail(event) {
            lines.push(format!("      {detail}"));
        }
    }
    if told.chain.is_empty() {
        lines.push("  no event is kept that tells more".to_owned());
    }
    lines.join("\n")
}

/// `saw exit code 1, wanted running, did restart: ok`
fn detail(event: &Event) -> Option<String> {
    let part = |word: &str, text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(|text| format!("{word} {}", one_line(text)));
    let parts: Vec<String> = [part("saw", &event.observed), part("wanted", &event.desired), part("did", &event.action), part("got", &event.result)]
        .into_iter()
        .flatten()
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_story_goes_from_the_newest_effect_back_to_the_request() {
        let event = |time: &str, reason: &str, message: &str, actor: &str| Event {
            time: time.into(),
            name: "mynet/validator-0".into(),
            r#type: "Normal".into(),
            reason: reason.into(),
            message: message.into(),
            actor: actor.into(),
            ..Event::default()
        };
        let died = Event {
            r#type: "Warning".into(),
            observed: Some("SIGKILL".into()),
            action: Some("restart in 5s".into()),
            ..event("2026-01-01T23:59:50.000Z", "NodeDied", "killed by SIGKILL", "controller/node")
        };
        let told = ExplainResponse {
            headline: "mynet/validator-0 is in Backoff: killed by SIGKILL".into(),
            chain: vec![died, event("2026-01-01T23:00:00.000Z", "Created", "devnet created", "user:1000")],
        };
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let style = Style { wide: false, namespaces: false, color: false, width: None, now };
        insta::assert_snapshot!(story(&told, &style), @r"
        mynet/validator-0 is in Backoff: killed by SIGKILL
          10s ago  mynet/validator-0  NodeDied: killed by SIGKILL  [controller/node]
              saw SIGKILL, did restart in 5s
          because 60m ago  mynet/validator-0  Created: devnet created  [user:1000]
        ");
    }
}
