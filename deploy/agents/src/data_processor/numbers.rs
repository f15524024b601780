//! The figures of a column of numbers.
//!
//! Mean and deviation by Welford's method, which does not lose digits on large values; the deviation
//! is the sample's (n - 1). Quantiles by linear interpolation between neighbours (type 7 of Hyndman
//! and Fan, the common default).
//!
//! Integers stay exact: smallest, largest, sum, and each quantile that is a value of the column. One
//! beyond 64 bits is written as text, since a JSON number cannot hold it here. A figure that is
//! beyond what its type can hold is left out, and `overflow` names it.

use super::parse::Cell;
use serde_json::{Map, Value, json};

/// Adds the figures of `filled`, which are numbers, to `column`.
pub(super) fn describe(filled: &[&Cell], column: &mut Value) {
    let numbers = Numbers::sorted(filled);
    let mut figures = Figures::default();
    figures.put("min", numbers.at(0));
    figures.put("max", numbers.at(numbers.values.len().saturating_sub(1)));
    figures.put("sum", numbers.sum());
    let (mean, deviation) = numbers.mean_and_deviation();
    figures.put("mean", float(mean));
    figures.put("stddev", deviation.map_or(Some(Value::Null), float));
    figures.put("median", numbers.quantile(0.5));
    let mut quantiles = Figures::default();
    for (name, q) in [
        ("p05", 0.05),
        ("p25", 0.25),
        ("p50", 0.5),
        ("p75", 0.75),
        ("p95", 0.95),
    ] {
        quantiles.put(name, numbers.quantile(q));
    }
    for (name, value) in figures.given {
        column[name] = value;
    }
    column["quantiles"] = Value::Object(quantiles.given);
    figures.overflow.extend(quantiles.overflow);
    if !figures.overflow.is_empty() {
        column["overflow"] = json!(figures.overflow);
    }
}

#[derive(Default)]
struct Figures {
    given: Map<String, Value>,
    overflow: Vec<&'static str>,
}

impl Figures {
    fn put(&mut self, name: &'static str, value: Option<Value>) {
        match value {
            Some(value) => {
                self.given.insert(name.to_owned(), value);
            }
            None => self.overflow.push(name),
        }
    }
}

/// Numbers in ascending order.
struct Numbers {
    /// Where all are whole, as they are.
    integers: Option<Vec<i128>>,
    values: Vec<f64>,
}

impl Numbers {
    fn sorted(filled: &[&Cell]) -> Self {
        let integers: Option<Vec<i128>> = filled
            .iter()
            .map(|cell| match cell {
                Cell::Integer(i) => Some(*i),
                _ => None,
            })
            .collect();
        if let Some(mut integers) = integers {
            integers.sort_unstable();
            return Self {
                values: integers.iter().map(|i| *i as f64).collect(),
                integers: Some(integers),
            };
        }
        let mut values: Vec<f64> = filled
            .iter()
            .filter_map(|cell| match cell {
                Cell::Integer(i) => Some(*i as f64),
                Cell::Float(f) => Some(*f),
                _ => None,
            })
            .collect();
        values.sort_by(f64::total_cmp);
        Self {
            integers: None,
            values,
        }
    }

    fn at(&self, place: usize) -> Option<Value> {
        match &self.integers {
            Some(integers) => integers.get(place).map(|i| integer(*i)),
            None => self.values.get(place).map(|v| json!(v)),
        }
    }

    fn sum(&self) -> Option<Value> {
        match &self.integers {
            Some(integers) => integers
                .iter()
                .try_fold(0_i128, |sum, i| sum.checked_add(*i))
                .map(integer),
            None => {
                let sum: f64 = self.values.iter().sum();
                sum.is_finite().then(|| json!(sum))
            }
        }
    }

    fn mean_and_deviation(&self) -> (f64, Option<f64>) {
        let (mut mean, mut squares) = (0.0, 0.0);
        for (n, value) in self.values.iter().enumerate() {
            let from_mean = value - mean;
            mean += from_mean / (n + 1) as f64;
            squares += from_mean * (value - mean);
        }
        let others = self.values.len().saturating_sub(1);
        (mean, (others > 0).then(|| (squares / others as f64).sqrt()))
    }

    fn quantile(&self, q: f64) -> Option<Value> {
        let place = q * (self.values.len().checked_sub(1)?) as f64;
        let (below, above) = (place.floor() as usize, place.ceil() as usize);
        if let Some(integers) = &self.integers
            && integers.get(below) == integers.get(above)
        {
            return integers.get(below).map(|i| integer(*i));
        }
        let (below, above) = (self.values.get(below)?, self.values.get(above)?);
        if below == above {
            return float(*below);
        }
        float(below + (above - below) * place.fract())
    }
}

fn integer(value: i128) -> Value {
    i64::try_from(value)
        .map(Value::from)
        .or_else(|_| u64::try_from(value).map(Value::from))
        .unwrap_or_else(|_| Value::String(value.to_string()))
}

/// Four decimals, without touching numbers that are too large to have any.
fn float(value: f64) -> Option<Value> {
    let figure = if value.abs() < 1e11 {
        (value * 1e4).round() / 1e4
    } else {
        value
    };
    figure.is_finite().then(|| json!(figure))
}
