//! The agent that runs pipeline stages.

fn main() -> std::process::ExitCode {
    runner::main()
}
