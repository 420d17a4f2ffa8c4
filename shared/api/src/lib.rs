//! The suite's protobuf types, stubs, descriptors and policy table, all generated from `proto/`.
//!
//! Nothing here is written by hand but the shape of a policy; an RPC without a policy fails the build.

/// `board3.options.v1`.
pub mod options {
    /// What every RPC declares about itself.
    #[allow(missing_docs)]
    pub mod v1 {
        tonic::include_proto!("board3.options.v1");
    }
}
/// `board3.errors.v1`.
pub mod errors {
    /// Every reason that the suite can answer a failed call with.
    #[allow(missing_docs)]
    pub mod v1 {
        tonic::include_proto!("board3.errors.v1");
    }
}
/// `board3.events.v1`.
pub mod events {
    /// What the services tell one another.
    #[allow(missing_docs)]
    pub mod v1 {
        tonic::include_proto!("board3.events.v1");
    }
}
/// `board3.identity.v1`.
pub mod identity {
    /// Users, organizations, sessions and keys.
    #[allow(missing_docs)]
    pub mod v1 {
        tonic::include_proto!("board3.identity.v1");
    }
}
/// `board3.designs.v1`.
pub mod designs {
    /// Designs, versions, resources and templates.
    #[allow(missing_docs)]
    pub mod v1 {
        tonic::include_proto!("board3.designs.v1");
    }
}
/// `board3.terraform_state.v1`.
pub mod terraform_state {
    /// States, their locks and what has drifted.
    #[allow(missing_docs)]
    pub mod v1 {
        tonic::include_proto!("board3.terraform_state.v1");
    }
}
/// `board3.pipelines.v1`.
pub mod pipelines {
    /// Pipelines, executions, runners and jobs.
    #[allow(missing_docs)]
    pub mod v1 {
        tonic::include_proto!("board3.pipelines.v1");
    }
}
/// `board3.audit.v1`.
pub mod audit {
    /// The trail of who did what.
    #[allow(missing_docs)]
    pub mod v1 {
        tonic::include_proto!("board3.audit.v1");
    }
}

pub mod policy;

/// The encoded `FileDescriptorSet` of every proto, imports included.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));

/// A message that an RPC takes.
pub trait Request: prost::Message {
    /// Its `request_id`, where an audited RPC has one.
    fn request_id(&self) -> Option<&str>;
}

include!(concat!(env!("OUT_DIR"), "/messages.rs"));
