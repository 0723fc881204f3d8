//! The command line: global flags, and one subcommand for each verb.

use crate::commands::{
    apply, binaries, completion, daemon, delete, describe, env, events, export, freeze, get, gov, logs, orphans, plugins, ports, reset, restart,
    start, stop, top, tx, up, upgrade, wait, why,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{path::PathBuf, time::Duration};

/// Runs blockchain devnets as native processes of this machine.
///
/// A bare NAME is a devnet, a/b is node b of devnet a. Most verbs start devnetd when none runs.
#[derive(Debug, Parser)]
#[command(name = "dvbctl", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Namespace [default: default]
    #[arg(short, long, global = true, value_name = "NS")]
    pub(crate) namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, global = true, conflicts_with = "namespace")]
    pub(crate) all_namespaces: bool,
    /// How results are printed
    #[arg(short, long, global = true, value_enum, default_value = "table", hide_default_value = true)]
    pub(crate) output: Format,
    /// Socket of devnetd [default: made from the home]
    #[arg(long, global = true, env = "DVB_SOCKET", hide_env_values = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Home of devnetd [default: ~/.devnet-builder]
    #[arg(long, global = true, env = "DVB_HOME", hide_env_values = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,
    /// Address of a remote devnetd (not served yet)
    #[arg(long, global = true, env = "DVB_ADDRESS", hide_env_values = true, value_name = "HOST:PORT")]
    pub(crate) address: Option<String>,
    /// Never colour (NO_COLOR does the same)
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// Say more on stderr
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// How long to wait in all, as in 90s or 5m; 0 waits for ever
    #[arg(long, global = true, value_parser = parse_duration, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Up(up::Args),
    Apply(apply::Args),
    Get(get::Args),
    Describe(describe::Args),
    Logs(logs::Args),
    Why(why::Args),
    Events(events::Args),
    Wait(wait::Args),
    Start(start::Args),
    Stop(stop::Args),
    Restart(restart::Args),
    Freeze(freeze::Freeze),
    Thaw(freeze::Thaw),
    Reset(reset::Args),
    Delete(delete::Args),
    Env(env::Args),
    Tx(tx::Args),
    Upgrade(upgrade::Args),
    Export(export::Args),
    Orphans(orphans::Args),
    Gov(gov::Args),
    Ports(ports::Args),
    Top(top::Args),
    Plugins(plugins::Args),
    Binaries(binaries::Args),
    Daemon(daemon::Args),
    Completion(completion::Args),
}

impl Verb {
    /// Those that begin something. `daemon start` has its own way.
    pub(crate) fn makes_home(&self) -> bool {
        match self {
            Self::Up(_) => true,
            Self::Apply(args) => !args.dry_run,
            Self::Binaries(args) => args.adds(),
            _ => false,
        }
    }
}

/// `500ms`, `90s`, `5m`, `1h30m`, or a bare 0.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    parsed.ok_or_else(|| format!("`{text}` is not a duration; write a number with ms, s, m or h, as in 90s or 5m"))
}

/// `a=b`, several separated by commas.
pub(crate) fn parse_label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned())).ok_or_else(|| format!("`{text}` is not a label; write key=value"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_and_wrong_ones_are_explained() {
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in ["5", "-5s", "five", ""] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_phase_that_does_not_exist_is_a_usage_error_and_a_negative_amount_is_the_chains_to_judge() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let error = parse("dvbctl tx list net --phase bogus").unwrap_err().to_string();
        assert!(error.contains("Retrying"), "{error}");
        assert!(parse("dvbctl tx list net --phase failed").is_ok());
        assert!(parse("dvbctl tx submit net --type bank/send --signer account:0 --to account:1 --amount -7").is_ok());
        assert!(parse("dvbctl gov deposit net 1 -7stake").is_ok());
    }

    #[test]
    fn help_texts_are_the_snapshots() {
        insta::assert_snapshot!("help", Cli::command().render_help());
        let mut command = Cli::command();
        command.build();
        for verb in ["up", "get", "apply", "logs", "wait", "delete"] {
            let help = command.find_subcommand_mut(verb).expect("the verb exists").render_help();
            insta::assert_snapshot!(format!("help_{verb}"), help);
        }
    }
}
