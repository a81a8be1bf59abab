//! Values between the contract and Postgres's binary format.
pub(super) use psn_bindings::imports::psn::plugin::db::Value;

use chrono::{DateTime, Days, NaiveDate, SecondsFormat};
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::{
    PgArgumentBuffer, PgArguments, PgColumn, PgStatement, PgTypeInfo, PgTypeKind, PgValueRef, Postgres,
};
use sqlx::{Arguments as _, Column as _, Either, Statement as _, Type, TypeInfo as _, ValueRef as _};
use uuid::Uuid;

use super::fault::Fault;
use super::numeric;
use crate::capabilities::captured::{MAX_JSON_VALUES, TooMany, json_of, values_of};

/// Microseconds from 1970 to 2000, where Postgres counts from.
const EPOCH_US: i64 = 946_684_800_000_000;

/// Bytes of a value, for the reply's limit.
pub(super) fn weight(value: &Value) -> usize {
    match value {
        Value::Text(t) | Value::Uuid(t) | Value::Json(t) => t.len(),
        Value::Bytes(b) => b.len(),
        Value::Null | Value::Boolean(_) | Value::Int64(_) | Value::Float64(_) | Value::Timestamp(_) => 8,
    }
}

/// The parameters in the types that Postgres has inferred for them.
pub(super) fn arguments(statement: &PgStatement, params: &[Value]) -> Result<PgArguments, Fault> {
    let types = match statement.parameters() {
        Some(Either::Left(types)) => types,
        _ => &[],
    };
    if types.len() != params.len() {
        return Err(Fault::unsupported(format!(
            "the statement has {} parameters, and {} values came with it",
            types.len(),
            params.len()
        )));
    }
    let mut arguments = PgArguments::default();
    for (i, (ty, value)) in types.iter().zip(params).enumerate() {
        let bytes = match value {
            Value::Null => None,
            value => Some(
                encode(ty, value).map_err(|reason| Fault::unsupported(format!("parameter ${}: {reason}", i + 1)))?,
            ),
        };
        let typed = Typed { ty: ty.clone(), bytes };
        arguments.add(typed).map_err(|e| Fault::unsupported(format!("parameter ${}: {e}", i + 1)))?;
    }
    Ok(arguments)
}

/// Bytes in the binary format of a type.
struct Typed {
    ty: PgTypeInfo,
    bytes: Option<Vec<u8>>,
}

impl Type<Postgres> for Typed {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("unknown")
    }
}

impl Encode<'_, Postgres> for Typed {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(match &self.bytes {
            None => IsNull::Yes,
            Some(bytes) => {
                buf.extend_from_slice(bytes);
                IsNull::No
            }
        })
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.ty.clone())
    }
}

fn encode(ty: &PgTypeInfo, value: &Value) -> Result<Vec<u8>, String> {
    let name = ty.name();
    if let PgTypeKind::Array(element) = ty.kind() {
        return encode_array(element, value);
    }
    let bytes = match (name, value) {
        ("BOOL", Value::Boolean(v)) => Some(vec![u8::from(*v)]),
        ("BOOL", Value::Text(v)) => v.parse::<bool>().ok().map(|v| vec![u8::from(v)]),
        ("INT2" | "INT4" | "INT8" | "OID", _) => return integer(name, value),
        ("FLOAT4", _) => float(value).map(|v| {
            #[expect(clippy::cast_possible_truncation, reason = "rounding is what a column of this type does")]
            let v = v as f32;
            v.to_be_bytes().to_vec()
        }),
        ("FLOAT8", _) => float(value).map(|v| v.to_be_bytes().to_vec()),
        ("NUMERIC", Value::Int64(v)) => Some(numeric::encode(*v)),
        (
            "TEXT" | "VARCHAR" | "BPCHAR" | "NAME" | "CITEXT" | "UNKNOWN",
            Value::Text(v) | Value::Uuid(v) | Value::Json(v),
        ) => Some(no_nul(v)?.to_vec()),
        ("BYTEA", Value::Bytes(v)) => Some(v.clone()),
        ("UUID", Value::Uuid(v) | Value::Text(v)) => Uuid::parse_str(v).ok().map(|v| v.as_bytes().to_vec()),
        ("TIMESTAMPTZ" | "TIMESTAMP", Value::Timestamp(v)) => v.checked_sub(EPOCH_US).map(|v| v.to_be_bytes().to_vec()),
        ("TIMESTAMPTZ", Value::Text(v)) => {
            let v = DateTime::parse_from_rfc3339(v).ok().and_then(|v| v.timestamp_micros().checked_sub(EPOCH_US));
            v.map(|v| v.to_be_bytes().to_vec())
        }
        ("DATE", Value::Text(v)) => date_from(v).map(|days| days.to_be_bytes().to_vec()),
        ("JSON" | "JSONB", Value::Json(v) | Value::Text(v)) => {
            serde_json::from_str::<serde::de::IgnoredAny>(v).map_err(|e| format!("not JSON: {e}"))?;
            // A jsonb begins with the version of its format.
            let version: &[u8] = if name == "JSONB" { &[1] } else { &[] };
            Some([version, no_nul(v)?].concat())
        }
        (_, Value::Text(v)) if matches!(ty.kind(), PgTypeKind::Enum(_)) => Some(no_nul(v)?.to_vec()),
        _ => None,
    };
    bytes.ok_or_else(|| {
        format!(
            "{} is no value of the type {name}; for other types and forms give text, and write $n::text::{}",
            words(value),
            name.to_lowercase()
        )
    })
}

fn integer(name: &str, value: &Value) -> Result<Vec<u8>, String> {
    let v = match value {
        Value::Int64(v) => Some(*v),
        Value::Text(v) => v.parse().ok(),
        _ => None,
    };
    let v = v.ok_or_else(|| format!("{} is no value of the type {name}", words(value)))?;
    let range = |_| format!("the number is outside of the type {name}");
    Ok(match name {
        "INT2" => i16::try_from(v).map_err(range)?.to_be_bytes().to_vec(),
        "INT4" => i32::try_from(v).map_err(range)?.to_be_bytes().to_vec(),
        "OID" => u32::try_from(v).map_err(range)?.to_be_bytes().to_vec(),
        _ => v.to_be_bytes().to_vec(),
    })
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Float64(v) => Some(*v),
        #[expect(clippy::cast_precision_loss, reason = "what Postgres does with an integer there, too")]
        Value::Int64(v) => Some(*v as f64),
        Value::Text(v) => v.parse().ok(),
        _ => None,
    }
}

fn no_nul(text: &str) -> Result<&[u8], String> {
    if text.contains('\0') {
        return Err("text in Postgres cannot hold the character NUL".to_owned());
    }
    Ok(text.as_bytes())
}

fn words(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Boolean(_) => "this boolean",
        Value::Int64(_) => "this integer",
        Value::Float64(_) => "this number",
        Value::Text(_) => "this text",
        Value::Bytes(_) => "this list of bytes",
        Value::Timestamp(_) => "this time",
        Value::Uuid(_) => "this UUID",
        Value::Json(_) => "this JSON",
    }
}

/// One dimension, from a JSON array.
fn encode_array(element: &PgTypeInfo, value: &Value) -> Result<Vec<u8>, String> {
    let Value::Json(text) = value else {
        return Err(format!("{} is no array; give a JSON array", words(value)));
    };
    let json = json_of(text.as_bytes()).map_err(|TooMany| "the array is too long".to_owned())?;
    let Some(serde_json::Value::Array(items)) = json else { return Err("not a JSON array".to_owned()) };
    let oid = element.oid().ok_or_else(|| format!("arrays of {} are not supported", element.name()))?;
    let count = i32::try_from(items.len()).map_err(|_| "the array is too long".to_owned())?;
    let has_null = items.iter().any(serde_json::Value::is_null);
    let mut out = Vec::new();
    // Dimensions (none of an empty array), whether there are nulls, the type, then length and first index of the one dimension.
    for word in [i32::from(count > 0), i32::from(has_null)] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    out.extend_from_slice(&oid.0.to_be_bytes());
    if count > 0 {
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&1i32.to_be_bytes());
    }
    for item in items {
        let value = match item {
            serde_json::Value::Null => {
                out.extend_from_slice(&(-1i32).to_be_bytes());
                continue;
            }
            serde_json::Value::String(s) => Value::Text(s),
            serde_json::Value::Bool(b) => Value::Boolean(b),
            serde_json::Value::Number(n) => match n.as_i64() {
                Some(n) => Value::Int64(n),
                None => Value::Float64(n.as_f64().ok_or("a number of the array is too large")?),
            },
            other => Value::Json(other.to_string()),
        };
        let bytes = encode(element, &value)?;
        out.extend_from_slice(
            &i32::try_from(bytes.len()).map_err(|_| "a value of the array is too long".to_owned())?.to_be_bytes(),
        );
        out.extend_from_slice(&bytes);
    }
    Ok(out)
}

/// Days since 2000-01-01.
fn date_from(text: &str) -> Option<i32> {
    let days = text.parse::<NaiveDate>().ok()?.signed_duration_since(millennium()?).num_days();
    i32::try_from(days).ok()
}

fn millennium() -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(2000, 1, 1)
}

/// How the values of a type are read: found out once for a column, not for each of its values.
#[derive(Clone, Copy)]
pub(super) enum Form<'t> {
    Boolean,
    Int2,
    Int4,
    Int8,
    Oid,
    Float4,
    Float8,
    Numeric,
    Text,
    Bytes,
    Uuid,
    Timestamp,
    Date,
    Json,
    Jsonb,
    /// What a call of a function that gives nothing answers.
    Void,
    Array(&'t PgTypeInfo),
    Unknown,
}

impl<'t> Form<'t> {
    pub(super) fn of(ty: &'t PgTypeInfo) -> Self {
        if let PgTypeKind::Array(element) = ty.kind() {
            return Form::Array(element);
        }
        match ty.name() {
            "BOOL" => Form::Boolean,
            "INT2" => Form::Int2,
            "INT4" => Form::Int4,
            "INT8" => Form::Int8,
            "OID" => Form::Oid,
            "FLOAT4" => Form::Float4,
            "FLOAT8" => Form::Float8,
            "NUMERIC" => Form::Numeric,
            "TEXT" | "VARCHAR" | "BPCHAR" | "NAME" | "CITEXT" | "UNKNOWN" => Form::Text,
            "BYTEA" => Form::Bytes,
            "UUID" => Form::Uuid,
            "TIMESTAMPTZ" | "TIMESTAMP" => Form::Timestamp,
            "DATE" => Form::Date,
            "JSON" => Form::Json,
            "JSONB" => Form::Jsonb,
            "VOID" => Form::Void,
            _ if matches!(ty.kind(), PgTypeKind::Enum(_)) => Form::Text,
            _ => Form::Unknown,
        }
    }
}

/// A value of this column, whose type has this form.
pub(super) fn decode(column: &PgColumn, form: Form<'_>, raw: &PgValueRef<'_>) -> Result<Value, Fault> {
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let bytes = raw.as_bytes().map_err(|e| Fault::unsupported(format!("the column {}: {e}", column.name())))?;
    decode_bytes(form, bytes).ok_or_else(|| {
        let (column, ty) = (column.name(), column.type_info().name().to_lowercase());
        Fault::unsupported(format!("the column {column} holds a value of the type {ty} that cannot be handed on as it is: select {column}::text"))
    })
}

fn decode_bytes(form: Form<'_>, bytes: &[u8]) -> Option<Value> {
    let text = || String::from_utf8(bytes.to_vec()).ok();
    Some(match form {
        Form::Boolean => Value::Boolean(bytes == [1]),
        Form::Int2 => Value::Int64(i16::from_be_bytes(bytes.try_into().ok()?).into()),
        Form::Int4 => Value::Int64(i32::from_be_bytes(bytes.try_into().ok()?).into()),
        Form::Int8 => Value::Int64(i64::from_be_bytes(bytes.try_into().ok()?)),
        Form::Oid => Value::Int64(u32::from_be_bytes(bytes.try_into().ok()?).into()),
        Form::Float4 => Value::Float64(f32::from_be_bytes(bytes.try_into().ok()?).into()),
        Form::Float8 => Value::Float64(f64::from_be_bytes(bytes.try_into().ok()?)),
        Form::Numeric => Value::Text(numeric::decode(bytes)?),
        Form::Text => Value::Text(text()?),
        Form::Bytes => Value::Bytes(bytes.to_vec()),
        Form::Uuid => Value::Uuid(Uuid::from_slice(bytes).ok()?.to_string()),
        Form::Timestamp => {
            let us = i64::from_be_bytes(bytes.try_into().ok()?);
            // The two ends are infinity.
            if us == i64::MIN {
                return None;
            }
            Value::Timestamp(us.checked_add(EPOCH_US)?)
        }
        Form::Date => {
            let days = i64::from(i32::from_be_bytes(bytes.try_into().ok()?));
            let zero = millennium()?;
            let date = match u64::try_from(days) {
                Ok(days) => zero.checked_add_days(Days::new(days))?,
                Err(_) => zero.checked_sub_days(Days::new(days.unsigned_abs()))?,
            };
            Value::Text(date.to_string())
        }
        Form::Json => Value::Json(text()?),
        Form::Jsonb => Value::Json(String::from_utf8(bytes.strip_prefix(&[1])?.to_vec()).ok()?),
        Form::Void => Value::Null,
        Form::Array(element) => Value::Json(serde_json::Value::Array(decode_array(element, bytes)?).to_string()),
        Form::Unknown => return None,
    })
}

fn decode_array(element: &PgTypeInfo, mut bytes: &[u8]) -> Option<Vec<serde_json::Value>> {
    let dimensions = take_i32(&mut bytes)?;
    let (_has_null, _oid) = (take_i32(&mut bytes)?, take_i32(&mut bytes)?);
    if dimensions == 0 {
        return Some(Vec::new());
    }
    if dimensions != 1 {
        return None;
    }
    let (count, _first) = (take_i32(&mut bytes)?, take_i32(&mut bytes)?);
    let mut items = Vec::new();
    let form = Form::of(element);
    // Longer ones can be had as text.
    let mut room = MAX_JSON_VALUES.checked_sub(usize::try_from(count).ok()?)?;
    for _ in 0..count {
        let Ok(len) = usize::try_from(take_i32(&mut bytes)?) else {
            items.push(serde_json::Value::Null);
            continue;
        };
        let (item, rest) = bytes.split_at_checked(len)?;
        bytes = rest;
        items.push(match decode_bytes(form, item)? {
            Value::Null => serde_json::Value::Null,
            Value::Boolean(v) => v.into(),
            Value::Int64(v) => v.into(),
            Value::Float64(v) => v.into(),
            Value::Text(v) | Value::Uuid(v) => v.into(),
            Value::Timestamp(v) => {
                DateTime::from_timestamp_micros(v)?.to_rfc3339_opts(SecondsFormat::Micros, true).into()
            }
            Value::Json(v) => {
                room = room.checked_sub(values_of(v.as_bytes()))?;
                serde_json::from_str(&v).ok()?
            }
            Value::Bytes(v) => hex::encode(v).into(),
        });
    }
    Some(items)
}

fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(i32::from_be_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_bounded_before_they_are_built() {
        let int = <i32 as Type<Postgres>>::type_info();
        let head = |count: usize| [1, 0, 23, i32::try_from(count).unwrap(), 1].map(i32::to_be_bytes).concat();
        let item = [4i32, 7].map(i32::to_be_bytes).concat();
        let array = |count: usize| [head(count), item.repeat(count)].concat();
        assert_eq!(decode_array(&int, &array(2)).unwrap().len(), 2);
        assert!(decode_array(&int, &array(MAX_JSON_VALUES + 1)).is_none());
        let json = <serde_json::Value as Type<Postgres>>::type_info();
        let of = |text: &str| {
            // JSONB's version goes before it.
            let len = i32::try_from(text.len() + 1).unwrap().to_be_bytes();
            [head(2), [&len[..], &[1], text.as_bytes()].concat().repeat(2)].concat()
        };
        assert_eq!(decode_array(&json, &of("[1]")).unwrap().len(), 2);
        assert!(decode_array(&json, &of(&format!("[{}1]", "1,".repeat(MAX_JSON_VALUES / 2)))).is_none());
        let text = format!("[{}1]", "1,".repeat(MAX_JSON_VALUES));
        assert!(encode_array(&int, &Value::Json(text)).unwrap_err().contains("too long"));
    }
}
