//! A migration added to the folder is compiled in, though no Rust file changes.

fn main() {
    println!("cargo::rerun-if-changed=../../migrations/pipelines");
}
