//! What is kept back because it is, or may be, a secret.
//!
//! In doubt it is one: Terraform's own marks are incomplete, so a name or a look is enough.

use serde_json::Value;
use uuid::Uuid;

/// Parts of a name that are not met by chance: they count without regard to the words around them.
const UNMISTAKABLE: [&str; 20] = [
    "accesskey",
    "accountkey",
    "apikey",
    "connectionstring",
    "credential",
    "customdata",
    "masterkey",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "primarykey",
    "privatekey",
    "secret",
    "sharedkey",
    "signingkey",
    "sshkey",
    "subscriptionkey",
    "token",
    "userdata",
];

/// Words that count when they stand alone.
const WORDS: [&str; 28] = [
    "auth",
    "authorization",
    "bearer",
    "cert",
    "certificate",
    "certificates",
    "certs",
    "cookie",
    "creds",
    "dsn",
    "hmac",
    "jwt",
    "key",
    "keys",
    "otp",
    "pass",
    "pem",
    "pfx",
    "pin",
    "private",
    "psk",
    "pw",
    "pwd",
    "salt",
    "sas",
    "seed",
    "signature",
    "webhook",
];

/// What `private` says nothing about: networks, not keys.
const PRIVATE_NETWORK: [&str; 8] = ["dns", "endpoint", "ip", "ips", "link", "network", "subnet", "subnets"];

/// How the credentials of well-known issuers begin.
const PREFIXES: [&str; 20] = [
    "AIza",
    "AKIA",
    "ASIA",
    "AccountKey=",
    "SG.",
    "b3_",
    "b3j_",
    "dop_v1_",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "hvs.",
    "npm_",
    "rk_live_",
    "sk-",
    "sk_live_",
    "xox",
];

/// Attributes that name what their neighbour holds: `{ name = "DB_PASSWORD", value = … }`.
const NAMING: [&str; 6] = ["name", "key", "field", "parameter", "variable", "header"];

/// Attributes that carry what a resource is named for: of a parameter named `/prod/db/password` it is the `value`.
const CARRYING: [&str; 10] = [
    "body",
    "content",
    "data",
    "default",
    "insecure_value",
    "payload",
    "plaintext",
    "text",
    "value",
    "values",
];

/// Texts longer than this are not looked through, but kept back.
const MOST_LOOKED_THROUGH: usize = 16 << 10;

/// Whether something of this name is kept back: an attribute, a map's key, a variable.
pub(crate) fn names(name: &str) -> bool {
    let words = words(name);
    let joined = words.concat();
    UNMISTAKABLE.iter().any(|part| joined.contains(part))
        || words.iter().enumerate().any(|(index, word)| {
            let next = words.get(index + 1).map_or("", String::as_str);
            WORDS.contains(&word.as_str()) && !(word == "private" && PRIVATE_NETWORK.contains(&next))
        })
}

/// Whether all that a resource of this type holds is kept back: `random_password`, `kubernetes_secret`.
pub(crate) fn types(resource_type: &str) -> bool {
    let joined = words(resource_type).concat();
    UNMISTAKABLE.iter().any(|part| joined.contains(part))
}

/// Whether an object says by one of its attributes that it holds a secret.
pub(crate) fn labels(object: &serde_json::Map<String, Value>) -> bool {
    object
        .iter()
        .any(|(key, value)| NAMING.contains(&key.to_lowercase().as_str()) && value.as_str().is_some_and(names))
}

/// Whether a word of a command line says that the next one is a secret: `--password`, `-token`, and `-p`, which many
/// programs take for one.
pub(crate) fn announces(word: &str) -> bool {
    word.starts_with('-') && !word.contains('=') && (word == "-p" || names(word))
}

/// Whether a list is a command line with a secret in it.
pub(crate) fn given(items: &[Value]) -> bool {
    items
        .windows(2)
        .any(|pair| pair[0].as_str().is_some_and(announces) && !pair[1].is_null())
}

/// Whether an attribute carries what its resource is named for.
pub(crate) fn carries(name: &str) -> bool {
    CARRYING.contains(&name)
}

/// Whether a value is kept back for what it holds, at any depth.
pub(crate) fn holds(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => looks(text),
        Value::Array(items) => given(items) || items.iter().any(holds),
        Value::Object(object) => {
            labels(object)
                || object
                    .iter()
                    .any(|(key, value)| names(key) || looks(key) || holds(value))
        }
    }
}

/// Whether a text looks like a secret, or like something that has one in it.
pub(crate) fn looks(text: &str) -> bool {
    if text.len() > MOST_LOOKED_THROUGH || text.contains("-----BEGIN") {
        return true;
    }
    let trimmed = text.trim_start();
    if trimmed.starts_with(['{', '['])
        && let Ok(document) = serde_json::from_str::<Value>(trimmed)
    {
        return holds(&document);
    }
    has_userinfo(text)
        || assigns(text)
        || text.split(between_pieces).any(|piece| {
            let first = piece.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
            PREFIXES
                .iter()
                .any(|prefix| first.starts_with(prefix) && first.len() >= prefix.len() + 8)
                || is_token(piece)
                || is_random(&without_ids(piece))
                || piece.split('/').any(|part| !is_id(part) && is_random(part))
        })
}

/// The words of a name in lower case, whether it is written in snake, kebab, camel or capitals.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let letters: Vec<char> = name.chars().collect();
    for (index, &letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).map(|index| letters[index]);
        let after = letters.get(index + 1);
        let begins = letter.is_uppercase()
            && before.is_some_and(|before| {
                before.is_lowercase() || (before.is_uppercase() && after.is_some_and(|after| after.is_lowercase()))
            });
        if begins || !letter.is_alphabetic() {
            words.push(String::new());
        }
        if let (Some(word), true) = (words.last_mut(), letter.is_alphabetic()) {
            word.extend(letter.to_lowercase());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// A URL with a user in it.
fn has_userinfo(text: &str) -> bool {
    text.match_indices("://").any(|(index, separator)| {
        let authority = text[index + separator.len()..].split(|c: char| c.is_whitespace() || "/?#\"'".contains(c));
        authority.take(1).any(|authority| authority.contains('@'))
    })
}

/// A name of a secret that is given something: `PASSWORD=…`, `token: …`, `--api-key …`, `Bearer …`.
fn assigns(text: &str) -> bool {
    let is_name = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    let given = text.match_indices(['=', ':']).any(|(index, _)| {
        let before = text[..index].trim_end_matches(|c: char| c.is_whitespace() || "\"'\\]".contains(c));
        let start = before.rfind(|c| !is_name(c)).map_or(0, |index| {
            index + before[index..].chars().next().map_or(0, char::len_utf8)
        });
        names(&before[start..])
    });
    given
        || text
            .split_whitespace()
            .zip(text.split_whitespace().skip(1))
            .any(|(word, next)| {
                let scheme = word.trim_matches(|c: char| !c.is_alphanumeric());
                announces(word.trim_matches(['"', '\'']))
                    || (scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("basic"))
                        && next.len() >= 8
            })
}

fn between_pieces(c: char) -> bool {
    c.is_whitespace() || "\"'`<>(){}[],;:?&=|".contains(c)
}

/// A JSON Web Token (RFC 7519), signed or encrypted.
fn is_token(piece: &str) -> bool {
    let piece = piece.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    piece.starts_with("eyJ") && piece.matches('.').count() >= 2
}

/// A piece without the ids on its path: `instance/i-0abcdef1234567890` is no secret for its id.
fn without_ids(piece: &str) -> String {
    let parts: Vec<&str> = piece.split('/').filter(|part| !is_id(part)).collect();
    parts.join("/")
}

/// A UUID, or an id as clouds give them: a word, a hyphen, and up to 17 hex digits.
fn is_id(part: &str) -> bool {
    if part.len() == 36 && Uuid::try_parse(part).is_ok() {
        return true;
    }
    part.rsplit_once('-').is_some_and(|(word, id)| {
        !word.is_empty()
            && word.len() <= 20
            && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
            && (8..=17).contains(&id.len())
            && id.chars().all(|c| c.is_ascii_hexdigit())
    })
}

/// What a character is, as far as it tells words from noise.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Lower,
    Upper,
    Digit,
    /// What stands between words: nothing is learnt from it.
    Between,
    Other,
}

impl Class {
    fn of(c: char) -> Class {
        match c {
            _ if c.is_lowercase() => Class::Lower,
            _ if c.is_alphabetic() => Class::Upper,
            _ if c.is_numeric() => Class::Digit,
            '-' | '_' | '.' | '/' | '+' => Class::Between,
            _ => Class::Other,
        }
    }

    fn is_letter(self) -> bool {
        matches!(self, Class::Lower | Class::Upper)
    }

    /// Whether words seldom have the one after the other.
    fn crosses(self, next: Class) -> bool {
        (self == Class::Lower && next == Class::Upper)
            || (self.is_letter() && next == Class::Digit)
            || (self == Class::Digit && next.is_letter())
            || ((self == Class::Other) != (next == Class::Other) && self != Class::Between && next != Class::Between)
    }
}

/// Whether a piece has at least 20 characters, of at least 3 bits each (Shannon), and is not made of words: at a fifth
/// of its places a letter meets a digit or a small letter a capital, or 20 letters of one case stand without a break.
fn is_random(piece: &str) -> bool {
    let classes: Vec<Class> = piece.chars().map(Class::of).collect();
    if classes.len() < 20 || entropy(piece) < 3.0 {
        return false;
    }
    let crossings = classes.windows(2).filter(|pair| pair[0].crosses(pair[1])).count();
    let unbroken = classes
        .chunk_by(|one, next| one == next)
        .filter(|stretch| stretch[0].is_letter())
        .map(<[Class]>::len)
        .max();
    crossings * 5 >= classes.len() || unbroken >= Some(20)
}

/// Bits per character.
fn entropy(text: &str) -> f64 {
    let mut letters: Vec<char> = text.chars().collect();
    letters.sort_unstable();
    let all = letters.len() as f64;
    letters
        .chunk_by(|one, next| one == next)
        .map(|same| same.len() as f64 / all)
        .map(|share| -share * share.log2())
        .sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_secrets_are_known_however_they_are_written() {
        for name in [
            "password",
            "db_password",
            "DB_PASSWORD",
            "master-password",
            "masterPassword",
            "dbpassword",
            "clientSecret",
            "secrets",
            "TOKEN",
            "api_key",
            "apikey",
            "key",
            "kms_key_id",
            "KMSKey",
            "private",
            "private_key",
            "privateKeyPEM",
            "credentials",
            "connection_string",
            "primaryConnectionString",
            "certificate",
            "tls_cert",
            "user_data",
            "user_data_base64",
            "pwd",
            "auth",
            "db_pw",
            "creds",
            "passcode",
            "otp",
            "seed",
            "masterkey",
            "sshkey",
            "primarykey",
            "accountkey",
        ] {
            assert!(names(name), "{name}");
        }
        for name in [
            "",
            "tags",
            "Name",
            "keyboard",
            "monkey",
            "private_ip",
            "private_dns_name",
            "certain",
            "author",
            "passage",
            "pinned",
            "instance_type",
            "size",
            "cidr_blocks",
            "owner",
            "größe",
        ] {
            assert!(!names(name), "{name}");
        }
    }

    #[test]
    fn types_of_secrets_are_known() {
        for name in [
            "random_password",
            "kubernetes_secret_v1",
            "tls_private_key",
            "aws_iam_access_key",
        ] {
            assert!(types(name), "{name}");
        }
        for name in ["aws_instance", "aws_kms_key", "terraform_data"] {
            assert!(!types(name), "{name}");
        }
    }

    #[test]
    fn what_looks_like_a_secret_is_one() {
        for text in [
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
            "AKIAIOSFODNN7EXAMPLE",
            "id AKIAIOSFODNN7EXAMPLE.",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
            "postgres://app:hunter2@db.internal:5432/app",
            "see https://user@example.com",
            "https://hooks.slack.com/services/T00000000/B00000000/Xq3TzP0aLm9KcVb7RwYd2Hfs",
            "5f4dcc3b5aa765d61d8327deb882cf99",
            "xK9#mP2$vL5@nQ8!wR3^",
            "q7f2m9x4k1z8b3v6n5w0",
            "zxqvjkwpmhtrgbnfdlcy",
            "Server=db;User Id=app;Password=x;",
            "export DB_PASSWORD=hunter2",
            "run --api-key abc",
            "mysql -u app -p hunter2",
            "vault login -token 'x'",
            r#"["mysqld", "--password", "x"]"#,
            "password: x",
            "Authorization: Bearer abcdefgh",
            "ghp_16C7e42F292c6912E7",
            "b3j_0123456789abcdef",
            r#"[{"name":"DB_PASSWORD","value":"hunter2"}]"#,
            r#"{"db":{"password":"x"}}"#,
            r#"{"doc":"{\"token\":\"x\"}"}"#,
        ] {
            assert!(looks(text), "{text}");
        }
        assert!(looks(&"long ".repeat(4_000)));
    }

    #[test]
    fn what_people_write_is_shown() {
        for text in [
            "",
            "dev",
            "prod",
            "mallory",
            "my-production-cluster-name-2024",
            "AmazonECSTaskExecutionRolePolicy",
            "arn:aws:iam::123456789012:role/my-role-name",
            "arn:aws:ec2:us-east-1:123456789012:instance/i-0abcdef1234567890",
            "ami-0abcdef1234567890",
            "e16a4a4c-958f-4015-9980-83ca2e18b655",
            "10.0.0.37",
            "10.0.0.0/16",
            "2026-11-22T12:44:20.123456Z",
            "https://example.com/path/to/some/page.html",
            "ec2-203-0-113-25.compute-1.amazonaws.com",
            "the quick brown fox jumps over the lazy dog",
            "Größe: übermäßig große Zeichenkette",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "mailto:ops@example.com",
            r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}"#,
            "{not json",
        ] {
            assert!(!looks(text), "{text}");
        }
    }

    #[test]
    fn an_object_may_say_what_its_value_is() {
        assert!(holds(&json!([{"name": "DB_PASSWORD", "value": "x"}])));
        assert!(holds(&json!({"a": [{"b": {"client_secret": 1}}]})));
        assert!(!holds(&json!([{"name": "LOG_LEVEL", "value": "debug"}, 1, null, true])));
    }
}
