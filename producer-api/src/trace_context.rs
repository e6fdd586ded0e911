//! W3C trace context: which of a request's `traceparent` and `tracestate` go into the message headers.
//!
//! They go to the top level of the header table: that is where OpenTelemetry's Celery instrumentation looks for them.
//! What is malformed is dropped, as the recommendation says; it never fails a submission.

/// A caller's position in its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// `version-trace_id-parent_id-flags`.
    pub traceparent: String,
    /// Vendors' state, if given.
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// Takes over what is valid.
    pub fn from_headers(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<Self> {
        let traceparent = traceparent.filter(|text| is_traceparent(text))?.to_owned();
        let tracestate = tracestate
            .filter(|text| !text.is_empty() && text.len() <= 512)
            .filter(|text| text.bytes().all(|byte| (0x20..0x7f).contains(&byte)))
            .map(str::to_owned);
        Some(TraceContext { traceparent, tracestate })
    }
}

fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut hex = |length: usize| {
        parts.next().filter(|part| {
            part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let (Some(version), Some(trace), Some(parent), Some(_flags)) = (hex(2), hex(32), hex(16), hex(2)) else {
        return false;
    };
    let not_zero = |id: &str| id.bytes().any(|b| b != b'0');
    // Only a version that we don't know may carry further parts.
    version != "ff" && not_zero(trace) && not_zero(parent) && (version != "00" || parts.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn takes_over_only_what_is_valid() {
        let taken = TraceContext::from_headers(Some(GOOD), Some("vendor=1")).expect("valid");
        assert_eq!((taken.traceparent.as_str(), taken.tracestate.as_deref()), (GOOD, Some("vendor=1")));
        let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let long = format!("{GOOD}-more");
        for bad in ["", "00", &GOOD.to_uppercase(), &GOOD.replace("00-4", "ff-4"), &zero, &long, &GOOD[..54]]
        {
            assert_eq!(TraceContext::from_headers(Some(bad), Some("vendor=1")), None, "{bad}");
        }
        assert_eq!(TraceContext::from_headers(None, Some("vendor=1")), None);
        assert_eq!(TraceContext::from_headers(Some(GOOD), Some("a\u{7f}")).expect("valid").tracestate, None);
    }
}
