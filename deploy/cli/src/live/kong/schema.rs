//! Kong's schemas, as `GET /schemas/…` answers them: what its fields are, and their defaults.

use serde_json::Value;

/// A record of fields.
pub struct Schema(Value);

/// One field.
#[derive(Clone, Copy)]
pub struct Field<'s>(&'s Value);

impl Schema {
    pub fn new(answer: Value) -> Self {
        Self(answer)
    }

    /// The record as a field.
    pub fn root(&self) -> Field<'_> {
        Field(&self.0)
    }
}

impl<'s> Field<'s> {
    /// The field of this name in a record: `fields` is a list of mappings with one key.
    pub fn of(self, name: &str) -> Option<Field<'s>> {
        let fields = self.0.get("fields")?.as_array()?;
        fields.iter().find_map(|field| field.get(name)).map(Field)
    }

    /// Whether it has fields of its own.
    pub fn is_record(self) -> bool {
        self.0.get("fields").is_some()
    }

    /// Whether the order of what it holds says nothing.
    pub fn is_set(self) -> bool {
        self.0.get("type").is_some_and(|kind| kind == "set")
    }

    /// What a list holds.
    pub fn elements(self) -> Option<Field<'s>> {
        self.0.get("elements").map(Field)
    }

    /// What Kong fills in.
    pub fn default(self) -> Option<&'s Value> {
        self.0.get("default")
    }
}
