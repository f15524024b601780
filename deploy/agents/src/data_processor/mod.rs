//! data-processor: CSV or JSON records in, typed column statistics out.
//!
//! The data comes with the payload (`csv`, or `records` / `json`), or from the first earlier step
//! whose result holds one of these. `null` is the same as nothing.

mod column;
mod date;
mod numbers;
mod parse;
mod quote;

use crate::process::{self, Refusal, Step};
use axum::Router;
use parse::Table;
use serde_json::{Map, Value, json};

/// The agent.
pub fn router() -> Router {
    process::router("data-processor", process::blocking(|step| carry_out(&step)))
}

fn carry_out(step: &Step) -> Result<Value, Refusal> {
    let earlier = step
        .incoming_data
        .values()
        .filter_map(|result| result.get("data")?.as_object());
    let source = std::iter::once(&step.payload)
        .chain(earlier)
        .find(|source| ["csv", "records", "json"].iter().any(|k| given(source, k).is_some()))
        .ok_or_else(|| {
            Refusal::input(
                "payload",
                "no data: give payload.csv (text with a header line) or payload.records (an array of objects)",
            )
        })?;
    let table = read(source, &step.payload)?;
    Ok(report(&table))
}

fn given<'a>(source: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    source.get(field).filter(|value| !value.is_null())
}

fn read(source: &Map<String, Value>, payload: &Map<String, Value>) -> Result<Table, Refusal> {
    if let Some(csv) = given(source, "csv") {
        let text = csv
            .as_str()
            .ok_or_else(|| Refusal::input("payload.csv", "csv must be text"))?;
        let delimiter = match given(payload, "delimiter") {
            None => None,
            Some(Value::String(one)) if one.len() == 1 => one.bytes().next(),
            Some(_) => {
                return Err(Refusal::input(
                    "payload.delimiter",
                    "delimiter must be one ASCII character",
                ));
            }
        };
        return parse::csv(text, delimiter);
    }
    let records = given(source, "records")
        .or_else(|| given(source, "json"))
        .unwrap_or(&Value::Null);
    match records {
        Value::Array(records) => parse::records(records),
        // Some clients send the document as text.
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::Array(records)) => parse::records(&records),
            Ok(_) => Err(Refusal::input(
                "payload.json",
                "json must be an array of objects",
            )),
            Err(error) => Err(Refusal::input("payload.json", format!("not JSON: {error}"))),
        },
        _ => Err(Refusal::input(
            "payload.records",
            "records must be an array of objects",
        )),
    }
}

fn report(table: &Table) -> Value {
    let columns: Vec<Value> = table
        .columns
        .iter()
        .map(|(name, cells)| column::describe(name, cells))
        .collect();
    let mut report = json!({
        "agent": "data-processor",
        "format": table.format,
        "rows": table.rows,
        "columns": columns,
        "row_errors": table.errors,
        "row_errors_total": table.errors_total,
    });
    if let Some(delimiter) = table.delimiter {
        report["delimiter"] = json!(char::from(delimiter).to_string());
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(payload: Value) -> Result<Value, Refusal> {
        carry_out(&Step {
            payload: payload.as_object().unwrap().clone(),
            ..Step::default()
        })
    }

    fn column<'a>(report: &'a Value, name: &str) -> &'a Value {
        report["columns"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["name"] == name)
            .unwrap()
    }

    const SALES: &str = "region;units;price;day;paid;code
north;10;1.5;2026-01-02;true;007
south;20;2.5;2026-01-01;false;008
north;30;NA;2026-01-03;true;009
broken;line
west;40;4;2026-02-01;TRUE;010
";

    #[test]
    fn a_table_of_every_type() {
        let report = ask(json!({"csv": SALES})).unwrap();
        assert_eq!(report["rows"], 4);
        assert_eq!(report["delimiter"], ";");
        assert_eq!(report["row_errors_total"], 1);
        assert_eq!(
            report["row_errors"],
            json!([{"line": 5, "fault": "2 fields instead of 6"}])
        );
        assert_eq!(
            column(&report, "units"),
            &json!({"name":"units","type":"integer","count":4,"nulls":0,"distinct":4,
                "min":10,"max":40,"mean":25.0,"stddev":12.9099,"sum":100,
                "quantiles":{"p05":11.5,"p25":17.5,"p50":25.0,"p75":32.5,"p95":38.5},"median":25.0,
                "top":[{"value":"10","count":1},{"value":"20","count":1},{"value":"30","count":1},{"value":"40","count":1}]})
        );
        let price = column(&report, "price");
        assert_eq!(
            (&price["type"], &price["nulls"]),
            (&"float".into(), &1.into())
        );
        let day = column(&report, "day");
        assert_eq!(day["type"], "date");
        assert_eq!(
            (&day["min"], &day["max"]),
            (&"2026-01-01".into(), &"2026-02-01".into())
        );
        assert_eq!(column(&report, "paid")["type"], "boolean");
        assert_eq!(column(&report, "paid")["true"], 3);
        assert_eq!(column(&report, "code")["type"], "string");
        let region = column(&report, "region");
        assert_eq!(region["top"][0], json!({"value":"north","count":2}));
        assert_eq!(region["max_length"], 5);
    }

    #[test]
    fn records_keep_their_types() {
        let report = ask(json!({"records": [
            {"a": 1, "b": "x"}, {"a": 2.5, "c": null}, 7, {"a": "1", "b": {"deep": true}}
        ]}))
        .unwrap();
        assert_eq!(report["rows"], 3);
        assert_eq!(report["row_errors"][0]["line"], 3);
        // A text among numbers makes a column of texts.
        assert_eq!(column(&report, "a")["type"], "string");
        assert_eq!(column(&report, "b")["nulls"], 1);
        assert_eq!(column(&report, "c")["type"], "empty");
        let text = ask(json!({"json": "[{\"a\": 1}]"})).unwrap();
        assert_eq!(column(&text, "a")["type"], "integer");
    }

    #[test]
    fn an_earlier_steps_data_will_do() {
        let step = Step {
            incoming_data: json!({"s1": {"agent": "x", "data": {"csv": "a,b\n1,2\n"}}})
                .as_object()
                .unwrap()
                .clone(),
            ..Step::default()
        };
        assert_eq!(carry_out(&step).unwrap()["rows"], 1);
    }

    #[test]
    fn quotes_and_sniffing() {
        let report = ask(json!({"csv": "name,text\na,\"x;y;z, \"\"q\"\"\nnext\"\nb,c\n"})).unwrap();
        assert_eq!(report["delimiter"], ",");
        assert_eq!(report["rows"], 2);
        let given = ask(json!({"csv": "a b\n1 2\n", "delimiter": " "})).unwrap();
        assert_eq!(column(&given, "b")["type"], "integer");
        let single = ask(json!({"csv": "only\n1\n2\n"})).unwrap();
        assert_eq!(column(&single, "only")["sum"], 3);
    }

    #[test]
    fn wrong_input_is_named() {
        for (payload, wanted) in [
            (json!({}), "no data"),
            (json!({"csv": null}), "no data"),
            (json!({"csv": 3}), "csv must be text"),
            (json!({"csv": ""}), "header"),
            (json!({"csv": "a,a\n1,2"}), "twice"),
            (json!({"csv": "a\n1", "delimiter": ";;"}), "one ASCII"),
            (json!({"csv": "a\n1", "delimiter": "\""}), "delimiter"),
            (json!({"records": {}}), "array"),
            (json!({"json": "{"}), "not JSON"),
        ] {
            let refusal = ask(payload).unwrap_err();
            assert!(refusal.detail().contains(wanted), "{refusal:?}");
        }
    }

    #[test]
    fn odd_cells_do_not_hurt() {
        let report = ask(json!({"csv": "a\ninf\nNaN\n1e400\n-0\n99999999999999999999\n"})).unwrap();
        assert_eq!(report["rows"], 5);
        assert_eq!(
            column(&report, "a")["type"],
            "string",
            "what is no finite number is text"
        );
    }

    #[test]
    fn an_open_quote_is_named() {
        let report = ask(json!({"csv": "a,b\n\"1,2\n3,4\n"})).unwrap();
        assert_eq!(
            (&report["rows"], &report["row_errors_total"]),
            (&0.into(), &1.into())
        );
        let error = &report["row_errors"][0];
        assert_eq!(error["line"], 2);
        let fault = error["fault"].as_str().unwrap();
        assert!(fault.contains("quote that opens on line 2"), "{fault}");
        // As many fields as there should be do not make it a row.
        let report = ask(json!({"csv": "\u{feff}a,b\n1,2\n\n3,\"4\n5,6\n"})).unwrap();
        assert_eq!(report["rows"], 1);
        assert_eq!(report["row_errors"][0]["line"], 4);
        let refusal = ask(json!({"csv": "a,\"b\n1,2\n"})).unwrap_err();
        assert!(refusal.detail().contains("line 1"), "{refusal:?}");
    }

    #[test]
    fn dates_are_compared_as_moments() {
        let report =
            ask(json!({"csv": "at\n2026-01-01T23:00:00-05:00\n2026-01-02T01:00:00+05:00\n"}))
                .unwrap();
        let at = column(&report, "at");
        assert_eq!(at["type"], "date");
        assert_eq!(at["min"], "2026-01-02T01:00:00+05:00");
        assert_eq!(at["max"], "2026-01-01T23:00:00-05:00");
        let report = ask(json!({"records": [{"at": "2026-01-01T-----"}]})).unwrap();
        assert_eq!(column(&report, "at")["type"], "string");
    }

    #[test]
    fn integers_stay_exact() {
        let report =
            ask(json!({"csv": "a\n9007199254740993\n9007199254740995\n9007199254740997\n"}))
                .unwrap();
        let a = column(&report, "a");
        assert_eq!(a["min"], 9_007_199_254_740_993_u64);
        assert_eq!(a["max"], 9_007_199_254_740_997_u64);
        assert_eq!(a["sum"], 27_021_597_764_222_985_u64);
        assert_eq!(a["median"], 9_007_199_254_740_995_u64);
        let report = ask(json!({"records": [{"a": u64::MAX}, {"a": u64::MAX}]})).unwrap();
        let a = column(&report, "a");
        assert_eq!(
            (&a["type"], &a["min"]),
            (&"integer".into(), &u64::MAX.into())
        );
        // Beyond what a JSON number here can hold.
        assert_eq!(a["sum"], "36893488147419103230");
    }

    #[test]
    fn a_figure_that_is_too_large_is_named() {
        let report = ask(json!({"records": [{"a": 1e308}, {"a": 1e308}, {"a": -1e308}]})).unwrap();
        let a = column(&report, "a");
        assert_eq!(a["sum"], 1e308);
        let overflow = a["overflow"].to_string();
        assert!(
            overflow.contains("stddev") && overflow.contains("p05"),
            "{a}"
        );
        assert_eq!(
            (&a["median"], a["quantiles"].get("p05")),
            (&1e308.into(), None)
        );
        let report = ask(json!({"records": [{"a": 1e308}, {"a": 1e308}]})).unwrap();
        let a = column(&report, "a");
        assert_eq!(a["overflow"], json!(["sum"]));
        assert!(a.get("sum").is_none());
        let most = i128::MAX;
        let report = ask(json!({"csv": format!("a\n{most}\n{most}\n")})).unwrap();
        assert_eq!(column(&report, "a")["overflow"], json!(["sum"]));
        assert_eq!(column(&report, "a")["max"], most.to_string());
    }

    #[test]
    fn names_are_trimmed_and_null_is_nothing() {
        let report = ask(json!({"csv": "a, b\n1, 2\n"})).unwrap();
        assert_eq!(column(&report, "b")["sum"], 2);
        let report = ask(json!({"csv": null, "records": [{"a": 1}], "json": null})).unwrap();
        assert_eq!(report["rows"], 1);
        let refusal = ask(json!({"csv": "a, a\n1,2\n"})).unwrap_err();
        assert!(refusal.detail().contains("twice"), "{refusal:?}");
    }
}
