//! ID tokens of identity providers: whether one is what it says, for us, now, and for the log-in that asked for it. Pure.
//!
//! Signatures are RS256 or ES256, by a key of the provider's own list; `none`, HMACs and keys within tokens are refused by
//! not being known here.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// How many seconds clocks may differ.
const SKEW: f64 = 60.0;
/// The longest token.
const MAX_TOKEN: usize = 64 << 10;

/// The keys of a provider.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Keys {
    keys: Vec<Key>,
}

#[derive(Clone, Debug, Deserialize)]
struct Key {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Es256,
}

impl Algorithm {
    fn name(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
        }
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// What a token has to say.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The provider.
    pub issuer: &'a str,
    /// Us.
    pub client: &'a str,
    /// What the log-in asked with.
    pub nonce: &'a str,
    /// Now, in seconds since the epoch.
    pub now: f64,
}

/// What a token says of somebody.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims(pub Map<String, Value>);

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is no token.
    Malformed,
    /// It is signed in a way that is not taken.
    Algorithm,
    /// No key of the provider is the one that it names; there may be newer ones.
    UnknownKey,
    /// The signature is not the provider's.
    Signature,
    /// It is from somebody else.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// It is over, or has not begun.
    Time,
    /// It is for another log-in.
    Nonce,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::Malformed => "the ID token can't be read",
            Refused::Algorithm => "the ID token is not signed with RS256 or ES256",
            Refused::UnknownKey => "the ID token is signed with a key that the provider does not list",
            Refused::Signature => "the signature of the ID token is wrong",
            Refused::Issuer => "the ID token is from another issuer",
            Refused::Audience => "the ID token is for another client",
            Refused::Time => "the ID token is over, or of the future: compare the clocks",
            Refused::Nonce => "the ID token is for another log-in",
        })
    }
}

/// The claims of a token, if it is to be believed.
///
/// # Errors
/// Says why not.
pub fn verify(token: &str, keys: &Keys, expected: Expected<'_>) -> Result<Claims, Refused> {
    if token.len() > MAX_TOKEN {
        return Err(Refused::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(Refused::Malformed)?;
    let (head, body) = signed.split_once('.').ok_or(Refused::Malformed)?;
    let header: Header = serde_json::from_slice(&decoded(head)?).map_err(|_| Refused::Malformed)?;
    let algorithm = match &*header.alg {
        "RS256" => Algorithm::Rs256,
        "ES256" => Algorithm::Es256,
        _ => return Err(Refused::Algorithm),
    };
    if header.crit.is_some() {
        return Err(Refused::Malformed);
    }
    let signature = decoded(signature)?;
    let fitting: Vec<&Key> =
        keys.keys.iter().filter(|key| key.fits(algorithm, header.kid.as_deref())).collect();
    if fitting.is_empty() {
        return Err(Refused::UnknownKey);
    }
    if !fitting.iter().any(|key| key.verifies(algorithm, signed.as_bytes(), &signature)) {
        return Err(Refused::Signature);
    }
    let claims: Map<String, Value> =
        serde_json::from_slice(&decoded(body)?).map_err(|_| Refused::Malformed)?;
    check(&claims, expected)?;
    Ok(Claims(claims))
}

fn check(claims: &Map<String, Value>, expected: Expected<'_>) -> Result<(), Refused> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let time = |name: &str| claims.get(name).and_then(Value::as_f64);
    if text("iss") != Some(expected.issuer) {
        return Err(Refused::Issuer);
    }
    let one = match claims.get("aud") {
        Some(Value::String(audience)) => audience == expected.client,
        // For several, it must say that we are the one that asked.
        Some(Value::Array(all)) => {
            let ours = all.iter().any(|audience| audience.as_str() == Some(expected.client));
            ours && (all.len() == 1 || text("azp").is_some())
        }
        _ => false,
    };
    if !one || text("azp").is_some_and(|party| party != expected.client) {
        return Err(Refused::Audience);
    }
    let begins = time("iat").ok_or(Refused::Time)?.max(time("nbf").unwrap_or(0.0));
    let ends = time("exp").ok_or(Refused::Time)?;
    if ends + SKEW <= expected.now || begins - SKEW > expected.now {
        return Err(Refused::Time);
    }
    if text("nonce") != Some(expected.nonce) {
        return Err(Refused::Nonce);
    }
    if text("sub").is_none_or(str::is_empty) {
        return Err(Refused::Malformed);
    }
    Ok(())
}

fn decoded(text: &str) -> Result<Vec<u8>, Refused> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::Malformed)
}

impl Key {
    fn fits(&self, algorithm: Algorithm, kid: Option<&str>) -> bool {
        let kind = match algorithm {
            Algorithm::Rs256 => self.kty == "RSA",
            Algorithm::Es256 => self.kty == "EC" && self.crv.as_deref() == Some("P-256"),
        };
        kind && kid.is_none_or(|kid| self.kid.as_deref() == Some(kid))
            && self.alg.as_deref().is_none_or(|alg| alg == algorithm.name())
            && self.usage.as_deref().is_none_or(|usage| usage == "sig")
    }

    fn verifies(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        let part = |text: &Option<String>| decoded(text.as_deref().unwrap_or_default()).unwrap_or_default();
        match algorithm {
            Algorithm::Rs256 => {
                let key = RsaPublicKeyComponents { n: part(&self.n), e: part(&self.e) };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature).is_ok()
            }
            Algorithm::Es256 => {
                let point = [&[4][..], &part(&self.x), &part(&self.y)].concat();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature).is_ok()
            }
        }
    }
}

impl Claims {
    /// A claim that is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// All texts of a claim that is one or has several. An e-mail address counts only once it was verified.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&str> {
        if name == "email" && self.0.get("email_verified") != Some(&Value::Bool(true)) {
            return Vec::new();
        }
        match self.0.get(name) {
            Some(Value::String(text)) => vec![text],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    const NOW: f64 = 1_000_000.0;

    fn key() -> (EcdsaKeyPair, Keys) {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random)
            .expect("a key");
        let point = pair.public_key().as_ref().to_vec();
        let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let keys = json!({"keys": [
            {"kty": "RSA", "kid": "other", "n": "AQAB", "e": "AQAB"},
            {"kty": "EC", "crv": "P-256", "kid": "k", "use": "sig", "x": part(&point[1..33]), "y": part(&point[33..])},
        ]});
        (pair, serde_json::from_value(keys).expect("keys"))
    }

    fn token(pair: &EcdsaKeyPair, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    fn claims(change: Value) -> Value {
        let mut claims = json!({"iss": "https://idp", "aud": "us", "sub": "1", "nonce": "n", "iat": NOW, "exp": NOW + 60.0});
        if let (Value::Object(claims), Value::Object(change)) = (&mut claims, change) {
            claims.extend(change);
        }
        claims
    }

    #[test]
    fn only_what_is_for_us_now_is_believed() {
        let (pair, keys) = key();
        let expected = Expected { issuer: "https://idp", client: "us", nonce: "n", now: NOW };
        let told =
            |header: Value, change: Value| verify(&token(&pair, &header, &claims(change)), &keys, expected);
        let sound = json!({"alg": "ES256", "kid": "k"});
        assert!(told(sound.clone(), json!({})).is_ok());
        assert!(told(json!({"alg": "ES256"}), json!({})).is_ok(), "a key without a name");
        assert!(told(sound.clone(), json!({"aud": ["us"]})).is_ok());
        assert!(told(sound.clone(), json!({"aud": ["x", "us"], "azp": "us"})).is_ok());
        for (change, why) in [
            (json!({"iss": "https://idp/"}), Refused::Issuer),
            (json!({"aud": "them"}), Refused::Audience),
            (json!({"aud": ["x", "us"]}), Refused::Audience),
            (json!({"aud": "us", "azp": "them"}), Refused::Audience),
            (json!({"aud": null}), Refused::Audience),
            (json!({"exp": NOW - 61.0}), Refused::Time),
            (json!({"exp": "soon"}), Refused::Time),
            (json!({"iat": NOW + 61.0}), Refused::Time),
            (json!({"nbf": NOW + 61.0}), Refused::Time),
            (json!({"iat": null}), Refused::Time),
            (json!({"nonce": "other"}), Refused::Nonce),
            (json!({"nonce": null}), Refused::Nonce),
            (json!({"sub": ""}), Refused::Malformed),
        ] {
            assert_eq!(told(sound.clone(), change.clone()), Err(why), "{change}");
        }
        for (header, why) in [
            (json!({"alg": "none"}), Refused::Algorithm),
            (json!({"alg": "HS256", "kid": "k"}), Refused::Algorithm),
            (json!({"alg": "RS256", "kid": "k"}), Refused::UnknownKey),
            (json!({"alg": "RS256", "kid": "other"}), Refused::Signature),
            (json!({"alg": "ES256", "kid": "new"}), Refused::UnknownKey),
            (json!({"alg": "ES256", "kid": "k", "crit": ["exp"]}), Refused::Malformed),
        ] {
            assert_eq!(told(header.clone(), json!({})), Err(why), "{header}");
        }
    }

    #[test]
    fn what_was_changed_is_refused() {
        let (pair, keys) = key();
        let expected = Expected { issuer: "https://idp", client: "us", nonce: "n", now: NOW };
        let sound = token(&pair, &json!({"alg": "ES256", "kid": "k"}), &claims(json!({})));
        let admin = BASE64_URL_SAFE_NO_PAD.encode(claims(json!({"groups": ["admins"]})).to_string());
        let parts: Vec<&str> = sound.split('.').collect();
        let forged = format!("{}.{admin}.{}", parts[0], parts[2]);
        assert_eq!(verify(&forged, &keys, expected), Err(Refused::Signature));
        let (other, _) = key();
        let other = token(&other, &json!({"alg": "ES256", "kid": "k"}), &claims(json!({})));
        assert_eq!(verify(&other, &keys, expected), Err(Refused::Signature));
        for wrong in
            ["", ".", "..", "a.b", &format!("{}.{}.", parts[0], parts[1]), &"x".repeat(MAX_TOKEN + 1)]
        {
            assert!(verify(wrong, &keys, expected).is_err(), "{wrong:.20}");
        }
    }

    #[test]
    fn an_address_counts_once_it_is_verified() {
        let claims = |value: Value| Claims(value.as_object().cloned().expect("claims"));
        assert_eq!(claims(json!({"email": "a@b", "email_verified": true})).values("email"), ["a@b"]);
        assert!(claims(json!({"email": "a@b"})).values("email").is_empty());
        assert!(claims(json!({"email": "a@b", "email_verified": "true"})).values("email").is_empty());
        assert_eq!(claims(json!({"groups": ["a", 1, "b"]})).values("groups"), ["a", "b"]);
    }
}
