//! `board3 demo`: the suite's main job from a sign-up to the audit trail, each step checked.
//!
//! Whatever is away for a while is waited for: the demo ends well even if services are killed between its steps.

mod agent;
mod desk;
mod http;
mod steps;
mod terraform;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use futures_util::future::BoxFuture;

use crate::control;
use crate::layout::Layout;
use crate::up::{Suite, running};
use crate::variables::{self, Variables};

pub use terraform::Terraform;

/// The names of the demo's steps, in order.
pub const STEPS: [&str; 14] = [
    "sign up",
    "API key",
    "design from a template",
    "edit",
    "publish",
    "state",
    "export",
    "apply by hand",
    "pipeline",
    "run by a runner",
    "logs",
    "no drift",
    "drift",
    "audit trail",
];

/// Hears of each step before it begins.
pub type Observer<'a> = Box<dyn FnMut(&'static str) -> BoxFuture<'a, ()> + Send + 'a>;

/// Where the demo runs.
pub struct Stage {
    /// The addresses of a running suite, as in its env file.
    pub variables: Variables,
    /// Where Terraform and the demo's runner work; removed at the end of a demo that ends well.
    pub dir: PathBuf,
    /// How Terraform's part is done.
    pub terraform: Terraform,
}

/// The demo against the suite that runs in `layout`, or a private one where none runs.
#[allow(clippy::print_stdout, reason = "what a person sees of `demo`")]
pub async fn command(layout: Layout) -> Result<ExitCode> {
    let dir = tempfile::Builder::new().prefix("b3-demo-").tempdir()?;
    let (suite, variables) = if control::state(&layout).await? == Some(true) {
        println!("with the suite in {}", layout.dir().display());
        (None, running(&layout)?)
    } else {
        println!("with a suite of its own");
        let layout = Layout::on_unused_ports(&dir.path().join("suite"))?;
        let suite = Suite::start(layout.clone(), &Variables::new()).await?;
        let variables = variables::read(&layout.env_file())?;
        (Some(suite), variables)
    };
    let stage = Stage {
        variables,
        dir: dir.path().join("demo"),
        terraform: Terraform::found(),
    };
    println!("terraform: {}\n", stage.terraform.name());
    let outcome = stage.play(Box::new(|_| Box::pin(async {}))).await;
    if let Some(suite) = suite {
        let layout = suite.layout.clone();
        suite.stop().await;
        layout.remove()?;
    }
    match outcome {
        Ok(()) => {
            println!("\nthe demo ended well");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let kept = dir.keep();
            Err(error.context(format!("the demo failed; its files are in {}", kept.display())))
        }
    }
}

impl Stage {
    /// All steps, in order.
    pub async fn play(&self, mut before: Observer<'_>) -> Result<()> {
        std::fs::create_dir_all(&self.dir).with_context(|| self.dir.display().to_string())?;
        let mut story = steps::Story::new(self)?;
        for step in STEPS {
            before(step).await;
            story.step(step).await.with_context(|| format!("step `{step}`"))?;
        }
        story.end().await;
        std::fs::remove_dir_all(&self.dir).with_context(|| self.dir.display().to_string())
    }

    fn checkout(&self, name: &str) -> PathBuf {
        Path::new(&self.dir).join(name)
    }
}
