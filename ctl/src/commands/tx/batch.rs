//! `tx batch`: a stream of transactions, one JSON object a line. A daemon that goes away in the middle is asked again: each line has
//! a request id, so none is paid twice.

use super::{
    AWAY_LIMIT, LOOK_AGAIN, failure,
    intent::{Intent, fresh_request_id},
    is_passing, phase,
    settle::Settling,
};
use crate::{
    cli::Format,
    client::Client,
    context::Context,
    error::{Error, Exit},
    render::objects::name,
};
use dvb_proto::{devnet::v1::Transaction, words::plain};
use serde_json::json;
use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, BufReader},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Lines that are read and not stored yet.
const AHEAD: usize = 2_048;
/// Failures that are shown one by one.
const SHOWN: usize = 5;

/// Submit many transactions, one JSON object a line
///
/// {"type": "bank/send", "signer": "account:0", "to": "account:1", "amount": "7stake"}
///
/// Further fields: payload, memo, gas, gasFactor, requestId.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    devnet: String,
    /// File with the lines, or - for stdin
    #[arg(short, long, value_name = "FILE")]
    file: String,
    /// Line N gets the request id ID-N, so that the same batch sent again is the same transactions
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Wait until all are Confirmed or Failed
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let client = ctx.client().await?;
    client.devnets().get(ctx.object(&args.devnet)).await?;
    let begun = Instant::now();
    let prefix = args.request_id.clone().map_or_else(fresh_request_id, Ok)?;
    check_file(&args.file)?;
    let mut settling = if args.wait { Some(Settling::begin(ctx, &client, &args.devnet).await?) } else { None };
    let lines = read_lines(&args.file, prefix.clone(), ctx.settings.namespace.clone(), args.devnet.clone())?;
    let mut batch = Batch { client: client.clone(), lines, unstored: VecDeque::new(), stored: Vec::new(), drained: false, unreadable: None };
    let sent = match &mut settling {
        Some(settling) => settling.during(batch.store()).await,
        None => batch.store().await,
    };
    let stored = std::mem::take(&mut batch.stored);
    if let Err(mut error) = sent {
        // Answers come in the order of the lines: the one that is refused is the first without one.
        if let Some((line, _)) = batch.unstored.front().filter(|_| error.exit == Exit::Refused) {
            error.fault.message = format!("{}:{line}: {}", shown(&args.file), error.fault.message);
        }
        let again = format!("dvbctl tx batch {} -f {} --request-id {prefix}", args.devnet, args.file);
        let note = format!("{} transactions before it are stored; again, none of them twice: {again}", stored.len());
        return Err(error.with_note(note));
    }
    let mut summary = Summary { total: stored.len(), ..Summary::default() };
    if let Some(settling) = settling {
        let ended = settling.stored(ctx, &client, stored).await?;
        for tx in ended.values() {
            if phase(tx) == "Confirmed" { summary.confirmed += 1 } else { summary.failed.push(tx.clone()) }
        }
    }
    summary.print(ctx, &args, begun.elapsed())
}

/// A file as it is named in errors.
fn shown(file: &str) -> &str {
    if file == "-" { "<stdin>" } else { file }
}

/// Of a file nothing is sent before each of its lines can be read. What comes through a pipe is there only once, and is sent as it comes.
fn check_file(file: &str) -> Result<(), Error> {
    if file == "-" || !std::fs::metadata(file).is_ok_and(|about| about.is_file()) {
        return Ok(());
    }
    let lines = BufReader::new(File::open(file).map_err(|error| Error::file(file, &error))?).lines();
    let checked = lines.enumerate().try_for_each(|(at, line)| parse(file, at + 1, line).map(drop));
    checked.map_err(|error| error.with_note("nothing is submitted"))
}

/// None: an empty line.
fn parse(file: &str, number: usize, line: std::io::Result<String>) -> Result<Option<Intent>, Error> {
    let line = line.map_err(|error| Error::file(file, &error))?;
    if line.trim().is_empty() {
        return Ok(None);
    }
    let wrong = |error: serde_json::Error| Error::usage(format!("{file}:{number}:{}: {}", error.column(), plain(&error.to_string())));
    serde_json::from_str(&line).map(Some).map_err(wrong)
}

/// A line of the file, counted from 1, and what it wants.
type Line = (usize, Transaction);

/// Reads in a thread of its own: stdin may come slowly, and the stream to the daemon must not wait for its end.
fn read_lines(file: &str, prefix: String, namespace: String, devnet: String) -> Result<mpsc::Receiver<Result<Line, Error>>, Error> {
    let source: Box<dyn BufRead + Send> = match file {
        "-" => Box::new(BufReader::new(std::io::stdin())),
        path => Box::new(BufReader::new(File::open(path).map_err(|error| Error::file(path, &error))?)),
    };
    let (lines, receiver) = mpsc::channel(AHEAD);
    let file = shown(file).to_owned();
    std::thread::spawn(move || {
        for (at, line) in source.lines().enumerate() {
            let number = at + 1;
            let Some(parsed) = parse(&file, number, line).transpose() else { continue };
            let tx = parsed.map(|mut intent| {
                if intent.request_id.is_empty() {
                    intent.request_id = format!("{prefix}-{number}");
                }
                (number, intent.into_transaction(&namespace, &devnet))
            });
            let last = tx.is_err();
            if lines.blocking_send(tx).is_err() || last {
                return; // nobody listens any more, or nothing after a bad line counts
            }
        }
    });
    Ok(receiver)
}

struct Batch {
    client: Client,
    lines: mpsc::Receiver<Result<Line, Error>>,
    /// Read, and not known to be stored.
    unstored: VecDeque<Line>,
    /// As the daemon answered, in the order of the lines.
    stored: Vec<Transaction>,
    /// All lines were read.
    drained: bool,
    /// The line that ended the reading.
    unreadable: Option<Error>,
}

impl Batch {
    /// Until all lines are stored, over restarts of the daemon.
    async fn store(&mut self) -> Result<(), Error> {
        let mut lost: Option<Instant> = None;
        loop {
            let before = self.stored.len();
            let status = match self.stream().await {
                Ok(()) => return self.unreadable.take().map_or(Ok(()), Err),
                Err(status) => status,
            };
            if self.stored.len() > before {
                lost = None;
            }
            let error = Error::from(status);
            let since = lost.get_or_insert_with(Instant::now);
            if !is_passing(&error) || since.elapsed() > AWAY_LIMIT {
                return Err(error);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// One stream to the daemon: first what may have been lost with the last one. Ends when all that could be read is stored.
    async fn stream(&mut self) -> Result<(), Status> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let mut to_send = self.unstored.clone();
        let mut answers = self.client.transactions().create_batch(ReceiverStream::new(receiver)).await?.into_inner();
        let mut sender = Some(sender);
        loop {
            if self.drained && to_send.is_empty() {
                sender = None; // the daemon ends its side when it has answered all
            }
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(tx)) => {
                        self.unstored.pop_front();
                        self.stored.push(tx);
                    }
                    Ok(None) if self.drained && self.unstored.is_empty() => return Ok(()),
                    Ok(None) => return Err(Status::unavailable("the stream ended early")),
                    Err(status) => return Err(status),
                },
                permit = reserve(&sender), if !to_send.is_empty() => {
                    let Some(permit) = permit else { return Err(Status::unavailable("the stream broke")) };
                    if let Some((_, tx)) = to_send.pop_front() {
                        permit.send(tx);
                    }
                }
                line = self.lines.recv(), if to_send.is_empty() && !self.drained => match line {
                    Some(Ok(line)) => {
                        self.unstored.push_back(line.clone());
                        to_send.push_back(line);
                    }
                    // What stands before it is stored first, so that it can be said how much that is.
                    Some(Err(error)) => (self.unreadable, self.drained) = (Some(error), true),
                    None => self.drained = true,
                },
            }
        }
    }
}

async fn reserve(sender: &Option<mpsc::Sender<Transaction>>) -> Option<mpsc::Permit<'_, Transaction>> {
    match sender {
        Some(sender) => sender.reserve().await.ok(),
        None => std::future::pending().await,
    }
}

#[derive(Default)]
struct Summary {
    total: usize,
    confirmed: usize,
    failed: Vec<Transaction>,
}

impl Summary {
    fn print(self, ctx: &Context, args: &Args, took: Duration) -> Result<(), Error> {
        let seconds = took.as_secs_f64();
        if matches!(ctx.settings.format, Format::Json | Format::Yaml) {
            let value = json!({"total": self.total, "confirmed": self.confirmed, "failed": self.failed.len(), "seconds": seconds});
            ctx.print_structured(&value)?;
        } else if args.wait {
            let rate = self.confirmed as f64 / seconds.max(0.001);
            ctx.print(format!(
                "{} transactions: {} confirmed, {} failed, in {seconds:.1} s ({rate:.0}/s)",
                self.total,
                self.confirmed,
                self.failed.len()
            ))?;
        } else {
            ctx.print(format!("{} transactions are stored; dvbctl tx list {} shows how they do", self.total, args.devnet))?;
        }
        let Some(first) = self.failed.first() else { return Ok(()) };
        let mut error = Error::failed("TransactionFailed", format!("{} of {} transactions failed", self.failed.len(), self.total));
        error = error.about(args.devnet.as_str()).with_remedy(format!("dvbctl why {}", name(&first.metadata)));
        Err(self.failed.iter().take(SHOWN).fold(error, |error, tx| error.with_note(failure(tx).fault.message.clone())))
    }
}
