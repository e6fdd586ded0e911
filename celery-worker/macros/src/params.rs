//! What each parameter of a task's function is: something that travels on the wire, or something of this process.
//!
//! The rule: an unmarked parameter travels; `#[ctx]` and `#[state]` ones do not. `#[args]` and `#[kwargs]` are Python's
//! `*args` and `**kwargs`. `#[serde(…)]` goes on to the generated parameter struct. The marks are taken off the
//! function, which stays callable as it is written.

use syn::ext::IdentExt as _;
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, FnArg, Ident, Pat, Token, Type};

use crate::parse::Errors;

/// One parameter of the function, in its order.
pub(crate) struct Param {
    pub(crate) ident: Ident,
    /// The type that is stored: for `&T` in a `#[ctx]` or `#[state]` parameter, `T`.
    pub(crate) ty: Type,
    pub(crate) role: Role,
    /// `#[ctx] ctx: &Context` and `#[state] db: &Pool` are lent to the function.
    pub(crate) by_ref: bool,
    /// `#[serde(…)]` attributes, for the generated struct.
    pub(crate) serde: Vec<Attribute>,
    /// The name on the wire: the parameter's own, or that of `#[serde(rename = "…")]`.
    pub(crate) wire_name: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// An argument of the call.
    Wire,
    /// An argument after `#[args]`: only ever given by keyword, as in Python.
    KeywordOnly,
    /// All further positional arguments.
    Args,
    /// All further keyword arguments.
    Kwargs,
    Ctx,
    State,
}

impl Param {
    pub(crate) fn travels(&self) -> bool {
        !matches!(self.role, Role::Ctx | Role::State)
    }
}

/// Reads the parameters and takes the marks off them.
pub(crate) fn params(inputs: &mut Punctuated<FnArg, Token![,]>, errors: &mut Errors) -> Vec<Param> {
    let mut params: Vec<Param> = Vec::new();
    for input in inputs {
        let typed = match input {
            FnArg::Receiver(receiver) => {
                errors.push(
                    &*receiver,
                    "a task is a free function: pass what `self` holds as a `#[state]` parameter",
                );
                continue;
            }
            FnArg::Typed(typed) => typed,
        };
        let (role, serde) = marks(&mut typed.attrs, errors);
        let ident = match &*typed.pat {
            Pat::Ident(pat) if pat.by_ref.is_none() && pat.subpat.is_none() => pat.ident.clone(),
            other => {
                errors.push(other, "a parameter's name is the keyword of Python callers: name it, and take it apart in the body");
                continue;
            }
        };
        let Some(role) = role else { continue };
        let (ty, by_ref) = owned(&typed.ty, role, errors);
        let wire_name = renamed(&serde, errors).unwrap_or_else(|| ident.unraw().to_string());
        let role = check_order(role, &ident, &params, errors);
        params.push(Param { ident, ty, role, by_ref, serde, wire_name });
    }
    params
}

/// Takes our marks and serde's attributes off a parameter. `None` if they contradict each other.
fn marks(attrs: &mut Vec<Attribute>, errors: &mut Errors) -> (Option<Role>, Vec<Attribute>) {
    let (mut role, mut serde, mut clean) = (Role::Wire, Vec::new(), true);
    for attr in std::mem::take(attrs) {
        let mark = match attr.path().get_ident().map(Ident::to_string).as_deref() {
            Some("ctx") => Role::Ctx,
            Some("state") => Role::State,
            Some("args") => Role::Args,
            Some("kwargs") => Role::Kwargs,
            Some("serde") => {
                serde.push(attr);
                continue;
            }
            // Lint levels mean the function's own parameter.
            Some("allow" | "expect" | "warn" | "deny" | "doc") => {
                attrs.push(attr);
                continue;
            }
            _ => {
                errors.push(
                    &attr,
                    "unknown mark on a task's parameter: `#[ctx]`, `#[state]`, `#[args]`, `#[kwargs]` and `#[serde(…)]` have a meaning here",
                );
                clean = false;
                continue;
            }
        };
        if attr.meta.require_path_only().is_err() {
            errors.push(&attr, "this mark takes no arguments");
        }
        if role != Role::Wire {
            errors.push(
                &attr,
                "a parameter is one thing only: keep one of `#[ctx]`, `#[state]`, `#[args]`, `#[kwargs]`",
            );
            clean = false;
        }
        role = mark;
    }
    if let (Role::Ctx | Role::State, Some(attr)) = (role, serde.first()) {
        errors.push(attr, "`#[serde]` is for parameters that travel; this one does not: remove it");
    }
    (clean.then_some(role), serde)
}

/// The type to store, and whether the function borrows it.
fn owned(ty: &Type, role: Role, errors: &mut Errors) -> (Type, bool) {
    let inner = if let Type::Reference(reference) = ty { &*reference.elem } else { ty };
    let message = match (ty, role) {
        // The most likely slip, which the compiler would tell in a hundred lines about serde.
        (_, Role::Wire) if matches!(inner, Type::Path(path) if path.path.is_ident("Context")) => {
            "the context does not travel: mark it `#[ctx]` (a type of your own with this name needs a path: `self::Context`)"
        }
        (Type::Reference(reference), Role::Ctx | Role::State) if reference.mutability.is_none() => {
            return ((*reference.elem).clone(), true);
        }
        (Type::Reference(_), Role::Ctx | Role::State) => {
            "tasks run side by side and share their state: take `&T`, with a lock or an atomic inside"
        }
        (Type::Reference(_), _) => {
            "an argument comes out of a message and must be owned: `String` for `&str`, `Vec<T>` for `&[T]`"
        }
        (Type::ImplTrait(_), _) => "a task has one wire format: name a concrete type here",
        _ => return (ty.clone(), false),
    };
    errors.push(ty, message);
    (ty.clone(), false)
}

/// Python's rules: positional, then `*args`, then keyword-only, then `**kwargs`.
fn check_order(role: Role, ident: &Ident, before: &[Param], errors: &mut Errors) -> Role {
    let has = |role| before.iter().any(|param| param.role == role);
    let message = match role {
        Role::Ctx if has(Role::Ctx) => "there is one context for a run: remove this second `#[ctx]`",
        Role::Args if has(Role::Args) => {
            "one `#[args]` takes all further positional arguments: remove this one"
        }
        Role::Kwargs if has(Role::Kwargs) => {
            "one `#[kwargs]` takes all further keyword arguments: remove this one"
        }
        Role::Wire | Role::Args if has(Role::Kwargs) => {
            "`#[kwargs]` takes what is left: move it behind this parameter"
        }
        Role::Wire if has(Role::Args) => return Role::KeywordOnly,
        _ => return role,
    };
    errors.push(ident, message);
    role
}

/// Refuses what would break binding by field names, and finds `rename`.
fn renamed(serde: &[Attribute], errors: &mut Errors) -> Option<String> {
    let mut name = None;
    for attr in serde {
        let parsed = attr.parse_nested_meta(|meta| {
            let word = meta.path.get_ident().map(Ident::to_string).unwrap_or_default();
            let remedy = match word.as_str() {
                "flatten" => "take the fields as parameters of their own, or use `#[kwargs]`",
                "alias" => "arguments are bound by position too, so that each has one name: keep one",
                word if word.starts_with("skip") => {
                    "every unmarked parameter travels: mark it `#[state]` or remove it"
                }
                _ => "",
            };
            if !remedy.is_empty() {
                return Err(meta.error(format!("`{word}` can't be used on a task's parameter: {remedy}")));
            }
            if meta.input.peek(Token![=]) {
                let value: syn::Expr = meta.value()?.parse()?;
                if let (true, syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. })) =
                    (word == "rename", &value)
                {
                    name = Some(text.value());
                }
            } else if meta.input.peek(syn::token::Paren) {
                return Err(meta.error("give one name for both directions: `#[serde(rename = \"name\")]`"));
            }
            Ok(())
        });
        if let Err(error) = parsed {
            errors.add(Error::new(error.span(), error));
        }
    }
    name
}
