//! The `#[task]` attribute of celery-worker.
//!
//! Sugar, not behaviour: it turns one function into implementations of the public traits `TaskDef` and `Task`, which
//! can be written by hand as well (docs/tasks.md). Everything it emits is a path below `::celery_worker::__private`.
//!
//! [`params`] says what each parameter is, [`attrs`] what each option means, [`parse`] joins both to a [`parse::Model`],
//! [`expand`] writes that down as code. Mistakes are reported together, as sentences at their places.

mod attrs;
mod expand;
mod params;
mod parse;

use proc_macro::TokenStream;
use quote::quote;

/// Makes a Celery task of a function. Documented in full at `celery_worker::task`.
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    let item = proc_macro2::TokenStream::from(item);
    let mut function = match syn::parse2::<syn::ItemFn>(item.clone()) {
        Ok(function) => function,
        Err(_) => {
            let error = parse::not_a_function(&item).to_compile_error();
            return quote!(#error #item).into();
        }
    };
    let generated = match parse::model(options.into(), &mut function) {
        Ok(model) => expand::expand(&model),
        Err(error) => error.to_compile_error(),
    };
    quote!(#function #generated).into()
}
