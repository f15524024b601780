//! The log of a program: to the standard error, as text or JSON, with a filter that can be changed while the
//! program runs.
//!
//! A log is the process's, so this is for `main` alone; what changes the filter is handed to whoever offers
//! that to people.

use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// Longest filter, in bytes: a level for each of some hundred modules.
pub const MAX_FILTER: usize = 4096;
/// What is logged when nobody says otherwise.
const DEFAULT: &str = "info";

/// Why a log is not set up, or its filter not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The filter is none.
    #[error("not a filter such as info,mesh_sidecar=debug: {0}")]
    Filter(String),
    /// The form is neither of the two.
    #[error("a log is text or json")]
    Format,
    /// The process has a log already, or none any more.
    #[error("{0}")]
    Subscriber(String),
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: an object a line.
    Json,
}

impl FromStr for Format {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(LogError::Format),
        }
    }
}

/// How a log begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The form of its lines.
    pub format: Format,
    /// What is written, in the words of `tracing_subscriber::EnvFilter`.
    pub filter: String,
}

impl Settings {
    /// What the environment says: `LOG_FORMAT` (`text` or `json`), else `format`, and `RUST_LOG`, else `info`.
    /// An empty variable counts as unset.
    ///
    /// # Errors
    /// [`LogError`]; a filter is read when the log is set up.
    pub fn from_environment(
        format: Format,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, LogError> {
        let get = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        Ok(Self {
            format: get("LOG_FORMAT").map_or(Ok(format), |text| text.parse())?,
            filter: get("RUST_LOG").unwrap_or_else(|| DEFAULT.to_owned()),
        })
    }
}

/// Changes what a log writes; clones are the same handle.
#[derive(Debug, Clone)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    text: Arc<Mutex<String>>,
}

impl LogHandle {
    /// Writes from now on what `filter` says, such as `info,mesh_sidecar=debug`.
    ///
    /// # Errors
    /// [`LogError`]; what was written goes on being written.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        let filter = filter.trim();
        check(filter)?;
        let read = read(filter)?;
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        self.filter
            .reload(read)
            .map_err(|e| LogError::Subscriber(e.to_string()))?;
        filter.clone_into(&mut text);
        Ok(())
    }

    /// The filter that holds.
    pub fn filter(&self) -> String {
        self.text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Makes the log of this process.
///
/// # Errors
/// [`LogError`], when the filter is none or there is a log.
pub fn install(settings: &Settings) -> Result<LogHandle, LogError> {
    let (subscriber, handle) = subscriber(settings)?;
    tracing::subscriber::set_global_default(subscriber)
        .map_err(|e| LogError::Subscriber(e.to_string()))?;
    Ok(handle)
}

/// Makes a log for whoever installs it; the handle works as long as it lives.
///
/// # Errors
/// The filter is none.
pub fn subscriber(
    settings: &Settings,
) -> Result<(impl Subscriber + Send + Sync + use<>, LogHandle), LogError> {
    let (filter, handle) = reload::Layer::new(read(&settings.filter)?);
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match settings.format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Format::Json => lines.json().boxed(),
    };
    let handle = LogHandle {
        filter: handle,
        text: Arc::new(Mutex::new(settings.filter.clone())),
    };
    Ok((Registry::default().with(filter).with(lines), handle))
}

fn read(filter: &str) -> Result<EnvFilter, LogError> {
    // No pattern in a filter is worth a regular expression of a stranger's.
    EnvFilter::builder()
        .with_regex(false)
        .parse(filter)
        .map_err(|e| LogError::Filter(e.to_string()))
}

/// Finds what is a filter by its form, and silences the log: a level that is misspelt is the name of a module.
fn check(filter: &str) -> Result<(), LogError> {
    if filter.is_empty() {
        return Err(LogError::Filter("it is empty".to_owned()));
    }
    if filter.len() > MAX_FILTER {
        return Err(LogError::Filter(format!(
            "it is longer than {MAX_FILTER} bytes"
        )));
    }
    // Fields of spans may hold commas.
    if filter.contains('[') {
        return Ok(());
    }
    let level = |part: &str| part.parse::<LevelFilter>().is_ok();
    let misspelt = filter.split(',').find(|part| {
        let level_of = part.split_once('=').map_or(*part, |(_, level)| level);
        level_of.trim().is_empty() || !level(level_of.trim())
    });
    match misspelt {
        None => Ok(()),
        Some(part) => Err(LogError::Filter(format!(
            "`{}` is no level, and no module with a level",
            part.escape_debug()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(filter: &str) -> Settings {
        Settings {
            format: Format::Json,
            filter: filter.to_owned(),
        }
    }

    #[test]
    fn the_filter_changes_while_it_runs() {
        let (subscriber, handle) = subscriber(&settings("warn")).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            assert!(!tracing::enabled!(tracing::Level::DEBUG));
            handle.set(" info,mesh_trace=debug\n").unwrap();
            assert_eq!(handle.filter(), "info,mesh_trace=debug");
            assert!(tracing::enabled!(tracing::Level::DEBUG));
            assert!(!tracing::enabled!(target: "other", tracing::Level::DEBUG));
        });
    }

    #[test]
    fn a_bad_filter_changes_nothing() {
        let (subscriber, handle) = subscriber(&settings("info")).unwrap();
        let long = "a=info,".repeat(MAX_FILTER / 7 + 1);
        for bad in ["", "inof", "info,,", "a=b=c", "mesh=loud", "[a=info", &long] {
            let outcome = handle.set(bad);
            assert!(matches!(outcome, Err(LogError::Filter(_))), "{bad}");
        }
        assert_eq!(handle.filter(), "info");
        handle.set("off").unwrap();
        handle
            .set("info,h2=warn,[trace{trace_id=1}]=debug")
            .unwrap();
        drop(subscriber);
        assert!(matches!(handle.set("info"), Err(LogError::Subscriber(_))));
    }

    #[test]
    fn the_environment_says_how_it_begins() {
        let read = |format: &'static str, filter: &'static str| {
            let get = move |name: &str| match name {
                "LOG_FORMAT" => Some(format.to_owned()),
                _ => Some(filter.to_owned()),
            };
            Settings::from_environment(Format::Text, &get)
        };
        assert_eq!(read("json", "debug").unwrap(), settings("debug"));
        assert_eq!(read("", "").unwrap().format, Format::Text);
        assert_eq!(read("", " ").unwrap().filter, "info");
        assert_eq!(read("xml", ""), Err(LogError::Format));
    }
}
