//! What a broker's URL says: virtual host, user, password.

use percent_encoding::percent_decode_str;

/// Where a broker's URL leads, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    /// The virtual host; `/` where the URL has no path.
    pub vhost: String,
    /// The user; `guest` where the URL has none, as client libraries have it.
    pub user: String,
    /// The password; `guest` where the URL has none.
    pub password: String,
}

impl Place {
    /// Reads a URL; none for what is no broker's URL.
    pub fn of(url: &str) -> Option<Self> {
        let url = url::Url::parse(url).ok()?;
        if !matches!(url.scheme(), "amqp" | "amqps") {
            return None;
        }
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let or_guest = |text: &str| match text {
            "" => "guest".to_owned(),
            text => plain(text),
        };
        Some(Self {
            vhost: url
                .path()
                .strip_prefix('/')
                .map_or_else(|| "/".to_owned(), plain),
            user: or_guest(url.username()),
            password: url.password().map_or_else(|| "guest".to_owned(), plain),
        })
    }
}

// It holds a password.
impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place")
            .field("vhost", &self.vhost)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_user_and_password() {
        let of = |url| {
            let place = Place::of(url).unwrap();
            (place.vhost, place.user, place.password)
        };
        let said = |vhost: &str, user: &str, password: &str| {
            (vhost.to_owned(), user.to_owned(), password.to_owned())
        };
        assert_eq!(of("amqp://h"), said("/", "guest", "guest"));
        assert_eq!(of("amqp://h:5672/%2f"), said("/", "guest", "guest"));
        assert_eq!(of("amqps://u:p%40@h/v%20w"), said("v w", "u", "p@"));
        assert_eq!(Place::of("http://h/"), None);
    }
}
