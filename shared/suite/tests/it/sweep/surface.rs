//! What a service shows of itself: reflection lists exactly the routes, health knows exactly the services.

use std::collections::BTreeSet;

use api::policy::METHODS;
use kit::Reason;
use tonic::{Code, Request, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::{v1, v1alpha};
use uuid::Uuid;

use super::{
    prepared,
    wire::{call, send},
    world::{World, places},
};
use crate::house::{SLICES, eventually};

/// The services that a slice should have.
fn services(slice: &str) -> BTreeSet<String> {
    let own = METHODS
        .iter()
        .filter(|method| places(method).contains(&slice))
        .map(|method| method.service);
    let common = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    own.chain(common).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_lists_exactly_the_routes() {
    let world = World::new().await;
    let calls = prepared(&world, &world.a).await;
    for slice in SLICES {
        let channel = world.channel(slice);
        let wanted = services(slice);
        assert_eq!(listed_v1(channel).await, wanted, "{slice} by v1");
        assert_eq!(listed_v1alpha(channel).await, wanted, "{slice} by v1alpha");
        for name in &wanted {
            assert!(described(channel, name).await, "{slice} does not describe {name}");
        }
        assert!(!described(channel, "board3.designs.v1.NoService").await);
        for super::Prepared {
            method,
            valid,
            credential,
            ..
        } in calls.iter().filter(|call| !places(call.method).contains(&slice))
        {
            let mut answer = call(channel, method.path, credential, &valid.message).await;
            answer.what = format!("{} at {slice}", method.path);
            answer.refused(Reason::MethodUnknown);
            // Without a credential a route that is not there tells nothing either.
            let wanted = [Reason::CredentialInvalid, Reason::MethodUnknown];
            call(channel, method.path, "", &valid.message)
                .await
                .refused_for(&wanted);
        }
        for path in [
            "/board3.designs.v1.DesignService/Nothing",
            "/board3.none.v1.Service/Method",
            "/nothing",
            "/",
        ] {
            call(channel, path, "", &[]).await.refused(Reason::MethodUnknown);
            call(channel, path, &world.a.owner.access, &[])
                .await
                .refused(Reason::MethodUnknown);
        }
    }
    for super::Prepared {
        method,
        valid,
        credential,
        ..
    } in &calls
    {
        for slice in places(method) {
            call(world.channel(slice), method.path, credential, &valid.now())
                .await
                .ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_knows_each_service_by_name() {
    let world = World::new().await;
    for slice in SLICES {
        let mut names = services(slice);
        names.retain(|name| name.starts_with("board3."));
        names.extend(["", "liveness", "readiness"].map(str::to_owned));
        for name in names {
            eventually(
                &format!("{name:?} of {slice} serves"),
                std::time::Duration::from_secs(5),
                async || (health(world.channel(slice), &name).await == Ok(ServingStatus::Serving)).then_some(()),
            )
            .await;
        }
        for method in METHODS.iter().filter(|method| !places(method).contains(&slice)) {
            assert_eq!(
                health(world.channel(slice), method.service).await,
                Err(Code::NotFound),
                "{} at {slice}",
                method.service
            );
        }
        assert_eq!(health(world.channel(slice), "nothing").await, Err(Code::NotFound));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_without_a_usable_request_id_is_given_one() {
    let world = World::new().await;
    let path = "/board3.designs.v1.DesignService/ListDesigns";
    for id in ["", "two words", "an;injection", &"x".repeat(129), "<b>"] {
        for credential in [world.a.owner.access.as_str(), "garbage", ""] {
            let answer = send(world.channel("designs"), path, credential, Some(Vec::new()), id).await;
            let given = answer.given();
            assert!(given.parse::<Uuid>().is_ok(), "{id:?} is answered with {given:?}");
        }
    }
    let longest = "x".repeat(128);
    send(
        world.channel("designs"),
        path,
        &world.a.owner.access,
        Some(Vec::new()),
        &longest,
    )
    .await
    .ok();
}

async fn health(channel: &Channel, service: &str) -> Result<ServingStatus, Code> {
    let asked = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(channel.clone())
        .check(asked)
        .await
        .map_err(|status| status.code())?;
    Ok(answer.into_inner().status())
}

async fn listed_v1(channel: &Channel) -> BTreeSet<String> {
    use v1::{server_reflection_client::ServerReflectionClient, server_reflection_request, server_reflection_response};
    let message_request = Some(server_reflection_request::MessageRequest::ListServices(String::new()));
    let request = v1::ServerReflectionRequest {
        message_request,
        ..Default::default()
    };
    let asked = Request::new(futures_util::stream::iter([request]));
    let answer = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(asked)
        .await
        .expect("reflection answers");
    let message = answer
        .into_inner()
        .message()
        .await
        .expect("reflection answers")
        .expect("one answer");
    match message.message_response {
        Some(server_reflection_response::MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|one| one.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

async fn listed_v1alpha(channel: &Channel) -> BTreeSet<String> {
    use v1alpha::{
        server_reflection_client::ServerReflectionClient, server_reflection_request, server_reflection_response,
    };
    let message_request = Some(server_reflection_request::MessageRequest::ListServices(String::new()));
    let request = v1alpha::ServerReflectionRequest {
        message_request,
        ..Default::default()
    };
    let asked = Request::new(futures_util::stream::iter([request]));
    let answer = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(asked)
        .await
        .expect("reflection answers");
    let message = answer
        .into_inner()
        .message()
        .await
        .expect("reflection answers")
        .expect("one answer");
    match message.message_response {
        Some(server_reflection_response::MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|one| one.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Whether reflection has the file of a symbol.
async fn described(channel: &Channel, symbol: &str) -> bool {
    use v1::{server_reflection_client::ServerReflectionClient, server_reflection_request, server_reflection_response};
    let message_request = Some(server_reflection_request::MessageRequest::FileContainingSymbol(
        symbol.to_owned(),
    ));
    let request = v1::ServerReflectionRequest {
        message_request,
        ..Default::default()
    };
    let asked = Request::new(futures_util::stream::iter([request]));
    let Ok(answer) = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(asked)
        .await
    else {
        return false;
    };
    let Ok(Some(message)) = answer.into_inner().message().await else {
        return false;
    };
    matches!(message.message_response, Some(server_reflection_response::MessageResponse::FileDescriptorResponse(files)) if !files.file_descriptor_proto.is_empty())
}
