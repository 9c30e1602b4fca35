//! Rows as JSON, for people and for other databases: values as the texts that clients get.

use volt_engine::value::ValueRef;

use crate::gateway::codec::text;

/// An object with these members, in their order.
pub(crate) fn object<'a>(members: impl Iterator<Item = (&'a str, ValueRef<'a>)>) -> String {
    let member = |(name, value): (&str, ValueRef<'_>)| {
        let value = match value {
            ValueRef::Null => serde_json::Value::Null,
            value => {
                let mut written = Vec::new();
                text::put(&mut written, value);
                serde_json::Value::String(String::from_utf8_lossy(&written).into_owned())
            }
        };
        // In the given order, which a map would not keep.
        format!("{}:{value}", serde_json::Value::String(name.to_owned()))
    };
    let members: Vec<String> = members.map(member).collect();
    format!("{{{}}}", members.join(","))
}
