//! Signatures that others made: RFC 7515 appendix A.1 to A.3, RFC 8037 appendix A.4.

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
fn eddsa() {
    let pem = include_str!("keys/ed25519-rfc8037-a4.pem");
    check(
        public(None, Algorithm::EdDSA, pem.into()),
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    );
}
