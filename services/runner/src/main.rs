//! The agent that runs pipeline stages.

fn main() {}
