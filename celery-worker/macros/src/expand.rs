//! Writes a [`Model`] down as code: the companion type, its parameter struct, and the two traits.
//!
//! ```text
//! pub enum add {}                                  // types and functions have namespaces of their own
//! impl add { pub fn s(x: i64, y: i64) -> Sig<i64>; pub fn partial(y: i64) -> Sig<i64>; }
//! impl TaskDef for add { NAME, Params, Output }
//! impl<S> Task<S> for add where <each #[state] type>: FromRef<S> { OPTIONS, RULES, BLOCKING, run }
//! ```

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned as _;
use syn::{Ident, Type};

use crate::params::{Param, Role};
use crate::parse::Model;

pub(crate) fn expand(model: &Model) -> TokenStream {
    let Model { ident, vis, attrs, .. } = model;
    let cfg = attrs.iter().filter(|attr| attr.path().is_ident("cfg")).collect::<Vec<_>>();
    let (params, calls) = (params_struct(model), calls(model));
    let (definition, execution) = (definition(model), execution(model));
    let doc = format!("\n\nThe task `{}`: calls are built with `{ident}::s(…)`.", model.options.name);
    quote! {
        #(#attrs)*
        #[doc = #doc]
        #[allow(non_camel_case_types, missing_debug_implementations, clippy::empty_enums)]
        #vis enum #ident {}

        #(#cfg)*
        const _: () = {
            use ::celery_worker::__private as __task;
            #params
            #calls
            #definition
            #execution
        };
    }
}

fn params_ident() -> Ident {
    // Not `Params`: the types of the parameters are named in the same scope.
    Ident::new("__TaskParams", Span::mixed_site())
}

/// The struct whose field names the arguments are bound to.
fn params_struct(model: &Model) -> TokenStream {
    let name = params_ident();
    let fields = travelling(model).map(|param| {
        let Param { ident, ty, serde, .. } = param;
        let rename = match param.role {
            Role::Args => Some(format!("*{}", param.wire_name)),
            Role::Kwargs => Some(format!("**{}", param.wire_name)),
            _ => None,
        };
        // Variadics may always be absent.
        let rename = rename.map(|name| quote!(#[serde(rename = #name, default)]));
        quote!(#(#serde)* #rename pub #ident: #ty)
    });
    let checks =
        travelling(model).map(|Param { ty, .. }| quote_spanned!(at(ty)=> __task::assert_travels::<#ty>();));
    quote! {
        #[derive(__task::serde::Serialize, __task::serde::Deserialize)]
        #[serde(crate = "::celery_worker::__private::serde")]
        #[doc(hidden)]
        #[allow(unreachable_pub, missing_docs, missing_debug_implementations, non_snake_case)]
        pub struct #name { #(#fields),* }

        #[allow(unused)]
        fn __assert() { #(#checks)* }
    }
}

/// `s`, `partial` and `bare`.
fn calls(model: &Model) -> TokenStream {
    let (ident, task, fields) = (&model.ident, &model.options.name, &model.options.fields);
    let params: Vec<_> = travelling(model).collect();
    let method = |name: &str, params: &[&Param], doc: String| {
        let (name, call) = (Ident::new(name, model.ident.span()), call(params));
        quote! {
            #[doc = #doc]
            #[allow(clippy::too_many_arguments)]
            pub fn #name #call
        }
    };
    let s = method("s", &params, format!("A call of `{task}` with all its arguments."));
    let bare =
        method("bare", &[], format!("A call of `{task}` without arguments; `arg` and `kwarg` add some."));
    let partial = params.split_first().filter(|(first, _)| first.role == Role::Wire).map(|(first, rest)| {
        let given =
            format!("A call of `{task}` without `{}`, which the step before it provides: ", first.wire_name);
        method("partial", rest, given + "for chains, callbacks and chord bodies.")
    });
    quote! {
        #[allow(dead_code, unreachable_pub)]
        impl #ident {
            const __OPTIONS: __task::TaskOptions = __task::TaskOptions {
                #(#fields,)*
                ..__task::TaskOptions::DEFAULT
            };
            #s #partial #bare
        }
    }
}

/// `(x: i64, y: i64) -> Sig<…> { … }`.
fn call(params: &[&Param]) -> TokenStream {
    let inputs = params.iter().map(|Param { ident, ty, .. }| match is(ty, "String") {
        true => quote!(#ident: impl __task::Into<#ty>),
        false => quote!(#ident: #ty),
    });
    let adds = params.iter().map(|param| {
        let Param { ident, ty, wire_name, .. } = param;
        let value = if is(ty, "String") { quote!(__task::Into::<#ty>::into(#ident)) } else { quote!(#ident) };
        // An absent `Option` is not sent, unless it stands for another default.
        match (param.role, is(ty, "Option") && param.serde.is_empty()) {
            (Role::Args, _) => quote!(.args(#value)),
            (Role::Kwargs, _) => quote!(.kwargs(#value)),
            (Role::KeywordOnly, false) => quote!(.kwarg(#wire_name, &#value)),
            (Role::KeywordOnly, true) => quote!(.optional_kwarg(#wire_name, #value)),
            (_, false) => quote!(.arg(&#value)),
            (_, true) => quote!(.optional_arg(#value)),
        }
    });
    quote! {
        (#(#inputs),*) -> __task::Sig<<Self as __task::TaskDef>::Output> {
            __task::CallOf::<Self>::new(&Self::__OPTIONS) #(#adds)* .sig()
        }
    }
}

fn is(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}

fn definition(model: &Model) -> TokenStream {
    let (ident, output, params, name) = (&model.ident, &model.output, params_ident(), &model.options.name);
    let result = quote_spanned!(at(output)=> <#output as __task::TaskReturn>::Output);
    quote! {
        impl __task::TaskDef for #ident {
            const NAME: &'static str = #name;
            type Params = #params;
            type Output = #result;
        }
    }
}

fn execution(model: &Model) -> TokenStream {
    let (ident, params, blocking) = (&model.ident, params_ident(), model.blocking);
    let rules = &model.options.rules;
    let style = Ident::new(if model.options.errback { "New" } else { "Old" }, Span::call_site());
    let wait = if blocking { None } else { Some(quote!(.await)) };
    let bounds =
        model.params.iter().filter(|param| param.role == Role::State).map(
            |Param { ty, .. }| quote_spanned!(at(ty)=> #ty: __task::FromRef<__S> + __task::Send + 'static),
        );
    // Each argument under a name of ours, so that a parameter called `state` means nothing here.
    let local = |param: &Param| format_ident!("__arg_{}", param.ident, span = Span::mixed_site());
    let local_parts = model.params.iter().filter(|param| !param.travels()).map(|param| {
        let (name, ty) = (local(param), &param.ty);
        match param.role {
            Role::Ctx => quote!(let #name = __ctx;),
            _ => quote!(let #name = <#ty as __task::FromRef<__S>>::from_ref(__state);),
        }
    });
    let unpack = travelling(model).map(|param| {
        let (field, name) = (&param.ident, local(param));
        quote!(#field: #name)
    });
    let arguments = model.params.iter().map(|param| {
        let (lent, name) = (param.by_ref.then(|| quote!(&)), local(param));
        quote_spanned!(at(&param.ty)=> #lent #name)
    });
    quote! {
        impl<__S> __task::Task<__S> for #ident
        where
            __S: __task::Send + __task::Sync + 'static,
            #(#bounds,)*
        {
            const OPTIONS: __task::TaskOptions = Self::__OPTIONS;
            const RULES: __task::FailureRules = __task::FailureRules {
                #(#rules,)*
                ..__task::FailureRules::NONE
            };
            const BLOCKING: bool = #blocking;
            const ERRBACK: __task::ErrbackStyle = __task::ErrbackStyle::#style;

            fn run(
                __state: &__S,
                __ctx: __task::Context,
                __params: Self::Params,
            ) -> impl __task::Future<Output = __task::TaskResult<Self::Output>> + __task::Send + 'static {
                #(#local_parts)*
                let #params { #(#unpack),* } = __params;
                async move { __task::TaskReturn::into_result(#ident(#(#arguments),*) #wait) }
            }
        }
    }
}

/// Where the user wrote a type, but as code of ours, which the user's lints leave alone.
fn at(ty: &Type) -> Span {
    Span::call_site().located_at(ty.span())
}

fn travelling(model: &Model) -> impl Iterator<Item = &Param> {
    model.params.iter().filter(|param| param.travels())
}
