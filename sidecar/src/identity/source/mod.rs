//! Where certificates come from.

mod consul;
mod development;
mod files;
mod vault;

use super::IdentityError;
use super::material::{Material, MaterialError};
use crate::api::ApiError;
use crate::config::{Consul, Identity, IdentitySource, ServiceName};
use async_trait::async_trait;

/// Why a source brings nothing. It is asked again whatever the reason: what is wrong is mended elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SourceError {
    /// It cannot be reached, or answers with an error of its own.
    #[error("{0}")]
    Away(String),
    /// It refuses: a token without the right, a trust domain that is not ours.
    #[error("{0}")]
    Refused(String),
    /// What it brought is not used.
    #[error("{0}")]
    Material(#[from] MaterialError),
    /// What it brought passed every check and rustls cannot use it.
    #[error("{0}")]
    Unusable(String),
}

impl SourceError {
    /// Every [`SourceError::label`].
    pub(super) const LABELS: [&'static str; 3] = ["away", "refused", "unusable"];

    /// The kind, for metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Away(_) => "away",
            Self::Refused(_) => "refused",
            Self::Material(_) | Self::Unusable(_) => "unusable",
        }
    }
}

impl From<ApiError> for SourceError {
    fn from(error: ApiError) -> Self {
        match error {
            error @ ApiError::Unreachable { .. } => Self::Away(error.to_string()),
            ApiError::Away(why) => Self::Away(why),
            ApiError::Illegible(why) => Self::Unusable(why),
            ApiError::Refused(why) => Self::Refused(why),
        }
    }
}

/// A source of certificates.
#[async_trait]
pub(super) trait Source: Send {
    /// A certificate and the trust bundle. Ends within the source's own time limits.
    async fn issue(&mut self) -> Result<Material, SourceError>;

    /// Ends when asking again may bring something else, though the certificate is not due yet; for most sources
    /// never. May be dropped at any point and called again.
    async fn changed(&mut self) {
        std::future::pending().await
    }
}

/// The source that `config` names.
pub(super) fn open(
    service: &ServiceName,
    config: &Identity,
    consul: Option<&Consul>,
) -> Result<Box<dyn Source>, IdentityError> {
    let fault = |why: &str| IdentityError::Config(why.to_owned());
    let trust_domain = config.trust_domain.clone();
    let named = || {
        let trust_domain = trust_domain.clone();
        trust_domain.ok_or_else(|| fault("trust_domain is needed with this source"))
    };
    Ok(match &config.source {
        IdentitySource::None => return Err(fault("there is no source of certificates")),
        IdentitySource::Files {
            certificate,
            key,
            roots,
        } => {
            let paths = [certificate.clone(), key.clone(), roots.clone()];
            Box::new(files::Files::new(paths, named()?))
        }
        IdentitySource::Development {
            directory,
            lifetime_s,
        } => Box::new(development::Development::new(
            service,
            named()?,
            directory.clone(),
            *lifetime_s,
        )),
        IdentitySource::Consul {} => {
            let settings = consul.ok_or_else(|| fault("source consul needs registry.consul"))?;
            let source = consul::Consul::new(service, trust_domain, settings);
            Box::new(source.map_err(IdentityError::Config)?)
        }
        IdentitySource::Vault {
            url,
            mount,
            role,
            token,
            token_file,
            ca_file,
        } => {
            let token = (token.as_ref(), token_file.as_ref());
            let ca = ca_file.as_deref();
            let source = vault::Vault::new(service, &named()?, url, mount, role, token, ca);
            Box::new(source.map_err(IdentityError::Config)?)
        }
    })
}
