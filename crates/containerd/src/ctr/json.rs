//! JSON as Go's encoder writes a generated message: fields in the order of their declaration, zero values left out,
//! `<`, `>` and `&` escaped.

use std::fmt::Write;

/// An object being written.
#[derive(Debug, Default)]
pub(crate) struct Object {
    body: String,
}

impl Object {
    /// A field whose value is JSON already; left out when empty.
    pub(crate) fn raw(mut self, name: &str, value: &str) -> Self {
        if !value.is_empty() {
            if !self.body.is_empty() {
                self.body.push(',');
            }
            let _ = write!(self.body, "\"{name}\":{value}");
        }
        self
    }

    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        let value = if value.is_empty() { String::new() } else { quote(value) };
        self.raw(name, &value)
    }

    pub(crate) fn number(self, name: &str, value: u64) -> Self {
        let value = if value == 0 { String::new() } else { value.to_string() };
        self.raw(name, &value)
    }

    pub(crate) fn signed(self, name: &str, value: i64) -> Self {
        let value = if value == 0 { String::new() } else { value.to_string() };
        self.raw(name, &value)
    }

    pub(crate) fn flag(self, name: &str, value: bool) -> Self {
        self.raw(name, if value { "true" } else { "" })
    }

    /// A message that may be absent.
    pub(crate) fn message<M>(self, name: &str, value: Option<&M>, view: impl Fn(&M) -> String) -> Self {
        self.raw(name, &value.map(view).unwrap_or_default())
    }

    /// A list; left out when empty.
    pub(crate) fn list<M>(self, name: &str, values: &[M], view: impl Fn(&M) -> String) -> Self {
        let values: Vec<String> = values.iter().map(view).collect();
        let value = if values.is_empty() { String::new() } else { format!("[{}]", values.join(",")) };
        self.raw(name, &value)
    }

    /// A map, sorted by key; left out when empty.
    pub(crate) fn map<M>(
        self,
        name: &str,
        values: &std::collections::HashMap<String, M>,
        view: impl Fn(&M) -> String,
    ) -> Self {
        let mut entries: Vec<(&String, &M)> = values.iter().collect();
        entries.sort_by_key(|(key, _)| *key);
        let entries: Vec<String> =
            entries.iter().map(|(key, value)| format!("{}:{}", quote(key), view(value))).collect();
        let value = if entries.is_empty() { String::new() } else { format!("{{{}}}", entries.join(",")) };
        self.raw(name, &value)
    }

    /// The whole object.
    pub(crate) fn end(self) -> String {
        format!("{{{}}}", self.body)
    }
}

/// A JSON string.
pub(crate) fn quote(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_values_are_left_out_and_order_is_kept() {
        let text = Object::default()
            .text("z", "a<b")
            .number("y", 0)
            .flag("x", true)
            .list("w", &[1_u32, 2], ToString::to_string)
            .list("v", &[] as &[u32], ToString::to_string)
            .message("u", Some(&()), |()| Object::default().end())
            .message("t", None::<&()>, |()| Object::default().end())
            .end();
        assert_eq!(text, r#"{"z":"a\u003cb","x":true,"w":[1,2],"u":{}}"#);
    }
}
