//! Parameters as Flower reads them: from the query and from a form, the last one of a name counts, unknown ones are
//! ignored.

use std::collections::HashMap;
use std::str::FromStr;

use actix_web::HttpRequest;
use actix_web::http::header;
use actix_web::web::Query;

use super::answer::Refused;

/// What a request says.
#[derive(Debug)]
pub(super) struct Parameters {
    values: HashMap<String, String>,
}

impl Parameters {
    /// Reads the query and, if the body is a form, the body.
    pub(super) fn read(request: &HttpRequest, body: &[u8]) -> Result<Parameters, Refused> {
        let content = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let form = content.is_some_and(|content| content.starts_with("application/x-www-form-urlencoded"));
        let text = std::str::from_utf8(if form { body } else { &[] })
            .map_err(|_| Refused::bad("the form is not UTF-8"))?;
        let mut values = HashMap::new();
        for part in [request.query_string(), text] {
            let pairs = Query::<Vec<(String, String)>>::from_query(part)
                .map_err(|_| Refused::bad("the parameters are not written as name=value&…"))?;
            values
                .extend(pairs.into_inner().into_iter().map(|(name, value)| (name, value.trim().to_owned())));
        }
        Ok(Parameters { values })
    }

    /// The parameters of the query alone.
    pub(super) fn of(request: &HttpRequest) -> Result<Parameters, Refused> {
        Parameters::read(request, &[])
    }

    /// A text; an empty one is none.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A filter, where `All` is none.
    pub(super) fn filter(&self, name: &str) -> Option<&str> {
        self.text(name).filter(|value| *value != "All")
    }

    /// A text that must be there.
    pub(super) fn required(&self, name: &str) -> Result<&str, Refused> {
        self.text(name).ok_or_else(|| Refused::bad(format!("Missing argument {name}")))
    }

    /// A switch; off if it isn't there.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Refused> {
        let Some(value) = self.values.get(name) else { return Ok(false) };
        match value.to_lowercase().as_str() {
            "y" | "yes" | "t" | "true" | "on" | "1" => Ok(true),
            "n" | "no" | "f" | "false" | "off" | "0" => Ok(false),
            _ => Err(wrong(value, "bool")),
        }
    }

    /// A whole number.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, Refused> {
        self.parse(name, "int")
    }

    /// A number.
    pub(super) fn float(&self, name: &str) -> Result<Option<f64>, Refused> {
        Ok(self.parse::<f64>(name, "float")?.filter(|number| number.is_finite()))
    }

    fn parse<T: FromStr>(&self, name: &str, kind: &str) -> Result<Option<T>, Refused> {
        let value = self.values.get(name);
        value.map(|value| value.parse().map_err(|_| wrong(value, kind))).transpose()
    }
}

fn wrong(value: &str, kind: &str) -> Refused {
    let shown: String = value.chars().take(100).collect();
    Refused::bad(format!("Invalid argument '{shown}' of type '{kind}'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    #[test]
    fn query_and_form_are_read_together() {
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        let request =
            TestRequest::post().uri("/?n=1&soft=").insert_header(("Content-Type", form)).to_http_request();
        let read = Parameters::read(&request, b"n=+3&workername=a%401&flag=Yes").expect("pairs");
        assert_eq!(read.integer("n").expect("a number"), Some(3), "the last one counts");
        assert_eq!((read.text("workername"), read.text("soft")), (Some("a@1"), None));
        assert!(read.flag("flag").expect("a flag") && !read.flag("other").expect("no flag"));
        assert!(
            read.flag("n").is_err_and(|error| error.to_string() == "Invalid argument '3' of type 'bool'")
        );
        assert!(read.integer("flag").is_err_and(|error| error.to_string().ends_with("of type 'int'")));
        assert!(read.required("queue").is_err_and(|error| error.to_string() == "Missing argument queue"));
    }
}
