//! From the annotated function to a [`Model`], or to every mistake in it.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::{Attribute, Error, Expr, ExprLit, Ident, ItemFn, Lit, ReturnType, Type, Visibility};

use crate::attrs::{self, Options};
use crate::params::{self, Param};

/// What [`crate::expand`] needs to know of a task.
pub(crate) struct Model {
    pub(crate) ident: Ident,
    pub(crate) vis: Visibility,
    /// Doc comments and `#[cfg]`, repeated on the companion type.
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) params: Vec<Param>,
    pub(crate) output: Type,
    /// An `async fn` is polled by the executor, a plain `fn` runs on a blocking thread.
    pub(crate) blocking: bool,
    pub(crate) options: Options,
}

/// Collects mistakes, to report all at once.
#[derive(Default)]
pub(crate) struct Errors(Option<Error>);

impl Errors {
    /// Adds one sentence about `at`.
    pub(crate) fn push(&mut self, at: impl ToTokens, message: impl std::fmt::Display) {
        self.add(Error::new_spanned(at, message));
    }

    pub(crate) fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            none => *none = Some(error),
        }
    }

    fn into_result<T>(self, value: T) -> syn::Result<T> {
        self.0.map_or(Ok(value), Err)
    }
}

/// Reads options and function. The marks on parameters are taken off `function` even if there are mistakes.
pub(crate) fn model(options: TokenStream, function: &mut ItemFn) -> syn::Result<Model> {
    let mut errors = Errors::default();
    let options = attrs::options(options, &mut errors);
    check_signature(function, &mut errors);
    let params = params::params(&mut function.sig.inputs, &mut errors);
    let output = match &function.sig.output {
        ReturnType::Type(_, ty) => {
            if matches!(**ty, Type::ImplTrait(_)) {
                errors
                    .push(ty, "the result's type is part of the task: name a concrete type, `TaskResult<…>`");
            }
            (**ty).clone()
        }
        ReturnType::Default => {
            errors.push(
                &function.sig.ident,
                "a task says how it went: return `TaskResult<()>`, and `Ok(())` at the end",
            );
            syn::parse_quote!(())
        }
    };
    let model = Model {
        ident: function.sig.ident.clone(),
        vis: function.vis.clone(),
        attrs: function.attrs.iter().filter(|attr| is_kept(attr)).cloned().collect(),
        params,
        output,
        blocking: function.sig.asyncness.is_none(),
        options,
    };
    errors.into_result(model)
}

fn is_kept(attr: &Attribute) -> bool {
    ["doc", "cfg", "deprecated"].iter().any(|name| attr.path().is_ident(name))
}

fn check_signature(function: &ItemFn, errors: &mut Errors) {
    let sig = &function.sig;
    if !sig.generics.params.is_empty() {
        errors.push(
            &sig.generics,
            "a task has one wire format, so it can't be generic: write the concrete types",
        );
    }
    if let Some(token) = &sig.unsafety {
        errors.push(token, "a worker calls tasks with whatever a message holds: remove `unsafe`");
    }
    if let Some(token) = &sig.constness {
        errors.push(token, "a task is called at run time: remove `const`");
    }
    if let Some(abi) = &sig.abi {
        errors.push(abi, "a task is called from Rust: remove `extern`");
    }
}

/// The error for `#[task]` on something else.
pub(crate) fn not_a_function(item: &TokenStream) -> Error {
    Error::new_spanned(item, "`#[task]` goes on a function: `async fn`, or a plain `fn` for blocking work")
}

/// The text of a string literal.
pub(crate) fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}
