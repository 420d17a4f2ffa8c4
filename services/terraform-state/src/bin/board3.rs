//! What an operator does while the suite is down.

fn main() -> std::process::ExitCode {
    terraform_state::offline::main(std::env::args_os().skip(1))
}
