//! What a caller needs to know of a task, whoever runs it.

use serde::{Serialize, de::DeserializeOwned};

/// A task's name and types. `#[task]` implements it for tasks written in Rust, [`remote_task!`](crate::remote_task)
/// for tasks that run elsewhere.
pub trait TaskDef: 'static {
    /// The name on the wire. It is always written out, so that renaming code can't change the protocol.
    const NAME: &'static str;
    /// The parameters: a struct whose field names are the parameter names, or a tuple.
    type Params: Serialize + DeserializeOwned + Send + 'static;
    /// What the task returns.
    type Output: Serialize + DeserializeOwned + Send + 'static;
}

/// Declares a task that runs elsewhere, so that calling it is checked at compile time.
///
/// ```
/// celery_protocol::remote_task! {
///     /// Makes a picture smaller.
///     pub fn resize("media.resize")(key: String, width: u32) -> String;
/// }
///
/// let call = resize::s("a.png".to_owned(), 640).into_signature()?;
/// assert_eq!(call.task.as_str(), "media.resize");
/// assert_eq!(call.args.to_raw().get(), r#"["a.png", 640]"#);
/// # Ok::<(), celery_protocol::SigError>(())
/// ```
#[macro_export]
macro_rules! remote_task {
    ($(#[$meta:meta])* $vis:vis fn $task:ident($name:literal)($($param:ident: $type:ty),* $(,)?) -> $output:ty;) => {
        $(#[$meta])*
        #[allow(non_camel_case_types)]
        $vis enum $task {}

        #[allow(dead_code)]
        impl $task {
            /// A call with these arguments.
            $vis fn s($($param: $type),*) -> $crate::Sig<$output> {
                $crate::Sig::new($name)$(.arg($param))*
            }
        }

        $crate::__partial!($vis $task $name $output; $($param: $type),*);

        impl $crate::TaskDef for $task {
            const NAME: &'static str = $name;
            type Params = ($($type,)*);
            type Output = $output;
        }
    };
}

/// `name::partial(…)` of [`remote_task!`](crate::remote_task): all but the first argument, if there is one.
#[doc(hidden)]
#[macro_export]
macro_rules! __partial {
    ($vis:vis $task:ident $name:literal $output:ty;) => {};
    ($vis:vis $task:ident $name:literal $output:ty; $first:ident: $first_type:ty $(, $param:ident: $type:ty)*) => {
        #[allow(dead_code)]
        impl $task {
            /// A call with all arguments but the first, which is the result of the task before.
            $vis fn partial($($param: $type),*) -> $crate::Sig<$output> {
                $crate::Sig::new($name)$(.arg($param))*
            }
        }
    };
}
