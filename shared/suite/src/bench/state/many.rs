//! Many small versions: listing them, and sealing their keys by another one.
#![allow(clippy::print_stdout, reason = "what a person sees of `bench`")]

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use api::terraform_state::v1::key_service_client::KeyServiceClient;
use api::terraform_state::v1::{ListStateVersionsRequest, RotateKeysRequest};

use super::content::Content;
use super::door::Door;
use super::{state_id, states};
use crate::bench::load::{channel, millis, percentile, with};
use crate::bench::table::Table;
use crate::up::Suite;

/// The state that has so many.
const NAME: &str = "many";

/// Writes so many versions and lists them all.
pub(super) async fn listing(suite: &Suite, versions: usize, figures: &mut Table) -> Result<()> {
    let mut door = Door::open(&suite.layout.terraform(), &suite.administrator.api_key, NAME, true).await?;
    let mut content = Content::new(1, 2_000);
    println!("writing {versions} versions …");
    for serial in 1..=versions {
        door.post(None, content.version(serial)).await?;
    }
    let state_id = state_id(suite, NAME).await?;
    let (mut took, mut states) = (Vec::new(), states(suite)?);
    for _ in 0..20 {
        let began = Instant::now();
        let (mut listed, mut page_token) = (0, String::new());
        loop {
            let request = ListStateVersionsRequest {
                state_id: state_id.clone(),
                page_size: 1_000,
                page_token,
            };
            let page = states
                .list_state_versions(with(request, &suite.administrator.api_key))
                .await?
                .into_inner();
            listed += page.versions.len();
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        ensure!(listed == versions, "{listed} versions were listed");
        took.push(began.elapsed());
    }
    println!("listing: median {:.0} ms", millis(percentile(&mut took, 50)));
    let what = format!("listing {versions} versions, all pages, p99 of {}", took.len());
    figures.at_most(&what, 50.0, millis(percentile(&mut took, 99)), "ms");
    Ok(())
}

/// Rotates to the key that the service has by now.
pub(super) async fn rotation(suite: &Suite, figures: &mut Table) -> Result<()> {
    let mut keys = KeyServiceClient::new(channel(&suite.layout.grpc(terraform_state::SERVICE.slice))?);
    let began = Instant::now();
    let request = with(RotateKeysRequest::default(), &suite.administrator.api_key);
    let mut progress = keys.rotate_keys(request).await?.into_inner();
    let mut last = None;
    while let Some(told) = progress.message().await? {
        last = told.rotation;
    }
    let took = began.elapsed();
    let last = last.context("a rotation tells how far it is")?;
    ensure!(
        last.finished_at.is_some() && last.failed_versions == 0 && last.done_versions == last.total_versions,
        "the rotation came to no good end: {last:?}"
    );
    println!("{} versions have another key after {took:.1?}", last.done_versions);
    let a_minute = last.done_versions as f64 / took.as_secs_f64() * 60.0;
    figures.at_least("versions sealed by another key in a minute", 10_000.0, a_minute, "");
    Ok(())
}
