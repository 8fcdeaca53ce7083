//! What a log line may carry beside its text: chosen labels, chosen environment, a tag.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::error::{Error, Result};
use crate::options::JsonFileOptions;

/// The attributes of a log line, sorted by name.
pub type Attributes = BTreeMap<String, String>;

/// What the drivers may say of the container.
#[derive(Debug, Clone, Default)]
pub struct ContainerInfo {
    /// Full id.
    pub id: String,
    /// Name without the leading slash.
    pub name: String,
    /// The image's id, `sha256:…`.
    pub image_id: String,
    /// The image's name as the container was created from it.
    pub image_name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Environment, `K=V` each.
    pub env: Vec<String>,
}

/// The attributes that `options` choose for this container.
pub fn choose(options: &JsonFileOptions, info: &ContainerInfo) -> Attributes {
    let mut chosen = Attributes::new();
    let labels = info.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let env = info.env.iter().filter_map(|pair| pair.split_once('='));
    add(&mut chosen, labels, &options.labels, options.labels_regex.as_ref());
    add(&mut chosen, env, &options.env, options.env_regex.as_ref());
    if let Some(tag) = options.tag.as_ref().map(|tag| tag.render(info)).filter(|tag| !tag.is_empty()) {
        chosen.insert("tag".to_owned(), tag);
    }
    chosen
}

fn add<'a>(
    chosen: &mut Attributes,
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
    names: &[String],
    pattern: Option<&regex::Regex>,
) {
    for (name, value) in pairs {
        if names.iter().any(|wanted| wanted == name) || pattern.is_some_and(|pattern| pattern.is_match(name)) {
            chosen.insert(name.to_owned(), value.to_owned());
        }
    }
}

/// The attributes as `docker logs --details` shows them: `k=v,k2=v2`, both sides escaped as in a URL's query.
pub fn for_details(attributes: &Attributes) -> String {
    let mut text = String::new();
    for (name, value) in attributes {
        if !text.is_empty() {
            text.push(',');
        }
        query_escape(&mut text, name);
        text.push('=');
        query_escape(&mut text, value);
    }
    text
}

fn query_escape(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            b' ' => out.push('+'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

/// A log tag: text with fields such as `{{.Name}}`. Docker takes any Go template here; pipelines and functions are refused.
#[derive(Debug, Clone)]
pub struct Tag(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Debug, Clone, Copy)]
enum Field {
    Id,
    FullId,
    Name,
    ImageId,
    ImageFullId,
    ImageName,
    DaemonName,
}

impl Tag {
    /// Parses a tag; an empty one is none.
    pub fn parse(mut text: &str) -> Result<Option<Self>> {
        let whole = text;
        let unusable = || Error::InvalidOption(format!("log tag '{whole}': only plain fields like {{{{.Name}}}} work"));
        let mut parts = Vec::new();
        while let Some(open) = text.find("{{") {
            let close = text[open..].find("}}").ok_or_else(unusable)? + open;
            let field = match text[open + 2..close].trim() {
                ".ID" => Field::Id,
                ".FullID" => Field::FullId,
                ".Name" => Field::Name,
                ".ImageID" => Field::ImageId,
                ".ImageFullID" => Field::ImageFullId,
                ".ImageName" => Field::ImageName,
                ".DaemonName" => Field::DaemonName,
                _ => return Err(unusable()),
            };
            parts.push(Part::Text(text[..open].to_owned()));
            parts.push(Part::Field(field));
            text = &text[close + 2..];
        }
        parts.push(Part::Text(text.to_owned()));
        Ok((!whole.is_empty()).then_some(Self(parts)))
    }

    fn render(&self, info: &ContainerInfo) -> String {
        let short = |id: &str| id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Field(Field::Id) => out.push_str(&short(&info.id)),
                Part::Field(Field::FullId) => out.push_str(&info.id),
                Part::Field(Field::Name) => out.push_str(&info.name),
                Part::Field(Field::ImageId) => out.push_str(&short(&info.image_id)),
                Part::Field(Field::ImageFullId) => out.push_str(&info.image_id),
                Part::Field(Field::ImageName) => out.push_str(&info.image_name),
                Part::Field(Field::DaemonName) => out.push_str("docker"),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses_what_is_asked_for() {
        let info = ContainerInfo {
            id: "0123456789abcdef".to_owned(),
            name: "web".to_owned(),
            labels: [("a", "1"), ("b", "2"), ("com.x", "3 &")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            env: vec!["PATH=/bin".to_owned(), "SECRET=x".to_owned(), "broken".to_owned()],
            ..Default::default()
        };
        let options = JsonFileOptions {
            labels: vec!["a".to_owned()],
            labels_regex: Some(regex::Regex::new("^com").unwrap()),
            env: vec!["PATH".to_owned()],
            tag: Tag::parse("{{.ID}}/{{ .Name }}!").unwrap(),
            ..Default::default()
        };
        let chosen = choose(&options, &info);
        assert_eq!(for_details(&chosen), "PATH=%2Fbin,a=1,com.x=3+%26,tag=0123456789ab%2Fweb%21");
        assert!(Tag::parse("{{printf .ID}}").is_err());
        assert!(Tag::parse("{{.ID").is_err());
        assert!(Tag::parse("").unwrap().is_none());
    }
}
