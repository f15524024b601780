//! Reads CSV and JSON records into columns; says which rows it left out and why.

use super::date;
use super::quote::{self, OpenQuote};
use crate::process::Refusal;
use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;

/// Most columns: more is a transposed table or a wrong delimiter.
const MAX_COLUMNS: usize = 512;
/// Most cells, so that many empty cells in a short text do not become much memory.
const MAX_CELLS: usize = 4_000_000;
/// Most row errors that are listed; all are counted.
const MAX_ERRORS: usize = 50;
/// How many records the delimiter is judged by.
const SNIFFED: usize = 20;
/// Texts that stand for no value in common exports.
const NULLS: [&str; 6] = ["", "NA", "N/A", "null", "NULL", "None"];

/// One cell.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Null,
    Boolean(bool),
    /// Wide enough for the sums and for what databases call numeric.
    Integer(i128),
    Float(f64),
    /// ISO 8601, as it was written.
    Date(String),
    Text(String),
}

/// A table, column by column.
pub(super) struct Table {
    pub(super) format: &'static str,
    pub(super) delimiter: Option<u8>,
    pub(super) columns: Vec<(String, Vec<Cell>)>,
    pub(super) rows: usize,
    pub(super) errors: Vec<RowError>,
    pub(super) errors_total: usize,
}

/// A row that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RowError {
    /// Line in the text, or place in the array, from 1.
    pub(super) line: u64,
    pub(super) fault: String,
}

impl Table {
    fn new(format: &'static str, delimiter: Option<u8>) -> Self {
        Self {
            format,
            delimiter,
            columns: Vec::new(),
            rows: 0,
            errors: Vec::new(),
            errors_total: 0,
        }
    }

    fn leave_out(&mut self, line: u64, fault: String) {
        self.errors_total += 1;
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(RowError { line, fault });
        }
    }

    fn check_size(&self, field: &str) -> Result<(), Refusal> {
        if self.columns.len() > MAX_COLUMNS {
            return Err(Refusal::input(
                field,
                format!("more than {MAX_COLUMNS} columns"),
            ));
        }
        if self.rows.saturating_mul(self.columns.len()) > MAX_CELLS {
            return Err(Refusal::input(
                field,
                format!("more than {MAX_CELLS} cells"),
            ));
        }
        Ok(())
    }
}

/// Reads CSV with a header line; the delimiter is found out where none is given.
pub(super) fn csv(text: &str, delimiter: Option<u8>) -> Result<Table, Refusal> {
    const FIELD: &str = "payload.csv";
    if delimiter.is_some_and(|d| !d.is_ascii() || matches!(d, b'"' | b'\n' | b'\r')) {
        return Err(Refusal::input(
            "payload.delimiter",
            "delimiter must be an ASCII character other than quotes and line ends",
        ));
    }
    let text = text.trim_start_matches('\u{feff}');
    let delimiter = delimiter.unwrap_or_else(|| sniff(text));
    let open = quote::unclosed(text, delimiter);
    let mut reader = reader(text, delimiter);
    let mut table = Table::new("csv", Some(delimiter));
    let header = reader
        .headers()
        .map_err(|e| Refusal::input(FIELD, format!("header line cannot be read: {e}")))?
        .clone();
    if let Some(open) = swallowing(open, reader.position()) {
        return Err(Refusal::input(FIELD, open.to_string()));
    }
    if header.iter().all(|name| name.trim().is_empty()) {
        return Err(Refusal::input(FIELD, "the header line is missing"));
    }
    for name in &header {
        let name = name.trim().to_owned();
        if table.columns.iter().any(|(known, _)| *known == name) {
            return Err(Refusal::input(
                FIELD,
                format!("column {name:?} is there twice"),
            ));
        }
        table.columns.push((name, Vec::new()));
        table.check_size(FIELD)?;
    }
    let mut record = csv::StringRecord::new();
    loop {
        let line = reader.position().line();
        let read = reader.read_record(&mut record);
        if let Some(open) = swallowing(open, reader.position()) {
            table.leave_out(open.line, open.to_string());
            return Ok(table);
        }
        match read {
            Ok(false) => return Ok(table),
            Ok(true) if record.len() == table.columns.len() => {
                for ((_, cells), text) in table.columns.iter_mut().zip(&record) {
                    cells.push(cell(text));
                }
                table.rows += 1;
                table.check_size(FIELD)?;
            }
            Ok(true) => {
                let line = record.position().map_or(line, csv::Position::line);
                let fault = format!("{} fields instead of {}", record.len(), table.columns.len());
                table.leave_out(line, fault);
            }
            Err(error) => table.leave_out(line, error.to_string()),
        }
    }
}

/// The quote that is never closed, if the record that ends at `read` holds it: that record then
/// reaches to the end of the text, and is no row whatever its fields look like.
fn swallowing(open: Option<OpenQuote>, read: &csv::Position) -> Option<OpenQuote> {
    open.filter(|open| open.byte < read.byte())
}

fn reader(text: &str, delimiter: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .from_reader(text.as_bytes())
}

/// The delimiter by which most of the first records have as many fields as the header, and more than one.
fn sniff(text: &str) -> u8 {
    let mut best = (0, 0, b',');
    for delimiter in [b',', b';', b'\t', b'|'] {
        let mut reader = reader(text, delimiter);
        let width = reader.headers().map_or(0, csv::StringRecord::len);
        if width < 2 {
            continue;
        }
        let fitting = reader
            .records()
            .take(SNIFFED)
            .filter(|record| record.as_ref().is_ok_and(|r| r.len() == width))
            .count();
        if (fitting, width) > (best.0, best.1) || best.1 == 0 {
            best = (fitting, width, delimiter);
        }
    }
    best.2
}

/// Reads an array of objects; a column is every name that occurs.
pub(super) fn records(records: &[Value]) -> Result<Table, Refusal> {
    let mut table = Table::new("json", None);
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (at, record) in records.iter().enumerate() {
        let Value::Object(fields) = record else {
            table.leave_out(at as u64 + 1, "not an object".to_owned());
            continue;
        };
        for (name, value) in fields {
            let place = *places.entry(name).or_insert_with(|| {
                table.columns.push((name.clone(), Vec::new()));
                table.columns.len() - 1
            });
            if let Some((_, cells)) = table.columns.get_mut(place) {
                // Rows before this one had no such field.
                cells.resize(table.rows, Cell::Null);
                cells.push(value_cell(value));
            }
        }
        table.rows += 1;
        table.check_size("payload.records")?;
    }
    for (_, cells) in &mut table.columns {
        cells.resize(table.rows, Cell::Null);
    }
    Ok(table)
}

fn value_cell(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::Null,
        Value::Bool(b) => Cell::Boolean(*b),
        Value::Number(n) => match (n.as_i128(), n.as_f64()) {
            (Some(i), _) => Cell::Integer(i),
            (None, Some(f)) => Cell::Float(f),
            (None, None) => Cell::Text(n.to_string()),
        },
        Value::String(text) if date::moment(text).is_some() => Cell::Date(text.clone()),
        Value::String(text) => Cell::Text(text.clone()),
        Value::Array(_) | Value::Object(_) => Cell::Text(value.to_string()),
    }
}

/// Reads a CSV cell. Numbers with leading zeros stay text: they are codes.
fn cell(text: &str) -> Cell {
    let text = text.trim();
    if NULLS.contains(&text) {
        return Cell::Null;
    }
    if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false") {
        return Cell::Boolean(text.eq_ignore_ascii_case("true"));
    }
    let digits = text.trim_start_matches(['-', '+']);
    let code = digits.len() > 1
        && digits.starts_with('0')
        && digits.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    if !code && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        if let Ok(integer) = text.parse() {
            return Cell::Integer(integer);
        }
        if let Ok(float) = text.parse::<f64>()
            && float.is_finite()
        {
            return Cell::Float(float);
        }
    }
    if date::moment(text).is_some() {
        return Cell::Date(text.to_owned());
    }
    Cell::Text(text.to_owned())
}
