//! Passwords and tokens as they are kept: never themselves.
//!
//! Passwords are hashed by argon2id, since people choose them. Tokens are 256 random bits: SHA-256 is enough.

use std::fmt;

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

/// What tokens begin with, so that scanners find those that leaked.
const TOKEN_MARK: &str = "fl_";
/// The most memory that a hash of ours may ask for, in KiB.
const MAX_MEMORY: u32 = 1 << 20;

/// A password, hashed.
#[derive(Clone)]
pub enum Password {
    /// Argon2, in the PHC format.
    Argon2(String),
    /// The digest of one that stands in plain text in the settings, as Flower has them.
    Plain([u8; 32]),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

impl Password {
    /// Reads a hash as `flower-lite hash-password` prints it.
    ///
    /// # Errors
    /// Says what is wrong with it, without showing it.
    pub fn parse_hash(text: &str) -> Result<Password, &'static str> {
        let hash = PasswordHash::new(text).map_err(|_| "is no hash in the PHC format ($argon2id$v=19$…)")?;
        Algorithm::try_from(hash.algorithm).map_err(|_| "is no argon2 hash")?;
        let params = Params::try_from(&hash).map_err(|_| "has parameters that argon2 does not know")?;
        if params.m_cost() > MAX_MEMORY || hash.hash.is_none() || hash.salt.is_none() {
            return Err("is cut short, or asks for more than 1 GiB of memory");
        }
        Ok(Password::Argon2(text.to_owned()))
    }

    /// One that is known.
    #[must_use]
    pub fn plain(password: &str) -> Password {
        Password::Plain(digest(password))
    }

    /// Whether it is this one. Slow on purpose; not to be called on a thread that serves others.
    #[must_use]
    pub fn is(&self, password: &str) -> bool {
        match self {
            Password::Plain(known) => same(known, &digest(password)),
            Password::Argon2(text) => PasswordHash::new(text)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()),
        }
    }
}

/// Takes as long as looking at a password does, for those who name a user that does not exist.
pub fn waste_time(password: &str) {
    let mut out = [0; 32];
    let _ = argon2().hash_password_into(password.as_bytes(), b"nobody has this!", &mut out);
}

fn argon2() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::DEFAULT)
}

/// The hash of a password, to be put into the settings.
///
/// # Errors
/// The machine has no random numbers.
pub fn hash_password(password: &str) -> Result<String, String> {
    let salt = SaltString::encode_b64(&random::<16>()?).map_err(|error| error.to_string())?;
    let hash = argon2().hash_password(password.as_bytes(), &salt).map_err(|error| error.to_string())?;
    Ok(hash.to_string())
}

/// A new token.
///
/// # Errors
/// The machine has no random numbers.
pub fn new_token() -> Result<String, String> {
    Ok(format!("{TOKEN_MARK}{}", BASE64_URL_SAFE_NO_PAD.encode(random::<32>()?)))
}

/// Random bytes.
///
/// # Errors
/// The machine has none.
pub fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| "this machine gives no random numbers".to_owned())?;
    Ok(bytes)
}

/// SHA-256 of a text.
#[must_use]
pub fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// A digest as the settings have it.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A digest from its 64 digits.
#[must_use]
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Whether two digests are the same; takes as long for a near miss as for any other.
#[must_use]
pub fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_known_by_its_hash() {
        let hash = hash_password("canary").expect("random numbers");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && !hash.contains("canary"), "{hash}");
        let password = Password::parse_hash(&hash).expect("a hash");
        assert!(password.is("canary") && !password.is("canarY") && !password.is(""));
        assert!(Password::plain("canary").is("canary") && !Password::plain("canary").is("canar"));
        assert_eq!(format!("{:?} {password:?}", Password::plain("canary")), "Password Password");
        assert_ne!(hash, hash_password("canary").expect("random numbers"), "salted");
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for wrong in
            ["", "canary", "$argon2id$", "$scrypt$ln=1$YWJjZGVmZ2g$YWJjZGVmZ2g", "$argon2id$v=19$m=19456,t=2"]
        {
            assert!(Password::parse_hash(wrong).is_err(), "{wrong}");
        }
        let huge = hash_password("x").expect("random numbers").replace("m=19456", "m=4194304");
        assert!(Password::parse_hash(&huge).is_err());
    }

    #[test]
    fn tokens_are_long_and_new() {
        let token = new_token().expect("random numbers");
        assert_eq!((token.len(), &token[..3]), (46, "fl_"));
        assert_ne!(token, new_token().expect("random numbers"));
        let known = digest(&token);
        assert_eq!(unhex(&hex(&known)), Some(known));
        assert_eq!(unhex("zz"), None);
        assert!(same(&known, &digest(&token)) && !same(&known, &digest("other")));
    }
}
