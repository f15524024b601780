//! The list of bad tokens of RFC 8725 and its kin, in one table: each with the reason that it is refused
//! for. `refused.rs` goes into the claims, keys and headers one by one.

use super::*;

type Case = (&'static str, String, &'static str);

const HS256: &[u8] = br#"{"alg":"HS256","typ":"JWT"}"#;

fn with_header(header: impl AsRef<[u8]>) -> String {
    raw(header.as_ref(), claims().to_string().as_bytes(), &SECRET)
}

fn with_claims(text: impl AsRef<[u8]>) -> String {
    raw(HS256, text.as_ref(), &SECRET)
}

/// The good claims with `more` before their end.
fn claims_and(more: &str) -> String {
    let text = claims().to_string();
    with_claims(format!("{}{more}", text.trim_end_matches('}')))
}

/// A token without a signature.
fn unsigned(header: &str) -> String {
    format!(
        "{}.{}.",
        B64.encode(header),
        B64.encode(claims().to_string())
    )
}

/// HS256 that names an asymmetric key, with `secret`.
fn confused(kid: &str, secret: &[u8]) -> String {
    let header = json!({"alg": "HS256", "kid": kid}).to_string();
    raw(header.as_bytes(), claims().to_string().as_bytes(), secret)
}

/// The header has `name`, and whoever wrote it has no key.
fn forged(name: &str, value: Value) -> String {
    let mut header = json!({"alg": "HS256"});
    header[name] = value;
    let header = header.to_string();
    raw(header.as_bytes(), claims().to_string().as_bytes(), &[0; 32])
}

/// Changes one bit that is part of no byte.
fn stray_bits(text: &str) -> String {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = ALPHABET.find(text.chars().last().unwrap()).unwrap();
    // 32 bytes leave two low bits unused in the last of 43 characters.
    let other = ALPHABET.chars().nth(last ^ 1).unwrap();
    format!("{}{other}", &text[..text.len() - 1])
}

#[rustfmt::skip]
fn the_list() -> Vec<Case> {
    let good = token(&claims());
    let parts: Vec<&str> = good.split('.').collect();
    let [h, c, s] = parts[..] else { panic!("three parts") };
    let zeros = |bytes| B64.encode(vec![0; bytes]);
    let ed = B64.encode(ed_key().verifying_key().to_bytes());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": ed});
    let plain = claims().to_string();
    vec![
        // The algorithm.
        ("none", unsigned(r#"{"alg":"none"}"#), "malformed"),
        ("None", unsigned(r#"{"alg":"None"}"#), "malformed"),
        ("NONE", unsigned(r#"{"alg":"NONE"}"#), "malformed"),
        ("nOnE", unsigned(r#"{"alg":"nOnE"}"#), "malformed"),
        ("no name", unsigned(r#"{"alg":""}"#), "malformed"),
        ("no algorithm", unsigned(r#"{"typ":"JWT"}"#), "malformed"),
        ("none, signed", with_header(r#"{"alg":"none"}"#), "malformed"),
        ("nOnE, signed", with_header(r#"{"alg":"nOnE"}"#), "malformed"),
        ("another case", with_header(r#"{"alg":"hs256"}"#), "malformed"),
        ("an unknown one", with_header(r#"{"alg":"HS385"}"#), "malformed"),
        ("another curve", with_header(r#"{"alg":"ES256K"}"#), "malformed"),
        ("a cipher", with_header(r#"{"alg":"A128KW"}"#), "malformed"),
        ("null", with_header(r#"{"alg":null}"#), "malformed"),
        ("a list", with_header(r#"{"alg":["HS256"]}"#), "malformed"),
        ("a number", with_header(r#"{"alg":1}"#), "malformed"),
        ("no key of it", with_header(r#"{"alg":"RS256"}"#), "unknown_key"),
        // HMAC with a public key, which is no secret.
        ("HMAC with Ed25519 PEM", confused("e", ed_pem().as_bytes()), "unknown_key"),
        ("HMAC with Ed25519 PEM, cut", confused("e", ed_pem().trim().as_bytes()), "unknown_key"),
        ("HMAC with Ed25519 bytes", confused("e", ed_key().verifying_key().as_bytes()), "unknown_key"),
        ("HMAC with P-256 PEM", confused("p", p256_pem().as_bytes()), "unknown_key"),
        ("HMAC with P-256 PEM, cut", confused("p", p256_pem().trim().as_bytes()), "unknown_key"),
        ("HMAC that says EdDSA", with_header(r#"{"alg":"EdDSA","kid":"e"}"#), "signature"),
        ("HMAC that says ES256", with_header(r#"{"alg":"ES256","kid":"p"}"#), "signature"),
        // The signature.
        ("an empty signature", format!("{h}.{c}."), "signature"),
        ("no signature", format!("{h}.{c}"), "malformed"),
        ("one zero", format!("{h}.{c}.{}", zeros(1)), "signature"),
        ("zeros", format!("{h}.{c}.{}", zeros(32)), "signature"),
        ("zeros for Ed25519", format!("{}{}", unsigned(r#"{"alg":"EdDSA","kid":"e"}"#), zeros(64)), "signature"),
        ("zeros for P-256 (CVE-2022-21449)", format!("{}{}", unsigned(r#"{"alg":"ES256","kid":"p"}"#), zeros(64)), "signature"),
        ("another's signature", format!("{h}.{}.{s}", B64.encode(claims_with("sub", json!("root")).to_string())), "signature"),
        // Names that occur twice.
        ("header twice", with_header(r#"{"alg":"HS256","alg":"HS256"}"#), "malformed"),
        ("header twice, escaped", with_header(r#"{"alg":"HS256","\u0061lg":"none"}"#), "malformed"),
        ("unknown header twice", with_header(r#"{"alg":"HS256","x":1,"x":2}"#), "malformed"),
        ("claim twice", claims_and(r#","sub":"root"}"#), "malformed"),
        ("claim twice, escaped", claims_and(r#","\u0073ub":"root"}"#), "malformed"),
        ("expiry twice", claims_and(r#","exp":9999999999}"#), "malformed"),
        ("unknown claim twice", claims_and(r#","x":1,"x":1}"#), "malformed"),
        // `kid` is compared, never looked up.
        ("kid with a path", forged("kid", json!("../../../../dev/null")), "unknown_key"),
        ("kid with SQL", forged("kid", json!("x' UNION SELECT 'key")), "unknown_key"),
        ("kid with an address", forged("kid", json!("https://evil.example/jwks")), "unknown_key"),
        ("kid with a null byte", forged("kid", json!("h\0")), "unknown_key"),
        ("kid in another case", forged("kid", json!("H")), "unknown_key"),
        ("an empty kid", forged("kid", json!("")), "unknown_key"),
        ("a number as kid", forged("kid", json!(1)), "malformed"),
        ("an object as kid", forged("kid", json!({"a": 1})), "malformed"),
        // Keys that the token brings are not read, so these are forgeries.
        ("jku", forged("jku", json!("https://evil.example/jwks")), "signature"),
        ("x5u", forged("x5u", json!("https://evil.example/cert")), "signature"),
        ("jwk", forged("jwk", jwk), "signature"),
        ("x5c", forged("x5c", json!(["MIIB"])), "signature"),
        // What is not understood.
        ("crit", with_header(r#"{"alg":"HS256","crit":["exp"],"exp":1}"#), "malformed"),
        ("an empty crit", with_header(r#"{"alg":"HS256","crit":[]}"#), "malformed"),
        ("crit of b64", with_header(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#), "malformed"),
        ("a number as typ", with_header(r#"{"alg":"HS256","typ":1}"#), "malformed"),
        // Size and form.
        ("1 MB", "x".repeat(1 << 20), "malformed"),
        ("1 MB of claims", claims_and(&format!(r#","x":"{}"}}"#, "x".repeat(1 << 20))), "malformed"),
        ("8 kB more", format!("{good}{}", "A".repeat(8192)), "malformed"),
        ("nothing", String::new(), "malformed"),
        ("one dot", ".".into(), "malformed"),
        ("two dots", "..".into(), "malformed"),
        ("no header", format!(".{c}.{s}"), "malformed"),
        ("no claims", format!("{h}..{s}"), "malformed"),
        ("four parts", format!("{good}.{s}"), "malformed"),
        ("an empty fourth", format!("{good}."), "malformed"),
        ("five parts, as JWE has", format!("{h}.{c}.a.b.{s}"), "malformed"),
        ("nested", with_claims(&good), "malformed"),
        ("nested as text", with_claims(format!("\"{good}\"")), "malformed"),
        ("a list as header", with_header(r#"["HS256"]"#), "malformed"),
        ("a text as header", with_header(r#""HS256""#), "malformed"),
        ("null as header", with_header("null"), "malformed"),
        ("an empty header", with_header(""), "malformed"),
        ("empty claims", with_claims(""), "malformed"),
        ("a cut header", with_header(r#"{"alg":"HS256""#), "malformed"),
        ("cut claims", claims_and(""), "malformed"),
        // Trailing bytes.
        ("bytes after the header", with_header(r#"{"alg":"HS256"}{}"#), "malformed"),
        ("bytes after the claims", with_claims(format!("{plain} x")), "malformed"),
        ("a brace after the claims", with_claims(format!("{plain}}}")), "malformed"),
        ("a null byte after the claims", with_claims(format!("{plain}\0")), "malformed"),
        ("a byte after the signature", format!("{h}.{c}.{}", B64.encode([&B64.decode(s).unwrap()[..], &[0]].concat())), "signature"),
        ("a signature cut by a byte", format!("{h}.{c}.{}", B64.encode(&B64.decode(s).unwrap()[..31])), "signature"),
        // Not UTF-8.
        ("no UTF-8 in the header", with_header(b"{\"alg\":\"HS256\",\"x\":\"\xff\"}"), "malformed"),
        ("no UTF-8 in a claim", with_claims(b"{\"sub\":\"\xff\"}"), "malformed"),
        ("no UTF-8 in an unknown claim", with_claims(b"{\"unknown\":\"\xff\"}"), "malformed"),
        ("a byte order mark", with_claims(b"\xef\xbb\xbf{}"), "malformed"),
        ("UTF-16", with_claims(b"\xff\xfe{\0}\0"), "malformed"),
        ("a null byte", with_claims(b"\0"), "malformed"),
        ("a foreign letter", "\u{fffd}".into(), "malformed"),
        // Base64url has one spelling.
        ("padding of the header", format!("{h}=.{c}.{s}"), "malformed"),
        ("padding of the claims", format!("{h}.{c}==.{s}"), "malformed"),
        ("padding of the signature", format!("{good}="), "malformed"),
        ("a line's end after", format!("{good}\n"), "malformed"),
        ("a line's end within", format!("{h}.\n{c}.{s}"), "malformed"),
        ("stray bits", format!("{h}.{c}.{}", stray_bits(s)), "malformed"),
        ("the other alphabet", format!("{h}.{c}.{}+", s.replace('-', "+").replace('_', "/")), "malformed"),
        ("not encoded", format!("{{\"alg\":\"HS256\"}}.{c}.{s}"), "malformed"),
    ]
}

#[test]
fn each_is_refused_for_its_reason() {
    for (name, token, reason) in the_list() {
        assert_eq!(refusal_of(&token), (401, reason), "{name}");
    }
    // The table's own parts make good tokens where nothing is wrong with them.
    passes(decide(&bearing(&with_header(HS256))));
    passes(decide(&bearing(&claims_and("}"))));
}

#[test]
fn each_stays_refused_when_a_good_one_was_seen() {
    // The cache keeps what was verified, and nothing that looks like it.
    let policy = policy();
    passes(decide_at(&policy, &bearing(&token(&claims())), now()));
    for (name, token, reason) in the_list() {
        let refusal = refuses(decide_at(&policy, &bearing(&token), now()));
        assert_eq!(refusal.reason, reason, "{name}");
    }
}
