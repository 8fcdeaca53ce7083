//! Which events a client wants.

use api::filters::Filters;
use api::types::EventMessage;

/// Is this one wanted? A filter of a name that nothing has is no filter, as in Docker.
pub fn matches(filters: &Filters, event: &EventMessage) -> bool {
    let attributes = &event.actor.attributes;
    // `exec_start: sh` is found as `exec_start`.
    let action = event.action.split(':').next().unwrap_or_default();
    filters.any("event", |wanted| wanted == event.action || wanted == action)
        && filters.matches_exactly("type", &event.r#type)
        && filters.matches_exactly("scope", &event.scope)
        && filters.matches_pairs("label", |key| attributes.get(key).map(String::as_str))
        && thing(filters, event, "container")
        && thing(filters, event, "volume")
        && thing(filters, event, "network")
        && thing(filters, event, "daemon")
        && image(filters, event)
}

/// A filter by the kind of thing: the start of its id or of its name; events of other kinds are not wanted then,
/// but for those that name such a thing.
fn thing(filters: &Filters, event: &EventMessage, kind: &str) -> bool {
    filters.any(kind, |wanted| {
        if event.r#type == kind {
            let name = event.actor.attributes.get("name");
            event.actor.id.starts_with(wanted) || name.is_some_and(|n| n.starts_with(wanted.trim_start_matches('/')))
        } else {
            event.actor.attributes.get(kind).is_some_and(|id| id.starts_with(wanted))
        }
    })
}

/// An image is meant with and without its tag, and so are the containers made from it.
fn image(filters: &Filters, event: &EventMessage) -> bool {
    let bare = |name: &str| match name.rsplit_once(':') {
        Some((repo, tag)) if !tag.contains('/') => repo.to_owned(),
        _ => name.to_owned(),
    };
    filters.any("image", |wanted| match event.r#type.as_str() {
        "image" => {
            let name = event.actor.attributes.get("name").map(String::as_str).unwrap_or_default();
            [event.actor.id.as_str(), name, &bare(&event.actor.id), &bare(name)].contains(&wanted)
        }
        _ => event.actor.attributes.get("image").is_some_and(|name| name == wanted || bare(name) == wanted),
    })
}

#[cfg(test)]
mod tests {
    use api::types::{EventActor, Map};

    use super::*;

    #[test]
    fn things_are_found_by_name_and_id() {
        let event = EventMessage {
            r#type: "container".into(),
            action: "exec_start: sh".into(),
            actor: EventActor {
                id: "abc123".into(),
                attributes: Map::from_iter([
                    ("name", "web".to_owned()),
                    ("image", "app:1".to_owned()),
                    ("k", "v".to_owned()),
                ]),
            },
            ..EventMessage::default()
        };
        let matches = |name: &str, value: &str| {
            let mut filters = Filters::default();
            filters.add(name, value);
            matches(&filters, &event)
        };
        assert!(matches("container", "web") && matches("container", "abc") && !matches("container", "x"));
        assert!(matches("image", "app") && matches("image", "app:1") && !matches("image", "other"));
        assert!(matches("event", "exec_start") && matches("label", "k=v") && !matches("label", "k=w"));
        assert!(!matches("volume", "web") && matches("type", "container"));
    }
}
