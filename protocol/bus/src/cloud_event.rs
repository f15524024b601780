//! What a message says of the event that it tells of: CloudEvents 1.0 in binary mode, as its AMQP binding has it
//! (attributes as headers with the prefix `cloudEvents:`; the body stays what it is).

/// The attributes of one event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CloudEvent {
    /// Tells it apart among the events of its source.
    pub id: String,
    /// What happened.
    pub kind: String,
    /// Who says so, as a URI reference.
    pub source: String,
    /// When, in RFC 3339.
    pub time: String,
    /// What it happened to.
    pub subject: String,
}

/// The version of the specification.
pub(crate) const VERSION: &str = "1.0";
/// The header of the version.
pub(crate) const HEADER_VERSION: &str = "cloudEvents:specversion";
const ID: &str = "cloudEvents:id";
const KIND: &str = "cloudEvents:type";
const SOURCE: &str = "cloudEvents:source";
const TIME: &str = "cloudEvents:time";
const SUBJECT: &str = "cloudEvents:subject";

impl CloudEvent {
    /// The attributes as headers, but for the version.
    pub(crate) fn to_headers(&self) -> [(&'static str, &str); 5] {
        [
            (ID, &self.id),
            (KIND, &self.kind),
            (SOURCE, &self.source),
            (TIME, &self.time),
            (SUBJECT, &self.subject),
        ]
    }

    /// The event of a message that has the headers that every event needs.
    pub(crate) fn from_headers(header: impl Fn(&str) -> Option<String>) -> Option<Box<Self>> {
        if header(HEADER_VERSION)? != VERSION {
            return None;
        }
        Some(Box::new(Self {
            id: header(ID)?,
            kind: header(KIND)?,
            source: header(SOURCE)?,
            time: header(TIME).unwrap_or_default(),
            subject: header(SUBJECT).unwrap_or_default(),
        }))
    }

    /// Bytes of all of it.
    pub(crate) fn size(&self) -> usize {
        self.to_headers().iter().map(|(_, text)| text.len()).sum()
    }
}
