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
use dvb_proto::devnet::v1::{Node, Usage};
use std::time::Duration;

/// Usage is sampled when somebody reads it: there is no event to wait for, so `-w` reads again.
const AGAIN: Duration = Duration::from_secs(2);

/// Show what nodes use: cpu, memory, disk, descriptors
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
    let has_pressure = nodes.iter().any(|node| usage_of(node).is_some_and(|usage| usage.memory_pressure.is_some()));
    let pressure = has_pressure.then_some("PRESSURE");
    let columns = ["NAME", "PHASE", "PID", "CPU", "MEMORY"]
        .into_iter()
        .chain(pressure)
        .chain(["FDS", "READ", "WRITTEN"])
        .chain(has_chain.then_some("HEIGHT"))
        .chain(["RESTARTS"]);
    let mut table = Table::new(columns.map(column).collect());
    let mut sum = Usage::default();
    for node in nodes {
        let status = node.status.clone().unwrap_or_default();
        status.usage.iter().for_each(|usage| add(&mut sum, usage));
        let mut cells =
            vec![name(&node.metadata).into(), Cell::state(&status.phase), status.pid.map(|pid| pid.to_string()).unwrap_or_default().into()];
        cells.extend(usage_cells(status.usage.as_ref(), has_pressure));
        cells.extend(has_chain.then(|| known(status.block_height)));
        cells.push(status.restart_count.to_string().into());
        table.push(cells);
    }
    let empty = || Cell::from("-");
    let mut cells = vec!["total".into(), empty(), empty()];
    cells.extend(usage_cells(Some(&sum), has_pressure));
    cells.push(empty());
    cells.extend(has_chain.then(empty));
    table.push(cells);
    table.render(style.width, style.color)
}

fn usage_of(node: &Node) -> Option<&Usage> {
    node.status.as_ref()?.usage.as_ref()
}

fn usage_cells(usage: Option<&Usage>, has_pressure: bool) -> Vec<Cell> {
    let of = |text: &dyn Fn(&Usage) -> Option<String>| Cell::from(usage.and_then(text).unwrap_or_default());
    let mut cells = vec![of(&|usage| Some(format!("{:.2}", usage.cpu))), of(&|usage| Some(bytes(usage.memory)))];
    cells.extend(has_pressure.then(|| of(&|usage| Some(format!("{:.1} %", usage.memory_pressure.as_ref()?.some)))));
    cells.extend([of(&|usage| Some(usage.fds.to_string())), of(&|usage| usage.io_read.map(bytes)), of(&|usage| usage.io_written.map(bytes))]);
    cells
}

/// Pressures are no amounts: there is no sum of them.
fn add(sum: &mut Usage, usage: &Usage) {
    let both = |sum: Option<u64>, one: Option<u64>| one.map(|one| one + sum.unwrap_or_default()).or(sum);
    (sum.cpu, sum.memory, sum.fds) = (sum.cpu + usage.cpu, sum.memory + usage.memory, sum.fds + usage.fds);
    (sum.io_read, sum.io_written) = (both(sum.io_read, usage.io_read), both(sum.io_written, usage.io_written));
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvb_proto::devnet::v1::MemoryPressure;

    fn text(usage: Option<&Usage>, has_pressure: bool) -> Vec<String> {
        usage_cells(usage, has_pressure).into_iter().map(|cell| cell.text).collect()
    }

    #[test]
    fn pressure_has_a_column_only_where_the_kernel_tells_it_and_no_sum() {
        let told =
            Usage { memory: 1 << 20, memory_pressure: Some(MemoryPressure { some: 2.5, full: 0.0 }), io_read: Some(1 << 20), ..Usage::default() };
        assert_eq!(text(Some(&told), true), ["0.00", "1.0Mi", "2.5 %", "0", "1.0Mi", "-"]);
        let mut sum = Usage::default();
        add(&mut sum, &told);
        add(&mut sum, &told);
        assert_eq!(text(Some(&sum), true), ["0.00", "2.0Mi", "-", "0", "2.0Mi", "-"]);
        assert_eq!(text(None, false), ["-"; 5]);
    }
}
