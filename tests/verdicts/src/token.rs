//! Tokens, good and bad, signed when they are sent.

use crate::corpus::{Mutation, Token};
use crate::keys;
use crate::text::Filling;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

impl Token {
    /// This, and what it does not say from `defaults`.
    pub(crate) fn over(&self, defaults: &Self) -> Self {
        let mut token = self.clone();
        token.key = token.key.or_else(|| defaults.key.clone());
        token.header = merged(&defaults.header, &self.header);
        token.claims = merged(&defaults.claims, &self.claims);
        token
    }

    /// The token.
    pub(crate) fn sign(&self, filling: &Filling) -> String {
        let name = self.key.as_deref().unwrap_or("hs");
        let key = (name != "none").then(|| keys::key(name));
        let known = key.as_ref().map_or("none", |key| key.algorithm());
        let algorithm = self.algorithm.as_deref().unwrap_or(known);
        let header = match &self.header_text {
            Some(bytes) => filling.bytes(bytes),
            None => object(
                json!({"alg": algorithm, "typ": "JWT"}),
                &self.header,
                filling,
            ),
        };
        let claims = match &self.claims_text {
            Some(bytes) => filling.bytes(bytes),
            None => object(
                json!({"sub": "alice", "iat": filling.now, "exp": filling.now + 600}),
                &self.claims,
                filling,
            ),
        };
        let sign = |signed: &str| match (&self.public_as_secret, &key) {
            (Some(name), _) => {
                let public = keys::public_pem(name);
                keys::hmac("HS256", public.as_bytes(), signed.as_bytes())
            }
            (None, Some(key)) => key.sign(algorithm, signed.as_bytes()),
            (None, None) => Vec::new(),
        };
        let compact = |claims: &[u8]| {
            let signed = format!(
                "{}.{}",
                URL_SAFE_NO_PAD.encode(&header),
                URL_SAFE_NO_PAD.encode(claims)
            );
            let signature = URL_SAFE_NO_PAD.encode(sign(&signed));
            format!("{signed}.{signature}")
        };
        let mut token = compact(&claims);
        for mutation in &self.mutate {
            token = match mutation {
                Mutation::Nest => compact(token.as_bytes()),
                other => mutated(&token, other),
            };
        }
        token
    }
}

fn merged(defaults: &Map<String, Value>, own: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = defaults.clone();
    merged.extend(own.clone());
    merged
}

fn object(base: Value, changes: &Map<String, Value>, filling: &Filling) -> Vec<u8> {
    let mut object = base;
    for (name, value) in changes {
        let fields = object.as_object_mut().unwrap();
        if value.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), filling.json(value));
        }
    }
    object.to_string().into_bytes()
}

fn mutated(token: &str, mutation: &Mutation) -> String {
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let signature = |parts: &[String]| URL_SAFE_NO_PAD.decode(&parts[2]).unwrap();
    match mutation {
        Mutation::EmptySignature => parts[2].clear(),
        Mutation::NoSignature => parts.truncate(2),
        Mutation::FlipSignature => {
            let mut bytes = signature(&parts);
            bytes[0] ^= 1;
            parts[2] = URL_SAFE_NO_PAD.encode(bytes);
        }
        Mutation::ZeroSignature(size) => parts[2] = URL_SAFE_NO_PAD.encode(vec![0; *size]),
        Mutation::CutSignature(size) => {
            let mut bytes = signature(&parts);
            bytes.truncate(bytes.len() - size);
            parts[2] = URL_SAFE_NO_PAD.encode(bytes);
        }
        Mutation::LongerSignature => {
            let mut bytes = signature(&parts);
            bytes.push(0);
            parts[2] = URL_SAFE_NO_PAD.encode(bytes);
        }
        Mutation::StrayBits => stray_bits(&mut parts[2]),
        Mutation::Pad(part) => {
            let bytes = URL_SAFE_NO_PAD.decode(&parts[*part]).unwrap();
            let padded = STANDARD.encode(bytes).replace('+', "-").replace('/', "_");
            parts[*part] = if padded == parts[*part] {
                padded + "="
            } else {
                padded
            };
        }
        Mutation::OtherAlphabet => {
            parts[2] = parts[2].replace('-', "+").replace('_', "/") + "+/";
        }
        Mutation::EmptyPart(part) => parts[*part].clear(),
        Mutation::Prepend(text) => parts[0].insert_str(0, text),
        Mutation::Append(text) => parts[2].push_str(text),
        Mutation::AppendMany(text, times) => parts[2].push_str(&text.repeat(*times)),
        Mutation::Insert(part, text) => parts[*part].insert_str(0, text),
        Mutation::Again(between) => return format!("{token}{between}{token}"),
        Mutation::Nest => panic!("needs the key"),
    }
    parts.join(".")
}

/// The last character of 43 stands for six bits, of which four are used.
fn stray_bits(text: &mut String) {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = text.pop().unwrap();
    let place = ALPHABET.find(last).unwrap();
    text.push(ALPHABET.as_bytes()[place ^ 1].into());
}
