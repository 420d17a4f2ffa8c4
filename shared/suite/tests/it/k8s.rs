//! The manifests of `k8s/base`: they render, and each service has its Deployment, probes, migration and Service.

use std::{path::Path, process::Command};

use suite::SERVICES;

/// What `kubectl kustomize k8s/base` prints, a text for each object; none where there is no kubectl.
fn rendered() -> Option<Vec<String>> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../k8s/base");
    let output = match Command::new("kubectl").arg("kustomize").arg(base).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: there is no kubectl here");
            return None;
        }
        Err(error) => panic!("kubectl: {error}"),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    Some(text.split("\n---\n").map(str::to_owned).collect())
}

/// The object of this kind and name.
fn object<'a>(objects: &'a [String], kind: &str, name: &str) -> &'a str {
    let mut own = objects.iter().filter(|object| {
        object.lines().any(|line| line == format!("kind: {kind}"))
            && object.lines().any(|line| line == format!("  name: {name}"))
    });
    own.next().unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

#[test]
fn every_service_is_deployed_with_its_probes_its_migration_and_a_locked_container() {
    let Some(objects) = rendered() else { return };
    for service in SERVICES {
        let name = service.slice.name.replace('_', "-");
        let deployment = object(&objects, "Deployment", &name);
        for part in [
            "startupProbe:\n",
            "livenessProbe:\n          grpc:\n            port: 50051\n            service: liveness\n",
            "readinessProbe:\n          grpc:\n            port: 50051\n            service: readiness\n",
            &format!("- command:\n        - board3-{name}\n        - migrate\n"),
            &format!("- secretRef:\n            name: board3-{name}\n"),
            "readOnlyRootFilesystem: true",
            "runAsNonRoot: true",
        ] {
            assert!(deployment.contains(part), "{name} has no {part}\n{deployment}");
        }
        let balanced = object(&objects, "Service", &name);
        assert!(balanced.contains("appProtocol: kubernetes.io/h2c"), "{balanced}");
    }
    assert!(object(&objects, "Service", "terraform-state").contains("port: 8080"));
    let runner = object(&objects, "Deployment", "runner");
    assert!(runner.contains("/health/ready") && runner.contains("name: board3-runner"));
    assert_eq!(
        objects
            .iter()
            .filter(|object| object.contains("kind: Deployment"))
            .count(),
        6
    );
}

#[test]
fn the_services_find_each_other_and_no_secret_stands_in_the_base() {
    let Some(objects) = rendered() else { return };
    let common = objects
        .iter()
        .find(|object| object.contains("kind: ConfigMap"))
        .unwrap();
    for service in SERVICES {
        let (name, variable) = (service.slice.name.replace('_', "-"), service.slice.name.to_uppercase());
        assert!(
            common.contains(&format!("BOARD3_{variable}: http://{name}:50051")),
            "{common}"
        );
    }
    assert!(!objects.iter().any(|object| object.contains("kind: Secret\n")));
}
