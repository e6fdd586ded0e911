//! The id of the request being answered, for problems and the log.
//!
//! Middleware puts it in a task-local (`middleware.rs`), so that an error deep inside needs no reference to the request.

use std::future::Future;

use uuid::Uuid;

tokio::task_local! {
    static CURRENT: Uuid;
}

/// Runs `future` with `id` as the current request's id.
pub async fn scope<F: Future>(id: Uuid, future: F) -> F::Output {
    CURRENT.scope(id, future).await
}

/// The current request's id, inside [`scope`].
pub fn current() -> Option<Uuid> {
    CURRENT.try_with(|id| *id).ok()
}

/// The id that the client gave, if it is a UUID; else a new one.
pub fn choose(given: Option<&str>) -> Uuid {
    given.and_then(|text| Uuid::try_parse(text).ok()).unwrap_or_else(Uuid::new_v4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_uuid_is_taken_over() {
        let id = "8b7a1f9e-6f0e-4b5e-9c39-0d2f5b0b8f2c";
        assert_eq!(choose(Some(id)).to_string(), id);
        assert_ne!(choose(Some("evil\r\nX: y")).to_string(), "evil");
        assert_ne!(choose(None), choose(None));
    }
}
