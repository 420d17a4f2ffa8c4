//! The identity service's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    kit::main(identity::SERVICE)
}
