//! The designs service.

fn main() -> std::process::ExitCode {
    kit::main(designs::SERVICE)
}
