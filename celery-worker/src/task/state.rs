//! How a task gets at what its worker holds: a pool, a client, settings.
//!
//! A worker has one state value of a type `S`. A `#[state]` parameter of type `T` asks for `T: FromRef<S>`, which the
//! compiler checks where the task is registered.

/// Makes a value out of a reference to the worker's state.
///
/// Every `Clone` type can be made from itself, so a worker whose whole state is one pool needs nothing. A struct with
/// several parts implements it once for each part, by hand or with [`from_ref!`](crate::from_ref).
///
/// ```
/// use celery_worker::prelude::*;
///
/// #[derive(Clone)]
/// struct Pool;
///
/// struct AppState {
///     pool: Pool,
///     greeting: String,
/// }
///
/// impl FromRef<AppState> for Pool {
///     fn from_ref(state: &AppState) -> Self {
///         state.pool.clone()
///     }
/// }
/// celery_worker::from_ref!(AppState { greeting: String });
/// ```
#[diagnostic::on_unimplemented(
    message = "a worker with the state `{S}` has no `{Self}` for a `#[state]` parameter",
    label = "this task needs a `{Self}`",
    note = "put one into the worker's state and implement `FromRef<{S}> for {Self}` (or use `from_ref!`)"
)]
pub trait FromRef<S> {
    /// A value of its own, usually a cheap clone of a handle.
    fn from_ref(state: &S) -> Self;
}

impl<T: Clone> FromRef<T> for T {
    fn from_ref(state: &T) -> Self {
        state.clone()
    }
}

/// Implements [`FromRef`] for fields of a state struct, by cloning them: `from_ref!(AppState { pool: Pool, http: Client })`.
#[macro_export]
macro_rules! from_ref {
    ($state:ty { $($field:ident: $part:ty),* $(,)? }) => {
        $(impl $crate::task::FromRef<$state> for $part {
            fn from_ref(state: &$state) -> Self {
                ::core::clone::Clone::clone(&state.$field)
            }
        })*
    };
}
