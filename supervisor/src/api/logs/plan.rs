//! Which parts of which log files a request takes. Blocking: it looks into the files.

use crate::{
    logs::{self, Item, LogReader, since_offset, tail_offset},
    model::{Fault, FaultCode, Launch, LaunchId, LaunchPhase, Timestamp},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Lines per node, over all its launches.
    pub(super) tail: Option<usize>,
    pub(super) since: Option<Timestamp>,
    pub(super) launch: Option<LaunchId>,
    pub(super) previous: bool,
    /// By full name of a node: where to read on in which launch.
    pub(super) after: BTreeMap<String, (LaunchId, u64)>,
}

/// One file from `start` to `end`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Piece {
    pub(super) node: String,
    pub(super) launch: LaunchId,
    pub(super) path: PathBuf,
    pub(super) start: u64,
    /// The file's size when it was planned: a node that writes faster than it is read must not keep a plain read going.
    pub(super) end: u64,
    /// The newest of its node that is taken.
    pub(super) last: bool,
    pub(super) phase: LaunchPhase,
}

impl Piece {
    /// All of it behind `start`.
    fn of(node: &str, launch: &Launch, start: u64, last: bool) -> Self {
        let path = PathBuf::from(&launch.spec.log_path);
        let end = logs::size(&path).unwrap_or(0);
        Self { node: node.to_owned(), launch: launch.spec.launch_id.clone(), path, start, end, last, phase: launch.status.phase }
    }
}

/// Node by node in the given order, each node's launches from the oldest on.
pub(super) fn plan(nodes: &[String], launches: &[Arc<Launch>], wanted: &Wanted) -> Result<Vec<Piece>, Fault> {
    let mut pieces = Vec::new();
    for node in nodes {
        let mut own: Vec<&Launch> = launches.iter().map(Arc::as_ref).filter(|launch| launch.spec.node_ref == *node).collect();
        own.sort_by(|a, b| order(a).cmp(&order(b)));
        match &wanted.launch {
            Some(id) => own.retain(|launch| launch.spec.launch_id == *id),
            None if wanted.previous => own = own.iter().rev().nth(1).copied().into_iter().collect(),
            None => {}
        }
        pieces.extend(match wanted.after.get(node) {
            Some(cursor) => after(node, &own, cursor),
            None => of_node(node, &own, wanted)?,
        });
    }
    if let Some(id) = &wanted.launch
        && !launches.iter().any(|launch| launch.spec.launch_id == *id && nodes.contains(&launch.spec.node_ref))
    {
        let fault = Fault::new(FaultCode::NotFound, format!("there is no launch `{id}` of these nodes"));
        return Err(fault.about(id.to_string()).remedy("dvbctl get launches"));
    }
    Ok(pieces)
}

/// Launch ids are ordered by time, but the time comes first where both are known.
fn order(launch: &Launch) -> (Timestamp, &LaunchId) {
    (launch.metadata.created_at, &launch.spec.launch_id)
}

/// From the newest launch back, until there are lines enough.
fn of_node(node: &str, launches: &[&Launch], wanted: &Wanted) -> Result<Vec<Piece>, Fault> {
    let mut pieces = Vec::new();
    let mut left = wanted.tail;
    for (back, launch) in launches.iter().rev().enumerate() {
        let too_old = wanted.since.is_some_and(|since| launch.status.ended_at.is_some_and(|ended| ended < since));
        if too_old || (back > 0 && left == Some(0)) {
            break;
        }
        let mut piece = Piece::of(node, launch, 0, back == 0);
        let there = logs::size(&piece.path).is_some();
        if there {
            let (start, lines) = begin(&piece.path, launch, wanted.since, left).map_err(|error| error.fault())?;
            piece.start = start;
            left = left.map(|left| left.saturating_sub(lines));
        }
        // A launch that has no file yet counts when it is the newest: there will be one.
        if there || back == 0 {
            pieces.push(piece);
        }
    }
    pieces.reverse();
    Ok(pieces)
}

/// The launch of the cursor from its offset on, and all that came later. It may be gone; then its id tells which are later.
fn after(node: &str, launches: &[&Launch], (id, offset): &(LaunchId, u64)) -> Vec<Piece> {
    let there = launches.iter().position(|launch| launch.spec.launch_id == *id);
    let first = there.unwrap_or_else(|| launches.partition_point(|launch| launch.spec.launch_id < *id));
    let left = &launches[first..];
    let piece = |(index, launch): (usize, &&Launch)| {
        let start = if launch.spec.launch_id == *id { *offset } else { 0 };
        Piece::of(node, launch, start, index + 1 == left.len())
    };
    left.iter().enumerate().map(piece).collect()
}

/// Where to begin in one file, and how many lines of the wanted tail it has.
fn begin(path: &Path, launch: &Launch, since: Option<Timestamp>, tail: Option<usize>) -> Result<(u64, usize), crate::logs::LogError> {
    let by_time = match since {
        Some(since) => since_offset(path, since, launch.status.started_at.unwrap_or(launch.metadata.created_at))?,
        None => 0,
    };
    let Some(tail) = tail else { return Ok((by_time, 0)) };
    let by_lines = tail_offset(path, tail)?;
    if by_lines > by_time {
        return Ok((by_lines, tail));
    }
    // All of the file counts: it has at most `tail` lines.
    let mut reader = LogReader::open(path, by_time)?;
    let mut lines = 0;
    while lines < tail
        && let Some(item) = reader.next_or_rest()?
    {
        lines += usize::from(matches!(item, Item::Line { .. }));
    }
    Ok((by_time, lines))
}
