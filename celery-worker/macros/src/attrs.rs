//! The options of `#[task(…)]`: one table, one line for each, and what a value of each kind may look like.
//!
//! A line of [`TABLE`] is a field of `TaskOptions` under the same name. Literals are checked here, where the mistake can
//! be pointed at; any other expression is passed on, for the compiler to type-check against the field.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::{Parse, ParseStream, Parser as _};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned as _;
use syn::{Expr, ExprLit, Ident, Lit, Token, Type};

use crate::parse::{Errors, text};

/// What follows an option's name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A switch, alone or with `= false`.
    Flag,
    /// A number or the word `unlimited`.
    Retries,
    /// A text with a unit, or an expression of type `Duration`.
    Duration,
    /// The same, or nothing, which is one second.
    Backoff,
    Priority,
    Text,
    Rate,
    /// One of these words, for a variant of this enum.
    Word(&'static str, Words),
    /// Error types and exception names in parentheses: a field of `FailureRules`.
    Errors,
    /// The macro's own words: [`Options::name`], [`Options::errback`], and another way to say `acks_late = false`.
    Name,
    Errback,
    Early,
}

/// Words and the variants that they stand for.
type Words = &'static [(&'static str, &'static str)];
const SERIALIZERS: Words = &[("json", "Json"), ("msgpack", "Msgpack"), ("yaml", "Yaml")];
const COMPRESSIONS: Words = &[("gzip", "Zlib"), ("zlib", "Zlib"), ("xz", "Xz"), ("zstd", "Zstd")];

/// Name, kind, and an example of the value for error messages.
#[rustfmt::skip]
const TABLE: &[(&str, Kind, &str)] = &[
    ("name",                         Kind::Name, "\"module.task\""),
    ("errback",                      Kind::Errback, "true"),
    ("acks_early",                   Kind::Early, "true"),
    ("acks_late",                    Kind::Flag, "false"),
    ("acks_on_failure",              Kind::Flag, "false"),
    ("acks_on_timeout",              Kind::Flag, "false"),
    ("reject_on_worker_lost",        Kind::Flag, "false"),
    ("ignore_result",                Kind::Flag, "false"),
    ("store_errors_even_if_ignored", Kind::Flag, "false"),
    ("track_started",                Kind::Flag, "false"),
    ("max_retries",                  Kind::Retries, "5` or `max_retries = unlimited"),
    ("default_retry_delay",          Kind::Duration, "\"30s\""),
    ("retry_backoff",                Kind::Backoff, "\"2s\""),
    ("retry_backoff_max",            Kind::Duration, "\"10m\""),
    ("retry_jitter",                 Kind::Flag, "false"),
    ("autoretry_for",                Kind::Errors, ""),
    ("dont_autoretry_for",           Kind::Errors, ""),
    ("throws",                       Kind::Errors, ""),
    ("time_limit",                   Kind::Duration, "\"90s\""),
    ("soft_time_limit",              Kind::Duration, "\"1m\""),
    ("expires",                      Kind::Duration, "\"1h\""),
    ("rate_limit",                   Kind::Rate, "\"10/m\""),
    ("queue",                        Kind::Text, "\"mail\""),
    ("priority",                     Kind::Priority, "5"),
    ("serializer",                   Kind::Word("Serializer", SERIALIZERS), "\"json\""),
    ("compression",                  Kind::Word("Compression", COMPRESSIONS), "\"gzip\""),
];

/// Everything inside `#[task(…)]`, checked.
pub(crate) struct Options {
    pub(crate) name: String,
    /// Called with the failed request instead of being published (`errback`).
    pub(crate) errback: bool,
    /// `field: value` of `TaskOptions`.
    pub(crate) fields: Vec<TokenStream>,
    /// `field: &[matcher, …]` of `FailureRules`.
    pub(crate) rules: Vec<TokenStream>,
}

struct Item {
    key: Ident,
    value: Value,
}

enum Value {
    None,
    Expr(Expr),
    List(Punctuated<TokenStream, Token![,]>),
}

impl Parse for Item {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let key: Ident = input.parse()?;
        let value = if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            Value::Expr(input.parse()?)
        } else if input.peek(syn::token::Paren) {
            let list;
            syn::parenthesized!(list in input);
            // A type, or the name of a Python exception; other literals are refused where the list is read.
            let element = |input: ParseStream<'_>| match input.peek(Lit) {
                true => input.parse::<Lit>().map(ToTokens::into_token_stream),
                false => input.parse::<Type>().map(ToTokens::into_token_stream),
            };
            Value::List(list.parse_terminated(element, Token![,])?)
        } else {
            Value::None
        };
        Ok(Self { key, value })
    }
}

/// Reads `name = "…", option, option = value, option(Type, …)`.
pub(crate) fn options(tokens: TokenStream, errors: &mut Errors) -> Options {
    let mut options = Options { name: String::new(), errback: false, fields: Vec::new(), rules: Vec::new() };
    let items = match Punctuated::<Item, Token![,]>::parse_terminated.parse2(tokens) {
        Ok(items) => items,
        Err(error) => {
            errors.add(error);
            return options;
        }
    };
    let mut seen = Vec::<&Ident>::new();
    for Item { key, value } in &items {
        let Some((field, kind, example)) = TABLE.iter().find(|(name, ..)| key == name) else {
            errors.push(key, unknown(&key.to_string()));
            continue;
        };
        if seen.contains(&key) {
            errors.push(key, format!("`{field}` is given twice: keep one"));
            continue;
        }
        seen.push(key);
        match kind {
            Kind::Name => options.name = name(key, value, errors),
            Kind::Errback => options.errback = flag(key, value, errors),
            Kind::Errors => options.rules.extend(matchers(key, value, errors)),
            Kind::Early => {
                let late = !flag(key, value, errors);
                options.fields.push(quote!(acks_late: __task::Some(#late)));
            }
            kind => {
                if let Some(value) = field_value(*kind, key, value, example, errors) {
                    options.fields.push(quote!(#key: __task::Some(#value)));
                }
            }
        }
    }
    if !seen.iter().any(|key| *key == "name") {
        let remedy =
            "a task's name is part of the protocol, so it is written out: add `name = \"module.task\"`";
        errors.add(syn::Error::new(proc_macro2::Span::call_site(), remedy));
    }
    check_together(&items, errors);
    options
}

fn unknown(key: &str) -> String {
    let same = |name: &str| key.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
    let near = TABLE.iter().map(|(name, ..)| (same(name), *name)).max().filter(|(same, _)| *same > 3);
    match (key, near) {
        ("bind", _) => {
            "every task may see its request: instead of `bind`, add a parameter `#[ctx] ctx: Context`".into()
        }
        (_, Some((_, name))) => format!("`{key}` is no option of a task: did you mean `{name}`?"),
        (_, None) => {
            let all: Vec<_> = TABLE.iter().map(|(name, ..)| *name).collect();
            format!("`{key}` is no option of a task; there are {}", all.join(", "))
        }
    }
}

fn name(key: &Ident, value: &Value, errors: &mut Errors) -> String {
    let name = if let Value::Expr(expr) = value { text(expr) } else { None };
    match name {
        None => errors
            .push(key, "the name is part of the protocol, so it is written out: `name = \"module.task\"`"),
        Some(name) if (1..=255).contains(&name.chars().count()) && !name.contains(char::is_control) => {
            return name;
        }
        Some(_) => {
            errors.push(key, "a task's name has 1 to 255 characters, none of which is a control character");
        }
    }
    String::new()
}

fn flag(key: &Ident, value: &Value, errors: &mut Errors) -> bool {
    match value {
        Value::None => true,
        Value::Expr(Expr::Lit(ExprLit { lit: Lit::Bool(value), .. })) => value.value,
        _ => {
            errors.push(key, format!("`{key}` is a switch: write `{key}` or `{key} = false`"));
            false
        }
    }
}

/// The value of a field of `TaskOptions`, as an expression of the field's type.
fn field_value(
    kind: Kind,
    key: &Ident,
    value: &Value,
    example: &str,
    errors: &mut Errors,
) -> Option<TokenStream> {
    match (kind, value) {
        (Kind::Flag, Value::Expr(expr)) if !is_literal(expr) => Some(quote!(#expr)),
        (Kind::Flag, _) => Some(flag(key, value, errors).into_token_stream()),
        (Kind::Backoff, Value::None) => Some(quote!(__task::Duration::from_secs(1))),
        (_, Value::Expr(expr)) => match checked(kind, expr) {
            Ok(value) => Some(value),
            Err(message) => {
                errors.push(expr, format!("{message}: `{key} = {example}`"));
                None
            }
        },
        _ => {
            errors.push(key, format!("`{key}` needs a value: `{key} = {example}`"));
            None
        }
    }
}

/// A literal, or a variable that only looks like one because of a minus sign.
fn is_literal(expr: &Expr) -> bool {
    matches!(expr, Expr::Lit(_)) || matches!(expr, Expr::Unary(unary) if matches!(*unary.expr, Expr::Lit(_)))
}

fn checked(kind: Kind, expr: &Expr) -> Result<TokenStream, &'static str> {
    let literal = is_literal(expr);
    let number = match expr {
        Expr::Lit(ExprLit { lit: Lit::Int(n), .. }) => n.base10_parse::<u32>().ok(),
        _ => None,
    };
    Ok(match (kind, text(expr)) {
        (Kind::Retries, _) => match expr {
            Expr::Path(path) if path.path.is_ident("unlimited") => {
                quote!(__task::MaxRetries::Unlimited)
            }
            _ if literal && number.is_none() => return Err("a number of retries"),
            _ => quote!(__task::MaxRetries::Times(#expr)),
        },
        (Kind::Duration | Kind::Backoff, text) if literal => {
            let nanos =
                text.and_then(|text| duration(&text)).ok_or("a duration has a unit (ms, s, m, h, d)")?;
            quote!(__task::Duration::from_nanos(#nanos))
        }
        (Kind::Priority, _) if literal && number.is_none_or(|n| n > 255) => {
            return Err("a priority is a number from 0 to 255");
        }
        (Kind::Text, None) if literal => return Err("a text"),
        (Kind::Text, Some(text)) if text.is_empty() => {
            return Err("this can't be empty, leave it out for the default");
        }
        (Kind::Rate, text) if literal => {
            text.and_then(|text| rate(&text)).ok_or("a rate is a number for each s, m or h")?
        }
        (Kind::Word(..), Some(text)) if text == "pickle" => {
            return Err("pickle runs code that a message brings along, so it is never spoken");
        }
        (Kind::Word(name, words), text) if literal => {
            let word =
                words.iter().find(|(word, _)| Some(*word) == text.as_deref()).ok_or("no such format here")?;
            let (name, variant) = (Ident::new(name, expr.span()), Ident::new(word.1, expr.span()));
            quote!(__task::#name::#variant)
        }
        _ => expr.to_token_stream(),
    })
}

/// `"1.5s"`, `"250ms"`, `"10m"`, `"2h"`, `"1d"` in nanoseconds.
fn duration(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim_start() {
        "ms" => 1e6,
        "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3_600e9,
        "d" => 86_400e9,
        _ => return None,
    };
    let nanos = (number.parse::<f64>().ok()? * unit).round();
    // f64 keeps whole nanoseconds up to 2^53 of them, and u64 holds 584 years.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    (nanos.is_finite() && (0.0..1.8e19).contains(&nanos)).then_some(nanos as u64)
}

/// `"10/s"`, `"100/m"`, `"5/h"` as a `RateLimit`.
fn rate(text: &str) -> Option<TokenStream> {
    let (runs, per) = text.split_once('/').unwrap_or((text, "s"));
    let runs = runs.parse::<f64>().ok().filter(|runs| runs.is_finite() && *runs >= 0.0)?;
    ["s", "m", "h"].contains(&per).then(|| quote!(__task::rate_limit(#runs, #per)))
}

/// `autoretry_for(io::Error, "ValueError")`: Rust types, and exceptions by the name that Python sees.
fn matchers(key: &Ident, value: &Value, errors: &mut Errors) -> Option<TokenStream> {
    let list = match value {
        Value::List(list) if !list.is_empty() => list,
        _ => {
            errors.push(key, format!("`{key}` lists errors: `{key}(std::io::Error, \"ValueError\")`"));
            return None;
        }
    };
    let matchers = list.iter().map(|element| match syn::parse2::<Lit>(element.clone()) {
        Ok(name) => quote!(__task::ErrorMatch::named(#name)),
        Err(_) => {
            quote::quote_spanned!(element.span()=> __task::ErrorMatch::of::<#element>())
        }
    });
    Some(quote!(#key: &[#(#matchers),*]))
}

/// Options that only make sense in certain company.
fn check_together(items: &Punctuated<Item, Token![,]>, errors: &mut Errors) {
    let find = |name: &str| items.iter().find(|item| item.key == name);
    let length = |name: &str| match find(name).map(|item| &item.value) {
        Some(Value::Expr(expr)) => text(expr).and_then(|text| duration(&text)),
        _ => None,
    };
    if let (Some(item), Some(_)) = (find("acks_early"), find("acks_late")) {
        errors.push(&item.key, "`acks_early` and `acks_late` contradict each other: keep one");
    }
    if let (Some(item), Some(soft), Some(hard)) =
        (find("soft_time_limit"), length("soft_time_limit"), length("time_limit"))
        && soft >= hard
    {
        errors.push(&item.key, "the soft limit warns before the hard one ends the task: make `soft_time_limit` shorter than `time_limit`");
    }
    if let (Some(item), None) = (find("dont_autoretry_for"), find("autoretry_for")) {
        errors.push(&item.key, "`dont_autoretry_for` makes exceptions to `autoretry_for`, which is missing");
    }
}
