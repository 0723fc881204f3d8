//! Death certificates: how a process ended, why as far as anybody can tell, and the line that decided it.

use super::super::{
    Context,
    placing::{SERVICE, placed, stored_context},
};
use super::core_dump::{self, Dead};
use crate::{
    logs::{self, LastWords},
    model::{CoreDump, Exit, ExitClass, LastExit, Launch, LimitOf, Node, OomKill},
    plugin::Classified,
    sys::signal_name,
};
use nix::sys::signal::Signal;
use std::{path::Path, time::Duration};

const TAIL_LINES: usize = 20;
/// How long a plugin may think about a death.
const CLASSIFY_WITHIN: Duration = Duration::from_millis(300);

/// The death certificate: status, class, the decisive line.
pub(super) async fn certificate(node: &Node, launch: &Launch, exit: Option<&Exit>, cx: &Context) -> LastExit {
    let words = LastWords::read(Path::new(&launch.spec.log_path), TAIL_LINES);
    let exit = exit.cloned().unwrap_or(Exit { at: cx.clock.now(), unseen: true, ..Exit::default() });
    let how = how_it_ended(&exit);
    let mut last = LastExit {
        code: exit.code,
        signal: exit.signal.map(signal_name),
        class: ExitClass::Unknown,
        message: how.clone(),
        at: exit.at,
        oom_killed: exit.oom_killed,
        memory_peak: exit.memory_peak,
        cpu_time_ms: exit.cpu_time_ms,
        log_tail: words.tail(),
        oom: exit.oom,
        core: exit.core_dumped.then(|| core_of(launch, &exit)),
    };
    if exit.requested {
        last.class = ExitClass::KilledByUser;
        last.message = format!("stopped on request, {how}");
    } else if exit.rebooted {
        last.message = how;
    } else if exit.oom_killed {
        last.class = ExitClass::Oom;
        last.message = out_of_memory(&exit);
    } else if exit.signal == Some(Signal::SIGKILL as i32) {
        last.message = format!("{how} by somebody other than devnetd");
    } else if node.spec.role != SERVICE
        && let Some(classified) = classify(node, &exit, &words.telling_lines(), cx).await
    {
        last.class = classified.class;
        if !classified.message.is_empty() {
            last.message = format!("{how}: {}", logs::plain(classified.message.as_bytes()));
        }
    } else if exit.code != Some(0)
        && let Some(panic) = words.panic()
    {
        (last.class, last.message) = (ExitClass::Panic, format!("{how}: {panic}"));
    } else if let Some(line) = words.tail().iter().rev().find(|line| !line.trim().is_empty()) {
        last.message = format!("{how}; last line: {line}");
    }
    last
}

fn out_of_memory(exit: &Exit) -> String {
    let mib = |bytes: Option<u64>, lead: &str| bytes.map(|bytes| format!("{lead}{} MiB", bytes >> 20)).unwrap_or_default();
    let own_peak = mib(exit.memory_peak, "; its own peak was ");
    let OomKill { limit_of, limit, peak } = exit.oom.unwrap_or_default();
    match limit_of {
        LimitOf::Node => format!("killed for lack of memory: it reached its limit{}{}", mib(limit, " of "), mib(peak, "; its peak was ")),
        LimitOf::Devnet => {
            let (limit, peak) = (mib(limit, " of "), mib(peak, ", with a peak of "));
            format!("killed for lack of memory: its devnet reached the limit{limit} of all its nodes together{peak}{own_peak}")
        }
        LimitOf::Machine => format!("killed for lack of memory: the machine had no more{own_peak}"),
    }
}

fn core_of(launch: &Launch, exit: &Exit) -> CoreDump {
    core_dump::locate(&Dead {
        pid: launch.status.pid.unwrap_or_default(),
        signal: exit.signal,
        program: launch.spec.argv.first().map_or("", String::as_str),
        cwd: Path::new(&launch.spec.cwd),
        started_at: launch.metadata.created_at,
    })
}

async fn classify(node: &Node, exit: &Exit, tail: &[Vec<u8>], cx: &Context) -> Option<Classified> {
    let name = node.node_name();
    let asked = async {
        let devnet = cx.accepted_devnet(&node.metadata.namespace, &name.devnet).await.ok()??;
        let plan = cx.plan(&node.metadata.namespace, &name.devnet).await.ok()??;
        let plugin = cx.plugins.get(&devnet.spec.plugin).await.ok()?;
        let context = stored_context(&devnet, &plan.spec, &[]);
        plugin.classify(&context, &placed(node), Some(exit), tail).await.ok()
    };
    tokio::time::timeout(CLASSIFY_WITHIN, asked).await.ok().flatten()
}

fn how_it_ended(exit: &Exit) -> String {
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed with {}", signal_name(signal)),
        (None, None) if exit.rebooted => return "ended with the machine, which was booted since".into(),
        (None, None) if exit.unseen => return "ended while devnetd was down; its exit status is not known".into(),
        (None, None) => "ended; its exit status is not known, as it was no child of this devnetd".into(),
    };
    if exit.unseen { format!("{how} while devnetd was down") } else { how }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_that_killed_is_named_with_its_peak() {
        let check = |limit_of, limit: Option<u64>, expect: &str| {
            let oom = Some(OomKill { limit_of, limit, peak: limit });
            assert_eq!(out_of_memory(&Exit { oom_killed: true, oom, memory_peak: Some(20 << 20), ..Exit::default() }), expect);
        };
        check(LimitOf::Node, Some(64 << 20), "killed for lack of memory: it reached its limit of 64 MiB; its peak was 64 MiB");
        check(
            LimitOf::Devnet,
            Some(64 << 20),
            "killed for lack of memory: its devnet reached the limit of 64 MiB of all its nodes together, with a peak of 64 MiB; its own peak was 20 MiB",
        );
        check(LimitOf::Machine, None, "killed for lack of memory: the machine had no more; its own peak was 20 MiB");
    }
}
