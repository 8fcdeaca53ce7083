//! Query parameters, read the way Docker reads them.

use url::form_urlencoded;

use crate::error::{Error, Result};
use crate::filters::Filters;

/// The parameters of a request, in their order.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: Option<&str>) -> Self {
        Self(query.map(|query| form_urlencoded::parse(query.as_bytes()).into_owned().collect()).unwrap_or_default())
    }

    /// The first value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The first value of a name, if it is not empty.
    pub fn non_empty(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// The first value of a name, or the empty string.
    pub fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// All values of a name.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// Whether a name was given, with or without a value.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Docker's idea of a boolean: everything but a few words is true.
    pub fn bool(&self, name: &str) -> bool {
        !matches!(self.text(name).trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// The same with a default for "not given".
    pub fn bool_or(&self, name: &str, default: bool) -> bool {
        if self.contains(name) { self.bool(name) } else { default }
    }

    /// A whole number.
    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| Error::invalid(format!("strconv.Atoi: parsing {text:?}: invalid syntax"))),
        }
    }

    /// A side of a terminal, which must be given.
    pub fn dimension(&self, name: &str, what: &str) -> Result<u16> {
        let text = self.text(name);
        let reason = match text.parse::<i128>() {
            Ok(value) if !text.starts_with('+') => match u32::try_from(value) {
                // A terminal cannot be larger; Docker cuts such numbers, too.
                Ok(value) => return Ok(u16::try_from(value).unwrap_or(u16::MAX)),
                Err(_) => "value out of range",
            },
            _ => "invalid syntax",
        };
        Err(Error::invalid(format!("invalid resize {what} {text:?}: {reason}")))
    }

    /// An instant as `seconds[.fraction]`, in nanoseconds since the epoch.
    pub fn time(&self, name: &str) -> Result<Option<i128>> {
        match self.get(name) {
            None | Some("") => Ok(None),
            Some(text) => parse_time(text).map(Some).ok_or_else(|| {
                Error::invalid(format!("invalid value for {name:?}: {text:?} is not a number of seconds"))
            }),
        }
    }

    /// The `filters`.
    pub fn filters(&self) -> Result<Filters> {
        Filters::parse(self.text("filters"))
    }
}

fn parse_time(text: &str) -> Option<i128> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let mut nanos = 0i128;
    if !fraction.is_empty() {
        if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
        nanos = digits.parse().ok()?;
    }
    Some(i128::from(seconds) * 1_000_000_000 + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_dockers() {
        let query = Query::parse(Some("a=1&b=0&c=False&d=none&e&f=yes&g=no&h=%20"));
        let truths: Vec<_> =
            ["a", "b", "c", "d", "e", "f", "g", "h", "i"].iter().map(|name| query.bool(name)).collect();
        assert_eq!(truths, [true, false, false, false, false, true, false, false, false]);
        assert!(query.bool_or("i", true) && !query.bool_or("e", true));
    }

    #[test]
    fn times() {
        assert_eq!(parse_time("1"), Some(1_000_000_000));
        assert_eq!(parse_time("1.5"), Some(1_500_000_000));
        assert_eq!(parse_time("1.0000000019"), Some(1_000_000_001));
        for text in ["", "x", "1.x", "1.-5", ".5", "1e9"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn dimensions() {
        let query = Query::parse(Some("h=24&w=-1&x=abc&y=99999"));
        assert_eq!(query.dimension("h", "height").unwrap(), 24);
        assert_eq!(
            query.dimension("w", "width").unwrap_err().message,
            r#"invalid resize width "-1": value out of range"#
        );
        assert_eq!(query.dimension("x", "width").unwrap_err().message, r#"invalid resize width "abc": invalid syntax"#);
        assert_eq!(query.dimension("z", "width").unwrap_err().message, r#"invalid resize width "": invalid syntax"#);
        assert_eq!(query.dimension("y", "width").unwrap(), u16::MAX);
    }
}
