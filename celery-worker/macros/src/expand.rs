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
    let checks = travelling(model).map(|param| {
        let ty = &param.ty;
        quote_spanned!(ty.span()=> ::celery_worker::__private::assert_travels::<#ty>();)
    });
    quote! {
        #[derive(::celery_worker::__private::serde::Serialize, ::celery_worker::__private::serde::Deserialize)]
        #[serde(crate = "::celery_worker::__private::serde")]
        #[doc(hidden)]
        #[allow(unreachable_pub, missing_docs, missing_debug_implementations, non_snake_case)]
        pub struct #name { #(#fields),* }

        #[allow(unused)]
        fn __assert() { #(#checks)* }
    }
}

/// `s` and `partial`.
fn calls(model: &Model) -> TokenStream {
    let ident = &model.ident;
    let params: Vec<_> = travelling(model).collect();
    let all = call(&params);
    let doc = format!("A call of `{}` with all its arguments.", model.options.name);
    let s = quote! {
        #[doc = #doc]
        #[allow(clippy::too_many_arguments)]
        #[must_use = "a signature does nothing until it is sent"]
        pub fn s #all
    };
    let partial = params.first().filter(|first| first.role == Role::Wire).map(|first| {
        let rest = call(&params[1..]);
        let doc = format!(
            "A call of `{}` without `{}`, which the step before it provides: for chains, callbacks and chord bodies.",
            model.options.name, first.wire_name
        );
        quote! {
            #[doc = #doc]
            #[allow(clippy::too_many_arguments)]
            #[must_use = "a signature does nothing until it is sent"]
            pub fn partial #rest
        }
    });
    quote! {
        #[allow(dead_code, unreachable_pub)]
        impl #ident { #s #partial }
    }
}

/// `(x: i64, y: i64) -> Sig<…> { … }`.
fn call(params: &[&Param]) -> TokenStream {
    let inputs = params.iter().map(|Param { ident, ty, .. }| match is_string(ty) {
        true => quote!(#ident: impl ::core::convert::Into<#ty>),
        false => quote!(#ident: #ty),
    });
    let pushes = params.iter().map(|param| {
        let Param { ident, ty, wire_name, .. } = param;
        let value =
            if is_string(ty) { quote!(::core::convert::Into::<#ty>::into(#ident)) } else { quote!(#ident) };
        match param.role {
            Role::Args => quote!(for __value in #value { __sig = __sig.arg(&__value); }),
            Role::Kwargs => quote!(for (__key, __value) in #value { __sig = __sig.kwarg(::core::convert::AsRef::<str>::as_ref(&__key), &__value); }),
            Role::KeywordOnly => quote!(__sig = __sig.kwarg(#wire_name, &#value);),
            _ => quote!(__sig = __sig.arg(&#value);),
        }
    });
    quote! {
        (#(#inputs),*) -> ::celery_worker::__private::Sig<<Self as ::celery_worker::__private::TaskDef>::Output> {
            #[allow(unused_mut)]
            let mut __sig = ::celery_worker::__private::sig::<Self>();
            #(#pushes)*
            __sig
        }
    }
}

fn is_string(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.qself.is_none() && path.path.segments.last().is_some_and(|last| last.ident == "String"))
}

fn definition(model: &Model) -> TokenStream {
    let (ident, output, params, name) = (&model.ident, &model.output, params_ident(), &model.options.name);
    let result = quote_spanned!(output.span()=> <#output as ::celery_worker::__private::TaskReturn>::Output);
    quote! {
        impl ::celery_worker::__private::TaskDef for #ident {
            const NAME: &'static str = #name;
            type Params = #params;
            type Output = #result;
        }
    }
}

fn execution(model: &Model) -> TokenStream {
    let (ident, params, blocking) = (&model.ident, params_ident(), model.blocking);
    let (fields, rules) = (&model.options.fields, &model.options.rules);
    let errback = model.options.errback.then(|| {
        quote!(
            const ERRBACK: ::celery_worker::__private::ErrbackStyle =
                ::celery_worker::__private::ErrbackStyle::New;
        )
    });
    let state_types = model.params.iter().filter(|param| param.role == Role::State).map(|param| &param.ty);
    let bounds = state_types.map(|ty| quote_spanned!(ty.span()=> #ty: ::celery_worker::__private::FromRef<__S> + ::core::marker::Send + 'static));
    // Each argument under a name of ours, so that a parameter called `state` means nothing here.
    let local = |param: &Param| format_ident!("__arg_{}", param.ident, span = Span::mixed_site());
    let states = model.params.iter().filter(|param| param.role == Role::State).map(|param| {
        let (name, ty) = (local(param), &param.ty);
        quote!(let #name = <#ty as ::celery_worker::__private::FromRef<__S>>::from_ref(__state);)
    });
    let unpack = travelling(model).map(|param| {
        let (field, name) = (&param.ident, local(param));
        quote!(#field: #name)
    });
    let arguments = model.params.iter().map(|param| {
        let name =
            if param.role == Role::Ctx { Ident::new("__ctx", Span::mixed_site()) } else { local(param) };
        if param.by_ref {
            quote_spanned!(param.ty.span()=> &#name)
        } else {
            quote_spanned!(param.ty.span()=> #name)
        }
    });
    let wait = if blocking { None } else { Some(quote!(.await)) };
    quote! {
        impl<__S> ::celery_worker::__private::Task<__S> for #ident
        where
            __S: ::core::marker::Send + ::core::marker::Sync + 'static,
            #(#bounds,)*
        {
            const OPTIONS: ::celery_worker::__private::TaskOptions = ::celery_worker::__private::TaskOptions {
                #(#fields,)*
                ..::celery_worker::__private::TaskOptions::DEFAULT
            };
            const RULES: ::celery_worker::__private::FailureRules = ::celery_worker::__private::FailureRules {
                #(#rules,)*
                ..::celery_worker::__private::FailureRules::NONE
            };
            const BLOCKING: bool = #blocking;
            #errback

            fn run(
                __state: &__S,
                __ctx: ::celery_worker::__private::Context,
                __params: Self::Params,
            ) -> impl ::core::future::Future<Output = ::celery_worker::__private::TaskResult<Self::Output>> + ::core::marker::Send + 'static {
                #(#states)*
                let #params { #(#unpack),* } = __params;
                async move { ::celery_worker::__private::TaskReturn::into_result(#ident(#(#arguments),*) #wait) }
            }
        }
    }
}

fn travelling(model: &Model) -> impl Iterator<Item = &Param> {
    model.params.iter().filter(|param| param.travels())
}
