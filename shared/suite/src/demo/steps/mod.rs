//! The steps of the demo: what is done, and what must be true afterwards.
#![allow(clippy::print_stdout, reason = "what a person sees of `demo`")]

mod checks;
mod runs;

use anyhow::{Context, Result, anyhow, bail, ensure};
use api::designs::v1::design_service_client::DesignServiceClient;
use api::designs::v1::template_service_client::TemplateServiceClient;
use api::designs::v1::{
    CreateDesignRequest, Design, ExportTerraformRequest, GetDesignRequest, ListTemplatesRequest, PublishDesignRequest,
    UpdateDesignRequest,
};
use api::identity::v1::api_key_service_client::ApiKeyServiceClient;
use api::identity::v1::auth_service_client::AuthServiceClient;
use api::identity::v1::{CreateApiKeyRequest, LoginRequest, SignUpRequest, VerifyEmailRequest};
use api::pipelines::v1::Execution;
use api::terraform_state::v1::state_service_client::StateServiceClient;
use api::terraform_state::v1::{CreateStateRequest, GetStateRequest};
use prost_types::{FieldMask, Struct, value::Kind};
use testkit::guard::Guard;
use tonic::transport::Channel;
use tonic::{Response, Status};
use uuid::Uuid;

use super::Stage;
use super::desk::{Desk, reason, request_id};
use super::terraform::Checkout;
use crate::mail;

/// What the demo knows so far.
pub(super) struct Story<'a> {
    stage: &'a Stage,
    nobody: Desk,
    /// With the token of the person who signed up, then with the API key.
    me: Desk,
    /// Part of every name, so that demos on one suite do not meet.
    mark: String,
    design: Design,
    state_id: String,
    state_name: String,
    pipeline_id: String,
    execution: Execution,
    runner: Option<Runner>,
}

/// Who works on the pipeline's stages.
enum Runner {
    /// A `board3-runner` of the organization.
    Process(#[expect(dead_code, reason = "ends with the story")] Guard),
    /// The demo itself, where there is no Terraform.
    Played(tokio::task::JoinHandle<()>),
}

impl<'a> Story<'a> {
    pub(super) fn new(stage: &'a Stage) -> Result<Story<'a>> {
        let nobody = Desk::new(&stage.variables)?;
        let mark = Uuid::now_v7().simple().to_string()[4..20].to_owned();
        Ok(Story {
            stage,
            me: nobody.clone(),
            nobody,
            state_name: format!("demo/{mark}"),
            mark,
            design: Design::default(),
            state_id: String::new(),
            pipeline_id: String::new(),
            execution: Execution::default(),
            runner: None,
        })
    }

    /// Does one step and prints what was checked.
    pub(super) async fn step(&mut self, name: &'static str) -> Result<()> {
        let checked = match name {
            "sign up" => self.sign_up().await,
            "API key" => self.api_key().await,
            "design from a template" => self.create_design().await,
            "edit" => self.edit().await,
            "publish" => self.publish(1).await,
            "state" => self.create_state().await,
            "export" => self.export_first().await,
            "apply by hand" => self.apply_by_hand().await,
            "pipeline" => self.create_pipeline().await,
            "run by a runner" => self.run_pipeline().await,
            "logs" => self.read_logs().await,
            "no drift" => self.no_drift().await,
            "drift" => self.drift().await,
            "audit trail" => self.audit_trail().await,
            other => bail!("there is no step `{other}`"),
        }?;
        println!("{name:<24} {checked}");
        Ok(())
    }

    /// Ends what the story started.
    pub(super) async fn end(self) {
        if let Some(Runner::Played(task)) = self.runner {
            task.abort();
        }
    }

    async fn sign_up(&mut self) -> Result<String> {
        let (email, password) = (
            format!("demo-{}@board3.local", self.mark),
            format!("Demo-{}", Uuid::new_v4()),
        );
        let sign_up = SignUpRequest {
            email: email.clone(),
            username: format!("demo-{}", self.mark),
            password: password.clone(),
            first_name: "Ada".into(),
            last_name: "Demo".into(),
            organization_name: format!("Demo {}", self.mark),
            organization_slug: format!("demo-{}", self.mark),
            request_id: request_id(),
        };
        let call = async |channel, request| AuthServiceClient::new(channel).sign_up(request).await;
        let mut watch = mail::of(&self.stage.variables)?.watch()?;
        self.nobody.ask("identity", sign_up, call).await?;
        let verify = VerifyEmailRequest {
            token: watch.token(&email).await?,
            request_id: request_id(),
            ..Default::default()
        };
        let call = async |channel, request| AuthServiceClient::new(channel).verify_email(request).await;
        let organization = self.nobody.ask("identity", verify, call).await?.organization_id;
        let login = LoginRequest {
            email: email.clone(),
            password,
            device: "board3 demo".into(),
            ..Default::default()
        };
        let call = async |channel, request| AuthServiceClient::new(channel).login(request).await;
        let tokens = self
            .nobody
            .ask("identity", login, call)
            .await?
            .tokens
            .context("Login answers tokens")?;
        ensure!(
            tokens.organization_id == organization,
            "the token names another organization"
        );
        self.me = self.nobody.with(&tokens.access_token);
        Ok(format!(
            "{email} gave back the token from the mail and owns organization {organization}"
        ))
    }

    async fn api_key(&mut self) -> Result<String> {
        let key = self.new_key("demo", "*.*.*").await?;
        self.me = self.nobody.with(&key);
        Ok("made with the token; everything from here on is called with the key".into())
    }

    /// A key whose secret got lost on its way is made anew.
    async fn new_key(&self, name: &str, scope: &str) -> Result<String> {
        for _ in 0..5 {
            let make = CreateApiKeyRequest {
                name: name.into(),
                scopes: vec![scope.into()],
                request_id: request_id(),
                ..Default::default()
            };
            let call = async |channel, request| ApiKeyServiceClient::new(channel).create_api_key(request).await;
            match self.me.answer("identity", make, call).await? {
                Ok(made) => return Ok(made.secret),
                Err(status) if reason(&status) == "SECRET_ALREADY_SHOWN" => {}
                Err(status) => return Err(anyhow!("CreateApiKey answered {status}")),
            }
        }
        bail!("five keys were made and none arrived")
    }

    async fn create_design(&mut self) -> Result<String> {
        let call = async |channel, request| TemplateServiceClient::new(channel).list_templates(request).await;
        let templates = self
            .me
            .ask("designs", ListTemplatesRequest::default(), call)
            .await?
            .templates;
        let template = (templates
            .iter()
            .find(|template| template.name.starts_with("Three-tier")))
        .context("the platform has a three-tier template")?;
        let create = CreateDesignRequest {
            name: format!("Demo {}", self.mark),
            template_id: template.id.clone(),
            request_id: request_id(),
            ..Default::default()
        };
        let call = async |channel, request| DesignServiceClient::new(channel).create_design(request).await;
        self.design = self.me.ask("designs", create, call).await?.design.context("a design")?;
        let nodes = self.design.canvas.as_ref().map_or(0, |canvas| canvas.nodes.len());
        ensure!(nodes == 4, "the template has 4 nodes, the design {nodes}");
        Ok(format!("`{}` with 4 nodes from `{}`", self.design.name, template.name))
    }

    /// Gives the first node another input and writes the canvas under the design's etag.
    async fn edit(&mut self) -> Result<String> {
        let mut canvas = self.design.canvas.clone().context("a design has a canvas")?;
        let node = canvas.nodes.first_mut().context("a canvas has a node")?;
        let edited = format!("edited {}", Uuid::new_v4().simple());
        let input = prost_types::Value {
            kind: Some(Kind::StringValue(edited)),
        };
        let configuration = node.configuration.get_or_insert_with(Struct::default);
        configuration.fields.insert("input".into(), input);
        let address = format!("{}.{}", node.resource_type, node.name);
        let update = UpdateDesignRequest {
            design_id: self.design.id.clone(),
            design: Some(Design {
                canvas: Some(canvas),
                ..Design::default()
            }),
            update_mask: Some(FieldMask {
                paths: vec!["canvas".into()],
            }),
            etag: self.design.etag.clone(),
            request_id: request_id(),
        };
        let call = async |channel, request| DesignServiceClient::new(channel).update_design(request).await;
        let before = self.design.canvas_hash.clone();
        self.design = self.me.ask("designs", update, call).await?.design.context("a design")?;
        ensure!(self.design.canvas_hash != before, "the canvas has the same hash");
        Ok(format!("{address} has another input, under the design's etag"))
    }

    async fn publish(&mut self, number: i32) -> Result<String> {
        let publish = PublishDesignRequest {
            design_id: self.design.id.clone(),
            etag: self.design.etag.clone(),
            message: "by the demo".into(),
            request_id: request_id(),
        };
        let call = async |channel, request| DesignServiceClient::new(channel).publish_design(request).await;
        let version = self
            .me
            .ask("designs", publish, call)
            .await?
            .version
            .context("a version")?;
        ensure!(
            version.number == number,
            "version {} instead of {number}",
            version.number
        );
        let get = GetDesignRequest {
            design_id: self.design.id.clone(),
        };
        let call = async |channel, request| DesignServiceClient::new(channel).get_design(request).await;
        self.design = self.me.ask("designs", get, call).await?.design.context("a design")?;
        Ok(format!("version {number}, {}", &version.canvas_hash[..12]))
    }

    async fn create_state(&mut self) -> Result<String> {
        let create = CreateStateRequest {
            name: self.state_name.clone(),
            design_id: self.design.id.clone(),
            request_id: request_id(),
        };
        let call = async |channel, request| StateServiceClient::new(channel).create_state(request).await;
        let state = self
            .me
            .ask("terraform_state", create, call)
            .await?
            .state
            .context("a state")?;
        ensure!(
            state.current_version.is_none() && state.lock.is_none(),
            "a new state is empty and free"
        );
        self.state_id = state.id;
        Ok(format!("`{}`, empty", self.state_name))
    }

    async fn export(&self, version: i32) -> Result<Vec<u8>> {
        let export = ExportTerraformRequest {
            design_id: self.design.id.clone(),
            version,
            state_name: self.state_name.clone(),
        };
        let call = async |channel: Channel, request| -> Result<Response<Vec<u8>>, Status> {
            let mut parts = DesignServiceClient::new(channel)
                .export_terraform(request)
                .await?
                .into_inner();
            let mut file = Vec::new();
            while let Some(part) = parts.message().await? {
                file.extend(part.content);
            }
            Ok(Response::new(file))
        };
        self.me.ask("designs", export, call).await
    }

    async fn export_first(&mut self) -> Result<String> {
        let (first, again) = (self.export(1).await?, self.export(1).await?);
        ensure!(first == again, "two exports of one version differ");
        Ok(format!("main.tf.json, {} bytes, twice the same", first.len()))
    }

    async fn apply_by_hand(&mut self) -> Result<String> {
        let dir = self.stage.checkout("by-hand");
        let checkout = Checkout {
            terraform: &self.stage.terraform,
            dir: &dir,
            password: &self.me.credential,
        };
        checkout.init(&self.export(1).await?).await?;
        let resources = checkout.apply().await?;
        ensure!(resources == 4, "{resources} resources instead of 4");
        ensure!(
            checkout.nothing_to_do().await?,
            "a plan after the apply has something to do"
        );
        let state = self.state().await?;
        let version = state.current_version.context("the state was written")?;
        ensure!(state.lock.is_none(), "the lock was not given back");
        Ok(format!(
            "init, apply (4 resources), plan (no changes); the state has serial {}",
            version.serial
        ))
    }

    async fn state(&self) -> Result<api::terraform_state::v1::State> {
        let get = GetStateRequest {
            state_id: self.state_id.clone(),
        };
        let call = async |channel, request| StateServiceClient::new(channel).get_state(request).await;
        self.me
            .ask("terraform_state", get, call)
            .await?
            .state
            .context("a state")
    }
}
