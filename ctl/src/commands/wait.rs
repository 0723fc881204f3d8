//! `wait`: until something holds of devnets or nodes, told by the watch.

use crate::{
    context::Context,
    error::Error,
    follow::{Target, follow},
    goal::Goal,
    kind::split,
    render::progress::Progress,
};

const PHASES: [&str; 11] =
    ["Pending", "Provisioning", "Running", "Degraded", "Stopped", "Failed", "Deleting", "Starting", "Backoff", "Stopping", "Crashed"];

/// What is no phase, with a value where it takes one.
const OTHERS: [(&str, Option<&str>); 4] = [("ready", None), ("delete", None), ("height", Some("10")), ("condition", Some("Ready"))];

/// Wait until something holds of devnets or nodes
///
/// --for takes a phase (Running, Stopped ...), ready, height=N, condition=Type[=Status], or delete.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Devnets (NAME) or nodes (NAME/NODE)
    #[arg(required = true, value_name = "NAME")]
    words: Vec<String>,
    /// What to wait for
    #[arg(long = "for", value_name = "WHAT", required = true)]
    what: String,
}

pub(crate) async fn run(ctx: &Context, args: Args) -> Result<(), Error> {
    let (_, names) = split(&args.words);
    if names.is_empty() {
        return Err(Error::usage("name what to wait for").with_remedy("dvbctl wait NAME --for=Running"));
    }
    let targets: Vec<Target> = names.iter().map(|name| Target::parse(&ctx.settings.namespace, name)).collect();
    let goals = targets.iter().map(|target| goal(&args.what, target)).collect::<Result<Vec<_>, _>>()?;
    let client = ctx.client().await?;
    for (target, goal) in targets.iter().zip(&goals) {
        let mut progress = Progress::new(ctx);
        let way_on = format!("dvbctl wait --for={} {}", args.what, target.name());
        follow(ctx, &client, target, goal, &way_on, |view, missing| progress.see(view, missing)).await?;
        progress.finish();
        ctx.print(format!("{} {}: {}", target.kind(), target.name(), args.what))?;
    }
    Ok(())
}

fn goal(what: &str, target: &Target) -> Result<Goal, Error> {
    let node = target.node.clone();
    let (word, value) = what.split_once('=').map_or((what, None), |(word, value)| (word, Some(value)));
    match (word.to_ascii_lowercase().as_str(), value) {
        ("ready", None) => Ok(Goal::Ready { node }),
        ("delete" | "deleted", None) => Ok(Goal::Deleted { node }),
        ("height", Some(height)) => match height.parse() {
            Ok(height) => Ok(Goal::Height { node, height }),
            Err(_) => Err(Error::usage(format!("`{height}` is not a height")).with_remedy("--for=height=10")),
        },
        ("phase", Some(phase)) => known_phase(phase).map(|phase| Goal::Phase { node, phase: phase.to_owned() }),
        ("condition", Some(condition)) => {
            let (name, status) = condition.split_once('=').unwrap_or((condition, "True"));
            Ok(Goal::Condition { node, name: name.to_owned(), status: status.to_owned() })
        }
        (_, None) => known_phase(what).map(|phase| Goal::Phase { node, phase: phase.to_owned() }),
        _ => Err(unknown(what)),
    }
}

fn known_phase(phase: &str) -> Result<&'static str, Error> {
    PHASES.into_iter().find(|known| known.eq_ignore_ascii_case(phase)).ok_or_else(|| unknown(phase))
}

fn unknown(what: &str) -> Error {
    let (word, value) = what.split_once('=').map_or((what, None), |(word, value)| (word, Some(value)));
    let alike = |known: &str| strsim::jaro_winkler(&known.to_ascii_lowercase(), &word.to_ascii_lowercase());
    let near = PHASES.into_iter().chain(OTHERS.map(|(word, _)| word)).max_by(|a, b| alike(a).total_cmp(&alike(b))).unwrap_or("Running");
    let example = OTHERS.iter().find(|(word, _)| *word == near).and_then(|(_, example)| *example);
    let meant = match (value, example) {
        (Some(value), Some(_)) => format!("--for={near}={value}"),
        (None, Some(example)) => format!("--for={near}={example}"),
        (_, None) => format!("--for={near}"),
    };
    Error::usage(format!("cannot wait for `{what}`: it is no phase, nor ready, delete, height=N or condition=Type")).with_remedy(meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(what: &str, expect: Option<Goal>) {
        let target = Target::parse("default", "a/b");
        assert_eq!(goal(what, &target).ok(), expect, "{what}");
    }

    #[test]
    fn what_to_wait_for_is_a_phase_a_height_a_condition_or_a_deletion() {
        let node = Some("a/b".to_owned());
        check("running", Some(Goal::Phase { node: node.clone(), phase: "Running".into() }));
        check("phase=Stopped", Some(Goal::Phase { node: node.clone(), phase: "Stopped".into() }));
        check("ready", Some(Goal::Ready { node: node.clone() }));
        check("height=10", Some(Goal::Height { node: node.clone(), height: 10 }));
        check("delete", Some(Goal::Deleted { node: node.clone() }));
        check("condition=Progressing=False", Some(Goal::Condition { node: node.clone(), name: "Progressing".into(), status: "False".into() }));
        check("condition=LimitsEnforced", Some(Goal::Condition { node, name: "LimitsEnforced".into(), status: "True".into() }));
        check("height=ten", None);
        let target = Target::parse("default", "a/b");
        let remedy = |what: &str| goal(what, &target).unwrap_err().fault.remedy.clone().unwrap();
        assert_eq!(
            ["hieght", "hieght=7", "redy", "runing", "Conditon=Ready", "deleted=now"].map(remedy),
            ["--for=height=10", "--for=height=7", "--for=ready", "--for=Running", "--for=condition=Ready", "--for=delete"]
        );
        check("Runing", None);
        check("jam=1", None);
    }
}
