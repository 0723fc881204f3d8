//! Reads planned pieces one after another, a batch at a time, as the client takes them.

use super::{Entries, entry, failed, missing, plan::Piece};
use crate::{
    logs::{Item, LogError, LogReader},
    model::LaunchPhase,
};
use dvb_proto::devnet::v1;
use futures::{StreamExt, stream};
use std::{collections::VecDeque, io::ErrorKind};

/// Bytes that are read ahead of the client, about.
const BATCH: usize = 128 << 10;
const BATCH_LINES: usize = 512;

struct Reading {
    left: VecDeque<Piece>,
    open: Option<(Piece, LogReader)>,
}

pub(super) fn read(pieces: Vec<Piece>) -> Entries {
    let reading = Some(Reading { left: pieces.into(), open: None });
    stream::unfold(reading, |reading| async move {
        let reading = reading?;
        let step = tokio::task::spawn_blocking(move || next_batch(reading)).await;
        match step.unwrap_or_else(|panic| Err(LogError::Io { path: Default::default(), source: std::io::Error::other(panic) })) {
            Ok(None) => None,
            Ok(Some((batch, reading))) => Some((batch.into_iter().map(Ok).collect(), Some(reading))),
            Err(error) => Some((vec![Err(failed(&error))], None)),
        }
    })
    .map(stream::iter)
    .flatten()
    .boxed()
}

/// None at the end of the last piece. Blocking.
fn next_batch(mut reading: Reading) -> Result<Option<(Vec<v1::LogEntry>, Reading)>, LogError> {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH && batch.len() < BATCH_LINES {
        let (piece, mut reader) = match reading.open.take() {
            Some(open) => open,
            None => {
                let Some(piece) = reading.left.pop_front() else { break };
                match LogReader::open(&piece.path, piece.start) {
                    Ok(reader) => (piece, reader),
                    // It was there when it was planned, or never was: retention and `delete` may take it at any time.
                    Err(LogError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                        // The file of one that runs was there before its process.
                        batch.extend((piece.phase == LaunchPhase::Running).then(|| missing(&piece.node, &piece.launch)));
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        match reader.next_or_rest()? {
            Some(Item::Line { offset, .. } | Item::Lost { from: offset, .. }) if offset >= piece.end => {}
            Some(item) => {
                let entry = entry(&piece.node, &piece.launch, item);
                bytes += entry.line.len();
                batch.push(entry);
                reading.open = Some((piece, reader));
            }
            None if piece.phase == LaunchPhase::Running && reader.is_deleted()? => batch.push(missing(&piece.node, &piece.launch)),
            None => {}
        }
    }
    let over = batch.is_empty() && reading.open.is_none() && reading.left.is_empty();
    Ok((!over).then_some((batch, reading)))
}
