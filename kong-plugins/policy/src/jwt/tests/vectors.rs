//! Signatures that others made: RFC 7515 appendix A.1 to A.3, RFC 7520 section 4.3, RFC 8037 appendix A.4.

use super::super::keys::compile_issuers;
use super::super::token::Token;
use super::*;

const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn check(key: Key, text: &str) {
    let mut faults = Vec::new();
    let issuer = Issuer::new("joe", vec!["any".into()], vec![key]);
    let issuers = compile_issuers(&[issuer], &mut faults);
    assert_eq!(faults, []);
    let (_, issuer) = issuers.find("joe").unwrap();
    let mut token = Token::parse(text.as_bytes()).unwrap();
    assert!(issuer.signed(&token, now()).is_ok());
    for byte in 0..token.signature.len() {
        token.signature[byte] ^= 1;
        assert_eq!(issuer.signed(&token, now()).unwrap_err(), Fault::Signature);
        token.signature[byte] ^= 1;
    }
}

#[test]
fn hs256() {
    let mut key = super::hs256(None, &[]);
    key.secret = Some(
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
            .into(),
    );
    check(
        key,
        &format!(
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{CLAIMS}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        ),
    );
}

#[test]
fn rs256() {
    let pem = include_str!("keys/rsa-rfc7515-a2.pem");
    check(
        public(None, Algorithm::RS256, pem.into()),
        &format!(
            "eyJhbGciOiJSUzI1NiJ9.{CLAIMS}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
        ),
    );
}

#[test]
fn es256() {
    let pem = include_str!("keys/p256-rfc7515-a3.pem");
    check(
        public(None, Algorithm::ES256, pem.into()),
        &format!(
            "eyJhbGciOiJFUzI1NiJ9.{CLAIMS}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
        ),
    );
}

#[test]
fn es512() {
    let jwk = json!({
        "kty": "EC",
        "crv": "P-521",
        "kid": "bilbo.baggins@hobbiton.example",
        "x": "AHKZLLOsCOzz5cY97ewNUajB957y-C-U88c3v13nmGZx6sYl_oJXu9A5RkTKqjqvjyekWF-7ytDyRXYgCF5cj0Kt",
        "y": "AdymlHvOiLxXkEhayXQnNCvDX4h9htZaCJN34kfmC6pV5OhQHiraVySsUdaQkAgDPrwQrJmbnX9cwlGfP-HqHZR1",
    });
    let key = Key {
        kid: None,
        algorithm: Algorithm::ES512,
        secret: None,
        public_key: None,
        jwk: serde_json::from_value(jwk).unwrap(),
    };
    check(
        key,
        "eyJhbGciOiJFUzUxMiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4.AE_R_YZCChjn4791jSQCrdPZCNYqHXCTZH0-JZGYNlaAjP2kqaluUIIUnC9qvbu9Plon7KRTzoNEuT4Va2cmL1eJAQy3mtPBu_u_sDDyYjnAMDxXPn7XrT0lw-kvAD890jl8e2puQens_IEKBpHABlsbEPX6sFY8OcGDqoRuBomu9xQ2",
    );
}

#[test]
fn eddsa() {
    let pem = include_str!("keys/ed25519-rfc8037-a4.pem");
    check(
        public(None, Algorithm::EdDSA, pem.into()),
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    );
}
