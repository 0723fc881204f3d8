//! Death certificates: how a process ended, why as far as anybody can tell, and the line that decided it.

use super::super::{
    Context,
    placing::{SERVICE, placed, stored_context},
};
use crate::{
    logs,
    model::{Exit, ExitClass, LastExit, Launch, Node},
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
    let tail = logs::tail(Path::new(&launch.spec.log_path), TAIL_LINES).unwrap_or_default();
    let text: Vec<String> = tail.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
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
        log_tail: text.clone(),
    };
    if exit.requested {
        last.class = ExitClass::KilledByUser;
        last.message = format!("stopped on request, {how}");
    } else if exit.rebooted {
        last.message = how;
    } else if exit.oom_killed {
        last.class = ExitClass::Oom;
        let peak = exit.memory_peak.map(|peak| format!("; its peak was {} MiB", peak >> 20)).unwrap_or_default();
        let limit = node.spec.resources.and_then(|limits| limits.memory_bytes);
        let limit = limit.map(|limit| format!(", its limit {} MiB", limit >> 20)).unwrap_or_default();
        last.message = format!("killed for lack of memory{peak}{limit}");
    } else if exit.signal == Some(Signal::SIGKILL as i32) {
        last.message = format!("{how} by somebody other than devnetd");
    } else if node.spec.role != SERVICE
        && let Some(classified) = classify(node, &exit, &tail, cx).await
    {
        last.class = classified.class;
        if !classified.message.is_empty() {
            last.message = format!("{how}: {}", classified.message);
        }
    } else if let Some(line) = text.iter().rev().find(|line| !line.trim().is_empty()) {
        last.message = format!("{how}; last line: {line}");
    }
    last
}

async fn classify(node: &Node, exit: &Exit, tail: &[Vec<u8>], cx: &Context) -> Option<Classified> {
    let name = node.node_name();
    let asked = async {
        let devnet = cx.accepted_devnet(&node.metadata.namespace, &name.devnet).await.ok()??;
        let plan = cx.plan(&node.metadata.namespace, &name.devnet).await.ok()??;
        let plugin = cx.plugins.get(&devnet.spec.plugin).await.ok()?;
        let context = stored_context(&devnet, &plan.spec, &[]);
        plugin.classify(&context, &placed(node), exit, tail).await.ok()
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
