//! Messages and Terraform's JSON, to and from the model; whatever is wrong with one is reported at once.

pub(crate) mod drift;
