//! The audit service's process.

fn main() -> std::process::ExitCode {
    kit::main(audit::SERVICE)
}
