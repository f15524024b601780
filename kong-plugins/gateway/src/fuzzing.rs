//! What a fuzz target reaches of the inside: reading a kong.yml, and the route of a request.

use crate::checked::Checked;
use crate::hygiene;
use crate::proxy::subject::Subject;
use http::Request;

/// The routes of a kong.yml.
#[derive(Debug)]
pub struct Routes(crate::routes::Table);

/// The route that a request takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub route: String,
    /// The beginning of the path by which it takes the request.
    pub prefix: String,
}

/// The request is refused before it is routed.
#[derive(Debug)]
pub struct Refused;

impl Routes {
    /// Checks a kong.yml as [`crate::build()`] does.
    ///
    /// # Errors
    /// All that cannot be run.
    pub fn read(config: &mesh_declarative::Config) -> Result<Self, Vec<String>> {
        let checked = Checked::read(config)?;
        Ok(Self(checked.table))
    }

    /// The path of a request in its normal form, and its route.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn find(&self, request: &Request<()>) -> Result<(String, Option<Found>), Refused> {
        let subject = Subject::read(request).map_err(|_| Refused)?;
        let mut headers = request.headers().clone();
        hygiene::clean_request(&mut headers);
        let found = self
            .0
            .find(request.method(), &subject.host, &subject.path, &headers);
        let found = found.map(|found| Found {
            route: found.destination.route.to_string(),
            prefix: found.prefix.to_owned(),
        });
        Ok((subject.path, found))
    }
}

impl Found {
    /// The path that a service with the path `base` receives.
    pub fn service_path(&self, base: &str, path: &str, strip: bool) -> String {
        crate::path::join(base, path, &self.prefix, strip)
    }
}
