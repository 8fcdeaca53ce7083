//! Building blocks of the wire models: the rules of Go's JSON encoder, which clients have come to rely on.
//!
//! Nothing here knows what Docker is.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Declares wire models: every field is public, may be missing or `null`, and is named in Go's way unless the model has
/// another case (`as "snake_case"`) or the field is renamed.
/// A first field `..name: Model` lends its own fields to this model.
macro_rules! wire {
    () => {};
    ($(#[$meta:meta])* pub struct $name:ident { $($fields:tt)* } $($rest:tt)*) => {
        wire! { @one "PascalCase" $(#[$meta])* $name { $($fields)* } }
        wire! { $($rest)* }
    };
    ($(#[$meta:meta])* pub struct $name:ident as $case:literal { $($fields:tt)* } $($rest:tt)*) => {
        wire! { @one $case $(#[$meta])* $name { $($fields)* } }
        wire! { $($rest)* }
    };
    (@one $case:literal $(#[$meta:meta])* $name:ident {
        $(.. $flat:ident: $flat_type:ty,)?
        $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = $case, default)]
        pub struct $name {
            // Without `nullable`: going through an `Option`, serde would turn a wrong type inside into the default.
            $(#[serde(flatten)] pub $flat: $flat_type,)?
            $(
                $(#[$field_meta])*
                #[serde(deserialize_with = "crate::types::wire::nullable")]
                pub $field: $type,
            )*
        }
    };
}
pub(crate) use wire;

/// Reads a value of which `null` is the default.
pub fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// What Go calls `omitempty`.
pub trait Omit {
    fn omit(&self) -> bool;
}

/// [`Omit::omit`] as a function, for `skip_serializing_if`.
pub fn omit<T: Omit>(value: &T) -> bool {
    value.omit()
}

macro_rules! omit_default {
    ($($type:ty),*) => {$(
        impl Omit for $type {
            fn omit(&self) -> bool {
                *self == <$type>::default()
            }
        }
    )*};
}
omit_default!(bool, u16, u32, u64, i32, i64, usize, String);

impl<T> Omit for Option<T> {
    fn omit(&self) -> bool {
        self.is_none()
    }
}
impl<T> Omit for Vec<T> {
    fn omit(&self) -> bool {
        self.is_empty()
    }
}
impl<T> Omit for List<T> {
    fn omit(&self) -> bool {
        self.is_empty()
    }
}
impl<T> Omit for Map<T> {
    fn omit(&self) -> bool {
        self.is_empty()
    }
}
impl Omit for StrSlice {
    fn omit(&self) -> bool {
        self.is_empty()
    }
}

/// `{}`: the value of a map that is used as a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// A list that remembers whether it was `null` or empty. It is used like a slice; writing to it makes it non-null.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct List<T>(Option<Vec<T>>);

impl<T> List<T> {
    /// The list that is written as `null`.
    pub const fn null() -> Self {
        Self(None)
    }

    /// The list that is written as `[]`.
    pub const fn empty() -> Self {
        Self(Some(Vec::new()))
    }

    pub const fn is_null(&self) -> bool {
        self.0.is_none()
    }

    pub fn as_slice(&self) -> &[T] {
        self.0.as_deref().unwrap_or(&[])
    }

    /// The elements, to change them; makes a `null` list an empty one.
    pub fn make_mut(&mut self) -> &mut Vec<T> {
        self.0.get_or_insert_default()
    }

    pub fn push(&mut self, value: T) {
        self.make_mut().push(value);
    }

    pub fn into_vec(self) -> Vec<T> {
        self.0.unwrap_or_default()
    }

    /// The same with `null` turned into `[]`.
    pub fn or_empty(self) -> Self {
        Self(Some(self.into_vec()))
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self::null()
    }
}
impl<T: fmt::Debug> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(values) => values.fmt(f),
            None => f.write_str("null"),
        }
    }
}
impl<T> Deref for List<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        self.as_slice()
    }
}
impl<T> From<Vec<T>> for List<T> {
    fn from(values: Vec<T>) -> Self {
        Self(Some(values))
    }
}
impl<T> From<Option<Vec<T>>> for List<T> {
    fn from(values: Option<Vec<T>>) -> Self {
        Self(values)
    }
}
impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(iter: I) -> Self {
        Self(Some(iter.into_iter().collect()))
    }
}
impl<T> IntoIterator for List<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.into_vec().into_iter()
    }
}
impl<'a, T> IntoIterator for &'a List<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.as_slice().iter()
    }
}
impl<T: Serialize> Serialize for List<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// An element that may be `null`.
struct Element<T>(T);

impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for Element<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        nullable(deserializer).map(Self)
    }
}

impl<'de, T: Default + Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let elements = Option::<Vec<Element<T>>>::deserialize(deserializer)?;
        Ok(Self(elements.map(|elements| elements.into_iter().map(|element| element.0).collect())))
    }
}

/// A map by name that remembers whether it was `null` or empty, written in the order of its keys. It is used like a
/// `BTreeMap`; writing to it makes it non-null.
#[derive(Clone, PartialEq, Eq)]
pub struct Map<V> {
    null: bool,
    entries: BTreeMap<String, V>,
}

impl<V> Map<V> {
    /// The map that is written as `null`.
    pub const fn null() -> Self {
        Self { null: true, entries: BTreeMap::new() }
    }

    /// The map that is written as `{}`.
    pub const fn empty() -> Self {
        Self { null: false, entries: BTreeMap::new() }
    }

    pub const fn is_null(&self) -> bool {
        self.null
    }

    pub fn into_map(self) -> BTreeMap<String, V> {
        self.entries
    }

    /// The same with `null` turned into `{}`.
    pub fn or_empty(self) -> Self {
        Self { null: false, ..self }
    }
}

impl<V> Default for Map<V> {
    fn default() -> Self {
        Self::null()
    }
}
impl<V: fmt::Debug> fmt::Debug for Map<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.null { f.write_str("null") } else { self.entries.fmt(f) }
    }
}
impl<V> Deref for Map<V> {
    type Target = BTreeMap<String, V>;
    fn deref(&self) -> &Self::Target {
        &self.entries
    }
}
impl<V> DerefMut for Map<V> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.null = false;
        &mut self.entries
    }
}
impl<V> From<BTreeMap<String, V>> for Map<V> {
    fn from(entries: BTreeMap<String, V>) -> Self {
        Self { null: false, entries }
    }
}
impl<K: Into<String>, V> FromIterator<(K, V)> for Map<V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Self {
        iter.into_iter().map(|(key, value)| (key.into(), value)).collect::<BTreeMap<_, _>>().into()
    }
}
impl<V> IntoIterator for Map<V> {
    type Item = (String, V);
    type IntoIter = std::collections::btree_map::IntoIter<String, V>;
    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}
impl<'a, V> IntoIterator for &'a Map<V> {
    type Item = (&'a String, &'a V);
    type IntoIter = std::collections::btree_map::Iter<'a, String, V>;
    fn into_iter(self) -> Self::IntoIter {
        self.entries.iter()
    }
}
impl<V: Serialize> Serialize for Map<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.null { serializer.serialize_none() } else { self.entries.serialize(serializer) }
    }
}
impl<'de, V: Default + Deserialize<'de>> Deserialize<'de> for Map<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let entries = Option::<BTreeMap<String, Element<V>>>::deserialize(deserializer)?;
        Ok(match entries {
            Some(entries) => entries.into_iter().map(|(key, value)| (key, value.0)).collect(),
            None => Self::null(),
        })
    }
}

/// A list of strings that a client may also send as one string (`Cmd`, `Entrypoint`, `CapAdd`, …).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct StrSlice(pub List<String>);

impl Deref for StrSlice {
    type Target = List<String>;
    fn deref(&self) -> &List<String> {
        &self.0
    }
}
impl DerefMut for StrSlice {
    fn deref_mut(&mut self) -> &mut List<String> {
        &mut self.0
    }
}
impl From<Vec<String>> for StrSlice {
    fn from(values: Vec<String>) -> Self {
        Self(values.into())
    }
}
impl<'a> IntoIterator for &'a StrSlice {
    type Item = &'a String;
    type IntoIter = std::slice::Iter<'a, String>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.as_slice().iter()
    }
}
impl<'de> Deserialize<'de> for StrSlice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = StrSlice;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_unit<E>(self) -> Result<StrSlice, E> {
                Ok(StrSlice::default())
            }
            fn visit_none<E>(self) -> Result<StrSlice, E> {
                Ok(StrSlice::default())
            }
            fn visit_str<E>(self, value: &str) -> Result<StrSlice, E> {
                Ok(vec![value.to_owned()].into())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StrSlice, A::Error> {
                let mut values = Vec::new();
                while let Some(Element(value)) = seq.next_element::<Element<String>>()? {
                    values.push(value);
                }
                Ok(values.into())
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}
