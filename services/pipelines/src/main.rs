//! The pipelines service.

fn main() -> std::process::ExitCode {
    kit::main(pipelines::SERVICE)
}
