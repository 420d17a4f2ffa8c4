//! The main job, from a sign-up to the audit trail, also while every service is killed again and again.

use std::{path::PathBuf, sync::Arc};

use suite::{
    demo::{Observer, STEPS, Stage, Terraform},
    mail,
    variables::Variables,
};
use tokio::{sync::Mutex, task::JoinHandle};

use crate::house::{House, SLICES};

fn stage(house: &House, dir: PathBuf, terraform: Terraform) -> Stage {
    let addresses = house.environment("audit").into_iter();
    let mut variables: Variables = addresses.filter(|(name, _)| is_address(name)).collect();
    variables.insert(mail::SETTING.to_owned(), house.mail().setting());
    Stage {
        variables,
        dir,
        terraform,
    }
}

fn is_address(name: &str) -> bool {
    name == "BOARD3_TERRAFORM_HTTP"
        || SLICES
            .iter()
            .any(|slice| name == format!("BOARD3_{}", slice.to_uppercase()))
}

fn nobody() -> Observer<'static> {
    Box::new(|_| Box::pin(async {}))
}

fn found() -> Terraform {
    let terraform = Terraform::found();
    if matches!(terraform, Terraform::Protocol) {
        eprintln!("SKIPPED the real Terraform: there is none on PATH");
    }
    terraform
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_well_twice_in_a_row_and_without_a_terraform() {
    let house = House::open().await;
    let dir = tempfile::tempdir().unwrap();
    for (name, terraform) in [
        ("first", found()),
        ("second", found()),
        ("protocol", Terraform::Protocol),
    ] {
        let stage = stage(&house, dir.path().join(name), terraform);
        if let Err(error) = stage.play(nobody()).await {
            panic!("{name}: {error:#}");
        }
        assert!(!dir.path().join(name).exists(), "a demo that ends well leaves nothing");
    }
}

/// At each step every service is killed and started again, one after the other, while the step goes on.
#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_well_while_every_service_is_killed_at_every_step() {
    let house = Arc::new(House::open().await);
    let dir = tempfile::tempdir().unwrap();
    let stage = stage(&house, dir.path().join("killed"), found());
    let killing: Arc<Mutex<Option<JoinHandle<()>>>> = Arc::default();
    let kills = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let observer: Observer<'_> = Box::new(|_| {
        let (house, killing, kills) = (house.clone(), killing.clone(), kills.clone());
        Box::pin(async move {
            let mut killing = killing.lock().await;
            if let Some(before) = killing.take() {
                before.await.unwrap();
            }
            *killing = Some(tokio::spawn(async move {
                for slice in SLICES {
                    house.start(slice, &[]).await;
                    kills.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    house.wait_ready_of(slice).await;
                }
            }));
        })
    });
    if let Err(error) = stage.play(observer).await {
        panic!("{error:#}");
    }
    if let Some(last) = killing.lock().await.take() {
        last.await.unwrap();
    }
    assert_eq!(
        kills.load(std::sync::atomic::Ordering::Relaxed),
        STEPS.len() * SLICES.len()
    );
}
