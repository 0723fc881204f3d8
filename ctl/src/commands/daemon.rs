//! `daemon`: devnetd itself: start, stop, status, restart, reload, logs, install, uninstall, doctor.

mod doctor;
mod install;

use crate::{
    cli::Format,
    client::Client,
    context::Context,
    error::Error,
    launch,
    render::{progress::Progress, time},
    service,
};
use clap::Subcommand;
use dvb_proto::devnet::v1::{DaemonStatus, Empty, ShutdownProgress, ShutdownRequest};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};
use tokio::time::sleep;
use tonic::Streaming;

/// The daemon waits ten seconds for its controllers.
const GONE_WITHIN_SECS: i64 = 15;
/// The old program may still have taken a call that came on the heels of its last word; nothing tells when it no longer does.
const OLD_ANSWERS: u32 = 3;
const OLD_ANSWER_PAUSE: Duration = Duration::from_millis(200);

/// The daemon: start, stop, status, restart, reload, logs, install, uninstall, doctor
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start devnetd unless it runs
    Start,
    /// Stop devnetd; nodes go on running
    Stop {
        /// Stop the nodes too; the next devnetd starts them again
        #[arg(long)]
        with_nodes: bool,
    },
    /// Tell whether devnetd runs, and how it does
    Status,
    /// Stop and start devnetd, with the limits and the environment of now; nodes go on running, and the new devnetd adopts them
    Restart,
    /// Have devnetd execute its program anew, as after an upgrade; nodes go on running as its children
    Reload,
    /// Print devnetd's own log
    Logs {
        /// Go on as lines come
        #[arg(short, long)]
        follow: bool,
        /// The last N lines
        #[arg(long, value_name = "N")]
        tail: Option<usize>,
    },
    /// Make devnetd a systemd user service
    Install {
        /// Start it too; a devnetd that runs gives way, its nodes go on running
        #[arg(long)]
        now: bool,
    },
    /// Remove the systemd user service; nodes go on running
    Uninstall,
    /// Tell what this machine lacks for devnetd, and the commands that mend it
    Doctor,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    match args.verb {
        Verb::Start => start(ctx).await,
        Verb::Stop { with_nodes } => match running(ctx).await? {
            Some(client) => {
                stop(ctx, client, with_nodes).await?;
                Ok(ctx.print("devnetd stopped")?)
            }
            None => Ok(ctx.print("devnetd does not run")?),
        },
        Verb::Status => match running(ctx).await? {
            Some(client) => show(ctx, &client.daemon().status(Empty {}).await?.into_inner()),
            None => Err(Error::unreachable(format!("devnetd does not run for {}", ctx.settings.home.display())).with_remedy("dvbctl daemon start")),
        },
        Verb::Restart => {
            match running(ctx).await? {
                Some(client) => stop(ctx, client, false).await?,
                None => launch::may_begin_here(ctx)?,
            }
            start(ctx).await
        }
        Verb::Reload => reload(ctx).await,
        Verb::Logs { follow, tail } => logs(&ctx.settings.daemon_log(), follow, tail),
        Verb::Install { now } => install::install(ctx, now).await,
        Verb::Uninstall => install::uninstall(ctx).await,
        Verb::Doctor => doctor::run(ctx).await,
    }
}

/// The daemon that runs. Where connecting would start the service, none does.
async fn running(ctx: &Context) -> Result<Option<Client>, Error> {
    if service::rests(ctx).await { Ok(None) } else { Client::connect_running(ctx).await }
}

async fn who_answers(ctx: &Context) -> Result<Option<DaemonStatus>, Error> {
    match running(ctx).await? {
        Some(client) => client.handshake(ctx).await.map(Some),
        None => Ok(None),
    }
}

async fn start(ctx: &Context) -> Result<(), Error> {
    let (status, word) = match who_answers(ctx).await {
        Ok(Some(status)) => (status, "runs already"),
        // One that was just killed may still take a call, which it never answers.
        Err(error) if !error.is_lost() => return Err(error),
        _ => {
            launch::start(ctx).await?;
            (ctx.client().await?.handshake(ctx).await?, "started")
        }
    };
    match ctx.settings.format {
        Format::Json | Format::Yaml => ctx.print_structured(&status),
        _ => Ok(ctx.print(format!("devnetd {word}, pid {}, home {}", status.pid, status.home))?),
    }
}

/// The stream tells how it goes. Returns when the process is gone, so that its socket answers nobody any more.
async fn stop(ctx: &Context, client: Client, with_nodes: bool) -> Result<(), Error> {
    let pid = client.handshake(ctx).await?.pid;
    let process = Pid::from_raw(pid.cast_signed()).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    until_its_last_word(ctx, client.daemon().shutdown(ShutdownRequest { with_nodes }).await?.into_inner()).await?;
    drop(client); // the daemon waits until its connections are closed
    let Some(process) = process else { return Ok(()) };
    let gone = tokio::task::spawn_blocking(move || {
        let limit = Timespec { tv_sec: GONE_WITHIN_SECS, tv_nsec: 0 };
        !matches!(poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)), Ok(0))
    });
    match gone.await {
        Ok(false) => Err(Error::failed("TimedOut", format!("devnetd (pid {pid}) closed its socket, but its process does not end"))),
        _ => Ok(()),
    }
}

/// Whoever connects meanwhile waits at the socket, so the answer to the next handshake is the new program's.
async fn reload(ctx: &Context) -> Result<(), Error> {
    let Some(client) = running(ctx).await? else {
        return Err(Error::unreachable(format!("devnetd does not run for {}", ctx.settings.home.display())).with_remedy("dvbctl daemon start"));
    };
    let before = client.handshake(ctx).await?;
    until_its_last_word(ctx, client.daemon().reload(Empty {}).await?.into_inner()).await?;
    drop(client); // the daemon waits until its connections are closed
    let lost = || Error::unreachable(format!("devnetd (pid {}) did not come back", before.pid)).with_remedy("dvbctl daemon start");
    let mut after = Client::connect_running(ctx).await?.ok_or_else(lost)?.handshake(ctx).await?;
    for _ in 0..OLD_ANSWERS {
        if after.started_at != before.started_at {
            break;
        }
        sleep(OLD_ANSWER_PAUSE).await;
        after = Client::connect_running(ctx).await?.ok_or_else(lost)?.handshake(ctx).await?;
    }
    if after.started_at == before.started_at {
        let message = format!("devnetd (pid {}) could not execute its program anew and serves on as it was", after.pid);
        return Err(Error::failed("ReloadFailed", message).with_remedy("dvbctl daemon logs"));
    }
    match ctx.settings.format {
        Format::Json | Format::Yaml => ctx.print_structured(&after),
        _ => Ok(ctx.print(format!("devnetd reloaded, version {}, pid {}", after.version, after.pid))?),
    }
}

/// Shows how the daemon gets on, until it has said all.
async fn until_its_last_word(ctx: &Context, mut steps: Streaming<ShutdownProgress>) -> Result<(), Error> {
    let progress = Progress::new(ctx);
    let mut done = false;
    loop {
        match steps.message().await {
            Ok(Some(step)) => {
                done |= step.done;
                progress.say(&step.message);
            }
            Ok(None) => return Ok(()),
            // After its last word the daemon may be gone before the stream has ended in order.
            Err(_) if done => return Ok(()),
            Err(status) => return Err(status.into()),
        }
    }
}

fn show(ctx: &Context, status: &DaemonStatus) -> Result<(), Error> {
    match ctx.settings.format {
        Format::Json | Format::Yaml => return ctx.print_structured(status),
        Format::Name => return Ok(ctx.print("daemon/devnetd")?),
        Format::Table | Format::Wide => {}
    }
    let limits =
        if status.cgroup_message.is_empty() { status.cgroup_driver.clone() } else { format!("{}: {}", status.cgroup_driver, status.cgroup_message) };
    let lines = [
        ("devnetd", format!("{}, pid {}, up {}", status.version, status.pid, time::age(&status.started_at, (ctx.now)()))),
        ("home", status.home.clone()),
        ("socket", status.socket.clone()),
        ("log", status.log_path.clone()),
        ("devnets", format!("{}, {} nodes running", status.devnets, status.nodes_running)),
        ("cgroups", limits),
        ("used", format!("cpu {:.1}s, memory {}", status.cpu_seconds, time::bytes(status.memory))),
    ];
    Ok(lines.iter().try_for_each(|(label, value)| ctx.print(format!("{:<10}{value}", format!("{label}:"))))?)
}

/// The log belongs to the home, so it is read here: it must be readable also when devnetd does not run.
fn logs(path: &Path, follow: bool, tail: Option<usize>) -> Result<(), Error> {
    let failed = |error: &io::Error| match error.kind() {
        io::ErrorKind::NotFound => Error::not_found(format!("devnetd has no log yet: {}", path.display())),
        _ => Error::file(&path.to_string_lossy(), error),
    };
    let mut file = File::open(path).map_err(|error| failed(&error))?;
    // The watch comes before the first read, so that no growth falls between the two.
    let watch = follow.then(|| inotify(path)).transpose().map_err(|errno| failed(&errno.into()))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(|error| failed(&error))?;
    let mut out = io::stdout().lock();
    out.write_all(last_lines(&text, tail))?;
    out.flush()?;
    while let Some(watch) = &watch {
        watch.read_events().map_err(|errno| failed(&errno.into()))?;
        // Truncated: begin again.
        if file.metadata().map_err(|error| failed(&error))?.len() < file.stream_position().map_err(|error| failed(&error))? {
            file.seek(SeekFrom::Start(0)).map_err(|error| failed(&error))?;
        }
        text.clear();
        file.read_to_end(&mut text).map_err(|error| failed(&error))?;
        out.write_all(&text)?;
        out.flush()?;
    }
    Ok(())
}

fn inotify(path: &Path) -> nix::Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    inotify.add_watch(path, AddWatchFlags::IN_MODIFY)?;
    Ok(inotify)
}

fn last_lines(text: &[u8], tail: Option<usize>) -> &[u8] {
    let Some(tail) = tail else { return text };
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let mut starts = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    match tail {
        0 => &text[text.len()..],
        tail => &text[starts.nth(tail - 1).unwrap_or(0)..],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_counted_in_lines() {
        let check = |tail: Option<usize>, expect: &str| assert_eq!(last_lines(b"a\nb\nc\n", tail), expect.as_bytes(), "{tail:?}");
        check(None, "a\nb\nc\n");
        check(Some(0), "");
        check(Some(1), "c\n");
        check(Some(2), "b\nc\n");
        check(Some(9), "a\nb\nc\n");
    }
}
