//! Values that go into and come out of SQL.

use std::fmt;

use crate::Timestamp;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Timestamp(Timestamp),
    Uuid(Uuid),
    Json(serde_json::Value),
}

impl Value {
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "a time",
            Self::Uuid(_) => "a UUID",
            Self::Json(_) => "JSON",
        }
    }
}

/// As Postgres writes it; the database is what checks its form.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Uuid(String);

impl Uuid {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Uuid {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Uuid {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! into_value {
    ($($from:ty => |$value:ident| $into:expr;)*) => {
        $(impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $into
            }
        })*
    };
}

into_value! {
    bool => |value| Self::Bool(value);
    i64 => |value| Self::Int(value);
    i32 => |value| Self::Int(value.into());
    u32 => |value| Self::Int(value.into());
    f64 => |value| Self::Float(value);
    String => |value| Self::Text(value);
    &String => |value| Self::Text(value.clone());
    &str => |value| Self::Text(value.to_owned());
    Vec<u8> => |value| Self::Bytes(value);
    Timestamp => |value| Self::Timestamp(value);
    Uuid => |value| Self::Uuid(value);
    &Uuid => |value| Self::Uuid(value.clone());
    serde_json::Value => |value| Self::Json(value);
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// What a column can be read as.
pub trait FromValue: Sized {
    /// For error messages: "an integer".
    const EXPECTED: &'static str;

    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($into:ty, $expected:literal: $($pattern:pat => $result:expr),+;)*) => {
        $(impl FromValue for $into {
            const EXPECTED: &'static str = $expected;

            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    $($pattern => $result,)+
                    _ => None,
                }
            }
        })*
    };
}

from_value! {
    bool, "a boolean": Value::Bool(value) => Some(*value);
    i64, "an integer": Value::Int(value) => Some(*value);
    i32, "an integer of 32 bits": Value::Int(value) => i32::try_from(*value).ok();
    u32, "an integer of 32 bits, not negative": Value::Int(value) => u32::try_from(*value).ok();
    f64, "a number": Value::Float(value) => Some(*value), Value::Int(value) => Some(*value as f64);
    String, "text": Value::Text(value) => Some(value.clone()), Value::Uuid(value) => Some(value.0.clone());
    Vec<u8>, "bytes": Value::Bytes(value) => Some(value.clone());
    Timestamp, "a time": Value::Timestamp(value) => Some(*value);
    Uuid, "a UUID": Value::Uuid(value) => Some(value.clone());
    serde_json::Value, "JSON": Value::Json(value) => Some(value.clone());
}

impl<T: FromValue> FromValue for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}
