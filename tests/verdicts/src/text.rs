//! Placeholders in the corpus: `${now+60}`, `${fresh}`, `${random}`, `${token}`, `${secret:NAME}`,
//! `${public:NAME}`, `${echo}`. They stand for what cannot be written down beforehand.

use crate::corpus::Content;
use crate::keys;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Number, Value};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

/// What placeholders stand for in one request.
#[derive(Debug, Clone)]
pub(crate) struct Filling {
    /// `${fresh}`: the same throughout a case, in no other case and no other run.
    pub(crate) fresh: String,
    /// `${now}`, in seconds since 1970.
    pub(crate) now: u64,
    /// `${i}`.
    pub(crate) number: Option<usize>,
    /// `${token}` and `${token:NAME}`.
    pub(crate) tokens: BTreeMap<String, String>,
    /// `${echo}`: its address, in configurations.
    pub(crate) echo: Option<SocketAddr>,
}

impl Filling {
    pub(crate) fn now(fresh: &str) -> Self {
        Self {
            fresh: fresh.to_owned(),
            now: now(),
            number: None,
            tokens: BTreeMap::new(),
            echo: None,
        }
    }

    /// `text` with what its placeholders stand for.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, behind) = after
                .split_once('}')
                .unwrap_or_else(|| panic!("`{text}`: a placeholder has no end"));
            filled.push_str(before);
            filled.push_str(&self.value(name));
            rest = behind;
        }
        filled.push_str(rest);
        filled
    }

    fn value(&self, name: &str) -> String {
        if let Some(time) = self.time(name) {
            return time.to_string();
        }
        let (kind, argument) = name.split_once(':').unwrap_or((name, ""));
        match (kind, argument) {
            ("fresh", "") => self.fresh.clone(),
            ("random", "") => URL_SAFE_NO_PAD.encode(random()),
            ("echo", "") => self.echo.expect("`${echo}` in a configuration").to_string(),
            ("i", "") => self.number.expect("`${i}` in a line of many").to_string(),
            ("token", name) => self
                .tokens
                .get(name)
                .unwrap_or_else(|| panic!("there is no token `{name}`"))
                .clone(),
            ("secret", name) => keys::secret_text(name),
            ("public", name) => keys::public_pem(name),
            _ => panic!("no placeholder is called `{name}`"),
        }
    }

    /// `now`, `now+60`, `now-0.5`.
    fn time(&self, text: &str) -> Option<Number> {
        let shift = text.strip_prefix("now")?;
        let whole = || {
            let shift: i64 = if shift.is_empty() {
                0
            } else {
                shift.parse().ok()?
            };
            Some(Number::from(self.now.saturating_add_signed(shift)))
        };
        let fraction = || Number::from_f64(self.now as f64 + shift.parse::<f64>().ok()?);
        whole().or_else(fraction)
    }

    /// Every text in `value`, as [`Self::text`] has it; a text that is a time becomes that number.
    pub(crate) fn json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => match self.time(text) {
                Some(time) => Value::Number(time),
                None => Value::String(self.text(text)),
            },
            Value::Array(values) => values.iter().map(|value| self.json(value)).collect(),
            Value::Object(object) => object
                .iter()
                .map(|(name, value)| (self.text(name), self.json(value)))
                .collect(),
            other => other.clone(),
        }
    }

    pub(crate) fn bytes(&self, content: &Content) -> Vec<u8> {
        match content {
            Content::Text(text) => self.text(text).into_bytes(),
            Content::Base64 { base64 } => STANDARD.decode(base64).expect("base64 in the corpus"),
            Content::Repeat {
                repeat,
                times,
                before,
                after,
            } => {
                let parts = [before.clone(), repeat.repeat(*times), after.clone()];
                self.text(&parts.concat()).into_bytes()
            }
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs()
}

/// What nobody has had before, as a word.
pub(crate) fn fresh() -> String {
    let bytes = random();
    let word: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
    word.concat()
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system's random numbers");
    bytes
}
