//! The terraform-state service.

fn main() -> std::process::ExitCode {
    kit::main(terraform_state::SERVICE)
}
