//! Who is known: people with passwords, and programs with tokens, each with a role.

use std::fmt;
use std::sync::Arc;

use super::role::Role;
use super::secret::{self, Password};

/// Somebody who has a password.
#[derive(Clone, Debug)]
pub struct User {
    /// The name to log in with.
    pub name: Arc<str>,
    /// What they may do.
    pub role: Role,
    /// Their password, hashed.
    pub password: Password,
}

/// A program's token.
#[derive(Clone)]
pub struct Token {
    /// What the audit log calls it.
    pub name: Arc<str>,
    /// What it may do.
    pub role: Role,
    digest: [u8; 32],
}

/// Everybody who is known.
#[derive(Clone, Debug, Default)]
pub struct Users {
    users: Vec<User>,
    tokens: Vec<Token>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

impl Users {
    /// Reads `basic_auth` as Flower has it (`user:password`, for admins; a hash may stand in the password's place), `users`
    /// (`name:role:hash`) and `tokens` (`name:role:digest`).
    ///
    /// # Errors
    /// Says which entry of which setting can't be used, by its place: it may hold a secret.
    pub fn parse(basic: &[String], users: &[String], tokens: &[String]) -> Result<Users, String> {
        let mut known = Users::default();
        for (index, pair) in rejoin(basic).iter().enumerate() {
            let told = |what: &str| entry("basic_auth (FLOWER_BASIC_AUTH, --basic-auth)", index, what);
            let (name, password) = pair
                .split_once(':')
                .filter(|(name, password)| !name.is_empty() && !password.is_empty())
                .ok_or_else(|| told("is not user:password"))?;
            let password = if password.starts_with("$argon2") {
                Password::parse_hash(password).map_err(told)?
            } else {
                Password::plain(password)
            };
            known.add(User { name: name.into(), role: Role::Admin, password }).map_err(told)?;
        }
        for (index, line) in rejoin(users).iter().enumerate() {
            let told = |what: &str| entry("users (FLOWER_USERS, --users)", index, what);
            let (name, role, hash) = three(line).ok_or_else(|| told("is not name:role:hash"))?;
            let role =
                role.parse().map_err(|error: super::role::NotARole| told(&format!("{error}: the role")))?;
            let password = Password::parse_hash(hash).map_err(|what| {
                told(&format!("{what}: `flower-lite hash-password` makes one from the password on its input"))
            })?;
            known.add(User { name: name.into(), role, password }).map_err(told)?;
        }
        for (index, line) in tokens.iter().enumerate() {
            let told = |what: &str| entry("tokens (FLOWER_TOKENS, --tokens)", index, what);
            let (name, role, digest) = three(line).ok_or_else(|| told("is not name:role:digest"))?;
            let role =
                role.parse().map_err(|error: super::role::NotARole| told(&format!("{error}: the role")))?;
            let digest = secret::unhex(digest).ok_or_else(|| {
                told("has no digest of 64 hexadecimal digits: `flower-lite new-token` prints one beside the token")
            })?;
            known.tokens.push(Token { name: name.into(), role, digest });
        }
        Ok(known)
    }

    fn add(&mut self, user: User) -> Result<(), &'static str> {
        if self.user(&user.name).is_some() {
            return Err("has the name of another user");
        }
        self.users.push(user);
        Ok(())
    }

    /// Whether nobody is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.tokens.is_empty()
    }

    /// Whether anybody can log in with a password.
    #[must_use]
    pub fn have_passwords(&self) -> bool {
        !self.users.is_empty()
    }

    /// The user of this name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| &*user.name == name)
    }

    /// The token that this is.
    #[must_use]
    pub fn token(&self, token: &str) -> Option<&Token> {
        let digest = secret::digest(token);
        // All are compared, so that the time doesn't tell which one was near.
        self.tokens
            .iter()
            .fold(None, |found, known| if secret::same(&known.digest, &digest) { Some(known) } else { found })
    }
}

fn entry(setting: &str, index: usize, what: &str) -> String {
    format!("{setting}: entry {} {what}", index + 1)
}

fn three(line: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = line.split_once(':')?;
    let (role, secret) = rest.split_once(':')?;
    (!name.is_empty() && !secret.is_empty()).then_some((name, role, secret))
}

/// Hashes of argon2 hold commas, and commas separate entries: what has no colon belongs to the hash before it.
fn rejoin(pieces: &[String]) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for piece in pieces {
        match entries.last_mut().filter(|last| !piece.contains(':') && last.contains("$argon2")) {
            Some(last) => {
                last.push(',');
                last.push_str(piece);
            }
            None => entries.push(piece.clone()),
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn people_and_programs_have_roles() {
        let hash = secret::hash_password("pw").expect("random numbers");
        let token = secret::new_token().expect("random numbers");
        let digest = secret::hex(&secret::digest(&token));
        let known = Users::parse(
            &list(&format!("boss:plain:with:colons,chief:{hash}")),
            &list(&format!("anna:operator:{hash},ben:viewer:{hash}")),
            &list(&format!("ci:operator:{digest}")),
        )
        .expect("right");
        let role = |name: &str| known.user(name).map(|user| user.role);
        assert_eq!(
            [role("boss"), role("chief"), role("anna"), role("ben"), role("eve")],
            [Some(Role::Admin), Some(Role::Admin), Some(Role::Operator), Some(Role::Viewer), None]
        );
        assert!(known.user("chief").is_some_and(|user| user.password.is("pw")));
        assert!(known.user("boss").is_some_and(|user| user.password.is("plain:with:colons")));
        assert_eq!(known.token(&token).map(|token| (&*token.name, token.role)), Some(("ci", Role::Operator)));
        assert!(known.token("fl_other").is_none() && !known.is_empty() && known.have_passwords());
        assert!(Users::default().is_empty());
    }

    #[test]
    fn a_mistake_names_its_place_and_no_secret() {
        for (basic, users, tokens, place) in [
            ("a:b,canary", "", "", "entry 2 is not user:password"),
            ("a:canary,a:x", "", "", "entry 2 has the name of another"),
            ("a:$argon2id$canary", "", "", "entry 1 is cut short"),
            ("", "a:canary", "", "entry 1 is not name:role:hash"),
            ("", "a:boss:canary", "", "is not viewer, operator or admin"),
            ("", "a:admin:canary", "", "hash-password"),
            ("", "", "ci:admin:canary", "new-token"),
        ] {
            let some = |text: &str| if text.is_empty() { Vec::new() } else { list(text) };
            let told = Users::parse(&some(basic), &some(users), &some(tokens)).expect_err(place);
            assert!(told.contains(place) && !told.contains("canary"), "{told}");
        }
        let known = Users::parse(&list("u:canary"), &[], &[]).expect("a pair");
        assert!(!format!("{known:?}").contains("canary"));
    }
}
