//! The `board3` command: one verb per thing that a person does with a whole suite.
#![allow(clippy::print_stdout, reason = "a command for people")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::prelude::*;
use suite::layout::Layout;
use suite::verbs;

const USAGE: &str = "\
board3 up [--detach] [--port-base N] [--data DIR]
board3 down [--data DIR]
board3 migrate [--data DIR]
board3 seed [--data DIR]
board3 demo [--data DIR]
board3 bench [NAME] [--samples N]
board3 keys
board3 psql SERVICE [--role app|worker|owner] [--data DIR]
board3 state decrypt --organization UUID --state NAME [--version NUMBER] (--database URL | --dump FILE) [--out FILE]
board3 clean [--data DIR]";

struct Arguments {
    verb: String,
    rest: Vec<String>,
    detach: bool,
    base: Option<u16>,
    data: PathBuf,
    role: Option<String>,
    samples: Option<usize>,
}

fn arguments() -> Result<Arguments> {
    let mut parser = lexopt::Parser::from_env();
    let mut found = Arguments {
        verb: String::new(),
        rest: Vec::new(),
        detach: false,
        base: None,
        data: ".board3".into(),
        role: None,
        samples: None,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("detach") => found.detach = true,
            Long("port-base") => found.base = Some(parser.value()?.parse()?),
            Long("data") => found.data = parser.value()?.into(),
            Long("samples") => found.samples = Some(parser.value()?.parse()?),
            Long("role") => found.role = Some(parser.value()?.string()?),
            Short('h') | Long("help") => found.verb = "help".into(),
            Value(value) if found.verb.is_empty() => found.verb = value.string()?,
            Value(value) => found.rest.push(value.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(found)
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let layout = || Layout::new(&arguments.data, arguments.base);
    match (arguments.verb.as_str(), arguments.rest.as_slice()) {
        ("up", []) if arguments.detach => {
            let mut again = vec!["--data".into(), arguments.data.display().to_string()];
            again.extend(
                arguments
                    .base
                    .iter()
                    .flat_map(|base| ["--port-base".into(), base.to_string()]),
            );
            suite::up::detached(layout()?, &again).await
        }
        ("up", []) => suite::up::foreground(layout()?).await,
        ("down", []) => verbs::down(&layout()?).await,
        ("migrate", []) => verbs::migrate(&layout()?).await,
        ("seed", []) => verbs::seed(&layout()?).await,
        ("demo", []) => suite::demo::command(layout()?).await,
        ("bench", []) => suite::bench::command(None, arguments.samples).await,
        ("bench", [name]) => suite::bench::command(Some(name), arguments.samples).await,
        ("keys", []) => {
            print!("{}", suite::keys::Keys::fresh()?.text()?);
            Ok(ExitCode::SUCCESS)
        }
        ("psql", [service]) => verbs::psql(&layout()?, service, arguments.role.as_deref()),
        ("clean", []) => verbs::clean(&layout()?).await,
        ("" | "help", _) => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        (verb, _) => bail!("`{verb}` with these arguments is no verb\n{USAGE}"),
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut given = std::env::args_os().skip(1);
    if given.next().is_some_and(|verb| verb == "state") {
        return verbs::state(given).await;
    }
    let result = match arguments() {
        Ok(arguments) => run(arguments).await,
        Err(error) => {
            eprintln!("board3: {error}\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("board3: {error:#}");
        ExitCode::FAILURE
    })
}
