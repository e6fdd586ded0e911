//! Which exception a Python caller sees for a Rust error: names, modules and the class tree of Python's builtins.
//!
//! Celery looks `exc_module` up among the modules that the caller has loaded and takes `exc_type` from it, whatever that
//! is. So a module is named only where the class is known to be an exception that takes any arguments; everything else
//! gets its Rust path as module, which no Python module can have, and Python makes a class of that name for it.

/// Exceptions of Python's `builtins` with their base class: those that can be built from any arguments and may be raised
/// at a caller. `SystemExit` and `KeyboardInterrupt` would end it; the `Unicode…Error`s and groups need certain arguments.
#[rustfmt::skip]
const BUILTINS: &[(&str, &str)] = &[
    ("Exception", ""),
    ("ArithmeticError", "Exception"), ("FloatingPointError", "ArithmeticError"), ("OverflowError", "ArithmeticError"),
    ("ZeroDivisionError", "ArithmeticError"),
    ("AssertionError", "Exception"), ("AttributeError", "Exception"), ("BufferError", "Exception"), ("EOFError", "Exception"),
    ("ImportError", "Exception"), ("ModuleNotFoundError", "ImportError"),
    ("LookupError", "Exception"), ("IndexError", "LookupError"), ("KeyError", "LookupError"),
    ("MemoryError", "Exception"), ("NameError", "Exception"), ("UnboundLocalError", "NameError"),
    ("OSError", "Exception"), ("BlockingIOError", "OSError"), ("ChildProcessError", "OSError"), ("ConnectionError", "OSError"),
    ("BrokenPipeError", "ConnectionError"), ("ConnectionAbortedError", "ConnectionError"),
    ("ConnectionRefusedError", "ConnectionError"), ("ConnectionResetError", "ConnectionError"),
    ("FileExistsError", "OSError"), ("FileNotFoundError", "OSError"), ("InterruptedError", "OSError"),
    ("IsADirectoryError", "OSError"), ("NotADirectoryError", "OSError"), ("PermissionError", "OSError"),
    ("ProcessLookupError", "OSError"), ("TimeoutError", "OSError"),
    ("ReferenceError", "Exception"), ("RuntimeError", "Exception"), ("NotImplementedError", "RuntimeError"),
    ("RecursionError", "RuntimeError"),
    ("StopAsyncIteration", "Exception"), ("StopIteration", "Exception"),
    ("SyntaxError", "Exception"), ("IndentationError", "SyntaxError"), ("TabError", "IndentationError"),
    ("SystemError", "Exception"), ("TypeError", "Exception"), ("ValueError", "Exception"), ("UnicodeError", "ValueError"),
    ("Warning", "Exception"), ("BytesWarning", "Warning"), ("DeprecationWarning", "Warning"), ("FutureWarning", "Warning"),
    ("ImportWarning", "Warning"), ("PendingDeprecationWarning", "Warning"), ("ResourceWarning", "Warning"),
    ("RuntimeWarning", "Warning"), ("SyntaxWarning", "Warning"), ("UnicodeWarning", "Warning"), ("UserWarning", "Warning"),
];

pub(crate) const BUILTIN_MODULE: &str = "builtins";
/// The module of exceptions that are named in Rust without a Rust type behind them.
pub(crate) const GENERATED_MODULE: &str = "celery_worker::exception";

/// Whether Python has a builtin exception of this name that we may name.
pub(crate) fn is_builtin(exc_type: &str) -> bool {
    BUILTINS.iter().any(|(name, _)| *name == exc_type)
}

/// Whether an exception is of a class or one derived from it, as `except base:` would see it.
pub(crate) fn is_a(exc_type: &str, base: &str) -> bool {
    let mut class = exc_type;
    while class != base {
        class = match BUILTINS.iter().find(|(name, _)| *name == class) {
            Some((_, "")) => return false,
            Some((_, parent)) => parent,
            // A class of the user's own: all that is known is that it is an exception.
            None => "Exception",
        };
    }
    true
}

/// A module that may be sent: dotted identifiers, or one that Python can't have. Anything else is replaced.
pub(crate) fn module(name: &str) -> &str {
    let identifier = |part: &str| {
        part.chars().all(|c| c == '_' || c.is_alphanumeric())
            && !part.starts_with(|c: char| c.is_ascii_digit())
            && !part.is_empty()
    };
    if name.contains("::") || name.split('.').all(identifier) { name } else { GENERATED_MODULE }
}

/// `(exc_type, exc_module)` of a Rust type, from `std::any::type_name`.
///
/// The type's own name; a type called just `Error` shows with its crate, `ReqwestError`, or `IoError` for one of Rust's
/// standard library. The module is the Rust path.
pub(crate) fn of_rust_type(type_name: &str) -> (String, String) {
    let path = type_name.split('<').next().unwrap_or(type_name).trim_start_matches(['&', '(', '[']);
    let parts: Vec<&str> = path.split("::").filter(|part| !part.starts_with('{')).collect();
    let (name, modules) = match parts.split_last() {
        Some((name, modules)) => (*name, modules),
        None => (path, &[][..]),
    };
    if is_builtin(name) {
        return (name.to_owned(), BUILTIN_MODULE.to_owned());
    }
    let module =
        if modules.is_empty() { GENERATED_MODULE.to_owned() } else { format!("{}::", modules.join("::")) };
    let module =
        module.strip_suffix("::").filter(|rest| rest.contains("::")).map_or(module.clone(), str::to_owned);
    let exc_type = match (name, modules) {
        ("Error", ["std" | "core" | "alloc", area, ..]) => format!("{}Error", camel(area)),
        ("Error", [krate, ..]) => format!("{}Error", camel(krate)),
        _ => name.to_owned(),
    };
    (exc_type, module)
}

/// `serde_json` → `SerdeJson`.
fn camel(snake: &str) -> String {
    snake
        .split('_')
        .flat_map(|word| {
            let mut chars = word.chars();
            chars.next().map(|first| first.to_uppercase().chain(chars).collect::<String>())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rust_type_shows_as_an_exception() {
        let check = |type_name, expected: (&str, &str)| {
            let (exc_type, module) = of_rust_type(type_name);
            assert_eq!((exc_type.as_str(), module.as_str()), expected, "{type_name}");
        };
        check("reqwest::error::Error", ("ReqwestError", "reqwest::error"));
        check("serde_json::Error", ("SerdeJsonError", "serde_json::"));
        check("std::io::error::Error", ("IoError", "std::io::error"));
        check("core::fmt::Error", ("FmtError", "core::fmt"));
        check("core::num::error::ParseIntError", ("ParseIntError", "core::num::error"));
        check("shop::cart::OutOfStock<alloc::string::String>", ("OutOfStock", "shop::cart"));
        check("shop::tasks::{{closure}}::Busy", ("Busy", "shop::tasks"));
        check("shop::TimeoutError", ("TimeoutError", "builtins"));
        check("shop::SystemExit", ("SystemExit", "shop::"));
    }

    #[test]
    fn a_generated_module_is_never_one_that_python_could_have() {
        for type_name in ["os::Error", "subprocess::Popen", "Bare", "a::b::C", "&str", "(a::B, c::D)"] {
            let (_, module) = of_rust_type(type_name);
            assert!(module.contains("::"), "{type_name} → {module}");
        }
        assert_eq!(module("t.integration.tasks"), "t.integration.tasks");
        for bad in ["", "os; import x", "a..b", "9a", "a b", "../x"] {
            assert_eq!(module(bad), GENERATED_MODULE, "{bad}");
        }
    }

    #[test]
    fn matching_follows_pythons_class_tree() {
        assert!(is_a("FileNotFoundError", "OSError"));
        assert!(is_a("ConnectionResetError", "ConnectionError"));
        assert!(is_a("ReqwestError", "Exception"));
        assert!(is_a("ReqwestError", "ReqwestError"));
        assert!(!is_a("ReqwestError", "OSError"));
        assert!(!is_a("Exception", "OSError"));
        assert!(!is_a("KeyError", "ValueError"));
    }

    #[test]
    fn the_tree_has_one_root_and_no_loops() {
        for (name, parent) in BUILTINS {
            assert!(parent.is_empty() || is_builtin(parent), "{name}");
            assert!(is_a(name, "Exception"), "{name}");
        }
    }
}
