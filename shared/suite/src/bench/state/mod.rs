//! terraform-state's promised figures.
#![allow(clippy::print_stdout, reason = "what a person sees of `bench`")]

mod content;
mod cycles;
mod door;
mod large;
mod many;
mod raw;

use anyhow::{Context, Result, ensure};
use api::terraform_state::v1::ListStatesRequest;
use api::terraform_state::v1::state_service_client::StateServiceClient;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use tonic::transport::Channel;

use super::load::{channel, with};
use super::table::Table;
use crate::layout::Layout;
use crate::random_hex;
use crate::up::Suite;
use crate::variables::{self, Variables};

/// How many samples there are where nothing else is asked for; of small versions, a hundred times as many.
pub(super) const SAMPLES: usize = 100;
/// Bytes of a state that is planned and applied.
const SMALL: usize = 100_000;
/// Bytes of a large one.
const LARGE: usize = 10_000_000;
/// Bytes of the largest that is measured.
const HUGE: usize = 100_000_000;
/// The key that contents are sealed by, and those that did before.
const KEY: &str = "TERRAFORM_STATE_ENCRYPTION_KEY";
const RETIRED: &str = "TERRAFORM_STATE_ENCRYPTION_KEYS_RETIRED";

/// Measures everything and prints the table.
pub(super) async fn measure(samples: usize) -> Result<()> {
    ensure!(samples > 0, "at least one sample is needed");
    let mut figures = Table::default();
    let dir = tempfile::Builder::new().prefix("b3-bench-").tempdir()?;
    let layout = Layout::on_unused_ports(&dir.path().join("suite"))?;
    // Nothing is limited here but by the machine, and old versions are compacted when it is asked for.
    let mut more = Variables::from([
        ("BOARD3_RATE_SCALE".to_owned(), "1000000".to_owned()),
        ("BOARD3_STATE_COMPACT_AFTER_SECONDS".to_owned(), "86400".to_owned()),
    ]);
    let suite = Suite::start(layout.clone(), &more).await?;
    let (admin, connection) = administrator(&suite).await?;
    // The first, while the service has met nothing large yet.
    large::memory(&suite, &mut figures).await?;
    cycles::measure(&suite, &admin, dir.path(), samples, &mut figures).await?;
    many::listing(&suite, samples * 100, &mut figures).await?;
    large::measure(&suite, samples, &mut figures).await?;
    drop(admin);
    connection.await??;
    suite.stop().await;

    let kept = variables::read(&layout.dir().join("keys").join("terraform_state.env"))?;
    let old = kept.get(KEY).context("the suite's key is kept")?.clone();
    more.insert(RETIRED.to_owned(), old);
    more.insert(KEY.to_owned(), random_hex(32)?);
    // Only what is put up is due: what was written before waits for its day.
    more.insert("BOARD3_STATE_COMPACT_AFTER_SECONDS".to_owned(), "0".to_owned());
    let suite = Suite::start(layout.clone(), &more).await?;
    let (admin, connection) = administrator(&suite).await?;
    large::compact(&suite, &admin, samples, &mut figures).await?;
    drop(admin);
    connection.await??;
    many::rotation(&suite, &mut figures).await?;
    suite.stop().await;
    layout.remove()?;
    print!("\n{figures}");
    Ok(())
}

/// A connection of PostgreSQL's administrator, and what drives it.
async fn administrator(suite: &Suite) -> Result<(Client, JoinHandle<Result<(), tokio_postgres::Error>>)> {
    let (admin, connection) = tokio_postgres::connect(suite.backing.admin_url(), NoTls).await?;
    Ok((admin, tokio::spawn(connection)))
}

/// A client that takes answers of any length.
fn states(suite: &Suite) -> Result<StateServiceClient<Channel>> {
    let channel = channel(&suite.layout.grpc(terraform_state::SERVICE.slice))?;
    Ok(StateServiceClient::new(channel).max_decoding_message_size(256 << 20))
}

/// The id of the state of this name.
async fn state_id(suite: &Suite, name: &str) -> Result<String> {
    let request = ListStatesRequest {
        name_prefix: name.to_owned(),
        ..Default::default()
    };
    let listed = states(suite)?
        .list_states(with(request, &suite.administrator.api_key))
        .await?
        .into_inner();
    let state = listed.states.into_iter().find(|state| state.name == name);
    Ok(state.with_context(|| format!("there is no state {name}"))?.id)
}
