//! The smaller verbs of `board3`, each for the suite of one directory.
#![allow(clippy::print_stdout, reason = "a command for people")]

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use terraform_state::offline::{self, Problem};

use crate::SERVICES;
use crate::backing::{Backing, as_role};
use crate::control;
use crate::keys::Kept;
use crate::layout::Layout;
use crate::up::running;

/// Ends the running suite.
pub async fn down(layout: &Layout) -> Result<ExitCode> {
    if control::end(layout).await? {
        println!("the suite in {} has ended", layout.dir().display());
    } else {
        println!("no suite runs in {}", layout.dir().display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Prepares and migrates the given or private database; a running suite has done so at its start.
pub async fn migrate(layout: &Layout) -> Result<ExitCode> {
    if control::state(layout).await?.is_some() {
        bail!("the suite runs, and migrated when it started; `./dev down` it first");
    }
    for (slice, versions) in Backing::start(layout).await?.migrate().await? {
        match versions.as_slice() {
            [] => println!("{slice}: up to date"),
            versions => println!("{slice}: {}", versions.join(", ")),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the administrator and the API key of the running suite, unless they are there.
pub async fn seed(layout: &Layout) -> Result<ExitCode> {
    let variables = running(layout)?;
    let identity = variables
        .get("BOARD3_IDENTITY")
        .context("the env file has no BOARD3_IDENTITY")?;
    let administrator = crate::seed::seed(layout, identity).await?;
    println!(
        "{} and an API key are there; see {}",
        administrator.email,
        layout.env_file().display()
    );
    Ok(ExitCode::SUCCESS)
}

/// Becomes psql in a service's schema, as superuser or in one of the slice's roles.
pub fn psql(layout: &Layout, service: &str, role: Option<&str>) -> Result<ExitCode> {
    let name = service.replace('-', "_");
    let Some(service) = SERVICES.iter().find(|service| service.slice.name == name) else {
        let names: Vec<_> = SERVICES.iter().map(|service| service.slice.name).collect();
        bail!("`{name}` is no service; there are {}", names.join(", "));
    };
    let (slice, variables) = (service.slice, running(layout)?);
    let admin = variables
        .get("BOARD3_DATABASE_ADMIN_URL")
        .context("the env file has no database")?;
    let kept = Kept::open(&layout.dir().join("keys"), "database")?;
    let (login, mut options) = match role {
        None => (None, String::new()),
        Some("app") => (Some(slice.app()), String::new()),
        Some("worker") => (Some(slice.worker()), String::new()),
        Some("owner") => (Some("board3_migrate".into()), format!(" -c role={}", slice.owner())),
        Some(other) => bail!("`{other}` is no role; there are app, worker and owner"),
    };
    let url = match login {
        Some(login) => as_role(admin, &login, kept.get("PASSWORD"))?,
        None => admin.clone(),
    };
    options.push_str(&format!(" -c search_path={}", slice.name));
    Err(Command::new("psql").arg(url).env("PGOPTIONS", options.trim()).exec()).context("psql")
}

/// Reads a state while the suite is down, with the keys in the environment; its arguments are its own.
pub async fn state(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    match offline::run(arguments, variable, &mut std::io::stdout()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(Problem::Asked(problem)) => {
            eprintln!("board3: {problem}\n\n{}", offline::USAGE);
            ExitCode::from(64)
        }
        Err(Problem::Met(problem)) => {
            eprintln!("board3: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Removes the files of a suite that does not run.
pub async fn clean(layout: &Layout) -> Result<ExitCode> {
    if control::state(layout).await?.is_some() {
        bail!("the suite runs; `./dev down` it first");
    }
    layout.remove()?;
    Ok(ExitCode::SUCCESS)
}
