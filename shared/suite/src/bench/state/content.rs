//! States as Terraform writes them: many resources whose ids, addresses and keys cannot be foretold.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How many resources of a large state change from one version to the next.
const CHANGED: usize = 10;

/// A state that versions are made of.
pub(super) struct Content {
    seed: u64,
    resources: Vec<String>,
}

impl Content {
    /// At least so many bytes; another seed makes another state.
    pub(super) fn new(seed: u64, bytes: usize) -> Content {
        let (mut resources, mut length) = (Vec::new(), 0);
        while length < bytes {
            let resource = resource(seed, resources.len(), 0);
            length += resource.len() + 2;
            resources.push(resource);
        }
        Content { seed, resources }
    }

    /// The version of this serial; a few resources are others than in the one before.
    pub(super) fn version(&mut self, serial: usize) -> Vec<u8> {
        let count = self.resources.len();
        for n in 0..CHANGED.min(count.div_ceil(10)) {
            let place = (serial * 7_919 + n * 104_729) % count;
            self.resources[place] = resource(self.seed, place, serial);
        }
        let mut text = format!(
            "{{\n  \"version\": 4,\n  \"terraform_version\": \"1.11.4\",\n  \"serial\": {serial},\n  \
             \"lineage\": \"{}\",\n  \"outputs\": {{}},\n  \"resources\": [\n",
            hexadecimal(&mut random(self.seed, 0, 0, "lineage"), 16)
        );
        text.push_str(&self.resources.join(",\n"));
        text.push_str("\n  ],\n  \"check_results\": null\n}\n");
        text.into_bytes()
    }
}

type Random = blake3::OutputReader;

fn random(seed: u64, place: usize, round: usize, what: &str) -> Random {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{seed}/{place}/{round}/{what}").as_bytes());
    hasher.finalize_xof()
}

fn bytes(random: &mut Random, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    random.fill(&mut bytes);
    bytes
}

fn hexadecimal(random: &mut Random, count: usize) -> String {
    hex::encode(bytes(random, count))
}

/// An instance of a machine in a cloud, about 2 kB; what a provider makes up stays, and what people set changes with the round.
fn resource(seed: u64, place: usize, round: usize) -> String {
    let mut kept = random(seed, place, 0, "made up by the provider");
    let mut set = random(seed, place, round, "set by people");
    let id = hexadecimal(&mut kept, 8);
    let address = bytes(&mut kept, 6);
    let (a, b, c) = (address[0], address[1], address[2]);
    let zone = ["a", "b", "c"][usize::from(address[3]) % 3];
    let size = ["micro", "small", "medium", "large", "xlarge"][usize::from(address[4]) % 5];
    let (image, network, volume, key) = (
        hexadecimal(&mut kept, 8),
        hexadecimal(&mut kept, 8),
        hexadecimal(&mut kept, 8),
        STANDARD.encode(bytes(&mut kept, 48)),
    );
    let (user_data, revision) = (hexadecimal(&mut set, 20), hexadecimal(&mut set, 4));
    let mut text = String::with_capacity(2_300);
    let _ = write!(
        text,
        r#"    {{
      "mode": "managed",
      "type": "aws_instance",
      "name": "node_{place}",
      "provider": "provider[\"registry.terraform.io/hashicorp/aws\"]",
      "instances": [
        {{
          "schema_version": 1,
          "attributes": {{
            "ami": "ami-{image}",
            "arn": "arn:aws:ec2:eu-west-1:123456789012:instance/i-{id}",
            "associate_public_ip_address": false,
            "availability_zone": "eu-west-1{zone}",
            "cpu_core_count": 2,
            "credit_specification": [],
            "disable_api_termination": false,
            "ebs_block_device": [],
            "ebs_optimized": true,
            "get_password_data": false,
            "hibernation": null,
            "host_id": "",
            "iam_instance_profile": "node",
            "id": "i-{id}",
            "instance_state": "running",
            "instance_type": "t3.{size}",
            "ipv6_addresses": [],
            "key_name": "fleet",
            "monitoring": true,
            "primary_network_interface_id": "eni-{network}",
            "private_dns": "ip-10-{a}-{b}-{c}.eu-west-1.compute.internal",
            "private_ip": "10.{a}.{b}.{c}",
            "root_block_device": [
              {{
                "delete_on_termination": true,
                "device_name": "/dev/xvda",
                "encrypted": true,
                "iops": 3000,
                "tags": {{}},
                "throughput": 125,
                "volume_id": "vol-{volume}",
                "volume_size": 30,
                "volume_type": "gp3"
              }}
            ],
            "source_dest_check": true,
            "tags": {{
              "Name": "node-{place}",
              "Revision": "{revision}"
            }},
            "tenancy": "default",
            "timeouts": null,
            "user_data": "{user_data}",
            "volume_tags": null
          }},
          "sensitive_attributes": [],
          "private": "{key}",
          "dependencies": [
            "aws_security_group.node",
            "data.aws_ami.base"
          ]
        }}
      ]
    }}"#
    );
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_version_is_json_of_the_wanted_length_and_differs_little_from_the_one_before() {
        let mut content = Content::new(7, 100_000);
        let (one, two) = (content.version(1), content.version(2));
        assert!((100_000..105_000).contains(&one.len()), "{}", one.len());
        let state: serde_json::Value = serde_json::from_slice(&one).unwrap();
        let next: serde_json::Value = serde_json::from_slice(&two).unwrap();
        assert_eq!((&state["serial"], &next["serial"]), (&1.into(), &2.into()));
        assert_eq!(state["lineage"], next["lineage"]);
        let (of, next) = (
            state["resources"].as_array().unwrap(),
            next["resources"].as_array().unwrap(),
        );
        let others = of.iter().zip(next).filter(|(one, two)| one != two).count();
        assert!(others > 0 && others <= 2 * CHANGED);
    }
}
