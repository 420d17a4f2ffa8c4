//! The README's lines, pasted into a shell beside a running suite.

use crate::command::{Home, installed, pasted};

const README: &str = include_str!("../../../../README.md");

/// The shell blocks of a section, in order.
fn blocks(section: &str) -> Vec<&'static str> {
    let (_, text) = README
        .split_once(&format!("## {section}\n"))
        .expect("the section is there");
    let text = text.split("\n## ").next().unwrap_or(text);
    let starts = text.split("```sh\n").skip(1);
    starts.filter_map(|block| block.split("```").next()).collect()
}

#[tokio::test]
async fn the_lines_of_the_readme_work_as_they_stand() {
    let home = Home::new("readme");
    home.succeeds(&["up", "--detach"]);
    let missing: Vec<_> = ["grpcurl", "terraform"]
        .into_iter()
        .filter(|tool| !installed(tool))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let blocks = blocks("Use");
    assert_eq!(
        blocks.len(),
        5,
        "calls, terraform, a pipeline, a state out of a dump, buf"
    );
    if !missing.is_empty() {
        eprintln!("SKIPPED most lines: there is no {}", missing.join(", no "));
    }
    // buf's needs neither.
    let first = if missing.is_empty() { 0 } else { blocks.len() - 1 };
    let mut script = vec![
        // As if the repository's tools, verbs and environment lay here.
        format!("cd {}", dir.path().display()),
        format!("ln -s {} .board3", home.layout.dir().display()),
        format!("ln -s {}/../../.tools .tools", env!("CARGO_MANIFEST_DIR")),
        format!(
            "printf '#!/bin/sh\\nexec {} \"$@\"\\n' > dev && chmod +x dev",
            env!("CARGO_BIN_EXE_board3")
        ),
        ". .board3/env".to_owned(),
    ];
    script.extend(blocks[first..].iter().map(|block| (*block).to_owned()));
    let said = pasted(&script.iter().map(String::as_str).collect::<Vec<_>>());
    if missing.is_empty() {
        assert!(said.contains("Apply complete!"), "{said}");
        assert!(said.contains("\"designs.CreateDesign\""), "{said}");
        assert!(
            said.contains("\"complete\": true") && said.contains("\"pipelineId\""),
            "{said}"
        );
        let state = std::fs::read_to_string(dir.path().join("web-app.tfstate")).unwrap();
        assert!(state.contains("\"serial\":"), "{state}");
    }
}
