//! `top`: what each node uses now.

use super::get;
use crate::{
    cli::Format,
    context::Context,
    error::Error,
    render::{
        Named, Row, Style,
        objects::{known, name},
        print_items,
        table::{Cell, Table, column},
        time::bytes,
    },
};
use dvb_proto::devnet::v1::Node;
use std::time::Duration;

/// Usage is sampled when somebody reads it: there is no event to wait for, so `-w` reads again.
const AGAIN: Duration = Duration::from_secs(2);

/// Show what nodes use: cpu, memory, descriptors
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Devnets or nodes; none: all
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Again every 2 s
    #[arg(short, long)]
    watch: bool,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    loop {
        let nodes = get::nodes(ctx, &client, &args.names, &ctx.selector()).await?;
        match ctx.settings.format {
            Format::Table | Format::Wide => {
                // Home and clear, so that the table stays in its place.
                let clear = if args.watch && ctx.settings.stdout.is_terminal { "\x1b[H\x1b[J" } else { "" };
                ctx.print(format!("{clear}{}", table(&nodes, &ctx.style())))?;
            }
            _ => print_items(ctx, &nodes, Named::Many, "nodes")?,
        }
        if !args.watch {
            return Ok(());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

fn table(nodes: &[Node], style: &Style) -> String {
    let has_chain = nodes.iter().any(Row::has_chain);
    let columns = ["NAME", "PHASE", "PID", "CPU", "MEMORY", "FDS"].into_iter().chain(has_chain.then_some("HEIGHT")).chain(["RESTARTS"]);
    let mut table = Table::new(columns.map(column).collect());
    let mut sum = (0.0, 0, 0);
    for node in nodes {
        let status = node.status.clone().unwrap_or_default();
        if let Some(usage) = status.usage {
            sum = (sum.0 + usage.cpu, sum.1 + usage.memory, sum.2 + usage.fds);
        }
        let usage = |text: fn(&dvb_proto::devnet::v1::Usage) -> String| Cell::from(status.usage.as_ref().map(text).unwrap_or_default());
        let mut cells = vec![
            name(&node.metadata).into(),
            Cell::state(&status.phase),
            status.pid.map(|pid| pid.to_string()).unwrap_or_default().into(),
            usage(|usage| format!("{:.2}", usage.cpu)),
            usage(|usage| bytes(usage.memory)),
            usage(|usage| usage.fds.to_string()),
        ];
        cells.extend(has_chain.then(|| known(status.block_height)));
        cells.push(status.restart_count.to_string().into());
        table.push(cells);
    }
    let total = [format!("{:.2}", sum.0), bytes(sum.1), sum.2.to_string()];
    let empty = || Cell::from("-");
    let [cpu, memory, fds] = total.map(Cell::from);
    let mut cells = vec!["total".into(), empty(), empty(), cpu, memory, fds, empty()];
    cells.extend(has_chain.then(empty));
    table.push(cells);
    table.render(style.width, style.color)
}
